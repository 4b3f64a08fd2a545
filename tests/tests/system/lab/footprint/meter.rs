//! What a service costs its machine between two moments: as the kernel counts it, threads that came
//! and went included.

use std::{
    fs,
    time::{Duration, Instant},
};

use aio_tests::{lab::Machine, worker::status_field};
use anyhow::{Context, Result};

/// A service that is being measured.
#[derive(Debug)]
pub(super) struct Meter {
    unit: String,
    pid: u32,
    began: Instant,
    before: Counters,
}

/// What it cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    /// Memory in use, in KiB, what is shared with others included.
    pub(super) resident: u64,
    /// The same, what is shared counted for its part.
    pub(super) proportional: u64,
    /// Of one core, in percent.
    pub(super) share: f64,
    /// At the end.
    pub(super) threads: u32,
    /// How often a thread of it began to run after it had waited, in a minute. Of threads that live
    /// for a moment, this is unknown.
    pub(super) wakeups: f64,
}

#[derive(Debug, Clone, Copy)]
struct Counters {
    processor: Duration,
    waits: u64,
}

impl Meter {
    /// Begins to measure.
    pub(super) fn begin(machine: &Machine, unit: &str) -> Result<Self> {
        let pid = machine.host_pid(&machine.unit_property(unit, "MainPID")?)?;
        let (unit, began) = (unit.to_owned(), Instant::now());
        Ok(Self { before: Counters::of(machine, &unit, pid)?, unit, pid, began })
    }

    /// What it cost since it was begun.
    pub(super) fn read(&self, machine: &Machine) -> Result<Cost> {
        let after = Counters::of(machine, &self.unit, self.pid)?;
        let seconds = self.began.elapsed().as_secs_f64();
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid))?;
        let waits = u32::try_from(after.waits.saturating_sub(self.before.waits))?;
        Ok(Cost {
            resident: status_field(&status, "VmRSS")?.parse()?,
            proportional: status_field(&rollup, "Pss")?.parse()?,
            share: 100.0 * after.processor.saturating_sub(self.before.processor).as_secs_f64() / seconds,
            threads: status_field(&status, "Threads")?.parse()?,
            wakeups: f64::from(waits) * 60.0 / seconds,
        })
    }
}

impl Counters {
    fn of(machine: &Machine, unit: &str, pid: u32) -> Result<Self> {
        // The cgroup's, not the process's: what a thread has used is not lost with it, and it is exact.
        let group = machine.unit_property(unit, "ControlGroup")?;
        let roots = "/sys/fs/cgroup /sys/fs/cgroup/unified";
        let script = format!("for root in {roots}; do cat $root{group}/cpu.stat 2>/dev/null && break; done");
        let statistics = machine.sh(&script).read()?;
        let micros = statistics.lines().find_map(|line| line.strip_prefix("usage_usec "));
        let micros = micros.with_context(|| format!("no usage in cpu.stat of {group}: {statistics}"))?;
        let mut waits = 0;
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            // One that is gone meanwhile counts nothing.
            let status = fs::read_to_string(thread?.path().join("status")).unwrap_or_default();
            waits +=
                status_field(&status, "voluntary_ctxt_switches").map_or(Ok(0), |text| text.parse::<u64>())?;
        }
        Ok(Self { processor: Duration::from_micros(micros.parse()?), waits })
    }
}
