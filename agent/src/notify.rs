//! What the service manager is told: `READY=1`, `STATUS=`, `WATCHDOG=1`, `STOPPING=1`. When each is due is the session loop's
//! business. The daemon starts no children, so none can inherit `NOTIFY_SOCKET`; `NotifyAccess=main` would refuse them besides.

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
