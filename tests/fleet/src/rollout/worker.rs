//! A worker that takes part in rollouts: it prepares at once, switches when it may, and comes back as the new
//! version or the one before. Nothing of it is real but its words.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use aio_protocol::{
    release::ReleaseVersion,
    time::Timestamp,
    update::{LastUpdate, ManagedBy, UpdateReport, UpdateState, Verdict},
    wire::{
        ControllerMessage, NodeUpdate, PendingCommand, RegisterAck, SUBPROTOCOL, UpdateCancel, UpdatePermit,
    },
};
use anyhow::{Context, Result};
use futures_util::{SinkExt, StreamExt};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::ClientRequestBuilder, http::Uri},
};
use uuid::Uuid;

use crate::{controller::Enrolled, words::Words};

/// Whatever takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Between two heartbeats.
const PACE: Duration = Duration::from_secs(5);

/// For how long a new version is watched; the real one takes ten minutes.
const PROBATION: Duration = Duration::from_secs(1);

/// What a worker is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A new version works on it, unless its fate says otherwise.
    Managed,
    Pinned,
    Packaged,
}

/// What became of a worker, for whoever watches.
#[derive(Debug, Default)]
pub(super) struct Fate {
    /// Ids of the offers that came to it.
    pub offers: Mutex<Vec<Uuid>>,
    pub switches: AtomicU32,
    /// Whether a new version does not work on it.
    pub spoilt: AtomicBool,
    /// Whether it runs the new version, and its probation is over.
    pub arrived: AtomicBool,
}

pub(super) struct Worker {
    pub address: SocketAddr,
    pub source: Ipv4Addr,
    pub endpoint: Uri,
    pub node: Enrolled,
    pub kind: Kind,
    pub fate: Arc<Fate>,
}

/// What it is at present.
struct Present {
    words: Words,
    version: String,
    /// What it ran before.
    from: String,
    update: UpdateReport,
    probation_ends: Option<Instant>,
    seq: u64,
}

impl Worker {
    /// Connects and stays connected, for ever.
    pub(super) async fn run(self) {
        let mut present = Present {
            words: Words::new(self.node.node_id.clone(), 8),
            version: "1.0.0".to_owned(),
            from: "1.0.0".to_owned(),
            update: UpdateReport {
                managed_by: if self.kind == Kind::Packaged {
                    ManagedBy::Package
                } else {
                    ManagedBy::Controller
                },
                pin: (self.kind == Kind::Pinned).then(|| "v1.0.0".parse().ok()).flatten(),
                ..UpdateReport::default()
            },
            probation_ends: None,
            seq: 0,
        };
        loop {
            let _ = self.live(&mut present).await;
            // Its controller may be away, or it has just switched.
            sleep(Duration::from_millis(fastrand::u64(50..500))).await;
        }
    }

