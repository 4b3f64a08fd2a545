//! The machine's GPUs: what the driver says of them, as it says it. Whether that is well is not
//! judged here. Every call may hang for ever in the driver, so whoever calls does it on a thread of
//! its own, with a deadline.

mod card;
mod nvml;
mod reading;
mod release;
mod watch;

use aio_protocol::inventory::{Gpu, GpuDriver};

pub use card::{is_same, name_the_silent};
pub use nvml::{NvmlProbe, RELEASED};
pub use reading::{Fabric, Gone, Reading, XidEvent};
pub use release::{LONGEST_RELEASE, Release};
pub use watch::{GpuWatcher, Inquiries, Inquiry};

/// Everything that the driver told in one probe.
#[derive(Debug, Clone, PartialEq)]
pub struct GpuReport {
    /// What it said of itself.
    pub driver: GpuDriver,
    /// The GPUs; empty unless the driver answers, or did before.
    pub gpus: Vec<Gpu>,
    /// Their readings, in the same order.
    pub readings: Vec<Reading>,
    /// The errors that it told of lately, the oldest first. A report that is overtaken by the next
    /// takes none with it: they stand in that one, too.
    pub xids: Vec<XidEvent>,
}

/// Something that knows GPUs.
pub trait GpuProbe: Send + 'static {
    /// Answers inquiries until they end, and tells unasked what cannot wait. Never fails: what the
    /// driver does not say is absent, and why stands in the report.
    fn serve(self, inquiries: &mut Inquiries);
}
