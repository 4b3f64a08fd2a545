//! What a controller says.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::messages;
use crate::{
    ids::NodeId,
    release::{Checksum, ReleaseVersion},
    time::Timestamp,
};

messages! {
    /// A message of the controller.
    ControllerMessage {
        /// First on every connection.
        ConnectionAck(ConnectionAck) = "connection_ack" | "connection.ack" | "CONNECTION_ACK",
        /// The answer to `node.register`: welcome.
        RegisterAck(RegisterAck) = "register.ack",
        /// Asks for a full `node.register`, after a gap in `seq`.
        StateRequest(StateRequest) = "state.request",
        /// Offers a new token.
        TokenOffer(TokenOffer) = "auth.rotate",
        /// Offers another version.
        Update(NodeUpdate) = "node.update",
        /// Lets a node that is prepared switch to the other version.
        Permit(UpdatePermit) = "update.permit",
        /// Takes an offer back that the node has not yet switched to.
        CancelUpdate(UpdateCancel) = "update.cancel",
        /// Asks to finish what runs and take no more.
        Drain(NodeDrain) = "node.drain",
        /// Something that the worker sent was not understood or not accepted.
        Error(ErrorMessage) = "error",
    }
}

/// The token is accepted; now register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ConnectionAck {
    /// `success`.
    pub status: String,
    /// The node that the token speaks for.
    pub node_id: NodeId,
    /// Which controller of a group answers.
    #[serde(default)]
    pub controller_id: String,
    /// Its version.
    #[serde(default)]
    pub server_version: String,
}

impl ConnectionAck {
    /// Writes the frame with its fields at the top level AND under `data`: clients of both
    /// generations read it.
    pub fn encode_for_both_generations(
        &self,
        message_id: Uuid,
        timestamp: Timestamp,
    ) -> Result<String, serde_json::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Both<'a> {
            #[serde(rename = "type")]
            kind: &'static str,
            message_id: Uuid,
            timestamp: Timestamp,
            #[serde(flatten)]
            top: &'a ConnectionAck,
            data: &'a ConnectionAck,
        }
        let kind = <Self as super::Body>::TYPE;
        serde_json::to_string(&Both { kind, message_id, timestamp, top: self, data: self })
    }
}

/// Welcome; this is the pace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct RegisterAck {
    /// Milliseconds between heartbeats.
    pub heartbeat_interval: u64,
    /// Milliseconds between `telemetry.metrics`.
    pub metrics_interval: u64,
    /// What was asked of the node while it was away.
    #[serde(default)]
    pub pending_commands: Vec<PendingCommand>,
}

/// A command that waited for the node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct PendingCommand {
    /// To be answered with `command.ack`.
    pub message_id: Uuid,
    /// The command's type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its data.
    #[serde(default)]
    pub data: serde_json::Value,
}

/// Asks for a full `node.register`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StateRequest {
    /// Why, for the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A new token for this node.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct TokenOffer {
    /// The token: a secret.
    pub token: String,
    /// When it ends.
    pub expires_at: Timestamp,
    /// To be named when the offer is given back.
    pub offer_id: String,
}

impl std::fmt::Debug for TokenOffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenOffer")
            .field("token", &"[redacted]")
            .field("expires_at", &self.expires_at)
            .field("offer_id", &self.offer_id)
            .finish()
    }
}

/// Offers another version. A worker that updates itself needs all of it but `notBefore` and what
/// follows; what only names a version is for a person to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct NodeUpdate {
    /// The release to install.
    pub version: ReleaseVersion,
    /// Which update this is: the same id again is the same offer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_id: Option<Uuid>,
    /// The SHA-256 of the release's `manifest.json`, as the index has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_sha256: Option<Checksum>,
    /// The serial of the index that the offer was made by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_serial: Option<u64>,
    /// Where the tree of releases is: `index.json` and the versions' folders lie right below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub releases_url: Option<String>,
    /// Not before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// Not begun after this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// Whether it may wait for the node's window.
    #[serde(default, skip_serializing_if = "Urgency::is_normal")]
    pub urgency: Urgency,
    /// Wait while a GPU is busier than this, in percent, until the deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defer_while_gpu_above: Option<u8>,
}

/// How much an update hurries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Urgency {
    /// In the node's window, within a day.
    #[default]
    Normal,
    /// Within an hour, whatever the window says.
    Urgent,
}

impl Urgency {
    fn is_normal(&self) -> bool {
        *self == Self::Normal
    }
}

/// Lets a node that is prepared switch to the other version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct UpdatePermit {
    /// Which update.
    pub update_id: Uuid,
    /// How long it may wait before it begins; five minutes as a rule.
    pub seconds: u64,
}

/// Takes an offer back. A node that is switching goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct UpdateCancel {
    /// Which update.
    pub update_id: Uuid,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Asks to finish what runs and take no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct NodeDrain {
    /// How long that may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<u64>,
}

/// Something that the worker sent was not understood or not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ErrorMessage {
    /// AIWM's number; [`super::UNKNOWN_TYPE_ERROR`] for an unknown type.
    pub code: u32,
    /// For the log.
    pub message: String,
    /// What it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_message_id: Option<Uuid>,
}
