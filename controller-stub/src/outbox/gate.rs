//! Whether delivery may go on at this moment: the breaker, a NOTI that asked to be left alone, and a NOTI that is gone for good.
//! Pure: the caller brings the clock.

use std::time::{Duration, Instant};

use super::{
    breaker::{Breaker, Paused, Permit, State},
    verdict::Health,
};

#[derive(Debug)]
pub(super) struct Gate {
    breaker: Breaker,
    held_until: Option<Instant>,
    stopped: bool,
}

/// Why nothing may be posted now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shut {
    /// Until this moment.
    Until(Instant),
    /// Until a probe has an answer.
    Probing,
    /// Until an operator resumes it, or a restart.
    Stopped,
}

impl Gate {
    pub(super) fn new(first_pause: Duration) -> Self {
        Self { breaker: Breaker::new(first_pause), held_until: None, stopped: false }
    }

    /// Whether an attempt would be admitted.
    pub(super) fn check(&self, now: Instant) -> Result<(), Shut> {
        if self.stopped {
            return Err(Shut::Stopped);
        }
        if let Some(until) = self.held_until.filter(|until| now < *until) {
            return Err(Shut::Until(until));
        }
        self.breaker.check(now).map_err(Shut::from)
    }

    /// Admits an attempt.
    pub(super) fn admit(&mut self, now: Instant) -> Result<Permit, Shut> {
        self.check(now)?;
        self.held_until = None;
        self.breaker.admit(now).map_err(Shut::from)
    }

    pub(super) fn record(&mut self, permit: Permit, health: Health, now: Instant) {
        self.breaker.record(permit, health, now);
    }

    /// Posts nothing until then, or until when it was held already if that is later.
    pub(super) fn hold(&mut self, until: Instant) {
        self.held_until = self.held_until.max(Some(until));
    }

    /// Posts nothing until `resume`.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    /// Ends a stop; says whether there was one.
    pub(super) fn resume(&mut self) -> bool {
        std::mem::take(&mut self.stopped)
    }

    pub(super) fn breaker(&self) -> State {
        self.breaker.state()
    }
}

impl From<Paused> for Shut {
    fn from(paused: Paused) -> Self {
        match paused {
            Paused::Until(until) => Self::Until(until),
            Paused::Probing => Self::Probing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_lasts_as_long_as_the_longest_that_was_asked_for() {
        let now = Instant::now();
        let mut gate = Gate::new(Duration::from_secs(5));
        gate.hold(now + Duration::from_secs(7));
        gate.hold(now + Duration::from_secs(3));
        assert_eq!(gate.check(now), Err(Shut::Until(now + Duration::from_secs(7))));
        assert_eq!(gate.check(now + Duration::from_secs(7)), Ok(()));
    }

    #[test]
    fn a_stop_lasts_until_it_is_resumed_and_is_resumed_once() {
        let now = Instant::now();
        let mut gate = Gate::new(Duration::from_secs(5));
        gate.stop();
        assert_eq!(gate.admit(now + Duration::from_secs(1_000_000)).unwrap_err(), Shut::Stopped);
        assert!(gate.resume());
        assert!(!gate.resume());
        assert_eq!(gate.check(now), Ok(()));
    }
}
