//! What a worker says. Every message names its node; the controller refuses one that names another
//! than the token does.

use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use super::messages;
use crate::{
    container::Container,
    event::ErrorReport,
    ids::NodeId,
    installation::MAX_STEP_BYTES,
    inventory::{Disk, SystemInfo, understood},
    left_out::LeftOut,
    release::ReleaseVersion,
    telemetry::{
        DiskTraffic, GpuDetail, GpuStatus, HealthSummary, HostUsage, MachineProblem, NetworkTraffic,
        Temperature,
    },
    text::{bounded, list, words},
    update::UpdateReport,
};

messages! {
    /// A message of the worker.
    WorkerMessage {
        /// First on every connection, and again when the inventory changes.
        Register(Register) = "node.register",
        /// At the pace that the controller set.
        Heartbeat(Heartbeat) = "telemetry.heartbeat",
        /// Every 60 s, or at the pace that the controller set.
        Metrics(Metrics) = "telemetry.metrics",
        /// Last before a clean close.
        Disconnecting(Disconnecting) = "node.disconnecting",
        /// An update has begun.
        InstallationStarted(InstallationStarted) = "node.installation_started",
        /// An update is at a step.
        InstallationProgress(InstallationProgress) = "node.installation_progress",
        /// An update failed.
        InstallationFailed(InstallationFailed) = "node.installation_failed",
        /// A command was received.
        CommandAck(CommandAck) = "command.ack",
        /// A command has ended.
        CommandResult(CommandResult) = "command.result",
    }
}

/// Who the worker is and what it runs on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Register {
    /// The node.
    pub node_id: NodeId,
    /// The very process: another after every start.
    pub instance_id: Uuid,
    /// The kernel's boot id.
    #[serde(deserialize_with = "bounded::<_, _, 64>")]
    pub boot_id: String,
    /// The daemon's version, e.g. `1.0.0`.
    #[serde(deserialize_with = "bounded::<_, _, 64>")]
    pub daemon_version: String,
    /// What this worker understands beyond the first version of the protocol.
    #[serde(default, deserialize_with = "words::<_, 64>")]
    pub capabilities: Vec<String>,
    /// How it stands with updates.
    #[serde(default, deserialize_with = "understood", skip_serializing_if = "UpdateReport::is_empty")]
    pub update: UpdateReport,
    /// The machine.
    #[serde(default)]
    pub system_info: SystemInfo,
}

/// A sign of life, with the numbers that dashboards show. It leaves out what is as it should be
/// (`status` when `online`, `health` when `ok`, and the same for each GPU), so that eight busy GPUs
/// fit into 1 KiB.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Heartbeat {
    /// The node.
    pub node_id: NodeId,
    /// Counts up by one from 1 within a session; a gap means that messages were lost.
    pub seq: u64,
    /// The worker's own view; it never overrules an admin's. Left out when `online`.
    #[serde(default, skip_serializing_if = "WorkerState::is_online")]
    pub status: WorkerState,
    /// `cpuUsage`, `ramUsage` and `uptimeSeconds`.
    #[serde(flatten)]
    pub host: HostUsage,
    /// Containers that run here, those that are paused among them.
    #[serde(default)]
    pub active_deployments: u32,
    /// One per GPU.
    #[serde(default, deserialize_with = "list::<_, _, 64>")]
    pub gpu_status: Vec<GpuStatus>,
    /// The worst of them. Left out when `ok`.
    #[serde(default, skip_serializing_if = "HealthSummary::is_ok")]
    pub health: HealthSummary,
}

/// The part of a heartbeat that every one of them is read for: whose it is, which, and whether its
/// GPUs are well. Of a well one nothing is copied and nothing else is looked at, because a
/// controller reads thousands of them for each other message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulse<'a> {
    /// The node, as it was written.
    pub node_id: &'a str,
    /// See [`Heartbeat::seq`].
    pub seq: u64,
    /// See [`Heartbeat::health`].
    pub health: HealthSummary,
}

impl<'a> Pulse<'a> {
    /// Reads the text of a frame; `None` when it is anything but a heartbeat in its usual form.
    /// [`WorkerMessage::decode`] then says what.
    pub fn read(text: &'a str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Envelope<'a> {
            #[serde(rename = "type")]
            kind: &'a str,
            #[serde(borrow)]
            data: Data<'a>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Data<'a> {
            node_id: &'a str,
            seq: u64,
            #[serde(default)]
            health: HealthSummary,
        }
        let Envelope { kind, data: Data { node_id, seq, health } } = serde_json::from_str(text).ok()?;
        (kind == <Heartbeat as super::Body>::TYPE).then_some(Self { node_id, seq, health })
    }
}

/// A worker's own view of what it can take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum WorkerState {
    /// Takes work.
    #[default]
    Online,
    /// Finishes what it has and takes no more.
    Draining,
}

