//! What happens because time has passed: leases end (`expiry`), installations without a report stall, and
//! `lastSeenAt` is written to the database now and then. A heartbeat itself never touches the disk.

mod expiry;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{app::App, clock, lifecycle::Occurrence, tasks::Pulse};

/// Interval between lease checks, at most a tenth of the lease.
const LEASE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Interval between searches for nodes that should have a lease and have none.
const ADOPT_INTERVAL: Duration = Duration::from_secs(60);

/// The process stood still when a check is late by more than this part of a lease.
const STANDSTILL: u32 = 60;

const ACTOR: &str = "controller";

/// Watches until `stop`, and writes down what was seen last.
pub(crate) async fn run(app: Arc<App>, pulse: Pulse, stop: CancellationToken) {
    let shortest = app.lifecycle.workers.length().min(app.lifecycle.installations.length());
    let mut check = interval(LEASE_CHECK_INTERVAL.min(shortest / 10).max(Duration::from_millis(5)));
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut flush = interval(app.last_seen_lag);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut adopt = interval(ADOPT_INTERVAL);
    adopt.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let since = Instant::now();
        tokio::select! {
            () = stop.cancelled() => break,
            scheduled = check.tick() => {
                let _turn = pulse.turn();
                pardon_a_standstill(&app, Instant::now() - since.max(scheduled.into_std()));
                expiry::run(&app).await;
                expire_installations(&app).await;
            }
            _ = flush.tick() => {
                let _turn = pulse.turn();
                write_down(&app).await;
            }
            _ = adopt.tick() => {
                let _turn = pulse.turn();
                forget_clones(&app);
                if let Err(error) = app.lifecycle.adopt().await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "nodes without a lease could not be looked for");
                }
            }
        }
    }
    write_down(&app).await;
}

/// A process that stood still (a paused machine, no processor to be had) heard nobody: that is no
/// worker's silence.
fn pardon_a_standstill(app: &App, late: Duration) {
    let leases = &app.lifecycle.workers;
    if late > leases.length() / STANDSTILL {
        leases.postpone(late);
        app.lifecycle.installations.postpone(late);
        tracing::warn!(
            seconds = late.as_secs_f64(),
            "the controller stood still; every lease lasts longer by as much"
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge; no fleet has 2^52 nodes")]
fn count(number: usize) -> f64 {
    number as f64
}

async fn expire_installations(app: &App) {
    let leases = &app.lifecycle.installations;
    for id in leases.expired(Instant::now()) {
        let turn = app.lifecycle.turn(&id).await;
        if !leases.has_expired(&id, Instant::now()) {
            continue;
        }
        // Who leads has heard of each report by the node's saves; others have heard only what came to them.
        if !app.membership.leads() {
            leases.end(&id);
            continue;
        }
        // Applying it ends the installation's lease, since the node then no longer installs.
        if let Err(error) = turn.apply(&Occurrence::Stalled(leases.length()), ACTOR).await {
            tracing::warn!(node = %id, error = &error as &dyn std::error::Error, "a stalled installation could not be noted");
        }
    }
}

fn forget_clones(app: &App) {
    for node in app.clones().forget(Instant::now()) {
        tracing::info!(%node, "one machine alone has this node's identity again");
    }
}

async fn write_down(app: &App) {
    let seen = app.lifecycle.workers.take_unstored();
    if seen.is_empty() {
        return;
    }
    if let Err(error) = app.store.put_last_seen(seen, clock::now()).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "when nodes were last seen could not be written down"
        );
    }
}
