//! Drops events that were kept long enough, a little at a time, so that nobody who writes waits for it.

use std::time::{Duration, Instant};

use aio_protocol::time::Timestamp;

use metrics::counter;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    store::{Store, StoreError},
    tasks::Pulse,
};

/// Interval between two looks for old events.
const LOOK: Duration = Duration::from_secs(60);

/// Maximum number of events that are dropped in one change of the database.
const BATCH: u64 = 500;

/// The setting that holds the trusted time.
const SETTING: &str = "retention-time";

/// Looks until `stop`.
pub(crate) async fn run(store: Store, keep: Duration, pulse: Pulse, stop: CancellationToken) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut trusted = None;
    while stop.run_until_cancelled(look.tick()).await.is_some() {
        let _turn = pulse.turn();
        let pruned = stop.run_until_cancelled(prune(&store, keep, &mut trusted)).await;
        if let Some(Err(error)) = pruned {
            tracing::warn!(error = &error as &dyn std::error::Error, "old events could not be dropped");
        }
    }
}

async fn prune(store: &Store, keep: Duration, trusted: &mut Option<TrustedClock>) -> Result<(), StoreError> {
    let (today, now) = (clock::now(), Instant::now());
    let time = match trusted {
        Some(trusted) => trusted.advance(today, now),
        None => {
            let known = store.setting(SETTING).await?.and_then(|text| text.parse().ok());
            let known = if known.is_some() { known } else { store.newest_event().await? };
            trusted.insert(TrustedClock::new(known, today, now)).time
        }
    };
    store.put_setting(SETTING, &time.to_string()).await?;
    loop {
        let dropped = store.prune_events(time.minus(keep), today, BATCH).await?;
        counter!("aio_noti_pruned_total").increment(dropped);
        if dropped == 0 {
            return Ok(());
        }
    }
}

/// A time of day that a clock which is set ahead does not carry away: it runs at most ten times as fast as time itself until it has
/// caught up. Whoever set the clock a year ahead by mistake has weeks before an event is dropped that should not be; a controller that
/// was off for a month has caught up in three days. Pure.
struct TrustedClock {
    time: Timestamp,
    at: Instant,
}

/// How much faster than time itself the trusted clock runs at most.
const CATCH_UP: u32 = 10;

impl TrustedClock {
    /// `known` is the last time that is known to have been.
    fn new(known: Option<Timestamp>, today: Timestamp, now: Instant) -> Self {
        Self { time: known.map_or(today, |known| known.min(today)), at: now }
    }

    fn advance(&mut self, today: Timestamp, now: Instant) -> Timestamp {
        self.time = self.time.plus((now - self.at).saturating_mul(CATCH_UP)).min(today);
        self.at = now;
        self.time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_of_the_clock_is_no_elapsed_time() {
        let (start, minute) = (Instant::now(), Duration::from_secs(60));
        let (year, today) = (minute * 60 * 24 * 365, Timestamp::from_millis(1_765_454_400_000));
        let mut clock = TrustedClock::new(Some(today), today.plus(year), start);
        assert_eq!(clock.time, today);
        assert_eq!(clock.advance(today.plus(year), start + minute), today.plus(minute * 10));
        let right = today.plus(minute * 2);
        assert_eq!(clock.advance(right, start + minute * 2), right, "it is set right");
        let back = today.minus(year);
        assert_eq!(clock.advance(back, start + minute * 3), back, "never ahead of the clock");
        let mut clock = TrustedClock::new(Some(today), today.plus(minute * 25), start);
        let mut at = |n| clock.advance(today.plus(minute * (25 + n)), start + minute * n);
        let times = [at(1), at(2), at(3)];
        assert_eq!(times, [10, 20, 28].map(|n| today.plus(minute * n)), "it catches up");
        assert_eq!(TrustedClock::new(None, today, start).time, today);
        assert_eq!(TrustedClock::new(Some(today.plus(year)), today, start).time, today);
    }
}
