//! A controller that speaks AIWM's dialect, a node that was set up by it, and a peer that speaks Engine.IO
//! over a WebSocket, frame by frame.

use std::time::Duration;

use controller_stub::config::{Aiwm, Config};
use futures_util::{SinkExt, StreamExt};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use crate::harness::{Client, Controller, answer};

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) async fn controller() -> Controller {
    controller_with(|_| {}).await
}

pub(crate) async fn controller_with(change: impl FnOnce(&mut Config)) -> Controller {
    Controller::start_with(|config| {
        config.aiwm = Some(Aiwm::Lenient);
        // What one client may ask in a second is the own API's test.
        config.api_requests_per_second = None;
        change(config);
    })
    .await
}

/// A node with the token of its setup, its secret and its node token.
pub(crate) struct Node {
    pub id: String,
    pub setup: String,
    pub secret: String,
    pub token: String,
}

pub(crate) async fn post(client: &Client, path: &str, body: Value) -> (StatusCode, Value) {
    answer(client.request(Method::POST, path).json(&body)).await
}

pub(crate) async fn registered(owner: &Client, name: &str) -> String {
    let (status, node) = post(owner, "/nodes", json!({"name": name, "role": ["worker"]})).await;
    assert_eq!(status, 201, "{node}");
    node["_id"].as_str().unwrap().to_owned()
}

pub(crate) async fn setup_token(owner: &Client, id: &str) -> String {
    let (status, guide) = post(owner, &format!("/nodes/{id}/setup-guide"), json!({"os": "ubuntu"})).await;
    assert_eq!(status, 200, "{guide}");
    guide["installCommand"].as_str().unwrap().rsplit(' ').next().unwrap().to_owned()
}

/// Takes a new node the whole way in.
pub(crate) async fn node(controller: &Controller, owner: &Client, name: &str) -> Node {
    let nobody = controller.nobody();
    let id = registered(owner, name).await;
    let setup = setup_token(owner, &id).await;
    let (status, opened) = post(&nobody, "/nodes/auth/bootstrap", json!({"setupToken": setup})).await;
    assert_eq!(status, 200, "{opened}");
    assert_eq!(opened["nodeId"], json!(id));
    let secret = opened["secret"].as_str().unwrap().to_owned();
    let token = login(&nobody, &id, &secret).await;
    Node { id, setup, secret, token }
}

pub(crate) async fn login(nobody: &Client, id: &str, secret: &str) -> String {
    let (status, login) = post(nobody, "/nodes/auth/login", json!({"id": id, "secret": secret})).await;
    assert_eq!(status, 200, "{login}");
    login["accessToken"].as_str().unwrap().to_owned()
}

/// One Engine.IO connection.
pub(crate) struct Peer {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// The packet that opened it.
    pub open: Value,
    /// Answers no ping.
    pub silent: bool,
}

/// What a connection brought next.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard {
    Text(String),
    /// With the code of the close frame.
    Closed(Option<u16>),
    /// Without a close frame.
    Cut,
}

impl Peer {
    pub(crate) async fn connect(controller: &Controller) -> Self {
        let address = controller.address();
        let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket");
        let (socket, _) = connect_async(url).await.unwrap();
        let mut peer = Self { socket, open: Value::Null, silent: false };
        let open = peer.text().await;
        peer.open = serde_json::from_str(open.strip_prefix('0').unwrap()).unwrap();
        peer
    }

    /// A worker that has joined and was greeted.
    pub(crate) async fn joined(controller: &Controller, token: &str) -> Self {
        let mut peer = Self::connect(controller).await;
        peer.join(token).await;
        let joined = peer.text().await;
        assert!(joined.starts_with("40/ws/node,{\"sid\":\""), "{joined}");
        let ack = peer.event("connection.ack").await;
        assert_eq!(ack["status"], "success", "{ack}");
        peer
    }

    /// A worker that has registered, too.
    pub(crate) async fn welcomed(controller: &Controller, token: &str) -> Self {
        let mut peer = Self::joined(controller, token).await;
        peer.register().await;
        peer
    }

