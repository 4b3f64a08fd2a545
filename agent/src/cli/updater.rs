//! `aio-worker updater`: root's part of updates, which the installer's library does.

use aio_installer::cli::{Failure, UpdaterArgs, run_updater};

use super::answer::runtime;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    updater: UpdaterArgs,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let _ = crate::logging::start("info");
    runtime()?.block_on(run_updater(arguments.updater))
}
