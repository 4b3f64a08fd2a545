//! The machine's GPUs. Every call may hang for ever in the driver, so whoever calls does it on a thread of its own, with a deadline.

use aio_protocol::{
    inventory::{Gpu, GpuDriver},
    telemetry::GpuStatus,
};

/// Everything that the driver told in one probe.
#[derive(Debug, Clone, PartialEq)]
pub struct GpuReport {
    /// What it said of itself.
    pub driver: GpuDriver,
    /// The GPUs; empty unless the driver answered.
    pub gpus: Vec<Gpu>,
    /// Their readings, in the same order.
    pub status: Vec<GpuStatus>,
}

/// Something that knows GPUs.
pub trait GpuProbe: Send + 'static {
    /// Asks the driver for everything. Never fails: what it does not say is absent, and why stands in the report.
    fn probe(&mut self) -> GpuReport;
}
