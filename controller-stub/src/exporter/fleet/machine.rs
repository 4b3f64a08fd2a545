//! What a scrape needs of a node for all families: labels, and the few figures of its inventory. A kilobyte
//! or so with eight GPUs, for as long as the scrape lasts.

use std::collections::BTreeSet;

use aio_protocol::{
    ids::NodeId,
    inventory::{Gpu as KnownGpu, GpuDriver, GpuDriverState, Memory, OperatingSystem},
    node::NodeStatus,
    time::Timestamp,
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};

use super::{Names, text::labels};
use crate::{store::FleetNode, telemetry::device::Device};

/// A node in service.
pub(super) struct Machine {
    pub id: NodeId,
    pub labels: Box<str>,
    pub status: NodeStatus,
    pub last_seen_at: Option<Timestamp>,
    pub version: Option<Box<str>>,
    /// Its update's state, as its worker tells it.
    pub update_state: Option<Box<str>>,
    pub kernel: Box<str>,
    /// Nothing before its worker has registered.
    pub driver: Option<GpuDriverState>,
    pub driver_version: Box<str>,
    pub memory_total: Option<u64>,
    pub missing_gpus: usize,
    pub gpus: Box<[Gpu]>,
    /// For OTLP alone.
    pub named: Option<Box<MachineNames>>,
}

/// What a node is called, where that is not written as labels.
pub(super) struct MachineNames {
    pub name: String,
    pub hostname: String,
    pub organisation: String,
}

/// What a GPU is called, where that is not written as labels.
pub(super) struct GpuNames {
    /// The driver's.
    pub index: String,
    pub uuid: Option<String>,
    pub model: String,
}

/// A GPU of the inventory.
pub(super) struct Gpu {
    pub device: Device,
    pub labels: Box<str>,
    pub memory_total: Option<u64>,
    /// For OTLP alone.
    pub named: Option<Box<GpuNames>>,
}

/// The parts of the inventory that figures are of. Parts in another form are nothing.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Inventory {
    #[serde(deserialize_with = "understood")]
    os: OperatingSystem,
    #[serde(deserialize_with = "understood")]
    hardware: Hardware,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Hardware {
    #[serde(deserialize_with = "understood")]
    memory: Memory,
    #[serde(deserialize_with = "understood")]
    gpu: Vec<KnownGpu>,
    #[serde(deserialize_with = "understood")]
    missing_gpu: Vec<KnownGpu>,
    #[serde(deserialize_with = "understood")]
    gpu_driver: Option<GpuDriver>,
}

fn understood<'de, D: Deserializer<'de>, T: Default + DeserializeOwned>(
    deserializer: D,
) -> Result<T, D::Error> {
    let told = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(told).unwrap_or_default())
}

/// What a report of updates says first of all.
#[derive(Deserialize)]
struct UpdateState {
    state: String,
}

impl Machine {
    pub(super) fn of(node: FleetNode, names: Names) -> Self {
        let told = node.system_info.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let Inventory { os, hardware } = told.unwrap_or_default();
        let OperatingSystem { hostname, kernel, .. } = os;
        let Hardware { memory, gpu, missing_gpu, gpu_driver } = hardware;
        let update = node.update_report.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let otlp = names == Names::Otlp;
        // Two of one name would be one series told twice.
        let mut seen = BTreeSet::new();
        let gpus = gpu.into_iter().filter(|gpu| seen.insert(gpu.device_id.clone())).map(|gpu| Gpu {
            device: Device::of(&gpu.device_id),
            labels: match names {
                Names::Own => own_labels(&gpu),
                Names::Dcgm => dcgm_labels(&gpu, if hostname.is_empty() { &node.name } else { &hostname }),
                Names::Otlp => Box::default(),
            },
            memory_total: gpu.memory_total,
            named: otlp
                .then(|| Box::new(GpuNames { index: gpu.device_id, uuid: gpu.uuid, model: gpu.model })),
        });
        let gpus = gpus.collect();
        Self {
            labels: match names {
                Names::Own => labels([
                    ("node", node.id.as_str()),
                    ("name", &node.name),
                    ("organisation", node.org.as_str()),
                ]),
                Names::Dcgm | Names::Otlp => Box::default(),
            },
            named: otlp.then(|| {
                let organisation = node.org.to_string();
                Box::new(MachineNames { name: node.name, hostname, organisation })
            }),
            status: node.status,
            last_seen_at: node.last_seen_at,
            version: node.daemon_version.map(Into::into),
            update_state: update.map(|UpdateState { state }| state.into()),
            kernel: kernel.into(),
            driver: gpu_driver.as_ref().map(|driver| driver.state),
            driver_version: gpu_driver.and_then(|driver| driver.version).unwrap_or_default().into(),
            memory_total: Some(memory.total).filter(|total| *total > 0),
            missing_gpus: missing_gpu.len(),
            gpus,
            id: node.id,
        }
    }
}

fn own_labels(gpu: &KnownGpu) -> Box<str> {
    let uuid = gpu.uuid.as_deref().unwrap_or_default();
    labels([("gpu", &gpu.device_id), ("uuid", uuid), ("model", &gpu.model)])
}

/// In dcgm-exporter's order.
fn dcgm_labels(gpu: &KnownGpu, hostname: &str) -> Box<str> {
    let of = |text: &Option<String>| text.clone().unwrap_or_default();
    labels([
        ("gpu", &gpu.device_id),
        ("UUID", &of(&gpu.uuid)),
        ("pci_bus_id", &of(&gpu.pci_bus_id)),
        ("device", &format!("nvidia{}", gpu.device_id)),
        ("modelName", &gpu.model),
        ("Hostname", hostname),
    ])
}
