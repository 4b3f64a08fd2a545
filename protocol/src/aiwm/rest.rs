//! Bodies of AIWM's HTTP interface as a node uses it: bootstrap, login, refresh, and the form of its
//! refusals. Secrets are not in any `Debug` text.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    ids::NodeId,
    inventory::understood,
    text::{told, words},
    time::Timestamp,
};

/// Paths, below the API's base.
pub mod path {
    /// Setup token for secret, once.
    pub const BOOTSTRAP: &str = "/nodes/auth/bootstrap";
    /// Secret for node token.
    pub const LOGIN: &str = "/nodes/auth/login";
    /// Node token for node token.
    pub const REFRESH: &str = "/nodes/auth/refresh";
    /// Metrics, below MONA's base.
    pub const PUSH: &str = "/metrics/push/node";
}

/// A secret on its way: read and written as text, shown to nobody.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hidden(pub String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// `POST /nodes/auth/bootstrap`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bootstrap {
    /// The setup token.
    pub setup_token: Hidden,
}

/// Its answer, given once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bootstrapped {
    /// The node.
    pub node_id: NodeId,
    /// What it logs in with, from now on.
    pub secret: Hidden,
    /// For people.
    #[serde(default, deserialize_with = "told::<_, _, 255>", skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// `POST /nodes/auth/login`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Login {
    /// The node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// In place of the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<Hidden>,
    /// Its secret.
    pub secret: Hidden,
}

/// Its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoggedIn {
    /// The node token.
    pub access_token: Hidden,
    /// Seconds for which it holds.
    pub expires_in: u64,
    /// `Bearer`.
    #[serde(default, deserialize_with = "told::<_, _, 32>")]
    pub token_type: String,
    /// Who it is for.
    #[serde(default, deserialize_with = "understood", skip_serializing_if = "Option::is_none")]
    pub node: Option<LoggedInNode>,
}

/// Who logged in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoggedInNode {
    /// Its id.
    #[serde(rename = "_id", deserialize_with = "told::<_, _, 64>")]
    pub id: String,
    /// Its name.
    #[serde(deserialize_with = "told::<_, _, 128>")]
    pub name: String,
    /// Its status.
    #[serde(deserialize_with = "told::<_, _, 32>")]
    pub status: String,
    /// What it is for.
    #[serde(deserialize_with = "words::<_, 16>")]
    pub roles: Vec<String>,
    /// Who owns it.
    #[serde(deserialize_with = "told::<_, _, 64>", skip_serializing_if = "Option::is_none")]
    pub org_id: Option<String>,
}

/// `POST /nodes/auth/refresh`. Its answer is [`LoggedIn`], without the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refresh {
    /// The node token, which may have ended a few minutes ago.
    pub token: Hidden,
}

/// A refusal: it has no code.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Refused {
    /// The HTTP status again.
    #[serde(deserialize_with = "understood")]
    pub status_code: u16,
    /// A sentence, or several.
    #[serde(deserialize_with = "sentence")]
    pub message: String,
    /// When.
    #[serde(deserialize_with = "understood", skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
    /// Of which address.
    #[serde(deserialize_with = "told::<_, _, 255>", skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// To be found in AIWM's log.
    #[serde(deserialize_with = "told::<_, _, 64>", skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// By field.
    #[serde(deserialize_with = "understood", skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Value>,
}

/// The header that carries [`Refused::correlation_id`], in requests and answers.
pub const CORRELATION_ID: &str = "x-correlation-id";

/// A sentence, or several in a list.
fn sentence<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = match Value::deserialize(deserializer)? {
        Value::String(text) => text,
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; "),
        _ => String::new(),
    };
    Ok(crate::text::clean(&text, 255))
}
