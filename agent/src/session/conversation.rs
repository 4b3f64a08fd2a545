//! A session in AIWM's dialect, frame by frame: the Socket.IO join, the pings of its server, what it
//! says in our own words, and what we say in its. Pure: frames and the moment come in, steps come out.
//! The session machine knows nothing of it, and neither does this of the session's state: registering
//! after every acknowledgement is the machine's.

use std::time::{Duration, Instant};

use aio_protocol::{
    aiwm::{
        Envelope, NAMESPACE,
        answers::{CommandError, CommandResult},
        command::Command,
        controller::{ConnectionAck, ErrorEvent, Exception, Join, JoinRefused, Refusal, Registered},
        event,
        packet::{Body, Message, Packet},
        translation,
    },
    error_code::ErrorCode,
    failure::Failure,
    ids::NodeId,
    inventory::{GpuDriverState, Hardware},
    time::Timestamp,
    wire::{self, WorkerMessage, encode},
};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use uuid::Uuid;

use super::setback::{Patience, Setback};

/// For so long, from the first registration on, heartbeats say that the node is online: the end of an
/// older connection may have written `offline` meanwhile. Then they leave it out, so that a node which
/// an operator takes into maintenance stays there.
const TELLING: Duration = Duration::from_secs(120);

/// Without a ping of the server for as long as this, the connection is lost: its interval and its
/// patience, unless its first packet says otherwise.
const SILENCE: Duration = Duration::from_secs(45);

/// What a first packet may make of [`SILENCE`].
const SILENCE_BOUNDS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));

/// A moment, and an id for a message that is made then.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The moment.
    pub now: Instant,
    /// The same by the wall's clock.
    pub wall: Timestamp,
    /// For an answer.
    pub id: Uuid,
}

/// What comes of a frame.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Say this packet.
    Say(String),
    /// The controller said this, in our own words.
    Heard(String),
    /// A command was answered with a refusal. What it asked for is not told: it holds secrets.
    Declined {
        /// The command's type.
        kind: String,
        /// Its id.
        message_id: String,
    },
    /// The session ends; the socket is closed.
    End(Setback),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The server has said nothing.
    Opening,
    /// The join is said.
    Joining,
    /// The namespace is joined.
    Joined,
}

/// One session.
#[derive(Debug)]
pub struct Conversation {
    node: NodeId,
    token: SecretString,
    /// Whether the token was given by a login for this very connection.
    token_is_fresh: bool,
    phase: Phase,
    silence: Duration,
    /// When the server last showed that it lives.
    heard_at: Instant,
    /// Whether AIWM refused the token.
    token_refused: bool,
    /// When the first registration was acknowledged.
    registered_at: Option<Instant>,
    /// What was registered, for numbers that need it.
    hardware: Hardware,
}

impl Conversation {
    /// Over a WebSocket that is open now.
    pub fn new(node: NodeId, token: SecretString, token_is_fresh: bool, now: Instant) -> Self {
        Self {
            node,
            token,
            token_is_fresh,
            phase: Phase::Opening,
            silence: SILENCE,
            heard_at: now,
            token_refused: false,
            registered_at: None,
            hardware: Hardware::default(),
        }
    }

    /// When the connection is lost, if nothing is heard until then.
    pub fn deadline(&self) -> Instant {
        self.heard_at + self.silence
    }

    /// The setback of a connection whose deadline has passed.
    pub fn silent(&self) -> Setback {
        let seconds = self.silence.as_secs();
        Setback::new(ErrorCode::ControllerUnreachable, format!("AIWM sent no ping within {seconds} s"))
    }

    /// Whether AIWM refused the token, so that the next one must come from a login.
    pub fn was_refused(&self) -> bool {
        self.token_refused
    }

    /// Hears a frame.
    pub fn heard(&mut self, text: &str, at: Moment) -> Vec<Step> {
        match Packet::decode(text) {
            Ok(Packet::Open(opening)) if self.phase == Phase::Opening => {
                let told = opening.ping_interval.saturating_add(opening.ping_timeout);
                self.silence = Duration::from_millis(told).clamp(SILENCE_BOUNDS.0, SILENCE_BOUNDS.1);
                self.heard_at = at.now;
                self.phase = Phase::Joining;
                vec![Step::Say(self.join())]
            }
            Ok(Packet::Ping(text)) => {
                self.heard_at = at.now;
                vec![Step::Say(Packet::Pong(text).encode())]
            }
            Ok(Packet::Close) => {
                vec![Step::End(Setback::new(ErrorCode::ControllerUnreachable, "AIWM closed the connection"))]
            }
            Ok(Packet::Message(Message { body: Body::ConnectError(payload), .. })) => {
                vec![Step::End(self.refused(payload.as_deref()))]
            }
            Ok(Packet::Message(message)) if message.namespace == NAMESPACE => self.said(message.body, at),
            Ok(_) => vec![],
            Err(error) => {
                let message = format!("AIWM sent what cannot be read: {error}");
                vec![Step::End(Setback::new(ErrorCode::ControllerInvalid, message))]
            }
        }
    }

