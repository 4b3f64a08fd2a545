//! `aio-worker bundle`: the installer's library makes one file of a release.

use std::process::ExitCode;

use aio_installer::cli::{BundleArgs, run_bundle};

use super::answer::{Answer, of_installer};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    bundle: BundleArgs,
    #[command(flatten)]
    answer: Answer,
}

pub(super) fn run(arguments: Arguments) -> ExitCode {
    let Arguments { bundle, answer } = arguments;
    of_installer(answer, run_bundle(bundle, answer.output))
}
