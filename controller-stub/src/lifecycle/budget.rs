//! How many changes a node may report, however it does: over HTTP or its WebSocket. Each costs rows of the database and an event, so that a
//! token in the wrong hands could fill the disk.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use aio_protocol::ids::NodeId;
use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    state::keyed::HashMapStateStore,
};

/// What a change of the node's row costs.
pub(super) const SAVE: NonZeroU32 = NonZeroU32::MIN;

/// What a move costs: a row, an audit row and an event, which NOTI keeps, too.
pub(super) const MOVE: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);

/// A hundred moves at once, and then one in 5 s: an installation makes two, and reports progress once a second.
const BURST: NonZeroU32 = NonZeroU32::MIN.saturating_add(999);
const PER_SECOND: NonZeroU32 = NonZeroU32::MIN.saturating_add(1);

/// Nodes that have been quiet are evicted every so many changes.
const EVICT_EVERY: u32 = 1024;

/// The budgets of all nodes.
pub(super) struct Budgets {
    spent: RateLimiter<NodeId, HashMapStateStore<NodeId>, DefaultClock>,
    clock: DefaultClock,
    changes: AtomicU32,
}

impl Budgets {
    pub(super) fn new() -> Self {
        let quota = Quota::per_second(PER_SECOND).allow_burst(BURST);
        Self {
            spent: RateLimiter::hashmap(quota),
            clock: DefaultClock::default(),
            changes: AtomicU32::new(0),
        }
    }

    /// Spends `cost` of the node's budget, or says when the node may come back.
    pub(super) fn spend(&self, node: &NodeId, cost: NonZeroU32) -> Result<(), Duration> {
        if self.changes.fetch_add(1, Ordering::Relaxed) % EVICT_EVERY == EVICT_EVERY - 1 {
            self.spent.retain_recent();
        }
        match self.spent.check_key_n(node, cost) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(until)) => Err(until.wait_time_from(self.clock.now())),
            // No cost is above the burst.
            Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 12])
    }

    #[test]
    fn a_node_has_a_hundred_moves_at_once_and_harms_no_other() {
        let budgets = Budgets::new();
        let moves = (0..1000).filter(|_| budgets.spend(&node(1), MOVE).is_ok()).count();
        assert!((100..=102).contains(&moves), "{moves}");
        let wait = budgets.spend(&node(1), MOVE).unwrap_err();
        assert!(wait <= Duration::from_secs(5), "{wait:?}");
        assert_eq!(budgets.spend(&node(2), SAVE), Ok(()));
    }
}
