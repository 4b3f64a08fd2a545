//! The built-in NOTI: `POST /events` takes events from an outbox, `GET /events` shows an organisation its own.

use std::sync::Arc;

use aio_protocol::{error_code::ErrorCode, ids::NodeId};
use axum::{
    Json,
    extract::{FromRequestParts, Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, request::Parts},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    auth::{AsUser, bearer},
    body::RawBody,
    error::Rejection,
};
use crate::{
    app::App,
    clock,
    noti::signature::{Headers, ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER},
    store::{EventQuery, Received, Since},
};

const MAX_LIMIT: u64 = 1000;

/// Whoever holds NOTI's service token.
pub(super) struct AsEmitter;

impl FromRequestParts<Arc<App>> for AsEmitter {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Rejection> {
        if app.noti.admits(bearer(parts)?) {
            return Ok(Self);
        }
        Err(Rejection::unauthorized(ErrorCode::TokenInvalid, "this takes NOTI's service token"))
    }
}

/// 202 when the event is kept, 200 when it was before.
pub(super) async fn receive(
    State(app): State<Arc<App>>,
    _emitter: AsEmitter,
    headers: HeaderMap,
    RawBody(body): RawBody,
) -> Result<(StatusCode, Json<Value>), Rejection> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let signed =
        Headers { id: text(ID_HEADER), timestamp: text(TIMESTAMP_HEADER), signature: text(SIGNATURE_HEADER) };
    let new = app.noti.receive(signed, &body, clock::now()).await?;
    let status = if new { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok((status, Json(json!({ "status": if new { "accepted" } else { "duplicate" } }))))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Filter {
    node_id: Option<NodeId>,
    since: Option<String>,
    limit: Option<u64>,
}

#[derive(Serialize)]
pub(super) struct List {
    data: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    id: String,
    #[serde(flatten)]
    event: aio_protocol::event::NodeEvent,
}

/// Oldest first, at most 1000; `since` is the id of the last event that the caller has, or a time.
pub(super) async fn list(
    State(app): State<Arc<App>>,
    AsUser(user): AsUser,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Json<List>, Rejection> {
    let Query(filter) = filter?;
    let limit = filter.limit.unwrap_or(MAX_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Rejection::field(format!("limit: must be between 1 and {MAX_LIMIT}")));
    }
    let since = filter.since.map(|text| text.parse().map(Since::Time).unwrap_or(Since::Event(text)));
    let query = EventQuery { org: user.org_id, node: filter.node_id, since, limit };
    let events = app.store.events(&query).await?;
    let data = events.into_iter().map(|Received { id, event }| Entry { id, event }).collect();
    Ok(Json(List { data }))
}
