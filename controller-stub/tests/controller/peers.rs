//! Whom the controller talks to, scripted: a worker on its socket, and a NOTI that answers as it is told.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest, http::HeaderValue},
};

const PATIENCE: Duration = Duration::from_secs(10);

/// A worker's end of the socket.
pub(crate) struct Worker {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub node: String,
    /// The process that it claims to be.
    pub instance: uuid::Uuid,
    /// Whether it goes on when its connection breaks.
    may_fail: bool,
}

/// Dials as a worker does, with what the test wants to be different.
pub(crate) async fn dial(
    url: &str,
    token: Option<&str>,
    protocol: Option<&str>,
) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>, Error> {
    dial_from(Ipv4Addr::LOCALHOST, url, token, protocol).await
}

/// Dials as a worker at another address of this machine.
pub(crate) async fn dial_from(
    source: Ipv4Addr,
    url: &str,
    token: Option<&str>,
    protocol: Option<&str>,
) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>, Error> {
    dial_with(source, url, token, protocol, None).await
}

async fn dial_with(
    source: Ipv4Addr,
    url: &str,
    token: Option<&str>,
    protocol: Option<&str>,
    forwarded_for: Option<&str>,
) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>, Error> {
    let mut request = url.into_client_request().unwrap();
    if let Some(address) = forwarded_for {
        request.headers_mut().insert("x-forwarded-for", address.parse().unwrap());
    }
    if let Some(token) = token {
        let bearer = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        request.headers_mut().insert("authorization", bearer);
    }
    if let Some(protocol) = protocol {
        request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
    }
    let server = url.strip_prefix("ws://").and_then(|rest| rest.split_once('/')).unwrap().0.parse().unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((source, 0).into()).unwrap();
    let stream = socket.connect(server).await?;
    stream.set_nodelay(true).unwrap();
    client_async(request, MaybeTlsStream::Plain(stream)).await.map(|(socket, _)| socket)
}

impl Worker {
    /// Connects and takes the greeting.
    pub(crate) async fn connect(url: &str, node: &str, token: &str) -> Self {
        Self::connect_from(Ipv4Addr::LOCALHOST, url, node, token).await
    }

    async fn connect_from(source: Ipv4Addr, url: &str, node: &str, token: &str) -> Self {
        let socket = dial_from(source, url, Some(token), Some("aio.node.v1")).await.unwrap();
        Self::greeted(socket, node).await
    }

    /// Connects as through a proxy that says for whom.
    pub(crate) async fn connect_through(url: &str, node: &str, token: &str, address: &str) -> Self {
        let protocol = Some("aio.node.v1");
        let socket = dial_with(Ipv4Addr::LOCALHOST, url, Some(token), protocol, Some(address)).await.unwrap();
        Self::greeted(socket, node).await
    }

    async fn greeted(socket: WebSocketStream<MaybeTlsStream<TcpStream>>, node: &str) -> Self {
        let mut worker =
            Self { socket, node: node.to_owned(), instance: uuid::Uuid::new_v4(), may_fail: false };
        let ack = worker.receive("connection_ack").await;
        assert_eq!(ack["nodeId"], node, "{ack}");
        worker
    }

    /// Connects, or does not; what it says later may be lost with its connection.
    pub(crate) async fn attempt(url: &str, node: &str, token: &str) -> Option<Self> {
        let socket = dial(url, Some(token), Some("aio.node.v1")).await.ok()?;
        let mut worker =
            Self { socket, node: node.to_owned(), instance: uuid::Uuid::new_v4(), may_fail: true };
        let ack = worker.receive_within(PATIENCE).await?;
        (ack["type"] == "connection_ack").then_some(worker)
    }

    /// Connects and registers.
    pub(crate) async fn welcomed(url: &str, node: &str, token: &str) -> Self {
        let mut worker = Self::connect(url, node, token).await;
        worker.register().await;
        worker.receive("register.ack").await;
        worker
    }

