//! An AIWM that does what a test says: HTTP and a WebSocket at one address, frame by frame.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_tungstenite::{WebSocketStream, accept_async, tungstenite::Message};

use super::super::controller::{NODE, PATIENCE};

pub(super) const SECRET: &str = "7d1b0f52-0c64-4f9b-9a35-5d8e1c2b3a49";

/// A call over HTTP.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) path: String,
    pub(super) bearer: Option<String>,
    pub(super) body: Value,
}

pub(super) struct Aiwm {
    address: String,
    calls: mpsc::UnboundedReceiver<Call>,
    peers: mpsc::UnboundedReceiver<Peer>,
    script: Arc<Mutex<Script>>,
}

/// What is answered otherwise than usual.
#[derive(Default)]
pub(super) struct Script {
    /// The next answers of a path: status and body.
    answers: VecDeque<(&'static str, u16, Value)>,
    /// Seconds for which tokens hold.
    life: u64,
    given: u32,
}

impl Aiwm {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (call_sender, calls) = mpsc::unbounded_channel();
        let (peer_sender, peers) = mpsc::unbounded_channel();
        let script = Arc::new(Mutex::new(Script { life: 3600, ..Script::default() }));
        let shared = script.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, call_sender.clone(), peer_sender.clone(), shared.clone()));
            }
        });
        Self { address, calls, peers, script }
    }

    /// The credentials of a node here, as an installation leaves them.
    pub(super) fn credentials(&self) -> String {
        let Self { address, .. } = self;
        json!({"type": "aiwm-node", "nodeId": NODE, "secret": SECRET, "api": format!("http://{address}"),
            "socket": format!("ws://{address}/socket.io/?EIO=4&transport=websocket"),
            "mona": format!("http://{address}/mona"), "iat": 1})
        .to_string()
    }

    /// The next call of this path is answered like this.
    pub(super) fn answer(&self, path: &'static str, status: u16, body: Value) {
        self.script.lock().unwrap().answers.push_back((path, status, body));
    }

    /// From now on, tokens hold for so many seconds.
    pub(super) fn tokens_hold(&self, seconds: u64) {
        self.script.lock().unwrap().life = seconds;
    }

    /// The next call of this path.
    pub(super) async fn call(&mut self, path: &str) -> Call {
        let search = async {
            loop {
                let call = self.calls.recv().await.unwrap();
                if call.path == path {
                    return call;
                }
            }
        };
        timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("nobody called {path}"))
    }

    /// The calls that have come, of this path.
    pub(super) fn calls(&mut self, path: &str) -> usize {
        std::iter::from_fn(|| self.calls.try_recv().ok()).filter(|call| call.path == path).count()
    }

    /// The next connection, whose Engine.IO is open.
    pub(super) async fn peer(&mut self) -> Peer {
        let mut peer = timeout(PATIENCE, self.peers.recv()).await.expect("nobody connected").unwrap();
        peer.send(
            r#"0{"sid":"x","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#,
        )
        .await;
        peer
    }

    /// The next connection, welcomed; and its register.
    pub(super) async fn welcomed(&mut self, heartbeat_millis: u64) -> (Peer, Value) {
        let mut peer = self.peer().await;
        peer.join().await;
        peer.acknowledge().await;
        let register = peer.event("node.register").await;
        peer.pace(heartbeat_millis).await;
        (peer, register)
    }
}

