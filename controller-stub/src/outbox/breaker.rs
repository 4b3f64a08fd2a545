//! The circuit breaker: when NOTI fails again and again, delivery pauses, longer each time, and begins again
//! with one attempt after another. It pauses delivery and nothing else. Pure: the caller brings the clock.

use std::time::{Duration, Instant};

use super::verdict::Health;

/// Number of latest attempts that are judged.
const WINDOW: u32 = 20;
/// Number of bad ones among them that opens the breaker.
const BAD: u32 = 10;
/// Number of good probes in a row that closes it.
const PROBES: u32 = 3;
/// The longest pause, as a multiple of the first.
const GROWTH: u32 = 12;

#[derive(Debug)]
pub(super) struct Breaker {
    first_pause: Duration,
    state: State,
    /// Counts the changes of state: what was admitted in an earlier one says nothing about this one.
    epoch: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Everything is admitted.
    Closed { bad: u32, seen: u32 },
    /// Nothing is admitted until then.
    Open { until: Instant, pause: Duration },
    /// One attempt at a time.
    Probing { pause: Duration, good: u32, under_way: bool },
}

/// The right to make one attempt. What comes of it must be recorded.
#[derive(Debug)]
#[must_use]
pub(super) struct Permit {
    epoch: u64,
}

/// Why there is no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paused {
    Until(Instant),
    /// Until the probe that is under way has an answer.
    Probing,
}

impl Breaker {
    /// A closed breaker, whose first pause lasts `first_pause`; each further one twice as long, up
    /// to twelve times that.
    pub(super) fn new(first_pause: Duration) -> Self {
        Self { first_pause, state: State::CLOSED, epoch: 0 }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Whether an attempt would be admitted.
    pub(super) fn check(&self, now: Instant) -> Result<(), Paused> {
        match self.state {
            State::Open { until, .. } if now < until => Err(Paused::Until(until)),
            State::Probing { under_way: true, .. } => Err(Paused::Probing),
            State::Closed { .. } | State::Open { .. } | State::Probing { .. } => Ok(()),
        }
    }

    /// Admits an attempt, or says when to ask again.
    pub(super) fn admit(&mut self, now: Instant) -> Result<Permit, Paused> {
        self.check(now)?;
        match &mut self.state {
            State::Closed { .. } => {}
            State::Open { pause, .. } => {
                let pause = *pause;
                self.change(State::Probing { pause, good: 0, under_way: true });
            }
            State::Probing { under_way, .. } => *under_way = true,
        }
        Ok(Permit { epoch: self.epoch })
    }

    /// Lets a pause end now.
    pub(super) fn end_pause(&mut self, now: Instant) {
        if let State::Open { until, .. } = &mut self.state {
            *until = now;
        }
    }

    /// Takes note of what came of an attempt.
    pub(super) fn record(&mut self, permit: Permit, health: Health, now: Instant) {
        if permit.epoch != self.epoch {
            return;
        }
        match (self.state, health) {
            (State::Closed { bad, seen }, Health::Good | Health::Bad) => {
                let bad = (bad << 1 | u32::from(health == Health::Bad)) & ((1 << WINDOW) - 1);
                let seen = (seen + 1).min(WINDOW);
                self.state = State::Closed { bad, seen };
                if seen == WINDOW && bad.count_ones() >= BAD {
                    self.open(self.first_pause, now);
                }
            }
            (State::Probing { good, .. }, Health::Good) if good + 1 == PROBES => self.change(State::CLOSED),
            (State::Probing { pause, good, .. }, Health::Good) => {
                self.state = State::Probing { pause, good: good + 1, under_way: false };
            }
            (State::Probing { pause, .. }, Health::Bad) => {
                self.open((pause * 2).min(self.first_pause * GROWTH), now);
            }
            (State::Probing { pause, good, .. }, Health::Unknown) => {
                self.state = State::Probing { pause, good, under_way: false };
            }
            (State::Closed { .. }, Health::Unknown) | (State::Open { .. }, _) => {}
        }
    }

    fn open(&mut self, pause: Duration, now: Instant) {
        self.change(State::Open { until: now + pause, pause });
    }

    fn change(&mut self, state: State) {
        self.state = state;
        self.epoch += 1;
    }
}

impl State {
    pub(super) const CLOSED: Self = Self::Closed { bad: 0, seen: 0 };

    /// Its name in logs and answers.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Closed { .. } => "closed",
            Self::Open { .. } => "open",
            Self::Probing { .. } => "probing",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST_PAUSE: Duration = Duration::from_secs(5);

