//! A worker's `telemetry.metrics` in as little memory as it takes: ten thousand of them are kept. Lists of
//! sensors and processes are left out. What the worker did not say stays unsaid.

use std::sync::Arc;

use aio_protocol::{
    container::Container,
    ids::NodeId,
    inventory::{Disk, PcieLink},
    left_out::LeftOut,
    telemetry::{
        DiskTraffic, EccErrors, Finding, GpuActivity, GpuDetail, GpuStatus, Health, HostUsage,
        MachineProblem, NetworkTraffic, RemappedRows, RetiredPages,
    },
    time::Timestamp,
    wire::Metrics,
};

use super::device::Device;

/// File systems of a machine that are kept.
const MAX_DISKS: usize = 16;

/// What a machine measured.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reading {
    /// When the controller received it.
    pub at: Timestamp,
    pub host: HostUsage,
    pub memory_used: u64,
    pub memory_cached: Option<u64>,
    pub disks: Box<[Disk]>,
    pub disk_traffic: Option<DiskTraffic>,
    pub network: NetworkTraffic,
    pub load_average: Option<[f32; 3]>,
    pub gpus: Box<[GpuReading]>,
    /// Nothing where the worker does not look.
    pub containers: Option<Box<[Container]>>,
    /// How many others the worker did not tell of.
    pub containers_left_out: u32,
    /// What is wrong with the machine itself; nothing where its worker does not judge.
    pub problems: Option<Box<[MachineProblem]>>,
}

/// What a GPU measured.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GpuReading {
    pub device: Device,
    /// Bytes.
    pub memory_used: Option<u64>,
    /// Percent.
    pub utilization: Option<u8>,
    /// °C.
    pub temperature: Option<u16>,
    /// °C.
    pub memory_temperature: Option<u16>,
    /// °C.
    pub temperature_margin: Option<i16>,
    /// Watts.
    pub power_draw: Option<u16>,
    /// Watts.
    pub power_limit: Option<u16>,
    /// MHz.
    pub clock_sm: Option<u16>,
    /// MHz.
    pub clock_memory: Option<u16>,
    pub nvlinks: Option<u16>,
    pub activity: GpuActivity,
    pub health: Health,
    pub detail: Arc<Detail>,
}

/// What is mostly the same on all GPUs of a machine: kept once for all that share it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Detail {
    pub pcie: Option<PcieLink>,
    pub findings: Box<[Finding]>,
    pub throttle: Box<[Box<str>]>,
    pub ecc_errors: Option<EccErrors>,
    pub remapped_rows: Option<RemappedRows>,
    pub retired_pages: Option<RetiredPages>,
}

impl Reading {
    pub(crate) fn of(metrics: &Metrics, at: Timestamp) -> Self {
        let mut details = Vec::new();
        Self {
            at,
            host: metrics.host,
            memory_used: metrics.memory_used,
            memory_cached: metrics.memory_cached,
            // What a file system lies on is the inventory's to say.
            disks: metrics
                .disk
                .iter()
                .take(MAX_DISKS)
                .map(|disk| Disk { device: None, ..disk.clone() })
                .collect(),
            disk_traffic: metrics.disk_traffic,
            network: metrics.network,
            load_average: metrics.load_average,
            gpus: metrics.gpu.iter().map(|gpu| GpuReading::of(gpu, &mut details)).collect(),
            containers: metrics.containers.as_deref().map(Into::into),
            containers_left_out: metrics.left_out.containers,
            problems: metrics.problems.as_deref().map(Into::into),
        }
    }

    /// As the worker told it.
    pub(crate) fn told(self, node: NodeId) -> Metrics {
        Metrics {
            node_id: node,
            host: self.host,
            memory_used: self.memory_used,
            memory_cached: self.memory_cached,
            disk: self.disks.into_vec(),
            disk_traffic: self.disk_traffic,
            network: self.network,
            load_average: self.load_average,
            temperature: Vec::new(),
            gpu: self.gpus.into_iter().map(GpuReading::told).collect(),
            containers: self.containers.map(<[_]>::into_vec),
            problems: self.problems.map(<[_]>::into_vec),
            left_out: LeftOut { containers: self.containers_left_out, ..LeftOut::default() },
        }
    }
}

/// No GPU has a number that is larger.
fn short(number: u32) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

impl GpuReading {
    /// `details` are those of the machine's other GPUs, and get this one's.
    fn of(gpu: &GpuDetail, details: &mut Vec<Arc<Detail>>) -> Self {
        let GpuStatus { device_id, utilization, memory_used, temperature, power_draw, status, health } =
            &gpu.status;
        Self {
            device: Device::of(device_id),
            memory_used: *memory_used,
            utilization: utilization.map(|share| u8::try_from(share.min(100)).unwrap_or(100)),
            temperature: temperature.map(short),
            memory_temperature: gpu.memory_temperature.map(short),
            temperature_margin: gpu
                .temperature_margin
                .map(|it| i16::try_from(it).unwrap_or(if it < 0 { i16::MIN } else { i16::MAX })),
            power_draw: power_draw.map(short),
            power_limit: gpu.power_limit.map(short),
            clock_sm: gpu.clock_sm.map(short),
            clock_memory: gpu.clock_memory.map(short),
            nvlinks: gpu.nvlinks.map(short),
            activity: *status,
            health: *health,
            detail: Detail::of(gpu).shared(details),
        }
    }

    fn told(self) -> GpuDetail {
        let status = GpuStatus {
            device_id: self.device.to_string(),
            utilization: self.utilization.map(u32::from),
            memory_used: self.memory_used,
            temperature: self.temperature.map(u32::from),
            power_draw: self.power_draw.map(u32::from),
            status: self.activity,
            health: self.health,
        };
        let Detail { pcie, findings, throttle, ecc_errors, remapped_rows, retired_pages } =
            Arc::unwrap_or_clone(self.detail);
        GpuDetail {
            findings: findings.into_vec(),
            memory_temperature: self.memory_temperature.map(u32::from),
            temperature_margin: self.temperature_margin.map(i32::from),
            power_limit: self.power_limit.map(u32::from),
            clock_sm: self.clock_sm.map(u32::from),
            clock_memory: self.clock_memory.map(u32::from),
            throttle: throttle.into_iter().map(String::from).collect(),
            ecc_errors,
            remapped_rows,
            retired_pages,
            pcie,
            nvlinks: self.nvlinks.map(u32::from),
            ..GpuDetail::of(status)
        }
    }
}

impl Detail {
    fn of(gpu: &GpuDetail) -> Self {
        Self {
            pcie: gpu.pcie,
            findings: gpu.findings.as_slice().into(),
            throttle: gpu.throttle.iter().map(|word| word.as_str().into()).collect(),
            ecc_errors: gpu.ecc_errors,
            remapped_rows: gpu.remapped_rows,
            retired_pages: gpu.retired_pages,
        }
    }

    /// The equal one among the known, or this as one more.
    fn shared(self, known: &mut Vec<Arc<Self>>) -> Arc<Self> {
        if let Some(equal) = known.iter().find(|it| ***it == self) {
            return equal.clone();
        }
        let new = Arc::new(self);
        known.push(new.clone());
        new
    }
}
