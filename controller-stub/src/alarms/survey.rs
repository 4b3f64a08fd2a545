//! What is wrong now, as far as this controller knows. Reads rows of those nodes alone that may have
//! something.

use std::collections::{HashMap, HashSet};

use aio_protocol::{
    ids::NodeId,
    node::NodeStatus,
    telemetry::{Health, HealthSummary},
    time::Timestamp,
};

use super::{
    evaluator::Knowledge,
    findings::{container_findings, gpu_findings, machine_finding, of_controller, of_node, of_organisation},
    model::{Finding, Key, Kind, Level, Resolution, Whose},
};
use crate::{
    app::App,
    gateway::registry::Registry,
    outbox::DeliveryState,
    store::{StoreError, WatchedNode},
    telemetry::{Wrong, reading::Reading},
};

/// A token that ends sooner should have been replaced.
const TOKEN_ENDS_WITHIN: std::time::Duration = std::time::Duration::from_secs(3 * 86_400);

/// A part of the disk, and bytes, that are always free.
const FREE_SHARE: f64 = 0.05;
const FREE_BYTES: u64 = 1024 * 1024 * 1024;

/// Nodes that are read at once.
const BATCH: usize = 200;

/// What was found, and of whom what is known.
#[derive(Default)]
pub(super) struct Survey {
    /// This controller's number, and whether it led when the survey began: what was not looked at is not
    /// over.
    number: i64,
    leads: bool,
    /// The numbers of all controllers, where this one leads others.
    pub controllers: HashSet<i64>,
    pub found: Vec<Finding>,
    /// Nodes by their id that have alarms or a status of their own.
    pub nodes: HashMap<NodeId, WatchedNode>,
    /// How the GPUs of connected nodes are, as far as their workers have said it whole.
    health: HashMap<NodeId, Health>,
    /// Nodes with alarms whose workers have told of their containers lately.
    tell_of_containers: HashSet<NodeId>,
    /// The same of their machines.
    tell_of_machines: HashSet<NodeId>,
}

impl Survey {
    pub(super) async fn make(app: &App, now: Timestamp) -> Result<Self, StoreError> {
        let (number, leads) = (app.membership.number(), app.membership.leads());
        let watched = app.store.watched_nodes().await?;
        let nodes: HashMap<_, _> = watched.into_iter().map(|node| (node.id.clone(), node)).collect();
        let telling = |what: fn(&Reading) -> bool| -> HashSet<NodeId> {
            let tells = |id: &&NodeId| {
                let mut tells = false;
                app.telemetry.read(id, now, |reading| tells = what(reading));
                tells
            };
            nodes.keys().filter(tells).cloned().collect()
        };
        let mut survey = Self {
            number,
            leads,
            tell_of_containers: telling(|reading| reading.containers.is_some()),
            tell_of_machines: telling(|reading| reading.problems.is_some()),
            nodes,
            ..Self::default()
        };
        survey.look_at_gpus(app, now).await?;
        survey.look_at_machines(app, now).await?;
        survey.look_at_identities(app);
        survey.look_at_this_controller(app, now);
        if leads {
            survey.look_at_statuses(app, now);
            survey.look_at_the_rest(app, now).await?;
        }
        Ok(survey)
    }

    /// Whether an alarm is this controller's to raise and to resolve: what a worker says is that of whoever
    /// holds it, what is wrong with a controller its own while it is there, and all else the leader's.
    pub(super) fn is_ours(&self, registry: &Registry, key: &Key) -> bool {
        if key.kind.is_of_one_controller() {
            let is_there = key.part.parse().is_ok_and(|number| self.controllers.contains(&number));
            return key.part == self.part() || self.leads && !is_there;
        }
        let Whose::Node(id) = &key.whose else { return self.leads };
        if !(key.kind.is_told_by_worker() || key.kind == Kind::IdentityConflict) {
            return self.leads;
        }
        match self.nodes.get(id).map_or(0, |node| node.holder) {
            0 => self.leads || registry.has_speaker(id),
            holder => holder == self.number,
        }
    }

