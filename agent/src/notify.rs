//! What the service manager is told: `READY=1`, `STATUS=`, `WATCHDOG=1`, `RELOADING=1`,
//! `STOPPING=1`. When each is due is the session loop's business. No `EXTEND_TIMEOUT_USEC=`: the
//! loop turns before anything is waited for, and a goodbye is bounded far below `TimeoutStopSec=`.
//! The daemon starts no children and gives up the right to (`confinement`), so none can inherit
//! `NOTIFY_SOCKET`; `NotifyAccess=main` would refuse them besides.

use std::time::Duration;

use sd_notify::NotifyState;

/// Somebody who wants to know how the service is.
pub trait Notifier: Send {
    /// Says it.
    fn tell(&self, state: NotifyState<'_>);
    /// How often the watchdog wants to hear, at least.
    fn watchdog(&self) -> Option<Duration>;
}

/// systemd, if it started this process; otherwise nobody.
#[derive(Debug, Default)]
pub struct ServiceManager;

impl Notifier for ServiceManager {
    fn tell(&self, state: NotifyState<'_>) {
        // A manager that is being re-executed misses a word; the next one comes.
        if let Err(error) = sd_notify::notify(&[state]) {
            tracing::debug!(%error, "the service manager did not hear");
        }
    }

    fn watchdog(&self) -> Option<Duration> {
        sd_notify::watchdog_enabled()
    }
}

/// That a reload begins, as `sd_notify(3)` wants it: with the time of its begin, in one word.
/// `READY=1` ends it.
pub fn reloading() -> String {
    let begin = NotifyState::monotonic_usec_now().map(|begin| format!("\n{begin}"));
    // Only managers since 253 read the time, and those of services of another type than ours.
    format!("{}{}", NotifyState::Reloading, begin.unwrap_or_default())
}
