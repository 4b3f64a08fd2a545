//! What can happen to a node, what it writes into the node, and what the events that it owes say. Pure:
//! whether it may happen is `transition`'s to decide.

use std::{net::IpAddr, time::Duration};

use aio_protocol::{
    error_code::ErrorCode,
    event::{
        ConnectionDetail, DisconnectionDetail, ErrorReport, EventBody, EventKind, FailureDetail, GpuDevice,
        HEARTBEAT_TIMEOUT, NoDetail, NodeEvent, UpdateDetail, UpdateFailureDetail,
    },
    installation::InstallationReport,
    node::NodeStatus,
    time::Timestamp,
    transition::{self, Decision, Step, Trigger},
    update::{LastUpdate, UPDATE_CAPABILITY, Verdict},
    wire::Register,
};
use serde_json::{Map, Value};

use crate::node::{Installation, Node, Phase};

/// Something that happened to a node.
#[derive(Debug, Clone)]
pub(crate) enum Occurrence {
    /// An installer, or a daemon that updates itself, reported.
    Reported(InstallationReport),
    /// An installation was silent for this long.
    Stalled(Duration),
    /// A worker registered.
    Welcomed {
        register: Box<Register>,
        address: IpAddr,
        /// What the node's was when the worker's token was accepted; only of the first registration
        /// on a connection.
        not_before: Option<Timestamp>,
    },
    /// A worker of another dialect than `aio.node.v1` registered.
    Joined(Box<Joined>),
    /// A worker was silent for a whole lease.
    LeaseExpired,
    /// A worker said goodbye.
    Left { reason: &'static str },
    /// An admin took the node out of service.
    MaintenanceRequested,
    /// An admin did so from any status, as AIWM lets them.
    SetAside,
    /// An admin put it back.
    ResumeRequested,
    /// An admin decommissioned it.
    DecommissionRequested,
}

/// What a worker of another dialect says of itself when it registers.
#[derive(Debug, Clone)]
pub(crate) struct Joined {
    /// As it came.
    pub system_info: Value,
    pub gpu_devices: Vec<GpuDevice>,
    /// Not every form of the message says it.
    pub daemon_version: Option<String>,
    pub address: IpAddr,
    /// As in [`Occurrence::Welcomed`].
    pub not_before: Option<Timestamp>,
}

impl Occurrence {
    /// What this does to a node in some status.
    pub(super) fn decide(&self, node: &Node) -> Decision {
        match (self, transition::decide(node.status, self.trigger(node))) {
            (Self::SetAside, Decision::Refused) if node.status != NodeStatus::Inactive => {
                let to = NodeStatus::Maintenance;
                Decision::Moved(vec![Step { from: node.status, to, event: EventKind::MaintenanceMode }])
            }
            (_, decision) => decision,
        }
    }

    /// The node's `tokens_not_before` when the token of a worker that arrives was accepted.
    pub(super) fn admitted_not_before(&self) -> Option<Timestamp> {
        match self {
            Self::Welcomed { not_before, .. } => *not_before,
            Self::Joined(joined) => joined.not_before,
            _ => None,
        }
    }

    /// What this is to the status machine when it happens to `node`.
    pub(super) fn trigger(&self, node: &Node) -> Trigger {
        match self {
            Self::Reported(InstallationReport::Started { .. }) => Trigger::InstallationStarted,
            Self::Reported(InstallationReport::Progress { .. }) => Trigger::InstallationProgressed,
            Self::Reported(InstallationReport::Failed { .. }) => Trigger::InstallationFailed,
            Self::Reported(InstallationReport::Succeeded { .. }) => Trigger::InstallationSucceeded,
            Self::Stalled(_) => Trigger::InstallationStalled,
            Self::Welcomed { .. } | Self::Joined(_) => Trigger::WorkerWelcomed,
            Self::LeaseExpired => Trigger::LeaseExpired,
            Self::Left { .. } => Trigger::WorkerLeft,
            Self::MaintenanceRequested | Self::SetAside => Trigger::MaintenanceRequested,
            Self::ResumeRequested => Trigger::ResumeRequested { connected: node.websocket_connected },
            Self::DecommissionRequested => Trigger::DecommissionRequested,
        }
    }

