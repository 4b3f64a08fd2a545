//! `aio-worker update`: how this node takes updates, and what its operator has to say about it. A
//! file per question; none of them verifies or installs anything: that is root's updater's.

mod check;
mod orders;
mod pin;
mod revert;
mod status;

use aio_installer::cli::{Failure, Output};
use clap::Subcommand;

pub(super) use self::status::progress;
use super::answer::Answer;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  aio-worker update status
  sudo aio-worker update now
  sudo aio-worker update defer 8h
  sudo aio-worker update pin

docs/updates.md says how an update goes.")]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Says where this node is on its way to another version, and how the last update ended.
    Status(status::Arguments),
    /// Says which versions the controller has, without taking one.
    Check(check::Arguments),
    /// Takes what the controller offers now, whatever it waits for at this node.
    Now(orders::NowArguments),
    /// Puts updates off for a while.
    Defer(orders::DeferArguments),
    /// Keeps this node at a version.
    Pin(pin::PinArguments),
    /// Lets this node take other versions again.
    Unpin(pin::UnpinArguments),
    /// Goes back to the version before.
    Revert(revert::Arguments),
}

impl Arguments {
    pub(super) fn output(&self) -> Output {
        let Answer { output } = match &self.command {
            Command::Status(arguments) => arguments.answer,
            Command::Check(arguments) => arguments.answer,
            Command::Now(arguments) => arguments.answer,
            Command::Defer(arguments) => arguments.answer,
            Command::Pin(arguments) => arguments.answer,
            Command::Unpin(arguments) => arguments.answer,
            Command::Revert(arguments) => arguments.answer,
        };
        output
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Command::Status(arguments) => status::run(arguments),
        Command::Check(arguments) => check::run(arguments),
        Command::Now(arguments) => orders::now(arguments),
        Command::Defer(arguments) => orders::defer(arguments),
        Command::Pin(arguments) => pin::pin(arguments),
        Command::Unpin(arguments) => pin::unpin(arguments),
        Command::Revert(arguments) => revert::run(arguments),
    }
}
