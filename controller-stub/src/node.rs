//! A node as the controller keeps it and as the API shows it.

use std::net::IpAddr;

use aio_protocol::{
    event::ErrorReport,
    event::EventData,
    ids::NodeId,
    node::{NodeRole, NodeStatus, Owner},
    release::ReleaseVersion,
    telemetry::{Health, HealthSummary},
    text,
    time::Timestamp,
    update::UpdateReport,
};
use icu_normalizer::ComposingNormalizerBorrowed;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{gateway::clones::Conflict, labels::Labels};

/// A node.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub id: NodeId,
    pub name: String,
    pub role: Vec<NodeRole>,
    pub status: NodeStatus,
    pub owner: Owner,
    pub labels: Labels,
    /// Whether a welcomed worker's socket is open.
    pub websocket_connected: bool,
    /// The last application message.
    pub last_seen_at: Option<Timestamp>,
    pub connection_established_at: Option<Timestamp>,
    pub created_at: Timestamp,
    /// The address that its worker connected from.
    pub ip_address: Option<IpAddr>,
    pub daemon_version: Option<String>,
    /// As the worker told it, as far as this controller understood.
    pub system_info: Option<serde_json::Value>,
    pub installation: Option<Installation>,
    /// What its worker says of updates; nothing before it has said so.
    pub update: Option<UpdateReport>,
    /// Whether its worker updates itself.
    pub updates_itself: bool,
    /// The version that the controller keeps it at. Written by the store alone.
    pub pin: Option<ReleaseVersion>,
    /// How its worker says that the GPUs are, while it is connected.
    pub gpu_health: Option<HealthSummary>,
    /// Another machine that claims to be this node and is refused.
    pub identity_conflict: Option<Conflict>,
    /// Tokens that were issued until then are revoked. Written by the store alone.
    pub tokens_not_before: Timestamp,
    /// What it was when the worker that is connected showed its token.
    pub admitted_not_before: Timestamp,
    pub instance_id: Option<Uuid>,
    pub boot_id: Option<String>,
    /// The number of the controller that holds its worker, where several serve together; else 0.
    pub held_by: i64,
    /// Who held it when it was read. Written by the store alone.
    pub was_held_by: i64,
    /// The store's count of saves; see `Store::save`.
    pub version: i64,
}

/// Where the last installation stands, after its last report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Installation {
    pub phase: Phase,
    #[serde(default)]
    pub version: Option<ReleaseVersion>,
    #[serde(default)]
    pub step: Option<String>,
    #[serde(default)]
    pub percent: Option<u8>,
    #[serde(default)]
    pub error: Option<ErrorReport>,
    /// When its first report came; not told of those that began before this controller kept it.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// When the last report came.
    pub at: Timestamp,
}

/// The phase of an installation, as reports name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    Started,
    Progress,
    Failed,
    Succeeded,
}

impl Phase {
    /// The phase as it is written.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Progress => "progress",
            Self::Failed => "failed",
            Self::Succeeded => "succeeded",
        }
    }
}

impl Node {
    /// What every event says of its node, with what it alone has to say.
    pub(crate) fn about<D>(&self, detail: D) -> EventData<D> {
        EventData {
            node_id: self.id.clone(),
            node_name: self.name.clone(),
            status: self.status,
            detail,
            owner: self.owner.clone(),
        }
    }

    /// A node that was just registered.
    pub(crate) fn registered(
        id: NodeId,
        name: String,
        role: Vec<NodeRole>,
        owner: Owner,
        created_at: Timestamp,
    ) -> Self {
        Self {
            id,
            name,
            role,
            status: NodeStatus::Pending,
            owner,
            labels: Labels::default(),
            websocket_connected: false,
            last_seen_at: None,
            connection_established_at: None,
            created_at,
            ip_address: None,
            daemon_version: None,
            system_info: None,
            installation: None,
            update: None,
            updates_itself: false,
            pin: None,
            gpu_health: None,
            identity_conflict: None,
            tokens_not_before: Timestamp::from_millis(0),
            admitted_not_before: Timestamp::from_millis(0),
            instance_id: None,
            boot_id: None,
            held_by: 0,
            was_held_by: 0,
            version: 0,
        }
    }
}

/// The health of GPUs whose worker is not connected: never what it said last.
pub(crate) fn unheard_health(last_seen_at: Timestamp) -> HealthSummary {
    let worst = Some(format!("its worker is not connected, last seen {last_seen_at}"));
    HealthSummary { state: Health::Unknown, worst, ..HealthSummary::default() }
}

/// A node's name: one printable line, since names stand in logs, events and the install script's comments.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String, min_length = 1, max_length = 128, pattern = "^[^\\u0000-\\u0020\\u007f-\\u00a0\\u00ad\\u034f\\u061c\\u115f\\u1160\\u1680\\u17b4\\u17b5\\u180b-\\u180f\\u2000-\\u200f\\u2028-\\u202f\\u205f-\\u206f\\u2800\\u3000\\u3164\\ufdd0-\\ufdef\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufffb\\ufffe\\uffff\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}]+( [^\\u0000-\\u0020\\u007f-\\u00a0\\u00ad\\u034f\\u061c\\u115f\\u1160\\u1680\\u17b4\\u17b5\\u180b-\\u180f\\u2000-\\u200f\\u2028-\\u202f\\u205f-\\u206f\\u2800\\u3000\\u3164\\ufdd0-\\ufdef\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufffb\\ufffe\\uffff\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}]+)*$", example = "gpu-worker-01")]
pub(crate) struct NodeName(String);

/// In characters.
const MAX_NAME_CHARS: usize = 128;

impl TryFrom<String> for NodeName {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        let typed = name.chars().count();
        let name = composed(&name);
        if name.trim().is_empty() {
            Err("must not be empty")
        } else if typed.max(name.chars().count()) > MAX_NAME_CHARS {
            Err("must have at most 128 characters")
        } else if !text::is_clean(&name) {
            Err(
                "must be one line, without invisible characters, and with single blanks only between its words",
            )
        } else {
            Ok(Self(name))
        }
    }
}

/// `name` as Unicode composes it (NFC): what looks alike to everybody is one name, however it was typed.
pub(crate) fn composed(name: &str) -> String {
    ComposingNormalizerBorrowed::new_nfc().normalize(name).into_owned()
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_printable_line() {
        for name in ["gpu-worker-01", "Gerät 7 $(reboot) `x` 'y'", &"x".repeat(128)] {
            assert!(NodeName::try_from(name.to_owned()).is_ok(), "{name}");
        }
        for name in [
            "",
            "  ",
            "a\nb",
            "a\rb",
            "a\u{2028}b",
            "\u{1b}[31m",
            "\u{202e}gpu",
            "gpu\u{200b}",
            " gpu",
            "gpu ",
            "a  b",
            "a\u{a0}b",
            &"x".repeat(129),
        ] {
            assert!(NodeName::try_from(name.to_owned()).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_name_is_the_same_however_its_letters_were_typed() {
        let name = |text: &str| NodeName::try_from(text.to_owned());
        for (typed, composed) in
            [("Gera\u{308}t", "Gerät"), ("\u{212b}", "Å"), ("e\u{301}\u{323}", "ẹ\u{301}")]
        {
            assert_eq!(name(typed), name(composed), "{typed}");
            assert_eq!(name(typed).map(String::from).as_deref(), Ok(composed));
        }
        // Some grow when they are composed.
        for long in ["e\u{301}".repeat(65), "\u{958}".repeat(65)] {
            assert!(name(&long).is_err(), "{long}");
        }
    }
}
