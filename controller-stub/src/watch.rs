//! Looks at the clock: who has been silent for a whole lease goes offline, what installs without a report has stalled, and what was
//! seen is written down now and then. A heartbeat itself never touches the disk.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aio_protocol::wire::close;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{app::App, lifecycle::Occurrence};

/// Leases are looked at so often; no more than a tenth of their length, so that a short one ends in time too.
const LOOK: Duration = Duration::from_secs(1);

/// How far `lastSeenAt` in the database may lag behind. The API knows better, and a transition writes it exactly.
const FLUSH: Duration = Duration::from_secs(10);

/// Nodes without a lease that should have one are looked for so often.
const ADOPT: Duration = Duration::from_secs(60);

const ACTOR: &str = "controller";

/// Watches until `stop`, and writes down what was seen last.
pub(crate) async fn run(app: Arc<App>, stop: CancellationToken) {
    let shortest = app.lifecycle.workers.length().min(app.lifecycle.installations.length());
    let mut look = interval(LOOK.min(shortest / 10).max(Duration::from_millis(5)));
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut flush = interval(FLUSH);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut adopt = interval(ADOPT);
    adopt.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = look.tick() => {
                expire_workers(&app).await;
                expire_installations(&app).await;
            }
            _ = flush.tick() => write_down(&app).await,
            _ = adopt.tick() => {
                if let Err(error) = app.lifecycle.adopt().await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "nodes without a lease could not be looked for");
                }
            }
        }
    }
    write_down(&app).await;
}

async fn expire_workers(app: &App) {
    let leases = &app.lifecycle.workers;
    for id in leases.expired(Instant::now()) {
        let turn = app.lifecycle.turn(&id).await;
        // It may have been heard of while its turn was waited for.
        if !leases.has_expired(&id, Instant::now()) {
            continue;
        }
        match turn.apply(&Occurrence::LeaseExpired, ACTOR).await {
            Ok(_) => app.registry.close(&id, close::SILENT),
            // The lease stays, so the next look tries again.
            Err(error) => {
                tracing::warn!(node = %id, error = &error as &dyn std::error::Error, "the end of a lease could not be noted");
            }
        }
    }
}

async fn expire_installations(app: &App) {
    let leases = &app.lifecycle.installations;
    for id in leases.expired(Instant::now()) {
        let turn = app.lifecycle.turn(&id).await;
        if !leases.has_expired(&id, Instant::now()) {
            continue;
        }
        // Applying it ends the installation's lease, since the node then no longer installs.
        if let Err(error) = turn.apply(&Occurrence::Stalled(leases.length()), ACTOR).await {
            tracing::warn!(node = %id, error = &error as &dyn std::error::Error, "a stalled installation could not be noted");
        }
    }
}

async fn write_down(app: &App) {
    let seen = app.lifecycle.workers.take_unstored();
    if seen.is_empty() {
        return;
    }
    if let Err(error) = app.store.put_last_seen(&seen).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "when nodes were last seen could not be written down"
        );
    }
}
