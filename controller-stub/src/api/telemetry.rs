//! `GET /nodes/{id}/metrics`: what a node measures now, and how that was.

use std::{sync::Arc, time::Duration};

use aio_protocol::{time::Timestamp, wire::Metrics};
use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    auth::{AsUser, node_of_user},
    error::Rejection,
    fields::{Bounded, TimeOfQuery},
    path::NodeIdOfPath,
};
use crate::{
    app::App,
    clock,
    telemetry::{
        LONGEST_HISTORY, Slot, WINDOW,
        points::{Point, points},
    },
};

/// How far back the points go unless something else is said.
const DEFAULT_HISTORY: Duration = Duration::from_secs(86_400);

type Step = Bounded<300, 86_400>;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Span {
    /// When the points begin: a day before `to` unless something else is said.
    #[param(inline)]
    from: Option<TimeOfQuery>,
    /// When the points end: now unless something else is said.
    #[param(inline)]
    to: Option<TimeOfQuery>,
    /// Seconds from a point to the next, a multiple of 300: 300 unless something else is said.
    #[param(inline)]
    step: Option<Step>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodeMetrics {
    /// What its worker measured last; `null` while it is not connected or says nothing. Sensors and
    /// processes are left out.
    newest: Option<Newest>,
    /// Seconds from a point to the next.
    step: u64,
    /// Oldest first. A time of which nothing is known has no point.
    points: Vec<Point>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = NewestMetrics)]
struct Newest {
    /// When the controller received it.
    at: Timestamp,
    #[serde(flatten)]
    metrics: Metrics,
}

/// Look at what a node measures
///
/// The points are of five minutes, kept for `TELEMETRY_RETENTION`. The last five minutes become a point once
/// they are over.
#[utoipa::path(get, path = "/nodes/{id}/metrics", operation_id = "showNodeMetrics", tag = "nodes", security(("user" = [])),
    params(NodeIdOfPath, Span), responses((status = 200, description = "What it measures", body = NodeMetrics)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    AsUser(user): AsUser,
    NodeIdOfPath(id): NodeIdOfPath,
    span: Result<Query<Span>, QueryRejection>,
) -> Result<Json<NodeMetrics>, Rejection> {
    let Query(span) = span?;
    let now = clock::now();
    let (first, last, step) = span.checked(now)?;
    node_of_user(&app, &user, &id).await?;
    let windows = app.store.telemetry(&id, first, last).await?;
    let newest = app.telemetry.newest(&id, now);
    Ok(Json(NodeMetrics {
        newest: newest.map(|reading| Newest { at: reading.at, metrics: reading.told(id) }),
        step: step.as_secs(),
        points: points(&windows, step),
    }))
}

impl Span {
    /// The first and the last window, and the length of a point. Nothing is kept from before the longest
    /// history.
    fn checked(self, now: Timestamp) -> Result<(Slot, Slot, Duration), Rejection> {
        let to = self.to.map_or(now, |TimeOfQuery(to)| to);
        let from = self.from.map_or(to.minus(DEFAULT_HISTORY), |TimeOfQuery(from)| from);
        if from >= to {
            return Err(Rejection::field("from: must be before `to`"));
        }
        let step = Duration::from_secs(self.step.map_or(WINDOW.as_secs(), Bounded::value));
        if !step.as_secs().is_multiple_of(WINDOW.as_secs()) {
            return Err(Rejection::field("step: must be a multiple of 300 seconds"));
        }
        // A window that begins at `to` is not asked for.
        let last = Slot::of(to.minus(Duration::from_millis(1)));
        Ok((Slot::of(from.max(to.min(now).minus(LONGEST_HISTORY))), last.min(Slot::of(now)), step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str) -> Span {
        Query::<Span>::try_from_uri(&format!("/?{text}").parse().unwrap()).unwrap().0
    }

    #[test]
    fn a_span_is_of_whole_windows_and_no_longer_than_anything_is_kept() {
        let now: Timestamp = "2025-12-11T12:00:00Z".parse().unwrap();
        let slots =
            |text: &str| span(text).checked(now).map(|(first, last, _)| last.0 + 1 - first.0).unwrap();
        assert_eq!(slots(""), 288);
        assert_eq!(slots("from=2025-12-11T11:00:00Z"), 12);
        assert_eq!(slots("from=2025-12-11T11:00:00Z&to=2025-12-11T11:05:00Z"), 1);
        assert_eq!(slots("from=1970-01-01T00:00:00Z"), 7 * 288);
        // The current window and none of the future.
        assert_eq!(slots("from=2025-12-11T11:00:00Z&to=2099-01-01T00:00:00Z"), 13);
    }

    #[test]
    fn what_is_no_span_is_refused_by_name() {
        let now: Timestamp = "2025-12-11T12:00:00Z".parse().unwrap();
        for (text, field) in [
            ("from=2025-12-12T00:00:00Z", "from"),
            ("from=2025-12-11T11:00:00Z&to=2025-12-11T11:00:00Z", "from"),
            ("step=301", "step"),
        ] {
            let refusal = format!("{:?}", span(text).checked(now).unwrap_err());
            assert!(refusal.contains(&format!("{field}: must")), "{text}: {refusal}");
        }
        assert!(Query::<Span>::try_from_uri(&"/?step=299".parse().unwrap()).is_err());
    }
}
