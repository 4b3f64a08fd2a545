//! Looking at nodes, naming and labelling them, and revoking their tokens, behind the back of a server that
//! may run: it sees by itself what was revoked.

use std::collections::{BTreeMap, HashMap};

use aio_protocol::{
    ids::{NodeId, OwnerId},
    node::{NodeStatus, Owner},
    telemetry::Health,
    time::Timestamp,
};
use serde::Serialize;
use serde_json::json;

use super::{CommandError, For, on_command_line, open};
use crate::{
    clock,
    config::Config,
    labels::Selector,
    node::{Node, NodeName, composed},
    store::{Described, NodeFilter, NodeQuery, Sort, SortKey, Store, Window},
};

/// So many nodes are read at a time.
const PAGE: u64 = 500;

/// A node as a list shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedNode {
    /// Its id.
    pub node_id: NodeId,
    /// Its name.
    pub name: String,
    /// Its status.
    pub status: NodeStatus,
    /// Who it belongs to.
    pub owner: Owner,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When its worker was last heard of, as far as the database knows.
    pub last_seen_at: Option<Timestamp>,
    /// How its GPUs are, by the last event while its worker is connected; nothing of one that was never seen.
    pub gpu_health: Option<Health>,
}

/// Which nodes to list: those that are all of it.
#[derive(Debug, Clone, Default)]
pub struct Listed {
    /// One of these; any when empty.
    pub statuses: Vec<NodeStatus>,
    /// With all of these labels: `key=value` or `key`.
    pub labels: Vec<String>,
}

/// What of a node is changed; what is empty stays.
#[derive(Debug, Clone, Default)]
pub struct NodeChange {
    /// Its new name.
    pub name: Option<String>,
    /// Labels to set, or to take away where there is no value.
    pub labels: BTreeMap<String, Option<String>>,
}

/// An organisation's nodes, in the natural order of their names.
pub async fn list_nodes(
    config: &Config,
    whose: For,
    listed: Listed,
) -> Result<Vec<ListedNode>, CommandError> {
    let labels = listed.labels.iter().map(|text| text.parse::<Selector>()).collect::<Result<_, _>>();
    let labels = labels.map_err(CommandError::Label)?;
    let store = open(config).await?;
    let org = whose.or_default(&store).await?.org_id;
    let filter = NodeFilter { statuses: listed.statuses, labels, ..NodeFilter::default() };
    let told = store.told_healths().await?;
    Ok(all_nodes(&store, &org, filter).await?.into_iter().map(|node| ListedNode::of(node, &told)).collect())
}

pub(super) async fn all_nodes(
    store: &Store,
    org: &OwnerId,
    filter: NodeFilter,
) -> Result<Vec<Node>, CommandError> {
    let mut query = NodeQuery {
        org: org.clone(),
        filter,
        sort: Sort { by: SortKey::Name, descending: false },
        after: None,
        window: Window { offset: 0, limit: PAGE },
    };
    let mut nodes = Vec::new();
    loop {
        let page = store.nodes(&query).await?;
        nodes.extend(page.nodes);
        query.after = page.next;
        if query.after.is_none() {
            return Ok(nodes);
        }
    }
}

/// The node with this id, or the organisation's node in service with this name.
pub(super) async fn find(store: &Store, org: &OwnerId, named: &str) -> Result<Node, CommandError> {
    if let Ok(id) = named.parse()
        && let Some(node) = store.node(&id).await?
    {
        return Ok(node);
    }
    let named = &*composed(named);
    let filter = NodeFilter { name: Some(named.replace('*', "")), ..NodeFilter::default() };
    let mut found = all_nodes(store, org, filter).await?;
    found.retain(|node| node.name == named && node.status != NodeStatus::Inactive);
    found.pop().ok_or_else(|| CommandError::NoNode(named.to_owned()))
}

/// Renames a node or changes its labels.
pub async fn change_node(
    config: &Config,
    whose: For,
    named: &str,
    change: NodeChange,
) -> Result<ListedNode, CommandError> {
    let name = change.name.map(NodeName::try_from).transpose().map_err(CommandError::Name)?;
    let store = open(config).await?;
    let org = whose.or_default(&store).await?.org_id;
    let detail = json!({ "name": name.clone().map(String::from), "labels": change.labels });
    loop {
        let before = find(&store, &org, named).await?;
        if before.status == NodeStatus::Inactive {
            return Err(CommandError::Inactive(before.id));
        }
        let labels = before.labels.changed(change.labels.clone()).map_err(CommandError::Label)?;
        let name = name.clone().map_or_else(|| before.name.clone(), String::from);
        if labels == before.labels && name == before.name {
            return Ok(ListedNode::of(before, &store.told_healths().await?));
        }
        let node = Node { labels, name, ..before.clone() };
        let detail = Some(detail.clone());
        let store = on_command_line(&store, &node.owner.org_id, "node.update", Some(&node.id), detail);
        match store.describe_node(&node, node.name != before.name).await? {
            Described::Done => return Ok(ListedNode::of(node, &store.told_healths().await?)),
            Described::NameTaken => return Err(CommandError::NameTaken(node.name)),
            Described::Outdated => {}
        }
    }
}

/// Revokes every token of a node, and says which node that was. A server that runs closes its
/// worker's connection within a few seconds.
pub async fn revoke_tokens(config: &Config, whose: For, named: &str) -> Result<NodeId, CommandError> {
    let store = open(config).await?;
    let org = whose.or_default(&store).await?.org_id;
    let node = find(&store, &org, named).await?;
    let store = on_command_line(&store, &node.owner.org_id, "token.revoke", Some(&node.id), None);
    store.revoke_tokens(&node.id, clock::now(), None).await?;
    Ok(node.id)
}

impl ListedNode {
    /// `told` is the health that an event told last of each node, where it is not `ok`.
    fn of(node: Node, told: &HashMap<NodeId, Health>) -> Self {
        let gpu_health = match (node.status, node.websocket_connected) {
            (NodeStatus::Inactive, _) => None,
            (_, true) => Some(told.get(&node.id).copied().unwrap_or_default()),
            (_, false) => node.last_seen_at.map(|_| Health::Unknown),
        };
        Self {
            gpu_health,
            node_id: node.id,
            name: node.name,
            status: node.status,
            owner: node.owner,
            labels: node.labels.into(),
            last_seen_at: node.last_seen_at,
        }
    }
}
