//! `GET /nodes/{id}/installation`, the plan, and `POST`, an installer's reports.

use std::sync::Arc;

use aio_protocol::{
    installation::{InstallationPlan, InstallationReport, ReportReceipt},
    release::Platform,
};
use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use serde::Deserialize;

use super::{
    auth::{AsAnyone, AsNode, NodeIdOfPath, node_of_user},
    body::Body,
    error::Rejection,
};
use crate::{app::App, lifecycle::Occurrence};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct For {
    platform: Option<Platform>,
}

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
            (bearer.node, Some(bearer.jti))
        }
        AsAnyone::User(user) => (node_of_user(&app, &user, &id).await?, None),
    };
    Ok(Json(app.enroller.plan(&node, jti.as_deref(), platform).await?))
}

pub(super) async fn report(
    State(app): State<Arc<App>>,
    AsNode(bearer): AsNode,
    NodeIdOfPath(id): NodeIdOfPath,
    Body(report): Body<InstallationReport>,
) -> Result<Json<ReportReceipt>, Rejection> {
    bearer.speaks_for(&id)?;
    if let InstallationReport::Progress { percent: Some(percent), .. } = &report
        && *percent > 100
    {
        return Err(Rejection::field("percent: must be between 0 and 100"));
    }
    let turn = app.lifecycle.turn(&id).await;
    let node = turn.apply(&Occurrence::Reported(report), &format!("node:{id}")).await?;
    Ok(Json(ReportReceipt { status: node.status }))
}
