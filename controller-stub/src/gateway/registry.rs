//! Which connection of a node counts: the newest. Each has an epoch; what an older one does or how it ends changes nothing.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use aio_protocol::{ids::NodeId, wire::close};
use tokio::sync::oneshot;

#[derive(Default)]
pub(crate) struct Registry {
    epochs: AtomicU64,
    current: Mutex<HashMap<NodeId, Current>>,
}

/// Tells a node's connections apart, in the order in which they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Epoch(u64);

struct Current {
    epoch: Epoch,
    close: oneshot::Sender<u16>,
}

impl Registry {
    /// Lets a new connection take the place of the node's older one, which is closed. The receiver yields a close code.
    pub(crate) fn enter(&self, id: &NodeId) -> (Epoch, oneshot::Receiver<u16>) {
        let (close, closed) = oneshot::channel();
        let mut current = self.current();
        let epoch = Epoch(self.epochs.fetch_add(1, Ordering::Relaxed));
        if let Some(older) = current.insert(id.clone(), Current { epoch, close }) {
            let _ = older.close.send(close::SUPERSEDED);
        }
        (epoch, closed)
    }

    /// Whether this connection is the one that counts.
    pub(crate) fn is_current(&self, id: &NodeId, epoch: Epoch) -> bool {
        self.current().get(id).is_some_and(|current| current.epoch == epoch)
    }

    /// Takes a connection that has ended out; says whether it was the one that counts.
    pub(crate) fn leave(&self, id: &NodeId, epoch: Epoch) -> bool {
        let mut current = self.current();
        let counts = current.get(id).is_some_and(|it| it.epoch == epoch);
        if counts {
            current.remove(id);
        }
        counts
    }

    /// Closes the connection of a node, if it has one.
    pub(crate) fn close(&self, id: &NodeId, code: u16) {
        if let Some(connection) = self.current().remove(id) {
            let _ = connection.close.send(code);
        }
    }

    fn current(&self) -> MutexGuard<'_, HashMap<NodeId, Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> NodeId {
        NodeId::from_bytes([3; 12])
    }

    #[test]
    fn the_newest_connection_counts_and_closes_the_older() {
        let registry = Registry::default();
        let (first, mut first_closed) = registry.enter(&id());
        let (second, mut second_closed) = registry.enter(&id());
        assert_eq!(first_closed.try_recv(), Ok(close::SUPERSEDED));
        assert!(second_closed.try_recv().is_err());
        assert!(!registry.is_current(&id(), first) && registry.is_current(&id(), second));
    }

    #[test]
    fn a_stale_connections_late_end_changes_nothing() {
        let registry = Registry::default();
        let (first, _closed) = registry.enter(&id());
        let (second, _closed) = registry.enter(&id());
        assert!(!registry.leave(&id(), first));
        assert!(registry.is_current(&id(), second));
        assert!(registry.leave(&id(), second));
        assert!(!registry.leave(&id(), second));
    }

    #[test]
    fn a_closed_connection_no_longer_counts() {
        let registry = Registry::default();
        let (epoch, mut closed) = registry.enter(&id());
        registry.close(&id(), close::SILENT);
        assert_eq!(closed.try_recv(), Ok(close::SILENT));
        assert!(!registry.is_current(&id(), epoch));
    }
}