    /// What can be known of something that was not found.
    pub(super) fn knowledge(&self, key: &Key) -> Knowledge {
        let Whose::Node(id) = &key.whose else { return Knowledge::Known };
        match self.nodes.get(id).map(|node| node.status) {
            Some(NodeStatus::Maintenance) => return Knowledge::Stopped(Resolution::Maintenance),
            Some(NodeStatus::Inactive) => return Knowledge::Stopped(Resolution::Decommissioned),
            _ => {}
        }
        let told = if key.kind.is_of_containers() {
            self.tell_of_containers.contains(id)
        } else if key.kind.is_of_machine() {
            self.tell_of_machines.contains(id)
        } else {
            self.health.contains_key(id)
        };
        if key.kind.is_told_by_worker() && !told {
            return Knowledge::Unknown;
        }
        Knowledge::Known
    }

    /// Which of several controllers this one is.
    fn part(&self) -> String {
        if self.number == 0 { String::new() } else { self.number.to_string() }
    }

    fn look_at_this_controller(&mut self, app: &App, now: Timestamp) {
        let mut wrong = Vec::new();
        let troubles = app.certificate.as_ref().map(|it| it.troubles(now)).unwrap_or_default();
        if !troubles.is_empty() {
            let action = "put another in the files of TLS_CERT and TLS_KEY; it is read again by itself";
            wrong.push((Kind::CertificateEnding, troubles.join("; "), action));
        }
        if let Some((free, total)) = free_space(app) {
            #[expect(clippy::cast_precision_loss, reason = "a share")]
            let share = free as f64 / total.max(1) as f64;
            if share < FREE_SHARE || free < FREE_BYTES {
                let (free, total) = (free >> 20, total >> 20);
                let reason = format!("{free} MiB of {total} MiB are free on the disk of its data folder");
                wrong.push((Kind::ControllerDisk, reason, "make room on the controller's disk"));
            }
        }
        let part = self.part();
        self.found.extend(wrong.into_iter().map(|(kind, reason, action)| {
            let reason = if part.is_empty() { reason } else { format!("controller {part}: {reason}") };
            of_controller((kind, part.clone()), reason, action)
        }));
    }

    fn look_at_statuses(&mut self, app: &App, now: Timestamp) {
        let found = self.nodes.values().filter_map(|node| {
            let (kind, level, reason, action, since) = match node.status {
                NodeStatus::Offline => {
                    let seen = app.lifecycle.workers.last_seen_or(&node.id, node.last_seen_at, now);
                    let seen_words =
                        seen.map_or_else(|| "never seen".to_owned(), |at| format!("last seen {at}"));
                    let reason = format!("{} is offline, {seen_words}", node.name);
                    let action = "look at the machine and its network; `aio-worker status` there says why";
                    (Kind::NodeOffline, Level::Critical, reason, action, seen)
                }
                NodeStatus::Error => {
                    let failure = node.failure.as_deref().unwrap_or("it is not known why");
                    let reason = format!("the installation of {} failed: {failure}", node.name);
                    (
                        Kind::InstallationFailed,
                        Level::Warning,
                        reason,
                        "look the code up in docs/troubleshooting.md",
                        None,
                    )
                }
                _ => return None,
            };
            Some(of_node(&node.id, &node.org, (kind, String::new()), level, reason, action.to_owned(), since))
        });
        let found: Vec<_> = found.collect();
        self.found.extend(found);
    }

    async fn look_at_gpus(&mut self, app: &App, now: Timestamp) -> Result<(), StoreError> {
        let mut ill: HashMap<NodeId, (HealthSummary, Reading)> = HashMap::new();
        for (id, summary) in app.registry.summaries() {
            if summary.is_ok() {
                self.health.insert(id, summary.state);
            } else if let Some(reading) = app.telemetry.newest(&id, now) {
                // Until its metrics have come, too, nobody knows what of it.
                self.health.insert(id.clone(), summary.state);
                ill.insert(id, (summary, reading));
            }
        }
        let ids: Vec<_> = ill.keys().cloned().collect();
        for ids in ids.chunks(BATCH) {
            for node in app.store.fleet_nodes(ids).await? {
                if let Some((summary, reading)) = ill.get(&node.id) {
                    self.found.extend(gpu_findings(&node, summary, reading));
                }
            }
        }
        Ok(())
    }