    /// The packet of a message of ours, given as the text of our own dialect; none where AIWM has no
    /// word for it.
    pub fn say(&mut self, text: &str, now: Instant) -> Option<String> {
        let frame = WorkerMessage::decode(text).ok()?;
        let (id, wall) = (frame.message_id, frame.timestamp);
        match frame.message {
            WorkerMessage::Register(mut register) => {
                let hardware = &mut register.system_info.hardware;
                // AIWM replaces what it has stored. A driver that is silent takes no GPU out of the machine.
                if hardware.gpu.is_empty() && hardware.gpu_driver.state == GpuDriverState::Unknown {
                    hardware.gpu.clone_from(&self.hardware.gpu);
                }
                let translated = translation::register(&register);
                self.hardware = register.system_info.hardware;
                event_packet(event::REGISTER, translated, id, wall)
            }
            WorkerMessage::Heartbeat(beat) => {
                let telling = self.registered_at.is_none_or(|at| now < at + TELLING);
                event_packet(event::HEARTBEAT, translation::heartbeat(&beat, telling), id, wall)
            }
            WorkerMessage::Metrics(metrics) => {
                let translated = translation::metrics(&metrics, &self.hardware);
                event_packet(event::METRICS, translated, id, wall)
            }
            // AIWM learns of a goodbye by the namespace that is left, and knows nothing of our updates.
            _ => None,
        }
    }

    /// The packet that leaves the namespace.
    pub fn goodbye() -> String {
        Packet::of(NAMESPACE, Body::Disconnect).encode()
    }

    fn join(&self) -> String {
        let join = Join { token: Some(self.token.expose_secret().to_owned()) };
        let payload = serde_json::to_string(&join).unwrap_or_default();
        Packet::of(NAMESPACE, Body::Connect(Some(payload.into()))).encode()
    }

    fn said(&mut self, body: Body<'_>, at: Moment) -> Vec<Step> {
        match body {
            Body::Connect(_) => {
                self.phase = Phase::Joined;
                vec![]
            }
            Body::Disconnect => vec![Step::End(self.sent_away())],
            Body::Event { id, name, argument } => {
                let acknowledged = id.map(|id| Packet::of(NAMESPACE, Body::Ack(id, "[]".into())).encode());
                let mut steps: Vec<_> = acknowledged.into_iter().map(Step::Say).collect();
                steps.extend(self.event(&name, argument.as_deref().unwrap_or("null"), at));
                steps
            }
            Body::Ack(..) | Body::ConnectError(_) => vec![],
        }
    }

    fn event(&mut self, name: &str, argument: &str, at: Moment) -> Vec<Step> {
        match name {
            event::CONNECTION_ACK => vec![self.acknowledged(&read(argument), at)],
            event::REGISTER_ACK => self.registered(read::<Option<Envelope<Registered>>>(argument), at),
            event::ERROR => {
                let ErrorEvent { error, .. } = read(argument);
                vec![self.complained(&error.code, &error.message, at)]
            }
            event::EXCEPTION => {
                let Exception { message, cause, .. } = read(argument);
                let pattern = cause.map(|cause| cause.pattern).unwrap_or_default();
                vec![self.complained(&pattern, &message, at)]
            }
            name if name.starts_with(event::AGENT_PREFIX) => {
                let command: Command = read(argument);
                declined(&Command { kind: name.to_owned(), ..command }, at)
            }
            _ => vec![],
        }
    }

    fn acknowledged(&self, ack: &ConnectionAck, at: Moment) -> Step {
        if let Some(error) = &ack.error {
            return Step::End(turned_away(error));
        }
        if ack.status == "error" {
            return Step::End(turned_away(&Refusal::default()));
        }
        let named = ack.node_id.as_deref().unwrap_or_default();
        if named != self.node.as_str() {
            let message = format!("AIWM takes this worker for node `{named}`, and it is {}", self.node);
            return Step::End(patiently(ErrorCode::TokenForeign, message));
        }
        let ack = wire::ConnectionAck {
            status: ack.status.clone(),
            node_id: self.node.clone(),
            controller_id: ack.controller_id.clone().unwrap_or_default(),
            server_version: ack.server_version.clone().unwrap_or_default(),
        };
        heard(&ack, at)
    }

