//! Tells the controller how far an installation is, from a side task: no step waits for a report, there is at most one a second, and
//! they arrive in order. The first and the last report of an installation are awaited by the flow itself.

use std::time::Duration;

use aio_protocol::installation::InstallationReport;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use crate::controller::calls::Controller;

/// Between two reports of progress.
const PACE: Duration = Duration::from_secs(1);
/// For one report of progress; the next one says more anyway.
const PATIENCE: Duration = Duration::from_secs(2);

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

/// Runs `work` with a reporter whose reports are delivered beside it. When the work has ended, a report that is under way may arrive
/// first, within bounds, so that none overtakes what the caller says next. Without a controller they are for nobody.
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
            if let Err(failure) = controller.report(&report, Instant::now() + PATIENCE).await {
                tracing::debug!(code = %failure.code, message = %failure.message, "a progress report was lost");
            }
            next = Instant::now() + PACE;
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
