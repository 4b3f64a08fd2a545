//! `/ws/node`: who may connect is decided before the upgrade, in HTTP: the token's signature, `admission`,
//! and the database. What a connection then says is `session`'s (pure), what is done about it `connection`'s,
//! when `timetable`'s (pure), how much it may say `rate`'s (pure), and which of a node's connections speaks
//! for it `registry`'s.

pub(crate) mod admission;
pub(crate) mod clones;
mod connection;
pub(crate) mod drain;
mod pace;
pub(crate) mod registry;
mod session;
pub(crate) mod thread;
mod timetable;

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use aio_protocol::{
    api::ApiError,
    error_code::ErrorCode,
    telemetry::Health,
    wire::{MAX_FRAME_BYTES, SUBPROTOCOL},
};
use axum::{
    extract::{FromRequestParts, State},
    http::{StatusCode, request::Parts},
    response::Response,
};
use metrics::{counter, gauge};

use crate::{
    api::{
        auth::{self, NodeOfToken},
        client::ClientAddress,
        error::Rejection,
        upgrade::Upgrade,
    },
    app::App,
    clock,
    rate::Rate,
    websocket::Limits,
};
use admission::{Handshake, TurnedAway};
use connection::{Newcomer, Peer};

/// What a worker may do. It sends about one frame in ten seconds.
const LIMITS: Limits = Limits {
    max_message_bytes: MAX_FRAME_BYTES,
    frames: Rate { interval: Duration::from_millis(100), burst: 120 },
};

/// Connect as a worker
///
/// Subprotocol `aio.node.v1`, one JSON object per text frame.
#[utoipa::path(get, path = "/ws/node", operation_id = "connectWorker", tag = "workers", security(("node" = [])), responses(
    (status = 101, description = "The WebSocket"),
    (status = 400, description = "VALIDATION_FAILED: no WebSocket upgrade to `aio.node.v1`", body = ApiError),
    (status = 426, description = "VALIDATION_FAILED: a WebSocket of another version than 13", body = ApiError),
    (status = 429, description = "RATE_LIMITED, or NODE_SUPERSEDED: another machine is connected as this node; with Retry-After", body = ApiError),
    (status = 503, description = "RATE_LIMITED: more workers connect than are taken at once; with Retry-After", body = ApiError)))]
pub(crate) async fn connect(
    State(app): State<Arc<App>>,
    ClientAddress(address): ClientAddress,
    newcomer: Entrant,
    upgrade: Result<Upgrade, Rejection>,
) -> Result<Response, Rejection> {
    admit(app, address, newcomer, upgrade).inspect_err(count)
}

fn count(refusal: &Rejection) {
    counter!("aio_gateway_refusals_total", "reason" => refusal.code().as_str()).increment(1);
}

/// A worker whose token was accepted, and who has room for its handshake.
pub(crate) struct Entrant {
    node: NodeOfToken,
    handshake: Handshake,
}

impl FromRequestParts<Arc<App>> for Entrant {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Rejection> {
        if app.stop.is_cancelled() {
            TurnedAway::Stopping.count();
            return Err(TurnedAway::Stopping.into());
        }
        if app.membership.is_cut_off() {
            TurnedAway::CutOff.count();
            return Err(TurnedAway::CutOff.into());
        }
        // Who shows no good token takes nothing from those who do.
        let claims = auth::node_claims(parts, app).inspect_err(count)?;
        let handshake = app.admission.begin()?;
        let node = auth::accept(parts, app, claims).await.inspect_err(count)?;
        Ok(Self { node, handshake })
    }
}

fn admit(
    app: Arc<App>,
    address: IpAddr,
    Entrant { node, handshake }: Entrant,
    upgrade: Result<Upgrade, Rejection>,
) -> Result<Response, Rejection> {
    let upgrade = upgrade?;
    if !upgrade.protocols().any(|protocol| protocol == SUBPROTOCOL) {
        return Err(Rejection::field(format!("Sec-WebSocket-Protocol must offer `{SUBPROTOCOL}`")));
    }
    if let Some(pause) = stay_away(&app, &node, address) {
        return Err(Rejection::later(
            StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::NodeSuperseded,
            "another machine is connected as this node",
            pause,
        ));
    }
    // Somewhere in the second half of the grace: tokens that were made together do not end together.
    let grace = app.token_grace.mul_f64(0.5 + 0.4 * fastrand::f64());
    let token_ends = Instant::now() + node.token.life.expires_at.since(clock::now()) + grace;
    let newcomer = Newcomer {
        handshake,
        before: node.node.instance_id,
        is_elsewhere: is_elsewhere(&app, &node),
        welcomed_at: node.node.connection_established_at,
        not_before: node.node.tokens_not_before,
    };
    let newcomer = Box::new(newcomer);
    let runtime = app.gateway.clone();
    let peer = Peer { node: node.id, address, token: node.token, token_ends, newcomer };
    Ok(upgrade.accept(SUBPROTOCOL, &LIMITS, &runtime, move |socket| {
        // Tracked, so that a shutdown waits.
        let connections = app.connections.clone();
        connections.spawn(connection::run(app, peer, socket));
    }))
}

/// How long a machine that was refused because another has its identity must not even try again.
fn stay_away(app: &App, node: &NodeOfToken, address: IpAddr) -> Option<Duration> {
    let pause = app.clones().pause(&node.id, address, Instant::now())?;
    // Behind one address the two cannot be told apart before they register, and a node that nobody
    // holds is free.
    let elsewhere = node.node.ip_address.is_some_and(|holder| holder != address.to_canonical());
    let is_held = app.registry.has_speaker(&node.id) || is_elsewhere(app, node);
    (elsewhere && is_held).then_some(pause)
}

/// Whether the node's worker is connected to another controller, as far as the database knows.
fn is_elsewhere(app: &App, node: &NodeOfToken) -> bool {
    node.node.websocket_connected && node.node.held_by != app.membership.number()
}

/// Sets the figures that follow from who is connected now.
#[expect(clippy::cast_precision_loss, reason = "gauges; no fleet has 2^52 nodes")]
pub(crate) fn measure(app: &App) {
    let healths = app.registry.healths();
    for health in Health::ALL {
        let nodes = healths.get(&health).copied().unwrap_or_default();
        gauge!("aio_nodes_gpu_health", "health" => health.as_str()).set(nodes as f64);
    }
    gauge!("aio_identity_conflicts").set(app.clones().conflicts(Instant::now()) as f64);
}