    /// Connects as this process; registers and does not wait for the answer.
    pub(crate) async fn registering(url: &str, node: &str, token: &str, instance: uuid::Uuid) -> Self {
        Self::registering_from(Ipv4Addr::LOCALHOST, url, node, token, instance).await
    }

    pub(crate) async fn registering_from(
        source: Ipv4Addr,
        url: &str,
        node: &str,
        token: &str,
        instance: uuid::Uuid,
    ) -> Self {
        let mut worker = Self::connect_from(source, url, node, token).await;
        worker.instance = instance;
        worker.register().await;
        worker
    }

    pub(crate) async fn send_text(&mut self, text: impl Into<String>) {
        let sent = self.socket.send(Message::text(text.into())).await;
        assert!(sent.is_ok() || self.may_fail, "{sent:?}");
    }

    pub(crate) async fn send(&mut self, kind: &str, mut data: Value) {
        if data.get("nodeId").is_none() {
            data["nodeId"] = json!(self.node);
        }
        let frame = json!({"type": kind, "messageId": uuid::Uuid::new_v4(), "timestamp": "2025-12-11T12:00:00.000Z", "data": data});
        self.send_text(frame.to_string()).await;
    }

    /// Registers as a worker that updates itself, of this version and with this to say of updates.
    pub(crate) async fn register_updating(&mut self, version: &str, update: Value) {
        let info = json!({
            "os": {"name": "Ubuntu", "version": "22.04", "kernel": "5.15.0", "hostname": "gpu-worker-01"},
            "architecture": "x86_64",
            "hardware": {"cpu": {"model": "EPYC", "threads": 128}, "memory": {"total": 1_099_511_627_776_u64},
                "disk": [], "network": [], "gpu": [], "gpuDriver": {"state": "absent"}}});
        let data = json!({"instanceId": self.instance, "bootId": "boot", "daemonVersion": version,
            "capabilities": ["update.v1"], "update": update, "systemInfo": info});
        self.send("node.register", data).await;
    }

    pub(crate) async fn register(&mut self) {
        let gpu =
            json!([{"deviceId": "0", "model": "NVIDIA A100-SXM4-80GB", "memoryTotal": 85_899_345_920_u64}]);
        let info = json!({
            "os": {"name": "Ubuntu", "version": "22.04", "kernel": "5.15.0", "hostname": "gpu-worker-01"},
            "architecture": "x86_64",
            "hardware": {"cpu": {"model": "EPYC", "cores": 64, "threads": 128}, "memory": {"total": 1_099_511_627_776_u64},
                "disk": [], "network": [], "gpu": gpu, "gpuDriver": {"state": "ok", "version": "550.54"}}});
        let data = json!({"instanceId": self.instance, "bootId": "boot", "daemonVersion": "1.0.0", "capabilities": [],
            "systemInfo": info});
        self.send("node.register", data).await;
    }

    pub(crate) async fn heartbeat(&mut self, seq: u64) {
        let data = json!({"seq": seq, "status": "online", "uptimeSeconds": 5, "cpuUsage": 1.5, "ramUsage": 2.5,
            "activeDeployments": 0, "gpuStatus": [], "health": {"state": "ok"}});
        self.send("telemetry.heartbeat", data).await;
    }

    /// Sends a ping and waits for its pong: everything before it has then been handled. Says which
    /// messages came before it.
    pub(crate) async fn ping(&mut self) -> Vec<Value> {
        let payload = uuid::Uuid::new_v4().as_bytes().to_vec();
        self.socket.send(Message::Ping(payload.clone().into())).await.unwrap();
        let mut before = Vec::new();
        loop {
            match self.next().await {
                Message::Pong(answer) if answer[..] == payload[..] => return before,
                Message::Text(text) => before.push(serde_json::from_str(&text).unwrap()),
                Message::Ping(_) => {}
                other => panic!("{other:?} instead of a pong"),
            }
        }
    }

    /// The next message, if one comes within this time.
    pub(crate) async fn receive_within(&mut self, time: Duration) -> Option<Value> {
        loop {
            match timeout(time, self.socket.next()).await.ok()?? {
                Ok(Message::Text(text)) => return serde_json::from_str(&text).ok(),
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                _ => return None,
            }
        }
    }

