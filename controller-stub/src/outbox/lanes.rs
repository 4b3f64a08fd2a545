//! Which node's events are delivered next. One lane per node that has any: at most one delivery of a lane runs at a time, so that
//! its order is kept; lanes run beside each other; organisations take turns. A lane exists from its node's first event to its last,
//! so that an idle node costs nothing. Pure: the caller brings the clock and does the work.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque, hash_map::Entry},
    time::{Duration, Instant},
};

use aio_protocol::ids::{NodeId, OwnerId};

use super::pace::{Limit, Pace};

/// A healthy node has a handful of events in a day. One that has more in a minute flaps.
const OF_A_NODE: Limit =
    Limit { burst: 20, refill: Duration::from_secs(3), longest_rest: Duration::from_secs(5) };

/// A whole fleet may lose its network at once; what goes on after that is a fleet that flaps.
const OF_AN_ORGANISATION: Limit =
    Limit { burst: 5000, refill: Duration::from_millis(1), longest_rest: Duration::from_secs(2) };

pub(super) struct Lanes {
    open: HashMap<NodeId, Lane>,
    ready: Turns,
    /// When lanes that wait are due. An entry whose lane has changed since means nothing.
    due: BinaryHeap<Reverse<(Instant, NodeId)>>,
    nodes: Pace<NodeId>,
    organisations: Pace<OwnerId>,
}

struct Lane {
    organisation: OwnerId,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting {
        until: Instant,
    },
    Ready,
    /// `rung`: whether an event was committed since it began, which it may not have seen.
    Running {
        rung: bool,
    },
}

/// How a run of a lane ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Its node has no more events, as far as the run saw.
    Drained,
    /// There are more.
    More,
    /// The next attempt is due then.
    Due(Instant),
}

impl Lanes {
    pub(super) fn new() -> Self {
        Self {
            open: HashMap::new(),
            ready: Turns::default(),
            due: BinaryHeap::new(),
            nodes: Pace::new(OF_A_NODE),
            organisations: Pace::new(OF_AN_ORGANISATION),
        }
    }

    /// An event of this node was committed. A lane that waits, waits on: its first event is still the same.
    pub(super) fn ring(&mut self, node: NodeId, organisation: OwnerId, now: Instant) {
        match self.open.entry(node) {
            Entry::Occupied(mut lane) => {
                if let State::Running { rung } = &mut lane.get_mut().state {
                    *rung = true;
                }
            }
            Entry::Vacant(vacant) => {
                let node = vacant.key().clone();
                let rest = self.nodes.rest(&node, now).max(self.organisations.rest(&organisation, now));
                let state = if rest.is_zero() {
                    self.ready.push(organisation.clone(), node);
                    State::Ready
                } else {
                    self.due.push(Reverse((now + rest, node)));
                    State::Waiting { until: now + rest }
                };
                vacant.insert(Lane { organisation, state });
            }
        }
    }

    /// The events of this node are others than they were: whatever its lane waits for, it has to look again.
    pub(super) fn hurry(&mut self, node: NodeId, organisation: OwnerId, now: Instant) {
        match self.open.get_mut(&node) {
            Some(lane) if matches!(lane.state, State::Waiting { .. }) => {
                lane.state = State::Ready;
                self.ready.push(organisation, node);
            }
            _ => self.ring(node, organisation, now),
        }
    }

    /// Makes the lanes ready that were due by now.
    pub(super) fn arrive(&mut self, now: Instant) {
        while let Some(Reverse((due, node))) = self.due.peek() {
            if *due > now {
                break;
            }
            if let Some(lane) =
                self.open.get_mut(node).filter(|lane| lane.state == State::Waiting { until: *due })
            {
                lane.state = State::Ready;
                self.ready.push(lane.organisation.clone(), node.clone());
            }
            self.due.pop();
        }
    }

    /// The lane whose turn it is. Its run must be reported with `ended`.
    pub(super) fn next(&mut self) -> Option<NodeId> {
        let node = self.ready.pop()?;
        if let Some(lane) = self.open.get_mut(&node) {
            lane.state = State::Running { rung: false };
        }
        Some(node)
    }

    /// Takes note of how a run ended and how many events it delivered.
    pub(super) fn ended(&mut self, node: NodeId, ended: Ended, delivered: u32, now: Instant) {
        let Entry::Occupied(mut lane) = self.open.entry(node.clone()) else { return };
        let organisation = lane.get().organisation.clone();
        let rung = lane.get().state == State::Running { rung: true };
        self.nodes.count(node.clone(), delivered, now);
        self.organisations.count(organisation.clone(), delivered, now);
        match ended {
            Ended::Due(until) => {
                lane.get_mut().state = State::Waiting { until };
                self.due.push(Reverse((until, node)));
            }
            Ended::More => {
                lane.get_mut().state = State::Ready;
                self.ready.push(organisation, node);
            }
            Ended::Drained => {
                lane.remove();
                if rung {
                    self.ring(node, organisation, now);
                }
            }
        }
    }

    /// When the next lane that waits is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse((due, _))| *due)
    }

    /// Whether a lane is ready.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.organisations.is_empty()
    }
}

/// Lanes that are ready: first come, first served within an organisation, and one organisation after the other.
#[derive(Default)]
struct Turns {
    organisations: VecDeque<OwnerId>,
    nodes: HashMap<OwnerId, VecDeque<NodeId>>,
}

impl Turns {
    fn push(&mut self, organisation: OwnerId, node: NodeId) {
        let nodes = self.nodes.entry(organisation.clone()).or_default();
        if nodes.is_empty() {
            self.organisations.push_back(organisation);
        }
        nodes.push_back(node);
    }

    fn pop(&mut self) -> Option<NodeId> {
        let organisation = self.organisations.pop_front()?;
        let nodes = self.nodes.get_mut(&organisation)?;
        let node = nodes.pop_front();
        if nodes.is_empty() {
            self.nodes.remove(&organisation);
        } else {
            self.organisations.push_back(organisation);
        }
        node
    }
}

#[cfg(test)]
mod tests;
