//! One worker's connection: reads frames, lets `session` say what they mean, and does it, strictly in order. A frame's effects are
//! done before the next frame is read, so a pong proves that everything before its ping was handled.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use aio_protocol::{
    ids::NodeId,
    transition,
    wire::{self, Body, ConnectionAck, ErrorMessage, RegisterAck, close},
};
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use tokio::{
    sync::oneshot,
    time::{MissedTickBehavior, interval_at, sleep_until, timeout},
};
use uuid::Uuid;

use super::{
    registry::Epoch,
    session::{self, Effect, Input, State},
};
use crate::{
    app::App,
    clock,
    lifecycle::{LifecycleError, Occurrence},
};

/// Which controller of a group answers; there is one.
const CONTROLLER_ID: &str = "main";

/// Keeps proxies from closing a quiet connection.
const PING: Duration = Duration::from_secs(20);

/// A worker that does not take a frame for this long is gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// So long a closed connection may take to say that it has understood.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest pace of heartbeats, and the pace of metrics.
const MAX_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(30);
const METRICS_INTERVAL: Duration = Duration::from_secs(60);

/// The number of an error that says that the node's status does not allow what a message reports.
const REFUSED_ERROR: u32 = 2002;

struct Connection {
    app: Arc<App>,
    node: NodeId,
    address: IpAddr,
    epoch: Epoch,
    socket: WebSocket,
    state: State,
}

/// How a connection ends.
enum End {
    /// The worker closed it, or it broke.
    Gone,
    /// This end closes it.
    Close { code: u16, reason: &'static str },
}

/// Serves a worker's connection until it ends.
pub(super) async fn run(app: Arc<App>, node: NodeId, address: IpAddr, socket: WebSocket) {
    let (epoch, closed) = app.registry.enter(&node);
    let mut connection = Connection { app, node, address, epoch, socket, state: State::Greeted };
    tracing::debug!(node = %connection.node, %address, "a worker connected");
    let end = connection.converse(closed).await;
    connection.finish(end).await;
}

fn reason(code: u16) -> &'static str {
    match code {
        close::SUPERSEDED => "another connection of this node took its place",
        close::SILENT => "nothing was heard for a whole lease",
        _ => "closed by the controller",
    }
}

