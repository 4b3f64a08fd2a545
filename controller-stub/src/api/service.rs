//! What an admin decides about a node's service: maintenance, resume, decommissioning. Each twice is as good as once, as far as the
//! status machine says so: it decides, and its refusal is the 409.

use std::sync::Arc;

use aio_protocol::{api::ApiError, wire::close};
use axum::{Json, extract::State};

use super::{
    auth::{AsManager, node_of_user},
    body::{NoFields, OptionalBody},
    error::Rejection,
    nodes::as_seen_now,
    path::NodeIdOfPath,
};
use crate::{
    app::App,
    lifecycle::{Occurrence, Turn},
    node::Node,
};

/// Take a node out of service
///
/// Its worker stays connected. Allowed while the node is online; in maintenance already, nothing changes.
#[utoipa::path(post, path = "/nodes/{id}/maintenance", operation_id = "beginMaintenance", tag = "nodes", security(("user" = [])),
    params(NodeIdOfPath), request_body = Option<NoFields>, responses(
        (status = 200, description = "The node", body = Node),
        (status = 409, description = "TRANSITION_REFUSED: the node's status does not take it; `allowed` lists what it takes", body = ApiError)))]
pub(super) async fn begin_maintenance(
    State(app): State<Arc<App>>,
    manager: AsManager,
    id: NodeIdOfPath,
    _: OptionalBody<NoFields>,
) -> Result<Json<Node>, Rejection> {
    decide(&app, manager, id, Occurrence::MaintenanceRequested).await
}

/// Put a node back into service
///
/// It is then `online` if its worker is connected and `offline` if not. Allowed in maintenance.
#[utoipa::path(post, path = "/nodes/{id}/resume", operation_id = "resume", tag = "nodes", security(("user" = [])),
    params(NodeIdOfPath), request_body = Option<NoFields>, responses(
        (status = 200, description = "The node", body = Node),
        (status = 409, description = "TRANSITION_REFUSED: the node's status does not take it; `allowed` lists what it takes", body = ApiError)))]
pub(super) async fn resume(
    State(app): State<Arc<App>>,
    manager: AsManager,
    id: NodeIdOfPath,
    _: OptionalBody<NoFields>,
) -> Result<Json<Node>, Rejection> {
    decide(&app, manager, id, Occurrence::ResumeRequested).await
}

/// Decommission a node, for good
///
/// Its tokens open nothing any more and its worker's socket is closed with 4401. The node stays listed, as `inactive`. A second time
/// changes nothing and answers the same.
#[utoipa::path(delete, path = "/nodes/{id}", operation_id = "decommissionNode", tag = "nodes", security(("user" = [])),
    params(NodeIdOfPath), responses((status = 200, description = "The node", body = Node)))]
pub(super) async fn decommission(
    State(app): State<Arc<App>>,
    manager: AsManager,
    id: NodeIdOfPath,
) -> Result<Json<Node>, Rejection> {
    let (turn, actor) = turn_of(&app, &manager, &id).await?;
    turn.apply(&Occurrence::DecommissionRequested, &actor).await?;
    app.registry.close(&id.0, close::TOKEN_ENDED);
    let node = turn.disconnect().await?;
    Ok(Json(as_seen_now(&app, node)))
}

async fn decide(
    app: &App,
    manager: AsManager,
    id: NodeIdOfPath,
    wish: Occurrence,
) -> Result<Json<Node>, Rejection> {
    let (turn, actor) = turn_of(app, &manager, &id).await?;
    let node = turn.apply(&wish, &actor).await?;
    Ok(Json(as_seen_now(app, node)))
}

/// The right to change a node of the manager's organisation, and the manager's name in the audit trail.
async fn turn_of<'a>(
    app: &'a App,
    AsManager(user): &AsManager,
    NodeIdOfPath(id): &'a NodeIdOfPath,
) -> Result<(Turn<'a>, String), Rejection> {
    node_of_user(app, user, id).await?;
    Ok((app.lifecycle.turn(id).await, format!("user:{}", user.sub)))
}
