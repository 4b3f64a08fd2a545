//! `aio-worker uninstall`: the installer's library undoes what its journal lists.

use std::process::ExitCode;

use aio_installer::cli::{UninstallArgs, print_failure, run_uninstall};

use super::{Answer, runtime};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    uninstall: UninstallArgs,
    #[command(flatten)]
    answer: Answer,
}

pub(super) fn run(arguments: Arguments) -> ExitCode {
    let Arguments { uninstall, answer } = arguments;
    let filter = std::env::var("AIO_LOG").ok().filter(|filter| !filter.is_empty());
    let _ = crate::logging::start(filter.as_deref().unwrap_or("warn"));
    match runtime() {
        Ok(runtime) => runtime.block_on(run_uninstall(uninstall, answer.output)),
        Err(failure) => {
            print_failure(&failure, answer.output);
            failure.code.exit_status().into()
        }
    }
}
