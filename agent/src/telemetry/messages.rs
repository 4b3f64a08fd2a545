//! What readings become on the wire: `node.register`, `telemetry.heartbeat`, `telemetry.metrics`.
//! Pure; a heartbeat of eight GPUs stays small because numbers are rounded to what anybody can use.

use std::sync::Arc;

use aio_host::facts::{HostFacts, container_runtime_among};
use aio_protocol::{
    ids::NodeId,
    inventory::{Disk, Hardware, NetworkInterface, SilentMount, SystemInfo},
    left_out::LeftOut,
    release::build,
    telemetry::{GpuDetail, HostUsage},
    wire::{Heartbeat, Metrics, Register, WorkerState},
};
use uuid::Uuid;

use super::Readings;
use crate::health::Judged;

/// Entries of a heartbeat; no machine has more GPUs, and no reader takes more.
const MAX_GPUS: usize = 64;

/// Who speaks.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The node.
    pub node_id: NodeId,
    /// The very process.
    pub instance_id: Uuid,
}

impl Identity {
    /// `node.register`, short enough for a frame.
    pub fn register(&self, readings: &Readings) -> Register {
        let facts = readings.facts.clone().unwrap_or_default();
        Register {
            node_id: self.node_id.clone(),
            instance_id: self.instance_id,
            boot_id: facts.boot_id.clone(),
            daemon_version: build::number().to_owned(),
            capabilities: vec![],
            update: Default::default(),
            system_info: system_info(&facts, readings),
        }
        .fitted()
    }

    /// `telemetry.heartbeat`.
    pub fn heartbeat(&self, seq: u64, readings: &Readings) -> Heartbeat {
        Heartbeat {
            node_id: self.node_id.clone(),
            seq,
            status: WorkerState::Online,
            host: usage(readings),
            active_deployments: readings.containers.as_ref().map_or(0, |it| it.active),
            gpu_status: details(readings).iter().take(MAX_GPUS).map(|detail| detail.status.clone()).collect(),
            health: readings
                .gpu
                .as_ref()
                .map_or_else(|| Judged::not_asked().summary, |gpu| gpu.summary.clone()),
        }
    }

    /// `telemetry.metrics`; none before the machine's load is known.
    pub fn metrics(&self, readings: &Readings) -> Option<Metrics> {
        let load = readings.load.as_ref()?;
        let containers = readings.containers.as_deref().cloned();
        let left_out = containers.as_ref().map_or(0, |it| it.left_out);
        let metrics = Metrics {
            node_id: self.node_id.clone(),
            host: usage(readings),
            memory_used: load.memory_used,
            memory_cached: load.memory_cached,
            disk: readings.facts.as_ref().map(|facts| facts.disk.clone()).unwrap_or_default(),
            disk_traffic: load.disk_traffic,
            network: load.network,
            load_average: Some(load.load_average),
            temperature: load.temperatures.clone(),
            gpu: details(readings).to_vec(),
            containers: containers.map(|it| it.told),
            problems: readings.problems.as_deref().map(<[_]>::to_vec),
            left_out: LeftOut { containers: left_out, ..LeftOut::default() },
        };
        Some(metrics.fitted())
    }
}

/// What of the readings makes the inventory, with nothing in it that changes by itself: two of them
/// differ when the machine does.
#[derive(Debug, Clone, PartialEq)]
pub struct Inventory {
    steady: SystemInfo,
    /// What containers and their volumes may change all the time.
    links: Vec<NetworkInterface>,
    mounts: (Vec<Disk>, Vec<SilentMount>),
}

impl Inventory {
    /// The inventory of these readings.
    pub fn of(readings: &Readings) -> Self {
        let facts = readings.facts.clone().unwrap_or_default();
        let mut steady = system_info(&facts, readings);
        let hardware = &mut steady.hardware;
        let links = std::mem::take(&mut hardware.network);
        let mut disks = std::mem::take(&mut hardware.disk);
        disks.iter_mut().for_each(|disk| (disk.available, disk.inodes) = (0, None));
        let mounts = (disks, std::mem::take(&mut hardware.silent_mount));
        hardware.left_out = LeftOut::default();
        // The words may count seconds.
        hardware.gpu_driver.reason = None;
        Self { steady, links, mounts }
    }

