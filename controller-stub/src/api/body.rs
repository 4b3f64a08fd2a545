//! JSON bodies: what is not JSON, no object, or has a field that is unknown, missing or out of range is
//! refused with its name.

use std::time::Duration;

use aio_protocol::error_code::ErrorCode;
use axum::{
    Json,
    body::Bytes,
    extract::{FromRequest, Request},
    http::{HeaderMap, HeaderValue, StatusCode, header},
};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::timeout;
use utoipa::ToSchema;

use super::{MAX_BODY_BYTES, error::Rejection};

/// So long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// A body that must be there.
pub(super) struct Body<T>(pub T);

/// A body that may be empty, which means the defaults.
pub(super) struct OptionalBody<T>(pub T);

/// A body without fields.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NoFields {}

/// The body as it came, which must be declared as JSON.
pub(crate) struct RawBody(pub Bytes);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Rejection;

    async fn from_request(request: Request, state: &S) -> Result<Self, Rejection> {
        let RawBody(bytes) = RawBody::from_request(request, state).await?;
        parse(&bytes).map(Self)
    }
}

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for OptionalBody<T> {
    type Rejection = Rejection;

    async fn from_request(request: Request, state: &S) -> Result<Self, Rejection> {
        let declared = is_json(request.headers());
        let bytes = read(request, state).await?;
        if bytes.is_empty() || (declared && bytes.trim_ascii() == b"null") {
            return Ok(Self(T::default()));
        }
        if !declared {
            return Err(not_json());
        }
        parse(&bytes).map(Self)
    }
}

impl<S: Send + Sync> FromRequest<S> for RawBody {
    type Rejection = Rejection;

    async fn from_request(request: Request, state: &S) -> Result<Self, Rejection> {
        if !is_json(request.headers()) {
            return Err(not_json());
        }
        read(request, state).await.map(Self)
    }
}

/// The body as it came, within the bounds of size and time.
pub(super) async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Rejection> {
    read_within(PATIENCE, request, state).await
}

async fn read_within<S: Send + Sync>(
    patience: Duration,
    request: Request,
    state: &S,
) -> Result<Bytes, Rejection> {
    if let Some(coding) =
        request.headers().get_all(header::CONTENT_ENCODING).iter().find(|it| *it != "identity")
    {
        return Err(encoded(coding));
    }
    let Ok(bytes) = timeout(patience, Bytes::from_request(request, state)).await else {
        return Err(Rejection::field(format!("the body did not arrive within {patience:?}")));
    };
    bytes.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let message = format!("the body is larger than {MAX_BODY_BYTES} bytes");
            Rejection::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::BodyTooLarge, message)
        }
        _ => Rejection::field("the body broke off"),
    })
}

pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Rejection> {
    // A list of values in the fields' order would pass for the object otherwise.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(Rejection::field("the body must be a JSON object"));
    }
    let Json(body) = Json::from_bytes(bytes)?;
    Ok(body)
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(declared) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    declared.split(';').next().is_some_and(|it| it.trim().eq_ignore_ascii_case("application/json"))
}

fn not_json() -> Rejection {
    Rejection::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorCode::MediaTypeUnsupported,
        "the body must be JSON, with Content-Type: application/json",
    )
}

/// What is compressed may be larger than it looks.
fn encoded(coding: &HeaderValue) -> Rejection {
    let message = format!("the body must not be encoded, and Content-Encoding is {coding:?}");
    Rejection::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, ErrorCode::MediaTypeUnsupported, message)
        .with(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"))
}

#[cfg(test)]
mod tests {
    use axum::{
        body::{Body, to_bytes},
        response::IntoResponse,
    };

    use super::*;

    #[tokio::test]
    async fn a_body_that_does_not_end_is_not_waited_for_for_ever() {
        let endless = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let request = Request::new(Body::from_stream(endless));
        let patience = Duration::from_millis(20);
        let answer = read_within(patience, request, &()).await.unwrap_err().into_response();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        let answer = to_bytes(answer.into_body(), MAX_BODY_BYTES).await.unwrap();
        assert!(String::from_utf8_lossy(&answer).contains("the body did not arrive within 20ms"));
    }
}
