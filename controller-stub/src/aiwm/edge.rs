//! What AIWM adds to every answer, whoever gave it: a correlation id, and its own form of an error.

use std::sync::Arc;

use aio_protocol::{
    aiwm::rest::{self, Refused},
    api::ApiError,
    error_code::ErrorCode,
};
use axum::{
    Json,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderName, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::json;
use tokio::time::sleep;
use uuid::Uuid;

use super::{
    dialect::Dialect,
    double::{
        faults::Place,
        recording::{By, Entry},
    },
    routes::Route,
};
use crate::clock;

const CORRELATION_ID: HeaderName = HeaderName::from_static(rest::CORRELATION_ID);

/// Longer ids are not echoed.
const MAX_ID_BYTES: usize = 128;

/// No error of this controller has a larger body.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// No request or answer of the dialect's REST has a larger body.
const MAX_RECORDED_BYTES: usize = 4 * 1024 * 1024;

pub(super) async fn dress(State(dialect): State<Arc<Dialect>>, request: Request, next: Next) -> Response {
    let id = correlation_id(&request);
    let path = request.uri().path().to_owned();
    let route = Route::of(request.method(), &path);
    let mut response = match &dialect.double {
        Some(double) if route == Some(Route::Rest) => {
            let late = double.faults().delay(None, Place::Rest);
            if let Some(late) = late {
                sleep(late).await;
            }
            recorded(&dialect, request, next).await
        }
        _ => next.run(request).await,
    };
    let status = response.status();
    // Engine.IO has an error of its own.
    if route != Some(Route::Sockets) && (status.is_client_error() || status.is_server_error()) {
        response = rewritten(response, path, &id).await;
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(CORRELATION_ID, id);
    }
    response
}

/// Answers a request, and records both.
async fn recorded(dialect: &Dialect, request: Request, next: Next) -> Response {
    let what = format!("{} {}", request.method(), request.uri().path());
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, MAX_RECORDED_BYTES).await.unwrap_or_default();
    let entry = |by, status, body: &Bytes| Entry {
        at: clock::now(),
        by,
        node_id: None,
        what: what.clone(),
        status,
        body: serde_json::from_slice(body).unwrap_or_default(),
    };
    dialect.record(|| entry(By::Peer, None, &body));
    let (parts, body) = next.run(Request::from_parts(parts, Body::from(body))).await.into_parts();
    let body = to_bytes(body, MAX_RECORDED_BYTES).await.unwrap_or_default();
    dialect.record(|| entry(By::Controller, Some(parts.status.as_u16()), &body));
    Response::from_parts(parts, Body::from(body))
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
    let error = Refused {
        status_code: parts.status.as_u16(),
        errors: if invalid { vec![json!(message)] } else { Vec::new() },
        message,
        timestamp: Some(clock::now()),
        path: Some(path),
        correlation_id: Some(id.to_owned()),
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    let json = Json(error).into_response();
    if let Some(kind) = json.headers().get(header::CONTENT_TYPE) {
        parts.headers.insert(header::CONTENT_TYPE, kind.clone());
    }
    Response::from_parts(parts, json.into_body())
}
