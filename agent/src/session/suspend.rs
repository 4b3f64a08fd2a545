//! Whether the machine slept, and whether somebody set its clock: told from what three clocks say
//! at two moments. Pure. What a session makes of it is the machine's business; who looks at the
//! clocks, and when, is `clock_watch`'s.

use std::time::Duration;

/// What is shorter is the time between two readings, or the second to which a machine that wakes up
/// sets its clock.
const LEAST: Duration = Duration::from_secs(2);

/// What the clocks of this machine say at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    /// Since some moment, while the machine was awake (`CLOCK_MONOTONIC`): what all waits of this
    /// program are measured by.
    pub awake: Duration,
    /// Since some moment, asleep or awake (`CLOCK_BOOTTIME`).
    pub passed: Duration,
    /// Since 1970, as somebody has set it (`CLOCK_REALTIME`).
    pub wall: Duration,
}

/// What happened between two moments, beside time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gap {
    /// How long the machine slept, if it did.
    pub slept: Option<Duration>,
    /// How far the clock was set, if it was.
    pub set: Option<Setting>,
}

/// How far a clock was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// To a later time.
    Forward(Duration),
    /// To an earlier time.
    Back(Duration),
}

impl Clocks {
    /// What happened since `before`.
    pub fn since(self, before: Self) -> Gap {
        let awake = self.awake.saturating_sub(before.awake);
        let passed = self.passed.saturating_sub(before.passed);
        let slept = passed.saturating_sub(awake);
        // Where the clock would stand now, had nobody touched it.
        let expected = before.wall + passed;
        let set = match self.wall.checked_sub(expected) {
            Some(ahead) => Setting::Forward(ahead),
            None => Setting::Back(expected.saturating_sub(self.wall)),
        };
        Gap {
            slept: Some(slept).filter(|slept| *slept >= LEAST),
            set: Some(set).filter(|set| set.by() >= LEAST),
        }
    }
}

impl Setting {
    /// The size alone.
    pub fn by(self) -> Duration {
        match self {
            Self::Forward(by) | Self::Back(by) => by,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 3600;

    fn clocks(awake: u64, passed: u64, wall: u64) -> Clocks {
        let [awake, passed, wall] = [awake, passed, wall].map(Duration::from_secs);
        Clocks { awake, passed, wall }
    }

    #[test]
    fn sleep_and_a_clock_that_was_set_are_told_apart() {
        let before = clocks(100, 150, 1_765_454_400);
        let after = |awake: u64, passed: u64, wall: i64| {
            clocks(100 + awake, 150 + passed, 1_765_454_400_u64.saturating_add_signed(wall)).since(before)
        };
        let seconds = Duration::from_secs;
        let slept = |by| Gap { slept: Some(seconds(by)), set: None };
        let set = |setting| Gap { slept: None, set: Some(setting) };
        let (forward, back) = (Setting::Forward(seconds(HOUR)), Setting::Back(seconds(HOUR)));
        for (name, gap, expected) in [
            ("time passes", after(30, 30, 30), Gap::default()),
            ("a lid was closed for an hour", after(1, HOUR + 1, 3601), slept(HOUR)),
            ("the clock was set an hour forward", after(1, 1, 3601), set(forward)),
            ("the clock was set an hour back", after(1, 1, -3599), set(back)),
            (
                "both: woken up, the clock of a machine without battery is in the past",
                after(1, HOUR + 1, 1),
                Gap { slept: Some(seconds(HOUR)), set: Some(back) },
            ),
            ("it is set by a second, as happens", after(5, 5, 6), Gap::default()),
        ] {
            assert_eq!(gap, expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_clocks_say_nothing_is_told_of_an_ordinary_span_and_sleep_is_told_in_full(
            start in any::<[u32; 3]>(), span in 0..100_000_u32, asleep in 0..100_000_u32,
        ) {
            let [awake, passed, wall] = start.map(u64::from);
            let (span, asleep) = (u64::from(span), u64::from(asleep));
            let before = clocks(awake, passed, wall);
            let after = clocks(awake + span, passed + span + asleep, wall + span + asleep);
            let slept = (asleep >= 2).then(|| Duration::from_secs(asleep));
            prop_assert_eq!(after.since(before), Gap { slept, set: None });
        }

        #[test]
        fn no_reading_is_too_odd_to_be_compared(a in any::<[u32; 3]>(), b in any::<[u32; 3]>()) {
            let [a, b] = [a, b].map(|it| clocks(it[0].into(), it[1].into(), it[2].into()));
            let gap = b.since(a);
            prop_assert!(gap.slept.is_none_or(|slept| slept <= b.passed));
        }
    }
}
