//! Puts aio-worker on a machine, or leaves the machine as it was: observe → plan → journal → apply,
//! and undo on any failure. Install, upgrade and rollback are one code path; `uninstall` is the way
//! back to before. Decides nothing about the daemon, which it only starts and asks how it is.
//!
//! The folders, from the top down: `cli` (one file per command), `install`, `uninstall`, `bootstrap`
//! and `update` (the flows), `doctor` (the checks), `transaction` (plan, steps, journal, undo),
//! `release` (what is installed), `controller` (who says so), `machine` (where). No two files import
//! each other.

pub mod bootstrap;
pub mod cli;
pub mod console;
mod controller;
pub mod doctor;
mod failure;
pub mod install;
mod machine;
mod release;
mod request;
mod shipped;
mod token;
mod transaction;
pub mod uninstall;
pub mod update;

pub use controller::aiwm::{AiwmService, Granted};
pub use failure::Failure;
pub use machine::{
    accounts::{Accounts, Ran, SystemAccounts},
    host::Host,
    service_log::{Journald, Lines, ServiceLog, journalctl},
};
pub use release::tree::{ReleaseTree, checksum};
pub use request::{Goal, Interrupt, Request, Surroundings};
pub use token::parse as parse_token;
pub use transaction::{
    checkpoint::{Checkpoint, Point, Uneventful},
    config_text::Settings,
    step::{STEPS, UPDATER_STEPS},
    work::Timing,
};
