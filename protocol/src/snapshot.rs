//! What a running worker says of itself on its status socket: one JSON object per line, one when
//! somebody connects and one at every change. The CLI and the installer read it; nothing in it is
//! secret.

use serde::{Deserialize, Serialize};

use crate::{
    container::Container,
    ids::NodeId,
    inventory::{Gpu, GpuDriver},
    service::Service,
    telemetry::{GpuDetail, HealthSummary},
    time::Timestamp,
    update::UpdateReport,
};

/// A worker at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerSnapshot {
    /// The daemon's version, e.g. `1.0.0`.
    pub version: String,
    /// The node that it speaks for.
    pub node_id: NodeId,
    /// The very process: another after every start.
    pub instance_id: uuid::Uuid,
    /// The controller's WebSocket endpoint.
    pub controller: String,
    /// When the daemon started.
    pub started_at: Timestamp,
    /// When its token ends.
    pub token_expires_at: Timestamp,
    /// How it stands with the controller.
    pub session: SessionSnapshot,
    /// What the GPU driver said of itself; absent until the first probe has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_driver: Option<GpuDriver>,
    /// The GPUs.
    pub gpus: Vec<Gpu>,
    /// GPUs that were here before and are not any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_gpus: Vec<Gpu>,
    /// The GPUs' last readings, and what is wrong with them.
    pub gpu_status: Vec<GpuDetail>,
    /// The worst of them.
    pub health: HealthSummary,
    /// The machine's services that matter; empty where nobody could say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
    /// The machine's containers, those with something wrong first; absent until somebody has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containers: Option<Vec<Container>>,
    /// How many others there are.
    #[serde(default, skip_serializing_if = "nothing")]
    pub containers_left_out: u32,
    /// How it stands with updates; left out where there is nothing to say.
    #[serde(default, skip_serializing_if = "UpdateReport::is_empty")]
    pub update: UpdateReport,
}

fn nothing(count: &u32) -> bool {
    *count == 0
}

/// How a worker stands with its controller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionSnapshot {
    /// The state in a word.
    pub state: SessionState,
    /// The state in a sentence, with what an operator must do if it is theirs to do.
    pub detail: String,
    /// A code of the catalogue, when the controller refused or does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Since when it is in this state.
    pub since: Timestamp,
    /// The last heartbeat that the controller is known to have read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_heartbeat_at: Option<Timestamp>,
    /// Sessions since the daemon started.
    pub sessions: u32,
}

/// How a worker stands with its controller, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionState {
    /// Waiting before the next try.
    Waiting,
    /// Dialling.
    Connecting,
    /// Connected; `node.register` is sent and not yet acknowledged.
    Registering,
    /// Welcomed.
    Online,
    /// Saying goodbye.
    Stopping,
}

impl SessionSnapshot {
    /// Whether the controller has welcomed this worker and read a heartbeat of this very session.
    pub fn settled(&self) -> bool {
        self.state == SessionState::Online && self.last_heartbeat_at >= Some(self.since)
    }
}
