//! `/alarms` and `/silences`: what a person should look at, who has seen it, and what is not to be told.

use std::{sync::Arc, time::Duration};

use aio_protocol::{
    api::ApiError, claims::UserClaims, error_code::ErrorCode, ids::NodeId, text, time::Timestamp,
};
use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    audit::Asked,
    auth::{AsManager, AsUser, node_of_user},
    body::{Body, NoFields, OptionalBody},
    error::Rejection,
    fields::{Bounded, PageNumber, PageSize, Pagination, Paging},
    path::InPath,
    roles::{Permission, allow},
};
use crate::{
    alarms::model::{Kind, Level, Resolution},
    app::App,
    clock,
    labels::Selector,
    store::{self, Acknowledged, AlarmQuery, Silenced, Store, Telling},
};

/// The longest reason of a silence, in bytes.
const MAX_REASON_BYTES: usize = 255;

/// Maximum number of silences of an organisation that hold.
pub(crate) const MAX_SILENCES: u64 = 1_000;

/// Seconds that a silence holds: up to 30 days.
type Seconds = Bounded<60, 2_592_000>;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Filter {
    #[param(inline)]
    page: Option<PageNumber>,
    #[param(inline)]
    limit: Option<PageSize>,
    /// Only alarms of this node.
    node_id: Option<NodeId>,
    /// Only alarms of this kind.
    #[param(inline)]
    kind: Option<Kind>,
    /// Those that are over instead of those that are not.
    resolved: Option<bool>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct AlarmList {
    data: Vec<AlarmView>,
    pagination: Pagination,
}

/// Something that a person should look at.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Alarm)]
pub(crate) struct AlarmView {
    pub id: Uuid,
    /// `null` where an organisation or the controller is concerned.
    pub node_id: Option<NodeId>,
    pub kind: Kind,
    pub level: Level,
    pub state: AlarmState,
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub action: String,
    pub raised_at: Timestamp,
    pub acknowledged_at: Option<Timestamp>,
    /// `user:<id>` or `command line`.
    pub acknowledged_by: Option<String>,
    pub resolved_at: Option<Timestamp>,
    pub resolution: Option<Resolution>,
    /// Whether `alarm.raised` was sent; not while a silence holds.
    pub told: bool,
}

/// Where an alarm stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AlarmState {
    Raised,
    /// Somebody has seen it. It goes on.
    Acknowledged,
    Resolved,
}

/// What is not to be told for a time: of one node, or of the nodes with a label.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NewSilence {
    node_id: Option<NodeId>,
    /// `key=value`, or `key` with any value.
    #[schema(
        pattern = "^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?(=([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?)?$",
        example = "rack=r7"
    )]
    label: Option<String>,
    seconds: Seconds,
    /// Why: not blanks alone.
    #[schema(
        min_length = 1,
        max_length = 255,
        pattern = "[^\\u0000-\\u0020\\u007f-\\u00a0\\u00ad\\u034f\\u061c\\u115f\\u1160\\u1680\\u17b4\\u17b5\\u180b-\\u180f\\u2000-\\u200f\\u2028-\\u202f\\u205f-\\u206f\\u2800\\u3000\\u3164\\ufdd0-\\ufdef\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufffb\\ufffe\\uffff\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}]",
        example = "a new disk"
    )]
    reason: String,
}

/// A time in which alarms are not told.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Silence)]
pub(crate) struct SilenceView {
    pub id: Uuid,
    pub node_id: Option<NodeId>,
    pub label: Option<String>,
    pub until: Timestamp,
    pub reason: String,
    pub created_at: Timestamp,
    /// `user:<id>` or `command line`.
    pub created_by: String,
}

#[derive(Serialize, ToSchema)]
pub(super) struct SilenceList {
    data: Vec<SilenceView>,
}

pub(super) fn is_operator(user: &UserClaims) -> bool {
    allow(&user.roles, Permission::Operate)
}