    /// Whether only links and mounts are others: what a host of containers may change every second.
    pub fn differs_in_links_or_mounts_alone(&self, other: &Self) -> bool {
        self != other && self.steady == other.steady
    }
}

/// The machine as `node.register` tells it.
pub fn system_info(facts: &Arc<HostFacts>, readings: &Readings) -> SystemInfo {
    let judged = readings.gpu.as_deref().cloned().unwrap_or_else(Judged::not_asked);
    let report = readings.systemd.as_deref().cloned().unwrap_or_default();
    SystemInfo {
        os: facts.os.clone(),
        architecture: facts.architecture.clone(),
        hardware: Hardware {
            cpu: facts.cpu.clone(),
            memory: facts.memory,
            disk: facts.disk.clone(),
            silent_mount: facts.silent_mounts.clone(),
            network: facts.network.clone(),
            gpu: judged.gpus,
            missing_gpu: judged.missing,
            gpu_driver: judged.driver,
            left_out: LeftOut { network: facts.links_left_out, ..LeftOut::default() },
        },
        virtualization: report.virtualization,
        container_runtime: container_runtime_among(&report.services)
            .or_else(|| facts.container_runtime.clone()),
        name_servers: facts.name_servers.clone(),
        services: report.services,
    }
}

fn details(readings: &Readings) -> &[GpuDetail] {
    readings.gpu.as_ref().map(|gpu| gpu.details.as_slice()).unwrap_or_default()
}

fn usage(readings: &Readings) -> HostUsage {
    let usage = readings.load.as_ref().map(|load| load.usage).unwrap_or_default();
    HostUsage { cpu_usage: rounded(usage.cpu_usage), ram_usage: rounded(usage.ram_usage), ..usage }
}

/// A tenth of a percent is more than anybody reads.
fn rounded(percent: f32) -> f32 {
    if percent.is_finite() { (percent.clamp(0.0, 100.0) * 10.0).round() / 10.0 } else { 0.0 }
}

#[cfg(test)]
pub(crate) mod tests {
    use aio_host::facts::HostSample;
    use aio_protocol::{
        inventory::{Cpu, Gpu, GpuDriver, GpuDriverState, Memory, OperatingSystem},
        telemetry::{
            DiskTraffic, GpuActivity, GpuStatus, Health, HealthSummary, NetworkTraffic, RecoveryAction,
        },
        time::Timestamp,
        wire::encode,
    };

    use super::*;

    pub(crate) fn identity() -> Identity {
        Identity { node_id: "69396100cd71623c7bbfbfee".parse().unwrap(), instance_id: Uuid::max() }
    }

    /// A machine with so many GPUs, all of them at full numbers.
    pub(crate) fn full(gpus: usize) -> Readings {
        let facts = HostFacts {
            os: OperatingSystem {
                name: "Ubuntu".into(),
                version: "22.04".into(),
                kernel: "5.15".into(),
                hostname: "gpu-1".into(),
            },
            architecture: "x86_64".into(),
            cpu: Cpu { model: "EPYC".into(), cores: Some(64), threads: 128, ..Cpu::default() },
            memory: Memory { total: 1 << 40 },
            disk: vec![Disk {
                mount_point: "/".into(),
                file_system: "ext4".into(),
                total: 1 << 40,
                available: 1 << 39,
                device: Some("/dev/nvme0n1p2".into()),
                inodes: None,
            }],
            boot_id: Uuid::max().to_string(),
            ..HostFacts::default()
        };
        let load = HostSample {
            usage: HostUsage { cpu_usage: 99.987_65, ram_usage: 98.765_43, uptime_seconds: 31_536_000 },
            memory_used: 1 << 39,
            memory_cached: Some(1 << 38),
            network: NetworkTraffic::default(),
            disk_traffic: Some(DiskTraffic::default()),
            load_average: [1.0, 2.0, 3.0],
            temperatures: vec![],
        };
        let gpu = |index: usize| Gpu {
            device_id: index.to_string(),
            model: "NVIDIA H100".into(),
            memory_total: Some(85_899_345_920),
            ..Gpu::default()
        };
        let status = |index: usize| GpuStatus {
            device_id: index.to_string(),
            utilization: Some(100),
            memory_used: Some(85_899_345_920),
            temperature: Some(88),
            power_draw: Some(700),
            status: GpuActivity::Active,
            health: Health::Ok,
        };
        let driver = GpuDriver {
            state: GpuDriverState::Ok,
            reason: None,
            version: Some("550".into()),
            cuda_version: None,
        };
        Readings {
            facts: Some(Arc::new(facts)),
            load: Some(load),
            gpu: Some(Arc::new(Judged {
                driver,
                gpus: (0..gpus).map(gpu).collect(),
                missing: vec![],
                details: (0..gpus).map(status).map(GpuDetail::of).collect(),
                summary: HealthSummary::default(),
            })),
            containers: None,
            problems: None,
            systemd: None,
        }
    }

