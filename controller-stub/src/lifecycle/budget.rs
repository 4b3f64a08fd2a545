//! How many changes a node may report, however it does: over HTTP or its WebSocket. Each costs rows of the
//! database and an event, so that a token in the wrong hands could fill the disk.

use std::time::{Duration, Instant};

use aio_protocol::ids::NodeId;

use crate::rate::{Allowances, Rate};

/// What a change of the node's row costs.
pub(super) const SAVE: u32 = 1;

/// What a move costs: a row, an audit row and an event, which NOTI keeps, too.
pub(super) const MOVE: u32 = 10;

/// A hundred moves at once, and then one in 5 s: an installation makes two, and reports progress
/// once a second.
const RATE: Rate = Rate { interval: Duration::from_millis(500), burst: 1000 };

/// The budgets of all nodes.
pub(super) struct Budgets(Allowances<NodeId>);

impl Budgets {
    pub(super) fn new() -> Self {
        Self(Allowances::new(RATE))
    }

    /// Spends `cost` of the node's budget, or says when the node may come back.
    pub(super) fn spend(&self, node: &NodeId, cost: u32) -> Result<(), Duration> {
        self.0.spend(node.clone(), cost, Instant::now())
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
