//! `/nodes` and `/nodes/{id}`: registering and looking.

use std::{collections::BTreeMap, sync::Arc};

use aio_protocol::node::{NodeRole, NodeStatus, Owner};
use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    auth::{AsManager, AsUser, node_of_user},
    body::Body,
    error::Rejection,
    fields::{PageNumber, PageSize, Pagination, Paging},
    path::NodeIdOfPath,
};
use crate::{
    app::App,
    clock,
    node::{Node, NodeName},
    random,
    store::{NodeQuery, Sort, SortKey},
};

/// What a node is registered with.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Registration {
    name: NodeName,
    /// What it does for the fleet; a worker unless something else is said.
    #[serde(default)]
    role: Roles,
}

/// At least one role, each once.
#[derive(Debug, PartialEq, Deserialize, ToSchema)]
#[serde(try_from = "Vec<NodeRole>")]
#[schema(min_items = 1)]
struct Roles(Vec<NodeRole>);

impl Default for Roles {
    fn default() -> Self {
        Self(vec![NodeRole::Worker])
    }
}

impl TryFrom<Vec<NodeRole>> for Roles {
    type Error = &'static str;

    fn try_from(named: Vec<NodeRole>) -> Result<Self, Self::Error> {
        let mut roles = Vec::new();
        for role in named {
            if !roles.contains(&role) {
                roles.push(role);
            }
        }
        if roles.is_empty() {
            return Err("must name at least one of worker, controller, proxy, storage");
        }
        Ok(Self(roles))
    }
}

/// Register a node
///
/// It begins as `pending`, and belongs to the user's organisation.
#[utoipa::path(post, path = "/nodes", operation_id = "registerNode", tag = "nodes", security(("user" = [])),
    request_body = Registration, responses((status = 201, description = "The node", body = Node)))]
pub(super) async fn register(
    State(app): State<Arc<App>>,
    AsManager(user): AsManager,
    Body(Registration { name, role: Roles(roles) }): Body<Registration>,
) -> Result<(StatusCode, Json<Node>), Rejection> {
    let now = clock::now();
    let actor = format!("user:{}", user.sub);
    let owner = Owner { org_id: user.org_id, user_id: user.sub };
    let node = Node::registered(random::object_id(now)?, name.into(), roles, owner, now);
    app.lifecycle.register(&node, &actor).await?;
    Ok((StatusCode::CREATED, Json(node)))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    #[param(inline)]
    page: Option<PageNumber>,
    #[param(inline)]
    limit: Option<PageSize>,
    /// Only nodes with this status.
    status: Option<NodeStatus>,
    /// What to order by; with `-`, the other way round. Newest first unless something else is said.
    #[param(inline)]
    sort: Option<SortBy>,
}

/// `sort`, as it is written.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum SortBy {
    CreatedAt,
    #[default]
    #[serde(rename = "-createdAt")]
    CreatedAtDescending,
    Name,
    #[serde(rename = "-name")]
    NameDescending,
    Status,
    #[serde(rename = "-status")]
    StatusDescending,
    LastSeenAt,
    #[serde(rename = "-lastSeenAt")]
    LastSeenAtDescending,
}

impl From<SortBy> for Sort {
    fn from(sort: SortBy) -> Self {
        let (by, descending) = match sort {
            SortBy::CreatedAt => (SortKey::CreatedAt, false),
            SortBy::CreatedAtDescending => (SortKey::CreatedAt, true),
            SortBy::Name => (SortKey::Name, false),
            SortBy::NameDescending => (SortKey::Name, true),
            SortBy::Status => (SortKey::Status, false),
            SortBy::StatusDescending => (SortKey::Status, true),
            SortBy::LastSeenAt => (SortKey::LastSeenAt, false),
            SortBy::LastSeenAtDescending => (SortKey::LastSeenAt, true),
        };
        Self { by, descending }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct NodeList {
    data: Vec<Node>,
    pagination: Pagination,
    statistics: Statistics,
}

/// Of all the organisation's nodes, whatever the filter.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Statistics {
    total: u64,
    /// By status; one that no node has is 0.
    #[schema(value_type = BTreeMap<String, u64>)]
    by_status: BTreeMap<NodeStatus, u64>,
}

/// List the organisation's nodes
///
/// `sort` by `lastSeenAt` is by what the database knows, which may be 10 s behind what the answer shows.
#[utoipa::path(get, path = "/nodes", operation_id = "listNodes", tag = "nodes", security(("user" = [])),
    params(Filter), responses((status = 200, description = "A page of nodes", body = NodeList)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    AsUser(user): AsUser,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Json<NodeList>, Rejection> {
    let Query(Filter { page, limit, status, sort }) = filter?;
    let paging = Paging::new(page, limit);
    let sort = sort.unwrap_or_default().into();
    let query = NodeQuery { org: user.org_id, status, sort, window: paging.window() };
    let found = app.store.nodes(&query).await?;

    let mut by_status: BTreeMap<_, _> = NodeStatus::ALL.into_iter().map(|status| (status, 0)).collect();
    by_status.extend(found.by_status);
    let all = by_status.values().sum();
    let total = status.map_or(all, |status| by_status.get(&status).copied().unwrap_or(0));
    Ok(Json(NodeList {
        data: found.nodes.into_iter().map(|node| as_seen_now(&app, node)).collect(),
        pagination: paging.of(total),
        statistics: Statistics { total: all, by_status },
    }))
}

/// Look at a node
#[utoipa::path(get, path = "/nodes/{id}", operation_id = "showNode", tag = "nodes", security(("user" = [])),
    params(NodeIdOfPath), responses((status = 200, description = "The node", body = Node)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    AsUser(user): AsUser,
    NodeIdOfPath(id): NodeIdOfPath,
) -> Result<Json<Node>, Rejection> {
    let node = node_of_user(&app, &user, &id).await?;
    Ok(Json(as_seen_now(&app, node)))
}

/// The database learns of heartbeats in batches, and of clones and of GPUs that fail not at all; this process knows them at once.
pub(super) fn as_seen_now(app: &App, mut node: Node) -> Node {
    node.gpu_health = app.registry.health(&node.id);
    node.identity_conflict = app.clones().conflict(&node.id);
    node.last_seen_at = node.last_seen_at.max(app.lifecycle.workers.last_seen(&node.id));
    node
}
