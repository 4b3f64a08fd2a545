//! How the relay learns which nodes have events. A node is remembered once, however often its bell rings, so that nothing is
//! forgotten and nothing grows.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aio_protocol::ids::{NodeId, OwnerId};
use tokio::sync::Notify;

/// Tells the relay that nodes have events to deliver.
#[derive(Clone, Default)]
pub(crate) struct Doorbell(Arc<Bell>);

#[derive(Default)]
struct Bell {
    rung: Mutex<Rings>,
    heard: Notify,
}

/// What rang since it was last asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rings {
    pub nodes: HashMap<NodeId, Ring>,
    /// Whether every event that waits is to be tried now.
    pub hurry_all: bool,
}

/// Whose bell rang, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ring {
    pub organisation: OwnerId,
    /// Whether its first event may be another than before.
    pub hurry: bool,
}

impl Doorbell {
    /// An event of this node was committed.
    pub(crate) fn ring(&self, node: &NodeId, organisation: &OwnerId) {
        self.remember(node.clone(), organisation.clone(), false);
        self.0.heard.notify_one();
    }

    /// Events of these nodes were found.
    pub(super) fn ring_all(&self, nodes: Vec<(NodeId, OwnerId)>) {
        for (node, organisation) in nodes {
            self.remember(node, organisation, false);
        }
        self.0.heard.notify_one();
    }

    /// Old events of these nodes came back, which are due before those that they wait for.
    pub(crate) fn hurry(&self, nodes: Vec<(NodeId, OwnerId)>) {
        for (node, organisation) in nodes {
            self.remember(node, organisation, true);
        }
        self.0.heard.notify_one();
    }

    /// Every event that waits is to be tried now.
    pub(super) fn hurry_all(&self) {
        self.rings().hurry_all = true;
        self.0.heard.notify_one();
    }

    fn remember(&self, node: NodeId, organisation: OwnerId, hurry: bool) {
        self.rings().nodes.entry(node).or_insert(Ring { organisation, hurry }).hurry |= hurry;
    }

    /// Waits for a ring, and takes all there are.
    pub(super) async fn heard(&self) -> Rings {
        self.0.heard.notified().await;
        std::mem::take(&mut *self.rings())
    }

    fn rings(&self) -> MutexGuard<'_, Rings> {
        self.0.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_ring_before_anybody_listens_is_heard_once_per_node() {
        let bell = Doorbell::default();
        let (node, organisation) = (NodeId::from_bytes([1; 12]), "o".parse().unwrap());
        for _ in 0..3 {
            bell.ring(&node, &organisation);
        }
        bell.hurry(vec![(node.clone(), organisation.clone())]);
        let heard = bell.heard().await;
        assert_eq!(heard.nodes, HashMap::from([(node, Ring { organisation, hurry: true })]));
    }
}
