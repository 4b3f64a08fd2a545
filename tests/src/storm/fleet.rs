//! A fleet whose nodes change all the time: most are installed again and again, over HTTP; some
//! have a worker that comes and goes, over the WebSocket. What the controller did not answer is
//! said again, so that a kill holds nobody up.

use std::{
    collections::HashMap,
    io::{BufReader, Write},
    net::TcpStream,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, Scope, ScopedJoinHandle},
    time::{Duration, Instant},
};

use aio_protocol::ids::NodeId;
use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{Plan, http::Message, noti::Record, socket::Socket};
use crate::{controller::Enrolled, wait::wait_for};

/// So many installers report at once.
const THREADS: usize = 16;

/// So many nodes with workers share a thread.
const WORKERS_PER_THREAD: usize = 10;

/// The controller was killed: it is back soon.
const PAUSE: Duration = Duration::from_millis(20);

/// An answer takes longer only when the controller is gone.
const ANSWER: Duration = Duration::from_secs(10);

/// Of so many times that a worker comes, it comes to two controllers at once.
const DOUBLE_EVERY: usize = 4;

/// How long a controller may take to let go of a node that another has.
const LETTING_GO: Duration = Duration::from_secs(20);

/// How long the next piece of progress may take.
const PROGRESS: Duration = Duration::from_secs(120);

pub(super) struct Fleet {
    /// Of each controller.
    addresses: Vec<String>,
    installed: Vec<Enrolled>,
    connecting: Vec<Enrolled>,
    rate: Option<f64>,
    changes: AtomicUsize,
    /// How often a node was welcomed at two places at once, and whether one kept both sockets.
    doubles: AtomicUsize,
    two_owners: Mutex<Option<String>>,
    pub done: AtomicBool,
    /// When the changes of each node were asked for, in their order.
    asked: Mutex<HashMap<NodeId, Vec<Instant>>>,
}

impl Fleet {
    pub(super) fn new(mut nodes: Vec<Enrolled>, plan: &Plan, addresses: Vec<String>) -> Self {
        let connecting = nodes.split_off(nodes.len().saturating_sub(plan.workers));
        Self {
            addresses,
            installed: nodes,
            connecting,
            rate: plan.rate,
            changes: AtomicUsize::new(0),
            doubles: AtomicUsize::new(0),
            two_owners: Mutex::default(),
            done: AtomicBool::new(false),
            asked: Mutex::default(),
        }
    }