    async fn look_at_machines(&mut self, app: &App, now: Timestamp) -> Result<(), StoreError> {
        let wrong: HashMap<_, _> = app.telemetry.wrong(now).into_iter().collect();
        let ids: Vec<_> = wrong.keys().cloned().collect();
        for ids in ids.chunks(BATCH) {
            for node in app.store.fleet_nodes(ids).await? {
                if let Some(Wrong { containers, machine }) = wrong.get(&node.id) {
                    self.found.extend(container_findings(&node, containers));
                    self.found.extend(machine.iter().filter_map(|problem| machine_finding(&node, problem)));
                }
            }
        }
        Ok(())
    }

    fn look_at_identities(&mut self, app: &App) {
        for (id, org) in app.lifecycle.workers.owners_of(app.clones().conflicting(std::time::Instant::now()))
        {
            let reason = "another machine claims to be this node, and is refused".to_owned();
            let action = "give one of the two a token of its own; GET /nodes/{id} names the other".to_owned();
            let what = (Kind::IdentityConflict, String::new());
            self.found.push(of_node(&id, &org, what, Level::Warning, reason, action, None));
        }
    }

    async fn look_at_webhooks(&mut self, app: &App) -> Result<(), StoreError> {
        for (id, org, owed) in app.store.owed_to_webhooks(None).await? {
            let part = id.to_string();
            if app.webhooks.delivery(id).is_some_and(|delivery| is_held_up(delivery, owed.waiting)) {
                let reason = format!("the webhook {id} takes no events, and {} wait", owed.waiting);
                let action = "GET /webhooks/{id}/attempts says what it answers; change it or what serves it";
                let what = (Kind::DeliveryPaused, part.clone());
                self.found.push(of_organisation(org.clone(), what, reason, action.to_owned()));
            }
            if owed.dead > 0 {
                let reason = format!("{} events were given up for the webhook {id}", owed.dead);
                let action = "GET /webhooks/{id}/dead-letters lists them, and DELETE drops them; POST /webhooks/{id}/replay delivers them again";
                self.found.push(of_organisation(org, (Kind::DeadLetters, part), reason, action.to_owned()));
            }
        }
        Ok(())
    }

    async fn look_at_the_rest(&mut self, app: &App, now: Timestamp) -> Result<(), StoreError> {
        for (id, org, ends_at) in app.store.ending_tokens(now, now.plus(TOKEN_ENDS_WITHIN)).await? {
            let reason = format!("the node's last token ends at {ends_at}, and it has taken no other");
            let action =
                "see its worker's log; install a new token with `aio-worker install --token`".to_owned();
            let what = (Kind::TokenEnding, String::new());
            self.found.push(of_node(&id, &org, what, Level::Warning, reason, action, None));
        }
        for (org, user, ends_at) in app.store.ending_user_tokens(now, now.plus(TOKEN_ENDS_WITHIN)).await? {
            let ends = if ends_at > now { "ends" } else { "ended" };
            let reason = format!("the last token of the user {user} {ends} at {ends_at}");
            let action =
                "make another with `controller-stub user-token`, and put it where that one is".to_owned();
            self.found.push(of_organisation(org, (Kind::UserTokenEnding, user.to_string()), reason, action));
        }
        for (org, rollout, version) in app.store.halted_rollouts().await? {
            let reason = format!("the rollout of {version} was halted");
            let action =
                "GET /rollouts/{id}/nodes says who failed and why; then resume or abort it".to_owned();
            self.found.push(of_organisation(org, (Kind::UpdateHalted, rollout), reason, action));
        }
        for (org, letters) in app.store.dead_letter_counts().await? {
            let reason = format!("{letters} events were given up");
            let action =
                "GET /dead-letters lists them, and DELETE drops them; POST /dead-letters/replay delivers them again".to_owned();
            self.found.push(of_organisation(org, (Kind::DeadLetters, String::new()), reason, action));
        }
        self.look_at_webhooks(app).await?;
        let delivery = app.outbox.delivery();
        if delivery != DeliveryState::Running && is_held_up(delivery, app.store.backlog().await?.events) {
            let stopped = delivery == DeliveryState::Stopped;
            let reason =
                if stopped { "NOTI is gone (410): no event is delivered" } else { "delivery to NOTI pauses" };
            let action = "cure what NOTI answers, then `controller-stub delivery resume`";
            let what = (Kind::DeliveryPaused, String::new());
            self.found.push(of_controller(what, reason.to_owned(), action));
        }
        Ok(())
    }
}

