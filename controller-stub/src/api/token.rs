//! A node's token and everything that is needed to use it: one more, or one in the place of all others; and
//! which there are.

use std::sync::Arc;

use aio_protocol::{
    api::ApiError, error_code::ErrorCode, ids::NodeId, node::NodeStatus, release::ReleaseVersion,
    time::Timestamp, wire::close,
};
use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::{
    audit::Asked,
    auth::{AsManager, node_of_user},
    body::OptionalBody,
    error::Rejection,
    fields::{Bounded, Pagination},
    path::NodeIdOfPath,
    transitions::Which,
};
use crate::{
    app::App,
    clock,
    enrolment::{DEFAULT_LIFE_SECS, Enrolment, EnrolmentError},
    store::{KnownToken, Store},
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
    manager: AsManager,
    id: NodeIdOfPath,
    request: OptionalBody<TokenRequest>,
) -> Result<(StatusCode, Json<Enrolment>), Rejection> {
    enrol(&app, manager, id, request, "token.issue", false).await
}

/// Make a token in the place of all others
///
/// Every older token of the node is revoked, and its worker's socket is closed with 4401.
#[utoipa::path(post, path = "/nodes/{id}/regenerate-credentials", operation_id = "regenerateCredentials", tag = "tokens",
    security(("user" = [])), params(NodeIdOfPath), request_body = Option<TokenRequest>, responses(
        (status = 201, description = "The token, and how to use it", body = Enrolment),
        (status = 409, description = "NODE_INACTIVE: the node was decommissioned", body = ApiError),
        (status = 503, description = "VERIFY_ONLY: this controller makes no tokens", body = ApiError)))]
pub(super) async fn regenerate(
    State(app): State<Arc<App>>,
    manager: AsManager,
    id: NodeIdOfPath,
    request: OptionalBody<TokenRequest>,
) -> Result<(StatusCode, Json<Enrolment>), Rejection> {
    enrol(&app, manager, id, request, "token.regenerate", true).await
}

async fn enrol(
    app: &Arc<App>,
    AsManager(person): AsManager,
    NodeIdOfPath(id): NodeIdOfPath,
    OptionalBody(request): OptionalBody<TokenRequest>,
    action: &'static str,
    revoke_others: bool,
) -> Result<(StatusCode, Json<Enrolment>), Rejection> {
    let node = node_of_user(app, &person, &id).await?;
    let lasts_secs = request.expires_in.map_or(DEFAULT_LIFE_SECS, Bounded::value);
    let detail = json!({ "expiresIn": lasts_secs, "daemonVersion": request.daemon_version });
    let asked = Asked { detail: Some(detail), ..Asked::of_node(action, &id) };
    let minter = person.actor();
    let work = async |store: Store| {
        refuse_inactive(&id, node.status)?;
        let now = clock::now();
        let drawn_up = app.enroller.draw_up(&node, request.daemon_version, lasts_secs, &minter, now).await;
        let (enrolment, issued) = drawn_up.map_err(|error| match error {
            EnrolmentError::NotPublished { .. } => Rejection::field(format!("daemonVersion: {error}")),
            error => error.into(),
        })?;
        if revoke_others {
            store.revoke_tokens(&id, now, Some(issued)).await?;
            tracing::info!(node = %id, actor = minter, "all older tokens of a node were revoked");
            let turn = app.lifecycle.turn(&id).await;
            app.registry.close(&id, close::TOKEN_ENDED);
            turn.disconnect().await?;
        } else {
            store.add_token(issued).await?;
        }
        Ok((StatusCode::CREATED, Json(enrolment)))
    };
    person.audited(app, asked, work).await
}

pub(super) fn refuse_inactive(id: &NodeId, status: NodeStatus) -> Result<(), Rejection> {
    if status != NodeStatus::Inactive {
        return Ok(());
    }
    let message = format!("node {id} was decommissioned, which is final");
    Err(Rejection::new(StatusCode::CONFLICT, ErrorCode::NodeInactive, message))
}

#[derive(Serialize, ToSchema)]
pub(super) struct TokenList {
    data: Vec<ListedToken>,
    pagination: Pagination,
}

/// What is known of a token; the token itself is kept nowhere.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ListedToken {
    jti: String,
    issued_at: Timestamp,
    expires_at: Timestamp,
    revoked_at: Option<Timestamp>,
    /// `user:<id>`, `controller` or `command line`; `null` for those that were minted before this was kept.
    minted_by: Option<String>,
    /// The release that it installs.
    daemon_version: ReleaseVersion,
}

/// List a node's tokens
///
/// Newest first, and never the tokens themselves.
#[utoipa::path(get, path = "/nodes/{id}/tokens", operation_id = "listTokens", tag = "tokens", security(("user" = [])),
    params(NodeIdOfPath, Which), responses((status = 200, description = "A page of the node's tokens", body = TokenList)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    AsManager(person): AsManager,
    NodeIdOfPath(id): NodeIdOfPath,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<TokenList>, Rejection> {
    let Query(which) = which?;
    let paging = which.paging();
    node_of_user(&app, &person, &id).await?;
    let (known, total) = app.store.tokens_of(&id, paging.window()).await?;
    let data = known.into_iter().map(|KnownToken { issued, revoked_at }| ListedToken {
        jti: issued.jti,
        issued_at: issued.issued_at,
        expires_at: issued.expires_at,
        revoked_at,
        minted_by: issued.minted_by,
        daemon_version: issued.version,
    });
    Ok(Json(TokenList { data: data.collect(), pagination: paging.of(total) }))
}
