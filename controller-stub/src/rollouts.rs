//! Carries rollouts out: what `rollout` decides is saved, and then the nodes that it concerns are told. A
//! look reads only rollouts of which there is news or that are due; a save of a node says that there is news
//! of it. Nothing here is remembered from one look to the next.

mod index;
mod orders;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use aio_protocol::{ids::NodeId, release::index::ReleaseIndex, time::Timestamp};
use metrics::{gauge, histogram};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    app::App,
    clock,
    rollout::{Look, Member, Rollout, Stage, State, Told, let_go, owed, room, take_in},
    store::{AuditEntry, OfferOfNode, Store, StoreError},
    tasks::Pulse,
};

use index::newest_index;
pub(crate) use orders::{
    Asked, Draft, OrderError, check_pin, create, dry_run, order, put_group, update_node,
};

/// Interval between two looks.
const INTERVAL: Duration = Duration::from_millis(500);

/// Interval between two counts for the figures.
const COUNT_INTERVAL: Duration = Duration::from_secs(10);

/// Members that one move takes in at most: a save of so many does not keep other writers waiting for long.
const BATCH: u64 = 500;

/// How often one look lets nodes go at most; the next look goes on.
const MAX_ROUNDS: usize = 16;

/// Who moves a rollout by itself, as audit trails name it.
const ACTOR: &str = "controller";

/// Versions that the figures tell apart.
const MAX_VERSIONS: usize = 20;

/// Looks until `stop`.
pub(crate) async fn run(app: Arc<App>, pulse: Pulse, stop: CancellationToken) {
    let mut due = interval(INTERVAL);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut figures = interval(COUNT_INTERVAL);
    figures.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut first = true;
    loop {
        let looked = tokio::select! {
            () = stop.cancelled() => break,
            _ = due.tick() => {
                let _turn = pulse.turn();
                look(&app, std::mem::take(&mut first)).await
            }
            _ = figures.tick() => {
                let _turn = pulse.turn();
                count(&app.store).await
            }
        };
        if let Err(error) = looked {
            tracing::warn!(error = &error as &dyn std::error::Error, "the rollouts could not be looked at");
        }
    }
}

/// Looks at what there is to look at; at `all` that have started after a start, when what a process before
/// has begun may be half done.
async fn look(app: &App, all: bool) -> Result<(), StoreError> {
    let mut ids = app.store.rollouts_to_look_at(clock::now()).await?;
    if all {
        ids.extend(app.store.started_rollouts().await?.into_iter().map(|rollout| rollout.id));
    }
    if ids.is_empty() {
        return Ok(());
    }
    let index = newest_index(app.enroller.deployment.releases.clone()).await.ok();
    for id in ids {
        look_at(app, id, index.as_ref()).await?;
    }
    Ok(())
}

/// One look at a rollout: what its nodes said, then who may go. What somebody else saved meanwhile is looked
/// at the next time.
async fn look_at(app: &App, id: Uuid, index: Option<&ReleaseIndex>) -> Result<(), StoreError> {
    let now = clock::now();
    let Some(mut rollout) = app.store.rollout(id).await? else { return Ok(()) };
    let before = rollout.state.clone();
    let brake_holds = app.brakes().holds(&rollout.org);
    let look = Look { index, lease: app.lifecycle.workers.length(), brake_holds, now };
    let news = app.store.rollout_news(id, now, BATCH).await?;
    let seen: BTreeMap<_, _> = news.iter().map(|it| (it.member.node.clone(), it.news)).collect();
    let members: Vec<_> = news.into_iter().map(|it| (it.member, it.sight)).collect();
    let changed = take_in(&mut rollout, &members, look);
    if !save(app, &mut rollout, &before, &changed, &seen, now).await? {
        return Ok(());
    }
    tell_of_ends(&members, &changed, now);
    let mut concerned: BTreeSet<NodeId> = BTreeSet::new();
    // What is taken back is told to whoever was offered it.
    if rollout.state.has_ended()
        || !rollout.state.is_live() && (rollout.state != before || members.is_empty())
    {
        concerned.extend(app.store.nodes_of_rollout(id).await?);
    }
    // Who has been told and does not know it, such as after a restart of its worker, is told again; and who
    // is left out now, that its offer is taken back.
    let is_told = |it: &&Member| matches!(it.stage, Stage::Offered | Stage::Skipped);
    concerned.extend(changed.iter().filter(is_told).map(|it| it.node.clone()));
    concerned.extend(let_nodes_go(app, &mut rollout, look).await?);
    concerned.iter().for_each(|node| app.registry.nudge(node));
    if app.membership.is_shared() && !concerned.is_empty() {
        app.store.signal_told(app.membership.number(), concerned.into_iter().collect()).await?;
    }
    Ok(())
}

