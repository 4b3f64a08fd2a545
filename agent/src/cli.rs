//! The command line: what can be said, and who answers. Each command has a file of its own.

mod answer;
mod bundle;
mod completions;
mod config;
mod containers;
mod credentials;
mod doctor;
mod gpu;
mod gpus;
mod install;
mod installed;
mod inventory;
mod journal;
mod logs;
mod man;
mod paint;
mod rehearse;
mod services;
mod start;
mod status;
mod support_bundle;
mod uninstall;
mod update;
mod updater;
mod version;

use std::process::ExitCode;

use aio_installer::cli::Output;
use aio_protocol::release::build;
use clap::{CommandFactory, Parser, Subcommand};

use self::answer::{concluded, ended, forbid_dumps};

/// Connects this GPU node to its AIWM controller.
#[derive(Debug, Parser)]
#[command(name = "aio-worker", version = build::version(), arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Commands that answer take --output json, for programs. Every error has a code, which docs/troubleshooting.md explains.

Examples:
  sudo aio-worker install --token-file token   Put this machine to work as the node that the token is of
  aio-worker status                            Is it online?
  sudo aio-worker doctor                       If not, why?
  sudo aio-worker logs --follow                What is it doing?";

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the daemon; systemd does this.
    Start(crate::config::Flags),
    /// Tries configuration, token and connection, and changes nothing; an update does this before it
    /// switches.
    #[command(hide = true)]
    Rehearse(crate::config::Flags),
    /// Installs the worker on this machine and waits until the controller sees it online.
    Install(install::Arguments),
    /// Takes the worker off this machine, and puts back what it replaced.
    Uninstall(uninstall::Arguments),
    /// Makes one file of a release, for machines that reach no release server.
    Bundle(bundle::Arguments),
    /// Looks at what the worker needs on this machine, and says what is wrong and what to do.
    Doctor(doctor::Arguments),
    /// Says how the running worker stands with its controller.
    Status(status::Arguments),
    /// Says what this machine is made of, GPUs included; needs no root, daemon or driver.
    Inventory(inventory::Arguments),
    /// Says how this node takes updates, and lets its operator have a word.
    Update(update::Arguments),
    /// Has the daemon let go of the GPUs, for a reset or another driver.
    Gpu(gpu::Arguments),
    /// Says what the service has said: its lines in the journal.
    Logs(logs::Arguments),
    /// Looks at what the daemon is told, without starting it.
    Config(config::Arguments),
    /// Sets what this node logs in with at an AIWM.
    Credentials(credentials::Arguments),
    /// Gathers in one file, without secrets, what is needed to find out why this node does not work.
    SupportBundle(support_bundle::Arguments),
    /// Does root's part of updates; systemd runs it.
    #[command(hide = true)]
    Updater(updater::Arguments),
    /// Prints what a shell needs to complete this command line.
    Completions(completions::Arguments),
    /// Prints the manual page, or writes the pages of all commands.
    Man(man::Arguments),
    /// Says which version this is.
    Version(version::Arguments),
}

impl Cli {
    /// Does what was said.
    pub fn run(self) -> ExitCode {
        paint::decide();
        // The daemon does it when its token is no longer on its command line.
        if !matches!(self.command, Command::Start(_)) {
            forbid_dumps();
        }
        match self.command {
            Command::Start(flags) => concluded(start::run(&flags), Output::Text),
            Command::Rehearse(flags) => rehearse::run(&flags),
            Command::Install(arguments) => install::run(arguments),
            Command::Uninstall(arguments) => uninstall::run(arguments),
            Command::Bundle(arguments) => bundle::run(arguments),
            Command::Doctor(arguments) => doctor::run(arguments),
            Command::Status(arguments) => ended(status::run(&arguments), arguments.answer.output),
            Command::Inventory(arguments) => concluded(inventory::run(&arguments), arguments.answer.output),
            Command::Update(arguments) => concluded(update::run(&arguments), arguments.output()),
            Command::Gpu(arguments) => concluded(gpu::run(&arguments), arguments.output()),
            Command::Logs(arguments) => ended(logs::run(&arguments), arguments.answer.output),
            Command::Config(arguments) => ended(config::run(&arguments), arguments.output()),
            Command::Credentials(arguments) => concluded(credentials::run(&arguments), arguments.output()),
            Command::SupportBundle(arguments) => {
                concluded(support_bundle::run(&arguments), arguments.answer.output)
            }
            Command::Updater(arguments) => concluded(updater::run(arguments), Output::Text),
            Command::Completions(arguments) => {
                concluded(completions::run(&arguments, Self::command()), Output::Text)
            }
            Command::Man(arguments) => concluded(man::run(&arguments, Self::command()), Output::Text),
            Command::Version(arguments) => concluded(version::run(&arguments), arguments.answer.output),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_token_on_the_command_line_is_never_shown() {
        let cli = Cli::parse_from(["aio-worker", "start", "--token", "top.secret.token"]);
        assert!(!format!("{cli:?}").contains("secret"), "{cli:?}");
    }
}
