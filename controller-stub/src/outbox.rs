//! Tells NOTI what happened to nodes: at least once, in order per node, from rows that were committed with the changes
//! themselves. Pure: `verdict` says what an answer means, `retry` when to try again, `breaker` and `gate` whether to try at all,
//! `lanes` and `pace` whose turn it is. Doing: `relay` runs lanes, `lane` delivers one node's events, `delivery` posts,
//! `lookout` finds what nobody rang for, `switch` is where the others see and change whether delivery goes on.

mod alarms;
mod breaker;
mod delivery;
mod doorbell;
mod gate;
mod lane;
mod lanes;
mod lookout;
mod pace;
mod relay;
mod retry;
mod switch;
mod verdict;

use std::{sync::Arc, time::Duration};

pub(crate) use delivery::{Delivery, Unbuildable};
pub(crate) use doorbell::Doorbell;
pub(crate) use relay::Relay;
pub(crate) use switch::{DeliveryState, Switch};

/// How the others reach the outbox.
#[derive(Clone)]
pub(crate) struct Outbox {
    pub doorbell: Doorbell,
    pub switch: Arc<Switch>,
}

impl Outbox {
    /// `first_pause` is how long delivery pauses first when NOTI fails again and again.
    pub(crate) fn new(first_pause: Duration) -> Self {
        Self { doorbell: Doorbell::default(), switch: Arc::new(Switch::new(first_pause)) }
    }
}
