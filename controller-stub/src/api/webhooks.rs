//! `/webhooks`: where an organisation is told of its events, beside NOTI.

use std::sync::Arc;

use aio_protocol::{api::ApiError, error_code::ErrorCode, time::Timestamp};
use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    audit::Asked,
    auth::AsManager,
    body::{Body, NoFields, OptionalBody},
    dead_letters::{DeadLetterList, Dropped, Pages, Replayed},
    error::Rejection,
    fields::Paging,
    path::InPath,
};
use crate::{
    app::App,
    clock,
    outbox::DeliveryState,
    store::{Owed, Store, Webhook, WebhookAttempt},
    webhooks::changes::{self, Refusal, Wanted},
};

/// Attempts that a list shows.
const MAX_ATTEMPTS: u64 = 100;

/// A webhook that is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NewWebhook {
    /// Where events are posted: `https://` and a public address, or one that the operator allows.
    #[schema(min_length = 1, max_length = 2048, example = "https://hooks.example.com/aio")]
    url: String,
    #[schema(max_length = 255)]
    description: Option<String>,
    /// The types of event that it is told of; all unless some are named.
    event_types: Option<Vec<String>>,
}

/// What of a webhook is changed; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WebhookChanges {
    #[schema(min_length = 1, max_length = 2048, example = "https://hooks.example.com/aio")]
    url: Option<String>,
    #[schema(max_length = 255)]
    description: Option<String>,
    /// The types of event that it is told of; all when empty.
    event_types: Option<Vec<String>>,
}

/// Where an organisation is told of its events.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Webhook)]
pub(crate) struct WebhookView {
    pub id: Uuid,
    pub url: String,
    pub description: String,
    /// All types of event when empty.
    pub event_types: Vec<String>,
    /// Whether events are delivered; `null` where no server says so.
    pub state: Option<DeliveryState>,
    /// Events that it has not acknowledged.
    pub waiting: u64,
    /// Events that were given up.
    pub dead: u64,
    /// Until then the secret before signs, too.
    pub previous_secret_until: Option<Timestamp>,
    pub created_at: Timestamp,
    /// `user:<id>` or `command line`.
    pub created_by: String,
}

/// A webhook with its secret, which no other answer shows.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WebhookWithSecret {
    #[serde(flatten)]
    pub webhook: WebhookView,
    /// Signs what is posted, after the Standard Webhooks specification.
    #[schema(example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    pub secret: String,
}

#[derive(Serialize, ToSchema)]
pub(super) struct WebhookList {
    data: Vec<WebhookView>,
}

/// What came of one attempt at a webhook.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = WebhookAttempt)]
pub(crate) struct AttemptView {
    /// The `webhook-id`.
    pub event_id: String,
    /// The type of the event; `webhook.test` for a test.
    #[serde(rename = "type")]
    pub kind: String,
    pub at: Timestamp,
    /// How long it took.
    pub millis: u64,
    /// `delivered`, `postponed` (it is tried again), `dead` (it was given up) or `failed` (a test).
    pub outcome: String,
    /// What the webhook answered.
    pub answer: String,
}

#[derive(Serialize, ToSchema)]
pub(super) struct AttemptList {
    data: Vec<AttemptView>,
}

impl WebhookView {
    pub(crate) fn of(webhook: &Webhook, state: Option<DeliveryState>, owed: Owed) -> Self {
        Self {
            id: webhook.id,
            url: webhook.url.clone(),
            description: webhook.description.clone(),
            event_types: webhook.kinds.clone(),
            state,
            waiting: owed.waiting,
            dead: owed.dead,
            previous_secret_until: changes::overlap_until(webhook, clock::now()),
            created_at: webhook.created_at,
            created_by: webhook.created_by.clone(),
        }
    }
}

