//! A node's token and everything that is needed to use it: one more, or one in the place of all others.

use std::sync::Arc;

use aio_protocol::{
    api::ApiError, error_code::ErrorCode, ids::NodeId, node::NodeStatus, release::ReleaseVersion, wire::close,
};
use axum::{Json, extract::State, http::StatusCode};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    auth::{AsManager, node_of_user},
    body::OptionalBody,
    error::Rejection,
    fields::Bounded,
    path::NodeIdOfPath,
};
use crate::{
    app::App,
    clock,
    enrolment::{DEFAULT_LIFE_SECS, Enrolment, EnrolmentError, Others},
};

type LifeSecs = Bounded<3600, DEFAULT_LIFE_SECS>;

/// What the token is to be like. Every field may be left out, and so may the body.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TokenRequest {
    /// For how many seconds it lasts: an hour to a year, which is the default.
    #[schema(inline)]
    expires_in: Option<LifeSecs>,
    #[serde(rename = "osType")]
    #[schema(inline)]
    _os_type: Option<OsType>,
    #[serde(rename = "installMethod")]
    #[schema(inline)]
    _install_method: Option<InstallMethod>,
    /// Must be published; the controller's default unless something else is said.
    daemon_version: Option<ReleaseVersion>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum OsType {
    Linux,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum InstallMethod {
    Systemd,
}

/// Make a token for a node
///
/// The token is shown once; the controller keeps its SHA-256. Older tokens stay valid.
#[utoipa::path(post, path = "/nodes/{id}/token", operation_id = "issueToken", tag = "tokens", security(("user" = [])),
    params(NodeIdOfPath), request_body = Option<TokenRequest>, responses(
        (status = 201, description = "The token, and how to use it", body = Enrolment),
        (status = 409, description = "NODE_INACTIVE: the node was decommissioned", body = ApiError),
        (status = 503, description = "VERIFY_ONLY: this controller makes no tokens", body = ApiError)))]
pub(super) async fn issue(
    State(app): State<Arc<App>>,
    AsManager(user): AsManager,
    NodeIdOfPath(id): NodeIdOfPath,
    OptionalBody(request): OptionalBody<TokenRequest>,
) -> Result<(StatusCode, Json<Enrolment>), Rejection> {
    let node = node_of_user(&app, &user, &id).await?;
    refuse_inactive(&id, node.status)?;
    enrol(&app, &node, request, Others::Stay).await
}

/// Make a token in the place of all others
///
/// Every older token of the node opens nothing from then on, and its worker's socket is closed with 4401.
#[utoipa::path(post, path = "/nodes/{id}/regenerate-credentials", operation_id = "regenerateCredentials", tag = "tokens",
    security(("user" = [])), params(NodeIdOfPath), request_body = Option<TokenRequest>, responses(
        (status = 201, description = "The token, and how to use it", body = Enrolment),
        (status = 409, description = "NODE_INACTIVE: the node was decommissioned", body = ApiError),
        (status = 503, description = "VERIFY_ONLY: this controller makes no tokens", body = ApiError)))]
pub(super) async fn regenerate(
    State(app): State<Arc<App>>,
    AsManager(user): AsManager,
    NodeIdOfPath(id): NodeIdOfPath,
    OptionalBody(request): OptionalBody<TokenRequest>,
) -> Result<(StatusCode, Json<Enrolment>), Rejection> {
    let node = node_of_user(&app, &user, &id).await?;
    refuse_inactive(&id, node.status)?;
    let enrolment = enrol(&app, &node, request, Others::End).await?;
    tracing::info!(node = %id, actor = %user.sub, "all older tokens of a node were withdrawn");
    let turn = app.lifecycle.turn(&id).await;
    app.registry.close(&id, close::TOKEN_ENDED);
    turn.disconnect().await?;
    Ok(enrolment)
}

fn refuse_inactive(id: &NodeId, status: NodeStatus) -> Result<(), Rejection> {
    if status != NodeStatus::Inactive {
        return Ok(());
    }
    let message = format!("node {id} was decommissioned and gets no token");
    Err(Rejection::new(StatusCode::CONFLICT, ErrorCode::NodeInactive, message))
}

async fn enrol(
    app: &App,
    node: &crate::node::Node,
    request: TokenRequest,
    others: Others,
) -> Result<(StatusCode, Json<Enrolment>), Rejection> {
    let lasts_secs = request.expires_in.map_or(DEFAULT_LIFE_SECS, Bounded::value);
    match app.enroller.enrol(node, request.daemon_version, lasts_secs, others, clock::now()).await {
        Ok(enrolment) => Ok((StatusCode::CREATED, Json(enrolment))),
        Err(error @ EnrolmentError::NotPublished { .. }) => {
            Err(Rejection::field(format!("daemonVersion: {error}")))
        }
        Err(error) => Err(error.into()),
    }
}
