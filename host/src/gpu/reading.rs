//! What the driver says of one GPU at one moment: the numbers that are told on, and those that only
//! a judgement is made of.

use std::time::Duration;

use aio_protocol::{
    telemetry::{GpuActivity, GpuDetail, RecoveryAction},
    time::Timestamp,
};

/// One GPU at one moment. An absent value is one that the driver did not say.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// What is told on. Its health is `unknown` until somebody has judged it, and there are no findings yet.
    pub detail: GpuDetail,
    /// The driver has said that it cannot reach it.
    pub gone: Option<Gone>,
    /// How long heat has slowed it down, since the driver was loaded.
    pub thermal_slowdown: Option<Duration>,
    /// How long its power limit has slowed it down, since the driver was loaded.
    pub power_slowdown: Option<Duration>,
    /// Millijoules since the driver was loaded: less than before means that the driver was loaded
    /// again, or the GPU reset.
    pub energy: Option<u64>,
    /// What the driver itself says that it needs (since 555).
    pub recovery_action: Option<RecoveryAction>,
    /// How it stands in the fabric that connects GPUs through switches, if it is made for one.
    pub fabric: Option<Fabric>,
}

/// Why a GPU cannot be asked, as NVML says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gone {
    /// It has fallen off the bus.
    Lost,
    /// It needs a reset before it can be used.
    ResetRequired,
    /// Its external power cables are not attached properly.
    InsufficientPower,
    /// The kernel found a problem with its interrupts.
    InterruptIssue,
    /// The worker's user may not use its device.
    NoPermission,
    /// The operating system blocks its device, e.g. by a control group.
    Blocked,
    /// The driver's library and its kernel module have different versions.
    VersionMismatch,
    /// Its configuration memory (infoROM) is corrupted.
    CorruptedInfoRom,
    /// The driver met an error of its own.
    DriverError,
    /// Anything else, in the words of the library.
    Failed(String),
}

/// How a GPU stands in the fabric that connects GPUs through switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fabric {
    /// The fabric's manager has not begun with it.
    NotStarted,
    /// The fabric's manager is at it.
    InProgress,
    /// It is connected.
    Connected,
    /// The fabric's manager has given up, with this NVML error.
    Failed(u32),
}

/// An error that the driver told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XidEvent {
    /// Counts up by one from 1, so that who reads knows what is new.
    pub sequence: u64,
    /// When it was heard of.
    pub at: Timestamp,
    /// Which GPU it is about; absent when the driver could not say any more.
    pub uuid: Option<String>,
    /// NVIDIA's number for it.
    pub code: u64,
}

impl Reading {
    /// A GPU of which the driver says nothing.
    pub fn silent(device_id: impl Into<String>) -> Self {
        Self::of(GpuDetail::unknown(device_id))
    }

    /// A GPU of which only this is known.
    pub fn of(detail: GpuDetail) -> Self {
        Self {
            detail,
            gone: None,
            thermal_slowdown: None,
            power_slowdown: None,
            energy: None,
            recovery_action: None,
            fabric: None,
        }
    }

    /// Whether the driver answers for it.
    pub fn answers(&self) -> bool {
        self.detail.status.status == GpuActivity::Active
    }
}
