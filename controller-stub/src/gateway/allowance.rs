//! How much a connection may say. Pure: one point in time tells how far ahead of its allowance a peer is (the generic cell rate
//! algorithm), so a connection pays 16 bytes for it.

use std::time::{Duration, Instant};

/// One unit comes back every 100 ms, and so many may be spent at once. A worker spends about one in ten seconds.
const UNIT: Duration = Duration::from_millis(100);
const BURST: u32 = 120;

/// What a frame costs that the controller only reads.
pub(super) const FRAME: u32 = 1;

/// What a message costs beyond its frame that makes the controller write to its database.
pub(super) const WRITE: u32 = 9;

#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    /// When everything that was spent will have come back.
    whole_at: Instant,
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Self { whole_at: now }
    }

    /// Spends `units`; says whether the peer had them.
    pub(super) fn spend(&mut self, units: u32, now: Instant) -> bool {
        let after = self.whole_at.max(now) + UNIT * units;
        if after.saturating_duration_since(now) > UNIT * BURST {
            return false;
        }
        self.whole_at = after;
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_is_allowed_once_and_comes_back() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        assert_eq!((0..1_000).filter(|_| allowance.spend(FRAME, start)).count(), BURST as usize);
        assert!(!allowance.spend(FRAME, start + UNIT / 2));
        assert!(allowance.spend(FRAME, start + UNIT));
        let later = start + UNIT * BURST * 2;
        assert_eq!((0..1_000).filter(|_| allowance.spend(FRAME + WRITE, later)).count(), BURST as usize / 10);
    }

    proptest! {
        #[test]
        fn nobody_gets_more_than_the_burst_and_what_came_back(
            gaps in prop::collection::vec((0_u64..2_000, 1_u32..20), 1..200),
        ) {
            let start = Instant::now();
            let (mut allowance, mut now, mut spent) = (Allowance::new(start), start, 0);
            for (gap, units) in gaps {
                now += Duration::from_millis(gap);
                if allowance.spend(units, now) {
                    spent += u128::from(units);
                }
            }
            prop_assert!(spent <= u128::from(BURST) + (now - start).as_millis() / UNIT.as_millis());
        }
    }
}
