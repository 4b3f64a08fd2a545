//! `aio-worker version`.

use aio_installer::cli::{Failure, Output};
use aio_protocol::release::Platform;

use super::{Answer, print, print_json};
use crate::telemetry::messages::VERSION;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) answer: Answer,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let platform = platform();
    match arguments.answer.output {
        Output::Json => print_json(&serde_json::json!({ "version": VERSION, "platform": platform })),
        Output::Text => {
            print(&format!("aio-worker {VERSION} ({platform})\n"));
            Ok(())
        }
    }
}

/// As releases are named, or the processor where there is no release for it.
pub(super) fn platform() -> &'static str {
    let architecture = std::env::consts::ARCH;
    Platform::of_architecture(architecture).map_or(architecture, Platform::as_str)
}
