//! `GET /ws/events`: which upgrade of a dashboard is taken. Whose page it is, the browser says (Origin); who
//! it is, its token. A token that is not accepted is told by the close, because a browser cannot read the
//! status of an upgrade that was refused.

use std::{sync::Arc, time::Duration};

use aio_protocol::{
    api::ApiError,
    dashboard::{BEARER_PREFIX, SUBPROTOCOL},
    error_code::ErrorCode,
};
use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use serde::Deserialize;
use tokio::runtime::Handle;
use utoipa::IntoParams;

use super::{auth, client::ClientAddress, error::Rejection, upgrade::Upgrade};
use crate::{
    app::App,
    noti::dashboard::{self, Entry, Visitor},
    rate::Rate,
    websocket::Limits,
};

/// What a dashboard may do. It says its token and answers pings, one for each batch of events.
const LIMITS: Limits =
    Limits { max_message_bytes: 16 * 1024, frames: Rate { interval: Duration::from_millis(10), burst: 200 } };

/// Who is refused a seat may ask again after this time.
const PAUSE: Duration = Duration::from_secs(5);

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct From {
    /// The id of the last event that the dashboard has, or a time; without it, only what happens
    /// from now on is sent.
    since: Option<String>,
}

/// Watch the organisation's events
///
/// Subprotocol `aio.events.v1`. The token comes in the Authorization header, as a second
/// subprotocol, `bearer.<token>`, or in the first message.
#[utoipa::path(get, path = "/ws/events", operation_id = "watchEvents", tag = "events", params(From), responses(
    (status = 101, description = "The WebSocket"),
    (status = 400, description = "VALIDATION_FAILED: no WebSocket upgrade to `aio.events.v1`", body = ApiError),
    (status = 403, description = "FORBIDDEN: the page's origin is not one of DASHBOARD_ORIGINS", body = ApiError),
    (status = 426, description = "VALIDATION_FAILED: a WebSocket of another version than 13", body = ApiError),
    (status = 503, description = "RATE_LIMITED: as many dashboards are connected as the controller takes; with Retry-After", body = ApiError)))]
pub(super) async fn watch(
    State(app): State<Arc<App>>,
    ClientAddress(address): ClientAddress,
    headers: HeaderMap,
    from: Result<Query<From>, QueryRejection>,
    upgrade: Result<Upgrade, Rejection>,
) -> Result<Response, Rejection> {
    let Query(From { since }) = from?;
    let upgrade = upgrade?;
    if !upgrade.protocols().any(|protocol| protocol == SUBPROTOCOL) {
        return Err(Rejection::field(format!("Sec-WebSocket-Protocol must offer `{SUBPROTOCOL}`")));
    }
    // Programs that are no browser send no origin, and have no page that could be somebody else's.
    if let Some(origin) = headers.get(header::ORIGIN)
        && !origin.to_str().is_ok_and(|origin| app.noti.welcomes_page_of(origin))
    {
        let message = "pages of this origin may not watch events; DASHBOARD_ORIGINS lists those that may";
        return Err(Rejection::forbidden(ErrorCode::Forbidden, message));
    }
    let offered = upgrade.protocols().find_map(|protocol| protocol.strip_prefix(BEARER_PREFIX));
    let token = match offered {
        Some(token) => Some(token),
        None if headers.contains_key(header::AUTHORIZATION) => Some(auth::bearer(&headers)?),
        None => None,
    };
    let entry = match token.map(|token| dashboard::admit(&app, token)) {
        Some(Ok(user)) => app.noti.seats.watch(&user.org_id).map(|seat| Entry::Admitted(user, seat)),
        Some(Err(end)) => app.noti.seats.wait(address).map(|seat| Entry::Refused(end, seat)),
        None => app.noti.seats.wait(address).map(Entry::Waiting),
    };
    let entry = entry.ok_or_else(|| {
        let message = "as many dashboards are connected as the controller takes";
        Rejection::later(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::RateLimited, message, PAUSE)
    })?;
    let visitor = Visitor { app: app.clone(), entry, since };
    // Only the name of the protocol is answered, never the token beside it.
    Ok(upgrade.accept(SUBPROTOCOL, &LIMITS, &Handle::current(), move |socket| {
        app.connections.spawn(dashboard::run(visitor, socket));
    }))
}