impl WorkerState {
    fn is_online(&self) -> bool {
        *self == Self::Online
    }
}

/// Containers that are told of a machine; beyond that they are counted.
pub const MAX_CONTAINERS: usize = 64;

/// Problems of a machine that are told.
const MAX_PROBLEMS: usize = 32;

/// More numbers, less often.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Metrics {
    /// The node.
    pub node_id: NodeId,
    /// `cpuUsage`, `ramUsage` and `uptimeSeconds`.
    #[serde(flatten)]
    pub host: HostUsage,
    /// Bytes of main memory that are not available.
    #[serde(default)]
    pub memory_used: u64,
    /// Bytes of main memory that hold copies of files, and are available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_cached: Option<u64>,
    /// File systems on real devices.
    #[serde(default, deserialize_with = "list::<_, _, 64>")]
    pub disk: Vec<Disk>,
    /// What was read from the machine's disks and written to them since it booted.
    #[serde(default, deserialize_with = "understood", skip_serializing_if = "Option::is_none")]
    pub disk_traffic: Option<DiskTraffic>,
    /// Traffic since the machine booted.
    #[serde(default, deserialize_with = "understood")]
    pub network: NetworkTraffic,
    /// Runnable and waiting tasks, averaged over 1, 5 and 15 minutes.
    #[serde(default, deserialize_with = "understood", skip_serializing_if = "Option::is_none")]
    pub load_average: Option<[f32; 3]>,
    /// The machine's own sensors, the GPUs' left out.
    #[serde(default, deserialize_with = "list::<_, _, 256>", skip_serializing_if = "Vec::is_empty")]
    pub temperature: Vec<Temperature>,
    /// One per GPU.
    #[serde(default, deserialize_with = "list::<_, _, 64>")]
    pub gpu: Vec<GpuDetail>,
    /// Containers, those with something wrong first, then those that use GPUs. Absent where nobody looked.
    #[serde(default, deserialize_with = "containers", skip_serializing_if = "Option::is_none")]
    pub containers: Option<Vec<Container>>,
    /// What is wrong with the machine itself. Absent where nobody judges.
    #[serde(default, deserialize_with = "problems", skip_serializing_if = "Option::is_none")]
    pub problems: Option<Vec<MachineProblem>>,
    /// How much the lists leave out.
    #[serde(default, deserialize_with = "understood", skip_serializing_if = "LeftOut::is_empty")]
    pub left_out: LeftOut,
}

fn problems<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<MachineProblem>>, D::Error> {
    list::<D, MachineProblem, MAX_PROBLEMS>(deserializer).map(Some)
}

fn containers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Container>>, D::Error> {
    list::<D, Container, MAX_CONTAINERS>(deserializer).map(Some)
}

/// A clean goodbye.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Disconnecting {
    /// The node.
    pub node_id: NodeId,
    /// Why.
    pub reason: DisconnectReason,
    /// When to expect the worker again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_back_seconds: Option<u64>,
}

/// Why a worker leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum DisconnectReason {
    /// The service was stopped.
    Shutdown,
    /// The service makes room for another version.
    Update,
    /// The machine reboots.
    Reboot,
}

impl DisconnectReason {
    /// As the wire and `node.disconnected` write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shutdown => "shutdown",
            Self::Update => "update",
            Self::Reboot => "reboot",
        }
    }
}

/// An update has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct InstallationStarted {
    /// The node.
    pub node_id: NodeId,
    /// The release that is being installed.
    pub version: ReleaseVersion,
}

/// An update is at a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct InstallationProgress {
    /// The node.
    pub node_id: NodeId,
    /// The step's name.
    #[serde(deserialize_with = "bounded::<_, _, MAX_STEP_BYTES>")]
    pub step: String,
    /// 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
}

/// An update failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct InstallationFailed {
    /// The node.
    pub node_id: NodeId,
    /// The step that failed.
    #[serde(
        default,
        deserialize_with = "bounded::<_, _, MAX_STEP_BYTES>",
        skip_serializing_if = "Option::is_none"
    )]
    pub step: Option<String>,
    /// Why.
    pub error: ErrorReport,
}

/// A command was received.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CommandAck {
    /// The node.
    pub node_id: NodeId,
    /// The command's `messageId`.
    pub original_message_id: Uuid,
    /// Whether the worker will do it.
    pub status: CommandStatus,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReport>,
}

/// A command has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CommandResult {
    /// The node.
    pub node_id: NodeId,
    /// The command's `messageId`.
    pub original_message_id: Uuid,
    /// How it ended.
    pub status: CommandStatus,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReport>,
}

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum CommandStatus {
    /// The worker will do it.
    Accepted,
    /// The worker will not.
    Rejected,
    /// Done.
    Success,
    /// Tried and failed.
    Failed,
}
