//! The controller's program: logging and one cryptography provider, then what the command line says.

use std::process::ExitCode;

use clap::Parser;
use controller_stub::{
    cli::{self, Cli},
    logging, memory,
};

fn main() -> ExitCode {
    memory::keep_together();
    run()
}

#[tokio::main]
async fn run() -> ExitCode {
    // It fails only when one is installed already, and there is only this one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = Cli::parse();
    logging::start();
    cli::run(cli).await
}
