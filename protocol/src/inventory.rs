//! What a machine is made of, as `node.register` tells it. Sizes are bytes. An absent field means
//! that the machine did not say. A part in a form that this end does not know reads as an empty
//! one: no inventory, however new, keeps a worker from being welcomed. Text is cleaned and cut, and
//! lists are cut, where they are read: no inventory is larger than any machine's.

use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};

use crate::{
    left_out::LeftOut,
    service::Service,
    text::{bounded, list, told, words},
};

/// Reads a part, or nothing of it.
pub(crate) fn understood<'de, D: Deserializer<'de>, T: Default + DeserializeOwned>(
    deserializer: D,
) -> Result<T, D::Error> {
    let told = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(told).unwrap_or_default())
}

/// The machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct SystemInfo {
    /// The operating system.
    #[serde(deserialize_with = "understood")]
    pub os: OperatingSystem,
    /// The kernel's name for the processor, e.g. `x86_64`.
    #[serde(deserialize_with = "told::<_, _, 32>")]
    pub architecture: String,
    /// What is built in.
    #[serde(deserialize_with = "understood")]
    pub hardware: Hardware,
    /// What the machine runs in, in the words of systemd-detect-virt(1), e.g. `kvm` or `docker`;
    /// `none` is bare metal.
    #[serde(deserialize_with = "told::<_, _, 32>", skip_serializing_if = "Option::is_none")]
    pub virtualization: Option<String>,
    /// What runs containers here, if anything does.
    #[serde(deserialize_with = "understood", skip_serializing_if = "Option::is_none")]
    pub container_runtime: Option<ContainerRuntime>,
    /// Addresses of the name servers.
    #[serde(deserialize_with = "words::<_, 8>", skip_serializing_if = "Vec::is_empty")]
    pub name_servers: Vec<String>,
    /// The services that matter; empty where nobody could say.
    #[serde(deserialize_with = "list::<_, _, 32>", skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
}

/// The operating system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct OperatingSystem {
    /// The distribution, e.g. `Ubuntu`.
    #[serde(deserialize_with = "bounded::<_, _, 64>")]
    pub name: String,
    /// Its version, e.g. `22.04`.
    #[serde(deserialize_with = "bounded::<_, _, 64>")]
    pub version: String,
    /// The kernel's release.
    #[serde(deserialize_with = "bounded::<_, _, 128>")]
    pub kernel: String,
    /// The machine's own name.
    #[serde(deserialize_with = "bounded::<_, _, 255>")]
    pub hostname: String,
}

/// What is built in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Hardware {
    /// Processors.
    #[serde(deserialize_with = "understood")]
    pub cpu: Cpu,
    /// Main memory.
    #[serde(deserialize_with = "understood")]
    pub memory: Memory,
    /// File systems on real devices.
    #[serde(deserialize_with = "list::<_, _, 64>")]
    pub disk: Vec<Disk>,
    /// Mounted file systems that did not answer in time; their sizes are not known.
    #[serde(deserialize_with = "list::<_, _, 64>", skip_serializing_if = "Vec::is_empty")]
    pub silent_mount: Vec<SilentMount>,
    /// Network interfaces: physical ones and those with an address. The loopback is left out, and so are the
    /// virtual ends of containers' links, unless the machine has no other.
    #[serde(deserialize_with = "list::<_, _, 64>")]
    pub network: Vec<NetworkInterface>,
    /// GPUs; empty unless the driver answered.
    #[serde(deserialize_with = "list::<_, _, 64>")]
    pub gpu: Vec<Gpu>,
    /// GPUs that were here before and are not any more.
    #[serde(deserialize_with = "list::<_, _, 64>", skip_serializing_if = "Vec::is_empty")]
    pub missing_gpu: Vec<Gpu>,
    /// What the GPU driver said of itself.
    #[serde(deserialize_with = "understood")]
    pub gpu_driver: GpuDriver,
    /// How much the lists leave out.
    #[serde(deserialize_with = "understood", skip_serializing_if = "LeftOut::is_empty")]
    pub left_out: LeftOut,
}

/// Processors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Cpu {
    /// The vendor's name for it.
    #[serde(deserialize_with = "bounded::<_, _, 128>")]
    pub model: String,
    /// Physical cores; absent when the machine does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cores: Option<u32>,
    /// Logical processors.
    pub threads: u32,
    /// Sockets that hold one; absent when the machine does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sockets: Option<u32>,
    /// MHz at most; absent where nobody says, as in most virtual machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_frequency_mhz: Option<u32>,
    /// Bytes of the largest cache that a core has a share in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_bytes: Option<u64>,
}

/// Main memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Memory {
    /// Bytes.
    pub total: u64,
}

/// A file system on a real device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    /// Where it is mounted.
    #[serde(deserialize_with = "bounded::<_, _, 255>")]
    pub mount_point: String,
    /// Its type, e.g. `ext4`.
    #[serde(deserialize_with = "bounded::<_, _, 32>")]
    pub file_system: String,
    /// Bytes.
    pub total: u64,
    /// Bytes.
    pub available: u64,
    /// What is mounted, e.g. `/dev/nvme0n1p2` or the dataset of a pool.
    #[serde(default, deserialize_with = "bounded::<_, _, 255>", skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// How many files it can hold; absent where it makes room for them as it needs it.
    #[serde(default, deserialize_with = "understood", skip_serializing_if = "Option::is_none")]
    pub inodes: Option<Inodes>,
}

/// What a file system can hold in files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Inodes {
    /// In all.
    pub total: u64,
    /// Not used.
    pub available: u64,
}

