//! A controller that does what a test says: accepts or refuses, and speaks frame by frame.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use aio_protocol::{
    time::Timestamp,
    wire::{
        Body, ConnectionAck, Frame, Heartbeat, Register, RegisterAck, SUBPROTOCOL, WorkerMessage, encode,
    },
};
use futures_util::{SinkExt, StreamExt};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{Callback, ErrorResponse, Request, Response},
        http::{HeaderValue, StatusCode},
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};
use uuid::Uuid;

pub(crate) const NODE: &str = "69396100cd71623c7bbfbfee";

/// Nothing in these tests takes as long as this unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// A refusal of the upgrade.
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<&'static str>,
    pub(crate) code: &'static str,
}

pub(crate) struct Controller {
    pub(crate) url: String,
    peers: mpsc::UnboundedReceiver<Peer>,
    attempts: mpsc::UnboundedReceiver<Attempt>,
    refusals: Arc<Mutex<VecDeque<Refusal>>>,
}

/// One try to connect.
pub(crate) struct Attempt {
    pub(crate) at: Instant,
    pub(crate) authorization: String,
}

pub(crate) struct Peer {
    socket: WebSocketStream<TcpStream>,
}

impl Controller {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/ws/node", listener.local_addr().unwrap());
        let (peer_sender, peers) = mpsc::unbounded_channel();
        let (attempt_sender, attempts) = mpsc::unbounded_channel();
        let refusals = Arc::new(Mutex::new(VecDeque::<Refusal>::new()));
        let script = refusals.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let refusal = script.lock().unwrap().pop_front();
                let doorman = Doorman { refusal, attempts: attempt_sender.clone() };
                if let Ok(socket) = accept_hdr_async(stream, doorman).await
                    && peer_sender.send(Peer { socket }).is_err()
                {
                    return;
                }
            }
        });
        Self { url, peers, attempts, refusals }
    }

    /// The next attempts are refused like this, one each.
    pub(crate) fn refuse(&self, refusals: impl IntoIterator<Item = Refusal>) {
        self.refusals.lock().unwrap().extend(refusals);
    }

    /// The next accepted connection.
    pub(crate) async fn peer(&mut self) -> Peer {
        timeout(PATIENCE, self.peers.recv()).await.expect("nobody connected").unwrap()
    }

    /// The next connection, welcomed at this pace.
    pub(crate) async fn welcomed(&mut self, heartbeat_millis: u64) -> (Peer, Register) {
        let mut peer = self.peer().await;
        let register = peer.welcome(heartbeat_millis).await;
        (peer, register)
    }

    /// The next try, whatever becomes of it.
    pub(crate) async fn attempt(&mut self) -> Attempt {
        timeout(PATIENCE, self.attempts.recv()).await.expect("nobody tried").unwrap()
    }
}

/// Meets one attempt at the door.
struct Doorman {
    refusal: Option<Refusal>,
    attempts: mpsc::UnboundedSender<Attempt>,
}

impl Callback for Doorman {
    fn on_request(self, request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
        let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let authorization = header("authorization").unwrap_or_default();
        let _ = self.attempts.send(Attempt { at: Instant::now(), authorization });
        assert_eq!(header("sec-websocket-protocol").as_deref(), Some(SUBPROTOCOL));
        if let Some(Refusal { status, retry_after, code }) = self.refusal {
            let body = serde_json::json!({
                "statusCode": status, "error": "Refused", "message": "said in words", "code": code,
            });
            let mut response = ErrorResponse::new(Some(body.to_string()));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            if let Some(text) = retry_after {
                response.headers_mut().insert("retry-after", HeaderValue::from_static(text));
            }
            return Err(response);
        }
        response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
        Ok(response)
    }
}

impl Peer {
    pub(crate) async fn acknowledge_connection(&mut self) {
        let ack = ConnectionAck {
            status: "success".into(),
            node_id: NODE.parse().unwrap(),
            controller_id: "main".into(),
            server_version: "1.0.0".into(),
        };
        let text = ack.encode_for_both_generations(Uuid::now_v7(), Timestamp::from_millis(0)).unwrap();
        self.send_text(text).await;
    }

    pub(crate) async fn welcome(&mut self, heartbeat_millis: u64) -> Register {
        self.acknowledge_connection().await;
        let register = self.register().await;
        self.pace(heartbeat_millis, 3_600_000).await;
        register
    }

    pub(crate) async fn pace(&mut self, heartbeat_millis: u64, metrics_millis: u64) {
        let ack = RegisterAck {
            heartbeat_interval: heartbeat_millis,
            metrics_interval: metrics_millis,
            pending_commands: vec![],
        };
        self.send(&ack).await;
    }

    pub(crate) async fn send<B: Body>(&mut self, body: &B) -> Uuid {
        let id = Uuid::now_v7();
        self.send_text(encode(body, id, Timestamp::from_millis(0)).unwrap()).await;
        id
    }

    pub(crate) async fn send_text(&mut self, text: impl Into<String>) {
        self.socket.send(Message::text(text.into())).await.unwrap();
    }

    /// The next message. Pings are answered on the way, as every WebSocket library does.
    pub(crate) async fn message(&mut self) -> Frame<WorkerMessage> {
        self.next().await.expect("the worker closed the connection")
    }

    /// The next message; none when the worker has closed.
    pub(crate) async fn next(&mut self) -> Option<Frame<WorkerMessage>> {
        loop {
            let message = timeout(PATIENCE, self.socket.next()).await.expect("the worker says nothing");
            match message {
                Some(Ok(Message::Text(text))) => return Some(WorkerMessage::decode(text.as_str()).unwrap()),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// The first message of which `wanted` makes something.
    pub(crate) async fn until<T>(&mut self, mut wanted: impl FnMut(WorkerMessage) -> Option<T>) -> T {
        let search = async {
            loop {
                if let Some(found) = wanted(self.message().await.message) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, search).await.expect("what was waited for did not come")
    }

    pub(crate) async fn register(&mut self) -> Register {
        self.until(|message| match message {
            WorkerMessage::Register(register) => Some(register),
            _ => None,
        })
        .await
    }

    pub(crate) async fn heartbeat(&mut self) -> Heartbeat {
        self.until(|message| match message {
            WorkerMessage::Heartbeat(heartbeat) => Some(heartbeat),
            _ => None,
        })
        .await
    }

    /// The next message that is neither heartbeat nor metrics.
    pub(crate) async fn rare_message(&mut self) -> WorkerMessage {
        self.until(|message| match message {
            WorkerMessage::Heartbeat(_) | WorkerMessage::Metrics(_) => None,
            message => Some(message),
        })
        .await
    }

    pub(crate) async fn close(mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.to_owned().into() };
        self.socket.close(Some(frame)).await.unwrap();
        while self.next().await.is_some() {}
    }
}
