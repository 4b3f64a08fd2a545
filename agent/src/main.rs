//! `aio-worker`: the daemon and the command line of a node.

use std::process::ExitCode;

use aio_installer::cli::without_empty_variables;
use aio_worker::cli::Cli;
use clap::{CommandFactory, FromArgMatches};

fn main() -> ExitCode {
    aio_host::tls::install_provider();
    let matches = without_empty_variables(Cli::command()).get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()).run()
}
