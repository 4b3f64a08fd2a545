//! What a simulated worker says: a machine with GPUs, and numbers of the size that busy ones have.

use aio_protocol::{
    ids::NodeId,
    inventory::{
        Cpu, DefaultRoute, Disk, Gpu, GpuDriver, GpuDriverState, Hardware, Memory, NetworkInterface,
        OperatingSystem, SystemInfo,
    },
    left_out::LeftOut,
    telemetry::{
        DiskTraffic, Finding, GpuActivity, GpuDetail, GpuStatus, Health, HealthSummary, HostUsage,
        NetworkTraffic, RecoveryAction,
    },
    time::Timestamp,
    update::{EXPECTED_BACK_SECONDS, UPDATE_CAPABILITY, UpdateReport},
    wire::{Body, DisconnectReason, Disconnecting, Heartbeat, Metrics, Register, WorkerState, encode},
};
use uuid::Uuid;

/// How a simulated machine is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mood {
    /// Each number is what a busy machine has, the same at every message.
    #[default]
    Steady,
    /// The numbers change, as those of a machine that works do.
    Lively,
    /// Its first GPU is too hot.
    Hot,
    /// Its first GPU has fallen off the bus.
    Broken,
}

/// A worker's words; `gpus` is how many its machine has.
#[derive(Debug, Clone)]
pub(crate) struct Words {
    node: NodeId,
    instance: Uuid,
    gpus: usize,
    mood: Mood,
}

impl Words {
    pub(crate) fn new(node: NodeId, gpus: usize) -> Self {
        Self { node, instance: Uuid::new_v4(), gpus, mood: Mood::Steady }
    }

    /// The same, of a machine that is like this.
    pub(crate) fn of_mood(self, mood: Mood) -> Self {
        Self { mood, ..self }
    }

    /// As `register`, of a machine that calls itself `hostname`.
    pub(crate) fn register_as(&self, hostname: &str) -> String {
        self.register().replace(&format!("gpu-{}", self.node), hostname)
    }

    pub(crate) fn register(&self) -> String {
        text(&self.registration())
    }

    /// As `register`, of a worker of this version that updates itself and says this of it.
    pub(crate) fn register_updating(&self, version: &str, update: UpdateReport) -> String {
        let capabilities = vec![UPDATE_CAPABILITY.to_owned()];
        text(&Register { daemon_version: version.to_owned(), capabilities, update, ..self.registration() })
    }

    /// Says that it makes room for another version.
    pub(crate) fn goodbye(&self) -> String {
        text(&Disconnecting {
            node_id: self.node.clone(),
            reason: DisconnectReason::Update,
            expected_back_seconds: Some(EXPECTED_BACK_SECONDS),
        })
    }

    fn registration(&self) -> Register {
        let gpu = |index: usize| Gpu {
            device_id: index.to_string(),
            uuid: Some(format!("GPU-{}", self.instance)),
            model: "NVIDIA H100 80GB HBM3".to_owned(),
            memory_total: Some(85_520_809_984),
            pci_bus_id: Some(format!("00000000:{index:02X}:00.0")),
            ..Gpu::default()
        };
        Register {
            node_id: self.node.clone(),
            instance_id: self.instance,
            boot_id: self.instance.to_string(),
            daemon_version: env!("CARGO_PKG_VERSION").to_owned(),
            capabilities: vec![],
            update: Default::default(),
            system_info: SystemInfo {
                os: OperatingSystem {
                    name: "Ubuntu".to_owned(),
                    version: "22.04".to_owned(),
                    kernel: "5.15.0-122-generic".to_owned(),
                    hostname: format!("gpu-{}", self.node),
                },
                architecture: "x86_64".to_owned(),
                hardware: Hardware {
                    cpu: Cpu {
                        model: "AMD EPYC 9654".to_owned(),
                        cores: Some(96),
                        threads: 192,
                        sockets: Some(1),
                        max_frequency_mhz: Some(3707),
                        cache_bytes: Some(402_653_184),
                    },
                    memory: Memory { total: 1_621_970_370_560 },
                    disk: vec![self.disk()],
                    network: vec![NetworkInterface {
                        name: "eth0".to_owned(),
                        mac_address: "52:54:00:12:34:56".to_owned(),
                        addresses: vec!["10.0.0.7/16".to_owned()],
                        kind: Some("ethernet".to_owned()),
                        is_virtual: Some(false),
                        state: Some("up".to_owned()),
                        mtu: Some(9000),
                        speed_mbps: Some(100_000),
                        duplex: Some("full".to_owned()),
                        route: Some(DefaultRoute { gateway: Some("10.0.0.1".to_owned()), metric: 100 }),
                        ..NetworkInterface::default()
                    }],
                    gpu: (0..self.gpus).map(gpu).collect(),
                    gpu_driver: GpuDriver {
                        state: GpuDriverState::Ok,
                        reason: None,
                        version: Some("550.54.15".to_owned()),
                        cuda_version: Some("12.4".to_owned()),
                    },
                    ..Hardware::default()
                },
                virtualization: None,
                container_runtime: None,
                name_servers: vec!["10.0.0.2".to_owned()],
                services: vec![],
            },
        }
    }

