//! `telemetry.heartbeat` and `telemetry.metrics`. Percentages are 0 to 100; sizes of metrics are MB.
//! A status that is told is stored as it stands, and only `online` lets AIWM use a node; one that is
//! left out changes nothing.

use serde::{Deserialize, Serialize};

use super::number;
use crate::{
    inventory::understood,
    text::{list, told},
};

/// The status of a node that may be used.
pub const ONLINE: &str = "online";

/// The data of `telemetry.heartbeat`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Heartbeat {
    /// The node; AIWM goes by the connection.
    #[serde(deserialize_with = "told::<_, _, 64>")]
    pub node_id: String,
    /// What is stored as the node's status.
    #[serde(deserialize_with = "told::<_, _, 32>", skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Seconds since the machine booted.
    #[serde(deserialize_with = "understood")]
    pub uptime_seconds: u64,
    /// Workloads that run here.
    #[serde(deserialize_with = "understood")]
    pub active_deployments: u32,
    /// Percent of all processors.
    #[serde(deserialize_with = "understood")]
    pub cpu_usage: f64,
    /// Percent of main memory.
    #[serde(deserialize_with = "understood")]
    pub ram_usage: f64,
    /// One per GPU.
    #[serde(deserialize_with = "list::<_, _, 64>")]
    pub gpu_status: Vec<GpuStatus>,
}

/// A GPU at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GpuStatus {
    /// As in the register.
    #[serde(deserialize_with = "told::<_, _, 64>")]
    pub device_id: String,
    /// Percent.
    #[serde(deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub utilization: Option<u32>,
    /// `active`, or what else the worker knows of it.
    #[serde(deserialize_with = "told::<_, _, 32>")]
    pub status: String,
}

/// The data of `telemetry.metrics`. AIWM keeps its time alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metrics {
    /// The node; AIWM goes by the connection.
    #[serde(deserialize_with = "told::<_, _, 64>")]
    pub node_id: String,
    /// Processors.
    #[serde(deserialize_with = "understood")]
    pub cpu: CpuLoad,
    /// MB.
    #[serde(deserialize_with = "understood")]
    pub memory: Amount,
    /// MB of all file systems.
    #[serde(deserialize_with = "understood")]
    pub disk: Amount,
    /// Bytes since the machine booted.
    #[serde(deserialize_with = "understood")]
    pub network: Traffic,
    /// One per GPU.
    #[serde(deserialize_with = "list::<_, _, 64>")]
    pub gpu_devices: Vec<GpuLoad>,
}

/// Processors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CpuLoad {
    /// Percent.
    #[serde(deserialize_with = "understood")]
    pub usage: f64,
    /// Logical processors.
    #[serde(deserialize_with = "understood")]
    pub cores: u32,
    /// Over 1, 5 and 15 minutes.
    #[serde(deserialize_with = "understood")]
    pub load_average: [f64; 3],
}

/// How much there is, and how much of it is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Amount {
    /// MB.
    #[serde(deserialize_with = "understood")]
    pub total: u64,
    /// MB.
    #[serde(deserialize_with = "understood")]
    pub used: u64,
    /// MB.
    #[serde(deserialize_with = "understood")]
    pub free: u64,
}

/// Traffic since the machine booted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Traffic {
    /// Bytes.
    #[serde(deserialize_with = "understood")]
    pub rx_bytes: u64,
    /// Bytes.
    #[serde(deserialize_with = "understood")]
    pub tx_bytes: u64,
}

/// A GPU in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GpuLoad {
    /// As in the register.
    #[serde(deserialize_with = "told::<_, _, 64>")]
    pub device_id: String,
    /// Percent.
    #[serde(deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub utilization: Option<u32>,
    /// MB.
    #[serde(deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub memory_used: Option<u64>,
    /// °C.
    #[serde(deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub temperature: Option<u32>,
    /// Watts.
    #[serde(deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub power_draw: Option<u32>,
}
