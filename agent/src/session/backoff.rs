//! How long to wait before the next try: full jitter under a ceiling that doubles with every
//! failure. Pure; the chance comes in as a number. Why a try failed, and whether that asks for
//! another wait than this one, is the setback's business.

use std::time::Duration;

/// The ceiling of the first wait.
pub const FIRST: Duration = Duration::from_secs(1);

/// No ceiling grows beyond this.
pub const LONGEST: Duration = Duration::from_secs(60);

/// A session that lived as long as this has proved the path: counting starts anew.
pub const STABLE: Duration = Duration::from_secs(60);

/// A number from 0 up to, not including, 1. Whoever has a source of chance makes it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Jitter(f64);

impl Jitter {
    /// The middle, for what must not depend on chance.
    pub const MIDDLE: Self = Self(0.5);

    /// From any number; what is outside the range (or no number) becomes the middle.
    pub fn new(number: f64) -> Self {
        if (0.0..1.0).contains(&number) { Self(number) } else { Self::MIDDLE }
    }

    /// This share of `whole`.
    pub fn of(self, whole: Duration) -> Duration {
        whole.mul_f64(self.0)
    }
}

/// Failures in a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The longest that the next wait can be.
    pub fn ceiling(self) -> Duration {
        FIRST.saturating_mul(2_u32.saturating_pow(self.failures)).min(LONGEST)
    }

    /// The next wait: anything from nothing to the ceiling, so that a fleet that fell together does
    /// not come back together.
    pub fn delay(self, jitter: Jitter) -> Duration {
        jitter.of(self.ceiling())
    }

    /// After one more failure.
    pub fn failed(self) -> Self {
        Self { failures: self.failures.saturating_add(1) }
    }

    /// After a session that lived for `life`.
    pub fn lived(self, life: Duration) -> Self {
        if life >= STABLE { Self::default() } else { self }
    }
}

/// The wait after a refusal that time alone does not cure: long, and still not the same for everybody.
pub fn long_delay(jitter: Jitter) -> Duration {
    LONGEST / 2 + jitter.of(LONGEST / 2)
}

/// The wait when the other end said how long: never shorter, and a tenth more at most. Who says "at
/// once" is not met by a hot loop.
pub fn told_delay(told: Duration, jitter: Jitter) -> Duration {
    let told = told.max(FIRST);
    told + jitter.of(told / 10)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(failures: u32) -> Backoff {
        (0..failures).fold(Backoff::default(), |backoff, _| backoff.failed())
    }

    #[test]
    fn the_ceiling_doubles_from_one_second_to_a_minute() {
        let ceilings: Vec<_> = (0..8).map(|failures| after(failures).ceiling().as_secs()).collect();
        assert_eq!(ceilings, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn a_minute_of_stable_session_starts_anew_and_less_does_not() {
        assert_eq!(after(5).lived(STABLE), Backoff::default());
        assert_eq!(after(5).lived(STABLE - Duration::from_millis(1)), after(5));
    }

    #[test]
    fn the_cap_does_not_swallow_the_jitter() {
        let (low, high) = (after(20).delay(Jitter::new(0.01)), after(20).delay(Jitter::new(0.99)));
        assert!(high - low > Duration::from_secs(50), "{low:?} {high:?}");
    }

    #[test]
    fn what_is_no_share_becomes_the_middle() {
        for number in [f64::NAN, -0.1, 1.0, f64::INFINITY] {
            assert_eq!(Jitter::new(number), Jitter::MIDDLE);
        }
    }

    proptest! {
        #[test]
        fn a_wait_is_never_above_its_ceiling(failures in any::<u32>(), number in 0.0..1.0_f64) {
            let backoff = Backoff { failures };
            prop_assert!(backoff.delay(Jitter::new(number)) <= backoff.ceiling());
            prop_assert!(backoff.ceiling() <= LONGEST);
            prop_assert!(backoff.failed().ceiling() >= backoff.ceiling());
        }

        #[test]
        fn who_is_told_to_wait_waits_at_least_that_long(told in 0..3600_u64, number in 0.0..1.0_f64) {
            let told = Duration::from_secs(told);
            let delay = told_delay(told, Jitter::new(number));
            prop_assert!(delay >= told.max(FIRST) && delay <= told.max(FIRST) * 11 / 10);
        }

        #[test]
        fn a_refusal_waits_half_a_minute_to_a_minute(number in 0.0..1.0_f64) {
            let delay = long_delay(Jitter::new(number));
            prop_assert!((LONGEST / 2..=LONGEST).contains(&delay));
        }
    }
}
