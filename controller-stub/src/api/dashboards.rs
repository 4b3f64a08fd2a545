//! `GET /ws/events`: which upgrade of a dashboard is taken. Whose page it is, the browser says (Origin); who it is, its token, which the
//! connection itself asks for, because a browser cannot read the status of an upgrade that was refused.

use std::sync::Arc;

use aio_protocol::{
    api::ApiError,
    dashboard::{BEARER_PREFIX, SUBPROTOCOL},
    error_code::ErrorCode,
};
use axum::{
    Extension,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{error::Rejection, upgrade::Upgrade};
use crate::{
    app::App,
    listener::Visit,
    noti::dashboard::{self, Visitor},
};

/// A token is the longest that a dashboard has to say.
const MAX_MESSAGE_BYTES: usize = 16 * 1024;

/// Small, because there is nothing to read.
const READ_BUFFER_BYTES: usize = 1024;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct From {
    /// The id of the last event that the dashboard has, or a time; without it, only what happens from now on is sent.
    since: Option<String>,
}

/// Watch the organisation's events
///
/// Subprotocol `aio.events.v1`. The token comes as a second subprotocol, `bearer.<token>`, or in the first message.
#[utoipa::path(get, path = "/ws/events", operation_id = "watchEvents", tag = "events", params(From), responses(
    (status = 101, description = "The WebSocket"),
    (status = 400, description = "VALIDATION_FAILED: no WebSocket upgrade to `aio.events.v1`", body = ApiError),
    (status = 403, description = "FORBIDDEN: the page's origin is not one of DASHBOARD_ORIGINS", body = ApiError),
    (status = 426, description = "VALIDATION_FAILED: a WebSocket of another version than 13", body = ApiError),
    (status = 503, description = "RATE_LIMITED: as many dashboards watch as the controller takes", body = ApiError)))]
pub(super) async fn watch(
    State(app): State<Arc<App>>,
    visit: Option<Extension<Arc<Visit>>>,
    headers: HeaderMap,
    from: Result<Query<From>, QueryRejection>,
    upgrade: Result<Upgrade, Rejection>,
) -> Result<Response, Rejection> {
    let Query(From { since }) = from?;
    let Upgrade(upgrade) = upgrade?;
    let offered: Vec<_> = upgrade.requested_protocols().filter_map(|it| it.to_str().ok()).collect();
    if !offered.contains(&SUBPROTOCOL) {
        return Err(Rejection::field(format!("Sec-WebSocket-Protocol must offer `{SUBPROTOCOL}`")));
    }
    let token = offered.iter().find_map(|it| it.strip_prefix(BEARER_PREFIX)).map(str::to_owned);
    // Programs that are no browser send no origin, and have no page that could be somebody else's.
    if let Some(origin) = headers.get(header::ORIGIN)
        && !origin.to_str().is_ok_and(|origin| app.noti.welcomes_page_of(origin))
    {
        let message = "pages of this origin may not watch events; DASHBOARD_ORIGINS lists those that may";
        return Err(Rejection::forbidden(ErrorCode::Forbidden, message));
    }
    let seat = app.noti.seats.clone().try_acquire_owned().map_err(|_| {
        let message = "as many dashboards watch as the controller takes";
        Rejection::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::RateLimited, message)
    })?;
    let connections = app.connections.clone();
    let visitor = Visitor { app, place: visit.map(|Extension(visit)| visit.seat()), seat, token, since };
    // Only the name of the protocol is answered, never the token beside it.
    let upgrade = upgrade
        .protocols([SUBPROTOCOL])
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_frame_size(MAX_MESSAGE_BYTES)
        .max_message_size(MAX_MESSAGE_BYTES);
    Ok(upgrade.on_upgrade(async move |socket| {
        connections.spawn(dashboard::run(visitor, socket));
    }))
}
