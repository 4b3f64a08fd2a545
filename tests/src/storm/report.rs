//! The figures of a storm, as a person reads them.

use std::{collections::BTreeMap, fmt, time::Duration};

/// What a storm came to. That nothing was lost or out of order is its being there at all.
#[derive(Debug, Clone)]
pub struct Report {
    /// Where chance began.
    pub seed: u64,
    /// Rows of the audit trail.
    pub transitions: usize,
    /// Events that NOTI has.
    pub kept: usize,
    /// Posts of events that NOTI had already.
    pub duplicates: usize,
    /// How often NOTI gave each answer.
    pub answers: BTreeMap<&'static str, usize>,
    /// How many controllers there were.
    pub controllers: usize,
    /// How often a node was welcomed by two controllers at once, and one let go of it.
    pub doubles: usize,
    /// How long each start after a kill or another mishap took.
    pub restarts: Vec<Duration>,
    /// How long the fleet took for its changes.
    pub changed: Duration,
    /// How long it took until NOTI had all events.
    pub delivered: Duration,
    /// The controller's time on the processor, when it was one process.
    pub processor_time: Option<Duration>,
    /// From asking for a change to NOTI's answer.
    pub latencies: Vec<Duration>,
}

impl Report {
    /// The latency that this share of all changes did not exceed.
    pub fn percentile(&self, share: f64) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let index = (sorted.len().saturating_sub(1)) as f64 * share;
        sorted.get(index.round() as usize).copied().unwrap_or_default()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.changed.as_secs_f64();
        writeln!(f, "seed          {}", self.seed)?;
        if self.controllers > 1 {
            let doubles = self.doubles;
            writeln!(
                f,
                "controllers   {}; of {doubles} nodes welcomed twice at once, each kept one socket",
                self.controllers
            )?;
        }
        writeln!(
            f,
            "transitions   {} in {seconds:.1} s ({:.0}/s)",
            self.transitions,
            self.transitions as f64 / seconds
        )?;
        writeln!(
            f,
            "delivered     {} events in {:.1} s; 0 lost, per-node order kept",
            self.kept,
            self.delivered.as_secs_f64()
        )?;
        writeln!(f, "duplicates    {}, each under its webhook-id", self.duplicates)?;
        let answers: Vec<_> = self.answers.iter().map(|(name, count)| format!("{name}: {count}")).collect();
        writeln!(f, "NOTI answered {}", answers.join(", "))?;
        if let Some(longest) = self.restarts.iter().max() {
            writeln!(
                f,
                "mishaps       {}; the longest start after one took {longest:.1?}",
                self.restarts.len()
            )?;
        } else {
            let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| self.percentile(share).as_secs_f64() * 1000.0);
            writeln!(f, "latency       p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.2} ms")?;
        }
        if let Some(used) = self.processor_time {
            let share = used.as_secs_f64() / self.delivered.as_secs_f64();
            let each = used.as_secs_f64() * 1e6 / self.transitions as f64;
            writeln!(
                f,
                "controller    {:.0} % of one processor, {each:.0} µs for each event",
                share * 100.0
            )?;
        }
        Ok(())
    }
}
