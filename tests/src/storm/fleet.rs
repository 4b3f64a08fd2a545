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

use aio_protocol::{ids::NodeId, wire::SUBPROTOCOL};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use tungstenite::{Message as Frame, client::IntoClientRequest, http::HeaderValue};
use uuid::Uuid;

use super::{Plan, http::Message, noti::Record};
use crate::{controller::Enrolled, wait::wait_for};

/// So many installers report at once.
const THREADS: usize = 16;

/// So many nodes with workers share a thread.
const WORKERS_PER_THREAD: usize = 10;

/// The controller was killed: it is back soon.
const PAUSE: Duration = Duration::from_millis(20);

/// An answer takes longer only when the controller is gone.
const ANSWER: Duration = Duration::from_secs(10);

/// How long the next piece of progress may take.
const PROGRESS: Duration = Duration::from_secs(120);

pub(super) struct Fleet {
    address: String,
    installed: Vec<Enrolled>,
    connecting: Vec<Enrolled>,
    rate: Option<f64>,
    changes: AtomicUsize,
    pub done: AtomicBool,
    /// When the changes of each node were asked for, in their order.
    asked: Mutex<HashMap<NodeId, Vec<Instant>>>,
}

impl Fleet {
    pub(super) fn new(mut nodes: Vec<Enrolled>, plan: &Plan, url: &str) -> Self {
        let connecting = nodes.split_off(nodes.len().saturating_sub(plan.workers));
        Self {
            address: url.trim_start_matches("http://").to_owned(),
            installed: nodes,
            connecting,
            rate: plan.rate,
            changes: AtomicUsize::new(0),
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
            threads.push(scope.spawn(move || self.install(&nodes, pace)));
        }
        let among = self.connecting.len().div_ceil(WORKERS_PER_THREAD);
        for (thread, nodes) in self.connecting.chunks(WORKERS_PER_THREAD).enumerate() {
            let pace = self.pace(nodes.len(), 2, thread as f64 / among as f64);
            threads.push(scope.spawn(move || self.connect(nodes, pace)));
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

    fn install(&self, nodes: &[&Enrolled], mut pace: Option<Pace>) {
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
                    match self.report(&mut connection, node, &report) {
                        Ok(200) => {
                            asked.entry(node.node_id.clone()).or_default().push(now);
                            self.changes.fetch_add(1, Ordering::Relaxed);
                            break;
                        }
                        // It was made before a kill whose victim could not say so.
                        Ok(409) => break,
                        Ok(_) | Err(_) => {
                            connection = None;
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
        node: &Enrolled,
        body: &str,
    ) -> Result<u16> {
        let stream = match connection {
            Some(stream) => stream,
            None => connection.insert(BufReader::new(self.dial()?)),
        };
        let Enrolled { node_id, token } = node;
        let request = format!(
            "POST /nodes/{node_id}/installation HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len(),
        );
        stream.get_mut().write_all(request.as_bytes())?;
        let answer = Message::read(stream)?.context("the controller closed")?;
        Ok(answer.status()?)
    }

    fn dial(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER))?;
        Ok(stream)
    }

    fn connect(&self, nodes: &[Enrolled], mut pace: Option<Pace>) {
        while !self.done.load(Ordering::Relaxed) {
            for node in nodes {
                pace.iter_mut().for_each(Pace::wait);
                match self.come_and_go(node) {
                    Ok(()) => drop(self.changes.fetch_add(2, Ordering::Relaxed)),
                    Err(_) => thread::sleep(PAUSE),
                }
            }
        }
    }

    /// A worker that is welcomed and says goodbye: two changes.
    fn come_and_go(&self, node: &Enrolled) -> Result<()> {
        let mut request = format!("ws://{}/ws/node", self.address).into_client_request()?;
        let headers = request.headers_mut();
        headers.insert("authorization", HeaderValue::from_str(&format!("Bearer {}", node.token))?);
        headers.insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
        let (mut socket, _) =
            tungstenite::client(request, self.dial()?).map_err(|error| anyhow::anyhow!("{error}"))?;
        let frame = |kind: &str, data: serde_json::Value| {
            let frame = json!({"type": kind, "messageId": Uuid::nil(), "timestamp": "2025-12-11T12:00:00.000Z", "data": data});
            Frame::text(frame.to_string())
        };
        let id = &node.node_id;
        let info = json!({
            "os": {"name": "Ubuntu", "version": "22.04", "kernel": "5.15.0", "hostname": id}, "architecture": "x86_64",
            "hardware": {"cpu": {"model": "EPYC", "threads": 128}, "memory": {"total": 1_099_511_627_776_u64}, "disk": [],
                "network": [], "gpu": [], "gpuDriver": {"state": "absent"}}});
        // One machine: the same instance each time.
        let instance = format!("{id}00000000");
        let register = json!({"nodeId": id, "instanceId": instance, "bootId": "b", "daemonVersion": "1.0.0",
            "capabilities": [], "systemInfo": info});
        socket.send(frame("node.register", register))?;
        let mut welcomed = false;
        while !welcomed {
            let answer = socket.read()?;
            welcomed = answer.is_text() && answer.to_text()?.contains("register.ack");
            ensure!(!answer.is_close(), "the controller closed");
        }
        socket.send(frame("node.disconnecting", json!({"nodeId": id, "reason": "shutdown"})))?;
        socket.close(None)?;
        while socket.read().is_ok() {}
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
