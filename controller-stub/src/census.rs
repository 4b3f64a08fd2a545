//! Counts the nodes by status every few seconds, and adds up how long they have had each. The second gives
//! the fleet's uptime over any time by division.

use std::time::{Duration, Instant};

use aio_protocol::node::NodeStatus;
use metrics::{counter, gauge};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    exporter::Exporter,
    store::{Store, StoreError},
    tasks::Pulse,
};

/// Interval between two counts.
const INTERVAL: Duration = Duration::from_secs(5);

/// Counts until `stop`.
pub(crate) async fn run(store: Store, exporter: Exporter, pulse: Pulse, stop: CancellationToken) {
    let mut due = interval(INTERVAL);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut counted_until = Instant::now();
    while stop.run_until_cancelled(due.tick()).await.is_some() {
        let _turn = pulse.turn();
        exporter.tidy_up();
        // Whole seconds; what is left counts the next time.
        let seconds = counted_until.elapsed().as_secs();
        match count(&store, seconds).await {
            Ok(()) => counted_until += Duration::from_secs(seconds),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the nodes could not be counted");
            }
        }
    }
}

async fn count(store: &Store, seconds: u64) -> Result<(), StoreError> {
    let by_status = store.census().await?;
    for status in NodeStatus::ALL {
        let nodes = by_status.get(&status).copied().unwrap_or(0);
        #[expect(clippy::cast_precision_loss, reason = "a gauge; no fleet has 2^52 nodes")]
        gauge!("aio_nodes", "status" => status.as_str()).set(nodes as f64);
        counter!("aio_node_seconds_total", "status" => status.as_str()).increment(nodes * seconds);
    }
    Ok(())
}
