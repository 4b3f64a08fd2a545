//! Tells NOTI what happened to nodes: at least once, in order per node, from rows that were committed with
//! the changes themselves. Pure: `verdict` says what an answer means, `retry` when to try again, `breaker`
//! whether NOTI is well, `lanes` whose turn it is. Doing: `relay` runs lanes, `lane` delivers one node's
//! events, `receiver` says who to and writes down what came of it, `delivery` posts, `valve` says whether
//! anything may be posted now, `notifier` tells the relay which nodes have events, `backlog` finds those that
//! it was not told of.

mod backlog;
mod breaker;
mod delivery;
mod lane;
mod lanes;
mod notifier;
mod receiver;
mod relay;
mod retry;
mod valve;
mod verdict;

use std::{sync::Arc, time::Duration};

pub(crate) use backlog::run as watch_backlog;
pub(crate) use delivery::{Delivery, Destination, Unbuildable, client, post_signed};
pub(crate) use notifier::Notifier;
pub(crate) use receiver::{Attempted, Came, Noti, Receiver};
pub(crate) use relay::Relay;
pub(crate) use valve::DeliveryState;
use valve::Valve;
pub(crate) use verdict::Answer;

/// The setting in which the server says how delivery stands.
pub(crate) const STATE_SETTING: &str = "delivery-state";

/// The setting by which a command has the server try now what waits. Any other value than before does.
pub(crate) const RESUME_SETTING: &str = "delivery-resume";

/// How the others reach the outbox.
#[derive(Clone)]
pub(crate) struct Outbox {
    pub notifier: Notifier,
    valve: Arc<Valve>,
    /// Interval between two looks for events that others have written.
    look_interval: Duration,
}

impl Outbox {
    /// `first_pause` is how long delivery pauses first when NOTI fails again and again. Where other
    /// controllers write most events, they are looked for more often.
    pub(crate) fn new(first_pause: Duration, is_shared: bool) -> Self {
        let look_interval = if is_shared { backlog::SHARED_INTERVAL } else { backlog::INTERVAL };
        Self { notifier: Notifier::default(), valve: Arc::new(Valve::new(first_pause)), look_interval }
    }

    /// Of another receiver than NOTI.
    pub(crate) fn of(receiver: String, first_pause: Duration) -> Self {
        Self {
            notifier: Notifier::default(),
            valve: Arc::new(Valve::of(receiver, first_pause)),
            look_interval: backlog::INTERVAL,
        }
    }

    /// Whether events are delivered.
    pub(crate) fn delivery(&self) -> DeliveryState {
        self.valve.delivery()
    }

    /// Posts nothing until it is resumed.
    pub(crate) fn stop(&self) {
        self.valve.stop();
    }

    /// Tries every event now that waits, whatever it waits for; says whether delivery was stopped or paused.
    pub(crate) fn resume(&self) -> bool {
        let resumed = self.valve.resume();
        self.notifier.retry_all();
        resumed
    }
}
