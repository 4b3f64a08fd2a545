//! `/nodes` and `/nodes/{id}`: registering, looking, renaming and labelling.

use std::{collections::BTreeMap, sync::Arc};

use aio_protocol::{
    api::ApiError,
    ids::NodeId,
    node::{NodeRole, NodeStatus, Owner},
    telemetry::Health,
};
use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::{
    audit::Asked,
    auth::{AsManager, AsUser, node_of_user},
    body::Body,
    error::Rejection,
    fields::{OneOrMore, PageNumber, PageSize, Pagination, Paging},
    path::NodeIdOfPath,
    token::refuse_inactive,
    view::{ListedNode, NodeView},
};
use crate::{
    app::App,
    clock,
    labels::{LabelChanges, Labels, Selector},
    lifecycle::LifecycleError,
    node::{Node, NodeName, composed},
    random,
    store::{Described, NodeFilter, NodeQuery, Position, Sort, SortKey, Store},
};

/// What a node is registered with.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Registration {
    name: NodeName,
    /// What it does for the fleet; a worker unless something else is said.
    #[serde(default)]
    role: Roles,
    #[serde(default)]
    labels: Labels,
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
/// It begins as `pending`, and belongs to the user's organisation, in which no other node in
/// service has its name.
#[utoipa::path(post, path = "/nodes", operation_id = "registerNode", tag = "nodes", security(("user" = [])),
    request_body = Registration, responses(
        (status = 201, description = "The node", body = NodeView),
        (status = 409, description = "NAME_TAKEN: another node in service has this name", body = ApiError)))]
pub(super) async fn register(
    State(app): State<Arc<App>>,
    AsManager(person): AsManager,
    Body(Registration { name, role: Roles(roles), labels }): Body<Registration>,
) -> Result<(StatusCode, Json<NodeView>), Rejection> {
    let (now, actor) = (clock::now(), person.actor());
    let owner = Owner { org_id: person.org_id.clone(), user_id: person.sub.clone() };
    let mut node = Node::registered(random::object_id(now)?, name.into(), roles, owner, now);
    node.labels = labels;
    let asked = Asked {
        action: "node.register",
        node: None,
        target: Some(node.name.clone()),
        detail: Some(json!({ "role": node.role, "labels": node.labels })),
    };
    let work = async |store: Store| {
        if !app.lifecycle.register(&store, &node, &actor).await? {
            return Err(Rejection::name_taken(&node.name));
        }
        Ok((StatusCode::CREATED, Json(NodeView::seen_now(&app, node))))
    };
    person.audited(&app, asked, work).await
}

/// What of a node is changed; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Changes {
    name: Option<NodeName>,
    labels: Option<LabelChanges>,
}

/// So often a node may be saved by others between its reading and its saving here.
const TRIES: usize = 16;

/// Rename or label a node
#[utoipa::path(patch, path = "/nodes/{id}", operation_id = "changeNode", tag = "nodes", security(("user" = [])),
    params(NodeIdOfPath), request_body = Changes, responses(
        (status = 200, description = "The node", body = NodeView),
        (status = 409, description = "NAME_TAKEN: another node in service has this name, or NODE_INACTIVE", body = ApiError)))]
pub(super) async fn change(
    State(app): State<Arc<App>>,
    AsManager(person): AsManager,
    NodeIdOfPath(id): NodeIdOfPath,
    Body(Changes { name, labels }): Body<Changes>,
) -> Result<Json<NodeView>, Rejection> {
    refuse_inactive(&id, node_of_user(&app, &person, &id).await?.status)?;
    let (name, labels) = (name.map(String::from), labels.unwrap_or_default().0);
    let asked = Asked {
        detail: Some(json!({ "name": name, "labels": labels })),
        ..Asked::of_node("node.update", &id)
    };
    let work = async |store: Store| {
        for _ in 0..TRIES {
            let mut node = store.node(&id).await?.ok_or_else(|| Rejection::no_node(id.as_str()))?;
            let before = node.clone();
            node.labels = node
                .labels
                .changed(labels.clone())
                .map_err(|problem| Rejection::field(format!("labels: {problem}")))?;
            node.name = name.clone().unwrap_or(node.name);
            let described = match node == before {
                true => Described::Done,
                false => store.describe_node(&node, node.name != before.name).await?,
            };
            match described {
                Described::Done => return Ok(Json(NodeView::seen_now(&app, node))),
                Described::NameTaken => return Err(Rejection::name_taken(&node.name)),
                Described::Outdated => {}
            }
        }
        Err(LifecycleError::Contended(id).into())
    };
    person.audited(&app, asked, work).await
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    #[param(inline)]
    page: Option<PageNumber>,
    #[param(inline)]
    limit: Option<PageSize>,
    /// Where the page before ended (`pagination.nextCursor`), in the same order and instead of
    /// `page`: nothing is missed or shown twice when nodes come and go meanwhile.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor>,
    /// Only nodes with one of these, separated by commas.
    #[param(value_type = Option<String>)]
    status: Option<OneOrMore<NodeStatus>>,
    /// Only nodes with this name. A `*` stands for any characters, and then the case of letters
    /// does not count.
    name: Option<String>,
    /// Only nodes with all of these labels, separated by commas: `key=value`, or `key` with any value.
    #[param(value_type = Option<String>)]
    label: Option<OneOrMore<Selector>>,
    /// Only nodes whose worker named one of these versions, separated by commas.
    #[param(value_type = Option<String>)]
    version: Option<OneOrMore<String>>,
    /// Only nodes that are connected and whose worker says one of these of their GPUs, separated by commas.
    #[param(value_type = Option<String>)]
    health: Option<OneOrMore<Health>>,
    /// What to order by; with `-`, the other way round. Newest first unless something else is said.
    /// Names are ordered as people count: gpu-2 before gpu-10.
    #[param(inline)]
    sort: Option<SortBy>,
}