    /// Whether this very failure of the node's installation was reported before, and nothing was
    /// installed since.
    pub(super) fn was_told_of(&self, node: &Node) -> bool {
        let (Self::Reported(InstallationReport::Failed { step, error }), Some(known)) =
            (self, &node.installation)
        else {
            return false;
        };
        known.phase == Phase::Failed
            && known.error == Some(error.clone().fitted())
            && (step.is_none() || known.step == *step)
    }

    /// Writes into the node what is known since.
    pub(super) fn write_to(&self, node: &mut Node, now: Timestamp) {
        match self {
            Self::Reported(report) => {
                node.installation = Some(after_report(node.installation.take(), report, now));
            }
            Self::Stalled(silence) => {
                // Nobody installs here: the installation is as it was.
                if node.status == NodeStatus::Installing {
                    let error = stalled(node.installation.as_ref(), *silence);
                    let before = node.installation.take();
                    node.installation = Some(failed(before, None, error, now));
                }
            }
            Self::Welcomed { register, address, not_before } => {
                node.websocket_connected = true;
                node.last_seen_at = Some(now);
                node.ip_address = Some(address.to_canonical());
                node.daemon_version = Some(register.daemon_version.clone());
                node.instance_id = Some(register.instance_id);
                node.boot_id = Some(register.boot_id.clone());
                node.updates_itself = register.capabilities.iter().any(|it| it == UPDATE_CAPABILITY);
                // What an older worker cannot say is not known.
                node.update = node.updates_itself.then(|| register.update.clone());
                node.system_info = serde_json::to_value(&register.system_info).ok();
                if let Some(not_before) = not_before {
                    node.admitted_not_before = *not_before;
                    node.connection_established_at = Some(now);
                }
            }
            Self::Joined(joined) => {
                node.websocket_connected = true;
                node.last_seen_at = Some(now);
                node.ip_address = Some(joined.address.to_canonical());
                node.daemon_version = joined.daemon_version.clone();
                (node.instance_id, node.boot_id) = (None, None);
                (node.updates_itself, node.update) = (false, None);
                node.system_info = Some(joined.system_info.clone());
                if let Some(not_before) = joined.not_before {
                    node.admitted_not_before = not_before;
                    node.connection_established_at = Some(now);
                }
            }
            Self::LeaseExpired | Self::Left { .. } => node.websocket_connected = false,
            // Whoever is decommissioned is connected until its socket has been closed.
            Self::DecommissionRequested
            | Self::MaintenanceRequested
            | Self::SetAside
            | Self::ResumeRequested => {}
        }
    }

