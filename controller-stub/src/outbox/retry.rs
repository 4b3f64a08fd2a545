//! When a failed event is tried again: soon and with full jitter while its failure is young, so that what
//! failed together is not tried again together; then every few minutes; after a day never. Pure.

use std::time::Duration;

use aio_protocol::time::Timestamp;

use super::verdict::{LONGEST_HOLD, Retry};
use crate::store::Undelivered;

const FIRST: Duration = Duration::from_millis(200);
const CEILING: Duration = Duration::from_secs(30);
/// An event that has been tried for this long is tried seldom.
const EAGER: Duration = Duration::from_secs(10 * 60);
/// The interval of seldom, give or take a fifth.
const SELDOM: Duration = Duration::from_secs(5 * 60);
/// An event that has been tried for this long is given up.
const LIFE: Duration = Duration::from_secs(24 * 3600);

/// How long an event still waits for its next attempt. None does that was never attempted, or that
/// is due further away than any pause lasts: there the clock was set.
pub(super) fn wait(event: &Undelivered, now: Timestamp) -> Duration {
    let wait = event.due.since(now);
    if event.attempts == 0 || wait > LONGEST_HOLD { Duration::ZERO } else { wait }
}

/// How long an event has been tried when it is attempted at `now`. The time since the attempt
/// before is at least its pause and counts a minute at most, later an hour: a clock that was set is
/// no elapsed time, and neither is a controller that was off.
pub(super) fn tried_for(event: &Undelivered, now: Timestamp) -> Duration {
    let Some(last) = event.last_attempt_at else { return event.tried_for };
    let longest = if event.tried_for < EAGER { CEILING * 2 } else { LONGEST_HOLD };
    let pause = event.due.since(last).min(longest);
    event.tried_for.saturating_add(now.since(last).clamp(pause, longest))
}

/// The pause before the next attempt at an event that has now failed `failures` times and was tried
/// for `tried_for`; `None` when there is none. `chance` is drawn from 0 to 1.
///
/// Its life begins with its first attempt, not with its making: what waited while delivery was
/// paused or the controller was off has the whole day.
pub(super) fn pause(retry: Retry, failures: u32, tried_for: Duration, chance: f64) -> Option<Duration> {
    if tried_for >= LIFE {
        return None;
    }
    let chance = chance.clamp(0.0, 1.0);
    let pause = if retry.slow || tried_for >= EAGER {
        SELDOM.mul_f64(0.8 + 0.4 * chance)
    } else {
        let doubled = FIRST.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
        doubled.min(CEILING).mul_f64(chance)
    };
    Some(pause.max(retry.hold.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUICK: Retry = Retry { slow: false, hold: None, alarm: None };
    const SLOW: Retry = Retry { slow: true, ..QUICK };

    #[test]
    fn the_ceiling_doubles_from_a_fifth_of_a_second_to_half_a_minute() {
        let ceiling = |failures| pause(QUICK, failures, Duration::ZERO, 1.0).unwrap().as_millis();
        let millis: Vec<_> = (1..=10).map(ceiling).collect();
        assert_eq!(millis, [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
    }

    #[test]
    fn after_ten_minutes_it_is_every_five_and_after_a_day_never() {
        let at = |retry, tried_for: Duration, chance| pause(retry, 30, tried_for, chance);
        let second = Duration::from_secs(1);
        assert!(at(QUICK, EAGER - second, 1.0).unwrap() <= CEILING);
        assert_eq!(at(QUICK, EAGER, 0.5), Some(SELDOM));
        assert_eq!(at(QUICK, LIFE - second, 0.0), Some(Duration::from_secs(240)));
        assert_eq!(at(QUICK, LIFE - second, 1.0), Some(Duration::from_secs(360)));
        assert_eq!(at(QUICK, LIFE, 0.5), None);
        assert_eq!(
            at(SLOW, Duration::ZERO, 0.5),
            Some(SELDOM),
            "what only a person can cure, from the start"
        );
        assert_eq!(at(SLOW, LIFE, 0.5), None);
    }

    fn event(attempts: u32, tried_for: Duration, last: Option<Timestamp>, due: Timestamp) -> Undelivered {
        let (id, body) = (String::new(), String::new());
        Undelivered { id, body, noticed_at: due, attempts, tried_for, last_attempt_at: last, due }
    }

    const YEAR: Duration = Duration::from_secs(365 * 86_400);

    #[test]
    fn a_due_time_further_away_than_any_pause_is_due_now() {
        let now = Timestamp::from_millis(1_765_454_400_000);
        let second = Duration::from_secs(1);
        for (attempts, due, waits) in [
            (0, now.plus(second * 5), Duration::ZERO),
            (0, now.plus(YEAR), Duration::ZERO),
            (1, now.minus(YEAR), Duration::ZERO),
            (1, now.plus(second * 5), second * 5),
            (1, now.plus(LONGEST_HOLD), LONGEST_HOLD),
            (1, now.plus(LONGEST_HOLD + second), Duration::ZERO),
            (1, now.plus(YEAR), Duration::ZERO),
            (1, Timestamp::from_millis(i64::MAX), Duration::ZERO),
        ] {
            assert_eq!(
                wait(&event(attempts, Duration::ZERO, Some(now), due), now),
                waits,
                "{attempts} {due}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_event_is_given_up_before_a_day_of_attempts_however_the_clock_is_set(
            jumps in proptest::collection::vec(proptest::option::weighted(0.1, -2_i64 * 365 * 86_400..2 * 365 * 86_400), 1..600),
        ) {
            let mut real = Duration::ZERO;
            let mut now = Timestamp::from_millis(1_765_454_400_000);
            let mut it = event(0, Duration::ZERO, None, now);
            let mut jumped = 0;
            for jump in jumps {
                let tried = tried_for(&it, now);
                // A jump may cost an hour, and nothing else may cost anything.
                prop_assert!(tried <= real + LONGEST_HOLD * jumped, "{tried:?} of {real:?}");
                prop_assert!(tried >= it.tried_for);
                it.attempts += 1;
                let Some(pause) = pause(QUICK, it.attempts, tried, 0.5) else { break };
                (it.tried_for, it.last_attempt_at, it.due) = (tried, Some(now), now.plus(pause));
                prop_assert!(wait(&it, now) <= LONGEST_HOLD);
                real += pause;
                now = now.plus(pause);
                if let Some(secs) = jump {
                    jumped += 1;
                    now = Timestamp::from_millis(now.as_millis() + secs * 1000);
                }
            }
        }

        #[test]
        fn every_pause_is_spread_over_its_range_and_never_shorter_than_noti_asked(
            failures in 0_u32.., tried_secs in 0_u64..200_000, chance in 0.0..=1.0, hold_secs in proptest::option::of(0_u64..3600), slow: bool,
        ) {
            let retry = Retry { slow, hold: hold_secs.map(Duration::from_secs), alarm: None };
            let tried_for = Duration::from_secs(tried_secs);
            let pause_at = |chance| pause(retry, failures, tried_for, chance);
            prop_assert_eq!(pause_at(chance).is_none(), tried_for >= LIFE);
            if let (Some(least), Some(drawn), Some(most)) = (pause_at(0.0), pause_at(chance), pause_at(1.0)) {
                prop_assert!(least <= drawn && drawn <= most);
                prop_assert!(drawn >= retry.hold.unwrap_or_default());
                prop_assert!(most <= Duration::from_secs(360).max(retry.hold.unwrap_or_default()));
            }
        }
    }
}