impl From<WebhookAttempt> for AttemptView {
    fn from(attempt: WebhookAttempt) -> Self {
        let WebhookAttempt { event, kind, at, millis, outcome, answer } = attempt;
        Self { event_id: event, kind, at, millis, outcome, answer }
    }
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Field(problem) => Self::field(problem),
            Refusal::NoSuch(_) => Self::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, refusal.to_string()),
            Refusal::TooMany => Self::field(format!("url: {refusal}")),
            Refusal::Unusable(error) => Self::field(format!("url: {error}")),
            Refusal::Random(error) => error.into(),
            Refusal::Store(error) => error.into(),
        }
    }
}

/// The webhook as it stands, with what it is owed.
async fn view(app: &App, webhook: &Webhook) -> Result<WebhookView, Rejection> {
    let owed = app.store.owed_to_webhooks(Some(&webhook.org)).await?;
    let owed = owed.into_iter().find(|(id, ..)| *id == webhook.id).map(|(.., owed)| owed);
    Ok(WebhookView::of(webhook, app.webhooks.delivery(webhook.id), owed.unwrap_or_default()))
}

fn asked(action: &'static str, id: Option<Uuid>, url: Option<&str>) -> Asked {
    // The URL may hold a secret.
    let detail = url.and_then(changes::host).map(|host| json!({ "host": host }));
    Asked { action, node: None, target: id.map(|id| id.to_string()), detail }
}

/// List the organisation's webhooks
///
/// In the order in which they were made.
#[utoipa::path(get, path = "/webhooks", operation_id = "listWebhooks", tag = "webhooks", security(("user" = [])),
    responses((status = 200, description = "All of them", body = WebhookList)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    AsManager(person): AsManager,
) -> Result<Json<WebhookList>, Rejection> {
    let webhooks = app.store.webhooks(Some(&person.org_id)).await?;
    let owed = app.store.owed_to_webhooks(Some(&person.org_id)).await?;
    let view = |webhook: &Webhook| {
        let owed = owed.iter().find(|(id, ..)| *id == webhook.id).map(|(.., owed)| *owed);
        WebhookView::of(webhook, app.webhooks.delivery(webhook.id), owed.unwrap_or_default())
    };
    Ok(Json(WebhookList { data: webhooks.iter().map(view).collect() }))
}

/// Add a webhook
///
/// It is told of what happens from now on. The answer alone shows the secret that signs what is posted.
#[utoipa::path(post, path = "/webhooks", operation_id = "addWebhook", tag = "webhooks", security(("user" = [])),
    request_body = NewWebhook, responses((status = 201, description = "The webhook", body = WebhookWithSecret)))]
pub(super) async fn add(
    State(app): State<Arc<App>>,
    AsManager(person): AsManager,
    Body(new): Body<NewWebhook>,
) -> Result<(StatusCode, Json<WebhookWithSecret>), Rejection> {
    let asked = asked("webhook.add", None, Some(&new.url));
    let NewWebhook { url, description, event_types } = new;
    let wanted = Wanted { url: Some(url), description, kinds: event_types };
    let work = async |store: Store| {
        let by = person.actor();
        let webhook = changes::add(&store, &app.webhooks.guard, &person.org_id, wanted, by).await?;
        app.webhooks.changed();
        let secret = changes::shown(&webhook);
        Ok((StatusCode::CREATED, Json(WebhookWithSecret { webhook: view(&app, &webhook).await?, secret })))
    };
    person.audited(&app, asked, work).await
}

/// Look at a webhook
#[utoipa::path(get, path = "/webhooks/{webhook}", operation_id = "showWebhook", tag = "webhooks", security(("user" = [])),
    params(("webhook" = Uuid, Path, description = "The webhook")), responses(
        (status = 200, description = "The webhook", body = WebhookView),
        (status = 404, description = "NOT_FOUND: the organisation has no such webhook", body = ApiError)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    AsManager(person): AsManager,
    InPath(id): InPath<Uuid>,
) -> Result<Json<WebhookView>, Rejection> {
    let webhook = changes::find(&app.store, &person.org_id, id).await?;
    Ok(Json(view(&app, &webhook).await?))
}

