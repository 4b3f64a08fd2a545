//! The machine's containers, looked at every minute. Says in the log when looking does not end, and when
//! something is wrong with one.

use std::{collections::BTreeMap, time::Duration};

use aio_host::cgroups::{ContainerProbe, Groups};
use aio_protocol::{
    container::{Container, ContainerProblem},
    telemetry::GpuDetail,
};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{LEAD, PATIENCE, blocking_probe::BlockingProbe};
use crate::{
    containers::{Containers, History},
    tally::Tally,
};

/// How often they are looked at.
const INTERVAL: Duration = Duration::from_secs(60);

/// Looks at containers when they are due.
pub(super) struct Watch {
    probe: BlockingProbe<Box<dyn ContainerProbe>, Groups>,
    history: History,
    looked_at: Option<Instant>,
    /// Looks in a row that did not end in time.
    unanswered: Tally,
    wrong: BTreeMap<String, Vec<ContainerProblem>>,
}

/// What came of looking.
pub(super) enum Look {
    /// It is not time yet.
    NotDue,
    /// It did not end in time.
    Silent,
    /// What is there.
    Seen(Groups),
}

impl Watch {
    pub(super) fn new(probe: Box<dyn ContainerProbe>) -> Self {
        let probe = BlockingProbe::new(probe, |probe| probe.groups());
        let history = History::default();
        Self { probe, history, looked_at: None, unanswered: Tally::default(), wrong: BTreeMap::new() }
    }

    /// Looks, if it is time.
    pub(super) async fn due(&mut self, now: Instant) -> Look {
        if self.looked_at.is_some_and(|last| now + LEAD < last + INTERVAL) {
            return Look::NotDue;
        }
        match self.probe.ask(PATIENCE).await {
            Some(groups) => {
                self.looked_at = Some(now);
                if self.unanswered.clear() > 0 {
                    info!("containers can be looked at again");
                }
                Look::Seen(groups)
            }
            None => {
                if let Some(count) = self.unanswered.count() {
                    warn!(count, "looking at containers does not end; nothing is told of them");
                }
                Look::Silent
            }
        }
    }

    /// What groups that were looked at now mean, on a machine whose GPUs are these.
    pub(super) fn judge(&mut self, groups: &Groups, gpus: &[GpuDetail], now: Instant) -> Containers {
        let containers = self.history.seen(groups, gpus, now.into_std());
        self.compare(&containers.told);
        containers
    }

    /// Logs what has gone wrong with a container, and what is over.
    fn compare(&mut self, told: &[Container]) {
        let wrong: BTreeMap<_, _> = told
            .iter()
            .filter(|container| !container.problems.is_empty())
            .map(|container| (container.title(), container.problems.clone()))
            .collect();
        for (container, problems) in &wrong {
            let before = self.wrong.get(container).map(Vec::as_slice).unwrap_or_default();
            for problem in problems.iter().filter(|problem| !before.contains(problem)) {
                warn!(container, "the container {container}: {}", problem.in_words());
            }
        }
        for container in self.wrong.keys().filter(|container| !wrong.contains_key(*container)) {
            info!(container, "the container {container} is well again, or gone");
        }
        self.wrong = wrong;
    }
}
