//! The worker against the reference server of Socket.IO, in node: join, ping, events with and without
//! an answer, the ways to be sent away, and the way back after a restart.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::Instant,
};

use aio_protocol::{error_code::ErrorCode, snapshot::SessionState};
use aio_worker::session::machine::Timings;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{sync::mpsc, task::spawn_blocking, time::timeout};

use super::{
    super::{
        controller::{NODE, PATIENCE},
        daemon::{Daemon, folder_with},
    },
    SECRET,
};

/// The server, in a process of its own.
struct Reference {
    child: Child,
    said: mpsc::UnboundedReceiver<Value>,
    orders: ChildStdin,
    port: u64,
    _folder: TempDir,
}

impl Reference {
    /// A server that pings at this pace (milliseconds); nothing where it cannot be had, which is said.
    async fn start(ping_interval: u64, ping_timeout: u64) -> Option<Self> {
        let folder = spawn_blocking(install).await.unwrap()?;
        let mut child = Command::new("node")
            .args(["server.mjs", NODE, &ping_interval.to_string(), &ping_timeout.to_string()])
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (say, said) = mpsc::unbounded_channel();
        thread::spawn(move || {
            let values = lines.map_while(Result::ok).map(|line| serde_json::from_str(&line).unwrap());
            values.for_each(|value: Value| drop(say.send(value)));
        });
        let orders = child.stdin.take().unwrap();
        let mut reference = Self { child, said, orders, port: 0, _folder: folder };
        reference.port = reference.told("listening").await["port"].as_u64().unwrap();
        Some(reference)
    }

    fn worker(&self) -> Daemon {
        let at = format!("127.0.0.1:{}", self.port);
        let credentials = json!({"type": "aiwm-node", "nodeId": NODE, "secret": SECRET, "iat": 1,
            "api": format!("http://{at}"), "socket": format!("ws://{at}/socket.io/?EIO=4&transport=websocket")});
        Daemon::on(&folder_with(&credentials.to_string()), Timings::default(), None)
    }

    /// The next thing of this kind.
    async fn told(&mut self, what: &str) -> Value {
        let search = async {
            loop {
                let told = self.said.recv().await.expect("the server ended");
                if told["what"] == what {
                    return told["data"].clone();
                }
            }
        };
        timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("the server told of no {what}"))
    }

    /// The next event of this name, as it was sent.
    async fn event(&mut self, name: &str) -> Value {
        loop {
            let event = self.told("event").await;
            if event["name"] == name {
                return event["payload"].clone();
            }
        }
    }

    fn order(&mut self, what: &str, data: Value) {
        writeln!(self.orders, "{}", json!({"what": what, "data": data})).unwrap();
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn install() -> Option<TempDir> {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/socketio");
    for name in ["package.json", "package-lock.json", "server.mjs"] {
        std::fs::copy(source.join(name), folder.path().join(name)).unwrap();
    }
    let arguments = ["ci", "--no-audit", "--no-fund", "--prefer-offline"];
    let why = match Command::new("npm").args(arguments).current_dir(folder.path()).output() {
        Ok(output) if output.status.success() => return Some(folder),
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    eprintln!("NOT CHECKED: the reference server of Socket.IO, because it cannot be installed: {why}");
    None
}

#[tokio::test]
async fn the_reference_server_takes_the_join_the_pings_the_register_and_the_heartbeats() {
    let Some(mut reference) = Reference::start(200, 5000).await else { return };
    let daemon = reference.worker();
    assert_eq!(reference.told("call").await["path"], "/nodes/auth/login");
    assert_eq!(reference.told("join").await["token"], "a.b.1");
    let register = reference.event("node.register").await;
    assert_eq!(register["data"]["systemInfo"]["hardware"]["gpu"][0]["model"], "NVIDIA H100");
    assert_eq!(reference.event("telemetry.heartbeat").await["data"]["status"], "online");
    for _ in 0..3 {
        reference.told("pong").await;
    }
    let snapshot = daemon.snapshot(|snapshot| snapshot.session.settled()).await;
    assert_eq!(snapshot.session.sessions, 1);
    reference.order("emit", json!({"name": "agent.update", "payload": {"messageId": "c-1", "data": {}}}));
    assert_eq!(reference.event("command.result").await["data"]["originalMessageId"], "c-1");
    reference.order("ask", json!({"name": "of.the.future", "payload": {}}));
    assert_eq!(reference.told("answer").await["error"], "");
    let mut daemon = daemon;
    daemon.ask_to_stop();
    assert_eq!(reference.told("disconnect").await["reason"], "client namespace disconnect");
    daemon.ended().await;
}

#[tokio::test]
async fn after_a_restart_of_the_reference_server_the_worker_is_back_within_five_seconds() {
    let Some(mut reference) = Reference::start(25_000, 20_000).await else { return };
    let daemon = reference.worker();
    reference.event("telemetry.heartbeat").await;
    let began = Instant::now();
    reference.order("restart", json!(null));
    reference.told("listening").await;
    reference.event("node.register").await;
    reference.event("telemetry.heartbeat").await;
    println!("back after {:.2} s", began.elapsed().as_secs_f64());
    assert!(began.elapsed().as_secs_f64() < 5.0, "{:?}", began.elapsed());
    assert!(daemon.alive());
}

#[tokio::test]
async fn the_reference_server_refuses_and_sends_away_and_the_worker_says_why() {
    let Some(mut reference) = Reference::start(25_000, 20_000).await else { return };
    reference.order("refuse", json!("TOKEN_EXPIRED"));
    let daemon = reference.worker();
    // A token that was just given is no reason for another login at once.
    let waiting = |code: ErrorCode| {
        move |snapshot: &aio_protocol::snapshot::WorkerSnapshot| {
            snapshot.session.code.as_deref() == Some(code.as_str())
        }
    };
    daemon.snapshot(waiting(ErrorCode::TokenExpired)).await;
    drop(daemon);

    let daemon = reference.worker();
    reference.event("telemetry.heartbeat").await;
    reference.order("disconnect", json!({"close": false}));
    let snapshot = daemon.snapshot(waiting(ErrorCode::NodeSuperseded)).await;
    assert_eq!(snapshot.session.state, SessionState::Waiting);
    drop(daemon);

    reference.order("ackError", json!({"code": "1004", "message": "Node not found"}));
    let daemon = reference.worker();
    daemon.snapshot(waiting(ErrorCode::NodeNotFound)).await;
}

#[tokio::test]
async fn a_server_that_pings_is_not_left_however_short_its_patience() {
    let Some(mut reference) = Reference::start(500, 1500).await else { return };
    let daemon = reference.worker();
    for _ in 0..6 {
        reference.told("pong").await;
    }
    let snapshot = daemon.snapshot(|snapshot| snapshot.session.state == SessionState::Online).await;
    assert_eq!(snapshot.session.sessions, 1);
}