/// List the organisation's alarms
///
/// The latest first; those that are not over unless `resolved` is said. Operators see the controller's own,
/// too.
#[utoipa::path(get, path = "/alarms", operation_id = "listAlarms", tag = "alarms", security(("user" = [])),
    params(Filter), responses((status = 200, description = "A page of alarms", body = AlarmList)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    AsUser(user): AsUser,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Json<AlarmList>, Rejection> {
    let Query(Filter { page, limit, node_id, kind, resolved }) = filter?;
    let paging = Paging::new(page, limit);
    let operator = is_operator(&user);
    let query = AlarmQuery {
        org: user.org_id,
        operator,
        resolved: resolved.unwrap_or(false),
        node: node_id,
        kind,
        window: paging.window(),
    };
    let (found, total) = app.store.alarms(&query).await?;
    Ok(Json(AlarmList { data: found.into_iter().map(Into::into).collect(), pagination: paging.of(total) }))
}

/// Say that an alarm was seen
///
/// It goes on until what is wrong is over. If it gets worse, or is raised again after that, nobody has seen it
/// yet. A second time changes nothing.
#[utoipa::path(post, path = "/alarms/{alarm}/acknowledge", operation_id = "acknowledgeAlarm", tag = "alarms",
    security(("user" = [])), params(("alarm" = Uuid, Path, description = "The alarm")), request_body = Option<NoFields>, responses(
        (status = 200, description = "The alarm", body = AlarmView),
        (status = 404, description = "NOT_FOUND: the organisation has no such alarm", body = ApiError)))]
pub(super) async fn acknowledge(
    State(app): State<Arc<App>>,
    AsManager(person): AsManager,
    InPath(id): InPath<Uuid>,
    _: OptionalBody<NoFields>,
) -> Result<Json<AlarmView>, Rejection> {
    let operator = is_operator(&person);
    let asked = Asked { action: "alarm.acknowledge", node: None, target: Some(id.to_string()), detail: None };
    let no_such =
        || Rejection::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, format!("there is no alarm {id}"));
    let work = async |store: Store| {
        let (org, by) = (&person.org_id, person.actor());
        if store.acknowledge_alarm(org, operator, id, clock::now(), &by).await? == Acknowledged::NoSuch {
            return Err(no_such());
        }
        store.alarm(org, operator, id).await?.map(|alarm| Json(alarm.into())).ok_or_else(no_such)
    };
    person.audited(&app, asked, work).await
}

/// List the organisation's silences that hold
///
/// The next to end first.
#[utoipa::path(get, path = "/silences", operation_id = "listSilences", tag = "alarms", security(("user" = [])),
    responses((status = 200, description = "All of them", body = SilenceList)))]
pub(super) async fn silences(
    State(app): State<Arc<App>>,
    AsUser(user): AsUser,
) -> Result<Json<SilenceList>, Rejection> {
    let found = app.store.silences(Some(&user.org_id), clock::now()).await?;
    Ok(Json(SilenceList { data: found.into_iter().map(Into::into).collect() }))
}

/// Silence a node, or the nodes with a label, for a time
///
/// Their alarms are raised and listed as ever, and no event tells of them. What is still wrong at the
/// silence's end is told then. At most 1,000 silences hold at a time.
#[utoipa::path(post, path = "/silences", operation_id = "addSilence", tag = "alarms", security(("user" = [])),
    request_body = NewSilence, responses(
        (status = 201, description = "The silence", body = SilenceView),
        (status = 404, description = "NODE_NOT_FOUND", body = ApiError)))]
pub(super) async fn silence(
    State(app): State<Arc<App>>,
    AsManager(person): AsManager,
    Body(new): Body<NewSilence>,
) -> Result<(StatusCode, Json<SilenceView>), Rejection> {
    let NewSilence { node_id, label, seconds, reason } = new;
    if let Some(node) = &node_id {
        node_of_user(&app, &person, node).await?;
    }
    let asked = Asked {
        action: "silence.add",
        node: node_id.clone(),
        target: None,
        detail: Some(json!({ "label": label, "seconds": seconds.value(), "reason": reason })),
    };
    let lasts = Duration::from_secs(seconds.value());
    let silence =
        made(&person.org_id, (node_id, label), lasts, &reason, person.actor()).map_err(Rejection::field)?;
    let work = async |store: Store| {
        if !store.add_silence(silence.clone(), MAX_SILENCES).await? {
            return Err(Rejection::field(format!("nodeId: {}", too_many_silences())));
        }
        Ok((StatusCode::CREATED, Json(silence.into())))
    };
    person.audited(&app, asked, work).await
}

