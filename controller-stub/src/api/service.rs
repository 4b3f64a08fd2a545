//! What an admin decides about a node's service: maintenance, resume, decommissioning. Each twice is as good
//! as once, as far as the status machine says so: it decides, and its refusal is the 409.

use std::sync::Arc;

use aio_protocol::{api::ApiError, wire::close};
use axum::{Json, extract::State};

use super::{
    audit::Asked,
    auth::{AsManager, node_of_user},
    body::{NoFields, OptionalBody},
    error::Rejection,
    path::NodeIdOfPath,
    view::NodeView,
};
use crate::{app::App, lifecycle::Occurrence, store::Store};

/// Take a node out of service
///
/// Its worker stays connected. Allowed while the node is online, offline or in error; in maintenance already,
/// nothing changes.
#[utoipa::path(post, path = "/nodes/{id}/maintenance", operation_id = "beginMaintenance", tag = "nodes", security(("user" = [])),
    params(NodeIdOfPath), request_body = Option<NoFields>, responses(
        (status = 200, description = "The node", body = NodeView),
        (status = 409, description = "TRANSITION_REFUSED: the node's status does not take it; `allowed` lists what it takes", body = ApiError)))]
pub(super) async fn begin_maintenance(
    State(app): State<Arc<App>>,
    manager: AsManager,
    id: NodeIdOfPath,
    _: OptionalBody<NoFields>,
) -> Result<Json<NodeView>, Rejection> {
    decide(&app, manager, id, "node.maintenance", Occurrence::MaintenanceRequested).await
}

/// Put a node back into service
///
/// It is then `online` if its worker is connected and `offline` if not. Allowed in maintenance.
#[utoipa::path(post, path = "/nodes/{id}/resume", operation_id = "resume", tag = "nodes", security(("user" = [])),
    params(NodeIdOfPath), request_body = Option<NoFields>, responses(
        (status = 200, description = "The node", body = NodeView),
        (status = 409, description = "TRANSITION_REFUSED: the node's status does not take it; `allowed` lists what it takes", body = ApiError)))]
pub(super) async fn resume(
    State(app): State<Arc<App>>,
    manager: AsManager,
    id: NodeIdOfPath,
    _: OptionalBody<NoFields>,
) -> Result<Json<NodeView>, Rejection> {
    decide(&app, manager, id, "node.resume", Occurrence::ResumeRequested).await
}

/// Decommission a node, for good
///
/// Its tokens are revoked and its worker's socket is closed with 4401. The node stays listed, as
/// `inactive`. A second time changes nothing and answers the same.
#[utoipa::path(delete, path = "/nodes/{id}", operation_id = "decommissionNode", tag = "nodes", security(("user" = [])),
    params(NodeIdOfPath), responses((status = 200, description = "The node", body = NodeView)))]
pub(super) async fn decommission(
    State(app): State<Arc<App>>,
    manager: AsManager,
    id: NodeIdOfPath,
) -> Result<Json<NodeView>, Rejection> {
    decide(&app, manager, id, "node.decommission", Occurrence::DecommissionRequested).await
}

async fn decide(
    app: &App,
    AsManager(person): AsManager,
    NodeIdOfPath(id): NodeIdOfPath,
    action: &'static str,
    wish: Occurrence,
) -> Result<Json<NodeView>, Rejection> {
    node_of_user(app, &person, &id).await?;
    let work = async |store: Store| {
        let turn = app.lifecycle.turn(&id).await.through(store);
        let mut node = turn.apply(&wish, &person.actor()).await?;
        if matches!(wish, Occurrence::DecommissionRequested) {
            app.registry.close(&id, close::TOKEN_ENDED);
            node = turn.disconnect().await?;
        }
        Ok(Json(NodeView::seen_now(app, node)))
    };
    person.audited(app, Asked::of_node(action, &id), work).await
}
