//! Puts aio-worker on a machine, or leaves the machine as it was: observe → plan → journal → apply, and undo on any failure.
//! Install, upgrade and rollback are one code path. `uninstall` is the way
//! back to before. Decides nothing about the daemon, which it only starts and asks how it is.
//!
//! `install` is the flow, `plan` the decision, `step/` one file per thing that is done, `journal` and `undo` what makes it a
//! transaction.

mod accounts;
mod adoption;
mod apply;
mod bundle;
pub mod cli;
pub mod command_line;
mod config_text;
pub mod console;
mod controller;
pub mod doctor;
mod download;
mod failure;
mod http;
pub mod install;
mod journal;
mod lock;
mod observe;
mod offer;
mod online;
mod plan;
mod present;
mod proxy;
mod release_key;
mod report;
mod service_log;
mod step;
mod token;
mod undelivered;
mod undo;
pub mod uninstall;
mod verify;

pub use accounts::{Accounts, Ran, SystemAccounts};
pub use apply::{Checkpoint, Point, Uneventful};
pub use failure::Failure;
pub use service_log::{Journald, Lines, ServiceLog};
pub use step::STEPS;
pub use token::NodeToken;
