//! `POST /nodes`, `GET /nodes`, `GET /nodes/{id}`.

use std::{collections::BTreeMap, sync::Arc};

use aio_protocol::node::{NodeRole, NodeStatus, Owner};
use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};

use super::{
    auth::{AsUser, NodeIdOfPath, node_of_user},
    body::Body,
    error::Rejection,
};
use crate::{app::App, clock, node::Node, random, store::NodeQuery};

const DEFAULT_LIMIT: u64 = 20;
const MAX_LIMIT: u64 = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Registration {
    name: String,
    #[serde(default)]
    role: Option<Vec<NodeRole>>,
}

pub(super) async fn register(
    State(app): State<Arc<App>>,
    user: AsUser,
    Body(registration): Body<Registration>,
) -> Result<(StatusCode, Json<Node>), Rejection> {
    let user = user.who_may_write()?;
    if let Some(problem) = crate::node::refuse_name(&registration.name) {
        return Err(Rejection::field(format!("name: {problem}")));
    }
    let mut role = registration.role.unwrap_or_else(|| vec![NodeRole::Worker]);
    let mut seen = Vec::new();
    role.retain(|role| {
        !seen.contains(role) && {
            seen.push(*role);
            true
        }
    });
    if role.is_empty() {
        return Err(Rejection::field("role: must name at least one of worker, controller, proxy, storage"));
    }
    let now = clock::now();
    let actor = format!("user:{}", user.sub);
    let owner = Owner { org_id: user.org_id, user_id: user.sub };
    let node = Node::registered(random::object_id(now)?, registration.name, role, owner, now);
    app.lifecycle.register(&node, &actor).await?;
    Ok((StatusCode::CREATED, Json(node)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    page: Option<u64>,
    limit: Option<u64>,
    status: Option<NodeStatus>,
}

#[derive(Serialize)]
pub(super) struct List {
    data: Vec<Node>,
    pagination: Pagination,
    statistics: Statistics,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Pagination {
    page: u64,
    limit: u64,
    total: u64,
    total_pages: u64,
}

/// Of all the organisation's nodes, whatever the filter.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Statistics {
    total: u64,
    by_status: BTreeMap<NodeStatus, u64>,
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    AsUser(user): AsUser,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Json<List>, Rejection> {
    let Query(Filter { page, limit, status }) = filter?;
    let (page, limit) = (page.unwrap_or(1), limit.unwrap_or(DEFAULT_LIMIT));
    if page == 0 {
        return Err(Rejection::field("page: begins at 1"));
    }
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Rejection::field(format!("limit: must be between 1 and {MAX_LIMIT}")));
    }
    let query = NodeQuery { org: user.org_id, status, offset: (page - 1).saturating_mul(limit), limit };
    let found = app.store.nodes(&query).await?;

    let mut by_status: BTreeMap<_, _> = NodeStatus::ALL.into_iter().map(|status| (status, 0)).collect();
    by_status.extend(found.by_status);
    let all = by_status.values().sum();
    let total = status.map_or(all, |status| by_status.get(&status).copied().unwrap_or(0));
    Ok(Json(List {
        data: found.nodes.into_iter().map(|node| as_seen_now(&app, node)).collect(),
        pagination: Pagination { page, limit, total, total_pages: total.div_ceil(limit) },
        statistics: Statistics { total: all, by_status },
    }))
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    AsUser(user): AsUser,
    NodeIdOfPath(id): NodeIdOfPath,
) -> Result<Json<Node>, Rejection> {
    let node = node_of_user(&app, &user, &id).await?;
    Ok(Json(as_seen_now(&app, node)))
}

/// The database learns of heartbeats in batches; the leases know them at once.
fn as_seen_now(app: &App, mut node: Node) -> Node {
    node.last_seen_at = node.last_seen_at.max(app.lifecycle.workers.last_seen(&node.id));
    node
}
