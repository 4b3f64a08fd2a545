//! One worker's connection: reads frames, lets `session` say what they mean, and does it, strictly in order.
//! A frame's effects are done before the next frame is read, so a pong proves that everything before its ping
//! was handled. What is common (a heartbeat) is done in place; what is rare is boxed, so that ten thousand
//! idle connections do not each keep room for it.

mod token;
mod update;

use std::{
    borrow::Cow,
    net::IpAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use aio_protocol::{
    ids::NodeId,
    release::build,
    time::Timestamp,
    transition,
    update::UPDATE_CAPABILITY,
    wire::{self, Body, ConnectionAck, ErrorMessage, Register, close},
};
use metrics::{counter, gauge, histogram};
use tokio::{
    sync::{Notify, oneshot},
    time::sleep_until,
};
use uuid::Uuid;

use super::{
    admission::Handshake,
    clones::{Arrival, Verdict},
    pace,
    registry::Epoch,
    session::{self, Effect, Input, State},
    timetable::{Due, Timetable},
};
use crate::{
    app::App,
    clock,
    lifecycle::{LifecycleError, Occurrence},
    rotation::offers::InUse,
    websocket::{End, Message, Socket},
};

/// How long a worker may stay after its goodbye.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a message costs beyond its frame that makes the controller write to its database.
const WRITE: u32 = 9;

/// The number of an error that says that the node's status does not allow what a message reports.
const REFUSED_ERROR: u32 = 2002;

/// The worker that connects, and until when it may stay.
pub(super) struct Peer {
    pub node: NodeId,
    pub address: IpAddr,
    pub token: InUse,
    /// When the socket is closed because its token has ended.
    pub token_ends: Instant,
    pub newcomer: Box<Newcomer>,
}

/// What a connection needs only until its worker is welcomed.
pub(super) struct Newcomer {
    pub handshake: Handshake,
    /// The instance that was welcomed last.
    pub before: Option<Uuid>,
    /// Whether another controller held its socket when this one came.
    pub is_elsewhere: bool,
    /// When the node's worker was welcomed last.
    pub welcomed_at: Option<Timestamp>,
    /// The node's `tokens_not_before` when the token was accepted.
    pub not_before: Timestamp,
}

struct Connection {
    app: Arc<App>,
    node: NodeId,
    address: IpAddr,
    token: InUse,
    epoch: Epoch,
    socket: Socket,
    state: State,
    timetable: Timetable,
    newcomer: Option<Box<Newcomer>>,
}

/// Takes a worker's connection in, and serves it until it ends.
pub(super) fn run(app: Arc<App>, peer: Peer, socket: Socket) -> impl Future<Output = ()> + Send + 'static {
    let Peer { node, address, token, token_ends, newcomer } = peer;
    let (epoch, closed, nudged) = app.registry.enter(&node, newcomer.handshake.since);
    tracing::debug!(%node, %address, "a worker connected");
    gauge!("aio_gateway_sockets").increment(1);
    if app.stop.is_cancelled() {
        // It may have entered too late to be sent away with the others.
        app.registry.close(&node, close::RESTART);
    }
    let now = Instant::now();
    let timetable = Timetable::new(now, app.register_timeout, token_ends);
    let mut connection = Connection {
        timetable,
        app,
        node,
        address,
        token,
        epoch,
        socket,
        state: State::Greeted,
        newcomer: Some(newcomer),
    };
    // A block, because a function would keep its argument twice.
    async move {
        let end = connection.converse(closed, nudged).await;
        Box::pin(connection.finish(end)).await;
        gauge!("aio_gateway_sockets").decrement(1);
    }
}

fn reason(code: u16) -> &'static str {
    match code {
        close::RESTART => "the controller restarts",
        close::SUPERSEDED => "another connection of this node took its place",
        close::SILENT => "nothing was heard for a whole lease",
        close::TOKEN_ENDED => "TOKEN_REVOKED: the token was revoked",
        _ => "closed by the controller",
    }
}

