//! Whether the GPUs are well. Pure: the driver's reports come in, what people and the controller
//! are told goes out. `unknown` is never `ok`: a driver that is absent, silent or sees no GPU is
//! told as such. Asks no driver and writes no file.

mod damping;
mod findings;
mod memory;
mod roster;
mod slowdown;
mod summary;
mod thresholds;
mod xid;
mod xids;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Instant};

use aio_host::gpu::{GpuReport, Reading};
use aio_protocol::{
    inventory::{Gpu, GpuDriver, GpuDriverState},
    telemetry::{Finding, GpuDetail, Health, HealthSummary},
    time::Timestamp,
};

pub use memory::{Memory, RememberedXid};
pub use summary::{LONGEST, summary};
pub use thresholds::{OutOfRange, Thresholds};

use damping::Damped;
use findings::{Evidence, findings};
use roster::Roster;
use slowdown::Slowdown;
use xids::Xids;

/// The GPUs as they are told.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// What the driver said of itself.
    pub driver: GpuDriver,
    /// The GPUs that are here.
    pub gpus: Vec<Gpu>,
    /// Those that were here before and are not any more.
    pub missing: Vec<Gpu>,
    /// Readings, health and findings, in the order of `gpus`.
    pub details: Vec<GpuDetail>,
    /// The worst of all.
    pub summary: HealthSummary,
}

impl Judged {
    /// Before the driver has said anything.
    pub fn not_asked() -> Self {
        let driver = GpuDriver {
            state: GpuDriverState::Unknown,
            reason: Some("the GPU driver has not been asked yet".to_owned()),
            version: None,
            cuda_version: None,
        };
        let summary = summary(&driver, &[], &[], None);
        Self { driver, gpus: vec![], missing: vec![], details: vec![], summary }
    }

    /// Whether others would be told the same of the GPUs' health. Numbers that change by themselves
    /// are nobody's news.
    pub fn same_health(&self, other: &Self) -> bool {
        let healths = |judged: &Self| -> Vec<(String, Health, Vec<Finding>)> {
            let of = |detail: &GpuDetail| {
                (detail.status.device_id.clone(), detail.status.health, detail.findings.clone())
            };
            judged.details.iter().map(of).collect()
        };
        self.summary == other.summary && healths(self) == healths(other)
    }
}

/// Something that people want to know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A GPU's health is another than before.
    Changed {
        /// Which, as people call it.
        gpu: String,
        /// What it was.
        from: Health,
        /// What it is.
        to: Health,
        /// Why, the worst first.
        findings: Vec<Finding>,
    },
    /// The driver told of an error.
    Xid {
        /// Which, as people call it.
        gpu: String,
        /// NVIDIA's number for it.
        code: u64,
        /// What it means.
        meaning: &'static str,
        /// Whether it says something about the GPU, and not about the program that used it.
        of_the_gpu: bool,
    },
    /// GPUs are gone, or are back.
    Missing(Vec<String>),
}

/// When a report came.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// By the clock that never jumps.
    pub now: Instant,
    /// By the clock on the wall.
    pub wall: Timestamp,
}

/// Judges one report after the other, and remembers what it needs for the next.
#[derive(Debug)]
pub struct Judge {
    thresholds: Thresholds,
    roster: Roster,
    xids: Xids,
    watched: BTreeMap<String, Watched>,
    missing: Vec<String>,
}

/// What is remembered of one GPU.
#[derive(Debug, Default)]
struct Watched {
    slowdown: Slowdown,
    damped: Damped,
}

impl Judge {
    /// A judge with what an earlier one remembered.
    pub fn new(thresholds: Thresholds, memory: Memory) -> Self {
        let Memory { boot_id, gpus, xids } = memory;
        Self {
            thresholds,
            roster: Roster::new(gpus),
            xids: Xids::new(boot_id, xids),
            watched: BTreeMap::new(),
            missing: vec![],
        }
    }

    /// Judges by these from now on.
    pub fn go_by(&mut self, thresholds: Thresholds) {
        self.thresholds = thresholds;
    }

    /// What the next judge has to know.
    pub fn memory(&self) -> Memory {
        let (boot_id, xids) = self.xids.memory();
        Memory { boot_id, gpus: self.roster.known().to_vec(), xids }
    }

    /// What the report means, and what of it is news. `boot_id` is the kernel's, when it is known.
    pub fn judge(&mut self, report: &GpuReport, boot_id: Option<&str>, at: Moment) -> (Judged, Vec<News>) {
        let roll = self.roster.compare(report, self.thresholds.expected_gpus);
        let mut news = self.xids.hear(report, &roll.gpus, boot_id, at.wall, &self.thresholds);
        let silent = |gpu: &Gpu| Reading::silent(gpu.device_id.clone());
        let mut details = vec![];
        for (index, gpu) in roll.gpus.iter().enumerate() {
            let reading = report.readings.get(index).cloned().unwrap_or_else(|| silent(gpu));
            let key = gpu.uuid.as_ref().or(gpu.pci_bus_id.as_ref()).unwrap_or(&gpu.device_id).clone();
            let watched = self.watched.entry(key.clone()).or_default();
            watched.slowdown.measure(&reading, at.now);
            let evidence = Evidence {
                gpu,
                reading: &reading,
                slowdown: &watched.slowdown,
                xids: self.xids.of(&key),
                thresholds: &self.thresholds,
            };
            let before = watched.damped.health();
            watched.damped.take(findings(&evidence), at.now, self.thresholds.recovery);
            let health = watched.damped.health().unwrap_or_default();
            if before.unwrap_or(Health::Ok) != health {
                news.push(News::Changed {
                    gpu: called(gpu),
                    from: before.unwrap_or(Health::Unknown),
                    to: health,
                    findings: watched.damped.findings().to_vec(),
                });
            }
            let mut detail = reading.detail;
            detail.status.health = health;
            detail.findings = watched.damped.findings().to_vec();
            details.push(detail);
        }
        let missing: Vec<_> = roll.missing.iter().map(called).collect();
        if missing != self.missing {
            news.push(News::Missing(missing.clone()));
            self.missing = missing;
        }
        let summary = summary(&report.driver, &details, &roll.missing, roll.expected);
        let driver = report.driver.clone();
        (Judged { driver, gpus: roll.gpus, missing: roll.missing, details, summary }, news)
    }
}

/// A GPU as people find it: where it sits, or what it is called by.
pub(crate) fn called(gpu: &Gpu) -> String {
    match (&gpu.pci_bus_id, &gpu.uuid) {
        (Some(bus), _) => format!("GPU {} ({} at {bus})", gpu.device_id, gpu.model),
        (None, Some(uuid)) => format!("GPU {} ({} {uuid})", gpu.device_id, gpu.model),
        (None, None) => format!("GPU {} ({})", gpu.device_id, gpu.model),
    }
}
