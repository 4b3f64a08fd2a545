//! What a worker measures and tells again and again. Percentages are 0 to 100; memory is bytes,
//! temperature °C, power watts.

mod finding;
mod gpu;
mod problem;

use serde::{Deserialize, Deserializer, Serialize};

use crate::{inventory::understood, text::bounded};

pub use finding::{Finding, RecoveryAction};
pub use gpu::{EccErrors, GpuDetail, GpuProcess, RemappedRows, RetiredPages};
pub use problem::{MachineProblem, MachineProblemKind};

/// Health of a GPU, or of the worst of them.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = GpuHealth))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Every source answered, and none complained.
    #[default]
    Ok,
    /// It works, with less than it should.
    Degraded,
    /// Nobody answered. Never the same as `ok`.
    Unknown,
    /// It must not be given work.
    Unhealthy,
}

/// The machine's health in a word and a sentence.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthSummary {
    /// The worst of all GPUs.
    pub state: Health,
    /// Which, and why, unless all is well.
    #[serde(default, deserialize_with = "bounded::<_, _, 255>", skip_serializing_if = "Option::is_none")]
    pub worst: Option<String>,
    /// What to do about it, if there is something to do.
    #[serde(default, deserialize_with = "understood", skip_serializing_if = "RecoveryAction::is_nothing")]
    pub action: RecoveryAction,
}

/// A GPU at one moment. An absent number means that the driver did not say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct GpuStatus {
    /// As in the inventory.
    #[serde(deserialize_with = "bounded::<_, _, 64>")]
    pub device_id: String,
    /// Percent of the last sampling period in which a kernel ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilization: Option<u32>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_used: Option<u64>,
    /// °C.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<u32>,
    /// Watts, rounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_draw: Option<u32>,
    /// Left out when `active`.
    #[serde(default, skip_serializing_if = "GpuActivity::is_active")]
    pub status: GpuActivity,
    /// Left out when `ok`.
    #[serde(default, skip_serializing_if = "Health::is_ok")]
    pub health: Health,
}

/// Whether a GPU can be asked at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum GpuActivity {
    /// The driver answers for it.
    #[default]
    Active,
    /// The driver does not answer for it.
    Unknown,
}

impl GpuActivity {
    fn is_active(&self) -> bool {
        *self == Self::Active
    }
}

impl Health {
    /// All of them, the best first.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Degraded, Self::Unknown, Self::Unhealthy];

    /// As the wire and people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Unknown => "unknown",
            Self::Unhealthy => "unhealthy",
        }
    }

    /// Whether all is well.
    pub fn is_ok(&self) -> bool {
        *self == Self::Ok
    }
}

impl HealthSummary {
    /// Whether there is nothing to say of it.
    pub fn is_ok(&self) -> bool {
        self.state.is_ok() && self.worst.is_none()
    }
}

/// The machine at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct HostUsage {
    /// Percent of all processors, since the last sample.
    #[serde(deserialize_with = "percent")]
    pub cpu_usage: f32,
    /// Percent of main memory that is not available.
    #[serde(deserialize_with = "percent")]
    pub ram_usage: f32,
    /// Seconds since the machine booted.
    pub uptime_seconds: u64,
}

/// A share of something whole. What is told beyond that is held inside, so that no number here is infinite.
fn percent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f32, D::Error> {
    Ok(f64::deserialize(deserializer)?.clamp(0.0, 100.0) as f32)
}

/// Traffic of all interfaces but the loopback.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkTraffic {
    /// Bytes since the machine booted.
    pub received_bytes: u64,
    /// Bytes since the machine booted.
    pub sent_bytes: u64,
}

/// Traffic of all disks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct DiskTraffic {
    /// Bytes since the machine booted.
    pub read_bytes: u64,
    /// Bytes since the machine booted.
    pub written_bytes: u64,
}

/// A sensor of the machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Temperature {
    /// The kernel's name for it, e.g. `k10temp Tctl`.
    #[serde(deserialize_with = "bounded::<_, _, 64>")]
    pub sensor: String,
    /// °C.
    pub celsius: f32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_share_is_more_than_the_whole() {
        for (told, read) in [("12.5", 12.5), ("-3", 0.0), ("1e42", 100.0), ("100", 100.0)] {
            let usage: HostUsage =
                serde_json::from_str(&format!(r#"{{"cpuUsage":{told},"ramUsage":{told}}}"#)).unwrap();
            assert_eq!((usage.cpu_usage, usage.ram_usage), (read, read), "{told}");
        }
    }
}