/// A mounted file system that did not answer in time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct SilentMount {
    /// Where it is mounted.
    #[serde(deserialize_with = "bounded::<_, _, 255>")]
    pub mount_point: String,
    /// Its type, e.g. `fuse.sshfs`.
    #[serde(deserialize_with = "bounded::<_, _, 32>")]
    pub file_system: String,
}

/// A network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct NetworkInterface {
    /// The kernel's name, e.g. `eth0`.
    #[serde(deserialize_with = "bounded::<_, _, 32>")]
    pub name: String,
    /// Hardware address.
    #[serde(deserialize_with = "bounded::<_, _, 64>")]
    pub mac_address: String,
    /// Addresses with prefix length.
    #[serde(deserialize_with = "words::<_, 32>")]
    pub addresses: Vec<String>,
    /// `ethernet`, `infiniband`, `wlan`, `bridge`, `bond`, `vlan`, …
    #[serde(default, deserialize_with = "bounded::<_, _, 32>", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Whether no device is behind it.
    #[serde(rename = "virtual", default, skip_serializing_if = "Option::is_none")]
    pub is_virtual: Option<bool>,
    /// `up` or `down`.
    #[serde(default, deserialize_with = "bounded::<_, _, 16>", skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Bytes of its largest packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Mbit/s of its link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed_mbps: Option<u32>,
    /// `full` or `half`.
    #[serde(default, deserialize_with = "bounded::<_, _, 16>", skip_serializing_if = "Option::is_none")]
    pub duplex: Option<String>,
    /// The VLAN's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan_id: Option<u32>,
    /// The interface below a VLAN, or the bond or bridge that it belongs to.
    #[serde(default, deserialize_with = "bounded::<_, _, 32>", skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The way out of this machine that leads through it, if one does.
    #[serde(default, deserialize_with = "understood", skip_serializing_if = "Option::is_none")]
    pub route: Option<DefaultRoute>,
}

/// A way out of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct DefaultRoute {
    /// The router; absent on a link that leads straight to its other end.
    #[serde(deserialize_with = "bounded::<_, _, 64>", skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// The lowest is preferred.
    pub metric: u32,
}

/// What runs containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ContainerRuntime {
    /// `docker`, `containerd` or `podman`.
    #[serde(deserialize_with = "bounded::<_, _, 32>")]
    pub name: String,
    /// Whether its service runs.
    pub active: bool,
    /// Its version, e.g. `24.0.7`; absent where nobody says.
    #[serde(default, deserialize_with = "bounded::<_, _, 64>", skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// A GPU.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Gpu {
    /// The driver's index, as text: what heartbeats call the GPU by. Steady until the machine
    /// reboots or its GPUs change.
    #[serde(deserialize_with = "bounded::<_, _, 64>")]
    pub device_id: String,
    /// The vendor's id for the very card, steady for ever.
    #[serde(deserialize_with = "bounded::<_, _, 96>", skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// The vendor's product name.
    #[serde(deserialize_with = "bounded::<_, _, 128>")]
    pub model: String,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_total: Option<u64>,
    /// Where it sits, e.g. `00000000:3B:00.0`.
    #[serde(deserialize_with = "bounded::<_, _, 32>", skip_serializing_if = "Option::is_none")]
    pub pci_bus_id: Option<String>,
    /// The board's serial number.
    #[serde(deserialize_with = "bounded::<_, _, 64>", skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// The version of its firmware.
    #[serde(deserialize_with = "bounded::<_, _, 64>", skip_serializing_if = "Option::is_none")]
    pub vbios: Option<String>,
    /// Whether it is divided, and into what; absent where it cannot be.
    #[serde(deserialize_with = "understood", skip_serializing_if = "Option::is_none")]
    pub mig: Option<Mig>,
    /// Whether its memory corrects errors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ecc: Option<bool>,
    /// Whether the driver keeps it awake when nobody uses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistence: Option<bool>,
    /// The best that GPU and slot can do together.
    #[serde(deserialize_with = "understood", skip_serializing_if = "Option::is_none")]
    pub pcie: Option<PcieLink>,
    /// The most NVLinks that were ever seen up at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nvlinks: Option<u32>,
}

/// How a GPU is divided into smaller ones (MIG).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Mig {
    /// Whether it is divided now.
    pub enabled: bool,
    /// Into what.
    #[serde(deserialize_with = "list::<_, _, 16>")]
    pub instances: Vec<MigInstance>,
}

/// A part of a divided GPU.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct MigInstance {
    /// What programs ask for it by.
    #[serde(deserialize_with = "bounded::<_, _, 96>")]
    pub uuid: String,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_total: Option<u64>,
}

/// A PCI Express link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct PcieLink {
    /// The generation of its speed, e.g. 5.
    pub generation: u32,
    /// Lanes.
    pub width: u32,
}

/// What the GPU driver said of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct GpuDriver {
    /// Whether it answered.
    pub state: GpuDriverState,
    /// In words, when it did not.
    #[serde(deserialize_with = "bounded::<_, _, 255>", skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The driver's version.
    #[serde(deserialize_with = "bounded::<_, _, 64>", skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The newest CUDA that it supports, e.g. `12.4`.
    #[serde(deserialize_with = "bounded::<_, _, 64>", skip_serializing_if = "Option::is_none")]
    pub cuda_version: Option<String>,
}

/// Whether the GPU driver answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum GpuDriverState {
    /// It answered.
    Ok,
    /// There is no NVIDIA driver on this machine.
    Absent,
    /// It is there and failed, or does not answer: nothing is known of the GPUs.
    #[default]
    Unknown,
}
