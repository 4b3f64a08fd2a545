//! Tells people how the session stands, in three places at once: the snapshot of the status socket,
//! systemd's `STATUS=`, and the log. Says a thing when it changes; repeated failures at the first,
//! then at every doubling, then the recovery with the count.

use std::time::Instant;

use aio_protocol::{
    error_code::ErrorCode,
    release::build,
    snapshot::{SessionSnapshot, SessionState, WorkerSnapshot},
    time::Timestamp,
    update::UpdateReport,
};
use sd_notify::NotifyState;
use tokio::sync::watch;
use tracing::{info, warn};

use super::{
    machine::{Session, State},
    words::{Words, describe},
};
use crate::{
    containers::Containers,
    endpoint::Endpoint,
    health::Judged,
    notify::Notifier,
    tally::Tally,
    telemetry::{Readings, messages::Identity},
};

pub(super) struct Reporter {
    snapshots: watch::Sender<WorkerSnapshot>,
    controller: String,
    failures: Tally,
    failing_with: Option<ErrorCode>,
    told: Option<State>,
    /// What is wrong with a configuration that was to be loaded and was not.
    complaint: Option<String>,
    status: String,
}

impl Reporter {
    pub(super) fn new(snapshots: watch::Sender<WorkerSnapshot>) -> Self {
        Self {
            snapshots,
            controller: String::new(),
            failures: Tally::default(),
            failing_with: None,
            told: None,
            complaint: None,
            status: String::new(),
        }
    }

    /// The connection that is being made uses this token, which ends then, at this address.
    pub(super) fn dialling(&mut self, endpoint: &Endpoint, token_expires_at: Timestamp) {
        self.controller = endpoint.in_words();
        self.snapshots.send_modify(|snapshot| {
            snapshot.controller = endpoint.to_string();
            snapshot.token_expires_at = token_expires_at;
        });
    }

    /// Something is wrong with a configuration that was not loaded, or nothing is any more.
    pub(super) fn complain(&mut self, complaint: Option<String>, notifier: &dyn Notifier) {
        if self.complaint != complaint {
            self.complaint = complaint;
            notifier.tell(NotifyState::Status(&self.status()));
        }
    }

    /// What systemd shows of this service.
    fn status(&self) -> String {
        let complaint = self.complaint.as_ref().map(|complaint| format!(" ({complaint})"));
        format!("{}{}", self.status, complaint.unwrap_or_default())
    }

    /// The controller has read a heartbeat that was sent then.
    pub(super) fn acknowledged(&mut self, sent_at: Timestamp) {
        self.snapshots.send_modify(|snapshot| snapshot.session.last_heartbeat_at = Some(sent_at));
    }

    /// The way to another version may be further on.
    pub(super) fn updating(&mut self, report: &UpdateReport) {
        self.snapshots.send_if_modified(|snapshot| {
            let changed = snapshot.update != *report;
            if changed {
                snapshot.update.clone_from(report);
            }
            changed
        });
    }

    /// There are new readings.
    pub(super) fn measured(&mut self, readings: &Readings) {
        let Some(gpu) = &readings.gpu else { return };
        let (containers, containers_left_out) = match readings.containers.as_deref().cloned() {
            Some(Containers { told, left_out, .. }) => (Some(told), left_out),
            None => (None, 0),
        };
        self.snapshots.send_if_modified(|snapshot| {
            let fresh = WorkerSnapshot {
                gpu_driver: Some(gpu.driver.clone()),
                gpus: gpu.gpus.clone(),
                missing_gpus: gpu.missing.clone(),
                gpu_status: gpu.details.clone(),
                health: gpu.summary.clone(),
                containers,
                containers_left_out,
                services: readings.systemd.as_ref().map(|report| report.services.clone()).unwrap_or_default(),
                ..snapshot.clone()
            };
            let changed = *snapshot != fresh;
            *snapshot = fresh;
            changed
        });
    }

    /// The session may have changed.
    pub(super) fn session(&mut self, session: &Session, notifier: &dyn Notifier) {
        let state = session.state();
        if self.told.as_ref().is_some_and(|told| same(told, state)) {
            return;
        }
        let wall = Timestamp::from(std::time::SystemTime::now());
        let words = describe(state, &self.controller, (Instant::now(), wall));
        self.log(state, &words);
        self.snapshots.send_modify(|snapshot| {
            let session = &mut snapshot.session;
            session.state = words.state;
            session.detail.clone_from(&words.detail);
            session.code = words.code.map(|code| code.as_str().to_owned());
            session.since = wall;
            if words.state == SessionState::Online {
                session.sessions = session.sessions.saturating_add(1);
            }
        });
        let status = sentence(&words.detail);
        if status != self.status {
            self.status = status;
            notifier.tell(NotifyState::Status(&self.status()));
        }
        self.told = Some(state.clone());
    }

    fn log(&mut self, state: &State, words: &Words) {
        match state {
            State::Online(_) => {
                self.failing_with = None;
                match self.failures.clear() {
                    0 => info!("{}", words.detail),
                    failures => info!(failures, "{} again", words.detail),
                }
            }
            State::Waiting { after, .. } => {
                let count = self.failures.count();
                let another = std::mem::replace(&mut self.failing_with, after.code()) != after.code();
                match after.code() {
                    Some(code) if another || count.is_some() => {
                        warn!(code = code.as_str(), failures = self.failures.total(), "{}", words.detail);
                    }
                    None if count.is_some() => info!("{}", words.detail),
                    _ => {}
                }
            }
            State::Stopping { .. } => info!("saying goodbye to the controller"),
            _ => {}
        }
    }
}

/// Whether people would be told the same of both. Counters inside a state are nobody's news.
fn same(told: &State, state: &State) -> bool {
    match (told, state) {
        (State::Waiting { .. }, State::Waiting { .. })
        | (State::Connecting { .. }, State::Connecting { .. }) => told == state,
        _ => std::mem::discriminant(told) == std::mem::discriminant(state),
    }
}

fn sentence(detail: &str) -> String {
    let mut letters = detail.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// What there is to say before anything has happened.
pub(crate) fn first_snapshot(
    identity: &Identity,
    controller: &str,
    token_expires_at: Timestamp,
    now: Timestamp,
) -> WorkerSnapshot {
    WorkerSnapshot {
        version: build::number().to_owned(),
        node_id: identity.node_id.clone(),
        instance_id: identity.instance_id,
        controller: controller.to_owned(),
        started_at: now,
        token_expires_at,
        session: SessionSnapshot {
            state: SessionState::Waiting,
            detail: "starting".to_owned(),
            code: None,
            since: now,
            last_heartbeat_at: None,
            sessions: 0,
        },
        gpu_driver: None,
        gpus: vec![],
        missing_gpus: vec![],
        gpu_status: vec![],
        health: Judged::not_asked().summary,
        services: vec![],
        containers: None,
        containers_left_out: 0,
        update: UpdateReport::default(),
    }
}
