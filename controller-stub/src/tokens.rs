//! JWTs: signed and verified with the keys that are configured and nothing else. Decides what is a valid
//! token of which kind; whether it was revoked and what its bearer may do is decided elsewhere.

pub(crate) mod keys;
pub(crate) mod refused;

use aio_protocol::{
    claims::{NodeClaims, NodeTokenKind, UserClaims},
    error_code::ErrorCode,
    ids::{NodeId, OwnerId},
    release::Checksum,
    time::Timestamp,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use keys::TokenKeys;

/// Clocks of the issuer and ours may differ by this much.
const LEEWAY_SECS: f64 = 30.0;

const NOT_WHOLE: &str = "it is not a whole JWT";

/// The longest id of a token.
const MAX_JTI_BYTES: usize = 128;

/// Signs and verifies.
#[derive(Clone)]
pub(crate) struct Tokens {
    signing: Option<(Algorithm, EncodingKey)>,
    /// Each key with the one algorithm that it is for.
    verifiers: Vec<(Algorithm, DecodingKey)>,
}

/// Who bears a valid token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bearer {
    Node(NodeClaims),
    User(UserClaims),
}

/// Why a text is no valid token.
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

/// Why a token could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum Unsigned {
    /// There is a key to verify with, and none to sign with.
    #[error("this controller only verifies tokens: it holds no private key")]
    VerifyOnly,
    /// The key or the claims do not do.
    #[error("cannot sign a token")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Unsigned {
    /// The catalogue's code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::VerifyOnly => ErrorCode::VerifyOnly,
            Self::Failed(_) => ErrorCode::Internal,
        }
    }
}

impl Tokens {
    pub(crate) fn new(keys: TokenKeys) -> Self {
        Self { signing: keys.signing, verifiers: keys.verifying }
    }

    /// Refuses what would end with a token that cannot be signed.
    pub(crate) fn require_signing(&self) -> Result<(), Unsigned> {
        self.signing.as_ref().map(drop).ok_or(Unsigned::VerifyOnly)
    }

    /// Whether tokens are signed with a secret, as AIWM's are.
    pub(crate) fn signs_with_secret(&self) -> bool {
        self.signing.as_ref().is_some_and(|(algorithm, _)| *algorithm == Algorithm::HS256)
    }

    #[cfg(test)]
    pub(crate) fn of_secret_for_tests() -> Self {
        Self::new(TokenKeys::of_secret(&secrecy::SecretString::from(
            "a secret of more than 32 bytes, at least",
        )))
    }

    pub(crate) fn sign(&self, claims: &impl Serialize) -> Result<String, Unsigned> {
        let (algorithm, key) = self.signing.as_ref().ok_or(Unsigned::VerifyOnly)?;
        jsonwebtoken::encode(&Header::new(*algorithm), claims, key)
            .map_err(|error| Unsigned::Failed(Box::new(error)))
    }

    /// The signature of a token's first two parts: the same whenever they are signed with the same key.
    pub(crate) fn signature(&self, signed: &str) -> Result<String, Unsigned> {
        let (algorithm, key) = self.signing.as_ref().ok_or(Unsigned::VerifyOnly)?;
        jsonwebtoken::crypto::sign(signed.as_bytes(), key, *algorithm)
            .map_err(|error| Unsigned::Failed(Box::new(error)))
    }

    pub(crate) fn sign_node(&self, claims: &NodeClaims) -> Result<String, Unsigned> {
        self.sign(claims)
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
        self.sign(&claims)
    }

    /// Verifies `token`. Its `type` decides its kind: `node`, or `user`, or none for a user's that
    /// another issuer made.
    pub(crate) fn verify(&self, token: &str) -> Result<Bearer, InvalidToken> {
        let invalid = |why: &str| InvalidToken::Invalid(why.to_owned());
        let claims = self.genuine(token)?;
        check_dates(&claims)?;
        let kind = claims.get("type").cloned();
        let claims = Value::Object(claims);
        let unreadable = |error: serde_json::Error| InvalidToken::Invalid(format!("its claims: {error}"));
        match kind.as_ref().map(Value::as_str) {
            Some(Some("node")) => {
                let claims: NodeClaims = serde_json::from_value(claims).map_err(unreadable)?;
                if !(1..=MAX_JTI_BYTES).contains(&claims.jti.len()) {
                    return Err(invalid("its claims: `jti` must have 1 to 128 bytes"));
                }
                Ok(Bearer::Node(claims))
            }
            None | Some(Some("user")) => {
                Ok(Bearer::User(serde_json::from_value(claims).map_err(unreadable)?))
            }
            Some(_) => Err(invalid("its claims: `type` is neither `node` nor `user`")),
        }
    }

    /// The claims of a token that one of our keys has signed. Whether it is valid now, and for what,
    /// is the caller's to decide.
    pub(crate) fn genuine(&self, token: &str) -> Result<Map<String, Value>, InvalidToken> {
        let invalid = |why: &str| InvalidToken::Invalid(why.to_owned());
        let header = jsonwebtoken::decode_header(token).map_err(|_| invalid(NOT_WHOLE))?;
        if names_extensions(token) {
            return Err(invalid("its header has `crit`, and no extension of JWTs is understood here"));
        }
        // The token only says which of our keys it was signed with; each key knows one algorithm.
        let Some((_, key)) = self.verifiers.iter().find(|(algorithm, _)| *algorithm == header.alg) else {
            return Err(invalid("it was signed with an algorithm that is not accepted here"));
        };
        let Some((message, signature)) = token.rsplit_once('.') else { return Err(invalid(NOT_WHOLE)) };
        let genuine = jsonwebtoken::crypto::verify(signature, message.as_bytes(), key, header.alg);
        if !genuine.map_err(|_| invalid(NOT_WHOLE))? {
            return Err(invalid("it was signed with another key"));
        }
        let claims = message.split('.').nth(1).unwrap_or_default();
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| invalid(NOT_WHOLE))?;
        serde_json::from_slice(&claims).map_err(|_| invalid(NOT_WHOLE))
    }
}

