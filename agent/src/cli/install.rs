//! `aio-worker install`: the installer's own command, in this program's place.

use std::process::ExitCode;

use aio_installer::cli::{InstallArgs, print_failure};

use super::{Answer, runtime};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    install: InstallArgs,
    #[command(flatten)]
    answer: Answer,
}

pub(super) fn run(arguments: Arguments) -> ExitCode {
    let Arguments { install, answer } = arguments;
    // The same bytes run as the daemon: what is worth a line there is noise under a progress display.
    let filter = std::env::var("AIO_LOG").ok().filter(|filter| !filter.is_empty());
    let _ = crate::logging::start(filter.as_deref().unwrap_or("warn"));
    match runtime() {
        Ok(runtime) => runtime.block_on(aio_installer::cli::run(install, answer.output)),
        Err(failure) => {
            print_failure(&failure, answer.output);
            failure.code.exit_status().into()
        }
    }
}
