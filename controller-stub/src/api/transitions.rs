//! `GET /nodes/{id}/transitions`: every change of a node's status.

use std::sync::Arc;

use aio_protocol::{node::NodeStatus, time::Timestamp};
use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    auth::{AsUser, node_of_user},
    error::Rejection,
    fields::{PageNumber, PageSize, Pagination, Paging},
    path::NodeIdOfPath,
};
use crate::{app::App, store};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    #[param(inline)]
    page: Option<PageNumber>,
    #[param(inline)]
    limit: Option<PageSize>,
}

impl Which {
    pub(super) fn paging(self) -> Paging {
        Paging::new(self.page, self.limit)
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct TransitionList {
    data: Vec<Transition>,
    pagination: Pagination,
}

/// A move that the node made.
#[derive(Serialize, ToSchema)]
struct Transition {
    /// `null` for its registration.
    from: Option<NodeStatus>,
    to: NodeStatus,
    /// What caused it, e.g. `worker_welcomed`, `lease_expired`, `maintenance`.
    trigger: String,
    /// Who caused it: `user:<id>`, `node:<id>`, `controller` or `command line`.
    actor: String,
    at: Timestamp,
}

/// List every change of a node's status
///
/// Newest first.
#[utoipa::path(get, path = "/nodes/{id}/transitions", operation_id = "listTransitions", tag = "nodes", security(("user" = [])),
    params(NodeIdOfPath, Which), responses((status = 200, description = "A page of the node's changes", body = TransitionList)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    AsUser(user): AsUser,
    NodeIdOfPath(id): NodeIdOfPath,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<TransitionList>, Rejection> {
    let Query(which) = which?;
    let paging = which.paging();
    node_of_user(&app, &user, &id).await?;
    let found = app.store.transitions(&id, paging.window()).await?;
    let data = found.transitions.into_iter().map(|store::Transition { from, to, cause, actor, at }| {
        Transition { from, to, trigger: cause, actor, at }
    });
    Ok(Json(TransitionList { data: data.collect(), pagination: paging.of(found.total) }))
}
