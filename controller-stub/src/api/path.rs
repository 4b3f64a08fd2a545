//! What stands in a path. A segment that cannot be what it should be leads nowhere: 404, as an id
//! that does not exist.

use std::sync::Arc;

use aio_protocol::{error_code::ErrorCode, ids::NodeId};
use axum::{
    extract::{FromRequestParts, Path},
    http::{StatusCode, request::Parts},
};
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use super::error::Rejection;
use crate::app::App;

/// The node of the path.
#[derive(IntoParams)]
#[into_params(names("id"), parameter_in = Path)]
pub(crate) struct NodeIdOfPath(pub NodeId);

/// Any other segments of the path.
pub(super) struct InPath<T>(pub T);

impl FromRequestParts<Arc<App>> for NodeIdOfPath {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Rejection> {
        let InPath(text) = InPath::<String>::from_request_parts(parts, app).await?;
        text.parse().map(Self).map_err(|_| Rejection::no_node(&text))
    }
}

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<App>> for InPath<T> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Rejection> {
        let Path(segments) = Path::from_request_parts(parts, app).await.map_err(|rejection| {
            Rejection::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, rejection.body_text())
        })?;
        Ok(Self(segments))
    }
}
