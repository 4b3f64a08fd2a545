//! The dashboards' WebSocket: events as they are stored, one JSON object per text frame, and the
//! few words around them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{event::NodeEvent, ids::OwnerId, time::Timestamp};

/// The WebSocket subprotocol.
pub const SUBPROTOCOL: &str = "aio.events.v1";

/// The path of the dashboards' WebSocket.
pub const PATH: &str = "/ws/events";

/// A second subprotocol that begins like this carries the user's token, for browsers, which can
/// send no header.
pub const BEARER_PREFIX: &str = "bearer.";

/// What a dashboard says: one message at most, first of all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "lowercase")]
pub enum DashboardRequest {
    /// Who watches, and from where on.
    Authenticate(Authenticate),
}

/// Who watches, and from where on.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Authenticate {
    /// A user's token: a secret.
    pub token: String,
    /// The id of the last event that the dashboard has, or a time. Without it, only what happens
    /// from now on is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

impl fmt::Debug for Authenticate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticate").field("token", &"[redacted]").field("since", &self.since).finish()
    }
}

/// An event with its id, as `GET /events` and the dashboards' WebSocket show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReceivedEvent {
    /// The same at every delivery; what `since` takes.
    pub id: String,
    /// What was posted.
    #[serde(flatten)]
    pub event: NodeEvent,
}

/// What a dashboard is told beside events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// What.
    #[serde(flatten)]
    pub body: NoticeBody,
    /// When, by the controller's clock.
    pub timestamp: Timestamp,
}

/// `type` and `data` of a notice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum NoticeBody {
    /// The token is accepted; first of all.
    #[serde(rename = "events.welcome")]
    Welcome(Welcome),
    /// What was missed has been sent; from here on events come as they happen.
    #[serde(rename = "events.live")]
    Live {},
}

/// Whose events are shown, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Welcome {
    /// The organisation.
    pub org_id: OwnerId,
    /// When the connection will be closed with 4401.
    pub token_expires_at: Timestamp,
}
