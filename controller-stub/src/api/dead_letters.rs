//! `/dead-letters`: events that were given up, and their way back into the outbox, or out of it.

use std::sync::Arc;

use aio_protocol::{error_code::ErrorCode, event::NodeEvent, time::Timestamp};
use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    audit::Asked,
    auth::{AsManager, AsUser},
    body::{NoFields, OptionalBody},
    error::Rejection,
    fields::{PageNumber, PageSize, Pagination, Paging},
    path::InPath,
};
use crate::{
    app::App,
    clock,
    store::{self, DeadLetterPage, Store},
};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Pages {
    #[param(inline)]
    page: Option<PageNumber>,
    #[param(inline)]
    limit: Option<PageSize>,
}

impl Pages {
    pub(super) fn paging(self) -> Paging {
        Paging::new(self.page, self.limit)
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct DeadLetterList {
    data: Vec<DeadLetter>,
    pagination: Pagination,
}

impl DeadLetterList {
    pub(super) fn of(found: DeadLetterPage, paging: Paging) -> Self {
        let data = found.letters.into_iter().map(DeadLetter::from).collect();
        Self { data, pagination: paging.of(found.total) }
    }
}

/// An event that was given up.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct DeadLetter {
    /// Its `webhook-id`.
    id: String,
    /// `rejected` or `expired`, and the last answer.
    reason: String,
    /// How often it was posted.
    attempts: u32,
    created_at: Timestamp,
    died_at: Timestamp,
    event: NodeEvent,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Replayed {
    /// How many are on their way again.
    pub(super) replayed: u64,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Dropped {
    /// How many are gone.
    pub(super) dropped: u64,
}

/// List the events that NOTI was not to be told of
///
/// The latest first.
#[utoipa::path(get, path = "/dead-letters", operation_id = "listDeadLetters", tag = "delivery", security(("user" = [])),
    params(Pages), responses((status = 200, description = "A page of dead letters", body = DeadLetterList)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    AsUser(user): AsUser,
    pages: Result<Query<Pages>, QueryRejection>,
) -> Result<Json<DeadLetterList>, Rejection> {
    let paging = pages?.0.paging();
    let found = app.store.dead_letters(&user.org_id, paging.window()).await?;
    Ok(Json(DeadLetterList::of(found, paging)))
}

/// Drop all dead letters
///
/// NOTI is never told of them.
#[utoipa::path(delete, path = "/dead-letters", operation_id = "dropDeadLetters", tag = "delivery", security(("user" = [])),
    responses((status = 200, description = "They are gone", body = Dropped)))]
pub(super) async fn drop_all(
    State(app): State<Arc<App>>,
    AsManager(person): AsManager,
) -> Result<Json<Dropped>, Rejection> {
    let asked = Asked { action: "dead_letter.drop", node: None, target: None, detail: None };
    let work = async |store: Store| {
        let dropped = store.drop_dead_letters(&person.org_id).await?;
        Ok(Json(Dropped { dropped }))
    };
    person.audited(&app, asked, work).await
}

/// Deliver all dead letters again
#[utoipa::path(post, path = "/dead-letters/replay", operation_id = "replayDeadLetters", tag = "delivery",
    security(("user" = [])), request_body = Option<NoFields>, responses((status = 200, description = "They are on their way", body = Replayed)))]
pub(super) async fn replay_all(
    State(app): State<Arc<App>>,
    AsManager(person): AsManager,
    _: OptionalBody<NoFields>,
) -> Result<Json<Replayed>, Rejection> {
    let (org, user) = (person.org_id.clone(), person.sub.clone());
    let asked = Asked { action: "dead_letter.replay", node: None, target: None, detail: None };
    let work = async |store: Store| {
        let (replayed, nodes) = store.replay(&org, None, clock::now()).await?;
        app.outbox.notifier.retry(nodes);
        tracing::info!(replayed, %user, "dead letters are delivered again");
        Ok(Json(Replayed { replayed }))
    };
    person.audited(&app, asked, work).await
}

/// Deliver one dead letter again
#[utoipa::path(post, path = "/dead-letters/{letter}/replay", operation_id = "replayDeadLetter", tag = "delivery",
    security(("user" = [])), params(("letter" = String, Path, description = "The event's `webhook-id`")), request_body = Option<NoFields>, responses(
        (status = 200, description = "It is on its way", body = Replayed),
        (status = 404, description = "NOT_FOUND: the organisation has no such dead letter", body = aio_protocol::api::ApiError)))]
pub(super) async fn replay(
    State(app): State<Arc<App>>,
    AsManager(person): AsManager,
    InPath(id): InPath<String>,
    _: OptionalBody<NoFields>,
) -> Result<Json<Replayed>, Rejection> {
    let (org, user) = (person.org_id.clone(), person.sub.clone());
    let asked = Asked { action: "dead_letter.replay", node: None, target: Some(id.clone()), detail: None };
    let work = async |store: Store| {
        let (replayed, nodes) = store.replay(&org, Some(&id), clock::now()).await?;
        if replayed == 0 {
            let message = format!("there is no dead letter {id}");
            return Err(Rejection::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, message));
        }
        app.outbox.notifier.retry(nodes);
        tracing::info!(event = id, %user, "a dead letter is delivered again");
        Ok(Json(Replayed { replayed }))
    };
    person.audited(&app, asked, work).await
}

impl From<store::DeadLetter> for DeadLetter {
    fn from(letter: store::DeadLetter) -> Self {
        let store::DeadLetter { id, event, noticed_at, attempts, died_at, reason } = letter;
        Self { id, reason, attempts, created_at: noticed_at, died_at, event }
    }
}
