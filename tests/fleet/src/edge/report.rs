//! The figures of the attacks, beside what is demanded.

use std::{collections::BTreeMap, fmt, time::Duration};

use super::{EdgeScenario, LATEST_OFFLINE, SILENT_NODES, good::Noticed};

/// Above the memory of a controller that nobody attacks: answers may hold 256 MiB.
const MEMORY: u64 = 320 * 1024 * 1024;

/// What an attack did, and what was noticed of it.
#[derive(Debug, Clone)]
pub(crate) struct Phase {
    pub name: &'static str,
    pub good: Noticed,
    /// What the attackers count.
    pub did: BTreeMap<String, u64>,
    /// The most resident memory, in bytes.
    pub memory: u64,
    /// The most descriptors that were open.
    pub descriptors: usize,
    /// Of one processor.
    pub processor: f64,
    /// What was written to the log.
    pub log_bytes: u64,
}

/// What was measured.
#[derive(Debug, Clone)]
pub struct EdgeReport {
    /// What was run, and what is demanded.
    pub scenario: EdgeScenario,
    /// Connections that attackers still held at the end.
    pub held: usize,
    /// How long the controller was waited for to let go of them, and how many it still has.
    pub released: Option<(Duration, usize)>,
    /// How much later than after its lease a node counted as offline that fell silent beside many of another
    /// organisation's; none, and that was not looked at.
    pub late: Option<Duration>,
    /// Good workers that were said to be offline: each is a false one.
    pub disconnected: u64,
    pub(crate) phases: Vec<Phase>,
}

impl EdgeReport {
    /// Whatever is not as demanded.
    pub fn breaches(&self) -> Vec<String> {
        let calm = self.phases.first().map_or(0, |phase| phase.memory);
        let mut breaches = Vec::new();
        for Phase { name, good, did, memory, .. } in &self.phases {
            let mut demand = |holds: bool, what: String| {
                if !holds {
                    breaches.push(format!("{name}: {what}"));
                }
            };
            let p99 = good.quantile(0.99);
            demand(
                good.worst_beat <= self.scenario.latest_beat,
                format!("a heartbeat was late by {:?}", good.worst_beat),
            );
            demand(good.lost == 0, format!("{} good workers were disconnected", good.lost));
            demand(p99 <= self.scenario.p99, format!("99 % of the good requests took up to {p99:?}"));
            demand(good.failed_requests == 0, format!("{} good requests failed", good.failed_requests));
            demand(
                good.refused_arrivals == 0,
                format!("{} good arrivals were refused", good.refused_arrivals),
            );
            demand(*memory <= calm + MEMORY, format!("{} MiB of memory", memory >> 20));
            let cut = did.get("inactive and connected").copied().unwrap_or(0);
            demand(cut == 0, format!("{cut} revoked workers stayed connected"));
        }
        if self.disconnected > 0 {
            breaches.push(format!("{} false offlines", self.disconnected));
        }
        if let Some(late) = self.late.filter(|late| *late > LATEST_OFFLINE) {
            breaches.push(format!("A9: a silent node was offline {late:.1?} after its lease"));
        }
        if let Some((time, left @ 1..)) = self.released {
            breaches.push(format!("after {time:.0?} {left} connections of peers that do nothing are open"));
        }
        breaches
    }
}

impl fmt::Display for EdgeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| attack | worst heartbeat | p50 | p99 | failed | arrivals refused | memory | files | processor | log | the attackers |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|---|---|")?;
        for Phase { name, good, did, memory, descriptors, processor, log_bytes } in &self.phases {
            let millis = |time: Duration| format!("{:.0} ms", time.as_secs_f64() * 1000.0);
            let did: Vec<_> = did.iter().map(|(what, count)| format!("{count} {what}")).collect();
            writeln!(
                f,
                "| {name} | {} | {} | {} | {} of {} | {} of {} | {} MiB | {descriptors} | {:.0} % | {} KiB | {} |",
                millis(good.worst_beat),
                millis(good.quantile(0.5)),
                millis(good.quantile(0.99)),
                good.failed_requests,
                good.requests.len(),
                good.refused_arrivals,
                good.arrivals,
                memory >> 20,
                processor * 100.0,
                log_bytes >> 10,
                did.join(", "),
            )?;
        }
        writeln!(f, "\ngood workers: {}, false offlines: {}", self.scenario.workers, self.disconnected)?;
        if let Some((time, left)) = self.released {
            writeln!(f, "{} idle or unread connections: after {time:.1?} {left} are left", self.held)?;
        }
        if let Some(late) = self.late {
            writeln!(
                f,
                "A9: beside {SILENT_NODES} silent nodes of another organisation, a silent one was offline {late:.1?} after its lease"
            )?;
        }
        for breach in self.breaches() {
            writeln!(f, "BREACH {breach}")?;
        }
        Ok(())
    }
}
