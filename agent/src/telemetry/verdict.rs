//! The judge of the GPUs' health at work: gives it the driver's reports, logs what is news, and
//! keeps what it has to remember. Judges nothing itself.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Instant, SystemTime},
};

use aio_host::{facts::HostFacts, files::FileError, gpu::GpuReport};
use aio_protocol::telemetry::{Health, MachineProblem};
use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_blocking},
};
use tracing::{info, warn};

use crate::{
    config::WorkerConfig,
    health::{Judge, Judged, Memory, Moment, News},
    limits::{Limits, Measured},
    tally::Tally,
};

/// The judge at work.
#[derive(Debug)]
pub(crate) struct Verdicts {
    judge: Judge,
    limits: Limits,
    configs: watch::Receiver<Arc<WorkerConfig>>,
    /// What the state folder holds, as far as is known.
    saved: Memory,
    saving: Option<JoinHandle<Result<Memory, FileError>>>,
    unsaved: Tally,
    xids: HashMap<(String, u64), Tally>,
}

impl Verdicts {
    /// A judge who remembers what is in the state folder, and goes by the thresholds that are in force.
    pub(crate) fn new(configs: watch::Receiver<Arc<WorkerConfig>>) -> Self {
        let config = configs.borrow().clone();
        let saved = Memory::load(&config.state_dir);
        Self {
            judge: Judge::new(config.health.clone(), saved.clone()),
            limits: Limits::default(),
            configs,
            saved,
            saving: None,
            unsaved: Tally::default(),
            xids: HashMap::new(),
        }
    }

    /// What the report means.
    pub(super) async fn of(&mut self, report: &GpuReport, facts: Option<&HostFacts>) -> Judged {
        self.judge.go_by(self.configs.borrow_and_update().health.clone());
        let boot_id = facts.map(|facts| facts.boot_id.as_str()).filter(|id| !id.is_empty());
        let (judged, news) = self.judge.judge(report, boot_id, now());
        for news in news {
            self.log(news);
        }
        self.keep().await;
        judged
    }

    /// What is wrong with the machine itself.
    pub(super) fn of_machine(&mut self, measured: Measured<'_>) -> Vec<MachineProblem> {
        let health = self.configs.borrow().health.clone();
        self.limits.judge(measured, &health, Instant::now())
    }

    /// Waits until it is to judge by something else; for ever when nobody can say so any more.
    pub(super) async fn reloaded(&mut self) {
        if self.configs.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Saves what has changed, off the loop: a disk that hangs delays no reading.
    async fn keep(&mut self) {
        if self.saving.as_ref().is_some_and(|saving| !saving.is_finished()) {
            return;
        }
        if let Some(saving) = self.saving.take() {
            match saving.await {
                Ok(Ok(saved)) => {
                    self.saved = saved;
                    self.unsaved.clear();
                }
                Ok(Err(error)) => {
                    if let Some(count) = self.unsaved.count() {
                        warn!(count, %error, reason = %error.source, "what is to be remembered of the GPUs could not be saved");
                    }
                }
                Err(error) => warn!(%error, "saving what is to be remembered of the GPUs broke"),
            }
        }
        let memory = self.judge.memory();
        if memory != self.saved {
            let config = self.configs.borrow().clone();
            self.saving = Some(spawn_blocking(move || memory.save(&config.state_dir).map(|()| memory)));
        }
    }

    fn log(&mut self, news: News) {
        match news {
            News::Changed { gpu, from, to, findings } => {
                let reasons: Vec<_> = findings.iter().map(|finding| finding.reason.as_str()).collect();
                let reasons = reasons.join("; ");
                let cure = findings.first().and_then(|finding| finding.action.in_words());
                let (from, word) = (from.as_str(), to.as_str());
                if to == Health::Ok {
                    info!(gpu, from, "{gpu} is ok again");
                } else {
                    warn!(gpu, from, to = word, cure, "{gpu} is {word}: {reasons}");
                }
            }
            News::Xid { gpu, code, meaning, of_the_gpu } => {
                let Some(count) = self.xids.entry((gpu.clone(), code)).or_default().count() else { return };
                if of_the_gpu {
                    warn!(gpu, xid = code, count, "{gpu} reports Xid {code}: {meaning}");
                } else {
                    info!(gpu, xid = code, count, "{gpu} reports Xid {code}: {meaning}");
                }
            }
            News::Missing(gpus) if gpus.is_empty() => info!("all GPUs are here again"),
            News::Missing(gpus) => {
                let gpus = gpus.join(", ");
                warn!(gpus, "GPUs that were here before are missing: {gpus}");
            }
        }
    }
}

/// Now, by both clocks.
pub(super) fn now() -> Moment {
    Moment { now: Instant::now(), wall: SystemTime::now().into() }
}
