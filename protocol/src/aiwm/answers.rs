//! A worker's answers to commands.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Envelope, command::Command, event};
use crate::{inventory::understood, text::told, time::Timestamp};

/// The data of `command.ack`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CommandAck {
    /// The command's `messageId`.
    #[serde(deserialize_with = "told::<_, _, 128>")]
    pub original_message_id: String,
    /// `acknowledged`.
    #[serde(deserialize_with = "told::<_, _, 32>")]
    pub status: String,
    /// Seconds that it may take.
    #[serde(deserialize_with = "super::number", skip_serializing_if = "Option::is_none")]
    pub estimated_duration: Option<f64>,
}

/// The data of `command.result`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CommandResult {
    /// The command's `messageId`.
    #[serde(deserialize_with = "told::<_, _, 128>")]
    pub original_message_id: String,
    /// The command's own.
    #[serde(deserialize_with = "told::<_, _, 128>", skip_serializing_if = "Option::is_none")]
    pub deployment_id: Option<String>,
    /// `success` or `error`.
    #[serde(deserialize_with = "told::<_, _, 32>")]
    pub status: String,
    /// What came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// Why it failed.
    #[serde(deserialize_with = "understood", skip_serializing_if = "Option::is_none")]
    pub error: Option<CommandError>,
    /// How far it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Value>,
}

/// Why a command failed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CommandError {
    /// A code.
    #[serde(deserialize_with = "told::<_, _, 64>")]
    pub code: String,
    /// In words.
    #[serde(deserialize_with = "told::<_, _, 255>")]
    pub message: String,
    /// More, for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
    /// Whether the same command may succeed later.
    #[serde(deserialize_with = "understood")]
    pub retryable: bool,
    /// Seconds until then.
    #[serde(deserialize_with = "super::number", skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<f64>,
}

impl CommandResult {
    /// `success`.
    pub const SUCCESS: &'static str = "success";
    /// `error`.
    pub const ERROR: &'static str = "error";

    /// The answer to a command that was not done.
    pub fn failed(command: &Command, error: CommandError) -> Self {
        Self {
            original_message_id: command.message_id.clone(),
            deployment_id: command.data.deployment_id.clone(),
            status: Self::ERROR.to_owned(),
            result: None,
            error: Some(error),
            progress: None,
        }
    }

    /// As a message, with the command's own metadata.
    pub fn wrapped(
        self,
        command: &Command,
        message_id: impl Into<String>,
        timestamp: Timestamp,
    ) -> Envelope<Self> {
        Envelope::new(event::COMMAND_RESULT, message_id, timestamp, self)
            .with_metadata(command.metadata.clone())
    }
}