    /// The event of this kind about `node`, which has been written to. `None` when this never leads
    /// to such an event.
    pub(super) fn event(&self, kind: EventKind, node: &Node, now: Timestamp) -> Option<NodeEvent> {
        let body = match kind {
            EventKind::Registered => EventBody::Registered(node.about(NoDetail {})),
            EventKind::InstallationStarted => EventBody::InstallationStarted(node.about(NoDetail {})),
            EventKind::InstallationFailed => {
                let error = node.installation.as_ref()?.error.clone()?;
                EventBody::InstallationFailed(node.about(FailureDetail { error }))
            }
            EventKind::Connected => {
                let gpu_devices = match self {
                    Self::Welcomed { register, .. } => register.system_info.hardware.gpu_devices(),
                    Self::Joined(joined) => joined.gpu_devices.clone(),
                    _ => return None,
                };
                EventBody::Connected(
                    node.about(ConnectionDetail { ip_address: node.ip_address?, gpu_devices }),
                )
            }
            EventKind::Disconnected => {
                let reason = match self {
                    Self::LeaseExpired => HEARTBEAT_TIMEOUT,
                    Self::Left { reason } => reason,
                    _ => return None,
                };
                EventBody::Disconnected(node.about(DisconnectionDetail {
                    disconnect_reason: reason.to_owned(),
                    last_seen_at: node.last_seen_at.unwrap_or(node.created_at),
                }))
            }
            EventKind::Updated
            | EventKind::UpdateFailed
            | EventKind::HealthChanged
            | EventKind::AlarmRaised
            | EventKind::AlarmResolved => return None,
            EventKind::MaintenanceMode => EventBody::MaintenanceMode(node.about(NoDetail {})),
            EventKind::Resumed => EventBody::Resumed(node.about(NoDetail {})),
            EventKind::Decommissioned => EventBody::Decommissioned(node.about(NoDetail {})),
        };
        Some(NodeEvent { body, timestamp: now })
    }
}

/// What a node has to tell of its last update, where `before` it had told of another or of none. What was not
/// begun is not told: its rollout says why.
pub(super) fn update_event(before: &Node, node: &Node, now: Timestamp) -> Option<NodeEvent> {
    let last = node.update.as_ref()?.last.as_ref()?;
    // A node that is heard of for the first time tells old news.
    let known = before.update.as_ref()?;
    let is_told = matches!(node.status, NodeStatus::Online | NodeStatus::Maintenance);
    if !is_told || known.last.as_ref().is_some_and(|known| known.update_id == last.update_id) {
        return None;
    }
    let LastUpdate { from, version, verdict, code, message, .. } = last.clone();
    let body = match verdict {
        Verdict::Succeeded | Verdict::Reverted => {
            EventBody::Updated(node.about(UpdateDetail { from, version }))
        }
        Verdict::Refused if code.as_deref().and_then(ErrorCode::parse).is_some_and(is_no_failure) => {
            return None;
        }
        Verdict::Faulty | Verdict::Inconclusive | Verdict::Interrupted | Verdict::Refused => {
            let code = code.unwrap_or_default();
            let message = message.unwrap_or_else(|| format!("the update to {version} did not succeed"));
            let error = ErrorReport { code, message, details: Map::new() }.fitted();
            EventBody::UpdateFailed(node.about(UpdateFailureDetail { from, version, verdict, error }))
        }
    };
    Some(NodeEvent { body, timestamp: now })
}

/// Whether a node that refuses an update for this does what it was told to.
fn is_no_failure(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::UpdatesOff
            | ErrorCode::UpdatePackaged
            | ErrorCode::UpdatePinned
            | ErrorCode::UpdateBelowFloor
            | ErrorCode::UpdateUnreachable
            | ErrorCode::UpdateBusy
            | ErrorCode::UpdateExpired
            | ErrorCode::UpdateCancelled
    )
}

/// The installation after `report`. What a report does not say stays, until another installation starts.
fn after_report(before: Option<Installation>, report: &InstallationReport, now: Timestamp) -> Installation {
    let blank = Installation {
        phase: Phase::Started,
        version: None,
        step: None,
        percent: None,
        error: None,
        started_at: None,
        at: now,
    };
    match report {
        InstallationReport::Started { version } => {
            Installation { version: version.clone(), started_at: Some(now), ..blank }
        }
        InstallationReport::Progress { step, percent } => {
            let before = before.unwrap_or(blank);
            Installation {
                phase: Phase::Progress,
                step: Some(step.clone()),
                percent: percent.or(before.percent),
                error: None,
                at: now,
                ..before
            }
        }
        InstallationReport::Failed { step, error } => failed(before, step.clone(), error.clone(), now),
        InstallationReport::Succeeded { .. } => Installation {
            phase: Phase::Succeeded,
            step: None,
            percent: Some(100),
            error: None,
            at: now,
            ..before.unwrap_or(blank)
        },
    }
}

fn failed(
    before: Option<Installation>,
    step: Option<String>,
    error: ErrorReport,
    now: Timestamp,
) -> Installation {
    let (version, last_step, percent, started_at) =
        before.map_or((None, None, None, None), |it| (it.version, it.step, it.percent, it.started_at));
    Installation {
        phase: Phase::Failed,
        version,
        step: step.or(last_step),
        percent,
        error: Some(error.fitted()),
        started_at,
        at: now,
    }
}

fn stalled(installation: Option<&Installation>, silence: Duration) -> ErrorReport {
    let step = installation.and_then(|it| it.step.as_deref());
    let minutes = silence.as_secs_f64() / 60.0;
    let mut details = Map::new();
    if let Some(step) = step {
        details.insert("lastStep".into(), Value::from(step));
    }
    if let Some(installation) = installation {
        details.insert("lastReportAt".into(), Value::from(installation.at.to_string()));
    }
    ErrorReport {
        code: ErrorCode::InstallStalled.as_str().to_owned(),
        message: format!(
            "Nothing was heard of the installation for {minutes:.0} min; its last step was {}",
            step.unwrap_or("not told"),
        ),
        details,
    }
}
