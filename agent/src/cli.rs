//! The command line: what can be said, and who answers. Each command has a file of its own.

mod bundle;
mod completions;
mod config;
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
mod services;
mod start;
mod status;
mod support_bundle;
mod uninstall;
mod version;

use std::{process::ExitCode, time::Duration};

use aio_installer::cli::{Failure, Output, print, print_failure, print_part};
use aio_protocol::{error_code::ErrorCode, release::build};
use clap::{Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

use crate::config::Unusable;

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
    /// Has the daemon let go of the GPUs, for a reset or another driver.
    Gpu(gpu::Arguments),
    /// Says what the service has said: its lines in the journal.
    Logs(logs::Arguments),
    /// Looks at what the daemon is told, without starting it.
    Config(config::Arguments),
    /// Gathers in one file, without secrets, what is needed to find out why this node does not work.
    SupportBundle(support_bundle::Arguments),
    /// Prints what a shell needs to complete this command line.
    Completions(completions::Arguments),
    /// Prints the manual page, or writes the pages of all commands.
    Man(man::Arguments),
    /// Says which version this is.
    Version(version::Arguments),
}

/// How a command answers.
#[derive(Debug, Clone, Copy, clap::Args)]
struct Answer {
    /// How to answer
    #[arg(long, value_enum, default_value_t)]
    output: Output,
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
            Command::Install(arguments) => install::run(arguments),
            Command::Uninstall(arguments) => uninstall::run(arguments),
            Command::Bundle(arguments) => bundle::run(arguments),
            Command::Doctor(arguments) => doctor::run(arguments),
            Command::Status(arguments) => ended(status::run(&arguments), arguments.answer.output),
            Command::Inventory(arguments) => concluded(inventory::run(&arguments), arguments.answer.output),
            Command::Gpu(arguments) => concluded(gpu::run(&arguments), arguments.output()),
            Command::Logs(arguments) => ended(logs::run(&arguments), arguments.answer.output),
            Command::Config(arguments) => ended(config::run(&arguments), arguments.output()),
            Command::SupportBundle(arguments) => {
                concluded(support_bundle::run(&arguments), arguments.answer.output)
            }
            Command::Completions(arguments) => concluded(completions::run(&arguments), Output::Text),
            Command::Man(arguments) => concluded(man::run(&arguments), Output::Text),
            Command::Version(arguments) => concluded(version::run(&arguments), arguments.answer.output),
        }
    }
}

/// A token that this process holds is in no image of its memory.
fn forbid_dumps() {
    if let Err(error) = aio_host::process::forbid_dumps() {
        tracing::warn!(%error, "images of this program's memory cannot be forbidden");
    }
}

/// Prints a failure, and turns it into the exit status that its code has.
fn concluded(result: Result<(), Failure>, output: Output) -> ExitCode {
    ended(result.map(|()| ExitCode::SUCCESS), output)
}

/// The same of a command that ends in several ways without failing.
fn ended(result: Result<ExitCode, Failure>, output: Output) -> ExitCode {
    match result {
        Ok(status) => status,
        Err(failure) => {
            print_failure(&failure, output);
            failure.code.exit_status().into()
        }
    }
}

impl From<Unusable> for Failure {
    fn from(unusable: Unusable) -> Self {
        Self::new(unusable.code, unusable.message)
    }
}

/// Runs a command of the installer's library, which gives its answer itself. What is worth a line of the daemon's log would be noise under its
/// progress, so of the log only warnings are shown.
fn of_installer(answer: Answer, command: impl Future<Output = ExitCode>) -> ExitCode {
    let filter = std::env::var("AIO_LOG").ok().filter(|filter| !filter.is_empty());
    let _ = crate::logging::start(filter.as_deref().unwrap_or("warn"));
    match runtime() {
        Ok(runtime) => runtime.block_on(command),
        Err(failure) => concluded(Err(failure), answer.output),
    }
}

/// One thread, and a few more for what blocks, as long as it does: questions come twice a minute, and a thread that waits for the next
/// would be there all the time.
fn runtime() -> Result<Runtime, Failure> {
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(8)
        .thread_keep_alive(Duration::from_millis(500))
        .build()
        .map_err(|error| internal(format!("the runtime could not be started: {error}")))
}

fn internal(message: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::Internal, message)
}

/// Prints an answer for programs.
fn print_json(answer: &impl serde::Serialize) -> Result<(), Failure> {
    print(&json_line(answer)?)
}

/// An answer for programs, or one of several.
fn json_line(answer: &impl serde::Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string(answer)
        .map_err(|error| internal(format!("the answer could not be written: {error}")))?;
    Ok(text + "\n")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

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
