//! The socket of a worker that comes and goes.

use std::{io::ErrorKind, net::TcpStream, time::Duration};

use aio_protocol::wire::SUBPROTOCOL;
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tungstenite::{Bytes, Error, Message as Frame, WebSocket, client::IntoClientRequest, http::HeaderValue};
use uuid::Uuid;

use crate::controller::Enrolled;

/// How long a look at what has come waits.
const LOOK: Duration = Duration::from_millis(20);

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);

pub(super) struct Socket {
    node: String,
    socket: WebSocket<TcpStream>,
}

impl Socket {
    /// Connects at `address` and registers.
    pub(super) fn open(stream: TcpStream, address: &str, node: &Enrolled) -> Result<Self> {
        let mut request = format!("ws://{address}/ws/node").into_client_request()?;
        let headers = request.headers_mut();
        headers.insert("authorization", HeaderValue::from_str(&format!("Bearer {}", node.token))?);
        headers.insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
        let (socket, _) = tungstenite::client(request, stream).map_err(|error| anyhow::anyhow!("{error}"))?;
        let mut socket = Self { node: node.node_id.to_string(), socket };
        let info = json!({
            "os": {"name": "Ubuntu", "version": "22.04", "kernel": "5.15.0", "hostname": socket.node}, "architecture": "x86_64",
            "hardware": {"cpu": {"model": "EPYC", "threads": 128}, "memory": {"total": 1_099_511_627_776_u64}, "disk": [],
                "network": [], "gpu": [], "gpuDriver": {"state": "absent"}}});
        // One machine: the same instance each time.
        let instance = format!("{}00000000", socket.node);
        let register = json!({"nodeId": socket.node, "instanceId": instance, "bootId": "b", "daemonVersion": "1.0.0",
            "capabilities": [], "systemInfo": info});
        socket.say("node.register", &register)?;
        Ok(socket)
    }

    fn say(&mut self, kind: &str, data: &Value) -> Result<()> {
        let frame = json!({"type": kind, "messageId": Uuid::nil(), "timestamp": "2025-12-11T12:00:00.000Z", "data": data});
        Ok(self.socket.send(Frame::text(frame.to_string()))?)
    }

    /// Waits for the welcome.
    pub(super) fn welcomed(&mut self) -> Result<()> {
        loop {
            let answer = self.socket.read()?;
            ensure!(!answer.is_close(), "the controller closed");
            if answer.is_text() && answer.to_text()?.contains("register.ack") {
                return Ok(());
            }
        }
    }

    /// Whether the controller has not closed it yet.
    pub(super) fn is_open(&mut self) -> Result<bool> {
        self.socket.get_ref().set_read_timeout(Some(LOOK))?;
        Ok(match self.socket.read() {
            Ok(frame) => !frame.is_close(),
            Err(Error::Io(error)) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            Err(_) => false,
        })
    }

    /// Whether the controller answers a ping.
    pub(super) fn answers(&mut self) -> bool {
        let _ = self.socket.get_ref().set_read_timeout(Some(ANSWER));
        if self.socket.send(Frame::Ping(Bytes::from_static(b"?"))).is_err() {
            return false;
        }
        loop {
            match self.socket.read() {
                Ok(Frame::Pong(_)) => return true,
                Ok(Frame::Close(_)) | Err(_) => return false,
                Ok(_) => {}
            }
        }
    }

    /// Says goodbye, and waits until the controller has heard it.
    pub(super) fn leave(&mut self) -> Result<()> {
        self.socket.get_ref().set_read_timeout(Some(ANSWER))?;
        self.say("node.disconnecting", &json!({"nodeId": self.node, "reason": "shutdown"}))?;
        self.socket.close(None)?;
        while self.socket.read().is_ok() {}
        Ok(())
    }
}
