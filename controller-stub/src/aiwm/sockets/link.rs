//! What the two ends of a Socket.IO connection here know of each other: the carriage, which has the bytes,
//! and the namespaces, which have the words. Either may end it.

use std::{
    any::Any,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Instant,
};

use super::seats::{Seat, Seats};
use crate::rate::{Allowance, Rate};

/// How a connection is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// What was said goes out, then a close frame.
    HangUp,
    /// At once, without a word.
    Cut,
}

/// One Engine.IO session.
pub(crate) struct Link {
    /// Who is at its other end.
    pub address: IpAddr,
    pub since: Instant,
    rate: Rate,
    seats: Seats,
    state: Mutex<State>,
}

struct State {
    ending: Option<Ending>,
    /// Of the task that reads the connection.
    reader: Option<Waker>,
    allowance: Allowance,
    /// Held until a token was accepted, and again from the end on: a session that began by polling may stay
    /// for a while.
    seat: Option<Seat>,
    /// The namespaces that were joined.
    joined: Vec<&'static str>,
    /// What the check of a token found, for whoever serves the namespace.
    found: Option<Box<dyn Any + Send>>,
}

impl Link {
    /// A session from this address, unless there are too many of them.
    pub(super) fn open(address: IpAddr, rate: Rate, seats: &Seats) -> Option<Self> {
        let seat = seats.take(address)?;
        let now = Instant::now();
        let state = State {
            ending: None,
            reader: None,
            allowance: Allowance::new(now),
            seat: Some(seat),
            joined: Vec::new(),
            found: None,
        };
        Some(Self { address, since: now, rate, seats: seats.clone(), state: Mutex::new(state) })
    }

    /// Ends the connection. The first that asks decides how, except that a cut overrules.
    pub(crate) fn end(&self, ending: Ending) {
        let mut state = self.state();
        if state.ending.is_none() || ending == Ending::Cut {
            state.ending = Some(ending);
        }
        if state.seat.is_none() {
            state.seat = Some(self.seats.hold(self.address));
        }
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }

    pub(crate) fn ending(&self) -> Option<Ending> {
        self.state().ending
    }

    /// The same, and wakes the reader when it changes.
    pub(super) fn watch_ending(&self, reader: &Waker) -> Option<Ending> {
        let mut state = self.state();
        if state.ending.is_none() && !state.reader.as_ref().is_some_and(|known| known.will_wake(reader)) {
            state.reader = Some(reader.clone());
        }
        state.ending
    }

    /// Spends `units` of what a peer may say; says whether it had them.
    pub(crate) fn spend(&self, units: u32) -> bool {
        self.state().allowance.spend(self.rate, units, Instant::now())
    }

    /// Notes that a namespace was joined, by whom it was found to be.
    pub(crate) fn join(&self, namespace: &'static str, found: Box<dyn Any + Send>) {
        let mut state = self.state();
        state.joined.push(namespace);
        state.found = Some(found);
        state.seat = None;
    }

    /// Whether a token was accepted.
    pub(super) fn has_joined(&self) -> bool {
        !self.state().joined.is_empty()
    }

    /// What was found when the namespace was joined.
    pub(crate) fn take_found<T: 'static>(&self) -> Option<T> {
        let found = self.state().found.take()?;
        found.downcast().ok().map(|found| *found)
    }

    /// Whether a packet that begins like this joins a namespace for the second time.
    pub(super) fn joins_again(&self, head: &[u8]) -> bool {
        let Some(namespace) = head.strip_prefix(b"40") else { return false };
        let joined = &self.state().joined;
        joined.iter().any(|it| {
            let rest = namespace.strip_prefix(it.as_bytes());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b","))
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const RATE: Rate = Rate { interval: Duration::from_millis(100), burst: 120 };

    #[test]
    fn a_session_that_was_sent_away_is_counted_until_it_is_gone() {
        let seats = Seats::default();
        let address = IpAddr::from([192, 0, 2, 1]);
        let open = || Link::open(address, RATE, &seats);
        let mut sessions = Vec::new();
        while let Some(link) = open() {
            link.join("/ws/node", Box::new(()));
            link.end(Ending::HangUp);
            sessions.push(link);
        }
        assert!(sessions.len() >= 100, "{}", sessions.len());
        sessions.clear();
        assert!(open().is_some());
    }

    #[test]
    fn a_cut_overrules_and_the_first_other_ending_stands() {
        let link = Link::open([192, 0, 2, 1].into(), RATE, &Seats::default()).unwrap();
        assert_eq!(link.ending(), None);
        link.end(Ending::HangUp);
        link.end(Ending::Cut);
        link.end(Ending::HangUp);
        assert_eq!(link.ending(), Some(Ending::Cut));
    }

    #[test]
    fn only_a_namespace_that_was_joined_is_joined_again() {
        let link = Link::open([192, 0, 2, 1].into(), RATE, &Seats::default()).unwrap();
        assert!(!link.joins_again(b"40/ws/node,{") && !link.has_joined());
        link.join("/ws/node", Box::new(7_u8));
        assert_eq!((link.take_found::<u8>(), link.take_found::<u8>()), (Some(7), None));
        assert!(link.joins_again(b"40/ws/node,{") && link.joins_again(b"40/ws/node"));
        for other in [&b"40/ws/nodes,"[..], b"40/notifications,", b"42/ws/node,", b"40", b""] {
            assert!(!link.joins_again(other), "{other:?}");
        }
    }
}
