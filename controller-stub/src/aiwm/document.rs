//! A node as AIWM shows it. A node that waits for approval is `pending` to the controller.

use aio_protocol::{
    ids::{NodeId, OwnerId},
    node::{NodeRole, NodeStatus, Owner},
    time::Timestamp,
};
use serde::Serialize;
use serde_json::Value;

use crate::{app::App, clock, node::Node};

/// The status that AIWM has and the controller has not.
pub(super) const AWAITING_APPROVAL: &str = "awaiting-approval";

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    #[serde(rename = "_id")]
    id: NodeId,
    name: String,
    role: Vec<NodeRole>,
    pub status: &'static str,
    websocket_connected: bool,
    last_heartbeat: Option<Timestamp>,
    ip_address: Option<String>,
    daemon_version: Option<String>,
    system_info: Option<Value>,
    owner: Owner,
    created_by: OwnerId,
    created_at: Timestamp,
}

impl Document {
    /// The database learns of heartbeats in batches; this process knows them at once.
    pub(super) fn seen_now(app: &App, node: Node, awaits_approval: bool) -> Self {
        Self {
            last_heartbeat: app.lifecycle.workers.last_seen_or(&node.id, node.last_seen_at, clock::now()),
            status: status_of(&node, awaits_approval),
            id: node.id,
            name: node.name,
            role: node.role,
            websocket_connected: node.websocket_connected,
            ip_address: node.ip_address.map(|address| address.to_string()),
            daemon_version: node.daemon_version,
            system_info: node.system_info,
            created_by: node.owner.user_id.clone(),
            owner: node.owner,
            created_at: node.created_at,
        }
    }
}

/// The status as AIWM names it.
pub(super) fn status_of(node: &Node, awaits_approval: bool) -> &'static str {
    match node.status {
        NodeStatus::Pending if awaits_approval => AWAITING_APPROVAL,
        status => status.as_str(),
    }
}
