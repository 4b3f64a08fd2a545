//! What workers measure, as long as it is kept: the newest reading of each connected node, and the open
//! window of five minutes that `keeper` writes down once it has closed. Nothing here touches the disk;
//! `keeper` does, and never because of one message. A restart loses the open windows.

pub(crate) mod device;
pub(crate) mod keeper;
mod packing;
pub(crate) mod points;
pub(crate) mod reading;
#[cfg(test)]
mod tests;
mod window;

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aio_protocol::{
    container::Container, ids::NodeId, telemetry::MachineProblem, time::Timestamp, wire::Metrics,
};

use crate::gateway::registry::Epoch;
use reading::Reading;
use window::Window;

/// Length of a window.
pub(crate) const WINDOW: Duration = Duration::from_secs(5 * 60);

/// The longest time that windows can be kept.
pub(crate) const LONGEST_HISTORY: Duration = Duration::from_secs(7 * 86_400);

/// A reading older than this says nothing of now: two are missing, and the next is due.
const FRESH: Duration = Duration::from_secs(150);

/// Which window since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot(pub u32);

impl Slot {
    /// The window that `at` is in.
    pub(crate) fn of(at: Timestamp) -> Self {
        let length = i64::try_from(WINDOW.as_millis()).unwrap_or(i64::MAX);
        Self(u32::try_from(at.as_millis().div_euclid(length)).unwrap_or(0))
    }

    /// When it begins.
    pub(crate) fn begins(self) -> Timestamp {
        Timestamp::from_millis(0).plus(WINDOW * self.0)
    }
}

/// A window that has closed, packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Closed {
    pub node: NodeId,
    pub slot: Slot,
    pub data: Vec<u8>,
}

/// What is wrong with a node, as its worker told last.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Wrong {
    /// The containers that have something wrong.
    pub containers: Vec<Container>,
    pub machine: Vec<MachineProblem>,
}

/// The telemetry of all nodes.
pub(crate) struct Telemetry {
    /// Whether windows are kept at all.
    keeps_history: bool,
    nodes: Mutex<HashMap<NodeId, Kept>>,
}

/// What is kept of a node in memory. Its size follows the number of its GPUs.
struct Kept {
    /// The connection that told the newest reading.
    epoch: Epoch,
    newest: Option<Box<Reading>>,
    open: Option<Box<Window>>,
    /// A window that closed before the keeper looked.
    closed: Option<(Slot, Box<[u8]>)>,
}

impl Telemetry {
    pub(crate) fn new(history: Duration) -> Self {
        Self { keeps_history: !history.is_zero(), nodes: Mutex::default() }
    }

    /// Takes what the worker on the connection `epoch`, which speaks for its node, has measured.
    pub(crate) fn receive(&self, epoch: Epoch, metrics: &Metrics, now: Timestamp) {
        let reading = Box::new(Reading::of(metrics, now));
        let mut nodes = self.nodes();
        let kept = nodes.entry(metrics.node_id.clone()).or_insert(Kept {
            epoch,
            newest: None,
            open: None,
            closed: None,
        });
        if self.keeps_history {
            let slot = Slot::of(now);
            if let Some(before) = kept.open.take_if(|window| window.slot() != slot) {
                kept.closed = Some((before.slot(), packing::pack(&before).into()));
            }
            kept.open.get_or_insert_with(|| Box::new(Window::new(slot))).add(&reading);
        }
        (kept.epoch, kept.newest) = (epoch, Some(reading));
    }

    /// A connection has ended: what it told last is not known to be so any more.
    pub(crate) fn end(&self, node: &NodeId, epoch: Epoch) {
        let mut nodes = self.nodes();
        let Some(kept) = nodes.get_mut(node).filter(|kept| kept.epoch == epoch) else { return };
        kept.newest = None;
        if kept.open.is_none() && kept.closed.is_none() {
            nodes.remove(node);
        }
    }

    /// What a connected node told last, unless that is too long ago to hold.
    pub(crate) fn newest(&self, node: &NodeId, now: Timestamp) -> Option<Reading> {
        let mut newest = None;
        self.read(node, now, |reading| newest = Some(reading.clone()));
        newest
    }

    /// The nodes whose machines or containers have something wrong, and what.
    pub(crate) fn wrong(&self, now: Timestamp) -> Vec<(NodeId, Wrong)> {
        let nodes = self.nodes();
        let fresh = nodes.iter().filter_map(|(node, kept)| {
            let reading = kept.newest.as_ref().filter(|reading| now.since(reading.at) <= FRESH)?;
            let containers = reading.containers.iter().flatten().filter(|it| !it.problems.is_empty());
            let problems = reading.problems.as_deref().unwrap_or_default();
            Some((node, Wrong { containers: containers.cloned().collect(), machine: problems.to_vec() }))
        });
        fresh.filter(|(_, wrong)| *wrong != Wrong::default()).map(|(id, wrong)| (id.clone(), wrong)).collect()
    }

    /// Hands what a connected node told last to `look`, unless it is too long ago to hold.
    pub(crate) fn read(&self, node: &NodeId, now: Timestamp, look: impl FnOnce(&Reading)) {
        let nodes = self.nodes();
        let newest = nodes.get(node).and_then(|kept| kept.newest.as_ref());
        if let Some(reading) = newest.filter(|reading| now.since(reading.at) <= FRESH) {
            look(reading);
        }
    }

    /// Takes the windows that have closed, ordered by node.
    fn take_closed(&self, now: Timestamp) -> Vec<Closed> {
        let current = Slot::of(now);
        let mut closed = Vec::new();
        self.nodes().retain(|node, kept| {
            if let Some(window) = kept.open.take_if(|window| window.slot() != current) {
                let data = packing::pack(&window);
                closed.push(Closed { node: node.clone(), slot: window.slot(), data });
            }
            if let Some((slot, data)) = kept.closed.take() {
                closed.push(Closed { node: node.clone(), slot, data: data.into() });
            }
            kept.newest.is_some() || kept.open.is_some()
        });
        closed.sort_unstable_by(|a, b| (a.slot, &a.node).cmp(&(b.slot, &b.node)));
        closed
    }

    fn nodes(&self) -> MutexGuard<'_, HashMap<NodeId, Kept>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