/// Change a webhook
///
/// Delivery begins anew: a stop or a pause is over.
#[utoipa::path(patch, path = "/webhooks/{webhook}", operation_id = "changeWebhook", tag = "webhooks", security(("user" = [])),
    params(("webhook" = Uuid, Path, description = "The webhook")), request_body = WebhookChanges, responses(
        (status = 200, description = "The webhook", body = WebhookView),
        (status = 404, description = "NOT_FOUND: the organisation has no such webhook", body = ApiError)))]
pub(super) async fn alter(
    State(app): State<Arc<App>>,
    AsManager(person): AsManager,
    InPath(id): InPath<Uuid>,
    Body(new): Body<WebhookChanges>,
) -> Result<Json<WebhookView>, Rejection> {
    let asked = asked("webhook.change", Some(id), new.url.as_deref());
    let WebhookChanges { url, description, event_types } = new;
    let work = async |store: Store| {
        let wanted = Wanted { url, description, kinds: event_types };
        let webhook = changes::alter(&store, &app.webhooks.guard, &person.org_id, id, wanted).await?;
        app.webhooks.changed();
        Ok(Json(view(&app, &webhook).await?))
    };
    person.audited(&app, asked, work).await
}

/// Remove a webhook
///
/// With its log, and with all that it was still owed.
#[utoipa::path(delete, path = "/webhooks/{webhook}", operation_id = "removeWebhook", tag = "webhooks", security(("user" = [])),
    params(("webhook" = Uuid, Path, description = "The webhook")), responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "NOT_FOUND: the organisation has no such webhook", body = ApiError)))]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    AsManager(person): AsManager,
    InPath(id): InPath<Uuid>,
) -> Result<StatusCode, Rejection> {
    let work = async |store: Store| {
        if !store.remove_webhook(&person.org_id, id).await? {
            return Err(Refusal::NoSuch(id).into());
        }
        app.webhooks.changed();
        Ok(StatusCode::NO_CONTENT)
    };
    person.audited(&app, asked("webhook.remove", Some(id), None), work).await
}

/// Give a webhook another secret
///
/// For a day what is posted is signed with both, so that the receiver can change over in between.
#[utoipa::path(post, path = "/webhooks/{webhook}/rotate", operation_id = "rotateWebhook", tag = "webhooks", security(("user" = [])),
    params(("webhook" = Uuid, Path, description = "The webhook")), request_body = Option<NoFields>, responses(
        (status = 200, description = "The webhook with its new secret", body = WebhookWithSecret),
        (status = 404, description = "NOT_FOUND: the organisation has no such webhook", body = ApiError)))]
pub(super) async fn rotate(
    State(app): State<Arc<App>>,
    AsManager(person): AsManager,
    InPath(id): InPath<Uuid>,
    _: OptionalBody<NoFields>,
) -> Result<Json<WebhookWithSecret>, Rejection> {
    let work = async |store: Store| {
        let webhook = changes::rotate(&store, &person.org_id, id).await?;
        app.webhooks.changed();
        let secret = changes::shown(&webhook);
        Ok(Json(WebhookWithSecret { webhook: view(&app, &webhook).await?, secret }))
    };
    person.audited(&app, asked("webhook.rotate", Some(id), None), work).await
}

/// Send a test to a webhook
///
/// Posts `{type: "webhook.test", timestamp, data: {webhookId}}` now, once, and says what came of it.
#[utoipa::path(post, path = "/webhooks/{webhook}/test", operation_id = "testWebhook", tag = "webhooks", security(("user" = [])),
    params(("webhook" = Uuid, Path, description = "The webhook")), request_body = Option<NoFields>, responses(
        (status = 200, description = "What came of it", body = AttemptView),
        (status = 404, description = "NOT_FOUND: the organisation has no such webhook", body = ApiError)))]
pub(super) async fn test(
    State(app): State<Arc<App>>,
    AsManager(person): AsManager,
    InPath(id): InPath<Uuid>,
    _: OptionalBody<NoFields>,
) -> Result<Json<AttemptView>, Rejection> {
    let work = async |store: Store| {
        let attempt = changes::test(&store, &app.webhooks.guard, &person.org_id, id).await?;
        Ok(Json(attempt.into()))
    };
    person.audited(&app, asked("webhook.test", Some(id), None), work).await
}

