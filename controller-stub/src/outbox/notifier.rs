//! How the relay learns which nodes have events. A node is noted once, however often it is named, so nothing
//! is forgotten and nothing grows.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use aio_protocol::ids::{NodeId, OwnerId};
use tokio::sync::Notify;

/// Tells the relay that nodes have events to deliver.
#[derive(Clone, Default)]
pub(crate) struct Notifier(Arc<Shared>);

#[derive(Default)]
struct Shared {
    notices: Mutex<Notices>,
    added: Notify,
    /// Relays that are told of the events of an organisation, too.
    followers: RwLock<Vec<(OwnerId, Notifier)>>,
}

/// What the relay was told since it last asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Notices {
    pub nodes: HashMap<NodeId, Notice>,
    /// Whether every event that waits is to be tried now.
    pub retry_all: bool,
}

/// That a node has events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notice {
    pub organisation: OwnerId,
    /// Whether its first event may be another than before.
    pub retry: bool,
}

impl Notifier {
    /// An event of this node was committed.
    pub(crate) fn notify(&self, node: &NodeId, organisation: &OwnerId) {
        self.add([(node.clone(), organisation.clone())], false);
        let followers = self.0.followers.read().unwrap_or_else(PoisonError::into_inner);
        for (_, follower) in followers.iter().filter(|(followed, _)| followed == organisation) {
            follower.add([(node.clone(), organisation.clone())], false);
        }
    }

    /// From now on these are told of the events of an organisation, too, and no others.
    pub(crate) fn set_followers(&self, followers: Vec<(OwnerId, Notifier)>) {
        *self.0.followers.write().unwrap_or_else(PoisonError::into_inner) = followers;
    }

    /// Events of these nodes were found.
    pub(crate) fn notify_all(&self, nodes: Vec<(NodeId, OwnerId)>) {
        self.add(nodes, false);
    }

    /// Old events of these nodes came back, which are due before those that they wait for.
    pub(crate) fn retry(&self, nodes: Vec<(NodeId, OwnerId)>) {
        self.add(nodes, true);
    }

    /// Every event that waits is to be tried now.
    pub(super) fn retry_all(&self) {
        self.notices().retry_all = true;
        self.0.added.notify_one();
    }

    fn add(&self, nodes: impl IntoIterator<Item = (NodeId, OwnerId)>, retry: bool) {
        let mut notices = self.notices();
        for (node, organisation) in nodes {
            notices.nodes.entry(node).or_insert(Notice { organisation, retry }).retry |= retry;
        }
        drop(notices);
        self.0.added.notify_one();
    }

    /// Waits for a notice, and takes all there are.
    pub(super) async fn notices_added(&self) -> Notices {
        self.0.added.notified().await;
        std::mem::take(&mut *self.notices())
    }

    fn notices(&self) -> MutexGuard<'_, Notices> {
        self.0.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_notice_before_anybody_waits_is_heard_once_per_node() {
        let notifier = Notifier::default();
        let (node, organisation) = (NodeId::from_bytes([1; 12]), "o".parse().unwrap());
        for _ in 0..3 {
            notifier.notify(&node, &organisation);
        }
        notifier.retry(vec![(node.clone(), organisation.clone())]);
        let notices = notifier.notices_added().await;
        assert_eq!(notices.nodes, HashMap::from([(node, Notice { organisation, retry: true })]));
    }
}
