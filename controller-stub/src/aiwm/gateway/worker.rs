//! One worker that has joined: greets it, registers it, and ends its connection when another takes its place.
//! AIWM calls a node offline as soon as its connection is gone, and so does this.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use aio_protocol::{
    aiwm::{
        Envelope,
        controller::{ConnectionAck, ControllerInfo, ErrorEvent, Refusal, Registered},
        event,
    },
    ids::NodeId,
    node::NodeStatus,
    wire::close,
};
use metrics::{counter, gauge, histogram};
use serde::Serialize;
use serde_json::{Map, Value};
use socketioxide::extract::SocketRef;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    super::{
        dialect::Dialect,
        double::recording::{By, Entry},
        register,
        sockets::{
            self,
            link::{Ending, Link},
        },
    },
    admission::Admitted,
};
use crate::{
    app::App,
    clock,
    gateway::registry::Epoch,
    lifecycle::{Joined, LifecycleError, Occurrence},
    node::Node,
};

/// Which controller of a group answers; there is one.
const CONTROLLER_ID: &str = "controller-main";

const SERVER_VERSION: &str = "1.0.0";

/// Milliseconds between heartbeats, and between metrics.
const HEARTBEAT_INTERVAL: u64 = 30_000;
const METRICS_INTERVAL: u64 = 60_000;

/// What a message costs beyond its frame that makes the controller write to its database.
const WRITE: u32 = 9;

/// The `disconnectReason` of a worker whose connection ended.
const CONNECTION_LOST: &str = "connection_lost";

/// What a worker says that its task has to do.
pub(super) enum Said {
    /// The data of its `node.register`.
    Register(Map<String, Value>),
    /// A heartbeat said so while the node is set aside.
    Online,
}

/// A connection's place among those of its node.
pub(super) struct Mark {
    pub app: Arc<App>,
    pub node: NodeId,
    pub epoch: Epoch,
    /// Whether the node was set aside, as far as this connection knows.
    pub set_aside: AtomicBool,
    /// What the last heartbeat said; 0 before the first.
    pub uptime_seconds: AtomicU64,
    /// The connection has ended.
    pub gone: CancellationToken,
    calls: std::sync::Mutex<Option<Calls>>,
}

/// What others ask of a connection.
struct Calls {
    /// The code to close with.
    closed: oneshot::Receiver<u16>,
    /// The node may have changed.
    nudged: Arc<Notify>,
}

impl Mark {
    pub(super) fn new(app: &Arc<App>, node: NodeId, link: &Link) -> Arc<Self> {
        let (epoch, closed, nudged) = app.registry.enter(&node, link.since);
        Arc::new(Self {
            app: app.clone(),
            node,
            epoch,
            set_aside: AtomicBool::new(false),
            uptime_seconds: AtomicU64::new(0),
            gone: CancellationToken::new(),
            calls: std::sync::Mutex::new(Some(Calls { closed, nudged })),
        })
    }

    fn take_calls(&self) -> Option<Calls> {
        self.calls.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }
}

pub(super) struct Worker {
    pub dialect: Arc<Dialect>,
    pub socket: SocketRef,
    pub link: Arc<Link>,
    pub mark: Arc<Mark>,
    pub newcomer: Option<Box<Admitted>>,
}

/// How the connection ends.
enum End {
    /// It is gone already.
    Gone,
    /// The worker is told to go.
    SendAway,
    /// It is cut without a word, as by a controller that stops.
    Cut,
}

impl Worker {
    /// Serves a worker until its connection ends.
    pub(super) async fn serve(mut self, said: mpsc::Receiver<Said>) {
        gauge!("aio_gateway_sockets").increment(1);
        tracing::debug!(node = %self.mark.node, address = %self.link.address, "a worker of AIWM's dialect joined");
        if self.dialect.app.stop.is_cancelled() {
            // It may have entered too late to be sent away with the others.
            self.dialect.app.registry.close(&self.mark.node, close::RESTART);
        }
        let end = self.converse(said).await;
        self.leave().await;
        match end {
            End::Gone => {}
            End::SendAway => sockets::send_away(&self.socket),
            End::Cut => self.link.end(Ending::Cut),
        }
        gauge!("aio_gateway_sockets").decrement(1);
    }

    async fn converse(&mut self, mut said: mpsc::Receiver<Said>) -> End {
        let Some(Calls { mut closed, nudged }) = self.mark.take_calls() else { return End::Gone };
        if let Some(newcomer) = &self.newcomer {
            self.mark.set_aside.store(newcomer.set_aside, Ordering::Relaxed);
        }
        self.greet();
        // The newest connection counts, registered or not.
        self.dialect.app.registry.take_over(&self.mark.node, self.mark.epoch);
        let gone = self.mark.gone.clone();
        loop {
            tokio::select! {
                biased;
                Ok(code) = &mut closed => {
                    counter!("aio_gateway_closes_total", "code" => code.to_string()).increment(1);
                    return if code == close::RESTART { End::Cut } else { End::SendAway };
                }
                Some(said) = said.recv() => {
                    if let Err(end) = Box::pin(self.take(said)).await {
                        return end;
                    }
                }
                () = nudged.notified() => self.look_again().await,
                () = gone.cancelled() => return End::Gone,
            }
        }
    }

    fn greet(&self) {
        let ack = ConnectionAck {
            kind: event::CONNECTION_ACK.into(),
            message_id: Uuid::now_v7().to_string(),
            timestamp: Some(clock::now()),
            status: "success".into(),
            node_id: Some(self.mark.node.to_string()),
            controller_id: Some(CONTROLLER_ID.into()),
            server_version: Some(SERVER_VERSION.into()),
            error: None,
        };
        self.say(event::CONNECTION_ACK, &ack);
    }