/// Whether events wait for a receiver that does not take them. One that is tried again has not taken them yet.
fn is_held_up(delivery: DeliveryState, waiting: u64) -> bool {
    delivery != DeliveryState::Running && waiting > 0
}

/// Free and all bytes of the file system of the data folder.
fn free_space(app: &App) -> Option<(u64, u64)> {
    let stat = rustix::fs::statvfs(&app.data_dir).ok()?;
    Some((stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_blocks.saturating_mul(stat.f_frsize)))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{
        super::evaluator::{Due, Evaluator},
        *,
    };

    #[test]
    fn a_receiver_that_hangs_whenever_it_is_tried_is_an_alarm_as_long_as_events_wait() {
        let mut evaluator = Evaluator::new(Duration::ZERO, []);
        let (start, now) = (Instant::now(), Timestamp::from_millis(1));
        let mut looks = |waiting: u64, seconds: std::ops::RangeInclusive<u64>| {
            let states = [DeliveryState::Paused, DeliveryState::Probing].into_iter().cycle();
            let mut due = Vec::new();
            for (second, state) in seconds.step_by(5).zip(states) {
                let wrong =
                    of_controller((Kind::DeliveryPaused, String::new()), "it pauses".to_owned(), "cure it");
                let found = Some(wrong).filter(|_| is_held_up(state, waiting)).into_iter().collect();
                let moment = (start + Duration::from_secs(second), now);
                due = evaluator.evaluate(found, |_| Knowledge::Known, |_| None, moment);
            }
            due
        };
        assert_eq!(looks(0, 0..=600), []);
        assert!(matches!(looks(1, 605..=725)[..], [Due::Raise(_)]));
    }

    #[test]
    fn who_did_not_lead_when_it_looked_ends_no_alarm_of_the_leader() {
        let halted = Key {
            whose: Whose::Organisation("acme".parse().unwrap()),
            kind: Kind::UpdateHalted,
            part: "1".to_owned(),
        };
        for leads in [false, true] {
            let survey = Survey { number: 2, leads, ..Survey::default() };
            assert_eq!(survey.is_ours(&Registry::default(), &halted), leads);
        }
    }

    #[test]
    fn each_controller_watches_its_own_disk_and_the_leader_those_of_controllers_that_are_gone() {
        let disk =
            |part: &str| Key { whose: Whose::Controller, kind: Kind::ControllerDisk, part: part.to_owned() };
        let owned = |survey: &Survey| {
            ["", "1", "2", "3"].map(|part| survey.is_ours(&Registry::default(), &disk(part)))
        };
        let mut survey = Survey { number: 2, ..Survey::default() };
        assert_eq!(owned(&survey), [false, false, true, false]);
        (survey.leads, survey.controllers) = (true, HashSet::from([2, 3]));
        assert_eq!(owned(&survey), [true, true, true, false], "the first two are gone");
        let alone = Survey { leads: true, ..Survey::default() };
        assert_eq!(owned(&alone), [true; 4]);
    }
}
