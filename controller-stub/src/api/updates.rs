//! What is decided about one node's version, and about a group's: pins, an update at once, limits.

use std::sync::Arc;

use aio_protocol::{api::ApiError, release::ReleaseVersion};
use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::{
    audit::Asked,
    auth::{AsManager, AsUser, node_of_user},
    body::{Body, OptionalBody},
    error::Rejection,
    fields::Bounded,
    path::{InPath, NodeIdOfPath},
    rollouts::{RolloutView, asked_by},
    token::refuse_inactive,
    view::NodeView,
};
use crate::{
    app::App,
    labels::Label,
    rollout::{Group, Share},
    rollouts::{check_pin, put_group, update_node},
    store::Store,
};

/// A version to keep a node at.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PinRequest {
    version: ReleaseVersion,
}

/// Pin a node to a version
///
/// No rollout offers it another one. The node's own pin comes before this, and this before its group's.
#[utoipa::path(put, path = "/nodes/{id}/pin", operation_id = "pinNode", tag = "nodes", security(("user" = [])),
    params(NodeIdOfPath), request_body = PinRequest, responses(
        (status = 200, description = "The node", body = NodeView),
        (status = 409, description = "UPDATE_BELOW_FLOOR, INDEX_INVALID or NODE_INACTIVE", body = ApiError)))]
pub(super) async fn pin(
    State(app): State<Arc<App>>,
    AsManager(person): AsManager,
    NodeIdOfPath(id): NodeIdOfPath,
    Body(PinRequest { version }): Body<PinRequest>,
) -> Result<Json<NodeView>, Rejection> {
    refuse_inactive(&id, node_of_user(&app, &person, &id).await?.status)?;
    let by = asked_by(&app, &person);
    let asked = Asked { target: Some(version.to_string()), ..Asked::of_node("node.pin", &id) };
    let work = async |store: Store| {
        check_pin(&version, &by).await?;
        store.pin_node(&id, Some(&version)).await?;
        let node = store.node(&id).await?.ok_or_else(|| Rejection::no_node(id.as_str()))?;
        Ok(Json(NodeView::seen_now(&app, node)))
    };
    person.audited(&app, asked, work).await
}

/// Take a node's pin away
#[utoipa::path(delete, path = "/nodes/{id}/pin", operation_id = "unpinNode", tag = "nodes", security(("user" = [])),
    params(NodeIdOfPath), responses((status = 200, description = "The node", body = NodeView)))]
pub(super) async fn unpin(
    State(app): State<Arc<App>>,
    AsManager(person): AsManager,
    NodeIdOfPath(id): NodeIdOfPath,
) -> Result<Json<NodeView>, Rejection> {
    node_of_user(&app, &person, &id).await?;
    let work = async |store: Store| {
        store.pin_node(&id, None).await?;
        let node = store.node(&id).await?.ok_or_else(|| Rejection::no_node(id.as_str()))?;
        Ok(Json(NodeView::seen_now(&app, node)))
    };
    person.audited(&app, Asked::of_node("node.unpin", &id), work).await
}

/// The version that a node is to run.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UpdateRequest {
    /// The newest of the index when none is named.
    version: Option<ReleaseVersion>,
}

/// Update a node now
///
/// A rollout of its own, which is urgent and waits for no other node. A node on which a release was faulty is
/// tried again by it.
#[utoipa::path(post, path = "/nodes/{id}/update", operation_id = "updateNode", tag = "nodes", security(("user" = [])),
    params(NodeIdOfPath), request_body = Option<UpdateRequest>, responses(
        (status = 200, description = "The rollout", body = RolloutView),
        (status = 404, description = "NODE_NOT_FOUND, or RELEASE_NOT_FOUND: the index of releases does not name the version", body = ApiError),
        (status = 409, description = "ROLLOUT_CONFLICT, UPDATE_BELOW_FLOOR, INDEX_EXPIRED, INDEX_INVALID or NODE_INACTIVE", body = ApiError)))]
