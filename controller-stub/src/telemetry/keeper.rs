//! Writes windows down once they have closed: all nodes' close at the same moment, and hundreds share one
//! change of the database. What the database does not take is tried again until the next windows close.

use std::{sync::Arc, time::Duration};

use aio_protocol::time::Timestamp;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Closed;
use crate::{app::App, clock, store::StoreError, tasks::Pulse};

/// How often closed windows are looked for.
const INTERVAL: Duration = Duration::from_secs(10);

/// Windows in one change of the database, so that nobody who writes waits for long.
const BATCH: usize = 500;

/// Keeps windows until `stop`, and those that have closed by then.
pub(crate) async fn run(app: Arc<App>, pulse: Pulse, stop: CancellationToken) {
    let mut due = interval(INTERVAL);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut waiting = Vec::new();
    while stop.run_until_cancelled(due.tick()).await.is_some() {
        let _turn = pulse.turn();
        keep(&app, &mut waiting, clock::now()).await;
    }
    keep(&app, &mut waiting, clock::now()).await;
}

async fn keep(app: &App, waiting: &mut Vec<Closed>, now: Timestamp) {
    let closed = app.telemetry.take_closed(now);
    if let Some(newest) = closed.last().map(|it| it.slot) {
        let before = waiting.len();
        waiting.retain(|it| it.slot >= newest);
        let lost = before - waiting.len();
        if lost > 0 {
            tracing::warn!(lost, "telemetry of five minutes could not be stored and is dropped");
        }
    }
    waiting.extend(closed);
    if let Err(error) = write(app, waiting).await {
        tracing::debug!(error = &error as &dyn std::error::Error, "telemetry could not be stored yet");
    }
}

/// Writes what waits, and takes what was written off the list.
async fn write(app: &App, waiting: &mut Vec<Closed>) -> Result<(), StoreError> {
    while !waiting.is_empty() {
        let batch = waiting.len().min(BATCH);
        app.store.keep_telemetry(waiting.iter().take(batch).cloned().collect()).await?;
        waiting.drain(..batch);
    }
    Ok(())
}
