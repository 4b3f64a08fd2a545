//! What tokens say. A node reads its own token without the key: it needs the endpoints and the
//! dates in it, and the controller verifies. Nothing here signs or verifies.

pub mod pasted;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};

use crate::{
    ids::{NodeId, OwnerId},
    release::Checksum,
    time::Timestamp,
};

/// The claims of a node token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeClaims {
    /// The node that the token speaks for, and no other.
    pub sub: NodeId,
    /// Always `node`.
    #[serde(rename = "type")]
    pub kind: NodeTokenKind,
    /// The token's own id, by which it is revoked.
    pub jti: String,
    /// Seconds since the Unix epoch.
    #[serde(deserialize_with = "numeric_date")]
    pub iat: i64,
    /// Seconds since the Unix epoch.
    #[serde(deserialize_with = "numeric_date")]
    pub exp: i64,
    /// The controller's WebSocket endpoint, e.g. `wss://aiwm.example/ws/node`.
    pub ctl: String,
    /// The controller's HTTP base, e.g. `https://aiwm.example`.
    pub api: String,
    /// The minisign public key (base64) that releases for this node are signed with. With it, an
    /// unsigned release is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rel: Option<String>,
    /// The SHA-256 of the certificate (DER) of the controller's own authority. With it, this
    /// controller is trusted through that authority and no other; without it, through the operating
    /// system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<Checksum>,
}

/// Marks a token as a node's, so that no user token passes for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeTokenKind {
    /// The only kind.
    Node,
}

/// The claims of a user token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserClaims {
    /// The user.
    pub sub: OwnerId,
    /// The organisation that the user acts for.
    pub org_id: OwnerId,
    /// What the user may do there, e.g. `organization.owner`.
    pub roles: Vec<String>,
    /// Seconds since the Unix epoch.
    #[serde(deserialize_with = "numeric_date")]
    pub exp: i64,
    /// Seconds since the Unix epoch.
    #[serde(default, deserialize_with = "numeric_date")]
    pub iat: i64,
}

/// A NumericDate of RFC 7519: any JSON number. A fraction of a second is dropped, and a date beyond
/// the type is its end.
pub(crate) fn numeric_date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let number = serde_json::Number::deserialize(deserializer)?;
    let whole = number.as_i64().or_else(|| number.as_u64().map(|_| i64::MAX));
    // A cast of a float ends at the type's bounds.
    Ok(whole.unwrap_or_else(|| number.as_f64().unwrap_or_default().floor() as i64))
}

/// Why a text is no usable node token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableToken {
    /// Nothing but white space.
    #[error("the token is empty")]
    Empty,
    /// A character that is in no token.
    #[error("`{}` (U+{:04X}), character {position} of the token, is in no token", character.escape_debug(), u32::from(*character))]
    Character {
        /// Which.
        character: char,
        /// Where, counted from 1.
        position: usize,
    },
    /// Not three base64url parts.
    #[error("the token is not a JWT of three parts joined by dots; it may be cut off")]
    Shape,
    /// The middle part is not the claims of a node token.
    #[error("the token's claims cannot be read: {0}")]
    Claims(String),
}

/// Reads the claims of tokens of any kind.
pub(crate) struct Claims<T>(std::marker::PhantomData<T>);

impl<T: DeserializeOwned> Claims<T> {
    /// The claims of `token`, whose signature is not verified.
    pub(crate) fn read_unverified(token: &str) -> Result<T, UnreadableToken> {
        let token = token.trim();
        if token.is_empty() {
            return Err(UnreadableToken::Empty);
        }
        let is_foreign = |character: &char| !character.is_ascii_alphanumeric() && !"-_.".contains(*character);
        if let Some((index, character)) =
            token.chars().enumerate().find(|(_, character)| is_foreign(character))
        {
            return Err(UnreadableToken::Character { character, position: index + 1 });
        }
        let mut parts = token.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(UnreadableToken::Shape);
        };
        for part in [header, signature] {
            if part.is_empty() || URL_SAFE_NO_PAD.decode(part).is_err() {
                return Err(UnreadableToken::Shape);
            }
        }
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| UnreadableToken::Shape)?;
        serde_json::from_slice(&claims).map_err(|error| UnreadableToken::Claims(error.to_string()))
    }
}

impl NodeClaims {
    /// Reads the claims of `token` without verifying its signature: for the node, to which the
    /// token is addressed.
    pub fn read_unverified(token: &str) -> Result<Self, UnreadableToken> {
        Claims::read_unverified(token)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(claims: &str) -> String {
        format!(
            "{}.{}.{}",
            URL_SAFE_NO_PAD.encode("{}"),
            URL_SAFE_NO_PAD.encode(claims),
            URL_SAFE_NO_PAD.encode("signature")
        )
    }

    const CLAIMS: &str = r#"{"sub":"69396100cd71623c7bbfbfee","type":"node","jti":"j","iat":1,"exp":1765454400,
        "ctl":"wss://aiwm.example/ws/node","api":"https://aiwm.example"}"#;

    #[test]
    fn a_node_reads_its_own_token() {
        let claims = NodeClaims::read_unverified(&format!("  {}\n", token(CLAIMS))).unwrap();
        assert_eq!(claims.sub.as_str(), "69396100cd71623c7bbfbfee");
        assert_eq!(claims.expires_at().to_string(), "2025-12-11T12:00:00.000Z");
        assert!(claims.expired(claims.expires_at()));
    }

    #[test]
    fn a_date_is_any_number() {
        for (written, read) in [
            ("1765454400.0", 1_765_454_400),
            ("1765454400.9", 1_765_454_400),
            ("1.7654544e9", 1_765_454_400),
            ("-0.5", -1),
            ("18446744073709551615", i64::MAX),
            ("1e300", i64::MAX),
        ] {
            let claims = CLAIMS.replace("1765454400", written);
            assert_eq!(NodeClaims::read_unverified(&token(&claims)).unwrap().exp, read, "{written}");
        }
        for written in ["\"1765454400\"", "null", "true", "[1]"] {
            let claims = CLAIMS.replace("1765454400", written);
            assert!(NodeClaims::read_unverified(&token(&claims)).is_err(), "{written}");
        }
    }

    #[test]
    fn what_is_no_node_token_is_told_apart() {
        assert_eq!(NodeClaims::read_unverified(" \n"), Err(UnreadableToken::Empty));
        assert_eq!(NodeClaims::read_unverified("abc"), Err(UnreadableToken::Shape));
        let whole = token(CLAIMS);
        assert_eq!(
            NodeClaims::read_unverified(whole.rsplit_once('.').unwrap().0),
            Err(UnreadableToken::Shape)
        );
        let cut = format!("{}…", &whole[..7]);
        let error = NodeClaims::read_unverified(&cut).unwrap_err();
        assert_eq!(error.to_string(), "`…` (U+2026), character 8 of the token, is in no token");
        let user = token(r#"{"sub":"u","orgId":"o","roles":[],"exp":1}"#);
        assert!(matches!(NodeClaims::read_unverified(&user), Err(UnreadableToken::Claims(_))));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _ = NodeClaims::read_unverified(&text);
        }
    }
}
