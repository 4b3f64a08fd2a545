//! JWTs: signed and verified with HS256 and nothing else. Decides what is a valid token of which kind; whether it was revoked and
//! what its bearer may do is decided elsewhere.

use aio_protocol::{
    claims::{NodeClaims, NodeTokenKind, UserClaims},
    error_code::ErrorCode,
    ids::{NodeId, OwnerId},
    release::Checksum,
    time::Timestamp,
};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// Clocks of the issuer and ours may differ by this much.
const LEEWAY_SECS: u64 = 30;

/// Signs and verifies.
#[derive(Clone)]
pub(crate) struct Tokens {
    signing: EncodingKey,
    verifying: DecodingKey,
    validation: Validation,
}

/// Who bears a valid token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bearer {
    Node(NodeClaims),
    User(UserClaims),
}

/// Why a text opens nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidToken {
    #[error("the token has expired")]
    Expired,
    #[error("the token is not one of this controller's: {0}")]
    Invalid(String),
}

impl InvalidToken {
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Expired => ErrorCode::TokenExpired,
            Self::Invalid(_) => ErrorCode::TokenInvalid,
        }
    }
}

/// A token could not be signed.
#[derive(Debug, thiserror::Error)]
#[error("cannot sign a token")]
pub(crate) struct Unsigned(#[source] jsonwebtoken::errors::Error);

impl Tokens {
    pub(crate) fn new(secret: &SecretString) -> Self {
        let key = secret.expose_secret().as_bytes();
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = LEEWAY_SECS;
        validation.validate_nbf = true;
        validation.validate_aud = false;
        validation.set_required_spec_claims(&["exp", "sub"]);
        Self { signing: EncodingKey::from_secret(key), verifying: DecodingKey::from_secret(key), validation }
    }

    pub(crate) fn sign_node(&self, claims: &NodeClaims) -> Result<String, Unsigned> {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &self.signing).map_err(Unsigned)
    }

    pub(crate) fn sign_user(
        &self,
        user: OwnerId,
        org: OwnerId,
        roles: Vec<String>,
        now: Timestamp,
        lasts_secs: u64,
    ) -> Result<String, Unsigned> {
        let iat = now.as_millis() / 1000;
        let exp = iat.saturating_add_unsigned(lasts_secs);
        let claims = UserClaims { sub: user, org_id: org, roles, exp, iat };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.signing).map_err(Unsigned)
    }

    /// Verifies `token`. Its `type` decides its kind: `node`, or anything else for a user's.
    pub(crate) fn verify(&self, token: &str) -> Result<Bearer, InvalidToken> {
        let claims = jsonwebtoken::decode::<Map<String, Value>>(token, &self.verifying, &self.validation)
            .map_err(|error| match error.kind() {
                ErrorKind::ExpiredSignature => InvalidToken::Expired,
                kind => InvalidToken::Invalid(reason(kind)),
            })?
            .claims;
        let of_a_node = claims.get("type") == Some(&Value::from("node"));
        let claims = Value::Object(claims);
        let bearer = if of_a_node {
            serde_json::from_value(claims).map(Bearer::Node)
        } else {
            serde_json::from_value(claims).map(Bearer::User)
        };
        bearer.map_err(|error| InvalidToken::Invalid(format!("its claims: {error}")))
    }
}

fn reason(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::InvalidSignature => "it was signed with another key".into(),
        ErrorKind::InvalidAlgorithm => "it was signed with another algorithm than HS256".into(),
        ErrorKind::MissingRequiredClaim(claim) => format!("its claim `{claim}` is missing"),
        ErrorKind::ImmatureSignature => "it is not valid yet".into(),
        _ => "it is not a whole JWT".into(),
    }
}