    fn beat(readings: &Readings) -> String {
        let beat = identity().heartbeat(10_000_000, readings);
        encode(&beat, Uuid::max(), Timestamp::from_millis(1_765_454_400_123)).unwrap()
    }

    #[test]
    fn a_heartbeat_of_eight_gpus_at_full_numbers_is_at_most_a_kibibyte() {
        let text = beat(&full(8));
        assert!(text.len() <= 1024, "{} bytes: {text}", text.len());
    }

    #[test]
    fn a_heartbeat_of_eight_gpus_that_all_fail_still_fits_into_one_segment() {
        let mut readings = full(8);
        let judged = Arc::make_mut(readings.gpu.as_mut().unwrap());
        judged.details.iter_mut().for_each(|detail| detail.status.health = Health::Unhealthy);
        let worst = Some("x".repeat(crate::health::LONGEST));
        let action = RecoveryAction::ContactSupport;
        judged.summary = HealthSummary { state: Health::Unhealthy, worst, action };
        let text = beat(&readings);
        // Of Ethernet's 1500 bytes IPv6, TCP with timestamps, TLS and WebSocket take 102.
        assert!(text.len() <= 1398, "{} bytes: {text}", text.len());
    }

    #[test]
    fn the_inventory_changes_with_the_machine_and_not_with_its_load() {
        let before = full(2);
        let mut busier = before.clone();
        let mut facts = HostFacts::clone(before.facts.as_ref().unwrap());
        facts.disk[0].available = 1;
        busier.facts = Some(Arc::new(facts));
        busier.load = None;
        assert_eq!(Inventory::of(&before), Inventory::of(&busier));
        assert_ne!(Inventory::of(&before), Inventory::of(&full(1)));
        assert!(!Inventory::of(&before).differs_in_links_or_mounts_alone(&Inventory::of(&full(1))));
        let mut bridged = before.clone();
        let mut facts = HostFacts::clone(before.facts.as_ref().unwrap());
        facts.links_left_out = 700;
        bridged.facts = Some(Arc::new(facts.clone()));
        assert_eq!(Inventory::of(&before), Inventory::of(&bridged));
        facts.network.push(NetworkInterface { name: "br-1".into(), ..NetworkInterface::default() });
        bridged.facts = Some(Arc::new(facts));
        assert!(Inventory::of(&before).differs_in_links_or_mounts_alone(&Inventory::of(&bridged)));
    }

    #[test]
    fn without_an_answer_of_the_driver_the_gpus_are_unknown_and_not_absent() {
        let readings = Readings { gpu: None, ..full(8) };
        let register = identity().register(&readings);
        assert_eq!(register.system_info.hardware.gpu_driver.state, GpuDriverState::Unknown);
        assert_eq!(identity().heartbeat(1, &readings).health.state, Health::Unknown);
        assert_eq!(identity().register(&Readings::default()).system_info.hardware.gpu.len(), 0);
    }

    #[test]
    fn percentages_stay_percentages() {
        for (given, told) in [(f32::NAN, 0.0), (-1.0, 0.0), (101.0, 100.0), (33.333_33, 33.3)] {
            assert_eq!(rounded(given), told);
        }
    }
}
