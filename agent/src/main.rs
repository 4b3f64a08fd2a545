//! `aio-worker`: the daemon and the command line of a node.

use std::process::ExitCode;

use aio_installer::cli::parse;
use aio_worker::cli::Cli;

fn main() -> ExitCode {
    aio_host::tls::install_provider();
    match parse::<Cli>() {
        Ok(cli) => cli.run(),
        Err(status) => status,
    }
}
