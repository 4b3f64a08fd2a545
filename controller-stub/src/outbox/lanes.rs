//! Which node's events are delivered next. One lane per node that has any: at most one delivery of a lane
//! runs at a time, so that its order is kept; lanes run beside each other; organisations take turns. A lane
//! exists from its node's first event to its last, so that an idle node costs nothing. Pure: the caller
//! brings the clock and does the work.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque, hash_map::Entry},
    hash::Hash,
    time::{Duration, Instant},
};

use aio_protocol::ids::{NodeId, OwnerId};

use crate::rate::{Allowance, Rate};

/// A healthy node has a handful of events in a day. One that has more in a minute flaps.
const OF_A_NODE: Pace =
    Pace { rate: Rate { interval: Duration::from_secs(3), burst: 20 }, longest_rest: Duration::from_secs(5) };

/// A whole fleet may lose its network at once; what goes on after that is a fleet that flaps.
const OF_AN_ORGANISATION: Pace = Pace {
    rate: Rate { interval: Duration::from_millis(1), burst: 5000 },
    longest_rest: Duration::from_secs(2),
};

/// The table of rests is swept when it has grown to this.
const SMALLEST_SWEEP: usize = 1024;

pub(super) struct Lanes {
    open: HashMap<NodeId, Lane>,
    ready: Turns,
    /// When lanes that wait are due. An entry whose lane has changed since means nothing.
    due: BinaryHeap<Reverse<(Instant, NodeId)>>,
    nodes: Rests<NodeId>,
    organisations: Rests<OwnerId>,
}

struct Lane {
    organisation: OwnerId,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// `due`: whether its first event is due then.
    Waiting { until: Instant, due: bool },
    /// `due`: whether its first event is, whatever the time of day says.
    Ready { due: bool },
    /// `notified`: whether an event was committed since it began, which it may not have seen.
    /// `retry`: whether its first event is to be tried again at once.
    Running { notified: bool, retry: bool },
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
    /// The store failed: it is to be asked again then.
    Later(Instant),
}

impl Lanes {
    pub(super) fn new() -> Self {
        Self {
            open: HashMap::new(),
            ready: Turns::default(),
            due: BinaryHeap::new(),
            nodes: Rests::new(OF_A_NODE),
            organisations: Rests::new(OF_AN_ORGANISATION),
        }
    }

    /// An event of this node was committed. A lane that waits, waits on: its first event is still the same.
    pub(super) fn notify(&mut self, node: NodeId, organisation: OwnerId, now: Instant) {
        match self.open.entry(node) {
            Entry::Occupied(mut lane) => {
                if let State::Running { notified, .. } = &mut lane.get_mut().state {
                    *notified = true;
                }
            }
            Entry::Vacant(vacant) => {
                let node = vacant.key().clone();
                let rest = self.nodes.rest(&node, now).max(self.organisations.rest(&organisation, now));
                let state = if rest.is_zero() {
                    self.ready.push(organisation.clone(), node);
                    State::Ready { due: false }
                } else {
                    self.due.push(Reverse((now + rest, node)));
                    State::Waiting { until: now + rest, due: false }
                };
                vacant.insert(Lane { organisation, state });
            }
        }
    }

    /// The events of this node are others than they were: whatever its lane waits for, it has to look again.
    pub(super) fn retry(&mut self, node: NodeId, organisation: OwnerId, now: Instant) {
        match self.open.get_mut(&node) {
            Some(lane) if matches!(lane.state, State::Waiting { .. }) => {
                lane.state = State::Ready { due: false };
                self.ready.push(organisation, node);
            }
            _ => self.notify(node, organisation, now),
        }
    }

    /// Makes every lane that waits ready, and the first event of each due.
    pub(super) fn retry_all(&mut self) {
        for (node, lane) in &mut self.open {
            match lane.state {
                State::Waiting { .. } => self.ready.push(lane.organisation.clone(), node.clone()),
                State::Ready { .. } => {}
                State::Running { notified, .. } => {
                    lane.state = State::Running { notified, retry: true };
                    continue;
                }
            }
            lane.state = State::Ready { due: true };
        }
    }

