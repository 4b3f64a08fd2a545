//! `aio-installer`: the installation alone, for a machine that has nothing yet. The same code as `aio-worker install`.

use std::process::ExitCode;

use aio_installer::cli::{InstallArgs, Output, run_install};
use clap::Parser;
use tracing_subscriber::EnvFilter;

/// Puts aio-worker on this machine, or leaves the machine as it was.
#[derive(Debug, Parser)]
#[command(name = "aio-installer", version)]
struct Command {
    #[command(flatten)]
    install: InstallArgs,

    /// How to answer
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    aio_host::tls::install_provider();
    let Command { install, output } = Command::parse();
    let filter = EnvFilter::try_from_env("AIO_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    run_install(install, output).await
}
