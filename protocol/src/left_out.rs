//! How much of a machine a message leaves out, by list. A machine may have thousands of network
//! interfaces; a frame has a limit. What is left out is counted here, so that no reader takes the
//! part for the whole.

use serde::{Deserialize, Serialize};

/// Items that a message leaves out; a list that is whole is not mentioned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct LeftOut {
    /// File systems.
    #[serde(skip_serializing_if = "none")]
    pub disk: u32,
    /// Mount points that did not answer.
    #[serde(skip_serializing_if = "none")]
    pub silent_mount: u32,
    /// Network interfaces, virtual ones of containers among them.
    #[serde(skip_serializing_if = "none")]
    pub network: u32,
    /// Addresses of interfaces.
    #[serde(skip_serializing_if = "none")]
    pub addresses: u32,
    /// GPUs.
    #[serde(skip_serializing_if = "none")]
    pub gpu: u32,
    /// GPUs that are missing.
    #[serde(skip_serializing_if = "none")]
    pub missing_gpu: u32,
    /// MIG instances.
    #[serde(skip_serializing_if = "none")]
    pub mig_instances: u32,
    /// Services.
    #[serde(skip_serializing_if = "none")]
    pub services: u32,
    /// The machine's sensors.
    #[serde(skip_serializing_if = "none")]
    pub temperature: u32,
    /// Findings about GPUs.
    #[serde(skip_serializing_if = "none")]
    pub findings: u32,
    /// Processes that use GPUs.
    #[serde(skip_serializing_if = "none")]
    pub processes: u32,
    /// Containers.
    #[serde(skip_serializing_if = "none")]
    pub containers: u32,
}

impl LeftOut {
    /// Whether nothing is left out.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn none(count: &u32) -> bool {
    *count == 0
}
