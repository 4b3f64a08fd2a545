//! Whether an ID token is to be believed (OpenID Connect Core, 3.1.3.7): signed with a key of the provider's, by
//! an algorithm with a public key, for this client, in answer to this very sign-in, and not expired. Pure but
//! for the clock.

use jsonwebtoken::{
    Algorithm, DecodingKey, Validation,
    errors::ErrorKind,
    jwk::{Jwk, PublicKeyUse},
};
use serde_json::{Map, Value};

use crate::{noti::signature::same, tokens::names_extensions};

/// What a token may be signed with. Among them is none with a secret, which would be shared with the provider,
/// and not `none`.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// The clocks of the provider and of this machine may differ by this much.
const LEEWAY_SECS: u64 = 30;

/// More keys are not looked at.
const MAX_KEYS: usize = 64;

/// A public key of the provider's.
pub(super) struct Key {
    id: Option<String>,
    /// The one that it is for, where the provider says so.
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

/// What a token must say.
#[derive(Clone, Copy)]
pub(super) struct Expected<'a> {
    pub issuer: &'a str,
    pub client_id: &'a str,
    pub nonce: &'a str,
}

/// Why an ID token is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidIdToken {
    #[error("its ID token is no JWT")]
    Malformed,
    #[error("its ID token is not signed by an algorithm with a public key")]
    Algorithm,
    #[error("its ID token is signed with a key that it does not publish")]
    UnknownKey,
    #[error("its ID token's signature is wrong")]
    Signature,
    #[error("its ID token is of another issuer")]
    Issuer,
    #[error("its ID token is for another client")]
    Audience,
    #[error("its ID token has expired, or is not valid yet; are the clocks right?")]
    Expired,
    #[error("its ID token lacks the claim `{0}`")]
    Missing(String),
    #[error("its ID token is of another sign-in")]
    Nonce,
}

/// The keys of a JWK set (RFC 7517) that may have signed an ID token; what is not understood is left out.
pub(super) fn keys(set: &Value) -> Vec<Key> {
    let listed = set.get("keys").and_then(Value::as_array).into_iter().flatten();
    listed.take(MAX_KEYS).filter_map(key).collect()
}

fn key(value: &Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let algorithm = match value.get("alg").and_then(Value::as_str) {
        Some(named) => Some(named.parse().ok().filter(|it| ALGORITHMS.contains(it))?),
        None => None,
    };
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    // A secret is no public key, whoever publishes it.
    ALGORITHMS.iter().any(|it| it.family() == key.family()).then_some(Key {
        id: jwk.common.key_id,
        algorithm,
        key,
    })
}

/// The claims of `token`, if it is to be believed.
pub(super) fn verify(
    token: &str,
    keys: &[Key],
    expected: Expected<'_>,
) -> Result<Map<String, Value>, InvalidIdToken> {
    // `none` and unknown algorithms have no header that is understood.
    let header = jsonwebtoken::decode_header(token).map_err(|error| match error.kind() {
        ErrorKind::Json(_) | ErrorKind::InvalidAlgorithmName => InvalidIdToken::Algorithm,
        _ => InvalidIdToken::Malformed,
    })?;
    if !ALGORITHMS.contains(&header.alg) {
        return Err(InvalidIdToken::Algorithm);
    }
    if names_extensions(token) {
        return Err(InvalidIdToken::Malformed);
    }
    let mut validation = Validation::new(header.alg);
    validation.leeway = LEEWAY_SECS;
    validation.validate_nbf = true;
    validation.set_required_spec_claims(&["iss", "aud", "exp", "sub"]);
    validation.set_issuer(&[expected.issuer]);
    validation.set_audience(&[expected.client_id]);
    // A key without a name may be the one that is named.
    let is_named = |id: &String| header.kid.as_ref().is_none_or(|kid| kid == id);
    let fits = |key: &&Key| {
        key.id.as_ref().is_none_or(is_named)
            && key.algorithm.is_none_or(|it| it == header.alg)
            && key.key.family() == header.alg.family()
    };
    let mut refused = InvalidIdToken::UnknownKey;
    for key in keys.iter().filter(fits) {
        match jsonwebtoken::decode::<Map<String, Value>>(token, &key.key, &validation) {
            Ok(decoded) => return for_this_sign_in(decoded.claims, expected),
            Err(error) => {
                refused = because(error.kind());
                // A key of another curve is not the one.
                if !matches!(refused, InvalidIdToken::Signature | InvalidIdToken::Malformed) {
                    break;
                }
            }
        }
    }
    Err(refused)
}

fn for_this_sign_in(
    claims: Map<String, Value>,
    expected: Expected<'_>,
) -> Result<Map<String, Value>, InvalidIdToken> {
    // Where several are to read it, it says for whom it was made.
    let several = claims.get("aud").and_then(Value::as_array).is_some_and(|audience| audience.len() > 1);
    let party = claims.get("azp").map(|party| party.as_str() == Some(expected.client_id));
    if party == Some(false) || (several && party.is_none()) {
        return Err(InvalidIdToken::Audience);
    }
    let nonce = claims.get("nonce").and_then(Value::as_str);
    let nonce = nonce.ok_or_else(|| InvalidIdToken::Missing("nonce".to_owned()))?;
    if same(expected.nonce, nonce) { Ok(claims) } else { Err(InvalidIdToken::Nonce) }
}

fn because(kind: &ErrorKind) -> InvalidIdToken {
    match kind {
        ErrorKind::InvalidSignature => InvalidIdToken::Signature,
        ErrorKind::InvalidIssuer => InvalidIdToken::Issuer,
        ErrorKind::InvalidAudience => InvalidIdToken::Audience,
        ErrorKind::ExpiredSignature | ErrorKind::ImmatureSignature => InvalidIdToken::Expired,
        ErrorKind::MissingRequiredClaim(name) => InvalidIdToken::Missing(name.clone()),
        ErrorKind::InvalidAlgorithm => InvalidIdToken::Algorithm,
        _ => InvalidIdToken::Malformed,
    }
}
