//! How fast the events of one node or one organisation may reach NOTI before they are gathered: whoever is over the limit rests a
//! while, and then all that has gathered is delivered in one go. Nothing is dropped or merged, and no rest is longer than the
//! limit says, so that the newest state is never far behind. Pure: the caller brings the clock.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// A limit of a rate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    /// So many events at once are nothing unusual.
    pub burst: u32,
    /// One more is allowed after each of these.
    pub refill: Duration,
    /// No rest is longer.
    pub longest_rest: Duration,
}

/// The rates of all that were told of lately. Whoever was not costs nothing.
#[derive(Debug)]
pub(super) struct Pace<K> {
    limit: Limit,
    /// When each would have its whole burst again.
    recovered: HashMap<K, Instant>,
    /// The table is swept when it has grown to this.
    sweep_at: usize,
}

const SMALLEST_SWEEP: usize = 1024;

impl<K: Eq + Hash> Pace<K> {
    pub(super) fn new(limit: Limit) -> Self {
        Self { limit, recovered: HashMap::new(), sweep_at: SMALLEST_SWEEP }
    }

    /// Counts events that were delivered.
    pub(super) fn count(&mut self, key: K, events: u32, now: Instant) {
        if events == 0 {
            return;
        }
        let Limit { burst, refill, longest_rest } = self.limit;
        let recovered = self.recovered.entry(key).or_insert(now);
        *recovered = ((*recovered).max(now) + refill * events).min(now + refill * burst + longest_rest);
        if self.recovered.len() >= self.sweep_at {
            self.recovered.retain(|_, recovered| *recovered > now);
            self.sweep_at = (self.recovered.len() * 2).max(SMALLEST_SWEEP);
        }
    }

    /// How long `key` has to rest before its next events are delivered.
    pub(super) fn rest(&self, key: &K, now: Instant) -> Duration {
        let debt = self.recovered.get(key).map(|recovered| recovered.saturating_duration_since(now));
        debt.unwrap_or_default().saturating_sub(self.limit.refill * self.limit.burst)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: Limit =
        Limit { burst: 20, refill: Duration::from_secs(3), longest_rest: Duration::from_secs(5) };

    #[test]
    fn a_burst_passes_and_what_flaps_on_rests_until_the_next_event_is_allowed() {
        let (mut pace, now) = (Pace::new(LIMIT), Instant::now());
        pace.count("node", 20, now);
        assert_eq!(pace.rest(&"node", now), Duration::ZERO);
        pace.count("node", 1, now);
        assert_eq!(pace.rest(&"node", now), Duration::from_secs(3));
        assert_eq!(pace.rest(&"other", now), Duration::ZERO);
        assert_eq!(pace.rest(&"node", now + Duration::from_secs(3)), Duration::ZERO);
    }

    #[test]
    fn whoever_has_calmed_down_is_forgotten() {
        let (mut pace, now) = (Pace::new(LIMIT), Instant::now());
        (0..SMALLEST_SWEEP - 1).for_each(|key| pace.count(key, 1, now));
        pace.count(usize::MAX, 1, now + LIMIT.refill * 2);
        assert_eq!(pace.recovered.len(), 1);
    }

    proptest! {
        #[test]
        fn no_rest_is_longer_than_the_limit_says_however_much_is_delivered(
            steps in proptest::collection::vec((0_u32..10_000, 0_u64..10_000), 1..100),
        ) {
            let (mut pace, mut now) = (Pace::new(LIMIT), Instant::now());
            for (events, millis) in steps {
                now += Duration::from_millis(millis);
                pace.count((), events, now);
                prop_assert!(pace.rest(&(), now) <= LIMIT.longest_rest);
            }
            now += LIMIT.refill * LIMIT.burst + LIMIT.longest_rest;
            pace.count((), 20, now);
            prop_assert_eq!(pace.rest(&(), now), Duration::ZERO, "the whole burst is back");
        }
    }
}
