//! A probe on a thread of its own, asked with a deadline. A driver that hangs makes the GPUs
//! unknown and delays nobody. Decides neither when to ask nor what an unknown GPU means for the
//! node.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, SystemTime},
};

use aio_protocol::{
    inventory::{Gpu, GpuDriver, GpuDriverState},
    time::Timestamp,
};
use tokio::{sync::watch, time::timeout};

use super::{GpuProbe, GpuReport, Reading};

/// The one who asks a probe.
#[derive(Debug)]
pub struct GpuWatcher {
    requests: Sender<()>,
    reports: watch::Receiver<Option<GpuReport>>,
    /// Whether the thread has a request that it has not answered: a hung driver gets no second one.
    pending: Arc<AtomicBool>,
    /// When that request was made.
    asked_at: Mutex<Timestamp>,
}

impl GpuWatcher {
    /// Puts `probe` on its thread. The thread ends with the watcher, unless the driver holds it:
    /// then it ends with the process, which it never keeps from ending.
    pub fn start(probe: impl GpuProbe) -> io::Result<Self> {
        let (requests, inbox) = channel();
        let (outbox, reports) = watch::channel(None);
        let pending = Arc::new(AtomicBool::new(false));
        let mut inquiries = Inquiries { inbox, outbox, pending: pending.clone(), known: vec![] };
        thread::Builder::new().name("gpu".into()).spawn(move || probe.serve(&mut inquiries))?;
        Ok(Self { requests, reports, pending, asked_at: Mutex::new(Timestamp::from_millis(0)) })
    }

    /// The last report of the probe, however old.
    pub fn latest(&self) -> Option<GpuReport> {
        self.reports.borrow().clone()
    }

    /// The reports as they come, those that nobody asked for among them.
    pub fn reports(&self) -> watch::Receiver<Option<GpuReport>> {
        self.reports.clone()
    }

    /// Asks the probe and waits for its report. When it comes too late, all is unknown of the GPUs
    /// that it knew before.
    pub async fn report(&self, deadline: Duration) -> GpuReport {
        let mut reports = self.reports.clone();
        reports.mark_unchanged();
        if !self.pending.swap(true, Ordering::SeqCst) {
            *self.asked_at.lock().unwrap_or_else(PoisonError::into_inner) = SystemTime::now().into();
            // A thread that has ended closes the other channel, too, and that is noticed below.
            let _ = self.requests.send(());
        }
        let answered = timeout(deadline, reports.changed()).await;
        let known = reports.borrow_and_update().clone();
        let reason = match (answered, known.as_ref()) {
            (Ok(Ok(())), Some(report)) => return report.clone(),
            (Err(_), _) => {
                let asked_at = *self.asked_at.lock().unwrap_or_else(PoisonError::into_inner);
                format!("driver not answering since {asked_at}")
            }
            _ => "the probe of the driver has crashed".to_owned(),
        };
        let driver = GpuDriver {
            state: GpuDriverState::Unknown,
            reason: Some(reason),
            version: None,
            cuda_version: None,
        };
        let (gpus, xids) = known.map(|report| (report.gpus, report.xids)).unwrap_or_default();
        let unknown = GpuReport { driver, gpus: vec![], readings: vec![], xids };
        completed(unknown, gpus)
    }
}

/// What the thread of a probe is asked, and where it tells its reports.
#[derive(Debug)]
pub struct Inquiries {
    inbox: Receiver<()>,
    outbox: watch::Sender<Option<GpuReport>>,
    pending: Arc<AtomicBool>,
    known: Vec<Gpu>,
}

/// What somebody wants of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inquiry {
    /// A report.
    Asked,
    /// Nothing, within the time that was waited.
    None,
    /// Nothing any more.
    Ended,
}

impl Inquiries {
    /// Waits for the next one: for ever, or so long.
    pub fn next(&self, patience: Option<Duration>) -> Inquiry {
        let received = match patience {
            None => self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(patience) => self.inbox.recv_timeout(patience),
        };
        match received {
            Ok(()) => Inquiry::Asked,
            Err(RecvTimeoutError::Timeout) => Inquiry::None,
            Err(RecvTimeoutError::Disconnected) => Inquiry::Ended,
        }
    }

