//! Takes nodes offline whose worker was silent for a whole lease, unless a brake holds them.

use std::{sync::Arc, time::Instant};

use aio_protocol::{ids::NodeId, wire::close};
use metrics::{counter, gauge};
use tokio::task::JoinSet;

use super::{ACTOR, count};
use crate::{
    app::App,
    brake::{Effect, Fleet, Scope},
    leases::Survey,
    lifecycle::{LifecycleError, Occurrence},
};

/// Maximum number of nodes that go offline side by side. Their saves then share a commit.
const MAX_CONCURRENT_EXPIRIES: usize = 256;

pub(super) async fn run(app: &Arc<App>) {
    for some in overdue(app).chunks(MAX_CONCURRENT_EXPIRIES) {
        let mut expiries = JoinSet::new();
        for id in some {
            expiries.spawn(expire(app.clone(), id.clone()));
        }
        expiries.join_all().await;
    }
}

/// Whose lease has ended, and whom no brake holds.
fn overdue(app: &App) -> Vec<NodeId> {
    let leases = &app.lifecycle.workers;
    let now = Instant::now();
    let mut brakes = app.brakes();
    let Survey { fleets, mut expired } = leases.survey(now, brakes.window());
    let effects = brakes.step(&fleets, now);
    let held = fleets.iter().filter(|(organisation, _)| brakes.holds(organisation));
    gauge!("aio_leases_held").set(count(held.map(|(_, fleet)| fleet.expired).sum()));
    gauge!("aio_leases").set(count(fleets.values().map(|fleet| fleet.leased).sum()));
    let mut overdue = Vec::new();
    for (scope, effect) in effects {
        tell(&scope, effect, &fleets);
        match (&scope, effect) {
            (Scope::Organisation(organisation), Effect::LetGo | Effect::GiveWay) => {
                overdue.append(&mut expired.remove(organisation).unwrap_or_default());
            }
            (_, Effect::Pardon) => leases.pardon(&scope, now, brakes.window()),
            (Scope::All, Effect::LetGo | Effect::GiveWay) | (_, Effect::RaiseAlarm) => {}
        }
    }
    overdue
}

fn tell(
    scope: &Scope,
    effect: Effect,
    fleets: &std::collections::HashMap<aio_protocol::ids::OwnerId, Fleet>,
) {
    let (organisation, of_scope) = match scope {
        Scope::Organisation(id) => (id.as_str(), fleets.get(id).into_iter().collect::<Vec<_>>()),
        Scope::All => ("all", fleets.values().collect()),
    };
    let silent: usize = of_scope.iter().map(|fleet| fleet.silent).sum();
    let fleet: usize = of_scope.iter().map(|fleet| fleet.leased).sum();
    match effect {
        Effect::LetGo => {}
        Effect::GiveWay => {
            tracing::warn!(organisation, silent, fleet, "the fleet stayed silent: its nodes go offline now");
        }
        Effect::RaiseAlarm => {
            counter!("aio_brake_alarms_total").increment(1);
            tracing::warn!(
                organisation,
                silent,
                fleet,
                "most of the fleet fell silent within a minute: none of it goes offline for now; check this controller's network"
            );
        }
        Effect::Pardon => {
            tracing::warn!(
                organisation,
                silent,
                fleet,
                "most of the fleet is heard again; the rest has a new lease"
            );
        }
    }
}

async fn expire(app: Arc<App>, id: NodeId) {
    let leases = &app.lifecycle.workers;
    let turn = app.lifecycle.turn(&id).await.while_held();
    // It may have been heard of while its turn was waited for.
    if !leases.has_expired(&id, Instant::now()) {
        return;
    }
    match turn.apply(&Occurrence::LeaseExpired, ACTOR).await {
        Ok(_) => {
            counter!("aio_worker_departures_total", "how" => "timeout").increment(1);
            app.registry.close(&id, close::SILENT);
        }
        Err(LifecycleError::Superseded(_)) => {
            leases.end(&id);
            app.registry.displace(&id);
        }
        // The lease stays, so the next check tries again.
        Err(error) => {
            tracing::warn!(node = %id, error = &error as &dyn std::error::Error, "the end of a lease could not be noted");
        }
    }
}