    /// Makes the lanes ready that were due by now.
    pub(super) fn arrive(&mut self, now: Instant) {
        while let Some(Reverse((due, node))) = self.due.peek() {
            if *due > now {
                break;
            }
            if let Some(lane) = self.open.get_mut(node)
                && let State::Waiting { until, due: first } = lane.state
                && until == *due
            {
                lane.state = State::Ready { due: first };
                self.ready.push(lane.organisation.clone(), node.clone());
            }
            self.due.pop();
        }
    }

    /// The lane whose turn it is, and whether its first event is due whatever the time of day says:
    /// the lane has waited for it by a clock that nobody sets. Its run must be reported with
    /// `ended`.
    pub(super) fn next(&mut self) -> Option<(NodeId, bool)> {
        let node = self.ready.pop()?;
        let lane = self.open.get_mut(&node)?;
        let due = matches!(lane.state, State::Ready { due: true });
        lane.state = State::Running { notified: false, retry: false };
        Some((node, due))
    }

    /// Takes note of how a run ended and how many events it delivered.
    pub(super) fn ended(&mut self, node: NodeId, ended: Ended, delivered: u32, now: Instant) {
        let Entry::Occupied(mut lane) = self.open.entry(node.clone()) else { return };
        let organisation = lane.get().organisation.clone();
        let State::Running { notified, retry } = lane.get().state else { return };
        self.nodes.count(node.clone(), delivered, now);
        self.organisations.count(organisation.clone(), delivered, now);
        match ended {
            Ended::Due(_) | Ended::Later(_) | Ended::More if retry => {
                lane.get_mut().state = State::Ready { due: true };
                self.ready.push(organisation, node);
            }
            Ended::Due(until) | Ended::Later(until) => {
                let due = matches!(ended, Ended::Due(_));
                lane.get_mut().state = State::Waiting { until, due };
                self.due.push(Reverse((until, node)));
            }
            Ended::More => {
                lane.get_mut().state = State::Ready { due: false };
                self.ready.push(organisation, node);
            }
            Ended::Drained => {
                lane.remove();
                if notified {
                    self.notify(node, organisation, now);
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

/// How fast events may reach NOTI before they are gathered: whoever is over the rate rests, and
/// then all that has gathered is delivered in one go. Nothing is dropped or merged, and no rest is
/// longer than this, so the newest state is never far behind.
#[derive(Debug, Clone, Copy)]
struct Pace {
    rate: Rate,
    longest_rest: Duration,
}

/// Who has delivered events lately. Whoever has not costs nothing.
struct Rests<K> {
    pace: Pace,
    delivered: HashMap<K, Allowance>,
    sweep_at: usize,
}

impl<K: Eq + Hash> Rests<K> {
    fn new(pace: Pace) -> Self {
        Self { pace, delivered: HashMap::new(), sweep_at: SMALLEST_SWEEP }
    }

    /// Counts events that were delivered.
    fn count(&mut self, key: K, events: u32, now: Instant) {
        if events == 0 {
            return;
        }
        let allowance = self.delivered.entry(key).or_insert(Allowance::new(now));
        allowance.charge(self.pace.rate, events, self.pace.longest_rest, now);
        if self.delivered.len() >= self.sweep_at {
            self.delivered.retain(|_, allowance| !allowance.is_whole(now));
            self.sweep_at = (self.delivered.len() * 2).max(SMALLEST_SWEEP);
        }
    }

    /// How long `key` has to rest before its next events are delivered.
    fn rest(&self, key: &K, now: Instant) -> Duration {
        self.delivered.get(key).map(|allowance| allowance.owed(self.pace.rate, now)).unwrap_or_default()
    }
}

/// Lanes that are ready: first come, first served within an organisation, and one organisation
/// after the other.
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
