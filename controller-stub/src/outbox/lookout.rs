//! Looks for events that nobody rang for: those of an earlier process, and those that a command wrote. And measures the backlog.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::doorbell::Doorbell;
use crate::{
    clock,
    store::{Store, StoreError},
};

/// It looks so often, unless looking takes long.
const LOOK: Duration = Duration::from_secs(1);

/// Between two looks it rests so many times longer than the look took.
const REST: u32 = 20;

/// Looks for as long as it runs.
pub(super) async fn run(store: Store, doorbell: Doorbell) {
    loop {
        let began = Instant::now();
        if let Err(error) = look(&store, &doorbell).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot look for events");
        }
        sleep(LOOK.max(began.elapsed() * REST)).await;
    }
}

async fn look(store: &Store, doorbell: &Doorbell) -> Result<(), StoreError> {
    let nodes = store.nodes_with_undelivered().await?;
    if !nodes.is_empty() {
        doorbell.ring_all(nodes);
    }
    let backlog = store.backlog().await?;
    let age = backlog.oldest.map(|oldest| clock::now().since(oldest)).unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "nobody counts 2^52 events")]
    {
        metrics::gauge!("aio_outbox_events").set(backlog.events as f64);
        metrics::gauge!("aio_dead_letters").set(backlog.dead as f64);
    }
    metrics::gauge!("aio_outbox_oldest_age_seconds").set(age.as_secs_f64());
    Ok(())
}
