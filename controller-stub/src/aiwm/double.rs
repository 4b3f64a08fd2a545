//! AIWM's double: makes the dialect fail as a test orders it, and records what was said. Only where the
//! configuration says so, and on loopback alone.

pub(super) mod api;
pub(super) mod faults;
pub(super) mod recording;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use aio_protocol::ids::NodeId;

use super::sockets::link::{Ending, Link};
use faults::Faults;
use recording::Recording;

#[derive(Default)]
pub(super) struct Double {
    faults: Mutex<Faults>,
    recording: Mutex<Recording>,
    /// The connections that joined, by their node.
    joined: Mutex<HashMap<NodeId, Vec<Weak<Link>>>>,
}

impl Double {
    pub(super) fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn recording(&self) -> MutexGuard<'_, Recording> {
        self.recording.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note_join(&self, node: &NodeId, link: &Arc<Link>) {
        let mut joined = self.joined();
        let links = joined.entry(node.clone()).or_default();
        links.retain(|link| link.strong_count() > 0);
        links.push(Arc::downgrade(link));
    }

    /// Ends the connections of a node, or of all; says how many.
    pub(super) fn end(&self, node: Option<&NodeId>, ending: Ending) -> usize {
        let joined = self.joined();
        let named = joined.iter().filter(|(id, _)| node.is_none_or(|node| node == *id));
        let links: Vec<_> = named.flat_map(|(_, links)| links).filter_map(Weak::upgrade).collect();
        let open: Vec<_> = links.into_iter().filter(|link| link.ending().is_none()).collect();
        open.iter().for_each(|link| link.end(ending));
        open.len()
    }

    fn joined(&self) -> MutexGuard<'_, HashMap<NodeId, Vec<Weak<Link>>>> {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
