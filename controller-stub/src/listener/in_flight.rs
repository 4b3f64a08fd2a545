//! What a connection is doing, and each request of it from its head to the last byte of its answer: for
//! whoever reads, writes and counts.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use super::{activity::Activity, holder::Holder, slots::Slot};

/// What a connection is doing, for whoever reads and writes it.
pub(super) struct Shared {
    activity: Mutex<Activity>,
    /// Gone after an upgrade.
    slot: Weak<Slot>,
}

/// A request, from its head to the last byte of its answer.
pub(crate) struct InFlight {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    /// Whom the answer is charged to, once a token was accepted.
    payer: OnceLock<Holder>,
    answered: AtomicBool,
}

impl Shared {
    pub(super) fn of(slot: &Arc<Slot>) -> Self {
        Self { activity: Mutex::new(Activity::new(Instant::now())), slot: Arc::downgrade(slot) }
    }

    /// Of no connection.
    #[cfg(test)]
    pub(super) fn detached() -> Self {
        Self { activity: Mutex::new(Activity::new(Instant::now())), slot: Weak::new() }
    }

    pub(super) fn activity(&self) -> MutexGuard<'_, Activity> {
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn heard(&self, now: Instant) {
        if self.activity().heard(now)
            && let Some(slot) = self.slot.upgrade()
        {
            slot.set_heard();
        }
    }
}

impl InFlight {
    pub(super) fn begin(shared: Arc<Shared>, slot: Arc<Slot>, multiplexed: bool) -> Arc<Self> {
        let mut activity = shared.activity();
        if activity.began(multiplexed) {
            slot.set_busy();
        }
        drop(activity);
        Arc::new(Self { shared, slot, payer: OnceLock::new(), answered: AtomicBool::new(false) })
    }

    /// Counts the connection and its answers for `holder`, whose token was accepted.
    pub(crate) fn assign(&self, holder: Holder) {
        self.slot.assign(holder.clone());
        let _ = self.payer.set(holder);
    }

    /// Whose token was accepted.
    pub(crate) fn payer(&self) -> Option<Holder> {
        self.payer.get().cloned()
    }

    pub(super) fn answering(&self, is_new: bool) {
        self.shared.activity().answering(is_new, Instant::now());
        self.answered.fetch_or(is_new, Ordering::Relaxed);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut activity = self.shared.activity();
        if activity.ended(self.answered.load(Ordering::Relaxed), Instant::now()) {
            self.slot.set_quiet();
        }
    }
}
