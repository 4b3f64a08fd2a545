//! `aio-worker`: the daemon and the command line of a node.

use std::process::ExitCode;

use aio_worker::cli::Cli;
use clap::Parser;

fn main() -> ExitCode {
    aio_host::tls::install_provider();
    Cli::parse().run()
}
