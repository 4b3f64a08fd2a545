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
use serde_json::Value;
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
    let read = |bytes: &[u8]| Json::from_bytes(bytes).map(|Json(body)| body);
    Ok(match with_whole_numbers(bytes) {
        Some(whole) => read(bytes).or_else(|_| read(&whole))?,
        None => read(bytes)?,
    })
}

/// JSON has one kind of numbers: `71.0` is the whole number 71, and some libraries write it so. The body with
/// such numbers made whole, where it has any.
fn with_whole_numbers(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body: Value = serde_json::from_slice(bytes).ok()?;
    make_whole(&mut body).then(|| serde_json::to_vec(&body).ok())?
}

/// Says whether there was one to make whole.
fn make_whole(value: &mut Value) -> bool {
    match value {
        Value::Number(number) => {
            // Beyond this, not every whole number has a `f64` of its own.
            let whole = number.as_f64().filter(|it| it.fract() == 0.0 && it.abs() < 9_007_199_254_740_992.0);
            let Some(whole) = whole.filter(|_| number.is_f64()) else { return false };
            #[expect(clippy::cast_possible_truncation, reason = "it is whole and small enough")]
            let whole = whole as i64;
            *number = whole.into();
            true
        }
        Value::Array(values) => values.iter_mut().fold(false, |any, it| make_whole(it) | any),
        Value::Object(fields) => fields.values_mut().fold(false, |any, it| make_whole(it) | any),
        _ => false,
    }
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

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Numbers {
        percent: u8,
        #[serde(default)]
        waves: Vec<i32>,
    }

    #[test]
    fn a_whole_number_may_have_a_fraction_of_zero_and_no_other() {
        let read = |text: &str| parse::<Numbers>(text.as_bytes()).ok();
        let told = |percent, waves: &[i32]| Some(Numbers { percent, waves: waves.to_vec() });
        assert_eq!(read(r#"{"percent": 71}"#), told(71, &[]));
        assert_eq!(read(r#"{"percent": 71.0, "waves": [1, 2e1, -3.0]}"#), told(71, &[1, 20, -3]));
        for text in [
            r#"{"percent": 71.5}"#,
            r#"{"percent": 256.0}"#,
            r#"{"percent": -1.0}"#,
            r#"{"percent": 1e300}"#,
            r#"{"percent": 1.0, "other": 1}"#,
            r#"{"percent": "71.0"}"#,
            r#"[71.0]"#,
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_beside_a_whole_number_is_what_is_named() {
        let refused = parse::<Numbers>(br#"{"percent": 71.0, "waves": [1.5]}"#).unwrap_err();
        assert!(format!("{refused:?}").contains("waves[0]"), "{refused:?}");
    }

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
