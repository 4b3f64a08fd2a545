//! `aio-worker config`: what the daemon is told, looked at without starting it.

mod check;
mod examination;
mod file;
mod finding;
mod show;

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
    /// Says what each key is for the daemon, and who says so.
    Show(show::Arguments),
}

impl Arguments {
    pub(super) fn output(&self) -> Output {
        match &self.command {
            Command::Check(arguments) => arguments.answer.output,
            Command::Show(arguments) => arguments.answer.output,
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    match &arguments.command {
        Command::Check(arguments) => check::run(arguments),
        Command::Show(arguments) => show::run(arguments),
    }
}
