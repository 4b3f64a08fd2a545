//! The AIWM worker: the daemon that speaks for a node, and the command line of the node.

pub mod aiwm;
pub mod cli;
pub mod config;
pub mod confinement;
pub mod containers;
pub mod endpoint;
pub mod health;
mod limits;
pub mod logging;
pub mod notify;
pub mod reload;
mod resident;
pub mod session;
pub mod status_socket;
mod tally;
pub mod telemetry;
pub mod tokens;
mod undelivered;
pub mod update;
pub mod worker;