    async fn dial(&self) -> Result<WebSocketStream<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.source, 0).into())?;
        let stream = timeout(PATIENCE, socket.connect(self.address)).await??;
        stream.set_nodelay(true)?;
        let request = ClientRequestBuilder::new(self.endpoint.clone())
            .with_sub_protocol(SUBPROTOCOL)
            .with_header("Authorization", format!("Bearer {}", self.node.token));
        Ok(timeout(PATIENCE, client_async(request, stream)).await??.0)
    }

    /// One connection.
    async fn live(&self, present: &mut Present) -> Result<()> {
        let mut socket = self.dial().await?;
        present.seq = 0;
        present.register(&mut socket).await?;
        let mut beat = Instant::now() + PACE.mul_f64(fastrand::f64());
        loop {
            let next = present.probation_ends.map_or(beat, |ends| ends.min(beat));
            match timeout_at(next, socket.next()).await {
                Ok(frame) => {
                    if let Message::Text(text) = frame.context("closed")??
                        && let Ok(frame) = ControllerMessage::decode(&text)
                        && self.hear(present, &mut socket, frame.message).await?
                    {
                        sleep_until(Instant::now() + Duration::from_millis(200)).await;
                        return Ok(());
                    }
                }
                Err(_) if present.probation_ends.is_some_and(|ends| ends <= Instant::now()) => {
                    present.conclude(Verdict::Succeeded);
                    self.fate.arrived.store(true, Ordering::SeqCst);
                    present.register(&mut socket).await?;
                }
                Err(_) => {
                    beat = Instant::now() + PACE;
                    present.seq += 1;
                    socket.send(Message::text(present.words.heartbeat(present.seq))).await?;
                }
            }
        }
    }

    /// Says whether it has left to come back as another version.
    async fn hear(
        &self,
        present: &mut Present,
        socket: &mut WebSocketStream<TcpStream>,
        message: ControllerMessage,
    ) -> Result<bool> {
        match message {
            ControllerMessage::RegisterAck(RegisterAck { pending_commands, .. }) => {
                for PendingCommand { kind, data, .. } in pending_commands {
                    let left = match kind.as_str() {
                        "node.update" => {
                            self.take_offer(present, socket, serde_json::from_value(data)?).await?
                        }
                        "update.permit" => {
                            self.switch(present, socket, serde_json::from_value(data)?).await?
                        }
                        "update.cancel" => {
                            self.give_up(present, socket, serde_json::from_value(data)?).await?
                        }
                        _ => false,
                    };
                    if left {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            ControllerMessage::Update(offer) => self.take_offer(present, socket, offer).await,
            ControllerMessage::Permit(permit) => self.switch(present, socket, permit).await,
            ControllerMessage::CancelUpdate(cancel) => self.give_up(present, socket, cancel).await,
            _ => Ok(false),
        }
    }

    async fn take_offer(
        &self,
        present: &mut Present,
        socket: &mut WebSocketStream<TcpStream>,
        offer: NodeUpdate,
    ) -> Result<bool> {
        if present.update.update_id == offer.update_id {
            return Ok(false);
        }
        let id = offer.update_id.context("an offer without an id")?;
        self.fate.offers.lock().unwrap_or_else(PoisonError::into_inner).push(id);
        present.update.update_id = Some(id);
        present.update.target = Some(offer.version);
        for state in [UpdateState::Staging, UpdateState::Awaiting] {
            present.update.state = state;
            present.register(socket).await?;
        }
        Ok(false)
    }

    async fn switch(
        &self,
        present: &mut Present,
        socket: &mut WebSocketStream<TcpStream>,
        permit: UpdatePermit,
    ) -> Result<bool> {
        if present.update.state != UpdateState::Awaiting || present.update.update_id != Some(permit.update_id)
        {
            return Ok(false);
        }
        self.fate.switches.fetch_add(1, Ordering::SeqCst);
        if self.fate.spoilt.load(Ordering::SeqCst) {
            present.conclude(Verdict::Faulty);
        } else {
            let version = present.update.target.as_ref().map(ReleaseVersion::to_string).unwrap_or_default();
            present.from =
                std::mem::replace(&mut present.version, version.trim_start_matches('v').to_owned());
            present.update.state = UpdateState::Probation;
            present.probation_ends = Some(Instant::now() + PROBATION);
        }
        let goodbye = present.words.goodbye();
        present.words = Words::new(self.node.node_id.clone(), 8);
        socket.send(Message::text(goodbye)).await?;
        socket.close(None).await?;
        Ok(true)
    }

    async fn give_up(
        &self,
        present: &mut Present,
        socket: &mut WebSocketStream<TcpStream>,
        cancel: UpdateCancel,
    ) -> Result<bool> {
        if present.update.update_id == Some(cancel.update_id) && present.update.state == UpdateState::Awaiting
        {
            present.conclude(Verdict::Refused);
            if let Some(last) = &mut present.update.last {
                last.code = Some("UPDATE_CANCELLED".to_owned());
            }
            present.register(socket).await?;
        }
        Ok(false)
    }
}

impl Present {
    async fn register(&self, socket: &mut WebSocketStream<TcpStream>) -> Result<()> {
        let text = self.words.register_updating(&self.version, self.update.clone());
        Ok(socket.send(Message::text(text)).await?)
    }

    fn conclude(&mut self, verdict: Verdict) {
        self.probation_ends = None;
        let (Some(update_id), Some(version)) = (self.update.update_id.take(), self.update.target.take())
        else {
            return;
        };
        let Ok(from) = format!("v{}", self.from).parse() else { return };
        let code = (verdict == Verdict::Faulty).then(|| "UPDATE_FAULTY".to_owned());
        let at = Timestamp::from(SystemTime::now());
        self.update.last = Some(LastUpdate { update_id, from, version, verdict, code, message: None, at });
        self.update.state = UpdateState::Idle;
    }
}
