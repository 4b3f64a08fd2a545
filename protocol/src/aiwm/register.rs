//! `node.register` in the form of today: the machine under `systemInfo`. AIWM replaces what it has
//! stored by this as a whole, and drops what stands beside it. Sizes are bytes, unless a field says
//! otherwise; an absent field means that the machine did not say.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::number;
use crate::{
    inventory::understood,
    text::{list, told, words},
};

/// The data of `node.register`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Register {
    /// The machine.
    #[serde(deserialize_with = "understood")]
    pub system_info: SystemInfo,
}

/// The machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SystemInfo {
    /// The operating system.
    #[serde(deserialize_with = "understood")]
    pub os: OperatingSystem,
    /// The processor's kind.
    #[serde(deserialize_with = "understood")]
    pub architecture: Architecture,
    /// What is built in.
    #[serde(deserialize_with = "understood")]
    pub hardware: Hardware,
    /// What runs containers here, if anything does.
    #[serde(deserialize_with = "understood", skip_serializing_if = "Option::is_none")]
    pub container_runtime: Option<ContainerRuntime>,
    /// What the machine runs in.
    #[serde(deserialize_with = "understood", skip_serializing_if = "Option::is_none")]
    pub virtualization: Option<Virtualization>,
}

/// The operating system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OperatingSystem {
    /// The distribution, e.g. `Ubuntu`.
    #[serde(deserialize_with = "told::<_, _, 64>")]
    pub name: String,
    /// Its version, e.g. `22.04`.
    #[serde(deserialize_with = "told::<_, _, 64>")]
    pub version: String,
    /// The kernel's release.
    #[serde(deserialize_with = "told::<_, _, 128>")]
    pub kernel: String,
    /// The kernel's name: `linux`.
    #[serde(deserialize_with = "told::<_, _, 32>")]
    pub platform: String,
}

/// The processor's kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Architecture {
    /// The kernel's name for it, e.g. `x86_64`.
    #[serde(deserialize_with = "told::<_, _, 32>")]
    pub cpu: String,
    /// 32 or 64.
    #[serde(deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub bits: Option<u32>,
    /// `little` or `big`.
    #[serde(deserialize_with = "told::<_, _, 16>", skip_serializing_if = "Option::is_none")]
    pub endianness: Option<String>,
}

/// What is built in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hardware {
    /// Processors.
    #[serde(deserialize_with = "understood")]
    pub cpu: Cpu,
    /// Main memory.
    #[serde(deserialize_with = "understood")]
    pub memory: Memory,
    /// File systems.
    #[serde(deserialize_with = "understood")]
    pub disk: Disk,
    /// Network.
    #[serde(deserialize_with = "understood")]
    pub network: Network,
    /// GPUs.
    #[serde(deserialize_with = "list::<_, _, 64>")]
    pub gpu: Vec<Gpu>,
}

/// Processors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cpu {
    /// The vendor's name for it.
    #[serde(deserialize_with = "told::<_, _, 128>")]
    pub model: String,
    /// The vendor.
    #[serde(deserialize_with = "told::<_, _, 64>", skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// Sockets that hold one.
    #[serde(deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub sockets: Option<u32>,
    /// Cores of each.
    #[serde(deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub cores_per_socket: Option<u32>,
    /// Threads of each core.
    #[serde(deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub threads_per_core: Option<u32>,
    /// Cores of all.
    #[serde(deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub total_cores: Option<u32>,
    /// MHz.
    #[serde(deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub frequency: Option<u32>,
    /// KiB.
    #[serde(deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub cache_size: Option<u32>,
    /// One by one, for who tells them.
    #[serde(deserialize_with = "list::<_, _, 64>", skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<Value>,
}

/// Main memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Bytes.
    #[serde(deserialize_with = "understood")]
    pub total: u64,
}

/// File systems.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Disk {
    /// Bytes of all.
    #[serde(deserialize_with = "understood")]
    pub total: u64,
    /// Each.
    #[serde(deserialize_with = "list::<_, _, 64>")]
    pub devices: Vec<DiskDevice>,
}

/// A file system on a device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DiskDevice {
    /// The device's name; the mount point where that is not known.
    #[serde(deserialize_with = "told::<_, _, 255>")]
    pub name: String,
    /// Where it is mounted.
    #[serde(deserialize_with = "told::<_, _, 255>")]
    pub mount_point: String,
    /// Bytes.
    #[serde(deserialize_with = "understood")]
    pub total: u64,
    /// Its type, e.g. `ext4`.
    #[serde(deserialize_with = "told::<_, _, 32>")]
    pub filesystem: String,
}