/// Whether the header has `crit`. Whoever does not understand an extension that it names must
/// refuse the token (RFC 7515, 4.1.11).
pub(crate) fn names_extensions(token: &str) -> bool {
    let header = token.split('.').next().unwrap_or_default();
    let header = URL_SAFE_NO_PAD.decode(header).unwrap_or_default();
    serde_json::from_slice::<Map<String, Value>>(&header).is_ok_and(|header| header.contains_key("crit"))
}

/// Refuses a token that is not valid now: before `nbf`, or after `exp`.
fn check_dates(claims: &Map<String, Value>) -> Result<(), InvalidToken> {
    let now = crate::clock::now().as_millis() as f64 / 1000.0;
    let missing = |name: &str| InvalidToken::Invalid(format!("its claim `{name}` is missing"));
    let expires = date(claims, "exp")?.ok_or_else(|| missing("exp"))?;
    if !claims.contains_key("sub") {
        return Err(missing("sub"));
    }
    if date(claims, "nbf")?.is_some_and(|begins| begins > now + LEEWAY_SECS) {
        return Err(InvalidToken::Invalid("it is not valid yet".to_owned()));
    }
    date(claims, "iat")?;
    if expires <= now - LEEWAY_SECS { Err(InvalidToken::Expired) } else { Ok(()) }
}

/// A NumericDate (RFC 7519): seconds since the Unix epoch, with or without a fraction.
fn date(claims: &Map<String, Value>, name: &str) -> Result<Option<f64>, InvalidToken> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let wrong = || InvalidToken::Invalid(format!("its claim `{name}` must be a number of seconds"));
    value.as_f64().map(Some).ok_or_else(wrong)
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
    use proptest::prelude::*;
    use secrecy::SecretString;
    use serde_json::json;

    use super::*;

    fn with_secret(secret: &str) -> Tokens {
        Tokens::new(TokenKeys::of_secret(&SecretString::from(secret)))
    }

    fn tokens() -> Tokens {
        with_secret("a secret of more than 32 bytes, at least")
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
        jsonwebtoken::encode(header, claims, &tokens().signing.unwrap().1).unwrap()
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
    fn dates_may_have_fractions_and_one_of_another_type_is_called_that() {
        let (node, _) = node_token(3600);
        let now = now().as_millis() / 1000;
        let whole = [
            json!({"sub": "u", "orgId": "o", "roles": [], "exp": now + 600, "iat": now}),
            serde_json::to_value(&node).unwrap(),
        ];
        for claims in whole {
            let with = |name: &str, value: Value| {
                let mut claims = claims.clone();
                claims[name] = value;
                tokens().verify(&signed(&Header::default(), &claims))
            };
            let seconds = now as f64;
            for (name, value) in
                [("exp", seconds + 600.0), ("exp", 1e300), ("iat", seconds - 0.5), ("nbf", seconds - 0.25)]
            {
                assert!(with(name, json!(value)).is_ok(), "{name} {value}");
            }
            assert_eq!(with("exp", json!(seconds - 40.5)), Err(InvalidToken::Expired));
            assert!(with("nbf", json!(seconds + 600.5)).unwrap_err().to_string().contains("not valid yet"));
            for name in ["exp", "nbf", "iat"] {
                for value in [json!((now + 600).to_string()), Value::Null, json!(true), json!([now])] {
                    let refusal = with(name, value.clone()).unwrap_err().to_string();
                    let told = format!("`{name}` must be a number of seconds");
                    assert!(refusal.contains(&told), "{value}: {refusal}");
                }
            }
        }
    }

    #[test]
    fn a_token_that_names_critical_extensions_is_refused() {
        let (claims, token) = node_token(3600);
        assert!(tokens().verify(&token).is_ok());
        let body = URL_SAFE_NO_PAD.encode(json!(claims).to_string());
        for crit in ["[\"b64\"]", "[\"exp\"]", "[\"urn:x\", \"exp\"]", "[]", "null"] {
            let header = format!("{{\"alg\":\"HS256\",\"crit\":{crit},\"exp\":1}}");
            let message = format!("{}.{body}", URL_SAFE_NO_PAD.encode(header));
            let (algorithm, key) = tokens().signing.unwrap();
            let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).unwrap();
            let refusal = tokens().verify(&format!("{message}.{signature}")).unwrap_err();
            assert!(refusal.to_string().contains("crit"), "{crit}: {refusal}");
        }
    }

    #[test]
    fn what_was_signed_otherwise_opens_nothing() {
        let (claims, token) = node_token(3600);
        let other = with_secret("another secret of more than 32 bytes");
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

    #[test]
    fn a_users_type_is_user_or_none_at_all() {
        let exp = now().as_millis() / 1000 + 60;
        let of_type = |kind: Value| {
            let mut claims = json!({"sub": "u", "orgId": "o", "roles": [], "exp": exp});
            if !kind.is_null() {
                claims["type"] = kind;
            }
            tokens().verify(&signed(&Header::default(), &claims))
        };
        for kind in [Value::Null, json!("user")] {
            assert!(matches!(of_type(kind), Ok(Bearer::User(_))));
        }
        for kind in [json!("refresh"), json!("Node"), json!(""), json!(7), json!(["user"])] {
            assert!(matches!(of_type(kind), Err(InvalidToken::Invalid(_))));
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_or_passes(text in "[A-Za-z0-9_.-]{0,200}") {
            prop_assert!(tokens().verify(&text).is_err());
        }
    }
}