    pub(crate) async fn join(&mut self, token: &str) {
        self.say(&format!("40/ws/node,{}", json!({ "token": token }))).await;
    }

    pub(crate) async fn register(&mut self) -> Value {
        self.emit("node.register", json!({"data": {"systemInfo": system_info()}})).await;
        self.event("register.ack").await
    }

    pub(crate) async fn emit(&mut self, event: &str, message: Value) {
        self.say(&format!("42/ws/node,{}", json!([event, message]))).await;
    }

    pub(crate) async fn heartbeat(&mut self, data: Value) {
        self.emit("telemetry.heartbeat", json!({"type": "telemetry.heartbeat", "data": data})).await;
    }

    pub(crate) async fn say(&mut self, text: &str) {
        self.send(Message::text(text)).await;
    }

    pub(crate) async fn send(&mut self, message: Message) {
        let _ = self.socket.send(message).await;
    }

    /// What comes next; pings of both kinds are answered.
    pub(crate) async fn hear(&mut self) -> Heard {
        self.hear_within(PATIENCE).await.expect("something comes in time")
    }

    pub(crate) async fn hear_within(&mut self, patience: Duration) -> Option<Heard> {
        let next = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) if text.as_str() == "2" && self.silent => {}
                    Some(Ok(Message::Text(text))) if text.as_str() == "2" => self.say("3").await,
                    Some(Ok(Message::Text(text))) => return Heard::Text(text.to_string()),
                    Some(Ok(Message::Close(frame))) => return Heard::Closed(frame.map(|it| it.code.into())),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Heard::Cut,
                }
            }
        };
        timeout(patience, next).await.ok()
    }

    pub(crate) async fn text(&mut self) -> String {
        match self.hear().await {
            Heard::Text(text) => text,
            other => panic!("{other:?}"),
        }
    }

    /// The next message, which must be this event.
    pub(crate) async fn event(&mut self, name: &str) -> Value {
        let text = self.text().await;
        let event = text.strip_prefix("42/ws/node,").unwrap_or_else(|| panic!("{text}"));
        let event: Value = serde_json::from_str(event).unwrap();
        assert_eq!(event[0], name, "{event}");
        event[1].clone()
    }

    /// Everything that was said before is received, and nothing was answered to it.
    pub(crate) async fn nothing_came(&mut self) {
        self.send(Message::Ping(b"12345678".to_vec().into())).await;
        let pong = timeout(PATIENCE, async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Pong(payload))) => return payload,
                    Some(Ok(Message::Text(text))) if text.as_str() == "2" => self.say("3").await,
                    other => panic!("{other:?}"),
                }
            }
        });
        assert_eq!(&pong.await.unwrap()[..], b"12345678");
    }

    /// The peer says goodbye and closes, as the worker does.
    pub(crate) async fn leave(mut self) {
        self.say("41/ws/node,").await;
        let _ = self.socket.close(None).await;
    }
}

pub(crate) fn system_info() -> Value {
    json!({
        "os": {"name": "Ubuntu", "version": "24.04", "kernel": "6.8.0", "platform": "linux"},
        "architecture": {"cpu": "x86_64", "bits": 64, "endianness": "LE"},
        "hardware": {
            "cpu": {"model": "c", "vendor": "v", "sockets": 1, "coresPerSocket": 4, "threadsPerCore": 2, "totalCores": 4,
                "frequency": 3000, "cacheSize": 1024, "details": []},
            "memory": {"total": 68_719_476_736_u64},
            "disk": {"total": 1000, "devices": []},
            "network": {"publicIp": "192.0.2.1", "ports": {}, "interfaces": [], "connectivity": {}},
            "gpu": [{"deviceId": "0", "model": "NVIDIA L4", "vendor": "NVIDIA", "memoryTotal": 24_000_000_000_u64,
                "capabilities": []}],
        },
        "containerRuntime": {"type": "docker", "version": "27", "apiVersion": "1.47", "storage": {}},
        "virtualization": {"type": "none", "role": "host"},
    })
}
