//! What all commands share: how they answer, how they end, and on what they run.

use std::{process::ExitCode, time::Duration};

use aio_installer::cli::{Failure, Output, print, print_failure};
use aio_protocol::error_code::ErrorCode;
use tokio::runtime::{Builder, Runtime};

/// How a command answers.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Answer {
    /// How to answer
    #[arg(long, value_enum, default_value_t)]
    pub(super) output: Output,
}

/// A token that this process holds is in no image of its memory.
pub(super) fn forbid_dumps() {
    if let Err(error) = aio_host::process::forbid_dumps() {
        tracing::warn!(%error, "images of this program's memory cannot be forbidden");
    }
}

/// Prints a failure, and turns it into the exit status that its code has.
pub(super) fn concluded(result: Result<(), Failure>, output: Output) -> ExitCode {
    ended(result.map(|()| ExitCode::SUCCESS), output)
}

/// The same of a command that ends in several ways without failing.
pub(super) fn ended(result: Result<ExitCode, Failure>, output: Output) -> ExitCode {
    match result {
        Ok(status) => status,
        Err(failure) => {
            print_failure(&failure, output);
            failure.code.exit_status().into()
        }
    }
}

/// Runs a command of the installer's library, which gives its answer itself. What is worth a line
/// of the daemon's log would be noise under its progress, so of the log only warnings are shown.
pub(super) fn of_installer(answer: Answer, command: impl Future<Output = ExitCode>) -> ExitCode {
    let filter = std::env::var("AIO_LOG").ok().filter(|filter| !filter.is_empty());
    let _ = crate::logging::start(filter.as_deref().unwrap_or("warn"));
    match runtime() {
        Ok(runtime) => runtime.block_on(command),
        Err(failure) => concluded(Err(failure), answer.output),
    }
}

/// One thread, and a few more for what blocks, as long as it does: questions come twice a minute,
/// and a thread that waits for the next would be there all the time.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(8)
        .thread_keep_alive(Duration::from_millis(500))
        .build()
        .map_err(|error| internal(format!("the runtime could not be started: {error}")))
}

pub(super) fn internal(message: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::Internal, message)
}

/// Prints an answer for programs.
pub(super) fn print_json(answer: &impl serde::Serialize) -> Result<(), Failure> {
    print(&json_line(answer)?)
}

/// An answer for programs, or one of several.
pub(super) fn json_line(answer: &impl serde::Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string(answer)
        .map_err(|error| internal(format!("the answer could not be written: {error}")))?;
    Ok(text + "\n")
}
