//! `node.register` in the older form: flat, with sizes in MB. AIWM still takes it, and stores
//! `daemonVersion` of this form alone. Our worker never writes it; a double has to read it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::number;
use crate::{
    inventory::understood,
    text::{list, told},
};

/// The data of `node.register` in the older form. Sizes are MB.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FlatRegister {
    /// The node.
    #[serde(deserialize_with = "told::<_, _, 64>")]
    pub node_id: String,
    /// Its name, which is dropped.
    #[serde(deserialize_with = "told::<_, _, 128>", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The machine's own name, which is dropped.
    #[serde(deserialize_with = "told::<_, _, 255>", skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Its address.
    #[serde(deserialize_with = "told::<_, _, 64>", skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<String>,
    /// The address at which the world reaches it.
    #[serde(deserialize_with = "told::<_, _, 64>", skip_serializing_if = "Option::is_none")]
    pub public_ip_address: Option<String>,
    /// The operating system.
    #[serde(deserialize_with = "understood", skip_serializing_if = "Option::is_none")]
    pub os: Option<FlatOs>,
    /// Cores.
    #[serde(deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub cpu_cores: Option<f64>,
    /// The processor's name.
    #[serde(deserialize_with = "told::<_, _, 128>", skip_serializing_if = "Option::is_none")]
    pub cpu_model: Option<String>,
    /// MB of main memory.
    #[serde(deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub ram_total: Option<f64>,
    /// MB of file systems.
    #[serde(deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub disk_total: Option<f64>,
    /// GPUs.
    #[serde(deserialize_with = "list::<_, _, 64>")]
    pub gpu_devices: Vec<FlatGpu>,
    /// The daemon's version.
    #[serde(deserialize_with = "told::<_, _, 64>", skip_serializing_if = "Option::is_none")]
    pub daemon_version: Option<String>,
    /// The worker's own view.
    #[serde(deserialize_with = "told::<_, _, 32>", skip_serializing_if = "Option::is_none")]
    pub node_status: Option<String>,
    /// Seconds since the machine booted.
    #[serde(deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub uptime_seconds: Option<f64>,
    /// What runs containers.
    #[serde(deserialize_with = "understood", skip_serializing_if = "Option::is_none")]
    pub container_runtime: Option<FlatRuntime>,
}

impl FlatRegister {
    /// The names of fields that have to be numbers and are something else in `data`: one of them, and
    /// AIWM refuses the whole register.
    pub fn miscast(data: &Value) -> Vec<&'static str> {
        let wrong = |field: &&str| {
            data.get(field).is_some_and(|value| match value {
                Value::Null | Value::Number(_) => false,
                Value::String(text) => text.trim().parse::<f64>().is_err(),
                _ => true,
            })
        };
        ["cpuCores", "ramTotal", "diskTotal"].into_iter().filter(wrong).collect()
    }
}

/// The operating system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FlatOs {
    /// `linux`.
    #[serde(deserialize_with = "told::<_, _, 32>")]
    pub platform: String,
    /// The distribution.
    #[serde(deserialize_with = "told::<_, _, 64>")]
    pub distro: String,
    /// Its version.
    #[serde(deserialize_with = "told::<_, _, 64>")]
    pub version: String,
    /// The processor's kind.
    #[serde(deserialize_with = "told::<_, _, 32>")]
    pub arch: String,
    /// The kernel's release.
    #[serde(deserialize_with = "told::<_, _, 128>")]
    pub kernel: String,
}

/// A GPU.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FlatGpu {
    /// What heartbeats call it by.
    #[serde(deserialize_with = "told::<_, _, 64>")]
    pub device_id: String,
    /// The product's name.
    #[serde(deserialize_with = "told::<_, _, 128>")]
    pub model: String,
    /// MB.
    #[serde(deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub memory_total: Option<f64>,
}

/// What runs containers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FlatRuntime {
    /// `docker`, …
    #[serde(rename = "type", deserialize_with = "told::<_, _, 32>")]
    pub kind: String,
    /// Its version.
    #[serde(deserialize_with = "told::<_, _, 64>", skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where its data lies.
    #[serde(deserialize_with = "told::<_, _, 255>", skip_serializing_if = "Option::is_none")]
    pub root_dir: Option<String>,
}
