//! When a connection has to act by itself: pings, offers, deadlines. Pure. A connection keeps one timer, for
//! the earliest.

use std::time::{Duration, Instant};

/// Keeps proxies from closing a quiet connection.
const PING: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy)]
pub(super) struct Timetable {
    ping: Instant,
    token_ends: Instant,
    /// Deadline for what the worker has to do: register, or leave after its goodbye.
    patience_ends: Option<Instant>,
    offer: Option<Instant>,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// The connection's token has ended.
    TokenEnd,
    /// The worker did not do in time what was due from it.
    PatienceEnd,
    /// The worker is to be offered a new token.
    Offer,
    /// The peer is to be pinged.
    Ping,
}

impl Timetable {
    /// Of a new connection, whose worker has `patience` to register.
    pub(super) fn new(now: Instant, patience: Duration, token_ends: Instant) -> Self {
        Self { ping: now + PING, token_ends, patience_ends: Some(now + patience), offer: None }
    }

    /// The worker did what was due from it.
    pub(super) fn be_content(&mut self) {
        self.patience_ends = None;
    }

    /// The worker has until then to go.
    pub(super) fn expect_by(&mut self, by: Instant) {
        self.patience_ends = Some(by);
    }

    pub(super) fn offer_at(&mut self, at: Instant) {
        self.offer = Some(at);
    }

    /// When the next thing is due.
    pub(super) fn next(&self) -> Instant {
        let earliest = self.ping.min(self.token_ends);
        [self.patience_ends, self.offer].into_iter().flatten().fold(earliest, Instant::min)
    }

    /// Takes what is due at `now`, one at a time. What ends the connection stays due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Due> {
        if self.token_ends <= now {
            return Some(Due::TokenEnd);
        }
        if self.patience_ends.is_some_and(|at| at <= now) {
            return Some(Due::PatienceEnd);
        }
        if self.offer.take_if(|at| *at <= now).is_some() {
            return Some(Due::Offer);
        }
        if self.ping <= now {
            self.ping = now + PING;
            return Some(Due::Ping);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn everything_comes_in_its_time() {
        let start = Instant::now();
        let mut table = Timetable::new(start, SECOND * 10, start + SECOND * 50);
        assert_eq!((table.next(), table.take_due(start)), (start + SECOND * 10, None));
        assert_eq!(table.take_due(start + SECOND * 10), Some(Due::PatienceEnd));
        table.be_content();
        assert_eq!(table.next(), start + PING);
        table.offer_at(start + SECOND * 15);
        assert_eq!(table.next(), start + SECOND * 15);
        assert_eq!(table.take_due(start + PING), Some(Due::Offer));
        assert_eq!(table.take_due(start + PING), Some(Due::Ping));
        assert_eq!(table.take_due(start + PING), None);
        assert_eq!(table.next(), start + PING * 2);
        table.expect_by(start + SECOND * 30);
        assert_eq!(table.take_due(start + SECOND * 30), Some(Due::PatienceEnd));
        assert_eq!(table.take_due(start + SECOND * 50), Some(Due::TokenEnd));
    }

    #[test]
    fn a_ping_that_was_late_is_not_made_up_for() {
        let start = Instant::now();
        let mut table = Timetable::new(start, SECOND, start + SECOND * 5000);
        table.be_content();
        let late = start + SECOND * 1000;
        assert_eq!((table.take_due(late), table.take_due(late)), (Some(Due::Ping), None));
        assert_eq!(table.next(), late + PING);
    }
}
