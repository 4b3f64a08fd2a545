//! What the machine says of itself: operating system, processors, memory, disks, network, and how
//! busy they are.

mod containers;
mod links;
mod machine;
mod mounts;
pub(crate) mod packages;
mod processors;
mod routes;
mod traffic;

use aio_protocol::{
    inventory::{ContainerRuntime, Cpu, Disk, Memory, NetworkInterface, OperatingSystem, SilentMount},
    telemetry::{DiskTraffic, HostUsage, NetworkTraffic, Temperature},
};

pub use containers::{among as container_runtime_among, runtime as container_runtime};
pub use machine::SysinfoProbe;

/// Mounts of real devices that do not answer in time. Takes seconds where there are any.
pub fn silent_mounts() -> Vec<SilentMount> {
    mounts::Mounts::default().survey().1
}

/// The machine's facts, the GPUs left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HostFacts {
    /// The operating system.
    pub os: OperatingSystem,
    /// The kernel's name for the processor.
    pub architecture: String,
    /// Processors.
    pub cpu: Cpu,
    /// Main memory.
    pub memory: Memory,
    /// File systems on real devices.
    pub disk: Vec<Disk>,
    /// Mounts that did not answer in time.
    pub silent_mounts: Vec<SilentMount>,
    /// Network interfaces that say something about the machine.
    pub network: Vec<NetworkInterface>,
    /// How many others there are.
    pub links_left_out: u32,
    /// Addresses of the name servers.
    pub name_servers: Vec<String>,
    /// What runs containers here.
    pub container_runtime: Option<ContainerRuntime>,
    /// The kernel's boot id.
    pub boot_id: String,
}

/// The machine's load at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct HostSample {
    /// What a heartbeat carries.
    pub usage: HostUsage,
    /// Bytes of main memory that are not available.
    pub memory_used: u64,
    /// Bytes of main memory that hold copies of files.
    pub memory_cached: Option<u64>,
    /// Traffic since the machine booted.
    pub network: NetworkTraffic,
    /// The same of its disks; none where the kernel does not say.
    pub disk_traffic: Option<DiskTraffic>,
    /// Runnable and waiting tasks, averaged over 1, 5 and 15 minutes.
    pub load_average: [f32; 3],
    /// The machine's own sensors.
    pub temperatures: Vec<Temperature>,
}

/// Something that knows a machine. Calls may block for milliseconds, so they run off the async
/// runtime's hot path.
pub trait HostProbe: Send {
    /// Facts that seldom change.
    fn facts(&mut self) -> HostFacts;
    /// Load since the last sample.
    fn sample(&mut self) -> HostSample;
}
