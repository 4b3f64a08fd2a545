//! Looks again and again for what is wrong, and writes down alarms that are raised and resolved. What a
//! node's alarm owes to NOTI is written in the same transaction. A silenced alarm is raised untold; it is
//! told when the silence ends before it does. One that gets worse is raised anew under its id; whatever else
//! changes of it is written down now and then, and told to nobody.

use std::{collections::HashMap, sync::Arc, time::Instant};

use aio_protocol::{
    event::{AlarmDetail, EventBody, EventData, HealthDetail, NodeEvent},
    ids::NodeId,
    telemetry::Health,
    text,
    time::Timestamp,
};
use metrics::gauge;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    evaluator::{Due, Evaluator, Knowledge},
    healths::Told,
    model::{Finding, Key, Kind, Level, Resolution, Whose},
    survey::Survey,
};
use crate::{
    app::App,
    clock,
    lifecycle::{LifecycleError, Saving},
    node::Node,
    store::{Alarm, AlarmChange, RecordedStep, Silence, Store, StoreError, Telling},
    tasks::Pulse,
};

/// The longest reason and action of an alarm, in characters.
const MAX_CHARS: usize = 255;

/// Looks from one amendment of alarms to the next: numbers in their reasons may change at every look.
const LOOKS_AN_AMENDMENT: u64 = 12;

/// Alarms that are amended in one transaction.
const AMENDED_AT_ONCE: usize = 200;

/// What is kept between two looks.
struct Keeper {
    app: Arc<App>,
    evaluator: Evaluator,
    open: HashMap<Key, Alarm>,
    told: Told,
    looks: u64,
}

/// Keeps alarms until `stop`.
pub(crate) async fn run(app: Arc<App>, pulse: Pulse, stop: CancellationToken) {
    let mut due = interval(app.alarm_interval);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut keeper = None;
    let mut failures = 0_u32;
    while stop.run_until_cancelled(due.tick()).await.is_some() {
        let _turn = pulse.turn();
        match look(&app, &mut keeper).await {
            Ok(()) if failures > 0 => {
                tracing::info!(failures, "alarms are looked for again");
                failures = 0;
            }
            Ok(()) => {}
            Err(error) => {
                failures += 1;
                if failures.is_power_of_two() {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        failures,
                        "alarms could not be looked for"
                    );
                }
            }
        }
    }
}

async fn look(app: &Arc<App>, keeper: &mut Option<Keeper>) -> Result<(), LifecycleError> {
    let keeper = match keeper {
        Some(keeper) => keeper,
        None => {
            let open = app.store.open_alarms().await?;
            let open: HashMap<_, _> = open.into_iter().map(|alarm| (alarm.key(), alarm)).collect();
            let evaluator = Evaluator::new(app.alarm_offline_after, open.keys().cloned());
            let told = Told::new(app.store.told_healths().await?);
            keeper.insert(Keeper { app: app.clone(), evaluator, open, told, looks: 0 })
        }
    };
    keeper.look(clock::now()).await
}

impl Keeper {
    async fn look(&mut self, now: Timestamp) -> Result<(), LifecycleError> {
        let mut survey = Survey::make(&self.app, now).await?;
        if self.app.membership.is_shared() {
            self.follow_others().await?;
            // Behind the alarms, so that none of them is of a controller that came since.
            survey.controllers = self.app.store.controller_numbers().await?;
        }
        let silences = self.app.store.silences(None, now).await?;
        let is_ours = |key: &Key| survey.is_ours(&self.app.registry, key);
        let found: Vec<_> = survey.found.iter().filter(|it| is_ours(&it.key)).cloned().collect();
        let is_due = self.looks.is_multiple_of(LOOKS_AN_AMENDMENT);
        self.looks += 1;
        let outdated = if is_due { self.outdated(&found) } else { Vec::new() };
        let knowledge = |key: &Key| if is_ours(key) { survey.knowledge(key) } else { Knowledge::Unknown };
        let level = |key: &Key| self.open.get(key).map(|alarm| alarm.level);
        let due = self.evaluator.evaluate(found, knowledge, level, (Instant::now(), now));
        // One that cannot be written down keeps no other from being.
        let mut failed = Ok(());
        for due in due {
            let written = match &due {
                Due::Raise(finding) => self.raise(finding, &silences, now).await,
                Due::Resolve(key, resolution) => self.resolve(key, *resolution, now).await,
            };
            match written {
                Ok(()) => self.evaluator.done(&due),
                // Another controller holds the node by now, and sees to it.
                Err(LifecycleError::Superseded(_)) => {}
                Err(error) => failed = Err(error),
            }
        }
        let amended = self.amend(outdated).await;
        let untold =
            self.open.values().filter(|alarm| alarm.telling != Telling::Told && alarm.node.is_some());
        let untold =
            untold.filter(|alarm| survey.is_ours(&self.app.registry, &alarm.key())).cloned().collect();
        let told = self.tell(untold, &silences, now).await;
        self.count();
        let healths = self.tell_healths().await;
        failed.and(amended).and(told).and(healths)
    }

