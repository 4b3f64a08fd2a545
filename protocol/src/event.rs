//! What NOTI is told about nodes. The body is exactly `{type, timestamp, data}`; ids, signature and
//! retries travel in headers.

mod check;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    error_code::ErrorCode,
    ids::NodeId,
    inventory::Hardware,
    node::{NodeStatus, Owner},
    release::ReleaseVersion,
    telemetry::{Health, HealthSummary},
    time::Timestamp,
    update::Verdict,
};

pub use check::InvalidEvent;
use check::fitted_gpus;

/// Declares the types of event: the enum, all of them, and what each is called and about.
macro_rules! kinds {
    ($(#[doc = $about:literal] $kind:ident = $name:literal,)*) => {
        /// The types of event.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum EventKind {
            $(#[doc = $about] $kind,)*
        }

        impl EventKind {
            /// Every type of event.
            pub const ALL: [Self; 13] = [$(Self::$kind,)*];

            /// The `type` on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// A sentence that says what happened.
            pub fn about(self) -> &'static str {
                match self { $(Self::$kind => $about.trim_ascii(),)* }
            }
        }
    };
}

kinds! {
    /// A node was registered.
    Registered = "node.registered",
    /// An installation began on its machine.
    InstallationStarted = "node.installation_started",
    /// The installation failed, or stalled.
    InstallationFailed = "node.installation_failed",
    /// A worker was welcomed.
    Connected = "node.connected",
    /// The worker left or fell silent.
    Disconnected = "node.disconnected",
    /// An admin took the node out of service.
    MaintenanceMode = "node.maintenance_mode",
    /// An admin put it back.
    Resumed = "node.resumed",
    /// The node was decommissioned.
    Decommissioned = "node.decommissioned",
    /// The node runs another version, which has proven itself.
    Updated = "node.updated",
    /// An update failed; the node runs the version before.
    UpdateFailed = "node.update_failed",
    /// The health of the worst of a node's GPUs is another.
    HealthChanged = "node.health_changed",
    /// Something is wrong with a node that a person should look at.
    AlarmRaised = "alarm.raised",
    /// What was wrong is over.
    AlarmResolved = "alarm.resolved",
}

impl EventKind {
    /// The types that every NOTI knows. Others go to the built-in one, and to another if its
    /// configuration says so.
    pub const FOUNDING: [Self; 8] = [
        Self::Registered,
        Self::InstallationStarted,
        Self::InstallationFailed,
        Self::Connected,
        Self::Disconnected,
        Self::MaintenanceMode,
        Self::Resumed,
        Self::Decommissioned,
    ];
}

/// One event, as it is posted to NOTI.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeEvent {
    /// What happened, to whom, with what detail.
    #[serde(flatten)]
    pub body: EventBody,
    /// When it happened at the controller.
    pub timestamp: Timestamp,
}

/// `type` and `data` of an event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", content = "data")]
pub enum EventBody {
    /// See [`EventKind::Registered`].
    #[serde(rename = "node.registered")]
    Registered(EventData<NoDetail>),
    /// See [`EventKind::InstallationStarted`].
    #[serde(rename = "node.installation_started")]
    InstallationStarted(EventData<NoDetail>),
    /// See [`EventKind::InstallationFailed`].
    #[serde(rename = "node.installation_failed")]
    InstallationFailed(EventData<FailureDetail>),
    /// See [`EventKind::Connected`].
    #[serde(rename = "node.connected")]
    Connected(EventData<ConnectionDetail>),
    /// See [`EventKind::Disconnected`].
    #[serde(rename = "node.disconnected")]
    Disconnected(EventData<DisconnectionDetail>),
    /// See [`EventKind::MaintenanceMode`].
    #[serde(rename = "node.maintenance_mode")]
    MaintenanceMode(EventData<NoDetail>),
    /// See [`EventKind::Resumed`].
    #[serde(rename = "node.resumed")]
    Resumed(EventData<NoDetail>),
    /// See [`EventKind::Decommissioned`].
    #[serde(rename = "node.decommissioned")]
    Decommissioned(EventData<NoDetail>),
    /// See [`EventKind::Updated`].
    #[serde(rename = "node.updated")]
    Updated(EventData<UpdateDetail>),
    /// See [`EventKind::UpdateFailed`].
    #[serde(rename = "node.update_failed")]
    UpdateFailed(EventData<UpdateFailureDetail>),
    /// See [`EventKind::HealthChanged`].
    #[serde(rename = "node.health_changed")]
    HealthChanged(EventData<HealthDetail>),
    /// See [`EventKind::AlarmRaised`].
    #[serde(rename = "alarm.raised")]
    AlarmRaised(EventData<AlarmDetail>),
    /// See [`EventKind::AlarmResolved`].
    #[serde(rename = "alarm.resolved")]
    AlarmResolved(EventData<AlarmDetail>),
}

/// What every event says of its node, and what only its type says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct EventData<D> {
    /// The node.
    pub node_id: NodeId,
    /// Its name when the event happened.
    pub node_name: String,
    /// Its status after the event.
    pub status: NodeStatus,
    /// What only this type says.
    #[serde(flatten)]
    pub detail: D,
    /// Who it belongs to, and so who may see the event.
    pub owner: Owner,
}

/// Nothing beyond what every event says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NoDetail {}

/// Why an installation failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FailureDetail {
    /// As the installer reported it.
    pub error: ErrorReport,
}

