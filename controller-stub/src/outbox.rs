//! Tells NOTI what happened to nodes: at least once, in order per node, from rows that were committed with the changes
//! themselves. Pure: `verdict` says what an answer means, `retry` when to try again, `breaker` whether NOTI is well, `lanes` whose
//! turn it is. Doing: `relay` runs lanes, `lane` delivers one node's events, `delivery` posts, `valve` says whether anything may be
//! posted now, `backlog` finds events that nobody rang for.

mod backlog;
mod breaker;
mod delivery;
mod doorbell;
mod lane;
mod lanes;
mod relay;
mod retry;
mod valve;
mod verdict;

use std::{sync::Arc, time::Duration};

pub(crate) use delivery::{Delivery, Destination, Unbuildable};
pub(crate) use doorbell::Doorbell;
pub(crate) use relay::Relay;
pub(crate) use valve::DeliveryState;
use valve::Valve;

/// How the others reach the outbox.
#[derive(Clone)]
pub(crate) struct Outbox {
    pub doorbell: Doorbell,
    valve: Arc<Valve>,
}

impl Outbox {
    /// `first_pause` is how long delivery pauses first when NOTI fails again and again.
    pub(crate) fn new(first_pause: Duration) -> Self {
        Self { doorbell: Doorbell::default(), valve: Arc::new(Valve::new(first_pause)) }
    }

    /// Whether events are delivered.
    pub(crate) fn delivery(&self) -> DeliveryState {
        self.valve.delivery()
    }

    /// Tries every event now that waits, whatever it waits for; says whether delivery was stopped or paused.
    pub(crate) fn resume(&self) -> bool {
        let resumed = self.valve.resume();
        self.doorbell.hurry_all();
        resumed
    }
}
