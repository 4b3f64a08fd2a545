//! Drops events that were kept long enough, a little at a time, so that nobody who writes waits for it.

use std::time::Duration;

use metrics::counter;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    store::{Store, StoreError},
    tasks::Pulse,
};

/// How often old events are looked for.
const LOOK: Duration = Duration::from_secs(60);

/// So many are dropped in one change of the database.
const BATCH: u64 = 500;

/// Looks until `stop`.
pub(crate) async fn run(store: Store, keep: Duration, pulse: Pulse, stop: CancellationToken) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(look.tick()).await.is_some() {
        let _turn = pulse.turn();
        let pruned = stop.run_until_cancelled(prune(&store, keep)).await;
        if let Some(Err(error)) = pruned {
            tracing::warn!(error = &error as &dyn std::error::Error, "old events could not be dropped");
        }
    }
}

async fn prune(store: &Store, keep: Duration) -> Result<(), StoreError> {
    let before = clock::now().minus(keep);
    loop {
        let dropped = store.prune_events(before, BATCH).await?;
        counter!("aio_noti_pruned_total").increment(dropped);
        if dropped == 0 {
            return Ok(());
        }
    }
}
