//! `GET /healthz`: whether the controller and its database answer.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Rejection;
use crate::app::App;

#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// `ok`.
    status: &'static str,
    /// The controller's.
    version: &'static str,
}

/// Ask whether the controller works
#[utoipa::path(get, path = "/healthz", operation_id = "health", tag = "operation",
    responses((status = 200, description = "The database answers", body = Health)))]
pub(super) async fn health(State(app): State<Arc<App>>) -> Result<Json<Health>, Rejection> {
    app.store.ping().await?;
    Ok(Json(Health { status: "ok", version: env!("CARGO_PKG_VERSION") }))
}
