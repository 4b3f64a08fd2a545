//! All simulated workers of a run: started over a while, told what to talk about, counted without
//! asking each.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use aio_worker::session::{machine::Timings, setback::Setback};
use anyhow::{Context, Result, ensure};
use tokio::{sync::watch, task::JoinSet, time::sleep};

use crate::{
    controller::{Controller, Enrolled},
    words::Words,
    worker::{Place, Talk, Worker},
};

/// Connections come from so many addresses of the loopback network, each with a range of ports of its own.
const SOURCES: u8 = 8;

/// How often the counts are looked at, and so how exact the times are.
const LOOK: Duration = Duration::from_millis(10);

/// What the workers count, all into one.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    online: AtomicU64,
    beats: AtomicU64,
    pongs: AtomicU64,
    setbacks: Mutex<BTreeMap<String, u64>>,
}

impl Counts {
    pub(crate) fn moved(&self, was_online: bool, is_online: bool) {
        match (was_online, is_online) {
            (false, true) => self.online.fetch_add(1, Relaxed),
            (true, false) => self.online.fetch_sub(1, Relaxed),
            _ => 0,
        };
    }

    pub(crate) fn online(&self) -> u64 {
        self.online.load(Relaxed)
    }

    pub(crate) fn beat(&self) {
        self.beats.fetch_add(1, Relaxed);
    }

    pub(crate) fn pong(&self) {
        self.pongs.fetch_add(1, Relaxed);
    }

    /// By kind: the text up to what differs from worker to worker.
    pub(crate) fn setback(&self, setback: &Setback) {
        self.count(setback.message().to_owned());
    }

    pub(crate) fn hung_up(&self) {
        self.count("the worker gave up waiting for an answer".to_owned());
    }

    fn count(&self, kind: String) {
        *self.setbacks.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default() += 1;
    }
}

/// The workers. Dropping it ends them without a goodbye, as a power failure would.
pub(crate) struct Fleet {
    counts: Arc<Counts>,
    talk: watch::Sender<Talk>,
    size: u64,
    _workers: JoinSet<()>,
}

impl Fleet {
    /// Starts a worker per node, one after the other over `ramp`.
    pub(crate) async fn start(
        controller: &Controller,
        nodes: Vec<Enrolled>,
        gpus: usize,
        ramp: Duration,
    ) -> Result<Self> {
        Self::spread(std::slice::from_ref(controller), nodes, gpus, ramp).await
    }

    /// The same over several controllers, of which each worker comes to any.
    pub(crate) async fn spread(
        controllers: &[Controller],
        nodes: Vec<Enrolled>,
        gpus: usize,
        ramp: Duration,
    ) -> Result<Self> {
        let first = controllers.first().context("no controller")?;
        let addresses: Arc<[_]> = controllers.iter().map(Controller::address).collect();
        let counts = Arc::new(Counts::default());
        let (talk, told) = watch::channel(Talk::Everything);
        let size = u64::try_from(nodes.len())?;
        let mut workers = JoinSet::new();
        let started = Instant::now();
        for (index, (node, source)) in nodes.into_iter().zip((0..SOURCES).cycle()).enumerate() {
            let place = Place {
                controllers: addresses.clone(),
                source: Ipv4Addr::new(127, 0, 0, 2 + source),
                endpoint: first.gateway()?,
                connector: first.connector(),
                dialect: first.dialect(),
                node: node.node_id.clone(),
                token: node.token,
            };
            let words = Words::new(node.node_id, gpus);
            let worker = Worker::new(place, words, counts.clone(), told.clone(), Timings::default());
            workers.spawn(worker.run());
            let due = started + ramp.mul_f64(index as f64 / size as f64);
            tokio::time::sleep_until(due.into()).await;
        }
        Ok(Self { counts, talk, size, _workers: workers })
    }

    pub(crate) fn talk(&self, about: Talk) {
        self.talk.send_replace(about);
    }

    /// Heartbeats that were sent so far.
    pub(crate) fn beats(&self) -> u64 {
        self.counts.beats.load(Relaxed)
    }

    /// Answers to pings so far.
    pub(crate) fn pongs(&self) -> u64 {
        self.counts.pongs.load(Relaxed)
    }

    pub(crate) fn online(&self) -> u64 {
        self.counts.online.load(Relaxed)
    }

    /// Waits until every worker is welcomed.
    pub(crate) async fn all_online(&self, bound: Duration) -> Result<()> {
        let started = Instant::now();
        while self.online() < self.size {
            let waited = started.elapsed();
            ensure!(
                waited < bound,
                "after {waited:?} {} of {} workers are online; what kept them: {:#?}",
                self.online(),
                self.size,
                self.setbacks()
            );
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Waits until some worker has noticed that its controller is gone.
    pub(crate) async fn some_offline(&self, bound: Duration) -> Result<()> {
        let started = Instant::now();
        while self.online() == self.size {
            ensure!(started.elapsed() < bound, "nobody has noticed");
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Waits until the workers have noticed that their controller is gone.
    pub(crate) async fn nobody_online(&self, bound: Duration) -> Result<()> {
        let started = Instant::now();
        while self.online() > 0 {
            ensure!(started.elapsed() < bound, "{} workers believe to be online", self.online());
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// What went wrong on the way, and how often.
    pub(crate) fn setbacks(&self) -> BTreeMap<String, u64> {
        self.counts.setbacks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
