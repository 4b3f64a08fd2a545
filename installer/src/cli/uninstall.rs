//! `uninstall`: arguments and exit status.

use std::process::ExitCode;

use clap::Args;

use super::{
    answer::Running,
    present::{Output, conclude, print_removed},
    this_machine::{interrupted, this_machine},
};
use crate::{
    failure::Failure,
    transaction::checkpoint::Uneventful,
    uninstall::{Removal, Removed, uninstall},
};

/// Takes the worker off this machine.
#[derive(Debug, Clone, Copy, Args)]
#[command(after_help = "\
The worker says goodbye to its controller and is stopped; then whatever its installations did is undone, and what they replaced \
is put back. The node stays registered with its controller.\n\n\
Exit status: 0 done, or nothing was to be done; otherwise as of install. A run that was cut off is finished by the next.")]
pub struct UninstallArgs {
    /// Remove the configuration, too
    #[arg(long)]
    purge: bool,

    /// Print what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs an uninstallation and prints what came of it.
pub fn run_uninstall(args: UninstallArgs, output: Output) -> Running<ExitCode> {
    Box::pin(async move {
        let done = async { print_removed(&attempt_uninstall(args).await?, output) };
        conclude(done.await, output)
    })
}

async fn attempt_uninstall(args: UninstallArgs) -> Result<Removed, Failure> {
    // From here on a signal kills no more: half an uninstallation serves nobody, and a whole one
    // takes seconds.
    let _deaf = interrupted()?;
    let removal = Removal { purge: args.purge, dry_run: args.dry_run };
    uninstall(&this_machine().await?, removal, &Uneventful).await
}
