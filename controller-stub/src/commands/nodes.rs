//! Looking at nodes and withdrawing their tokens, behind the back of a server that may run: it sees by itself what was withdrawn.

use aio_protocol::{
    ids::NodeId,
    node::{NodeStatus, Owner},
    time::Timestamp,
};
use serde::Serialize;

use super::{CommandError, For, open};
use crate::{
    clock,
    config::Config,
    store::{NodeQuery, Sort, SortKey, Window},
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
    /// When its worker was last heard of, as far as the database knows.
    pub last_seen_at: Option<Timestamp>,
}

/// An organisation's nodes, by name.
pub async fn list_nodes(config: &Config, whose: For) -> Result<Vec<ListedNode>, CommandError> {
    let store = open(config).await?;
    let org = whose.or_default(&store).await?.org_id;
    let mut listed = Vec::new();
    loop {
        let query = NodeQuery {
            org: org.clone(),
            status: None,
            sort: Sort { by: SortKey::Name, descending: false },
            window: Window { offset: listed.len() as u64, limit: PAGE },
        };
        let page = store.nodes(&query).await?.nodes;
        if page.is_empty() {
            return Ok(listed);
        }
        listed.extend(page.into_iter().map(|node| ListedNode {
            node_id: node.id,
            name: node.name,
            status: node.status,
            owner: node.owner,
            last_seen_at: node.last_seen_at,
        }));
    }
}

/// Withdraws every token of a node. A server that runs closes its worker's connection within a few seconds.
pub async fn revoke_tokens(config: &Config, node: &NodeId) -> Result<(), CommandError> {
    let store = open(config).await?;
    if store.node(node).await?.is_none() {
        return Err(CommandError::NoNode(node.clone()));
    }
    Ok(store.revoke_tokens(node, clock::now(), None).await?)
}
