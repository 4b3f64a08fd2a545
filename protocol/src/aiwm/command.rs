//! Commands of AIWM. Their data holds secrets in the clear, so nothing of it is in any `Debug` text
//! but its deployment's id.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{inventory::understood, text::told, time::Timestamp};

/// A command: an envelope with the thing that it is about.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
pub struct Command {
    /// `agent.start`, `agent.update`, `agent.delete`, ….
    #[serde(rename = "type", deserialize_with = "told::<_, _, 64>")]
    pub kind: String,
    /// To be named in the answer.
    #[serde(deserialize_with = "told::<_, _, 128>")]
    pub message_id: String,
    /// When it was written.
    #[serde(deserialize_with = "understood", skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
    /// What it is about.
    #[serde(deserialize_with = "understood", skip_serializing_if = "Option::is_none")]
    pub resource: Option<Resource>,
    /// What is to be done. A secret.
    #[serde(deserialize_with = "understood")]
    pub data: CommandData,
    /// To be copied into the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
}

/// What a command is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resource {
    /// E.g. `agent`.
    #[serde(rename = "type", deserialize_with = "told::<_, _, 64>")]
    pub kind: String,
    /// Its id.
    #[serde(deserialize_with = "told::<_, _, 128>")]
    pub id: String,
}

/// The data of a command. A secret: `agentId`, `name`, `description`, `status`, `type`, `framework`,
/// `settings`, `instructionId`, `guardrailId` and `secret` stand in `rest`.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CommandData {
    /// To be named in the answer.
    #[serde(deserialize_with = "told::<_, _, 128>", skip_serializing_if = "Option::is_none")]
    pub deployment_id: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("kind", &self.kind)
            .field("message_id", &self.message_id)
            .field("resource", &self.resource)
            .field("data", &self.data)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for CommandData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandData").field("deployment_id", &self.deployment_id).finish_non_exhaustive()
    }
}
