//! The figures of a run, and the table that shows them beside what is demanded.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::usage::ProcessorTime;

/// What was measured.
#[derive(Debug, Clone)]
pub struct Report {
    /// How many workers.
    pub workers: u64,
    /// GPUs of each.
    pub gpus: usize,
    /// Over TLS, or in the clear.
    pub tls: bool,
    /// Between two heartbeats of a worker while they were measured.
    pub pace: Duration,
    /// Resident memory of a server without a single node.
    pub empty_bytes: u64,
    /// With all workers connected and silent.
    pub connected_bytes: u64,
    /// The same after the restart, and a lease of ordinary talk.
    pub restarted_bytes: u64,
    /// From the first dial to the last welcome.
    pub connected_in: Duration,
    /// From the first dial to the last event in NOTI.
    pub delivered_in: Duration,
    /// Processor time per second while all are connected and silent.
    pub idle: ProcessorTime,
    /// Heartbeats that were measured without pings.
    pub beats: u64,
    /// Processor time of one.
    pub beat_cost: ProcessorTime,
    /// Heartbeats that were measured with a ping behind each, as the daemon sends it.
    pub pinged_beats: u64,
    /// Processor time of one, its ping and its pong.
    pub pinged_beat_cost: ProcessorTime,
    /// Pongs to those.
    pub pongs: u64,
    /// From the kill to the new server's listening.
    pub listening_in: Duration,
    /// From the kill to the last welcome.
    pub back_in: Duration,
    /// Workers that were online a whole lease after that.
    pub online_after_lease: u64,
    /// `node.disconnected` events of the whole run: each is a false one.
    pub disconnected: u64,
    /// `node.connected` events of the whole run: one per worker, because nobody was ever offline.
    pub connected: u64,
    /// What went wrong on the way, and how often.
    pub setbacks: BTreeMap<String, u64>,
}

impl Report {
    /// Resident memory per worker above the empty server, before the kill.
    pub fn bytes_per_worker(&self) -> u64 {
        self.connected_bytes.saturating_sub(self.empty_bytes) / self.workers.max(1)
    }

    /// The same after the restart.
    pub fn bytes_per_worker_restarted(&self) -> u64 {
        self.restarted_bytes.saturating_sub(self.empty_bytes) / self.workers.max(1)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kib = |bytes: u64| format!("{:.2} KiB", bytes as f64 / 1024.0);
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let cost = |time: ProcessorTime| {
            let (all, kernel) = (micros(time.total()), micros(time.system));
            format!("{all:.1} µs, of which the kernel {kernel:.1}")
        };
        let secs = |time: Duration| format!("{:.1} s", time.as_secs_f64());
        let memory = if self.tls { "≤ 10 KiB (aim 8)" } else { "≤ 8 KiB (aim 6)" };
        let way = if self.tls { "over TLS" } else { "in the clear" };
        let rows = [
            ("workers, GPUs of each", format!("{}, {}; {way}", self.workers, self.gpus), ""),
            ("empty server", kib(self.empty_bytes), ""),
            ("memory per worker", kib(self.bytes_per_worker()), memory),
            ("  after the restart and a lease", kib(self.bytes_per_worker_restarted()), memory),
            ("processor per heartbeat", cost(self.beat_cost), "≤ 28 µs (aim 15)"),
            ("  with its ping and pong", cost(self.pinged_beat_cost), ""),
            ("  heartbeats measured", format!("{} + {}", self.beats, self.pinged_beats), ""),
            ("  at a pace of", secs(self.pace), ""),
            ("  all connected and silent", format!("{} each second", cost(self.idle)), ""),
            ("all connected in", secs(self.connected_in), ""),
            ("  all events in NOTI in", secs(self.delivered_in), ""),
            ("all back after SIGKILL in", secs(self.back_in), "≤ 30 s"),
            ("  of which starting", secs(self.listening_in), ""),
            ("online a lease later", self.online_after_lease.to_string(), "all"),
            ("false offlines", self.disconnected.to_string(), "0"),
        ];
        writeln!(f, "| what | measured | demanded |\n|---|---|---|")?;
        for (what, measured, demanded) in rows {
            writeln!(f, "| {what} | {measured} | {demanded} |")?;
        }
        for (what, count) in &self.setbacks {
            writeln!(f, "{count:>7} × {what}")?;
        }
        Ok(())
    }
}