/// List the latest attempts at a webhook
///
/// The latest first, 100 at most.
#[utoipa::path(get, path = "/webhooks/{webhook}/attempts", operation_id = "listWebhookAttempts", tag = "webhooks", security(("user" = [])),
    params(("webhook" = Uuid, Path, description = "The webhook")), responses(
        (status = 200, description = "The attempts", body = AttemptList),
        (status = 404, description = "NOT_FOUND: the organisation has no such webhook", body = ApiError)))]
pub(super) async fn attempts(
    State(app): State<Arc<App>>,
    AsManager(person): AsManager,
    InPath(id): InPath<Uuid>,
) -> Result<Json<AttemptList>, Rejection> {
    changes::find(&app.store, &person.org_id, id).await?;
    let found = app.store.webhook_attempts(id, MAX_ATTEMPTS).await?;
    Ok(Json(AttemptList { data: found.into_iter().map(Into::into).collect() }))
}

/// List the events that a webhook was not to be told of
///
/// The latest first.
#[utoipa::path(get, path = "/webhooks/{webhook}/dead-letters", operation_id = "listWebhookDeadLetters", tag = "webhooks",
    security(("user" = [])), params(("webhook" = Uuid, Path, description = "The webhook"), Pages), responses(
        (status = 200, description = "A page of dead letters", body = DeadLetterList),
        (status = 404, description = "NOT_FOUND: the organisation has no such webhook", body = ApiError)))]
pub(super) async fn dead_letters(
    State(app): State<Arc<App>>,
    AsManager(person): AsManager,
    InPath(id): InPath<Uuid>,
    pages: Result<axum::extract::Query<Pages>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<DeadLetterList>, Rejection> {
    let paging: Paging = pages?.0.paging();
    changes::find(&app.store, &person.org_id, id).await?;
    let found = app.store.webhook_dead_letters(id, paging.window()).await?;
    Ok(Json(DeadLetterList::of(found, paging)))
}

/// Drop a webhook's dead letters
///
/// It is never told of them.
#[utoipa::path(delete, path = "/webhooks/{webhook}/dead-letters", operation_id = "dropWebhookDeadLetters", tag = "webhooks",
    security(("user" = [])), params(("webhook" = Uuid, Path, description = "The webhook")), responses(
        (status = 200, description = "They are gone", body = Dropped),
        (status = 404, description = "NOT_FOUND: the organisation has no such webhook", body = ApiError)))]
pub(super) async fn drop_dead_letters(
    State(app): State<Arc<App>>,
    AsManager(person): AsManager,
    InPath(id): InPath<Uuid>,
) -> Result<Json<Dropped>, Rejection> {
    let work = async |store: Store| {
        changes::find(&store, &person.org_id, id).await?;
        Ok(Json(Dropped { dropped: store.drop_dead_letters_of_webhook(id).await? }))
    };
    person.audited(&app, asked("webhook.drop", Some(id), None), work).await
}

/// Deliver a webhook's dead letters again
///
/// A stop or a pause is over, and what waits is tried now.
#[utoipa::path(post, path = "/webhooks/{webhook}/replay", operation_id = "replayToWebhook", tag = "webhooks", security(("user" = [])),
    params(("webhook" = Uuid, Path, description = "The webhook")), request_body = Option<NoFields>, responses(
        (status = 200, description = "They are on their way", body = Replayed),
        (status = 404, description = "NOT_FOUND: the organisation has no such webhook", body = ApiError)))]
pub(super) async fn replay(
    State(app): State<Arc<App>>,
    AsManager(person): AsManager,
    InPath(id): InPath<Uuid>,
    _: OptionalBody<NoFields>,
) -> Result<Json<Replayed>, Rejection> {
    let work = async |store: Store| {
        changes::find(&store, &person.org_id, id).await?;
        let replayed = store.replay_to_webhook(id, clock::now()).await?;
        app.webhooks.changed();
        Ok(Json(Replayed { replayed }))
    };
    person.audited(&app, asked("webhook.replay", Some(id), None), work).await
}
