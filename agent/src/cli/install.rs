//! `aio-worker install`: the installer's own command, in this program's place.

use std::process::ExitCode;

use aio_installer::cli::{InstallArgs, run_install};

use super::answer::{Answer, of_installer};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    install: InstallArgs,
    #[command(flatten)]
    answer: Answer,
}

pub(super) fn run(arguments: Arguments) -> ExitCode {
    let Arguments { install, answer } = arguments;
    of_installer(answer, run_install(install, std::env::current_exe().ok(), answer.output))
}
