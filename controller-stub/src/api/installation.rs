//! `GET /nodes/{id}/installation`, the plan, and `POST`, an installer's reports.

use std::sync::Arc;

use aio_protocol::{
    api::ApiError,
    event::ErrorReport,
    installation::{InstallationPlan, InstallationReport, MAX_STEP_BYTES, ReportReceipt},
    release::{Platform, ReleaseVersion},
    text,
};
use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::{
    auth::{AsAnyone, AsNode, node_of_user},
    body::Body,
    error::Rejection,
    fields::Bounded,
    path::NodeIdOfPath,
};
use crate::{app::App, lifecycle::Occurrence, node::Phase};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct For {
    /// `linux-amd64` unless something else is said.
    platform: Option<Platform>,
}

/// Say what to install on a node
///
/// As the node's token promised; for a user, as the node's newest token did.
#[utoipa::path(get, path = "/nodes/{id}/installation", operation_id = "planInstallation", tag = "installation",
    security(("user" = []), ("node" = [])), params(NodeIdOfPath, For),
    responses((status = 200, description = "The plan", body = InstallationPlan)))]
pub(super) async fn plan(
    State(app): State<Arc<App>>,
    anyone: AsAnyone,
    NodeIdOfPath(id): NodeIdOfPath,
    query: Result<Query<For>, QueryRejection>,
) -> Result<Json<InstallationPlan>, Rejection> {
    let platform = query?.0.platform.unwrap_or(Platform::LinuxAmd64);
    let (node, jti) = match anyone {
        AsAnyone::Node(bearer) => {
            let bearer = bearer.speaks_for(&id)?;
            (bearer.node, Some(bearer.token.jti))
        }
        AsAnyone::User(user) => (node_of_user(&app, &user, &id).await?, None),
    };
    Ok(Json(app.enroller.plan(&node, jti.as_deref(), platform).await?))
}

/// A report of an installer. Which fields belong to it, its phase says. One flat shape, so that a
/// refusal can name the field.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Report {
    phase: Phase,
    /// With `started`: the release that is installed.
    version: Option<ReleaseVersion>,
    /// With `progress`, where it must be, and `failed`: the step's name.
    step: Option<String>,
    /// With `progress`: of the whole installation.
    #[schema(inline)]
    percent: Option<Percent>,
    /// With `failed`, where it must be: why.
    error: Option<Failure>,
    /// With `succeeded`: from command to success.
    #[schema(inline)]
    seconds: Option<Seconds>,
}

type Percent = Bounded<0, 100>;

/// Why an installation failed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Failure {
    /// A stable code.
    code: String,
    /// One sentence for a person.
    message: String,
    /// What is worth knowing beside, by name.
    #[serde(default)]
    details: serde_json::Map<String, serde_json::Value>,
}

/// A duration.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(try_from = "f64")]
#[schema(minimum = 0)]
struct Seconds(f64);

impl TryFrom<f64> for Seconds {
    type Error = &'static str;

    fn try_from(seconds: f64) -> Result<Self, Self::Error> {
        if seconds.is_finite() && seconds >= 0.0 { Ok(Self(seconds)) } else { Err("must not be negative") }
    }
}

impl TryFrom<Report> for InstallationReport {
    type Error = String;

    fn try_from(report: Report) -> Result<Self, String> {
        let Report { phase, version, step, percent, error, seconds } = report;
        let step = step.map(|step| text::clean(&step, MAX_STEP_BYTES));
        let belong: &[&str] = match phase {
            Phase::Started => &["version"],
            Phase::Progress => &["step", "percent"],
            Phase::Failed => &["step", "error"],
            Phase::Succeeded => &["seconds"],
        };
        let given = [
            ("version", version.is_some()),
            ("step", step.is_some()),
            ("percent", percent.is_some()),
            ("error", error.is_some()),
            ("seconds", seconds.is_some()),
        ];
        let name = phase.as_str();
        if let Some((field, _)) = given.iter().find(|(field, given)| *given && !belong.contains(field)) {
            return Err(format!("{field}: does not belong to the phase `{name}`"));
        }
        let missing = |field| format!("{field}: is missing, and the phase `{name}` needs it");
        Ok(match phase {
            Phase::Started => Self::Started { version },
            Phase::Progress => Self::Progress {
                step: step.ok_or_else(|| missing("step"))?,
                percent: percent.and_then(|percent| u8::try_from(percent.value()).ok()),
            },
            Phase::Failed => {
                let Failure { code, message, details } = error.ok_or_else(|| missing("error"))?;
                Self::Failed { step, error: ErrorReport { code, message, details } }
            }
            Phase::Succeeded => Self::Succeeded { seconds: seconds.map(|Seconds(seconds)| seconds) },
        })
    }
}

/// Report how an installation goes
#[utoipa::path(post, path = "/nodes/{id}/installation", operation_id = "reportInstallation", tag = "installation",
    security(("node" = [])), params(NodeIdOfPath), request_body = Report, responses(
        (status = 200, description = "The node's status after the report", body = ReportReceipt),
        (status = 409, description = "TRANSITION_REFUSED: the node's status does not take it; `allowed` lists what it takes", body = ApiError)))]
pub(super) async fn report(
    State(app): State<Arc<App>>,
    AsNode(bearer): AsNode,
    NodeIdOfPath(id): NodeIdOfPath,
    Body(report): Body<Report>,
) -> Result<Json<ReportReceipt>, Rejection> {
    bearer.speaks_for(&id)?;
    let report = report.try_into().map_err(Rejection::field)?;
    let turn = app.lifecycle.turn(&id).await;
    let node = turn.apply(&Occurrence::Reported(report), &format!("node:{id}")).await?;
    Ok(Json(ReportReceipt { status: node.status }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_report_of_the_protocol_is_read_as_itself() {
        for text in [
            json!({"phase": "started", "version": "v1.0.0"}),
            json!({"phase": "started"}),
            json!({"phase": "progress", "step": "fetch_release", "percent": 100}),
            json!({"phase": "failed", "step": "x", "error": {"code": "C", "message": "m", "details": {"a": 1}}}),
            json!({"phase": "succeeded", "seconds": 1.5}),
        ] {
            let report: Report = serde_json::from_value(text.clone()).unwrap();
            let expected: InstallationReport = serde_json::from_value(text).unwrap();
            assert_eq!(InstallationReport::try_from(report), Ok(expected));
        }
    }
}