    fn registered(&mut self, ack: Option<Envelope<Registered>>, at: Moment) -> Vec<Step> {
        let ack = ack.map(|ack| ack.data).unwrap_or_default();
        self.registered_at.get_or_insert(at.now);
        let pace = wire::RegisterAck {
            heartbeat_interval: ack.controller_info.heartbeat_interval,
            metrics_interval: ack.controller_info.metrics_interval,
            pending_commands: vec![],
        };
        let mut steps = vec![heard(&pace, at)];
        for (number, command) in (1..).zip(&ack.pending_commands) {
            // Each answer has an id of its own.
            let id = Uuid::from_u128(at.id.as_u128().wrapping_add(number));
            steps.extend(declined(command, Moment { id, ..at }));
        }
        steps
    }

    /// Something that was said could not be handled. Of a registration, that is the end of the
    /// session: the node would not be what it is.
    fn complained(&self, about: &str, message: &str, at: Moment) -> Step {
        let of_registration = about == Refusal::REGISTRATION_FAILED || about == event::REGISTER;
        if of_registration && self.registered_at.is_none() {
            let message = format!("AIWM could not store what this machine is made of: {message}");
            return Step::End(Setback::new(ErrorCode::ControllerError, message));
        }
        let message = if about.is_empty() { message.to_owned() } else { format!("{about}: {message}") };
        heard(&wire::ErrorMessage { code: 0, message, original_message_id: None }, at)
    }

    /// The join was refused.
    fn refused(&mut self, payload: Option<&str>) -> Setback {
        let JoinRefused { message } = read(payload.unwrap_or("null"));
        let code = match message.as_str() {
            "TOKEN_MISSING" => ErrorCode::TokenMissing,
            "TOKEN_INVALID" => ErrorCode::TokenInvalid,
            "TOKEN_EXPIRED" => ErrorCode::TokenExpired,
            _ => {
                let message = format!("AIWM refused the join of {NAMESPACE}: {message}");
                return patiently(ErrorCode::ControllerInvalid, message);
            }
        };
        self.token_refused = true;
        let words = format!("AIWM refused the node token ({message})");
        if self.token_is_fresh {
            return patiently(code, format!("{words} that it had just given"));
        }
        // The next try logs in.
        Setback::announced(format!("{words}; logging in anew"))
    }

    /// The namespace was taken away.
    fn sent_away(&self) -> Setback {
        if self.registered_at.is_some() {
            let message = "AIWM ended the session, as it does when another worker connects as this node";
            return patiently(ErrorCode::NodeSuperseded, message.to_owned());
        }
        Setback::new(ErrorCode::ControllerUnreachable, "AIWM ended the session before it had begun")
    }
}

/// Why AIWM does not let the node take part.
fn turned_away(error: &Refusal) -> Setback {
    let Refusal { code, message, .. } = error;
    match code.as_str() {
        Refusal::NODE_GONE => {
            patiently(ErrorCode::NodeNotFound, format!("AIWM does not know the node: {message}"))
        }
        Refusal::NODE_INACTIVE => {
            let message = format!("AIWM lets the node take no part: {message}");
            patiently(ErrorCode::NodeSuspended, message)
        }
        _ => {
            let message = format!("AIWM could not take the connection ({code}): {message}");
            Setback::new(ErrorCode::ControllerError, message)
        }
    }
}

fn patiently(code: ErrorCode, message: String) -> Setback {
    Setback::failed(Failure::new(code, message), Patience::Long)
}

/// What is in a payload; nothing of what is in another form.
fn read<T: Default + serde::de::DeserializeOwned>(payload: &str) -> T {
    serde_json::from_str(payload).unwrap_or_default()
}

/// A message of the controller in our own words.
fn heard<B: wire::Body>(body: &B, at: Moment) -> Step {
    Step::Heard(encode(body, at.id, at.wall).unwrap_or_default())
}

/// A refusal of a command that this worker cannot do.
fn declined(command: &Command, at: Moment) -> Vec<Step> {
    let error = CommandError {
        code: ErrorCode::CommandUnsupported.as_str().to_owned(),
        message: format!("this worker cannot do `{}`", command.kind),
        ..CommandError::default()
    };
    let answer = CommandResult::failed(command, error).wrapped(command, at.id.to_string(), at.wall);
    let Ok(payload) = serde_json::to_string(&answer) else { return vec![] };
    let packet = Packet::event(NAMESPACE, event::COMMAND_RESULT, payload).encode();
    let (kind, message_id) = (command.kind.clone(), command.message_id.clone());
    vec![Step::Say(packet), Step::Declined { kind, message_id }]
}

fn event_packet(name: &str, data: impl Serialize, id: Uuid, wall: Timestamp) -> Option<String> {
    let envelope = Envelope::new(name, id.to_string(), wall, data);
    let payload = serde_json::to_string(&envelope).ok()?;
    Some(Packet::event(NAMESPACE, name, payload).encode())
}

#[cfg(test)]
mod tests;
