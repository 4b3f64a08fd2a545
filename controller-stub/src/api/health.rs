//! `/healthz`: whether the process answers. `/readyz`: whether it can do its work. `/metrics`: how it does.

use std::{net::SocketAddr, sync::Arc};

use aio_protocol::{api::ApiError, error_code::ErrorCode, release::build};
use axum::{
    Json,
    extract::{ConnectInfo, FromRequestParts, State},
    http::{StatusCode, header, request::Parts, uri::Authority},
    response::IntoResponse,
};
use reqwest::Url;
use secrecy::ExposeSecret;
use serde::Serialize;
use utoipa::ToSchema;

use super::{auth::bearer, error::Rejection};
use crate::{app::App, gateway, loopback::is_this_machine, noti::signature};

#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// `ok` or `ready`.
    status: &'static str,
    /// The controller's.
    version: &'static str,
}

/// Ask whether the process answers
///
/// Asks nothing else: for whoever restarts what hangs.
#[utoipa::path(get, path = "/healthz", operation_id = "health", tag = "operation",
    responses((status = 200, description = "It answers", body = Health)))]
pub(super) async fn health() -> Json<Health> {
    Json(Health { status: "ok", version: build::number() })
}

/// Ask whether the controller can do its work
///
/// For whoever sends requests here or elsewhere.
#[utoipa::path(get, path = "/readyz", operation_id = "readiness", tag = "operation", responses(
    (status = 200, description = "The database takes changes, and the controller does not stop", body = Health),
    (status = 503, description = "CONTROLLER_ERROR: the message says what is missing", body = ApiError)))]
pub(super) async fn readiness(State(app): State<Arc<App>>) -> Result<Json<Health>, Rejection> {
    let mut missing = Vec::new();
    if app.leaving.is_cancelled() {
        missing.push("the controller stops");
    }
    missing.extend(app.probe.problem(&app.store).await);
    if missing.is_empty() {
        return Ok(Json(Health { status: "ready", version: build::number() }));
    }
    let message = format!("not ready: {}", missing.join("; "));
    Err(Rejection::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::ControllerError, message))
}

/// Whoever may read the figures: with `METRICS_TOKEN`, its bearer; without, this machine.
pub(super) struct AsObserver;

/// A proxy's request comes from this machine and is not this machine's.
const FORWARDED: [&str; 5] = ["forwarded", "x-forwarded-for", "x-forwarded-proto", "x-real-ip", "via"];

impl FromRequestParts<Arc<App>> for AsObserver {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Rejection> {
        if let Some(token) = &app.metrics_token {
            return if signature::same(token.expose_secret(), bearer(&parts.headers)?) {
                Ok(Self)
            } else {
                Err(Rejection::unauthorized(ErrorCode::TokenInvalid, "this takes METRICS_TOKEN"))
            };
        }
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let from_here = peer.is_some_and(|ConnectInfo(peer)| peer.ip().to_canonical().is_loopback());
        let forwarded = FORWARDED.iter().any(|name| parts.headers.contains_key(*name));
        if from_here && !forwarded && names_this_machine(parts) && !app.enroller.deployment.proxied {
            return Ok(Self);
        }
        let message =
            "figures are shown to this machine alone, and never behind a proxy, unless METRICS_TOKEN is set";
        Err(Rejection::forbidden(ErrorCode::Forbidden, message))
    }
}

/// Whether the request is for a loopback address, as one is that a program of this machine sends. A
/// proxy that says nothing of its client often passes on what that client asked for.
fn names_this_machine(parts: &Parts) -> bool {
    let named =
        parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let Some(authority) = parts.uri.authority().cloned().or(named) else { return true };
    Url::parse(&format!("http://{authority}")).is_ok_and(|url| is_this_machine(&url))
}

/// Read the figures
///
/// As Prometheus reads them; docs/operations.md lists them.
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "operation", security((), ("observer" = [])), responses(
    (status = 200, description = "The figures", body = String, content_type = "text/plain"),
    (status = 401, description = "TOKEN_MISSING or TOKEN_INVALID, when METRICS_TOKEN is set", body = ApiError),
    (status = 403, description = "FORBIDDEN: not from this machine, or behind a proxy, and METRICS_TOKEN is not set", body = ApiError)))]
pub(super) async fn metrics(State(app): State<Arc<App>>, _: AsObserver) -> impl IntoResponse {
    gateway::measure(&app);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.exporter.render())
}
