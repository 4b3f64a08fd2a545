//! Metrics as MONA takes them: bytes and percent. It refuses a push with a field that it does not
//! know, and one with a GPU that has no temperature; such a GPU is left out.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// `POST /metrics/push/node`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Push {
    /// The node.
    pub node_id: String,
    /// When it was measured.
    pub timestamp: Timestamp,
    /// The node's status.
    pub status: PushStatus,
    /// Whether the session lives.
    pub websocket_connected: bool,
    /// Seconds since the machine booted.
    pub uptime: u64,
    /// Processors.
    pub cpu: PushCpu,
    /// Main memory.
    pub memory: PushMemory,
    /// File systems.
    pub disk: PushDisk,
    /// Network.
    pub network: PushNetwork,
    /// GPUs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpu: Vec<PushGpu>,
}

/// A status that MONA knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PushStatus {
    /// In service.
    Online,
    /// Away.
    Offline,
    /// Taken out of service.
    Maintenance,
}

/// Processors.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PushCpu {
    /// Percent.
    pub usage: f64,
    /// Logical ones; 1 at least.
    pub cores: u32,
    /// Over 1, 5 and 15 minutes.
    pub load_average: [f64; 3],
}

/// Main memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PushMemory {
    /// Bytes.
    pub total: u64,
    /// Bytes.
    pub used: u64,
    /// Bytes.
    pub free: u64,
    /// Bytes.
    pub cached: u64,
}

/// File systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PushDisk {
    /// Bytes.
    pub total: u64,
    /// Bytes.
    pub used: u64,
    /// Bytes.
    pub free: u64,
    /// Bytes a second.
    pub read_bytes_per_sec: u64,
    /// Bytes a second.
    pub write_bytes_per_sec: u64,
}

/// Network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PushNetwork {
    /// Bytes a second.
    pub rx_bytes_per_sec: u64,
    /// Bytes a second.
    pub tx_bytes_per_sec: u64,
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PushGpu {
    /// As in the register.
    pub device_id: String,
    /// The product's name.
    pub model: String,
    /// Percent.
    pub utilization: u32,
    /// Bytes.
    pub memory_used: u64,
    /// Bytes.
    pub memory_total: u64,
    /// °C.
    pub temperature: u32,
    /// Watts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_draw: Option<u32>,
    /// Percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fan_speed: Option<u32>,
}

/// MONA's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pushed {
    /// Whether it was stored.
    pub success: bool,
    /// In words.
    pub message: String,
    /// What was stored.
    pub data: PushedData,
}

/// What was stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PushedData {
    /// Its id.
    pub metric_id: String,
    /// Whose it is.
    pub node_id: String,
    /// When it was measured.
    pub timestamp: Timestamp,
    /// Over which time, e.g. `1min`.
    pub interval: serde_json::Value,
}
