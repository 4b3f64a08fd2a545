//! What the kernel says of this process, under the names that Prometheus' own clients give it.

use metrics::{Unit, describe_gauge, gauge};
use procfs::{
    ProcResult, WithCurrentSystemInfo,
    process::{LimitValue, Process},
};

pub(super) fn describe() {
    describe_gauge!("process_cpu_seconds_total", Unit::Seconds, "User and system time.");
    describe_gauge!("process_resident_memory_bytes", Unit::Bytes, "Memory that is in use.");
    describe_gauge!("process_virtual_memory_bytes", Unit::Bytes, "Memory that is mapped.");
    describe_gauge!("process_open_fds", "Open files and sockets.");
    describe_gauge!("process_max_fds", "How many there may be.");
    describe_gauge!("process_threads", "Threads.");
    describe_gauge!("process_start_time_seconds", Unit::Seconds, "When it started, since the Unix epoch.");
}

/// Reads them anew; what cannot be read keeps its last value.
pub(super) fn collect() {
    if let Err(error) = read() {
        tracing::debug!(%error, "the figures of the process cannot be read");
    }
}

/// Says in the figures as they are shown what the processor's time is.
pub(super) fn as_counter(figures: &str) -> String {
    figures.replace("# TYPE process_cpu_seconds_total gauge", "# TYPE process_cpu_seconds_total counter")
}

fn read() -> ProcResult<()> {
    let process = Process::myself()?;
    let stat = process.stat()?;
    let ticks = procfs::ticks_per_second() as f64;
    // A counter, whatever the recorder calls it: its own counters take whole numbers only. See `as_counter`.
    gauge!("process_cpu_seconds_total").set((stat.utime + stat.stime) as f64 / ticks);
    gauge!("process_resident_memory_bytes").set(stat.rss_bytes().get() as f64);
    gauge!("process_virtual_memory_bytes").set(stat.vsize as f64);
    gauge!("process_threads").set(stat.num_threads as f64);
    gauge!("process_open_fds").set(process.fd_count()? as f64);
    gauge!("process_max_fds").set(match process.limits()?.max_open_files.soft_limit {
        LimitValue::Value(limit) => limit as f64,
        LimitValue::Unlimited => f64::INFINITY,
    });
    gauge!("process_start_time_seconds")
        .set(procfs::boot_time_secs()? as f64 + stat.starttime as f64 / ticks);
    Ok(())
}
