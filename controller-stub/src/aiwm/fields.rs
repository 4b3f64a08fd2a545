//! JSON bodies as AIWM takes them: unknown fields are dropped. What is missing or of another type is refused
//! with its name.

use axum::extract::{FromRequest, Request};
use serde::de::DeserializeOwned;

use crate::api::{
    body::{RawBody, parse},
    error::Rejection,
};

/// A body that must be there.
pub(super) struct Fields<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Fields<T> {
    type Rejection = Rejection;

    async fn from_request(request: Request, state: &S) -> Result<Self, Rejection> {
        let RawBody(bytes) = RawBody::from_request(request, state).await?;
        parse(&bytes).map(Self)
    }
}
