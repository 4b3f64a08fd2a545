//! A GPU in detail, as `telemetry.metrics` and the status socket tell it. Absent is what the driver
//! did not say: most GPUs lack some of it.

use serde::{Deserialize, Serialize};

use super::{Finding, GpuActivity, GpuStatus, Health};
use crate::{
    inventory::{PcieLink, understood},
    text::{list, words},
};

/// A GPU at one moment: what heartbeats say of it, and the rest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct GpuDetail {
    /// What heartbeats say.
    #[serde(flatten)]
    pub status: GpuStatus,
    /// What is wrong with it, the worst first.
    #[serde(default, deserialize_with = "list::<_, _, 64>", skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// °C of its memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_temperature: Option<u32>,
    /// °C that are left before it slows down; negative beyond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_margin: Option<i32>,
    /// Watts that it may draw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_limit: Option<u32>,
    /// MHz of its processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_sm: Option<u32>,
    /// MHz of its memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_memory: Option<u32>,
    /// Why its clocks are below the maximum, in NVML's words, e.g. `sw_power_cap`; empty when they
    /// are not, or when it is idle.
    #[serde(default, deserialize_with = "words::<_, 32>", skip_serializing_if = "Vec::is_empty")]
    pub throttle: Vec<String>,
    /// Memory errors.
    #[serde(default, deserialize_with = "understood", skip_serializing_if = "Option::is_none")]
    pub ecc_errors: Option<EccErrors>,
    /// Rows of memory that spare ones stand in for (since Ampere).
    #[serde(default, deserialize_with = "understood", skip_serializing_if = "Option::is_none")]
    pub remapped_rows: Option<RemappedRows>,
    /// Pages of memory that are not used any more (before Ampere).
    #[serde(default, deserialize_with = "understood", skip_serializing_if = "Option::is_none")]
    pub retired_pages: Option<RetiredPages>,
    /// The link as it is now; an idle GPU lowers its generation.
    #[serde(default, deserialize_with = "understood", skip_serializing_if = "Option::is_none")]
    pub pcie: Option<PcieLink>,
    /// NVLinks that are up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nvlinks: Option<u32>,
    /// Who uses it, those with the most memory first.
    #[serde(default, deserialize_with = "list::<_, _, 256>", skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<GpuProcess>,
}

/// Memory errors: `volatile` since the driver was loaded, `aggregate` over the GPU's life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct EccErrors {
    /// Corrected, since the driver was loaded.
    pub volatile_corrected: u64,
    /// Beyond correction, since the driver was loaded.
    pub volatile_uncorrected: u64,
    /// Corrected, ever.
    pub aggregate_corrected: u64,
    /// Beyond correction, ever.
    pub aggregate_uncorrected: u64,
}

/// Rows of memory that spare ones stand in for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct RemappedRows {
    /// Because of errors that were corrected.
    pub corrected: u32,
    /// Because of errors beyond correction.
    pub uncorrected: u32,
    /// Whether a row waits for a reset to be remapped.
    pub pending: bool,
    /// Whether a row could not be remapped.
    pub failed: bool,
}

/// Pages of memory that are not used any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct RetiredPages {
    /// Because of several corrected errors.
    pub corrected: u32,
    /// Because of an error beyond correction.
    pub uncorrected: u32,
    /// Whether a page waits for a reset to be retired.
    pub pending: bool,
}

/// A process that uses a GPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct GpuProcess {
    /// The kernel's number for it.
    pub pid: u32,
    /// Bytes of the GPU's memory; absent when the driver did not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_used: Option<u64>,
}

impl GpuDetail {
    /// A GPU of which nothing is known.
    pub fn unknown(device_id: impl Into<String>) -> Self {
        Self::of(GpuStatus {
            device_id: device_id.into(),
            utilization: None,
            memory_used: None,
            temperature: None,
            power_draw: None,
            status: GpuActivity::Unknown,
            health: Health::Unknown,
        })
    }

    /// A GPU of which only this is known.
    pub fn of(status: GpuStatus) -> Self {
        Self {
            status,
            findings: vec![],
            memory_temperature: None,
            temperature_margin: None,
            power_limit: None,
            clock_sm: None,
            clock_memory: None,
            throttle: vec![],
            ecc_errors: None,
            remapped_rows: None,
            retired_pages: None,
            pcie: None,
            nvlinks: None,
            processes: vec![],
        }
    }
}
