//! How much a peer may do in a time (the generic cell rate algorithm). Pure: one point in time tells how far
//! ahead of its rate a peer is, so it costs 16 bytes.

use std::{
    collections::HashMap,
    hash::Hash,
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A rate: `burst` units at once, and one more after each `interval`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    pub interval: Duration,
    pub burst: u32,
}

impl Rate {
    /// So many units in a second, and as many at once.
    pub(crate) fn per_second(units: NonZeroU32) -> Self {
        Self { interval: Duration::from_secs(1) / units.get(), burst: units.get() }
    }
}

/// What one peer has left of a rate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    /// When everything that was spent will have come back.
    whole_at: Instant,
}

impl Allowance {
    pub(crate) fn new(now: Instant) -> Self {
        Self { whole_at: now }
    }

    /// Spends `units`, unless the peer has fewer; says whether it had them.
    pub(crate) fn spend(&mut self, rate: Rate, units: u32, now: Instant) -> bool {
        let after = self.whole_at.max(now) + rate.interval.saturating_mul(units);
        if after.saturating_duration_since(now) > rate.interval * rate.burst {
            return false;
        }
        self.whole_at = after;
        true
    }

    /// Takes `units`, had or not; never more than `longest` is owed beyond the rate's burst.
    pub(crate) fn charge(&mut self, rate: Rate, units: u32, longest: Duration, now: Instant) {
        let most = now + rate.interval * rate.burst + longest;
        self.whole_at = (self.whole_at.max(now) + rate.interval.saturating_mul(units)).min(most);
    }

    /// How long until nothing is owed beyond the rate's burst.
    pub(crate) fn owed(&self, rate: Rate, now: Instant) -> Duration {
        self.whole_at.saturating_duration_since(now).saturating_sub(rate.interval * rate.burst)
    }

    /// How long until `units` are there.
    fn wait(&self, rate: Rate, units: u32, now: Instant) -> Duration {
        let spent = self.whole_at.saturating_duration_since(now) + rate.interval.saturating_mul(units);
        spent.saturating_sub(rate.interval.saturating_mul(rate.burst))
    }

    /// Whether the whole burst is there.
    pub(crate) fn is_whole(&self, now: Instant) -> bool {
        self.whole_at <= now
    }
}

/// What each of many peers has left of one rate.
pub(crate) struct Allowances<K> {
    rate: Rate,
    table: Mutex<Table<K>>,
}

struct Table<K> {
    left: HashMap<K, Allowance>,
    /// With so many peers, those who have been quiet are evicted.
    evict_at: usize,
}

/// Fewer peers are not worth a look for quiet ones.
const MIN_PEERS: usize = 1024;

impl<K: Eq + Hash> Allowances<K> {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, table: Mutex::new(Table { left: HashMap::new(), evict_at: MIN_PEERS }) }
    }

    /// Spends `units` of this peer's, or says when it has them again.
    pub(crate) fn spend(&self, peer: K, units: u32, now: Instant) -> Result<(), Duration> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let Table { left, evict_at } = &mut *table;
        if left.len() >= *evict_at {
            left.retain(|_, allowance| !allowance.is_whole(now));
            *evict_at = (left.len() * 2).max(MIN_PEERS);
        }
        let allowance = left.entry(peer).or_insert(Allowance::new(now));
        if allowance.spend(self.rate, units, now) {
            Ok(())
        } else {
            Err(allowance.wait(self.rate, units, now))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate { interval: Duration::from_millis(100), burst: 120 };

    #[test]
    fn each_peer_has_the_rate_is_told_when_to_come_back_and_is_evicted_when_quiet() {
        let (allowances, start) = (Allowances::new(RATE), Instant::now());
        assert_eq!(allowances.spend(0, 120, start), Ok(()));
        assert_eq!(allowances.spend(0, 10, start), Err(Duration::from_secs(1)));
        assert_eq!(allowances.spend(1, 10, start), Ok(()), "another is not concerned");
        assert_eq!(allowances.spend(0, 10, start + Duration::from_secs(1)), Ok(()));
        let later = start + Duration::from_secs(3600);
        for peer in 0..10 * MIN_PEERS {
            // Each is quiet by the time that the next comes.
            let now = later + Duration::from_secs(peer as u64);
            assert_eq!(allowances.spend(peer, 1, now), Ok(()));
        }
        assert!(allowances.table.lock().unwrap().left.len() <= MIN_PEERS);
    }

    #[test]
    fn a_burst_is_allowed_once_and_comes_back() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let mut spent = |units, now| (0..1_000).filter(|_| allowance.spend(RATE, units, now)).count();
        assert_eq!(spent(1, start), 120);
        assert_eq!(spent(1, start + RATE.interval / 2), 0);
        assert_eq!(spent(1, start + RATE.interval), 1);
        assert_eq!(spent(10, start + RATE.interval * RATE.burst * 2), 12);
        assert_eq!(spent(u32::MAX, start + RATE.interval * RATE.burst * 9), 0);
    }

    proptest! {
        #[test]
        fn nothing_is_owed_for_longer_than_was_agreed_however_much_is_charged(
            steps in prop::collection::vec((0_u32..10_000, 0_u64..10_000), 1..100),
        ) {
            let (mut allowance, mut now) = (Allowance::new(Instant::now()), Instant::now());
            let longest = Duration::from_secs(5);
            for (units, millis) in steps {
                now += Duration::from_millis(millis);
                allowance.charge(RATE, units, longest, now);
                prop_assert!(allowance.owed(RATE, now) <= longest);
            }
            now += RATE.interval * RATE.burst + longest;
            prop_assert!(allowance.is_whole(now));
            allowance.charge(RATE, RATE.burst, longest, now);
            prop_assert_eq!(allowance.owed(RATE, now), Duration::ZERO, "the whole burst is back");
        }

        #[test]
        fn nobody_gets_more_than_the_burst_and_what_came_back(
            gaps in prop::collection::vec((0_u64..2_000, 1_u32..20), 1..200),
        ) {
            let start = Instant::now();
            let (mut allowance, mut now, mut spent) = (Allowance::new(start), start, 0);
            for (gap, units) in gaps {
                now += Duration::from_millis(gap);
                if allowance.spend(RATE, units, now) {
                    spent += u128::from(units);
                }
            }
            prop_assert!(spent <= u128::from(RATE.burst) + (now - start).as_millis() / RATE.interval.as_millis());
        }
    }
}