/// Lets nodes go until there is no room or nobody is left, and says which nodes that concerns.
async fn let_nodes_go(app: &App, rollout: &mut Rollout, look: Look<'_>) -> Result<Vec<NodeId>, StoreError> {
    let (store, id) = (&app.store, rollout.id);
    let of = async |stage, waves, limit| match limit {
        0 => Ok(Vec::new()),
        limit => store.members_of_stage(id, stage, waves, limit).await,
    };
    let mut concerned = Vec::new();
    // Whoever is left out makes room for the next, and a wave that is over for another.
    for _ in 0..MAX_ROUNDS {
        let (room, before) = (room(rollout, look.now), rollout.state.clone());
        let staged = of(Stage::Staged, (0, room.wave), room.permits).await?;
        let staged: Vec<_> = staged.into_iter().map(|(member, _)| member).collect();
        let pending = of(Stage::Pending, (0, room.wave), room.offers).await?;
        let reserves = of(Stage::Pending, (room.wave.saturating_add(1), u8::MAX), room.recruits).await?;
        let changed = let_go(rollout, &staged, &pending, &reserves, look, Uuid::now_v7);
        if changed.is_empty() && rollout.state == before {
            break;
        }
        if !save(app, rollout, &before, &changed, &BTreeMap::new(), look.now).await? {
            break;
        }
        concerned.extend(changed.into_iter().map(|member| member.node));
    }
    Ok(concerned)
}

/// Keeps a rollout that moved, with an audit row where its state changed; says whether nobody else had saved
/// it.
async fn save(
    app: &App,
    rollout: &mut Rollout,
    before: &State,
    changed: &[Member],
    seen: &BTreeMap<NodeId, i64>,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let record = (rollout.state != *before).then(|| moved(rollout, now));
    if !app.store.move_rollout(rollout, changed, seen, rollout.due(now), record).await? {
        return Ok(false);
    }
    rollout.revision += 1;
    if rollout.state != *before {
        let (rollout, version, state) = (rollout.id, &rollout.version, rollout.state.as_str());
        tracing::info!(%rollout, %version, from = before.as_str(), state, "a rollout goes on");
    }
    Ok(true)
}

/// What the audit trail gets of a rollout that went on by itself.
fn moved(rollout: &Rollout, now: Timestamp) -> AuditEntry {
    AuditEntry {
        at: now,
        org: rollout.org.clone(),
        actor: ACTOR.to_owned(),
        roles: Vec::new(),
        address: None,
        action: "rollout.move",
        node: None,
        target: Some(rollout.id.to_string()),
        detail: serde_json::to_value(&rollout.state).ok(),
    }
}

/// Logs the updates that have failed, and counts the seconds of those that have succeeded.
fn tell_of_ends(members: &[(Member, crate::rollout::Sight)], changed: &[Member], now: Timestamp) {
    for next in changed {
        let is_new = members.iter().any(|(member, _)| member.node == next.node && member.stage != next.stage);
        match next.stage {
            Stage::Succeeded if is_new => {
                if let Some(offer) = &next.note.offer {
                    histogram!("aio_update_seconds").record(now.since(offer.at));
                }
            }
            Stage::Faulty | Stage::Inconclusive | Stage::Lost if is_new => {
                let code = next.note.code.as_deref().unwrap_or_default();
                let reason = next.note.message.as_deref().unwrap_or_default();
                tracing::warn!(node = %next.node, stage = next.stage.as_str(), code, reason, "an update failed");
            }
            _ => {}
        }
    }
}

/// What the worker of a node is to be told.
pub(crate) async fn owed_to(app: &App, node: &NodeId) -> Result<Vec<Told>, StoreError> {
    let offers = app.store.offers_of_node(node).await?;
    if offers.is_empty() {
        return Ok(Vec::new());
    }
    let deployment = &app.enroller.deployment;
    let index = newest_index(deployment.releases.clone()).await.ok();
    let (url, now) = (deployment.release_base(), clock::now());
    let owed = offers.iter().filter_map(|OfferOfNode { rollout, member, report, group }| {
        owed(rollout, member, report, index.as_ref(), url, group, now)
    });
    Ok(owed.collect())
}

/// A node that came after its rollout had begun belongs to the newest one that is about it.
pub(crate) async fn join(app: &App, node: &NodeId) -> Result<(), StoreError> {
    if let Some(rollout) = app.store.rollout_to_join(node).await? {
        app.store.join_rollout(&rollout, node).await?;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "gauges; no fleet has 2^52 nodes")]
async fn count(store: &Store) -> Result<(), StoreError> {
    let mut others = 0;
    for (place, (version, nodes)) in store.nodes_by_version().await?.into_iter().enumerate() {
        if place < MAX_VERSIONS {
            gauge!("aio_nodes_by_version", "version" => version).set(nodes as f64);
        } else {
            others += nodes;
        }
    }
    gauge!("aio_nodes_by_version", "version" => "other").set(others as f64);
    let rollouts = store.started_rollouts().await?;
    for stage in Stage::ALL {
        let nodes: u32 = rollouts.iter().map(|rollout| rollout.tally.of(stage)).sum();
        gauge!("aio_rollout_nodes", "state" => stage.as_str()).set(f64::from(nodes));
    }
    Ok(())
}
