//! The fleet simulator: thousands of workers against the real controller, each with its own node,
//! token, socket and session machine (the daemon's own), but none of its threads and files.
//! `scenario` decides what is measured, `worker` is one of them, `controller` the program under
//! test, and `report` the figures. `edge` attacks a controller while good workers and a good user
//! go on. `group` spreads the fleet over several controllers and kills one. `rollout` brings a fleet to
//! another version while its controller is killed.

mod controller;
mod edge;
mod fleet;
mod group;
mod report;
mod rollout;
mod scenario;
mod showcase;
mod usage;
mod words;
mod worker;

pub use controller::Dialect;
pub use edge::{EdgeScenario, attack_and_watch, report::EdgeReport};
pub use group::{GroupReport, run_group};
pub use report::Report;
pub use rollout::{RolloutReport, RolloutScenario, crew::Crew, roll_out};
pub use scenario::{Scenario, run};
pub use showcase::Showcase;
pub use usage::ProcessorTime;
pub use words::Mood;
