//! Root's part of updates, behind a socket that the daemon may talk to: verify what it has brought
//! (`trust`, `stage`), let the new version try itself (`rehearsal`), switch by the installation's
//! own transaction (`switch`), watch (`watch`), and go back. `service` puts them in order, `record`
//! is what survives a cut. What to update to, and when, the daemon and its controller decide;
//! whether it is done, this does.

pub(crate) mod record;
mod rehearsal;
mod service;
mod stage;
mod switch;
mod trust;
mod watch;

use std::os::unix::net::UnixListener as StdListener;

use aio_host::layout::Layout;
use aio_protocol::{error_code::ErrorCode, update::RootStatus};
use tokio::net::UnixListener;

use self::service::Service;
pub use self::switch::Timings;
use crate::{
    failure::Failure,
    machine::host::Host,
    transaction::checkpoint::{Checkpoint, Uneventful},
};

/// Serves the requests that come over `listener` until there is nothing to do.
pub async fn serve(host: &Host, listener: StdListener, timings: Timings) -> Result<(), Failure> {
    serve_with(host, listener, timings, &Uneventful).await
}

/// The same, for tests that break it at every moment.
pub async fn serve_with(
    host: &Host,
    listener: StdListener,
    timings: Timings,
    checkpoint: &dyn Checkpoint,
) -> Result<(), Failure> {
    let listening = listener.set_nonblocking(true).and_then(|()| UnixListener::from_std(listener));
    let listener = listening.map_err(|error| {
        Failure::new(ErrorCode::Internal, format!("this is no socket to listen on: {error}"))
    })?;
    Service { host, timings, checkpoint }.serve(&listener).await
}

/// Takes up, at boot and before the worker, what a cut has left.
pub async fn recover(host: &Host, timings: Timings) -> Result<(), Failure> {
    Service { host, timings, checkpoint: &Uneventful }.recover().await
}

/// What root has last said of updates on this machine.
pub fn status(layout: &Layout) -> Result<RootStatus, Failure> {
    record::read(layout)
}

/// Why the installer's lock is held, where an update holds it.
pub(crate) fn explain(layout: &Layout, failure: Failure) -> Failure {
    let update = record::read(layout).ok().and_then(|status| Some((record::under_way(&status)?, status)));
    let Some((update, status)) = update.filter(|_| failure.code == ErrorCode::InstallLocked) else {
        return failure;
    };
    let until = status.until.map(|until| format!(" until {until}")).unwrap_or_default();
    let message = format!(
        "an update from {} to {} is under way and is watched{until}; aio-worker update revert ends it",
        update.from, update.version
    );
    Failure::new(ErrorCode::UpdateBusy, message)
}

/// Says of an update that an installation has just undone that it was interrupted.
pub(crate) fn undone(layout: &Layout) -> Result<(), Failure> {
    let status = record::read(layout)?;
    let Some(update) = record::under_way(&status) else { return Ok(()) };
    let message = format!("{} was cut off, and an installation has taken its place", update.version);
    let why = Failure::new(ErrorCode::UpdateInterrupted, message);
    record::ended(layout, &update, aio_protocol::update::Verdict::Interrupted, Some(&why), watch::now())
}

/// Takes away what updates have left, for an uninstallation.
pub(crate) fn forget(layout: &Layout) -> Result<(), Failure> {
    stage::discard(layout)?;
    aio_host::files::remove_file(&layout.trust())?;
    Ok(())
}
