//! Drops what was kept long enough, a little at a time, so that nobody who writes waits for it. Its own clock
//! decides what is old: it follows the wall clock, but never faster than twice the time that has really
//! passed, so that a clock which jumps ahead costs nothing.

use std::time::{Duration, Instant};

use aio_protocol::time::Timestamp;
use metrics::counter;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    store::{Expirable, Store, StoreError},
    tasks::Pulse,
};

/// How often old rows are looked for.
const INTERVAL: Duration = Duration::from_secs(60);

/// Rows that are dropped in one change of the database.
const BATCH: u64 = 500;

/// Where this clock's time is kept over restarts.
const CLOCK: &str = "retention_clock";

/// A restart, of which nobody knows how long it took, moves the clock on by so much at most.
const RESTART: Duration = Duration::from_secs(3_600);

/// How long what is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    pub events: Duration,
    pub history: Duration,
    pub dead_letters: Duration,
    pub inactive_nodes: Duration,
    pub telemetry: Duration,
}

/// A token's row outlives the token by this much: clocks differ, and a refusal should say why.
const TOKEN_GRACE: Duration = Duration::from_secs(30 * 86_400);

impl Retention {
    fn of(self, what: Expirable) -> Duration {
        match what {
            Expirable::Events | Expirable::WebhookAttempts => self.events,
            Expirable::Transitions | Expirable::Audit | Expirable::Alarms | Expirable::Silences => {
                self.history
            }
            Expirable::DeadLetters | Expirable::WebhookEvents => self.dead_letters,
            Expirable::InactiveNodes => self.inactive_nodes,
            Expirable::Tokens => TOKEN_GRACE,
            Expirable::Telemetry => self.telemetry,
        }
    }
}

/// Drops old rows until `stop`.
pub(crate) async fn run(store: Store, retention: Retention, pulse: Pulse, stop: CancellationToken) {
    let mut look = interval(INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut passed = RESTART;
    let mut since = Instant::now();
    while stop.run_until_cancelled(look.tick()).await.is_some() {
        passed += since.elapsed();
        since = Instant::now();
        let prune = async {
            let _turn = pulse.turn();
            prune(&store, retention, passed).await
        };
        match stop.run_until_cancelled(prune).await {
            Some(Ok(())) => passed = Duration::ZERO,
            Some(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "what is old could not be dropped");
            }
            None => {}
        }
    }
}

async fn prune(store: &Store, retention: Retention, passed: Duration) -> Result<(), StoreError> {
    let wall = clock::now();
    let kept = match store.setting(CLOCK).await?.and_then(|text| text.parse().ok()) {
        Some(kept) => Some(kept),
        None => store.newest_event().await?,
    };
    let now = advanced(kept, passed, wall);
    for what in Expirable::ALL {
        let before = now.minus(retention.of(what));
        loop {
            let dropped = store.expire(what, before, wall, BATCH).await?;
            counter!("aio_retention_dropped_total", "what" => what.as_str()).increment(dropped);
            if what == Expirable::Events {
                counter!("aio_noti_pruned_total").increment(dropped);
            }
            if dropped == 0 {
                break;
            }
        }
    }
    store.put_setting(CLOCK, &now.to_string()).await
}

/// What this clock shows when it showed `kept` before, `passed` went by since, and the wall clock
/// shows `wall`.
fn advanced(kept: Option<Timestamp>, passed: Duration, wall: Timestamp) -> Timestamp {
    kept.map_or(wall, |kept| wall.min(kept.plus(passed * 2)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(days: u64) -> Timestamp {
        Timestamp::from_millis(0).plus(DAY * u32::try_from(days).unwrap())
    }

    #[test]
    fn a_clock_that_jumps_ahead_makes_nothing_old_and_one_that_was_behind_is_caught_up_with() {
        assert_eq!(advanced(None, RESTART, at(100)), at(100));
        assert_eq!(advanced(Some(at(100)), DAY, at(101)), at(101));
        assert_eq!(advanced(Some(at(100)), DAY, at(465)), at(102), "a year ahead");
        assert_eq!(advanced(Some(at(465)), DAY, at(101)), at(101), "and back");
        // Off for a month: as fast again until it is right.
        assert_eq!(advanced(Some(at(100)), DAY * 15, at(130)), at(130));
    }

    proptest! {
        #[test]
        fn it_is_never_ahead_of_the_wall_clock_nor_runs_away(kept in 0_u64..1000, wall in 0_u64..1000, hours in 0_u32..100) {
            let passed = Duration::from_secs(3600) * hours;
            let shown = advanced(Some(at(kept)), passed, at(wall));
            prop_assert!(shown <= at(wall));
            prop_assert!(shown <= at(kept).plus(passed * 2));
        }
    }
}
