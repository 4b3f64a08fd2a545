//! The HTTP API: which address is served by what, and what holds for all of them. Every error is an `ApiError`.

pub(crate) mod auth;
mod body;
pub(crate) mod error;
mod events;
mod installation;
mod nodes;
mod releases;
mod token;

use std::sync::Arc;

use aio_protocol::{error_code::ErrorCode, wire::GATEWAY_PATH};
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::{Method, StatusCode, Uri},
    routing::{get, post},
};
use serde_json::{Value, json};
use tower_http::trace::TraceLayer;

use crate::{app::App, gateway};
use error::Rejection;

/// No body of the API comes near it.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Everything that is served.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/healthz", get(health))
        .route("/nodes", get(nodes::list).post(nodes::register))
        .route("/nodes/{id}", get(nodes::show))
        .route("/nodes/{id}/token", post(token::issue))
        .route("/nodes/{id}/installation", get(installation::plan).post(installation::report))
        .route("/releases/{version}/{file}", get(releases::download))
        .route("/events", get(events::list).post(events::receive))
        .route(GATEWAY_PATH, get(gateway::connect))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(TraceLayer::new_for_http())
        .with_state(app)
}

async fn health(State(app): State<Arc<App>>) -> Result<Json<Value>, Rejection> {
    app.store.ping().await?;
    Ok(Json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") })))
}

async fn not_found(uri: Uri) -> Rejection {
    let message = format!("there is nothing at {}", uri.path());
    Rejection::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, message)
}

// axum adds the Allow header.
async fn method_not_allowed(method: Method, uri: Uri) -> Rejection {
    let message = format!("{} does not take {method}", uri.path());
    Rejection::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::MethodNotAllowed, message)
}
