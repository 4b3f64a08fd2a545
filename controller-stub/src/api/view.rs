//! A node as the API shows it: only what is listed here leaves the controller.

use std::net::IpAddr;

use aio_protocol::{
    container::Container,
    ids::NodeId,
    inventory::SystemInfo,
    node::{NodeRole, NodeStatus, Owner},
    release::ReleaseVersion,
    telemetry::HealthSummary,
    time::Timestamp,
    update::UpdateReport,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    app::App,
    clock,
    gateway::clones::Conflict,
    labels::Labels,
    node::{Installation, Node, unheard_health},
};

/// A node in a list. What is not known is `null`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListedNode {
    #[serde(rename = "_id")]
    id: NodeId,
    name: String,
    role: Vec<NodeRole>,
    status: NodeStatus,
    owner: Owner,
    labels: Labels,
    /// Whether a welcomed worker's socket is open.
    websocket_connected: bool,
    /// The last application message.
    last_seen_at: Option<Timestamp>,
    connection_established_at: Option<Timestamp>,
    created_at: Timestamp,
    /// The address that its worker connected from.
    #[schema(value_type = Option<String>)]
    ip_address: Option<IpAddr>,
    daemon_version: Option<String>,
    installation: Option<Installation>,
    /// What its worker says of updates; `null` while it has not said so.
    update: Option<UpdateReport>,
    /// The version that the controller keeps it at.
    pin: Option<ReleaseVersion>,
    /// How its worker says that the GPUs are; `unknown`, with when it was last seen, while it is not
    /// connected; `null` before it has said so.
    gpu_health: Option<HealthSummary>,
    /// Another machine that claims to be this node and is refused.
    identity_conflict: Option<Conflict>,
}

/// A node, with what its worker told of its machine.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Node)]
pub(super) struct NodeView {
    #[serde(flatten)]
    listed: ListedNode,
    /// As the worker told it, as far as this controller understood.
    #[schema(value_type = Option<SystemInfo>)]
    system_info: Option<serde_json::Value>,
    /// Its containers, those with something wrong first; `null` while its worker is not connected or says
    /// nothing of them.
    containers: Option<Vec<Container>>,
    /// How many containers the list leaves out.
    containers_left_out: u32,
}

impl ListedNode {
    /// The database learns of heartbeats in batches, and of clones and of GPUs that fail not at
    /// all; this process knows them at once.
    pub(super) fn seen_now(app: &App, node: Node) -> Self {
        let last_seen_at = app.lifecycle.workers.last_seen_or(&node.id, node.last_seen_at, clock::now());
        // Whoever holds its worker knows; what it told, everybody.
        let is_elsewhere = node.websocket_connected && node.held_by != app.membership.number();
        let told = || {
            let state = is_elsewhere.then(|| app.elsewhere.health(&node.id))?;
            Some(HealthSummary { state, ..HealthSummary::default() })
        };
        let unheard = || {
            let away = node.status != NodeStatus::Inactive && !app.registry.has_speaker(&node.id);
            let away = away && !is_elsewhere;
            last_seen_at.filter(|_| away).map(unheard_health)
        };
        Self {
            gpu_health: app.registry.health(&node.id).or_else(told).or_else(unheard),
            identity_conflict: app.clones().conflict(&node.id),
            last_seen_at,
            id: node.id,
            name: node.name,
            role: node.role,
            status: node.status,
            owner: node.owner,
            labels: node.labels,
            websocket_connected: node.websocket_connected,
            connection_established_at: node.connection_established_at,
            created_at: node.created_at,
            ip_address: node.ip_address,
            daemon_version: node.daemon_version,
            installation: node.installation,
            update: node.update,
            pin: node.pin,
        }
    }
}

impl NodeView {
    pub(super) fn seen_now(app: &App, mut node: Node) -> Self {
        let system_info = node.system_info.take();
        let (mut containers, mut containers_left_out) = (None, 0);
        app.telemetry.read(&node.id, clock::now(), |reading| {
            (containers, containers_left_out) =
                (reading.containers.as_deref().map(<[_]>::to_vec), reading.containers_left_out);
        });
        Self { listed: ListedNode::seen_now(app, node), system_info, containers, containers_left_out }
    }
}