/// From which version to which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UpdateDetail {
    /// The version before.
    pub from: ReleaseVersion,
    /// The version that runs.
    pub version: ReleaseVersion,
}

/// Which update failed, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UpdateFailureDetail {
    /// The version before, which runs.
    pub from: ReleaseVersion,
    /// The version that was to run.
    pub version: ReleaseVersion,
    /// How it ended.
    pub verdict: Verdict,
    /// As the worker reported it.
    pub error: ErrorReport,
}

/// How a node's GPUs are, and how they were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HealthDetail {
    /// The health that was told before; `ok` of a node that nothing was told of.
    pub from: Health,
    /// As the connected worker says it.
    pub health: HealthSummary,
}

/// What is wrong with a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct AlarmDetail {
    /// The same in all events of an alarm. It is raised again when it gets worse.
    pub alarm_id: Uuid,
    /// What it is of, e.g. `node_offline` or `gpu_health`.
    pub kind: String,
    /// `warning` or `critical`.
    pub level: String,
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub action: String,
    /// When it was raised.
    pub raised_at: Timestamp,
    /// How it ended, once it has: `cured` or `maintenance`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<String>,
}

/// An error as reports and events carry it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorReport {
    /// A stable code of the catalogue (`error_code`), or one of a newer worker.
    pub code: String,
    /// One sentence for a person.
    pub message: String,
    /// What is worth knowing beside, by name: `expected` and `actual` for a checksum.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub details: Map<String, Value>,
}

impl ErrorReport {
    /// A report without details. Its code may be one that is not known here.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), details: Map::new() }
    }

    /// Its code, where the catalogue has it.
    pub fn known_code(&self) -> Option<ErrorCode> {
        ErrorCode::parse(&self.code)
    }
}

/// From where a worker came, and with what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ConnectionDetail {
    /// The address that the controller saw.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "192.168.1.100"))]
    pub ip_address: IpAddr,
    /// The GPUs of the first `node.register`.
    pub gpu_devices: Vec<GpuDevice>,
}

/// A GPU as a dashboard shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct GpuDevice {
    /// The vendor's product name.
    pub model: String,
    /// Bytes; absent when the driver did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_total: Option<u64>,
}

impl Hardware {
    /// The GPUs as events show them.
    pub fn gpu_devices(&self) -> Vec<GpuDevice> {
        fitted_gpus(
            self.gpu.iter().map(|gpu| GpuDevice { model: gpu.model.clone(), memory_total: gpu.memory_total }),
        )
    }
}

/// Why and since when a node is gone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct DisconnectionDetail {
    /// `heartbeat_timeout`, or the reason that the worker gave in its goodbye.
    pub disconnect_reason: String,
    /// The last application message.
    pub last_seen_at: Timestamp,
}

/// The `disconnectReason` of a worker whose lease ended.
pub const HEARTBEAT_TIMEOUT: &str = "heartbeat_timeout";

impl NodeEvent {
    /// The event's type.
    pub fn kind(&self) -> EventKind {
        match self.body {
            EventBody::Registered(_) => EventKind::Registered,
            EventBody::InstallationStarted(_) => EventKind::InstallationStarted,
            EventBody::InstallationFailed(_) => EventKind::InstallationFailed,
            EventBody::Connected(_) => EventKind::Connected,
            EventBody::Disconnected(_) => EventKind::Disconnected,
            EventBody::MaintenanceMode(_) => EventKind::MaintenanceMode,
            EventBody::Resumed(_) => EventKind::Resumed,
            EventBody::Decommissioned(_) => EventKind::Decommissioned,
            EventBody::Updated(_) => EventKind::Updated,
            EventBody::UpdateFailed(_) => EventKind::UpdateFailed,
            EventBody::HealthChanged(_) => EventKind::HealthChanged,
            EventBody::AlarmRaised(_) => EventKind::AlarmRaised,
            EventBody::AlarmResolved(_) => EventKind::AlarmResolved,
        }
    }

    /// The node it is about.
    pub fn node_id(&self) -> &NodeId {
        self.about().0
    }

    /// Its name when the event happened.
    pub fn node_name(&self) -> &str {
        self.about().1
    }

    /// Its status after the event.
    pub fn status(&self) -> NodeStatus {
        self.about().2
    }

    /// Who may see it.
    pub fn owner(&self) -> &Owner {
        self.about().3
    }

    fn about(&self) -> (&NodeId, &str, NodeStatus, &Owner) {
        match &self.body {
            EventBody::Registered(data)
            | EventBody::InstallationStarted(data)
            | EventBody::MaintenanceMode(data)
            | EventBody::Resumed(data)
            | EventBody::Decommissioned(data) => data.about(),
            EventBody::InstallationFailed(data) => data.about(),
            EventBody::Connected(data) => data.about(),
            EventBody::Disconnected(data) => data.about(),
            EventBody::Updated(data) => data.about(),
            EventBody::UpdateFailed(data) => data.about(),
            EventBody::HealthChanged(data) => data.about(),
            EventBody::AlarmRaised(data) | EventBody::AlarmResolved(data) => data.about(),
        }
    }
}

impl<D> EventData<D> {
    fn about(&self) -> (&NodeId, &str, NodeStatus, &Owner) {
        (&self.node_id, &self.node_name, self.status, &self.owner)
    }
}
