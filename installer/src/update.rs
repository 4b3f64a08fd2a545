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

/// Why the installer's lock is held, where an update holds it. Reads no more of its record than it
/// tells: the small installer has no use for the rest.
pub(crate) fn explain(layout: &Layout, failure: Failure) -> Failure {
    let status = std::fs::read(layout.update_status()).unwrap_or_default();
    let status: serde_json::Value = serde_json::from_slice(&status).unwrap_or_default();
    let word = |name: &str| status.get(name).and_then(serde_json::Value::as_str);
    match (failure.code, word("phase"), word("from"), word("version")) {
        (ErrorCode::InstallLocked, Some(phase), Some(from), Some(version)) if phase != "idle" => {
            let until = word("until").map(|until| format!(" until {until}")).unwrap_or_default();
            let message = format!(
                "an update from {from} to {version} is under way and is watched{until}; aio-worker update revert ends it"
            );
            Failure::new(ErrorCode::UpdateBusy, message)
        }
        _ => failure,
    }
}

/// Takes away what updates have left, for an uninstallation.
pub(crate) fn forget(layout: &Layout) -> Result<(), Failure> {
    stage::discard(layout)?;
    aio_host::files::remove_file(&layout.trust())?;
    Ok(())
}
