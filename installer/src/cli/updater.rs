//! Root's part of updates as a command, which systemd runs: what it is given is its socket, as
//! standard input.

use std::{os::unix::net::UnixListener, time::Duration};

use aio_protocol::error_code::ErrorCode;
use clap::Args;

use super::{answer::Running, this_machine::this_machine};
use crate::{
    failure::Failure,
    update::{self, Timings},
};

/// Serves root's part of updates; systemd does this.
#[derive(Debug, Clone, Args)]
pub struct UpdaterArgs {
    /// Take up what a cut has left, before the worker starts, and serve nobody
    #[arg(long)]
    recover: bool,

    /// For how long a new version is watched, in seconds: for labs
    #[arg(long, value_name = "SECONDS", env = "AIO_UPDATE_PROBATION", hide = true)]
    probation: Option<u64>,
}

/// Does it.
pub fn run_updater(args: UpdaterArgs) -> Running<Result<(), Failure>> {
    Box::pin(run(args))
}

async fn run(args: UpdaterArgs) -> Result<(), Failure> {
    let host = this_machine().await?;
    let mut timings = Timings::default();
    if let Some(seconds) = args.probation {
        timings.probation = Duration::from_secs(seconds);
    }
    if args.recover {
        return update::recover(&host, timings).await;
    }
    let socket = rustix::stdio::stdin().try_clone_to_owned().map_err(|error| {
        Failure::new(ErrorCode::Usage, format!("standard input is not a socket to listen on: {error}"))
    })?;
    update::serve(&host, UnixListener::from(socket), timings).await
}