impl Connection {
    async fn converse(&mut self, mut closed: oneshot::Receiver<u16>) -> End {
        match self.greet().await {
            Ok(()) => {}
            Err(end) => return end,
        }
        let registration_due = sleep_until((Instant::now() + self.app.register_timeout).into());
        tokio::pin!(registration_due);
        let mut registration_awaited = true;
        let mut ping = interval_at((Instant::now() + PING).into(), PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = self.app.stop.clone();
        loop {
            // What a frame asks for is done outside of the select's futures, so that nothing ever stops half-way.
            let result = tokio::select! {
                biased;
                () = stop.cancelled() => Err(End::Close { code: close::RESTART, reason: "the controller restarts" }),
                Ok(code) = &mut closed => Err(End::Close { code, reason: reason(code) }),
                () = &mut registration_due, if registration_awaited => {
                    registration_awaited = false;
                    self.take(Input::RegistrationDue).await
                }
                _ = ping.tick() => self.send(Message::Ping(Default::default())).await,
                frame = self.socket.recv() => match frame {
                    Some(Ok(Message::Text(text))) => self.take(Input::Received(&text)).await,
                    Some(Ok(Message::Binary(_))) => self.take(Input::ReceivedBinary).await,
                    // The library answers pings by itself, at its next read or write: after all that came before.
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
                    Some(Ok(Message::Close(_))) | None => Err(End::Gone),
                    Some(Err(error)) => Err(broken(&error)),
                },
            };
            if let Err(end) = result {
                return end;
            }
        }
    }

    async fn greet(&mut self) -> Result<(), End> {
        let ack = ConnectionAck {
            status: "success".into(),
            node_id: self.node.clone(),
            controller_id: CONTROLLER_ID.into(),
            server_version: env!("CARGO_PKG_VERSION").into(),
        };
        self.send_text(ack.encode_for_both_generations(Uuid::now_v7(), clock::now())).await
    }

    async fn take(&mut self, input: Input<'_>) -> Result<(), End> {
        let (state, effects) = session::step(self.state, input, &self.node);
        self.state = state;
        for effect in effects {
            self.carry_out(effect).await?;
        }
        Ok(())
    }

    async fn carry_out(&mut self, effect: Effect) -> Result<(), End> {
        match effect {
            Effect::RenewLease => {
                // Another connection has taken over: this one is not heard any more.
                if self.app.registry.is_current(&self.node, self.epoch) {
                    self.app.lifecycle.workers.renew(&self.node, Instant::now(), clock::now());
                }
                Ok(())
            }
            Effect::Welcome { register, first, .. } => {
                let occurrence = Occurrence::Welcomed { register, address: self.address, first };
                self.happen(&occurrence, None).await?;
                self.say(&self.pace()).await
            }
            Effect::Report { report, message_id } => {
                self.happen(&Occurrence::Reported(report), Some(message_id)).await
            }
            Effect::Leave(reason) => self.happen(&Occurrence::Left { reason: reason.as_str() }, None).await,
            Effect::AskState(request) => self.say(&request).await,
            Effect::Complain(error) => self.say(&error).await,
            Effect::Close { code, reason } => Err(End::Close { code, reason }),
        }
    }

    /// Lets something happen to the node, if this is still the connection that speaks for it.
    async fn happen(&mut self, occurrence: &Occurrence, reported_in: Option<Uuid>) -> Result<(), End> {
        let outcome = {
            let Self { app, node, epoch, .. } = &*self;
            let turn = app.lifecycle.turn(node).await;
            if !app.registry.is_current(node, *epoch) {
                return Ok(());
            }
            turn.apply(occurrence, &format!("node:{node}")).await
        };
        match outcome {
            Ok(_) => Ok(()),
            Err(LifecycleError::Refused { status, trigger }) if reported_in.is_some() => {
                let allowed = transition::allowed(status).join(", ");
                let message =
                    format!("a node that is {status} does not take `{}`, only {allowed}", trigger.as_str());
                self.say(&ErrorMessage { code: REFUSED_ERROR, message, original_message_id: reported_in })
                    .await
            }
            // The node was decommissioned or removed while its worker was connected.
            Err(LifecycleError::Refused { .. } | LifecycleError::NotFound(_)) => {
                Err(End::Close { code: close::TOKEN_ENDED, reason: "the node is no longer in service" })
            }
            Err(error @ (LifecycleError::Store(_) | LifecycleError::Contended(_))) => {
                tracing::warn!(node = %self.node, error = &error as &dyn std::error::Error, "a worker's message could not be stored");
                Err(End::Close { code: close::TRY_LATER, reason: "the controller cannot store this now" })
            }
        }
    }

    /// Three heartbeats fit into a lease.
    fn pace(&self) -> RegisterAck {
        let heartbeat = MAX_HEARTBEAT_INTERVAL.min(self.app.lifecycle.workers.length() / 3);
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        RegisterAck {
            heartbeat_interval: millis(heartbeat),
            metrics_interval: millis(METRICS_INTERVAL),
            pending_commands: Vec::new(),
        }
    }

    async fn say(&mut self, body: &impl Body) -> Result<(), End> {
        self.send_text(wire::encode(body, Uuid::now_v7(), clock::now())).await
    }

    async fn send_text(&mut self, text: Result<String, serde_json::Error>) -> Result<(), End> {
        match text {
            Ok(text) => self.send(Message::text(text)).await,
            Err(error) => {
                tracing::error!(node = %self.node, %error, "a message could not be written");
                Err(End::Gone)
            }
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        match timeout(SEND_TIMEOUT, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::Gone),
        }
    }

    /// Notes that the node is not connected, unless another connection counts by now, and closes what is to be closed.
    async fn finish(mut self, end: End) {
        self.disconnect().await;
        let End::Close { code, reason } = end else { return };
        tracing::debug!(node = %self.node, code, reason, "a worker's connection is closed");
        let frame = CloseFrame { code, reason: reason.into() };
        if self.send(Message::Close(Some(frame))).await.is_ok() {
            // Its answer is waited for: a socket that is dropped with something unread loses what was sent last.
            let answer = async { while let Some(Ok(_)) = self.socket.recv().await {} };
            let _ = timeout(CLOSE_TIMEOUT, answer).await;
        }
    }

    async fn disconnect(&mut self) {
        let turn = self.app.lifecycle.turn(&self.node).await;
        let counts = self.app.registry.leave(&self.node, self.epoch);
        // At a stop nothing is noted: the next start begins with nobody connected.
        if !counts || self.app.stop.is_cancelled() {
            return;
        }
        if let Err(error) = turn.disconnect().await {
            tracing::warn!(node = %self.node, error = &error as &dyn std::error::Error, "a lost connection could not be noted");
        }
    }
}

/// The frame limit is the one fault of a peer that the library itself finds and that deserves a code of its own.
fn broken(error: &axum::Error) -> End {
    if error.to_string().contains("too long") {
        End::Close { code: close::TOO_LARGE, reason: "the frame is larger than 64 KiB" }
    } else {
        End::Gone
    }
}
