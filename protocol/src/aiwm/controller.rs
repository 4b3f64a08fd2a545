//! What AIWM says on its own or in answer, commands left out.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Envelope, command::Command};
use crate::{
    inventory::understood,
    text::{list, told},
    time::Timestamp,
};

/// Of words that AIWM says, so many bytes are kept.
const MAX_WORDS: usize = 255;

/// The payload of `connection.ack`; its fields stand at the top, there is no `data`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConnectionAck {
    /// The event's name again.
    #[serde(rename = "type", deserialize_with = "told::<_, _, 64>")]
    pub kind: String,
    /// The message's id.
    #[serde(deserialize_with = "told::<_, _, 64>")]
    pub message_id: String,
    /// When it was written.
    #[serde(deserialize_with = "understood", skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
    /// `success` or `error`.
    #[serde(deserialize_with = "told::<_, _, 32>")]
    pub status: String,
    /// The node that the token speaks for.
    #[serde(deserialize_with = "told::<_, _, 64>", skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,
    /// Which controller of a group answers.
    #[serde(deserialize_with = "told::<_, _, 64>", skip_serializing_if = "Option::is_none")]
    pub controller_id: Option<String>,
    /// Its version.
    #[serde(deserialize_with = "told::<_, _, 64>", skip_serializing_if = "Option::is_none")]
    pub server_version: Option<String>,
    /// Why not.
    #[serde(deserialize_with = "understood", skip_serializing_if = "Option::is_none")]
    pub error: Option<Refusal>,
}

/// Why something is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Refusal {
    /// AIWM's code: [`Refusal::NODE_GONE`], [`Refusal::NODE_INACTIVE`], `INTERNAL_ERROR`, ….
    #[serde(deserialize_with = "code")]
    pub code: String,
    /// In words.
    #[serde(deserialize_with = "told::<_, _, MAX_WORDS>")]
    pub message: String,
    /// When.
    #[serde(deserialize_with = "understood", skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
}

impl Refusal {
    /// The token's node is gone.
    pub const NODE_GONE: &'static str = "1004";
    /// The node is inactive or banned.
    pub const NODE_INACTIVE: &'static str = "1005";
    /// AIWM failed.
    pub const INTERNAL_ERROR: &'static str = "INTERNAL_ERROR";
    /// The register could not be stored.
    pub const REGISTRATION_FAILED: &'static str = "REGISTRATION_FAILED";
}

/// A code, written as text or as a number.
fn code<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => crate::text::clean(&text, 64),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    })
}

/// The payload of `register.ack`.
pub type RegisterAck = Envelope<Registered>;

/// The data of `register.ack`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Registered {
    /// `success`.
    #[serde(deserialize_with = "told::<_, _, 32>")]
    pub status: String,
    /// The node.
    #[serde(deserialize_with = "told::<_, _, 64>")]
    pub node_id: String,
    /// When it was stored.
    #[serde(deserialize_with = "understood", skip_serializing_if = "Option::is_none")]
    pub registered_at: Option<Timestamp>,
    /// The pace.
    #[serde(deserialize_with = "understood")]
    pub controller_info: ControllerInfo,
    /// What was asked of the node while it was away.
    #[serde(deserialize_with = "list::<_, _, 64>")]
    pub pending_commands: Vec<Command>,
}

/// The pace, and who sets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ControllerInfo {
    /// Which controller of a group answers.
    #[serde(deserialize_with = "told::<_, _, 64>")]
    pub controller_id: String,
    /// Milliseconds between heartbeats.
    pub heartbeat_interval: u64,
    /// Milliseconds between `telemetry.metrics`.
    pub metrics_interval: u64,
    /// The controller's, e.g. `UTC`.
    #[serde(deserialize_with = "told::<_, _, 64>", skip_serializing_if = "String::is_empty")]
    pub timezone: String,
}

impl Default for ControllerInfo {
    fn default() -> Self {
        Self {
            controller_id: String::new(),
            heartbeat_interval: 30_000,
            metrics_interval: 60_000,
            timezone: String::new(),
        }
    }
}

/// The payload of `error`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ErrorEvent {
    /// The event's name again, or what failed.
    #[serde(rename = "type", deserialize_with = "told::<_, _, 64>")]
    pub kind: String,
    /// Why.
    #[serde(deserialize_with = "understood")]
    pub error: Refusal,
}

/// The payload of `exception`. What it quotes of the message is not kept: it may hold a secret.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Exception {
    /// `error`.
    #[serde(deserialize_with = "told::<_, _, 32>")]
    pub status: String,
    /// In words.
    #[serde(deserialize_with = "told::<_, _, MAX_WORDS>")]
    pub message: String,
    /// Which message did it.
    #[serde(deserialize_with = "understood", skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
}

/// Which message made a handler fail.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cause {
    /// The event's name.
    #[serde(deserialize_with = "told::<_, _, 64>")]
    pub pattern: String,
    /// The message itself, where a double says it. Never read.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}

/// The payload of a refused join (`44`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JoinRefused {
    /// `TOKEN_MISSING`, `TOKEN_INVALID`, `TOKEN_EXPIRED` or words.
    #[serde(deserialize_with = "told::<_, _, MAX_WORDS>")]
    pub message: String,
}

/// The payload of a join (`40` of the worker). The token is a secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// The node token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

impl std::fmt::Debug for Join {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Join").field("token", &self.token.as_ref().map(|_| "[redacted]")).finish()
    }
}
