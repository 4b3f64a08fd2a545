//! `Idempotency-Key`: a request that makes something may be sent again, and is done once. Its answer is kept
//! for a day, by the user, the path and the key.
//!
//! No token is kept: of a token in an answer the signature is cut off, and made again when the answer is
//! asked for again. Both algorithms that tokens are signed with (HS256, EdDSA) give the same signature each
//! time.

use std::sync::Arc;

use aio_protocol::error_code::ErrorCode;
use axum::{
    body::{Body, to_bytes},
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{auth, body, error::Rejection};
use crate::{
    app::App,
    clock,
    store::{KeptAnswer, Reserved},
    tokens::Tokens,
};

pub(super) const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Marks an answer that is given again.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// What makes something; a key with any other request has no effect.
pub(super) const MAKING: [&str; 5] = [
    "/nodes",
    "/nodes/{id}/token",
    "/nodes/{id}/regenerate-credentials",
    "/dead-letters/replay",
    "/dead-letters/{letter}/replay",
];

const MAX_KEY_BYTES: usize = 255;

/// Larger than any answer of these, the install script included.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// What stands in the place of a token's signature.
const CUT: &str = ".*signature*";

pub(super) async fn once(
    State(app): State<Arc<App>>,
    path: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let makes = request.method() == Method::POST && path.is_some_and(|it| MAKING.contains(&it.as_str()));
    if !makes || !request.headers().contains_key(KEY) {
        return next.run(request).await;
    }
    answer_once(&app, request, next).await.unwrap_or_else(IntoResponse::into_response)
}

async fn answer_once(app: &Arc<App>, request: Request, next: Next) -> Result<Response, Rejection> {
    let (mut parts, content) = request.into_parts();
    let user = auth::manager(&mut parts, app).await?;
    let mut keys = parts.headers.get_all(KEY).iter();
    let key = match (keys.next(), keys.next()) {
        (Some(key), None) => key.to_str().ok().filter(|key| {
            (1..=MAX_KEY_BYTES).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic())
        }),
        _ => None,
    };
    let key = key.ok_or_else(|| {
        Rejection::field(format!(
            "Idempotency-Key: must stand once and have 1 to {MAX_KEY_BYTES} visible characters"
        ))
    })?;
    let id = hash(&[
        user.org_id.as_str().as_bytes(),
        user.sub.as_str().as_bytes(),
        parts.uri.path().as_bytes(),
        key.as_bytes(),
    ]);
    let content = body::read(Request::from_parts(parts.clone(), content), app).await?;
    let fingerprint = hash(&[&content]);

    let known = match app.store.reserve_key(&id, &fingerprint, clock::now()).await? {
        Reserved::New => {
            let response = next.run(Request::from_parts(parts, Body::from(content))).await;
            return keep(app, &id, response).await;
        }
        Reserved::Known { fingerprint, answer } => (fingerprint, answer),
    };
    match known {
        (other, _) if other != fingerprint => {
            let message = "Idempotency-Key: stands for a request with another body";
            Err(Rejection::new(StatusCode::UNPROCESSABLE_ENTITY, ErrorCode::IdempotencyKeyReused, message))
        }
        (_, None) => {
            let message = "Idempotency-Key: its request is being answered, or was when the controller ended; look whether it has done its work";
            Err(Rejection::new(StatusCode::CONFLICT, ErrorCode::IdempotencyKeyInUse, message))
        }
        (_, Some(KeptAnswer { status, body })) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
            let again = [
                (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
                (REPLAYED, HeaderValue::from_static("true")),
            ];
            Ok((status, again, made_whole(&body, &app.enroller.tokens)?).into_response())
        }
    }
}

/// Keeps what succeeded. What was refused or failed has made nothing, and may be tried again with
/// the same key.
async fn keep(app: &App, id: &str, response: Response) -> Result<Response, Rejection> {
    if !response.status().is_success() {
        app.store.answer_key(id, None).await?;
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, MAX_ANSWER_BYTES).await.map_err(|error| Rejection::fault(&error))?;
    let kept = KeptAnswer { status: parts.status.as_u16(), body: cut(&String::from_utf8_lossy(&body)) };
    app.store.answer_key(id, Some(kept)).await?;
    Ok(Response::from_parts(parts, Body::from(body)))
}

/// The token of an answer, in its two halves: what is signed, and the signature.
fn token(answer: &str) -> Option<(String, String)> {
    let answer: Value = serde_json::from_str(answer).ok()?;
    let (signed, signature) = answer.get("token")?.as_str()?.rsplit_once('.')?;
    Some((signed.to_owned(), signature.to_owned()))
}

/// An answer as it may be kept.
fn cut(answer: &str) -> String {
    match token(answer) {
        Some((signed, signature)) => {
            answer.replace(&format!("{signed}.{signature}"), &format!("{signed}{CUT}"))
        }
        None => answer.to_owned(),
    }
}

/// An answer as it was given.
fn made_whole(kept: &str, tokens: &Tokens) -> Result<String, Rejection> {
    let Some((signed, _)) = token(kept).filter(|_| kept.contains(CUT)) else { return Ok(kept.to_owned()) };
    let signature = tokens.signature(&signed).map_err(crate::enrolment::EnrolmentError::from)?;
    Ok(kept.replace(&format!("{signed}{CUT}"), &format!("{signed}.{signature}")))
}

fn hash(parts: &[&[u8]]) -> String {
    let hash = parts
        .iter()
        .fold(Sha256::new(), |hash, part| hash.chain_update(part.len().to_be_bytes()).chain_update(part));
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_is_kept_without_its_signature_and_given_as_it_was() {
        let tokens = Tokens::of_secret_for_tests();
        let token =
            tokens.sign_user("u".parse().unwrap(), "o".parse().unwrap(), vec![], clock::now(), 60).unwrap();
        let script = format!("install --token {token}\\n--again {token}");
        let answer = json!({"token": token, "installScript": script, "other": "a.b"}).to_string();
        let kept = cut(&answer);
        assert!(!kept.contains(token.rsplit('.').next().unwrap()), "{kept}");
        assert_eq!(made_whole(&kept, &tokens).unwrap(), answer);
        for without in ["{}", "{\"token\":null}", "[1]", ""] {
            assert_eq!(made_whole(&cut(without), &tokens).unwrap(), without);
        }
    }
}
