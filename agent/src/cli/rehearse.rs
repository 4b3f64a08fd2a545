//! `aio-worker rehearse`: what an update does with a new version before it switches, as the daemon's
//! user and in its sandbox. Reads what `start` reads, connects, and closes. Answers root: nothing,
//! or one line of JSON that says why not.

use std::{process::ExitCode, time::Duration};

use aio_installer::cli::{Failure, command_line, print};
use secrecy::ExposeSecret;
use serde_json::json;

use super::answer::runtime;
use crate::{
    config::{Flags, WorkerConfig, environment},
    confinement::forbid_execution,
    logging,
    session::rehearsal::rehearse,
};

/// As long as an update gives the new version.
const PATIENCE: Duration = Duration::from_secs(15);

pub(super) fn run(flags: &Flags) -> ExitCode {
    match attempt(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, message, .. }) => {
            let line = json!({ "code": code.as_str(), "message": message });
            // Root has the exit status besides.
            let _ = print(&format!("{line}\n"));
            code.exit_status().into()
        }
    }
}

fn attempt(flags: &Flags) -> Result<(), Failure> {
    if let Some(token) = &flags.token {
        command_line::hide(token.expose_secret());
    }
    let config = WorkerConfig::load(flags, &environment)?;
    logging::parse(&config.log)?;
    // The daemon goes on where a kernel has no such thing, too.
    let _ = forbid_execution();
    let runtime = runtime()?;
    let outcome = runtime.block_on(rehearse(&config, PATIENCE));
    runtime.shutdown_background();
    outcome.map(drop)
}