    fn say(&self, name: &str, message: &impl Serialize) {
        emit(&self.dialect, &self.mark.node, &self.socket, name, message);
    }

    async fn take(&mut self, said: Said) -> Result<(), End> {
        if !self.link.spend(WRITE) {
            return Err(End::SendAway);
        }
        match said {
            Said::Register(data) => self.register(&data).await,
            Said::Online => self.happen(&Occurrence::ResumeRequested).await.map(drop),
        }
    }

    async fn register(&mut self, data: &Map<String, Value>) -> Result<(), End> {
        let registered = match register::read(data) {
            Ok(registered) => registered,
            Err(why) => {
                self.refuse_register(&why);
                return Ok(());
            }
        };
        let joined = Joined {
            system_info: registered.system_info,
            gpu_devices: registered.gpu_devices,
            daemon_version: registered.daemon_version,
            address: self.link.address,
            not_before: self.newcomer.as_ref().map(|newcomer| newcomer.not_before),
        };
        let Some(node) = self.happen(&Occurrence::Joined(Box::new(joined))).await? else { return Ok(()) };
        // A worker that registers brings its node back, whatever an admin decided before.
        if node.status == NodeStatus::Maintenance {
            self.happen(&Occurrence::ResumeRequested).await?;
        }
        if self.newcomer.take().is_some() {
            histogram!("aio_gateway_connect_seconds").record(self.link.since.elapsed());
        }
        let now = clock::now();
        let registered = Registered {
            status: "success".into(),
            node_id: self.mark.node.to_string(),
            registered_at: Some(now),
            controller_info: ControllerInfo {
                controller_id: CONTROLLER_ID.into(),
                heartbeat_interval: HEARTBEAT_INTERVAL,
                metrics_interval: METRICS_INTERVAL,
                timezone: "UTC".into(),
            },
            pending_commands: Vec::new(),
        };
        let message_id = Uuid::now_v7().to_string();
        let ack = Envelope::new(event::REGISTER_ACK, message_id, now, registered);
        self.say(event::REGISTER_ACK, &ack);
        Ok(())
    }

    fn refuse_register(&self, why: &str) {
        let code = Refusal::REGISTRATION_FAILED.into();
        let error = Refusal { code, message: why.into(), timestamp: None };
        self.say(event::ERROR, &ErrorEvent { kind: event::ERROR.into(), error });
    }

    /// Lets something happen to the node, if this is the connection that counts.
    async fn happen(&self, occurrence: &Occurrence) -> Result<Option<Node>, End> {
        let (app, mark) = (&self.dialect.app, &self.mark);
        let turn = app.lifecycle.turn(&mark.node).await;
        if !app.registry.speaks(&mark.node, mark.epoch) {
            return Ok(None);
        }
        match turn.apply(occurrence, &format!("node:{}", mark.node)).await {
            Ok(node) => {
                mark.set_aside.store(node.status == NodeStatus::Maintenance, Ordering::Relaxed);
                Ok(Some(node))
            }
            // An admin was faster.
            Err(LifecycleError::Refused { .. }) if matches!(occurrence, Occurrence::ResumeRequested) => {
                mark.set_aside.store(false, Ordering::Relaxed);
                Ok(None)
            }
            Err(
                LifecycleError::Refused { .. }
                | LifecycleError::NotFound(_)
                | LifecycleError::Revoked(_)
                | LifecycleError::Superseded(_)
                | LifecycleError::TooMany { .. },
            ) => Err(End::SendAway),
            Err(error @ (LifecycleError::Store(_) | LifecycleError::Contended(_))) => {
                tracing::warn!(node = %mark.node, error = &error as &dyn std::error::Error, "a worker's message could not be stored");
                self.refuse_register("the controller cannot store this now");
                Ok(None)
            }
        }
    }

    /// The node may have been set aside.
    async fn look_again(&self) {
        if let Ok(Some(node)) = self.dialect.app.store.node(&self.mark.node).await {
            self.mark.set_aside.store(node.status == NodeStatus::Maintenance, Ordering::Relaxed);
        }
    }

    /// Notes that the node is not connected, unless another connection counts by now.
    async fn leave(&mut self) {
        self.newcomer = None;
        self.dialect.app.telemetry.end(&self.mark.node, self.mark.epoch);
        let turn = self.dialect.app.lifecycle.turn(&self.mark.node).await;
        let spoke = self.dialect.app.registry.leave(&self.mark.node, self.mark.epoch);
        // At a stop nothing is noted: the next start begins with nobody connected.
        if !spoke || self.dialect.app.stop.is_cancelled() {
            return;
        }
        let left = Occurrence::Left { reason: CONNECTION_LOST };
        if let Err(error) = turn.apply(&left, &format!("node:{}", self.mark.node)).await {
            tracing::warn!(node = %self.mark.node, error = &error as &dyn std::error::Error, "a lost connection could not be noted");
        }
    }
}

/// Says something to a worker, as far as its connection takes it.
pub(super) fn emit(
    dialect: &Dialect,
    node: &NodeId,
    socket: &SocketRef,
    name: &str,
    message: &impl Serialize,
) {
    dialect.record(|| Entry {
        at: clock::now(),
        by: By::Controller,
        node_id: Some(node.clone()),
        what: name.to_owned(),
        status: None,
        body: serde_json::to_value(message).unwrap_or_default(),
    });
    if let Err(error) = socket.emit(name, message) {
        tracing::debug!(%node, name, %error, "a worker was not told");
    }
}
