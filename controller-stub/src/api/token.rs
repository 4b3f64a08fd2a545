//! `POST /nodes/{id}/token`: a node's token, and everything that is needed to use it.

use std::sync::Arc;

use aio_protocol::{error_code::ErrorCode, node::NodeStatus, release::ReleaseVersion};
use axum::{Json, extract::State, http::StatusCode};
use serde::Deserialize;

use super::{
    auth::{AsUser, NodeIdOfPath, node_of_user},
    body::OptionalBody,
    error::Rejection,
};
use crate::{
    app::App,
    clock,
    enrolment::{DEFAULT_LIFE_SECS, Enrolment, EnrolmentError},
};

/// An hour to a year, in seconds.
pub(crate) const LIFE_SECS: std::ops::RangeInclusive<u64> = 3600..=DEFAULT_LIFE_SECS;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Request {
    expires_in: Option<u64>,
    #[serde(rename = "osType")]
    _os_type: Option<OsType>,
    #[serde(rename = "installMethod")]
    _install_method: Option<InstallMethod>,
    daemon_version: Option<ReleaseVersion>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum OsType {
    Linux,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum InstallMethod {
    Systemd,
}

pub(super) async fn issue(
    State(app): State<Arc<App>>,
    user: AsUser,
    NodeIdOfPath(id): NodeIdOfPath,
    OptionalBody(request): OptionalBody<Request>,
) -> Result<(StatusCode, Json<Enrolment>), Rejection> {
    let user = user.who_may_write()?;
    let node = node_of_user(&app, &user, &id).await?;
    if node.status == NodeStatus::Inactive {
        let message = format!("node {id} was decommissioned and gets no token");
        return Err(Rejection::new(StatusCode::CONFLICT, ErrorCode::NodeInactive, message));
    }
    let lasts_secs = request.expires_in.unwrap_or(DEFAULT_LIFE_SECS);
    if !LIFE_SECS.contains(&lasts_secs) {
        let (shortest, longest) = (LIFE_SECS.start(), LIFE_SECS.end());
        return Err(Rejection::field(format!("expiresIn: must be between {shortest} and {longest} seconds")));
    }
    match app.enroller.enrol(&node, request.daemon_version, lasts_secs, clock::now()).await {
        Ok(enrolment) => Ok((StatusCode::CREATED, Json(enrolment))),
        Err(error @ EnrolmentError::NotPublished { .. }) => {
            Err(Rejection::field(format!("daemonVersion: {error}")))
        }
        Err(error) => Err(error.into()),
    }
}
