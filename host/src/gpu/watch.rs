//! A probe on a thread of its own, asked with a deadline. A driver that hangs makes the GPUs unknown and delays nobody. Decides
//! neither when to ask nor what an unknown GPU means for the node.

use std::{
    io,
    sync::Arc,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use aio_protocol::inventory::{Gpu, GpuDriver, GpuDriverState};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{GpuProbe, GpuReport, silent};

/// The one who asks a probe.
#[derive(Debug)]
pub struct GpuWatcher {
    requests: Sender<()>,
    reports: watch::Receiver<Option<GpuReport>>,
    /// Whether the thread has a request that it has not answered: a hung driver gets no second one.
    pending: Arc<AtomicBool>,
    /// When that request was made.
    asked_at: Mutex<Instant>,
}

impl GpuWatcher {
    /// Puts `probe` on its thread. The thread ends with the watcher, unless the driver holds it: then it ends with the process,
    /// which it never keeps from ending.
    pub fn start(probe: impl GpuProbe) -> io::Result<Self> {
        let (requests, inbox) = channel();
        let (outbox, reports) = watch::channel(None);
        let pending = Arc::new(AtomicBool::new(false));
        let shared = pending.clone();
        thread::Builder::new().name("gpu".into()).spawn(move || serve(probe, &inbox, &outbox, &shared))?;
        Ok(Self { requests, reports, pending, asked_at: Mutex::new(Instant::now()) })
    }

    /// The last report of the probe, however old.
    pub fn latest(&self) -> Option<GpuReport> {
        self.reports.borrow().clone()
    }

    /// Asks the probe and waits for its report. When it comes too late, all is unknown of the GPUs that it knew before.
    pub async fn report(&self, deadline: Duration) -> GpuReport {
        let mut reports = self.reports.clone();
        reports.mark_unchanged();
        if !self.pending.swap(true, Ordering::SeqCst) {
            *self.asked_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            // A thread that has ended closes the other channel, too, and that is noticed below.
            let _ = self.requests.send(());
        }
        let answered = timeout(deadline, reports.changed()).await;
        let known = reports.borrow_and_update().clone();
        let reason = match (answered, known.as_ref()) {
            (Ok(Ok(())), Some(report)) => return report.clone(),
            (Err(_), _) => {
                let asked_at = *self.asked_at.lock().unwrap_or_else(PoisonError::into_inner);
                format!("driver not answering for {} s", asked_at.elapsed().as_secs())
            }
            _ => "the probe of the driver has crashed".to_owned(),
        };
        let driver = GpuDriver {
            state: GpuDriverState::Unknown,
            reason: Some(reason),
            version: None,
            cuda_version: None,
        };
        let unknown = GpuReport { driver, gpus: Vec::new(), status: Vec::new() };
        completed(unknown, known.map(|report| report.gpus).unwrap_or_default())
    }
}

fn serve(
    mut probe: impl GpuProbe,
    inbox: &Receiver<()>,
    outbox: &watch::Sender<Option<GpuReport>>,
    pending: &AtomicBool,
) {
    let mut known = Vec::new();
    while inbox.recv().is_ok() {
        let report = completed(probe.probe(), known);
        known = report.gpus.clone();
        // In this order, nobody waits for an answer to a request that was never sent.
        pending.store(false, Ordering::SeqCst);
        outbox.send_replace(Some(report));
    }
}

/// A driver that fails does not take its GPUs out of the machine: those `known` stay, and nothing is known of them.
fn completed(mut report: GpuReport, known: Vec<Gpu>) -> GpuReport {
    if report.driver.state == GpuDriverState::Unknown && report.gpus.is_empty() {
        report.status = known.iter().map(|gpu| silent(&gpu.device_id)).collect();
        report.gpus = known;
    }
    report
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use aio_protocol::telemetry::{GpuActivity, GpuStatus, Health};

    use super::*;

    const PROMPT: Duration = Duration::from_secs(30);
    const SHORT: Duration = Duration::from_millis(20);

    /// Hangs until the test sends a report, and crashes when there will be none.
    struct Scripted {
        script: Receiver<GpuReport>,
        asked: Arc<AtomicUsize>,
    }

    impl GpuProbe for Scripted {
        fn probe(&mut self) -> GpuReport {
            self.asked.fetch_add(1, Ordering::SeqCst);
            self.script.recv().unwrap()
        }
    }

    fn bench() -> (Sender<GpuReport>, Arc<AtomicUsize>, GpuWatcher) {
        let (sender, script) = channel();
        let asked = Arc::new(AtomicUsize::new(0));
        let watcher = GpuWatcher::start(Scripted { script, asked: asked.clone() }).unwrap();
        (sender, asked, watcher)
    }

    fn driver(state: GpuDriverState) -> GpuReport {
        let driver = GpuDriver { state, reason: None, version: None, cuda_version: None };
        GpuReport { driver, gpus: Vec::new(), status: Vec::new() }
    }

    fn healthy() -> GpuReport {
        let gpu = Gpu {
            device_id: "0".into(),
            uuid: Some("GPU-1".into()),
            model: "NVIDIA H100".into(),
            memory_total: Some(1 << 36),
            pci_bus_id: None,
            serial: None,
        };
        let status = GpuStatus {
            temperature: Some(40),
            status: GpuActivity::Active,
            health: Health::Ok,
            ..silent("0")
        };
        GpuReport { gpus: vec![gpu], status: vec![status], ..driver(GpuDriverState::Ok) }
    }

    fn is_known_but_silent(report: &GpuReport) -> bool {
        report.driver.state == GpuDriverState::Unknown
            && report.gpus == healthy().gpus
            && report.status == [silent("0")]
    }

    #[tokio::test]
    async fn a_driver_that_answers_is_passed_on() {
        let (script, _, watcher) = bench();
        assert_eq!(watcher.latest(), None);
        script.send(healthy()).unwrap();
        assert_eq!(watcher.report(PROMPT).await, healthy());
        assert_eq!(watcher.latest(), Some(healthy()));
    }

    #[tokio::test]
    async fn a_hung_driver_is_asked_once_and_believed_again_when_it_answers() {
        let (script, asked, watcher) = bench();
        script.send(healthy()).unwrap();
        watcher.report(PROMPT).await;
        for _ in 0..3 {
            let report = watcher.report(SHORT).await;
            assert!(is_known_but_silent(&report), "{report:?}");
            assert_eq!(report.driver.reason.as_deref(), Some("driver not answering for 0 s"));
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2);

        // The first may answer the old request before the new one is made.
        script.send(healthy()).unwrap();
        script.send(healthy()).unwrap();
        assert_eq!(watcher.report(PROMPT).await, healthy());
    }

    #[tokio::test]
    async fn a_driver_that_hangs_from_the_first_is_unknown_and_has_no_gpus() {
        let (_script, _, watcher) = bench();
        let report = watcher.report(SHORT).await;
        assert_eq!((report.driver.state, report.gpus.len()), (GpuDriverState::Unknown, 0));
        assert_eq!(watcher.latest(), None);
    }

    #[tokio::test]
    async fn callers_at_the_same_time_share_one_answer() {
        let (script, asked, watcher) = bench();
        let both = async { tokio::join!(watcher.report(PROMPT), watcher.report(PROMPT)) };
        let answer = async { script.send(healthy()).unwrap() };
        let ((one, other), ()) = tokio::join!(both, answer);
        assert_eq!((one, other), (healthy(), healthy()));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_driver_that_fails_keeps_its_gpus_and_one_that_is_gone_does_not() {
        let (script, _, watcher) = bench();
        for report in [healthy(), driver(GpuDriverState::Unknown), driver(GpuDriverState::Unknown)] {
            script.send(report).unwrap();
        }
        watcher.report(PROMPT).await;
        for _ in 0..2 {
            let report = watcher.report(PROMPT).await;
            assert!(is_known_but_silent(&report), "{report:?}");
        }
        for report in [driver(GpuDriverState::Absent), driver(GpuDriverState::Unknown)] {
            script.send(report.clone()).unwrap();
            assert_eq!(watcher.report(PROMPT).await, report);
        }
    }

    #[tokio::test]
    async fn a_probe_that_crashes_is_unknown_at_once() {
        let (script, _, watcher) = bench();
        drop(script);
        for _ in 0..2 {
            let report = watcher.report(PROMPT).await;
            assert_eq!(report.driver.reason.as_deref(), Some("the probe of the driver has crashed"));
        }
    }

    #[test]
    fn the_thread_ends_with_the_watcher() {
        let (script, _, watcher) = bench();
        drop(watcher);
        let deadline = std::time::Instant::now() + PROMPT;
        while script.send(healthy()).is_ok() {
            assert!(std::time::Instant::now() < deadline, "the thread still holds its probe");
            thread::yield_now();
        }
    }
}