    /// Reads what is raised and told. Behind the survey, so that nothing is missed of a node that has come
    /// here.
    async fn follow_others(&mut self) -> Result<(), StoreError> {
        let open = self.app.store.open_alarms().await?;
        self.open = open.into_iter().map(|alarm| (alarm.key(), alarm)).collect();
        let Self { evaluator, open, .. } = self;
        evaluator.follow(|key| open.contains_key(key), open.keys());
        self.told = Told::new(self.app.store.told_healths().await?);
        Ok(())
    }

    /// Tells of nodes whose health is another than the one that was told.
    async fn tell_healths(&mut self) -> Result<(), LifecycleError> {
        for news in self.told.news(self.app.registry.summaries()) {
            let mut health = news.health.clone();
            health.worst = health.worst.filter(|worst| !worst.is_empty());
            let detail = HealthDetail { from: news.from, health };
            let event = |node: &Node, now: Timestamp| NodeEvent {
                body: EventBody::HealthChanged(node.about(detail.clone())),
                timestamp: now,
            };
            let turn = self.app.lifecycle.turn(&news.node).await.while_held();
            match turn.note(event, "health_changed", "controller", &WithHealth(news.health.state)).await {
                // It is not in service any more.
                Ok(_) | Err(LifecycleError::NotFound(_)) => self.told.done(&news),
                Err(LifecycleError::Superseded(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Counts the alarms that are raised, for `/metrics`.
    fn count(&self) {
        if !self.app.membership.leads() {
            return;
        }
        for (kind, level) in Kind::ALL.into_iter().flat_map(|kind| Level::ALL.map(|level| (kind, level))) {
            let alarms =
                self.open.values().filter(|alarm| (alarm.kind, alarm.level) == (kind, level)).count();
            #[expect(clippy::cast_precision_loss, reason = "a gauge; nobody has 2^52 alarms")]
            gauge!("aio_alarms", "kind" => kind.as_str(), "level" => level.as_str()).set(alarms as f64);
        }
    }

    async fn raise(
        &mut self,
        finding: &Finding,
        silences: &[Silence],
        now: Timestamp,
    ) -> Result<(), LifecycleError> {
        let node = match &finding.key.whose {
            Whose::Node(node) => Some(node.clone()),
            Whose::Organisation(_) | Whose::Controller => None,
        };
        // One that is open gets worse: nobody has seen that yet.
        let open = self.open.get(&finding.key);
        let mut alarm = Alarm {
            id: open.map_or_else(Uuid::now_v7, |alarm| alarm.id),
            org: finding.org.clone(),
            node: node.clone(),
            kind: finding.key.kind,
            part: finding.key.part.clone(),
            level: finding.level,
            reason: text::clean(&finding.reason, MAX_CHARS),
            action: text::clean(&finding.action, MAX_CHARS),
            raised_at: open.map_or(now, |alarm| alarm.raised_at),
            telling: match open.map(|alarm| alarm.telling) {
                None | Some(Telling::Untold) => Telling::Untold,
                Some(Telling::Told | Telling::Outdated) => Telling::Outdated,
            },
            acknowledged: None,
            resolved: None,
        };
        match &node {
            Some(node) if !self.is_silenced(node, silences).await? => {
                alarm.telling = Telling::Told;
                let change = AlarmChange::Raise(alarm.clone());
                self.note(node, &alarm, change, EventBody::AlarmRaised, None).await?;
            }
            _ => self.app.store.change_alarm(AlarmChange::Raise(alarm.clone())).await?,
        }
        tracing::warn!(alarm = %alarm.id, kind = alarm.kind.as_str(), node = node.as_ref().map(NodeId::as_str), reason = alarm.reason, action = alarm.action, "an alarm is raised");
        self.open.insert(finding.key.clone(), alarm);
        Ok(())
    }

    async fn resolve(
        &mut self,
        key: &Key,
        resolution: Resolution,
        now: Timestamp,
    ) -> Result<(), LifecycleError> {
        let Some(alarm) = self.open.get(key).cloned() else { return Ok(()) };
        let change = AlarmChange::Resolve(alarm.id, now, resolution);
        match &alarm.node {
            // Nobody is told of nodes that are not in service any more.
            Some(node) if alarm.telling != Telling::Untold && resolution != Resolution::Decommissioned => {
                let noted =
                    self.note(node, &alarm, change.clone(), EventBody::AlarmResolved, Some(resolution)).await;
                match noted {
                    Err(LifecycleError::NotFound(_)) => self.app.store.change_alarm(change).await?,
                    noted => noted?,
                }
            }
            _ => self.app.store.change_alarm(change).await?,
        }
        tracing::info!(alarm = %alarm.id, kind = alarm.kind.as_str(), node = alarm.node.as_ref().map(NodeId::as_str), resolution = resolution.as_str(), "an alarm is resolved");
        self.open.remove(key);
        Ok(())
    }

    /// Tells of alarms that were raised, or got worse, in a silence which is over.
    async fn tell(
        &mut self,
        untold: Vec<Alarm>,
        silences: &[Silence],
        now: Timestamp,
    ) -> Result<(), LifecycleError> {
        let mut failed = Ok(());
        for mut alarm in untold {
            let Some(node) = alarm.node.clone() else { continue };
            if alarm.raised_at >= now || self.is_silenced(&node, silences).await? {
                continue;
            }
            let change = AlarmChange::Tell(alarm.id);
            match self.note(&node, &alarm, change, EventBody::AlarmRaised, None).await {
                Ok(()) => {
                    alarm.telling = Telling::Told;
                    self.open.insert(alarm.key(), alarm);
                }
                // Another controller holds the node by now, or it is not in service any more.
                Err(LifecycleError::Superseded(_) | LifecycleError::NotFound(_)) => {}
                Err(error) => failed = Err(error),
            }
        }
        failed
    }

    /// The alarms that say something else than what was found, as they should be. What got worse is raised.
    fn outdated(&self, found: &[Finding]) -> Vec<Alarm> {
        let outdated = found.iter().filter_map(|finding| {
            let open = self.open.get(&finding.key).filter(|alarm| alarm.level >= finding.level)?;
            let reason = text::clean(&finding.reason, MAX_CHARS);
            let action = text::clean(&finding.action, MAX_CHARS);
            let so = Alarm { level: finding.level, reason, action, ..open.clone() };
            Some(so).filter(|alarm| alarm != open)
        });
        outdated.collect()
    }

    async fn amend(&mut self, outdated: Vec<Alarm>) -> Result<(), LifecycleError> {
        for alarms in outdated.chunks(AMENDED_AT_ONCE) {
            self.app.store.change_alarm(AlarmChange::Amend(alarms.to_vec())).await?;
            for alarm in alarms {
                if let Some(open) = self.open.get_mut(&alarm.key()) {
                    *open = Alarm { telling: open.telling, ..alarm.clone() };
                }
            }
        }
        Ok(())
    }

    async fn is_silenced(&self, node: &NodeId, silences: &[Silence]) -> Result<bool, StoreError> {
        if silences.is_empty() {
            return Ok(false);
        }
        let Some(node) = self.app.store.node(node).await? else { return Ok(false) };
        let labels = serde_json::to_string(&node.labels).unwrap_or_default();
        let of_its_own = silences.iter().filter(|silence| silence.org == node.owner.org_id);
        Ok(of_its_own.into_iter().any(|silence| silence.covers(&node.id, &labels)))
    }

    /// Writes a change down, with the event that says it.
    async fn note(
        &self,
        node: &NodeId,
        alarm: &Alarm,
        change: AlarmChange,
        body: fn(EventData<AlarmDetail>) -> EventBody,
        resolution: Option<Resolution>,
    ) -> Result<(), LifecycleError> {
        let detail = AlarmDetail {
            alarm_id: alarm.id,
            kind: alarm.kind.as_str().to_owned(),
            level: alarm.level.as_str().to_owned(),
            reason: alarm.reason.clone(),
            action: alarm.action.clone(),
            raised_at: alarm.raised_at,
            resolution: resolution.map(|it| it.as_str().to_owned()),
        };
        let event = |node: &Node, now: Timestamp| NodeEvent {
            body: body(node.about(detail.clone())),
            timestamp: now,
        };
        let cause = if resolution.is_some() { "alarm_resolved" } else { "alarm_raised" };
        let turn = self.app.lifecycle.turn(node).await;
        let turn = if self.app.registry.has_speaker(node) { turn.while_held() } else { turn };
        turn.note(event, cause, "controller", &WithAlarm(change)).await.map(drop)
    }
}

/// A node that is saved with the health that was told of it.
struct WithHealth(Health);

impl Saving for WithHealth {
    async fn save(&self, store: &Store, node: &Node, steps: &[RecordedStep]) -> Result<bool, StoreError> {
        store.save_with_health(node, steps, self.0).await
    }
}

/// A node that is saved with a change of its alarm.
struct WithAlarm(AlarmChange);

impl Saving for WithAlarm {
    async fn save(&self, store: &Store, node: &Node, steps: &[RecordedStep]) -> Result<bool, StoreError> {
        store.save_with_alarm(node, steps, self.0.clone()).await
    }
}