async fn serve(
    mut stream: TcpStream,
    calls: mpsc::UnboundedSender<Call>,
    peers: mpsc::UnboundedSender<Peer>,
    script: Arc<Mutex<Script>>,
) {
    let mut head = vec![0; 4096];
    let is_socket = loop {
        let count = stream.peek(&mut head).await.unwrap_or(0);
        let text = String::from_utf8_lossy(&head[..count]).to_lowercase();
        if count == 0 {
            return;
        }
        if text.contains("\r\n\r\n") {
            break text.contains("upgrade: websocket");
        }
        tokio::task::yield_now().await;
    };
    if is_socket {
        if let Ok(socket) = accept_async(stream).await {
            let _ = peers.send(Peer { socket });
        }
        return;
    }
    while let Some((path, bearer, body)) = request(&mut stream).await {
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let (status, answer) = script.lock().unwrap().answer(&path);
        let _ = calls.send(Call { path, bearer, body });
        let text = answer.to_string();
        let answer = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{text}",
            text.len()
        );
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn request(stream: &mut TcpStream) -> Option<(String, Option<String>, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    };
    let mut body = vec![0; header("content-length").map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.ok()?;
    let path = head.split(' ').nth(1).unwrap().to_owned();
    Some((path, header("authorization").map(|value| value.replace("Bearer ", "")), body))
}

impl Script {
    fn answer(&mut self, path: &str) -> (u16, Value) {
        if let Some(index) = self.answers.iter().position(|(of, ..)| *of == path) {
            let (_, status, body) = self.answers.remove(index).unwrap();
            return (status, body);
        }
        match path {
            "/nodes/auth/login" | "/nodes/auth/refresh" => {
                self.given += 1;
                let token = format!("a.b.{}", self.given);
                let answer = json!({"accessToken": token, "expiresIn": self.life, "tokenType": "Bearer"});
                (200, answer)
            }
            _ => (201, json!({"success": true})),
        }
    }
}

pub(super) fn refused(status: u16, message: &str) -> Value {
    json!({"statusCode": status, "message": message, "timestamp": "2025-12-11T12:00:00.000Z", "path": "/x"})
}

pub(super) struct Peer {
    socket: WebSocketStream<TcpStream>,
}

impl Peer {
    pub(super) async fn send(&mut self, text: impl Into<String>) {
        self.socket.send(Message::text(text.into())).await.unwrap();
    }

    /// Says an event in the nodes' namespace.
    pub(super) async fn say(&mut self, name: &str, payload: Value) {
        self.send(format!("42/ws/node,[\"{name}\",{payload}]")).await;
    }

    /// The next packet; none when the worker has closed.
    pub(super) async fn next(&mut self) -> Option<String> {
        loop {
            match timeout(PATIENCE, self.socket.next()).await.expect("the worker says nothing") {
                Some(Ok(Message::Text(text))) => return Some(text.as_str().to_owned()),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    pub(super) async fn packet(&mut self) -> String {
        self.next().await.expect("the worker closed the connection")
    }

    /// Takes the join and confirms it; the token that it carries.
    pub(super) async fn join(&mut self) -> String {
        let packet = self.packet().await;
        let join: Value = serde_json::from_str(packet.strip_prefix("40/ws/node,").unwrap()).unwrap();
        self.send(r#"40/ws/node,{"sid":"y"}"#).await;
        join["token"].as_str().unwrap().to_owned()
    }

    pub(super) async fn acknowledge(&mut self) {
        self.say(
            "connection.ack",
            json!({"type": "connection.ack", "status": "success", "nodeId": NODE,
                "controllerId": "controller-main", "serverVersion": "1.0.0"}),
        )
        .await;
    }

    pub(super) async fn pace(&mut self, heartbeat_millis: u64) {
        let info = json!({"heartbeatInterval": heartbeat_millis, "metricsInterval": 3_600_000});
        let data =
            json!({"status": "success", "nodeId": NODE, "controllerInfo": info, "pendingCommands": []});
        self.say("register.ack", json!({"type": "register.ack", "data": data})).await;
    }

    /// The next event of this name.
    pub(super) async fn event(&mut self, name: &str) -> Value {
        loop {
            let packet = self.packet().await;
            let Some(list) = packet.strip_prefix("42/ws/node,") else { continue };
            let list: Vec<Value> = serde_json::from_str(list).unwrap();
            if list[0] == name {
                return list[1].clone();
            }
        }
    }

    /// Cuts the connection, as a process that is killed does.
    pub(super) fn cut(self) {
        drop(self.socket);
    }
}
