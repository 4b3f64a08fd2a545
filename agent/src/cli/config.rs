//! `aio-worker config`: what the daemon is told, looked at without starting it.

mod check;
mod examination;
mod file;
mod finding;

use std::process::ExitCode;

use aio_installer::cli::{Failure, Output};
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Says everything that is wrong with the configuration, at once.
    Check(check::Arguments),
}

impl Arguments {
    pub(super) fn output(&self) -> Output {
        match &self.command {
            Command::Check(arguments) => arguments.answer.output,
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    match &arguments.command {
        Command::Check(arguments) => check::run(arguments),
    }
}
