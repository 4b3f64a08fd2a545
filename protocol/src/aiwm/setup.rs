//! What AIWM's two tokens say: the setup token of a person, and the node token that a login gives.
//! They are read without a look at the signature, by the node to which they are addressed. A setup
//! token is told from other tokens by its `type`.

use serde::{Deserialize, Serialize};

use crate::{
    claims::{Claims, UnreadableToken, numeric_date},
    ids::NodeId,
    time::Timestamp,
};

/// The claims of a setup token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetupClaims {
    /// Marks a setup token.
    #[serde(rename = "type")]
    pub kind: SetupTokenKind,
    /// The node that it sets up.
    pub node_id: NodeId,
    /// Where the token is exchanged for a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap_url: Option<String>,
    /// AIWM's HTTP base.
    pub api_base_url: String,
    /// AIWM's WebSocket base; ends in the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ws_base_url: Option<String>,
    /// The path at which Engine.IO is served, e.g. `/socket.io`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ws_path: Option<String>,
    /// Where metrics are pushed to, if anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mona_base_url: Option<String>,
    /// Seconds since the Unix epoch.
    #[serde(default, deserialize_with = "numeric_date")]
    pub iat: i64,
    /// Seconds since the Unix epoch.
    #[serde(deserialize_with = "numeric_date")]
    pub exp: i64,
}

/// Marks a setup token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetupTokenKind {
    /// The only kind.
    #[serde(rename = "node-setup")]
    NodeSetup,
}

impl SetupClaims {
    /// Whether `token` says that it is a setup token. It may be a broken one.
    pub fn are_in(token: &str) -> bool {
        #[derive(Deserialize)]
        struct Kind {
            #[serde(rename = "type")]
            _kind: SetupTokenKind,
        }
        Claims::<Kind>::read_unverified(token).is_ok()
    }

    /// Reads the claims of `token` without verifying its signature.
    pub fn read_unverified(token: &str) -> Result<Self, UnreadableToken> {
        Claims::<Self>::read_unverified(token)
    }

    /// When the token was made.
    pub fn issued_at(&self) -> Timestamp {
        Timestamp::from_millis(self.iat.saturating_mul(1000))
    }

    /// When the token ends.
    pub fn expires_at(&self) -> Timestamp {
        Timestamp::from_millis(self.exp.saturating_mul(1000))
    }

    /// Whether the token has ended at `now`.
    pub fn expired(&self, now: Timestamp) -> bool {
        now >= self.expires_at()
    }
}

/// The claims of AIWM's node token: no `jti`, no addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeTokenClaims {
    /// The node.
    pub sub: NodeId,
    /// Always `node`.
    #[serde(rename = "type")]
    pub kind: crate::claims::NodeTokenKind,
    /// The node's name for logins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The node's status when the token was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// What the node is for.
    #[serde(default)]
    pub roles: Vec<String>,
    /// The organisation that owns it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org_id: Option<String>,
    /// Seconds since the Unix epoch.
    #[serde(deserialize_with = "numeric_date")]
    pub iat: i64,
    /// Seconds since the Unix epoch.
    #[serde(deserialize_with = "numeric_date")]
    pub exp: i64,
}

impl NodeTokenClaims {
    /// Reads the claims of `token` without verifying its signature.
    pub fn read_unverified(token: &str) -> Result<Self, UnreadableToken> {
        Claims::<Self>::read_unverified(token)
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    use super::*;

    fn token(claims: &str) -> String {
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode("{}"), URL_SAFE_NO_PAD.encode(claims))
    }

    fn fixture(name: &str) -> String {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/aiwm/tokens").join(name);
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn the_two_kinds_of_tokens_for_an_installation_are_told_apart() {
        let setup = token(&fixture("setup.json"));
        assert!(SetupClaims::are_in(&setup));
        let claims = SetupClaims::read_unverified(&setup).unwrap();
        assert_eq!(claims.ws_base_url.as_deref(), Some("wss://aiwm.example/ws/node"));
        assert!(!claims.expired(claims.issued_at()) && claims.expired(claims.expires_at()));
        assert!(SetupClaims::are_in(&token(r#"{"type":"node-setup"}"#)), "a broken one is one");
        for other in [r#"{"type":"node"}"#, r#"{"sub":"x"}"#, "[]"] {
            assert!(!SetupClaims::are_in(&token(other)), "{other}");
        }
        for none in ["", "a.b", "ops"] {
            assert!(!SetupClaims::are_in(none), "{none}");
        }
    }

    #[test]
    fn a_node_token_needs_neither_id_nor_addresses() {
        let claims = NodeTokenClaims::read_unverified(&token(&fixture("node.json"))).unwrap();
        assert_eq!((claims.sub.as_str(), claims.exp - claims.iat), ("69396100cd71623c7bbfbfee", 3600));
        assert!(NodeTokenClaims::read_unverified(&token(&fixture("setup.json"))).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}", claims in "[\\[\\]{}\":,a-z0-9]{0,80}") {
            let _ = SetupClaims::are_in(&text);
            let _ = SetupClaims::read_unverified(&token(&claims));
            let _ = NodeTokenClaims::read_unverified(&token(&claims));
        }
    }
}
