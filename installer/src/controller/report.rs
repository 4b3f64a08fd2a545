//! What the controller is told of an installation. Progress goes from a side task: no step waits
//! for a report, there is at most one a second, and they arrive in order. The first and the last
//! report are awaited by the flow itself; a failure that cannot be told is kept for later.

use std::time::{Duration, SystemTime};

use aio_protocol::{
    event::ErrorReport,
    ids::NodeId,
    installation::{InstallationReport, UndeliveredFailure},
    release::ReleaseVersion,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use super::{calls::Controller, undelivered};
use crate::{failure::Failure, machine::host::Host};

/// Between two reports of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// For one report of progress; the next one says more anyway.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(2);

/// For a report that is waited for, its tries together.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Tells how an installation of `node` begins and ends. Without a controller nobody is told.
pub(crate) struct Teller<'a> {
    pub(crate) controller: Option<&'a Controller<'a>>,
    pub(crate) host: &'a Host,
    pub(crate) node: &'a NodeId,
    pub(crate) version: &'a ReleaseVersion,
}

impl Teller<'_> {
    async fn tell(&self, report: &InstallationReport) -> Result<(), Failure> {
        match self.controller {
            Some(controller) => controller.report(report, Instant::now() + REPORT_TIMEOUT).await,
            None => Ok(()),
        }
    }

    /// It begins.
    pub(crate) async fn started(&self) -> Result<(), Failure> {
        self.tell(&InstallationReport::Started { version: Some(self.version.clone()) }).await
    }

    /// It has succeeded.
    pub(crate) async fn succeeded(&self, took: Duration) -> Result<(), Failure> {
        self.tell(&InstallationReport::Succeeded { seconds: Some(took.as_secs_f64()) }).await
    }

    /// Nothing could be begun: tells of a beginning and its end.
    pub(crate) async fn refused(&self, failure: Failure) -> Failure {
        match self.started().await {
            Ok(()) => self.failed(Some("plan"), failure).await,
            Err(trouble) => failure.with("reportFailed", trouble.message),
        }
    }

    /// It has failed at `step`. Says in `failure` when that could not be told, and whether it is
    /// kept for later. What failed before any step is not: the controller knows of no beginning,
    /// and nothing was changed.
    pub(crate) async fn failed(&self, step: Option<&str>, failure: Failure) -> Failure {
        let error = ErrorReport::from(failure.clone());
        let name = step.unwrap_or("begin").to_owned();
        let failure = failure.with("step", &*name);
        let report = InstallationReport::Failed { step: Some(name.clone()), error: error.clone() };
        let Err(trouble) = self.tell(&report).await else { return failure };
        let failure = failure.with("reportFailed", &*trouble.message);
        if step.is_none() || !trouble.code.is_transient() {
            return failure;
        }
        let (node_id, at) = (self.node.clone(), SystemTime::now().into());
        match undelivered::keep(self.host, &UndeliveredFailure { node_id, at, step: Some(name), error }) {
            Ok(path) => failure.with("reportKept", path.display().to_string()),
            Err(trouble) => {
                tracing::warn!(message = %trouble.message, "the report could not be kept for later");
                failure
            }
        }
    }
}

/// Where steps say how far they are.
#[derive(Debug, Clone)]
pub(crate) struct Reporter(watch::Sender<Option<Progress>>);

/// A place in an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Progress {
    step: &'static str,
    percent: u8,
}

impl Reporter {
    /// The installation is at `step`, `done` of `total` of it.
    pub(crate) fn progress(&self, step: &'static str, done: u64, total: u64) {
        let percent = u8::try_from(done.saturating_mul(100) / total.max(1)).unwrap_or(100).min(100);
        let now = Some(Progress { step, percent });
        self.0.send_if_modified(|last| {
            let changed = *last != now;
            *last = now;
            changed
        });
    }
}

/// Runs `work` with a reporter whose reports are delivered beside it. When the work has ended, a
/// report that is under way may arrive first, within bounds, so that none overtakes what the caller
/// says next. Without a controller they are for nobody.
pub(crate) async fn beside<T>(
    controller: Option<&Controller<'_>>,
    work: impl AsyncFnOnce(Reporter) -> T,
) -> T {
    let (sender, mut latest) = watch::channel(None);
    let Some(controller) = controller else { return work(Reporter(sender)).await };
    let deliver = async {
        let mut next = Instant::now();
        while latest.changed().await.is_ok() {
            // When the second is over the newest goes out; the end of the work ends the wait.
            loop {
                tokio::select! {
                    () = sleep_until(next) => break,
                    changed = latest.changed() => if changed.is_err() { return },
                }
            }
            let Some(Progress { step, percent }) = latest.borrow_and_update().clone() else { continue };
            let report = InstallationReport::Progress { step: step.to_owned(), percent: Some(percent) };
            if let Err(failure) = controller.report(&report, Instant::now() + PROGRESS_TIMEOUT).await {
                tracing::debug!(code = %failure.code, message = %failure.message, "a progress report was lost");
            }
            next = Instant::now() + PROGRESS_INTERVAL;
        }
    };
    let mut deliver = std::pin::pin!(deliver);
    let work = work(Reporter(sender));
    let mut work = std::pin::pin!(work);
    let mut delivering = true;
    let outcome = loop {
        tokio::select! {
            outcome = &mut work => break outcome,
            () = &mut deliver, if delivering => delivering = false,
        }
    };
    if delivering {
        let _ = timeout(Duration::from_millis(500), deliver).await;
    }
    outcome
}
