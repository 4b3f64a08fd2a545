//! When a failed event is tried again: soon and with full jitter while its failure is young, so that what failed together is not
//! tried again together; then every few minutes; after a day never. Pure.

use std::time::Duration;

use super::verdict::Retry;

const FIRST: Duration = Duration::from_millis(200);
const CEILING: Duration = Duration::from_secs(30);
/// So long after its first attempt, an event is tried seldom.
const EAGER: Duration = Duration::from_secs(10 * 60);
/// About so often.
const SELDOM: Duration = Duration::from_secs(5 * 60);
/// So long after its first attempt, an event is given up.
const LIFE: Duration = Duration::from_secs(24 * 3600);

/// The pause before the next attempt at an event that has now failed `failures` times and was first tried `tried_for` ago;
/// `None` when there is none. `chance` is drawn from 0 to 1.
///
/// Its life begins with its first attempt, not with its making: what waited while delivery was paused or the controller was off
/// has the whole day.
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

    proptest! {
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