    /// Answers the inquiry that [`Inquiries::next`] gave.
    pub fn answer(&mut self, report: GpuReport) {
        // In this order, nobody waits for an answer to a request that was never sent.
        self.pending.store(false, Ordering::SeqCst);
        self.tell(report);
    }

    /// Tells what nobody has asked for.
    pub fn tell(&mut self, report: GpuReport) {
        let report = completed(report, std::mem::take(&mut self.known));
        self.known.clone_from(&report.gpus);
        self.outbox.send_replace(Some(report));
    }
}

/// A driver that fails does not take its GPUs out of the machine: those `known` stay, and nothing
/// is known of them.
fn completed(mut report: GpuReport, known: Vec<Gpu>) -> GpuReport {
    if report.driver.state == GpuDriverState::Unknown && report.gpus.is_empty() {
        report.readings = known.iter().map(|gpu| Reading::silent(gpu.device_id.clone())).collect();
        report.gpus = known;
    }
    report
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use aio_protocol::telemetry::GpuActivity;

    use super::*;

    const PROMPT: Duration = Duration::from_secs(30);
    const SHORT: Duration = Duration::from_millis(20);

    /// Hangs until the test sends a report, and crashes when there will be none.
    struct Scripted {
        script: Receiver<GpuReport>,
        asked: Arc<AtomicUsize>,
    }

    impl GpuProbe for Scripted {
        fn serve(self, inquiries: &mut Inquiries) {
            while inquiries.next(None) == Inquiry::Asked {
                self.asked.fetch_add(1, Ordering::SeqCst);
                inquiries.answer(self.script.recv().unwrap());
            }
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
        GpuReport { driver, gpus: vec![], readings: vec![], xids: vec![] }
    }

    fn healthy() -> GpuReport {
        let gpu = Gpu {
            device_id: "0".into(),
            uuid: Some("GPU-1".into()),
            model: "NVIDIA H100".into(),
            memory_total: Some(1 << 36),
            ..Gpu::default()
        };
        let mut reading = Reading::silent("0");
        reading.detail.status.status = GpuActivity::Active;
        reading.detail.status.temperature = Some(40);
        GpuReport { gpus: vec![gpu], readings: vec![reading], ..driver(GpuDriverState::Ok) }
    }

    fn is_known_but_silent(report: &GpuReport) -> bool {
        report.driver.state == GpuDriverState::Unknown
            && report.gpus == healthy().gpus
            && report.readings == [Reading::silent("0")]
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
        let mut reasons = vec![];
        for _ in 0..3 {
            let report = watcher.report(SHORT).await;
            assert!(is_known_but_silent(&report), "{report:?}");
            reasons.push(report.driver.reason);
        }
        // The words stay the same for as long as it hangs.
        assert!(reasons[0].as_ref().unwrap().starts_with("driver not answering since 2"), "{reasons:?}");
        assert!(reasons.iter().all(|reason| *reason == reasons[0]), "{reasons:?}");
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

    /// Answers once, and tells without being asked at every word of the test.
    struct Telling(Receiver<GpuReport>);

    impl GpuProbe for Telling {
        fn serve(self, inquiries: &mut Inquiries) {
            assert_eq!(inquiries.next(None), Inquiry::Asked);
            inquiries.answer(healthy());
            while let Ok(report) = self.0.recv() {
                inquiries.tell(report);
            }
        }
    }

    #[tokio::test]
    async fn what_cannot_wait_is_told_without_being_asked() {
        let (sender, script) = channel();
        let watcher = GpuWatcher::start(Telling(script)).unwrap();
        watcher.report(PROMPT).await;
        let mut reports = watcher.reports();
        reports.mark_unchanged();
        sender.send(driver(GpuDriverState::Absent)).unwrap();
        timeout(PROMPT, reports.changed()).await.unwrap().unwrap();
        assert_eq!(*reports.borrow(), Some(driver(GpuDriverState::Absent)));
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
