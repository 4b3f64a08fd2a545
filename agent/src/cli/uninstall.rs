//! `aio-worker uninstall`: the installer's library undoes what its journal lists.

use std::process::ExitCode;

use aio_installer::cli::{UninstallArgs, run_uninstall};

use super::answer::{Answer, of_installer};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    uninstall: UninstallArgs,
    #[command(flatten)]
    answer: Answer,
}

pub(super) fn run(arguments: Arguments) -> ExitCode {
    let Arguments { uninstall, answer } = arguments;
    of_installer(answer, run_uninstall(uninstall, answer.output))
}
