//! How long to wait after a failed attempt: full jitter, so that what failed together is not tried again together. Pure.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
/// No pause is longer.
pub(super) const LONGEST: Duration = Duration::from_secs(30);

/// The pause after `failures` failed attempts; `chance` is drawn from 0 to 1.
pub(super) fn pause(failures: u32, chance: f64) -> Duration {
    let ceiling = FIRST.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(LONGEST);
    ceiling.mul_f64(chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_ceiling_doubles_from_a_fifth_of_a_second_to_half_a_minute() {
        let millis: Vec<_> = (1..=10).map(|failures| pause(failures, 1.0).as_millis()).collect();
        assert_eq!(millis, [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
    }

    proptest! {
        #[test]
        fn every_pause_is_spread_over_its_whole_range(failures in 0_u32.., chance in 0.0..=1.0) {
            prop_assert!(pause(failures, chance) <= LONGEST);
            prop_assert_eq!(pause(failures, 0.0), Duration::ZERO);
            prop_assert!(pause(failures, 0.5) * 2 <= LONGEST);
        }
    }
}