    /// The code that the controller closes with, if it does so within this time.
    pub(crate) async fn close_within(&mut self, time: Duration) -> Option<u16> {
        let close = async {
            loop {
                match self.socket.next().await? {
                    Ok(Message::Close(frame)) => return Some(frame?.code.into()),
                    Ok(_) => {}
                    Err(error) => panic!("{error} and no close"),
                }
            }
        };
        timeout(time, close).await.ok().flatten()
    }

    /// Whether its socket is open: a ping has its pong.
    pub(crate) async fn is_open(&mut self) -> bool {
        if self.socket.send(Message::Ping(Vec::new().into())).await.is_err() {
            return false;
        }
        loop {
            match timeout(PATIENCE, self.socket.next()).await {
                Ok(Some(Ok(Message::Pong(_)))) => return true,
                Ok(Some(Ok(Message::Text(_) | Message::Ping(_)))) => {}
                _ => return false,
            }
        }
    }

    async fn next(&mut self) -> Message {
        timeout(PATIENCE, self.socket.next()).await.expect("a frame in time").expect("a frame").unwrap()
    }

    /// The next message, which must be of this type.
    pub(crate) async fn receive(&mut self, kind: &str) -> Value {
        loop {
            match self.next().await {
                Message::Text(text) => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    assert_eq!(message["type"], kind, "{message}");
                    return message;
                }
                Message::Ping(_) => {}
                other => panic!("{other:?} instead of {kind}"),
            }
        }
    }

    /// The code that the controller closes with; messages before it do not count.
    pub(crate) async fn closed(&mut self) -> u16 {
        loop {
            match self.next().await {
                Message::Close(Some(frame)) => {
                    // Reading on is what answers the close.
                    while let Ok(Some(Ok(_))) = timeout(PATIENCE, self.socket.next()).await {}
                    return frame.code.into();
                }
                Message::Close(None) => panic!("closed without a code"),
                _ => {}
            }
        }
    }

    pub(crate) async fn send_raw(&mut self, message: Message) -> Result<(), Error> {
        self.socket.send(message).await
    }

    /// The socket under it, to be used otherwise than the protocol says.
    pub(crate) fn bare(self) -> TcpStream {
        match self.socket.into_inner() {
            MaybeTlsStream::Plain(stream) => stream,
            _ => panic!("it is encrypted"),
        }
    }
}

/// A NOTI that answers each post with the next status of a script, and with 202 when the script is
/// over. 429 asks for a second.
pub(crate) struct FakeNoti {
    pub address: SocketAddr,
    state: Arc<Mutex<Posts>>,
}

#[derive(Default)]
struct Posts {
    script: VecDeque<StatusCode>,
    posts: Vec<Post>,
}

/// What was posted.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    pub headers: HeaderMap,
    pub body: Bytes,
    /// How it was answered.
    pub status: StatusCode,
    pub at: Instant,
}

impl Post {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no header {name}")).to_str().unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl FakeNoti {
    pub(crate) async fn start(script: &[u16]) -> Self {
        let script = script.iter().map(|status| StatusCode::from_u16(*status).unwrap()).collect();
        let state = Arc::new(Mutex::new(Posts { script, posts: Vec::new() }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let kept = state.clone();
        let handler = move |headers: HeaderMap, body: Bytes| async move {
            let mut state = kept.lock().unwrap();
            let status = state.script.pop_front().unwrap_or(StatusCode::ACCEPTED);
            state.posts.push(Post { headers, body, status, at: Instant::now() });
            let retry_after = if status == StatusCode::TOO_MANY_REQUESTS { "1" } else { "" };
            (status, [("location", "http://127.0.0.1:1/elsewhere"), ("retry-after", retry_after)])
        };
        let router = Router::new().route("/noti/events", post(handler));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/noti", self.address)
    }

    pub(crate) fn posts(&self) -> Vec<Post> {
        self.state.lock().unwrap().posts.clone()
    }
}
