//! AIWM's own dialect: what a worker and an AIWM service say to each other over Socket.IO and HTTP.
//! The types are AIWM's, units included; `translation` makes them of ours. A reader takes what it
//! understands: AIWM checks nothing against a schema, and so neither end may rely on one. Pure, as
//! the rest of this crate.

pub mod answers;
pub mod command;
pub mod controller;
pub mod credentials;
pub mod mona;
pub mod packet;
pub mod register;
pub mod rest;
pub mod setup;
pub mod telemetry;
pub mod translation;

use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{inventory::understood, time::Timestamp};

/// The Socket.IO namespace of nodes, whatever path the address has.
pub const NAMESPACE: &str = "/ws/node";

/// The path at which Engine.IO is served, unless a setup token names another.
pub const SOCKET_PATH: &str = "/socket.io/";

/// The query of a connection that is a WebSocket from the first.
pub const SOCKET_QUERY: &str = "EIO=4&transport=websocket";

/// The largest message that AIWM takes, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 1_000_000;

/// Names of events. Routing is by these; the body's `type` is for people.
pub mod event {
    /// The join was accepted, or refused with a reason.
    pub const CONNECTION_ACK: &str = "connection.ack";
    /// The registration was stored.
    pub const REGISTER_ACK: &str = "register.ack";
    /// Something that was asked for could not be done.
    pub const ERROR: &str = "error";
    /// A handler failed.
    pub const EXCEPTION: &str = "exception";
    /// The machine, from the worker.
    pub const REGISTER: &str = "node.register";
    /// A sign of life.
    pub const HEARTBEAT: &str = "telemetry.heartbeat";
    /// Numbers of which AIWM keeps the time alone.
    pub const METRICS: &str = "telemetry.metrics";
    /// A command was received.
    pub const COMMAND_ACK: &str = "command.ack";
    /// A command has ended.
    pub const COMMAND_RESULT: &str = "command.result";
    /// What the names of commands for agents begin with.
    pub const AGENT_PREFIX: &str = "agent.";
}

/// What most messages are wrapped in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope<T> {
    /// The event's name again.
    #[serde(rename = "type", default, deserialize_with = "understood")]
    pub kind: String,
    /// The message's id; any text.
    #[serde(default, deserialize_with = "understood")]
    pub message_id: String,
    /// When it was written, by the writer's clock.
    #[serde(default, deserialize_with = "understood", skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
    /// What it says.
    pub data: T,
    /// Whatever the other end wants to find in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
}

impl<T> Envelope<T> {
    /// A message of this kind.
    pub fn new(kind: &str, message_id: impl Into<String>, timestamp: Timestamp, data: T) -> Self {
        let (kind, timestamp) = (kind.to_owned(), Some(timestamp));
        Self { kind, message_id: message_id.into(), timestamp, data, metadata: None }
    }

    /// With what the message that it answers had.
    pub fn with_metadata(self, metadata: Option<Value>) -> Self {
        Self { metadata, ..self }
    }
}

/// Reads a number that may be written as text, or nothing of what is no number. What was stored in a
/// looser time is read as it was meant.
pub(crate) fn number<'de, D: Deserializer<'de>, T: DeserializeOwned + std::str::FromStr>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => text.trim().parse().ok(),
        other => serde_json::from_value(other).ok(),
    })
}
