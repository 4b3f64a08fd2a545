//! `aio-installer`: the installation alone, for a machine that has nothing yet. The same code as
//! `aio-worker install`.

use std::process::ExitCode;

use aio_installer::cli::{InstallArgs, Output, parse, run_install};
use aio_protocol::release::build;
use clap::Parser;
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    registry,
    util::SubscriberInitExt,
};

/// Puts aio-worker on this machine, or leaves the machine as it was.
#[derive(Debug, Parser)]
#[command(name = "aio-installer", version = build::version())]
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
    // The token is in no image of this process's memory; where that cannot be, the installation
    // goes on.
    let _ = aio_host::process::forbid_dumps();
    let Command { install, output } = match parse() {
        Ok(command) => command,
        Err(status) => return status,
    };
    let filter = std::env::var("AIO_LOG").ok().and_then(|filter| filter.parse::<Targets>().ok());
    let usual = || {
        Targets::new()
            .with_default(LevelFilter::WARN)
            .with_target(aio_host::tls::STORE_LOG_TARGET, LevelFilter::ERROR)
    };
    let filter = filter.unwrap_or_else(usual);
    registry().with(filter).with(fmt::layer().log_internal_errors(false).with_writer(std::io::stderr)).init();
    run_install(install, None, output).await
}
