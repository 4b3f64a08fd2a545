//! Webhooks of organisations: each is told of its organisation's events by a relay of its own, so that one
//! that fails holds up no other, nor NOTI. `guard` (pure) says which addresses may be posted to, `endpoint`
//! posts to one and notes what came of it, `keeper` runs a relay for each, and `changes` makes, alters and
//! tries them for whoever asks.

pub(crate) mod changes;
mod endpoint;
pub(crate) mod guard;
pub(crate) mod keeper;

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;
use uuid::Uuid;

use crate::outbox::{DeliveryState, Outbox};
use guard::Guard;

/// What runs, for whoever asks.
pub(crate) struct Webhooks {
    pub guard: Guard,
    /// How long delivery pauses first when an endpoint fails again and again.
    pub first_pause: Duration,
    running: Mutex<HashMap<Uuid, Outbox>>,
    changed: Notify,
}

impl Webhooks {
    pub(crate) fn new(guard: Guard, first_pause: Duration) -> Self {
        Self { guard, first_pause, running: Mutex::default(), changed: Notify::new() }
    }

    /// Whether events are delivered to a webhook; nothing before its relay has begun.
    pub(crate) fn delivery(&self, id: Uuid) -> Option<DeliveryState> {
        self.running().get(&id).map(Outbox::delivery)
    }

    /// Webhooks are others than they were.
    pub(crate) fn changed(&self) {
        self.changed.notify_one();
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Uuid, Outbox>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
