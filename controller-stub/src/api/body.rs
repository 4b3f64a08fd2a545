//! JSON bodies: what is not JSON, unknown, missing or out of range is refused with the field's name.

use axum::{
    Json,
    body::Bytes,
    extract::{FromRequest, Request},
    http::header,
};
use serde::de::DeserializeOwned;

use super::error::{Rejection, too_large};

/// A body that must be there.
pub(super) struct Body<T>(pub T);

/// A body that may be empty, which means the defaults.
pub(super) struct OptionalBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Rejection;

    async fn from_request(request: Request, state: &S) -> Result<Self, Rejection> {
        Ok(Self(Json::<T>::from_request(request, state).await?.0))
    }
}

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for OptionalBody<T> {
    type Rejection = Rejection;

    async fn from_request(request: Request, state: &S) -> Result<Self, Rejection> {
        let (parts, body) = request.into_parts();
        let content_type = parts.headers.get(header::CONTENT_TYPE).cloned();
        let bytes =
            Bytes::from_request(Request::from_parts(parts, body), state).await.map_err(|_| too_large())?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        let mut request = Request::new(bytes.into());
        if let Some(content_type) = content_type {
            request.headers_mut().insert(header::CONTENT_TYPE, content_type);
        }
        Ok(Self(Body::from_request(request, state).await?.0))
    }
}