pub(super) async fn update(
    State(app): State<Arc<App>>,
    AsManager(person): AsManager,
    NodeIdOfPath(id): NodeIdOfPath,
    OptionalBody(UpdateRequest { version }): OptionalBody<UpdateRequest>,
) -> Result<Json<RolloutView>, Rejection> {
    refuse_inactive(&id, node_of_user(&app, &person, &id).await?.status)?;
    let by = asked_by(&app, &person);
    let asked =
        Asked { target: version.as_ref().map(ToString::to_string), ..Asked::of_node("node.roll_out", &id) };
    let work = async |store: Store| Ok(Json(update_node(&store, &id, version, &by).await?.into()));
    person.audited(&app, asked, work).await
}

/// Which group: the value of the label `group`.
#[derive(IntoParams)]
#[into_params(names("group"), parameter_in = Path)]
#[expect(dead_code, reason = "it describes the path")]
pub(super) struct GroupOfPath(String);

/// What holds for the nodes with the label `group` of this value.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct GroupSettings {
    /// The version that its nodes stay at.
    pin: Option<ReleaseVersion>,
    /// A node waits while one of its GPUs is busier than this, in percent, until the offer's deadline.
    defer_while_gpu_above: Option<GpuPercent>,
    /// How many of its nodes may switch at a time in a rollout to it.
    in_flight: Option<Share>,
}

type GpuPercent = Bounded<0, 100>;

impl From<Group> for GroupSettings {
    fn from(group: Group) -> Self {
        let percent = |it: u8| GpuPercent::try_from(u64::from(it)).ok();
        Self {
            pin: group.pin,
            defer_while_gpu_above: group.defer_while_gpu_above.and_then(percent),
            in_flight: group.in_flight,
        }
    }
}

impl From<GroupSettings> for Group {
    fn from(settings: GroupSettings) -> Self {
        let percent = settings.defer_while_gpu_above.map(GpuPercent::value);
        Self {
            pin: settings.pin,
            defer_while_gpu_above: percent.and_then(|it| u8::try_from(it).ok()),
            in_flight: settings.in_flight,
        }
    }
}

/// Show what holds for a group of nodes
#[utoipa::path(get, path = "/groups/{group}", operation_id = "showGroup", tag = "rollouts", security(("user" = [])),
    params(GroupOfPath), responses(
        (status = 200, description = "The group", body = GroupSettings),
        (status = 404, description = "NOT_FOUND: no label has such a value", body = ApiError)))]
pub(super) async fn show_group(
    State(app): State<Arc<App>>,
    AsUser(user): AsUser,
    InPath(name): InPath<Label>,
) -> Result<Json<GroupSettings>, Rejection> {
    Ok(Json(app.store.group(&user.org_id, &String::from(name)).await?.into()))
}

/// Say what holds for a group of nodes
///
/// What is left out no longer holds.
#[utoipa::path(put, path = "/groups/{group}", operation_id = "changeGroup", tag = "rollouts", security(("user" = [])),
    params(GroupOfPath), request_body = GroupSettings, responses(
        (status = 200, description = "The group", body = GroupSettings),
        (status = 404, description = "NOT_FOUND: no label has such a value", body = ApiError),
        (status = 409, description = "UPDATE_BELOW_FLOOR or INDEX_INVALID", body = ApiError)))]
pub(super) async fn change_group(
    State(app): State<Arc<App>>,
    AsManager(person): AsManager,
    InPath(name): InPath<Label>,
    Body(settings): Body<GroupSettings>,
) -> Result<Json<GroupSettings>, Rejection> {
    let (name, group, by) = (String::from(name), Group::from(settings), asked_by(&app, &person));
    let asked =
        Asked { action: "group.update", node: None, target: Some(name.clone()), detail: Some(json!(group)) };
    let work = async |store: Store| {
        put_group(&store, &name, &group, &by).await?;
        Ok(Json(group.clone().into()))
    };
    person.audited(&app, asked, work).await
}