/// Network.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Network {
    /// The address at which the world reaches it.
    #[serde(deserialize_with = "told::<_, _, 64>", skip_serializing_if = "Option::is_none")]
    pub public_ip: Option<String>,
    /// The address at which other nodes reach it.
    #[serde(deserialize_with = "told::<_, _, 64>", skip_serializing_if = "Option::is_none")]
    pub cluster_ip: Option<String>,
    /// Ports by use.
    #[serde(deserialize_with = "understood", skip_serializing_if = "Map::is_empty")]
    pub ports: Map<String, Value>,
    /// Interfaces.
    #[serde(deserialize_with = "list::<_, _, 64>")]
    pub interfaces: Vec<Interface>,
    /// What is reached.
    #[serde(deserialize_with = "understood", skip_serializing_if = "Map::is_empty")]
    pub connectivity: Map<String, Value>,
}

/// A network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Interface {
    /// The kernel's name, e.g. `eth0`.
    #[serde(deserialize_with = "told::<_, _, 32>")]
    pub name: String,
    /// `ethernet`, `infiniband`, …
    #[serde(rename = "type", deserialize_with = "told::<_, _, 32>", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Hardware address.
    #[serde(deserialize_with = "told::<_, _, 64>", skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<String>,
    /// The first IPv4 address, without prefix length.
    #[serde(deserialize_with = "told::<_, _, 64>", skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<String>,
    /// The first IPv6 address, without prefix length.
    #[serde(deserialize_with = "told::<_, _, 64>", skip_serializing_if = "Option::is_none")]
    pub ipv6_address: Option<String>,
    /// The IPv4 address's mask, e.g. `255.255.255.0`.
    #[serde(deserialize_with = "told::<_, _, 64>", skip_serializing_if = "Option::is_none")]
    pub netmask: Option<String>,
    /// The way out.
    #[serde(deserialize_with = "told::<_, _, 64>", skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Name servers.
    #[serde(deserialize_with = "words::<_, 16>", skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<String>,
    /// Bytes of its largest packet.
    #[serde(deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Mbit/s.
    #[serde(deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub speed: Option<u32>,
    /// `full` or `half`.
    #[serde(deserialize_with = "told::<_, _, 16>", skip_serializing_if = "Option::is_none")]
    pub duplex: Option<String>,
    /// `up` or `down`.
    #[serde(deserialize_with = "told::<_, _, 16>", skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Whether the way out leads through it.
    #[serde(deserialize_with = "understood", skip_serializing_if = "Option::is_none")]
    pub is_primary: Option<bool>,
    /// The preference of the way out through it.
    #[serde(deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
    /// Whether no device is behind it.
    #[serde(deserialize_with = "understood", skip_serializing_if = "Option::is_none")]
    pub is_virtual: Option<bool>,
    /// What it is a part of.
    #[serde(deserialize_with = "told::<_, _, 32>", skip_serializing_if = "Option::is_none")]
    pub parent_interface: Option<String>,
    /// The VLAN's number.
    #[serde(deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub vlan_id: Option<u32>,
}

/// A GPU.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Gpu {
    /// What heartbeats call it by.
    #[serde(deserialize_with = "told::<_, _, 64>")]
    pub device_id: String,
    /// The vendor's product name.
    #[serde(deserialize_with = "told::<_, _, 128>")]
    pub model: String,
    /// The vendor.
    #[serde(deserialize_with = "told::<_, _, 32>", skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// Bytes.
    #[serde(deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub memory_total: Option<u64>,
    /// What it can do, in words.
    #[serde(deserialize_with = "words::<_, 32>")]
    pub capabilities: Vec<String>,
}

/// What runs containers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerRuntime {
    /// `docker`, `containerd` or `podman`.
    #[serde(rename = "type", deserialize_with = "told::<_, _, 32>")]
    pub kind: String,
    /// Its version.
    #[serde(deserialize_with = "told::<_, _, 64>", skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The version of its interface.
    #[serde(deserialize_with = "told::<_, _, 32>", skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Where images lie.
    #[serde(deserialize_with = "understood", skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
}

/// Where images lie.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Storage {
    /// E.g. `overlay2`.
    #[serde(deserialize_with = "told::<_, _, 32>")]
    pub driver: String,
    /// Below it, e.g. `ext4`.
    #[serde(deserialize_with = "told::<_, _, 32>")]
    pub filesystem: String,
}

/// What the machine runs in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Virtualization {
    /// `kvm`, `docker`, …; `none` is bare metal.
    #[serde(rename = "type", deserialize_with = "told::<_, _, 32>")]
    pub kind: String,
    /// `host` or `guest`.
    #[serde(deserialize_with = "told::<_, _, 16>")]
    pub role: String,
}
