//! The machine's facts, read every minute. Says in the log which mounts do not answer, and that the
//! facts are old when reading them does not end.

use std::{sync::Arc, time::Duration};

use aio_host::facts::{HostFacts, HostProbe};
use aio_protocol::inventory::SilentMount;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{LEAD, PATIENCE, blocking_probe::BlockingProbe};
use crate::tally::Tally;

/// How often the facts are read.
const INTERVAL: Duration = Duration::from_secs(60);

/// Reads the facts when they are due.
pub(super) struct Survey {
    probe: BlockingProbe<Box<dyn HostProbe>, Arc<HostFacts>>,
    read_at: Option<Instant>,
    /// Readings in a row that did not end in time.
    unanswered: Tally,
    silent: Vec<SilentMount>,
}

impl Survey {
    pub(super) fn new(probe: Box<dyn HostProbe>) -> Self {
        let probe = BlockingProbe::new(probe, |probe| Arc::new(probe.facts()));
        Self { probe, read_at: None, unanswered: Tally::default(), silent: vec![] }
    }

    /// The facts, if they are due and can be read.
    pub(super) async fn due(&mut self, now: Instant) -> Option<Arc<HostFacts>> {
        if self.read_at.is_some_and(|last| now + LEAD < last + INTERVAL) {
            return None;
        }
        match self.probe.ask(PATIENCE).await {
            Some(facts) => {
                self.read_at = Some(now);
                if self.unanswered.clear() > 0 {
                    info!("what this machine is made of can be read again");
                }
                self.compare(&facts.silent_mounts);
                Some(facts)
            }
            None => {
                if let Some(count) = self.unanswered.count() {
                    let age = self.read_at.map_or(0, |last| now.duration_since(last).as_secs());
                    warn!(
                        count,
                        age_seconds = age,
                        "reading what this machine is made of does not end; what is told of it is old"
                    );
                }
                None
            }
        }
    }

    /// Logs which mounts have begun or ceased to be silent.
    fn compare(&mut self, silent: &[SilentMount]) {
        for SilentMount { mount_point, file_system } in silent {
            if !self.silent.iter().any(|known| known.mount_point == *mount_point) {
                warn!(
                    mount_point,
                    file_system, "{mount_point} ({file_system}) does not answer; its size is not told"
                );
            }
        }
        for SilentMount { mount_point, .. } in &self.silent {
            if !silent.iter().any(|now| now.mount_point == *mount_point) {
                info!(mount_point, "{mount_point} answers again, or is not mounted any more");
            }
        }
        self.silent = silent.to_vec();
    }
}
