//! The machine's GPUs. Every call may hang for ever in the driver, so whoever calls does it on a thread of its own, with a deadline.

mod nvml;
mod watch;

use aio_protocol::{
    inventory::{Gpu, GpuDriver},
    telemetry::{GpuActivity, GpuStatus, Health},
};

pub use nvml::NvmlProbe;
pub use watch::GpuWatcher;

/// Everything that the driver told in one probe.
#[derive(Debug, Clone, PartialEq)]
pub struct GpuReport {
    /// What it said of itself.
    pub driver: GpuDriver,
    /// The GPUs; empty unless the driver answers, or did before.
    pub gpus: Vec<Gpu>,
    /// Their readings, in the same order.
    pub status: Vec<GpuStatus>,
}

/// The status of a GPU of which the driver says nothing.
fn silent(device_id: &str) -> GpuStatus {
    GpuStatus {
        device_id: device_id.to_owned(),
        utilization: None,
        memory_used: None,
        temperature: None,
        power_draw: None,
        status: GpuActivity::Unknown,
        health: Health::Unknown,
    }
}

/// Something that knows GPUs.
pub trait GpuProbe: Send + 'static {
    /// Asks the driver for everything. Never fails: what it does not say is absent, and why stands in the report.
    fn probe(&mut self) -> GpuReport;
}