const TOO_FAST: End = End::Close {
    code: close::TOO_FAST,
    reason: Cow::Borrowed("RATE_LIMITED: more changes than any worker makes"),
};

impl Connection {
    async fn converse(&mut self, mut closed: oneshot::Receiver<u16>, nudged: Arc<Notify>) -> End {
        if let Err(end) = Box::pin(self.greet()).await {
            return end;
        }
        let mut timer = pin!(sleep_until(self.timetable.next().into()));
        loop {
            let next = self.timetable.next().into();
            if timer.deadline() != next {
                timer.as_mut().reset(next);
            }
            // What a frame asks for is done outside of the select's futures, so that nothing ever
            // stops half-way.
            let result = tokio::select! {
                biased;
                Ok(code) = &mut closed => Err(End::close(code, reason(code))),
                () = &mut timer => match self.timetable.take_due(Instant::now()) {
                    Some(due) => Box::pin(self.attend(due)).await,
                    None => Ok(()),
                },
                () = nudged.notified() => Box::pin(self.tell()).await,
                message = self.socket.receive() => match message {
                    Ok(message) => self.hear(message).await,
                    Err(end) => Err(end),
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
            controller_id: match self.app.membership.number() {
                0 => "main".to_owned(),
                number => format!("controller-{number}"),
            },
            server_version: build::number().into(),
        };
        self.send_text(ack.encode_for_both_generations(Uuid::now_v7(), clock::now())).await
    }

    async fn attend(&mut self, due: Due) -> Result<(), End> {
        match due {
            Due::TokenEnd => Err(End::close(close::TOKEN_ENDED, "TOKEN_EXPIRED: the token's life is over")),
            Due::PatienceEnd => {
                self.timetable.be_content();
                self.take(Input::PatienceEnded).await
            }
            Due::Ping => Ok(self.socket.ping(&[]).await?),
            Due::Offer => self.offer_token().await,
        }
    }

    async fn hear(&mut self, message: Message) -> Result<(), End> {
        match message {
            Message::Text(text) => self.take(Input::Received(&text)).await,
            Message::Binary => self.take(Input::ReceivedBinary).await,
            Message::Pong(_) => Ok(()),
        }
    }

    async fn take(&mut self, input: Input<'_>) -> Result<(), End> {
        let (state, effects) = session::step(self.state, input, &self.node);
        if let session::State::Welcomed { last: seq @ 1.., .. } = state
            && state != self.state
        {
            tracing::trace!(node = %self.node, seq, "heartbeat");
        }
        self.state = state;
        for effect in effects {
            match effect {
                Effect::RenewLease => self.renew_lease(),
                rare => Box::pin(self.carry_out(rare)).await?,
            }
        }
        Ok(())
    }

    /// Another connection may have taken over: this one is then not heard any more.
    fn renew_lease(&self) {
        counter!("aio_gateway_messages_total").increment(1);
        if self.app.registry.speaks(&self.node, self.epoch) {
            self.app.lifecycle.workers.renew(&self.node, Instant::now(), clock::now());
        }
    }

    async fn carry_out(&mut self, effect: Effect) -> Result<(), End> {
        match effect {
            Effect::RenewLease => {
                self.renew_lease();
                Ok(())
            }
            Effect::Welcome { register, first, .. } => self.welcome(register, first).await,
            Effect::Report { report, message_id } => {
                self.happen(&Occurrence::Reported(report), Some(message_id)).await
            }
            Effect::Leave(reason) => {
                self.timetable.expect_by(Instant::now() + LEAVE_TIMEOUT);
                counter!("aio_worker_departures_total", "how" => "goodbye").increment(1);
                self.happen(&Occurrence::Left { reason: reason.as_str() }, None).await
            }
            Effect::Await(time) => {
                self.timetable.expect_by(Instant::now() + LEAVE_TIMEOUT);
                counter!("aio_worker_departures_total", "how" => "update").increment(1);
                if self.app.registry.speaks(&self.node, self.epoch) {
                    self.app.lifecycle.workers.shorten(&self.node, Instant::now() + time);
                }
                Ok(())
            }
            Effect::NoteHealth(health) => {
                self.app.registry.note_health(&self.node, self.epoch, health);
                Ok(())
            }
            Effect::KeepMetrics(metrics) => {
                if self.app.registry.speaks(&self.node, self.epoch) {
                    self.app.telemetry.receive(self.epoch, &metrics, clock::now());
                }
                Ok(())
            }
            Effect::Answer(ack) => self.note_answer(&ack).await,
            Effect::AskState(request) => self.say(&request).await,
            Effect::Complain(error) => self.say(&error).await,
            Effect::Close { code, reason } => Err(End::close(code, reason)),
        }
    }

    async fn welcome(&mut self, register: Box<Register>, first: bool) -> Result<(), End> {
        let not_before = self.newcomer.as_ref().filter(|_| first).map(|newcomer| newcomer.not_before);
        let joins = first && register.capabilities.iter().any(|it| it == UPDATE_CAPABILITY);
        let occurrence = Occurrence::Welcomed { register, address: self.address, not_before };
        self.happen(&occurrence, None).await?;
        if joins {
            self.join_rollout().await?;
        }
        if let Some(newcomer) = self.newcomer.take() {
            self.timetable.be_content();
            histogram!("aio_gateway_connect_seconds").record(newcomer.handshake.since.elapsed());
            self.settle_token().await?;
        }
        let workers = &self.app.lifecycle.workers;
        let mut pace = pace::offer(workers.len(), workers.length(), fastrand::f64());
        for (message_id, told) in self.owed().await? {
            pace.pending_commands.extend(told.pending(message_id));
        }
        self.say(&pace).await
    }

    fn spend_write(&mut self) -> Result<(), End> {
        if self.socket.spend(WRITE) { Ok(()) } else { Err(TOO_FAST) }
    }

    fn unstored(&self, error: &(dyn std::error::Error + 'static)) -> End {
        tracing::warn!(node = %self.node, error, "a worker's message could not be stored");
        End::close(close::TRY_LATER, "the controller cannot store this now")
    }

    /// Lets something happen to the node, if this is a connection that may speak for it.
    async fn happen(&mut self, occurrence: &Occurrence, reported_in: Option<Uuid>) -> Result<(), End> {
        self.spend_write()?;
        let arrives = matches!(occurrence, Occurrence::Welcomed { not_before: Some(_), .. });
        let outcome = {
            let Self { app, node, epoch, newcomer, .. } = &*self;
            let turn = app.lifecycle.turn(node).await;
            let turn = match newcomer {
                Some(newcomer) if arrives => turn.of_arrival(newcomer.handshake.since, newcomer.welcomed_at),
                _ => turn.while_held(),
            };
            let heard =
                if arrives { app.registry.is_open(node, *epoch) } else { app.registry.speaks(node, *epoch) };
            if !heard {
                return Ok(());
            }
            if let Occurrence::Welcomed { register, not_before: Some(_), .. } = occurrence {
                self.judge(register.instance_id)?;
            }
            let outcome = turn.apply(occurrence, &format!("node:{node}")).await;
            if arrives && outcome.is_ok() {
                app.registry.take_over(node, *epoch);
            }
            outcome
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
                Err(End::close(close::TOKEN_ENDED, "NODE_INACTIVE: the node is no longer in service"))
            }
            Err(LifecycleError::Revoked(_)) => Err(token::REVOKED),
            Err(LifecycleError::Superseded(_)) if arrives => {
                Err(End::close(close::TRY_LATER, "the node was welcomed elsewhere meanwhile"))
            }
            Err(LifecycleError::Superseded(_)) => {
                Err(End::close(close::SUPERSEDED, reason(close::SUPERSEDED)))
            }
            Err(LifecycleError::TooMany { .. }) => Err(TOO_FAST),
            Err(error @ (LifecycleError::Store(_) | LifecycleError::Contended(_))) => {
                Err(self.unstored(&error))
            }
        }
    }

    /// Refuses a worker whose identity another machine has and holds.
    fn judge(&self, instance: Uuid) -> Result<(), End> {
        let Self { app, node, address, newcomer, .. } = self;
        let before = newcomer.as_ref().and_then(|newcomer| newcomer.before);
        let is_elsewhere = newcomer.as_ref().is_some_and(|newcomer| newcomer.is_elsewhere);
        let connected = is_elsewhere || app.registry.has_speaker(node);
        let arrival = Arrival { instance, address: *address, before, connected };
        let verdict = app.clones().arrive(node, arrival, (Instant::now(), clock::now()));
        match verdict {
            Verdict::Welcome => Ok(()),
            Verdict::Refuse { times } => {
                if times.is_power_of_two() {
                    tracing::warn!(%node, %address, %instance, times, "two machines have this node's identity: the one that holds it stays, this one is refused");
                }
                counter!("aio_gateway_refusals_total", "reason" => "cloned").increment(1);
                if is_elsewhere {
                    self.tell_the_holder();
                }
                Err(End::close(
                    close::SUPERSEDED,
                    "NODE_SUPERSEDED: another machine is connected as this node",
                ))
            }
        }
    }

    /// Tells the controller that holds the node of another machine's claim: the alarm is that one's.
    fn tell_the_holder(&self) {
        let (app, node, address) = (self.app.clone(), self.node.clone(), self.address);
        self.app.connections.spawn(async move {
            if let Err(error) = app.store.signal_cloned(app.membership.number(), &node, address).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(%node, error, "the controller that holds a node could not be told of its clone");
            }
        });
    }

    async fn say(&mut self, body: &impl Body) -> Result<(), End> {
        self.send_text(wire::encode(body, Uuid::now_v7(), clock::now())).await
    }

    async fn send_text(&mut self, text: Result<String, serde_json::Error>) -> Result<(), End> {
        match text {
            Ok(text) => Ok(self.socket.send_text(&text).await?),
            Err(error) => {
                tracing::error!(node = %self.node, %error, "a message could not be written");
                Err(End::Gone)
            }
        }
    }

    /// Notes that the node is not connected, unless another connection counts by now, and completes
    /// the closing handshake.
    async fn finish(mut self, end: End) {
        self.newcomer = None;
        self.disconnect().await;
        if let End::Close { code, reason } = &end {
            tracing::debug!(node = %self.node, code, %reason, "a worker's connection is closed");
            counter!("aio_gateway_closes_total", "code" => code.to_string()).increment(1);
        }
        self.socket.finish(end).await;
    }

    async fn disconnect(&mut self) {
        self.app.telemetry.end(&self.node, self.epoch);
        if self.app.membership.is_cut_off() {
            // The database is not reached, and the socket must not wait for it. Whoever takes the node notes
            // it.
            self.app.registry.leave(&self.node, self.epoch);
            return;
        }
        let turn = self.app.lifecycle.turn(&self.node).await;
        let spoke = self.app.registry.leave(&self.node, self.epoch);
        // At a stop nothing is noted: the next start begins with nobody connected.
        if !spoke || self.app.stop.is_cancelled() {
            return;
        }
        if let Err(error) = turn.disconnect().await {
            tracing::warn!(node = %self.node, error = &error as &dyn std::error::Error, "a lost connection could not be noted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, C, F: Future>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// Ten thousand of these are most of what a fleet costs. What is rare belongs into a box, which
    /// lives as long as it runs.
    #[test]
    fn the_task_of_a_connection_is_small() {
        let (task, socket) = (size_of_future(run), size_of::<Socket>());
        println!("a connection's task takes {task} bytes, its WebSocket {socket} of them");
        assert!(task <= 1280, "{task} bytes");
    }
}
