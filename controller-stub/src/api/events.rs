//! The built-in NOTI: `POST /events` takes events from an outbox, `GET /events` shows an
//! organisation its own.

use std::sync::Arc;

use aio_protocol::{
    api::ApiError, dashboard::ReceivedEvent, error_code::ErrorCode, event::NodeEvent, ids::NodeId,
};
use axum::{
    Json,
    extract::{FromRequestParts, Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, request::Parts},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    auth::{AsUser, bearer},
    body::RawBody,
    error::Rejection,
    fields::Bounded,
};
use crate::{
    app::App,
    clock,
    noti::signature::{Headers, ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER},
    store::{EventQuery, Received, Since},
};

const MAX_LIMIT: u64 = 1000;

type Limit = Bounded<1, MAX_LIMIT>;

/// Whoever holds NOTI's service token.
pub(super) struct AsEmitter;

impl FromRequestParts<Arc<App>> for AsEmitter {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Rejection> {
        if app.noti.admits(bearer(&parts.headers)?) {
            return Ok(Self);
        }
        Err(Rejection::unauthorized(ErrorCode::TokenInvalid, "this takes NOTI's service token"))
    }
}

/// Take an event from an outbox
///
/// Signed after the Standard Webhooks specification over the raw body.
#[utoipa::path(post, path = "/events", operation_id = "receiveEvent", tag = "events", security(("service" = [])),
    params(
        ("webhook-id" = String, Header, description = "The same at every try"),
        ("webhook-timestamp" = i64, Header, description = "Seconds since the Unix epoch, at most 300 s off"),
        ("webhook-signature" = String, Header, description = "`v1,<base64 of HMAC-SHA256>`")),
    request_body = NodeEvent, responses(
        (status = 202, description = "The event is kept", body = Receipt),
        (status = 200, description = "It was kept before", body = Receipt)))]
pub(super) async fn receive(
    State(app): State<Arc<App>>,
    _emitter: AsEmitter,
    headers: HeaderMap,
    RawBody(body): RawBody,
) -> Result<(StatusCode, Json<Receipt>), Rejection> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let signed =
        Headers { id: text(ID_HEADER), timestamp: text(TIMESTAMP_HEADER), signature: text(SIGNATURE_HEADER) };
    let new = app.noti.receive(signed, &body, clock::now()).await?;
    let (status, receipt) =
        if new { (StatusCode::ACCEPTED, "accepted") } else { (StatusCode::OK, "duplicate") };
    Ok((status, Json(Receipt { status: receipt })))
}

#[derive(Serialize, ToSchema)]
pub(super) struct Receipt {
    /// `accepted` or `duplicate`.
    status: &'static str,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Filter {
    /// Only this node's.
    node_id: Option<NodeId>,
    /// The id of the last event that the caller has, or a time: then the list begins with the first
    /// that happened then or later.
    since: Option<String>,
    /// 1000 unless something else is said.
    #[param(inline)]
    limit: Option<Limit>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct EventList {
    data: Vec<ReceivedEvent>,
}

/// List the organisation's events
///
/// Oldest first. Whoever has the last event's `id` gets the rest with `since`, page by page, until
/// one is not full.
#[utoipa::path(get, path = "/events", operation_id = "listEvents", tag = "events", security(("user" = [])),
    params(Filter), responses(
        (status = 200, description = "Events", body = EventList),
        (status = 410, description = "EVENT_GONE: the event that `since` names is not kept any more", body = ApiError)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    AsUser(user): AsUser,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Json<EventList>, Rejection> {
    let Query(filter) = filter?;
    let limit = filter.limit.map_or(MAX_LIMIT, Bounded::value);
    let since = filter.since.map_or(Since::Beginning, Since::parse);
    let after = app.store.event_position(&user.org_id, &since).await?.ok_or_else(|| missing(&since))?;
    let query = EventQuery { org: user.org_id, node: filter.node_id, after, limit };
    let events = app.store.events(&query).await?;
    let data = events.into_iter().map(|Received { id, event, .. }| ReceivedEvent { id, event }).collect();
    Ok(Json(EventList { data }))
}

fn missing(since: &Since) -> Rejection {
    if !since.is_plausible() {
        return Rejection::field(
            "since: must be an event's id, or a time as RFC 3339 writes it: 2025-12-11T12:00:00Z",
        );
    }
    let message = "since: this event is not kept, so what came after it may be missing too";
    Rejection::new(StatusCode::GONE, ErrorCode::EventGone, message)
}
