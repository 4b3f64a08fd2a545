//! Looks at the clock: who has been silent for a whole lease goes offline, what installs without a report has stalled, and what was
//! seen is written down now and then. A heartbeat itself never touches the disk.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aio_protocol::{ids::NodeId, telemetry::Health, wire::close};
use metrics::{counter, gauge};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    brake::{self, Fleet},
    leases::Survey,
    lifecycle::Occurrence,
};

/// Leases are looked at so often; no more than a tenth of their length, so that a short one ends in time too.
const LOOK: Duration = Duration::from_secs(1);

/// Nodes without a lease that should have one are looked for so often.
const ADOPT: Duration = Duration::from_secs(60);

/// A look that is late by more than this part of a lease finds a process that stood still.
const STANDSTILL: u32 = 60;

const ACTOR: &str = "controller";

/// So many nodes go offline side by side: their saves then share a commit.
const AT_ONCE: usize = 256;

/// Watches until `stop`, and writes down what was seen last.
pub(crate) async fn run(app: Arc<App>, stop: CancellationToken) {
    let shortest = app.lifecycle.workers.length().min(app.lifecycle.installations.length());
    let mut look = interval(LOOK.min(shortest / 10).max(Duration::from_millis(5)));
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut flush = interval(app.last_seen_lag);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut adopt = interval(ADOPT);
    adopt.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let since = Instant::now();
        tokio::select! {
            () = stop.cancelled() => break,
            scheduled = look.tick() => {
                pardon_a_standstill(&app, Instant::now() - since.max(scheduled.into_std()));
                expire_workers(&app).await;
                expire_installations(&app).await;
            }
            _ = flush.tick() => write_down(&app).await,
            _ = adopt.tick() => {
                forget_clones(&app);
                if let Err(error) = app.lifecycle.adopt().await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "nodes without a lease could not be looked for");
                }
            }
        }
    }
    write_down(&app).await;
}

/// A process that stood still (a paused machine, no processor to be had) heard nobody: that is no worker's silence.
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

async fn expire_workers(app: &Arc<App>) {
    for some in overdue_workers(app).chunks(AT_ONCE) {
        let mut going = JoinSet::new();
        for id in some {
            going.spawn(expire_worker(app.clone(), id.clone()));
        }
        going.join_all().await;
    }
}

/// Whose lease has ended, unless the brake holds them.
fn overdue_workers(app: &App) -> Vec<NodeId> {
    let leases = &app.lifecycle.workers;
    let now = Instant::now();
    let mut brake = app.brake();
    let Survey { fleet, expired } = leases.survey(now, brake.window());
    let effect = brake.step(fleet, now);
    gauge!("aio_leases").set(count(fleet.leased));
    gauge!("aio_leases_held").set(if brake.is_holding() { count(fleet.expired) } else { 0.0 });
    let Fleet { leased, silent, .. } = fleet;
    match effect {
        Some(brake::Effect::LetGo) => expired,
        Some(brake::Effect::GiveWay) => {
            tracing::warn!(silent, fleet = leased, "the fleet stayed silent: its nodes go offline now");
            expired
        }
        Some(brake::Effect::RaiseAlarm) => {
            counter!("aio_brake_alarms_total").increment(1);
            tracing::warn!(
                silent,
                fleet = leased,
                "most of the fleet fell silent within a minute: nobody goes offline for now; check this controller's network"
            );
            Vec::new()
        }
        Some(brake::Effect::Pardon) => {
            leases.pardon(now, brake.window());
            tracing::warn!(
                silent,
                fleet = leased,
                "most of the fleet is heard again; the rest has a new lease"
            );
            Vec::new()
        }
        None => Vec::new(),
    }
}

async fn expire_worker(app: Arc<App>, id: NodeId) {
    let leases = &app.lifecycle.workers;
    let turn = app.lifecycle.turn(&id).await;
    // It may have been heard of while its turn was waited for.
    if !leases.has_expired(&id, Instant::now()) {
        return;
    }
    match turn.apply(&Occurrence::LeaseExpired, ACTOR).await {
        Ok(_) => {
            counter!("aio_worker_departures_total", "how" => "timeout").increment(1);
            app.registry.close(&id, close::SILENT);
        }
        // The lease stays, so the next look tries again.
        Err(error) => {
            tracing::warn!(node = %id, error = &error as &dyn std::error::Error, "the end of a lease could not be noted");
        }
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
        // Applying it ends the installation's lease, since the node then no longer installs.
        if let Err(error) = turn.apply(&Occurrence::Stalled(leases.length()), ACTOR).await {
            tracing::warn!(node = %id, error = &error as &dyn std::error::Error, "a stalled installation could not be noted");
        }
    }
}

fn forget_clones(app: &App) {
    let mut clones = app.clones();
    for node in clones.forget(Instant::now()) {
        tracing::info!(%node, "one machine alone has this node's identity again");
    }
    let healths = app.registry.healths();
    for health in Health::ALL {
        let nodes = healths.get(&health).copied().unwrap_or_default();
        gauge!("aio_nodes_gpu_health", "health" => health.as_str()).set(count(nodes));
    }
    gauge!("aio_identity_conflicts").set(count(clones.conflicts()));
}

async fn write_down(app: &App) {
    let seen = app.lifecycle.workers.take_unstored();
    if seen.is_empty() {
        return;
    }
    if let Err(error) = app.store.put_last_seen(seen).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "when nodes were last seen could not be written down"
        );
    }
}
