//! `GET /alarms/{alarm}`: an alarm and what became of it, with who did what and when.

use std::sync::Arc;

use aio_protocol::{api::ApiError, error_code::ErrorCode, node::NodeStatus, time::Timestamp};
use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    alarms::{AlarmView, is_operator},
    auth::AsUser,
    error::Rejection,
    path::InPath,
};
use crate::{
    alarms::model::Resolution,
    app::App,
    clock,
    store::{Alarm, StoreError},
};

/// An alarm with what became of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AlarmWithTimeline {
    #[serde(flatten)]
    alarm: AlarmView,
    /// What became of it, in order.
    timeline: Vec<AlarmMoment>,
}

/// Something that became of an alarm.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AlarmMoment {
    at: Timestamp,
    what: AlarmStep,
    /// `user:<id>`, `command line` or `controller`.
    by: String,
    /// A silence's end.
    until: Option<Timestamp>,
    /// A silence's reason, or how the alarm ended.
    detail: Option<String>,
}

/// What can become of an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum AlarmStep {
    Raised,
    /// Somebody silenced its node, before it or meanwhile.
    Silenced,
    Acknowledged,
    Resolved,
}

/// Who does what nobody asked for.
const CONTROLLER: &str = "controller";

/// Look at an alarm
///
/// With its timeline: who acknowledged or silenced it and when, and how it ended. A silence that began before
/// the alarm comes first.
#[utoipa::path(get, path = "/alarms/{alarm}", operation_id = "showAlarm", tag = "alarms", security(("user" = [])),
    params(("alarm" = Uuid, Path, description = "The alarm")), responses(
        (status = 200, description = "The alarm", body = AlarmWithTimeline),
        (status = 404, description = "NOT_FOUND: the organisation has no such alarm", body = ApiError)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    AsUser(user): AsUser,
    InPath(id): InPath<Uuid>,
) -> Result<Json<AlarmWithTimeline>, Rejection> {
    let alarm = app.store.alarm(&user.org_id, is_operator(&user), id).await?.ok_or_else(|| {
        Rejection::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, format!("there is no alarm {id}"))
    })?;
    let timeline = timeline(&app, &alarm).await?;
    Ok(Json(AlarmWithTimeline { alarm: alarm.into(), timeline }))
}

async fn timeline(app: &App, alarm: &Alarm) -> Result<Vec<AlarmMoment>, StoreError> {
    let moment = |at, what, by: &str| AlarmMoment { at, what, by: by.to_owned(), until: None, detail: None };
    let mut moments = vec![moment(alarm.raised_at, AlarmStep::Raised, CONTROLLER)];
    if let Some((at, by)) = &alarm.acknowledged {
        moments.push(moment(*at, AlarmStep::Acknowledged, by));
    }
    let ended = alarm.resolved.map_or_else(clock::now, |(at, _)| at);
    if let (Some(node), Some(org)) = (&alarm.node, &alarm.org)
        && let Some(node) = app.store.node(node).await?
    {
        let labels = serde_json::to_string(&node.labels).unwrap_or_default();
        for silence in app.store.silences_between(org, alarm.raised_at, ended).await? {
            if silence.covers(&node.id, &labels) {
                moments.push(AlarmMoment {
                    until: Some(silence.until),
                    detail: Some(silence.reason),
                    ..moment(silence.created_at, AlarmStep::Silenced, &silence.created_by)
                });
            }
        }
    }
    if let Some((at, resolution)) = alarm.resolved {
        let status = match resolution {
            Resolution::Cured => None,
            Resolution::Maintenance => Some(NodeStatus::Maintenance),
            Resolution::Decommissioned => Some(NodeStatus::Inactive),
        };
        let by = match (&alarm.node, status) {
            (Some(node), Some(status)) => app.store.who_made_it(node, status, at).await?,
            _ => None,
        };
        let by = by.unwrap_or_else(|| CONTROLLER.to_owned());
        let detail = Some(resolution.as_str().to_owned());
        moments.push(AlarmMoment { detail, ..moment(at, AlarmStep::Resolved, &by) });
    }
    moments.sort_by_key(|moment| (moment.at, moment.what));
    Ok(moments)
}