/// A node's place in an order, as base64 of its JSON.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
struct Cursor(Position);

impl TryFrom<String> for Cursor {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let position = URL_SAFE_NO_PAD.decode(text).ok().and_then(|json| serde_json::from_slice(&json).ok());
        position.map(Self).ok_or("must be the nextCursor of another page")
    }
}

impl Cursor {
    fn written(position: &Position) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(position).unwrap_or_default())
    }
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
    Version,
    #[serde(rename = "-version")]
    VersionDescending,
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
            SortBy::Version => (SortKey::Version, false),
            SortBy::VersionDescending => (SortKey::Version, true),
            SortBy::LastSeenAt => (SortKey::LastSeenAt, false),
            SortBy::LastSeenAtDescending => (SortKey::LastSeenAt, true),
        };
        Self { by, descending }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct NodeList {
    data: Vec<ListedNode>,
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
/// Without `systemInfo`, which each node shows by itself. `sort` by `lastSeenAt` is by what the
/// database knows, which may be 10 s behind what the answer shows.
#[utoipa::path(get, path = "/nodes", operation_id = "listNodes", tag = "nodes", security(("user" = [])),
    params(Filter), responses((status = 200, description = "A page of nodes", body = NodeList)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    AsUser(user): AsUser,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Json<NodeList>, Rejection> {
    let Query(Filter { page, limit, cursor, status, name, label, version, health, sort }) = filter?;
    if page.is_some() && cursor.is_some() {
        return Err(Rejection::field("cursor: and page exclude each other"));
    }
    let sort = Sort::from(sort.unwrap_or_default());
    if cursor.as_ref().is_some_and(|Cursor(position)| !position.belongs_to(sort)) {
        return Err(Rejection::field("cursor: belongs to a list in another order"));
    }
    let (paging, of_cursor) = (Paging::new(page, limit), cursor.is_some());
    let filter = NodeFilter {
        statuses: status.map(|OneOrMore(statuses)| statuses).unwrap_or_default(),
        name: name.as_deref().map(composed),
        labels: label.map(|OneOrMore(labels)| labels).unwrap_or_default(),
        versions: version.map(|OneOrMore(versions)| versions).unwrap_or_default(),
        ids: match health {
            Some(OneOrMore(healths)) => Some(with_health(&app, &healths).await?),
            None => None,
        },
    };
    let after = cursor.map(|Cursor(position)| position);
    let query = NodeQuery { org: user.org_id, filter, sort, after, window: paging.window() };
    let found = app.store.nodes(&query).await?;

    let mut by_status: BTreeMap<_, _> = NodeStatus::ALL.into_iter().map(|status| (status, 0)).collect();
    by_status.extend(found.by_status);
    let next = found.next.as_ref().map(Cursor::written);
    Ok(Json(NodeList {
        data: found.nodes.into_iter().map(|node| ListedNode::seen_now(&app, node)).collect(),
        pagination: paging.of(found.total).going_on(next, of_cursor),
        statistics: Statistics { total: by_status.values().sum(), by_status },
    }))
}

/// The nodes whose workers say this of their GPUs, to any controller.
async fn with_health(app: &App, healths: &[Health]) -> Result<Vec<NodeId>, Rejection> {
    let mut ids = app.registry.with_health(healths);
    if app.membership.is_shared() {
        let elsewhere = app.store.connected_elsewhere(app.membership.number()).await?;
        ids.extend(elsewhere.into_iter().filter(|id| healths.contains(&app.elsewhere.health(id))));
    }
    Ok(ids)
}

/// Look at a node
#[utoipa::path(get, path = "/nodes/{id}", operation_id = "showNode", tag = "nodes", security(("user" = [])),
    params(NodeIdOfPath), responses((status = 200, description = "The node", body = NodeView)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    AsUser(user): AsUser,
    NodeIdOfPath(id): NodeIdOfPath,
) -> Result<Json<NodeView>, Rejection> {
    let node = node_of_user(&app, &user, &id).await?;
    Ok(Json(NodeView::seen_now(&app, node)))
}