    fn attempt(breaker: &mut Breaker, health: Health, now: Instant) {
        let permit = breaker.admit(now).unwrap();
        breaker.record(permit, health, now);
    }

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(FIRST_PAUSE);
        for _ in 0..WINDOW {
            attempt(&mut breaker, Health::Bad, now);
        }
        breaker
    }

    #[test]
    fn it_opens_when_half_of_the_last_twenty_were_bad_and_not_before() {
        let now = Instant::now();
        let mut breaker = Breaker::new(FIRST_PAUSE);
        for _ in 0..11 {
            attempt(&mut breaker, Health::Good, now);
        }
        for _ in 0..9 {
            attempt(&mut breaker, Health::Bad, now);
        }
        assert_eq!(breaker.state().as_str(), "closed", "nine of twenty");
        attempt(&mut breaker, Health::Bad, now);
        assert_eq!(breaker.state(), State::Open { until: now + FIRST_PAUSE, pause: FIRST_PAUSE });

        let mut young = Breaker::new(FIRST_PAUSE);
        for _ in 0..19 {
            attempt(&mut young, Health::Bad, now);
        }
        assert_eq!(young.state().as_str(), "closed", "twenty are needed to judge");
    }

    #[test]
    fn it_admits_nothing_in_its_pause_then_one_probe_at_a_time_and_closes_after_three_good_ones() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!(breaker.admit(now + FIRST_PAUSE / 2).unwrap_err(), Paused::Until(now + FIRST_PAUSE));
        let now = now + FIRST_PAUSE;
        for _ in 0..PROBES {
            let permit = breaker.admit(now).unwrap();
            assert_eq!(breaker.admit(now).unwrap_err(), Paused::Probing);
            breaker.record(permit, Health::Good, now);
        }
        assert_eq!(breaker.state(), State::CLOSED, "and the old failures are forgotten");
    }

    #[test]
    fn each_probe_that_fails_doubles_the_pause_up_to_a_minute() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let State::Open { until, pause } = breaker.state() else { panic!("{breaker:?}") };
            pauses.push(pause.as_secs());
            now = until;
            attempt(&mut breaker, Health::Bad, now);
        }
        assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
    }

    #[test]
    fn a_probe_that_learned_nothing_makes_way_for_the_next() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let now = now + FIRST_PAUSE;
        attempt(&mut breaker, Health::Good, now);
        attempt(&mut breaker, Health::Unknown, now);
        assert_eq!(breaker.state(), State::Probing { pause: FIRST_PAUSE, good: 1, under_way: false });
    }

    #[test]
    fn what_was_admitted_before_it_opened_says_nothing_afterwards() {
        let now = Instant::now();
        let mut breaker = Breaker::new(FIRST_PAUSE);
        let late: Vec<_> = (0..10).map(|_| breaker.admit(now).unwrap()).collect();
        for _ in 0..WINDOW {
            attempt(&mut breaker, Health::Bad, now);
        }
        let open = breaker.state();
        for permit in late {
            breaker.record(permit, Health::Good, now);
        }
        assert_eq!(breaker.state(), open);
    }

    proptest! {
        #[test]
        fn it_never_admits_two_probes_nor_anything_in_a_pause_and_always_comes_back(
            steps in proptest::collection::vec((0_u8..4, 0_u64..8), 1..300),
        ) {
            let mut now = Instant::now();
            let mut breaker = Breaker::new(FIRST_PAUSE);
            let mut held = Vec::new();
            for (kind, seconds) in steps {
                now += Duration::from_secs(seconds);
                let before = breaker.state();
                match kind {
                    0 | 1 => match breaker.admit(now) {
                        Ok(permit) => {
                            if let State::Open { until, .. } = before {
                                prop_assert!(now >= until);
                            }
                            if let State::Probing { under_way, .. } = before {
                                prop_assert!(!under_way);
                            }
                            held.push(permit);
                        }
                        Err(Paused::Until(until)) => prop_assert!(until > now && until - now <= FIRST_PAUSE * GROWTH),
                        Err(Paused::Probing) => prop_assert!(!held.is_empty(), "somebody holds the probe"),
                    },
                    2 => if let Some(permit) = held.pop() { breaker.record(permit, Health::Good, now) },
                    _ => if let Some(permit) = held.pop() { breaker.record(permit, Health::Bad, now) },
                }
            }
            for permit in held {
                breaker.record(permit, Health::Unknown, now);
            }
            // Once the old failures make it open, three good probes are enough, and after a window
            // nothing of them is left.
            for _ in 0..WINDOW + PROBES {
                if let State::Open { until, .. } = breaker.state() {
                    now = now.max(until);
                }
                attempt(&mut breaker, Health::Good, now);
            }
            prop_assert_eq!(breaker.state().as_str(), "closed");
        }
    }
}