    pub(crate) fn heartbeat(&self, seq: u64) -> String {
        text(&Heartbeat {
            node_id: self.node.clone(),
            seq,
            status: WorkerState::Online,
            host: self.host(),
            active_deployments: 8,
            gpu_status: self.gpu_status(),
            health: self.health(),
        })
    }

    pub(crate) fn metrics(&self) -> String {
        text(&Metrics {
            node_id: self.node.clone(),
            host: self.host(),
            memory_used: 917_123_456_000,
            memory_cached: Some(317_123_456_000),
            disk: vec![self.disk()],
            network: NetworkTraffic { received_bytes: 9_123_456_789_012, sent_bytes: 4_123_456_789_012 },
            disk_traffic: Some(DiskTraffic {
                read_bytes: 5_123_456_789_012,
                written_bytes: 1_123_456_789_012,
            }),
            load_average: Some([3.0, 2.0, 1.0]),
            temperature: vec![],
            gpu: self.gpu_details(),
            containers: Some(vec![]),
            problems: None,
            left_out: LeftOut::default(),
        })
    }

    fn host(&self) -> HostUsage {
        HostUsage { cpu_usage: 87.5, ram_usage: 56.25, uptime_seconds: 1_234_567 }
    }

    fn disk(&self) -> Disk {
        Disk {
            mount_point: "/".to_owned(),
            file_system: "ext4".to_owned(),
            total: 1_920_383_410_176,
            available: 1_120_383_410_176,
            device: Some("/dev/nvme0n1p2".to_owned()),
            inodes: None,
        }
    }

    fn gpu_status(&self) -> Vec<GpuStatus> {
        let steady = self.mood == Mood::Steady;
        let vary = |most: u32, by: u32| if steady { most } else { most - fastrand::u32(0..=by) };
        let gpu = |index: usize| GpuStatus {
            device_id: index.to_string(),
            utilization: Some(vary(97, 40)),
            memory_used: Some(81_234_567_168 - u64::from(!steady) * fastrand::u64(0..20_000_000_000)),
            temperature: Some(if self.mood == Mood::Hot && index == 0 { 93 } else { vary(71, 12) }),
            power_draw: Some(vary(689, 220)),
            status: GpuActivity::Active,
            health: self.finding().filter(|_| index == 0).map_or(Health::Ok, |finding| finding.health),
        };
        (0..self.gpus).map(gpu).collect()
    }

    fn gpu_details(&self) -> Vec<GpuDetail> {
        let mut details: Vec<_> = self.gpu_status().into_iter().map(GpuDetail::of).collect();
        if let (Some(first), Some(finding)) = (details.first_mut(), self.finding()) {
            first.findings = vec![finding];
        }
        details
    }

    /// What is wrong with the first GPU.
    fn finding(&self) -> Option<Finding> {
        let (health, reason, action) = match self.mood {
            Mood::Steady | Mood::Lively => return None,
            Mood::Hot => {
                (Health::Degraded, "it slows down because it is 93 °C hot", RecoveryAction::CheckCooling)
            }
            Mood::Broken => {
                (Health::Unhealthy, "Xid 79: the GPU has fallen off the bus", RecoveryAction::Reboot)
            }
        };
        Some(Finding { health, reason: reason.to_owned(), action })
    }

    fn health(&self) -> HealthSummary {
        self.finding().map_or_else(HealthSummary::default, |finding| HealthSummary {
            state: finding.health,
            worst: Some(format!("GPU 0: {}", finding.reason)),
            action: finding.action,
        })
    }
}

fn text(body: &impl Body) -> String {
    let now = Timestamp::from(std::time::SystemTime::now());
    encode(body, Uuid::now_v7(), now)
        .unwrap_or_else(|error| unreachable!("plain structures are JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_of_eight_gpus_fits_into_a_kibibyte() {
        let words = Words::new(NodeId::from_bytes([1; 12]), 8);
        assert!((700..=1024).contains(&words.heartbeat(123_456).len()));
    }
}