/// A silence that begins now; the error says which field is wrong.
pub(crate) fn made(
    org: &aio_protocol::ids::OwnerId,
    named: (Option<NodeId>, Option<String>),
    lasts: Duration,
    reason: &str,
    by: String,
) -> Result<store::Silence, String> {
    let of = match named {
        (Some(node), None) => Silenced::Node(node),
        (None, Some(label)) => {
            label.parse::<Selector>().map_err(|problem| format!("label: {problem}"))?;
            Silenced::Label(label)
        }
        _ => return Err("nodeId: either this or label must be there".to_owned()),
    };
    let reason = text::clean(reason, MAX_REASON_BYTES);
    if reason.trim().is_empty() {
        return Err("reason: must not be empty".to_owned());
    }
    let now = clock::now();
    let (id, until) = (Uuid::now_v7(), now.plus(lasts));
    Ok(store::Silence { id, org: org.clone(), of, until, reason, created_at: now, created_by: by })
}

/// Why another silence is not kept.
pub(crate) fn too_many_silences() -> String {
    format!("the organisation has {MAX_SILENCES} silences, which is the maximum; end one, or name a label")
}

/// End a silence
#[utoipa::path(delete, path = "/silences/{silence}", operation_id = "endSilence", tag = "alarms", security(("user" = [])),
    params(("silence" = Uuid, Path, description = "The silence")), responses(
        (status = 204, description = "It is over"),
        (status = 404, description = "NOT_FOUND: the organisation has no such silence, or it is over", body = ApiError)))]
pub(super) async fn end_silence(
    State(app): State<Arc<App>>,
    AsManager(person): AsManager,
    InPath(id): InPath<Uuid>,
) -> Result<StatusCode, Rejection> {
    let asked = Asked { action: "silence.end", node: None, target: Some(id.to_string()), detail: None };
    let work = async |store: Store| {
        if store.end_silence(&person.org_id, id, clock::now()).await? {
            return Ok(StatusCode::NO_CONTENT);
        }
        let message = format!("no silence {id} holds");
        Err(Rejection::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, message))
    };
    person.audited(&app, asked, work).await
}

impl From<store::Alarm> for AlarmView {
    fn from(alarm: store::Alarm) -> Self {
        let state = match (&alarm.resolved, &alarm.acknowledged) {
            (Some(_), _) => AlarmState::Resolved,
            (None, Some(_)) => AlarmState::Acknowledged,
            (None, None) => AlarmState::Raised,
        };
        let (acknowledged_at, acknowledged_by) = alarm.acknowledged.unzip();
        let (resolved_at, resolution) = alarm.resolved.unzip();
        Self {
            id: alarm.id,
            node_id: alarm.node,
            kind: alarm.kind,
            level: alarm.level,
            state,
            reason: alarm.reason,
            action: alarm.action,
            raised_at: alarm.raised_at,
            acknowledged_at,
            acknowledged_by,
            resolved_at,
            resolution,
            told: alarm.telling != Telling::Untold,
        }
    }
}

impl From<store::Silence> for SilenceView {
    fn from(silence: store::Silence) -> Self {
        let store::Silence { id, of, until, reason, created_at, created_by, .. } = silence;
        let (node_id, label) = match of {
            Silenced::Node(node) => (Some(node), None),
            Silenced::Label(label) => (None, Some(label)),
        };
        Self { id, node_id, label, until, reason, created_at, created_by }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, string::string_regex};
    use utoipa::PartialSchema;

    use super::*;

    fn published(field: &str) -> BoxedStrategy<String> {
        let schema = serde_json::to_value(NewSilence::schema()).unwrap();
        let pattern = schema["properties"][field]["pattern"].as_str().unwrap();
        string_regex(pattern.trim_start_matches('^').trim_end_matches('$')).unwrap().boxed()
    }

    fn silence(label: String, reason: &str) -> Result<store::Silence, String> {
        let lasts = Duration::from_secs(60);
        made(&"acme".parse().unwrap(), (None, Some(label)), lasts, reason, "user:u".to_owned())
    }

    #[test]
    fn the_published_form_of_a_label_has_a_value_and_that_of_a_reason_has_blanks() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let labels = published("label");
        let values = (0..200).filter(|_| labels.new_tree(&mut runner).unwrap().current().contains('='));
        assert!((1..200).contains(&values.count()));
        let schema = serde_json::to_value(NewSilence::schema()).unwrap();
        let reason = schema["properties"]["reason"]["pattern"].as_str().unwrap();
        assert!(!reason.starts_with('^') && !reason.ends_with('$'), "{reason}");
    }

    proptest! {
        #[test]
        fn a_silence_of_the_published_form_is_taken(label in published("label"), reason in published("reason")) {
            // No form says how long the whole of a DNS name may be.
            prop_assume!(label.len() <= 253);
            prop_assert_eq!(silence(label, &format!(" {reason} x")).map(drop), Ok(()));
        }
    }
}
