//! What the two ends of a Socket.IO connection here know of each other: the carriage, which has the bytes, and
//! the namespaces, which have the words. Either may end it.

use std::{
    any::Any,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Instant,
};

use super::seats::Seat;
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
    state: Mutex<State>,
}

struct State {
    ending: Option<Ending>,
    /// Of the task that reads the connection.
    reader: Option<Waker>,
    allowance: Allowance,
    /// Held until a token was accepted.
    seat: Option<Seat>,
    /// The namespaces that were joined.
    joined: Vec<&'static str>,
    /// What the check of a token found, for whoever serves the namespace.
    found: Option<Box<dyn Any + Send>>,
}

impl Link {
    pub(super) fn new(address: IpAddr, rate: Rate, seat: Seat) -> Self {
        let now = Instant::now();
        let state = State {
            ending: None,
            reader: None,
            allowance: Allowance::new(now),
            seat: Some(seat),
            joined: Vec::new(),
            found: None,
        };
        Self { address, since: now, rate, state: Mutex::new(state) }
    }

    /// Ends the connection. The first that asks decides how, except that a cut overrules.
    pub(crate) fn end(&self, ending: Ending) {
        let mut state = self.state();
        if state.ending.is_none() || ending == Ending::Cut {
            state.ending = Some(ending);
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