/// The claims of a new node token.
pub(crate) fn node_claims(
    node: &NodeId,
    api: &str,
    gateway: &str,
    release_key: Option<&str>,
    authority: Option<&Checksum>,
    now: Timestamp,
    lasts_secs: u64,
) -> NodeClaims {
    let iat = now.as_millis() / 1000;
    NodeClaims {
        sub: node.clone(),
        kind: NodeTokenKind::Node,
        jti: uuid::Uuid::new_v4().to_string(),
        iat,
        exp: iat.saturating_add_unsigned(lasts_secs),
        ctl: gateway.to_owned(),
        api: api.to_owned(),
        rel: release_key.map(str::to_owned),
        ca: authority.cloned(),
    }
}

/// What is kept of a token.
pub(crate) fn fingerprint(token: &str) -> String {
    hex::encode(Sha256::digest(token))
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn tokens() -> Tokens {
        Tokens::new(&SecretString::from("a secret of more than 32 bytes, at least"))
    }

    fn now() -> Timestamp {
        crate::clock::now()
    }

    fn node_token(lasts_secs: u64) -> (NodeClaims, String) {
        let id = NodeId::from_bytes([1; 12]);
        let claims = node_claims(&id, "http://a", "ws://a/ws/node", None, None, now(), lasts_secs);
        let token = tokens().sign_node(&claims).unwrap();
        (claims, token)
    }

    fn signed(header: &Header, claims: &Value) -> String {
        jsonwebtoken::encode(header, claims, &tokens().signing).unwrap()
    }

    #[test]
    fn each_kind_is_read_back_as_itself() {
        let (claims, token) = node_token(3600);
        assert_eq!(tokens().verify(&token), Ok(Bearer::Node(claims)));
        let token = tokens()
            .sign_user("u".parse().unwrap(), "o".parse().unwrap(), vec!["r".into()], now(), 60)
            .unwrap();
        assert!(
            matches!(tokens().verify(&token), Ok(Bearer::User(user)) if user.sub.as_str() == "u" && user.roles == ["r"])
        );
    }

    #[test]
    fn an_expired_token_is_told_apart_after_half_a_minute() {
        let exp_ago = |secs: i64| {
            signed(
                &Header::default(),
                &json!({"sub": "u", "orgId": "o", "roles": [], "exp": now().as_millis() / 1000 - secs}),
            )
        };
        assert!(tokens().verify(&exp_ago(20)).is_ok());
        assert_eq!(tokens().verify(&exp_ago(40)), Err(InvalidToken::Expired));
    }

    #[test]
    fn what_was_signed_otherwise_opens_nothing() {
        let (claims, token) = node_token(3600);
        let other = Tokens::new(&SecretString::from("another secret of more than 32 bytes"));
        assert!(matches!(other.verify(&token), Err(InvalidToken::Invalid(_))));
        assert!(tokens().verify(&signed(&Header::new(Algorithm::HS512), &json!(claims))).is_err());

        let body = URL_SAFE_NO_PAD.encode(json!(claims).to_string());
        for header in [r#"{"alg":"none"}"#, r#"{"alg":"NONE","typ":"JWT"}"#] {
            assert!(tokens().verify(&format!("{}.{body}.", URL_SAFE_NO_PAD.encode(header))).is_err());
        }
    }

    #[test]
    fn required_claims_are_required() {
        let whole = json!(node_token(3600).0);
        for claim in ["exp", "sub", "jti", "type", "ctl"] {
            let mut claims = whole.clone();
            claims.as_object_mut().unwrap().remove(claim);
            let verdict = tokens().verify(&signed(&Header::default(), &claims));
            assert!(matches!(verdict, Err(InvalidToken::Invalid(_))), "{claim}: {verdict:?}");
        }
    }

    #[test]
    fn no_node_passes_for_a_user_and_no_user_for_a_node() {
        let exp = now().as_millis() / 1000 + 60;
        let both = json!({"sub": "u", "orgId": "o", "roles": [], "exp": exp, "type": "node"});
        assert!(matches!(tokens().verify(&signed(&Header::default(), &both)), Err(InvalidToken::Invalid(_))));
    }

    proptest! {
        #[test]
        fn no_text_panics_or_passes(text in "[A-Za-z0-9_.-]{0,200}") {
            prop_assert!(tokens().verify(&text).is_err());
        }
    }
}
