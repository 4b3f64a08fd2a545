//! What a process has cost so far, as the kernel counts it.

use std::{fs, time::Duration};

use anyhow::{Context, Result};

/// Resident memory of a process, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    Ok(kib.with_context(|| format!("no VmRSS in {path}"))? * 1024)
}

/// Processor time of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessorTime {
    /// In its own code.
    pub user: Duration,
    /// In the kernel, on its behalf.
    pub system: Duration,
}

impl ProcessorTime {
    /// Both.
    pub fn total(self) -> Duration {
        self.user + self.system
    }

    /// The same done to both.
    pub(crate) fn map(self, change: impl Fn(Duration) -> Duration) -> Self {
        Self { user: change(self.user), system: change(self.system) }
    }

    /// What this has more than `less`.
    pub(crate) fn above(self, less: Self) -> Self {
        Self { user: self.user.saturating_sub(less.user), system: self.system.saturating_sub(less.system) }
    }
}

/// Processor time of a process so far.
pub(crate) fn processor_time(pid: u32) -> Result<ProcessorTime> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The second field is the program's name in parentheses, and may hold spaces. utime and stime
    // are the 14th and 15th.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_ascii_whitespace()).context("no name")?;
    let mut ticks = fields.skip(11).map(str::parse::<u64>);
    let ticks_per_second = u32::try_from(rustix::param::clock_ticks_per_second())?;
    let mut next = || -> Result<Duration> {
        let ticks = ticks.next().context("too few fields")??;
        Ok(Duration::from_secs(ticks) / ticks_per_second)
    };
    Ok(ProcessorTime { user: next()?, system: next()? })
}

/// Lets this process, and those that it starts, open as many sockets as the machine allows; says
/// how many that is.
pub(crate) fn raise_the_limit_of_open_files() -> Result<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("cannot raise the limit")?;
    Ok(maximum.unwrap_or(u64::MAX))
}