    /// Begins to change.
    /// Returns what ends after the last change, once it is finished.
    pub(super) fn spawn<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
    ) -> Vec<ScopedJoinHandle<'scope, ()>> {
        let mut threads = Vec::new();
        for thread in 0..THREADS {
            let nodes: Vec<_> = self.installed.iter().skip(thread).step_by(THREADS).collect();
            let pace = self.pace(nodes.len(), 1, thread as f64 / THREADS as f64);
            threads.push(scope.spawn(move || self.install(&nodes, thread, pace)));
        }
        let among = self.connecting.len().div_ceil(WORKERS_PER_THREAD);
        for (thread, nodes) in self.connecting.chunks(WORKERS_PER_THREAD).enumerate() {
            let pace = self.pace(nodes.len(), 2, thread as f64 / among as f64);
            threads.push(scope.spawn(move || self.connect(nodes, thread, pace)));
        }
        threads
    }

    /// The pace of a thread that changes so many of the fleet's nodes, so many changes at a time.
    fn pace(&self, nodes: usize, changes: usize, phase: f64) -> Option<Pace> {
        let all = (self.installed.len() + self.connecting.len()) as f64;
        let interval =
            |rate: f64| Duration::from_secs_f64(changes as f64 * all / (rate * nodes.max(1) as f64));
        self.rate
            .map(interval)
            .map(|interval| Pace { interval, due: Instant::now() + interval.mul_f64(phase) })
    }

    pub(super) fn finish(&self) {
        self.done.store(true, Ordering::Relaxed);
    }

    /// Waits until the controller has acknowledged so many changes.
    pub(super) fn wait_for_progress(&self, changes: usize) -> Result<()> {
        loop {
            let before = self.changes.load(Ordering::Relaxed);
            if before >= changes {
                return Ok(());
            }
            let look = || Ok(self.changes.load(Ordering::Relaxed));
            wait_for("another change", PROGRESS, look, |now| *now > before)?;
        }
    }

    /// From asking for a change to NOTI's answer, of every change of the nodes that are installed.
    pub(super) fn latencies(&self, record: &Record) -> Vec<Duration> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let of_node = |(node, asked): (&NodeId, &Vec<Instant>)| {
            // The first is its registration.
            let kept = record.nodes.get(node).into_iter().flatten().skip(1);
            kept.zip(asked)
                .map(|(kept, asked)| kept.answered.saturating_duration_since(*asked))
                .collect::<Vec<_>>()
        };
        asked.iter().flat_map(of_node).collect()
    }

    /// `place` is where the controller is that is asked first.
    fn install(&self, nodes: &[&Enrolled], mut place: usize, mut pace: Option<Pace>) {
        let mut connection = None;
        let mut asked: HashMap<NodeId, Vec<Instant>> = HashMap::new();
        'storm: for round in 0.. {
            for node in nodes {
                pace.iter_mut().for_each(Pace::wait);
                let report = if round % 2 == 0 {
                    json!({"phase": "started", "version": "v1.0.0"})
                } else {
                    json!({"phase": "failed", "error": {"code": "DISK_FULL", "message": "There is no room for it"}})
                };
                let report = report.to_string();
                loop {
                    if self.done.load(Ordering::Relaxed) {
                        break 'storm;
                    }
                    let now = Instant::now();
                    match self.report(&mut connection, place, node, &report) {
                        Ok(200) => {
                            asked.entry(node.node_id.clone()).or_default().push(now);
                            self.changes.fetch_add(1, Ordering::Relaxed);
                            break;
                        }
                        // It was made before a kill whose victim could not say so.
                        Ok(409) => break,
                        Ok(_) | Err(_) => {
                            (connection, place) = (None, place + 1);
                            thread::sleep(PAUSE);
                        }
                    }
                }
            }
        }
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).extend(asked);
    }

    fn report(
        &self,
        connection: &mut Option<BufReader<TcpStream>>,
        place: usize,
        node: &Enrolled,
        body: &str,
    ) -> Result<u16> {
        let stream = match connection {
            Some(stream) => stream,
            None => connection.insert(BufReader::new(self.dial(place)?)),
        };
        let Enrolled { node_id, token } = node;
        let request = format!(
            "POST /nodes/{node_id}/installation HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address(place),
            body.len(),
        );
        stream.get_mut().write_all(request.as_bytes())?;
        let answer = Message::read(stream)?.context("the controller closed")?;
        Ok(answer.status()?)
    }

    fn address(&self, place: usize) -> &str {
        let place = place.checked_rem(self.addresses.len()).and_then(|place| self.addresses.get(place));
        place.map_or("", String::as_str)
    }

    fn dial(&self, place: usize) -> Result<TcpStream> {
        let stream = TcpStream::connect(self.address(place))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER))?;
        Ok(stream)
    }

    fn connect(&self, nodes: &[Enrolled], mut place: usize, mut pace: Option<Pace>) {
        while !self.done.load(Ordering::Relaxed) {
            for node in nodes {
                pace.iter_mut().for_each(Pace::wait);
                // Each time at another controller, and now and then at two at once.
                place += 1;
                let came = if self.addresses.len() > 1 && place.is_multiple_of(DOUBLE_EVERY) {
                    self.come_twice(node, place)
                } else {
                    self.come_and_go(node, place)
                };
                match came {
                    Ok(()) => drop(self.changes.fetch_add(2, Ordering::Relaxed)),
                    Err(_) => thread::sleep(PAUSE),
                }
            }
        }
    }

    /// A worker that is welcomed and says goodbye: two changes.
    fn come_and_go(&self, node: &Enrolled, place: usize) -> Result<()> {
        let mut socket = self.come(node, place)?;
        socket.welcomed()?;
        socket.leave()
    }

    /// The same worker comes to two controllers at once: one lets go of it.
    fn come_twice(&self, node: &Enrolled, place: usize) -> Result<()> {
        let mut sockets = [self.come(node, place)?, self.come(node, place + 1)?];
        for socket in &mut sockets {
            socket.welcomed()?;
        }
        let deadline = Instant::now() + LETTING_GO;
        let left = loop {
            let [one, two] = &mut sockets;
            match (one.is_open()?, two.is_open()?) {
                (true, true) if Instant::now() < deadline => {}
                (true, true) => {
                    // One that answers nothing may be of a controller that stands still.
                    if one.answers() && two.answers() && one.answers() {
                        let mut two_owners = self.two_owners.lock().unwrap_or_else(PoisonError::into_inner);
                        *two_owners = Some(format!("node {} kept two sockets", node.node_id));
                    }
                    return Ok(());
                }
                (true, false) => break one,
                (false, true) => break two,
                (false, false) => return Ok(()),
            }
        };
        self.doubles.fetch_add(1, Ordering::Relaxed);
        left.leave()
    }

    fn come(&self, node: &Enrolled, place: usize) -> Result<Socket> {
        Socket::open(self.dial(place)?, self.address(place), node)
    }

    /// How often a node was welcomed at two places at once, and one let go of it.
    pub(super) fn doubles(&self) -> usize {
        self.doubles.load(Ordering::Relaxed)
    }

    /// No node had two controllers.
    pub(super) fn check_owners(&self) -> Result<()> {
        let two_owners = self.two_owners.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(two_owners.is_none(), "{two_owners:?}");
        Ok(())
    }
}

/// An even pace that makes up for what it missed.
struct Pace {
    interval: Duration,
    due: Instant,
}

impl Pace {
    fn wait(&mut self) {
        thread::sleep(self.due.saturating_duration_since(Instant::now()));
        self.due += self.interval;
    }
}
