//! What AIWM adds to every answer, whoever gave it: a correlation id, and its own form of an error.

use std::sync::Arc;

use aio_protocol::{api::ApiError, error_code::ErrorCode, time::Timestamp};
use axum::{
    Json,
    body::to_bytes,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use uuid::Uuid;

use super::{dialect::Dialect, routes::Route};
use crate::clock;

const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");

/// Longer ids are not echoed.
const MAX_ID_BYTES: usize = 128;

/// No error of this controller has a larger body.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// An error as AIWM writes it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AiwmError {
    status_code: u16,
    message: String,
    timestamp: Timestamp,
    path: String,
    correlation_id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<String>,
}

pub(super) async fn dress(State(_): State<Arc<Dialect>>, request: Request, next: Next) -> Response {
    let id = correlation_id(&request);
    let path = request.uri().path().to_owned();
    let is_socket = Route::of(request.method(), &path) == Some(Route::Sockets);
    let mut response = next.run(request).await;
    let status = response.status();
    // Engine.IO has an error of its own.
    if !is_socket && (status.is_client_error() || status.is_server_error()) {
        response = rewritten(response, path, &id).await;
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(CORRELATION_ID, id);
    }
    response
}

fn correlation_id(request: &Request) -> String {
    let sent = request.headers().get(CORRELATION_ID).and_then(|value| value.to_str().ok());
    let usable = |id: &&str| (1..=MAX_ID_BYTES).contains(&id.len());
    sent.filter(usable).map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}

/// The same refusal in AIWM's form. Its headers stay.
async fn rewritten(response: Response, path: String, id: &str) -> Response {
    let (mut parts, body) = response.into_parts();
    let body = to_bytes(body, MAX_ERROR_BYTES).await.unwrap_or_default();
    let told: Option<ApiError> = serde_json::from_slice(&body).ok();
    let (message, code) = told.map_or_else(
        || (parts.status.canonical_reason().unwrap_or("Error").to_owned(), String::new()),
        |told| (told.message, told.code),
    );
    let invalid = code == ErrorCode::ValidationFailed.as_str() && parts.status.is_client_error();
    let error = AiwmError {
        status_code: parts.status.as_u16(),
        errors: if invalid { vec![message.clone()] } else { Vec::new() },
        message,
        timestamp: clock::now(),
        path,
        correlation_id: id.to_owned(),
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    let json = Json(error).into_response();
    if let Some(kind) = json.headers().get(header::CONTENT_TYPE) {
        parts.headers.insert(header::CONTENT_TYPE, kind.clone());
    }
    Response::from_parts(parts, json.into_body())
}
