//! What AIWM's dialect keeps of a node: whether it waits for approval, and its setup token and secret, as
//! hashes. Does not decide who may have them.

use std::collections::{BTreeMap, HashSet};

use aio_protocol::{
    ids::{NodeId, OwnerId},
    time::Timestamp,
};
use sqlx::{AnyConnection, Row};

use super::{
    database::Store,
    error::StoreError,
    nodes::{RecordedStep, Save},
    rows::{count, from_json, node_id},
    tokens,
    writer::Write,
};
use crate::node::Node;

/// What is kept of a node. One that has none of it is not kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AiwmNode {
    pub awaits_approval: bool,
    pub setup_sha256: Option<String>,
    pub secret_sha256: Option<String>,
}

/// What came of taking a setup token for a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SecretKept {
    Done,
    /// The node was saved by somebody else since it was read.
    Outdated,
    /// The setup token was used, or another took its place.
    Refused,
}

impl Store {
    pub(crate) async fn aiwm_node(&self, node: &NodeId) -> Result<AiwmNode, StoreError> {
        let row = sqlx::query("SELECT * FROM aiwm_nodes WHERE node_id = $1").bind(node.as_str());
        let Some(row) = row.fetch_optional(&mut *self.pool.take().await?).await? else {
            return Ok(AiwmNode::default());
        };
        Ok(AiwmNode {
            awaits_approval: row.try_get::<i64, _>("awaits_approval")? != 0,
            setup_sha256: row.try_get("setup_sha256")?,
            secret_sha256: row.try_get("secret_sha256")?,
        })
    }

    /// The organisation's nodes that wait for approval.
    pub(crate) async fn nodes_awaiting_approval(&self, org: &OwnerId) -> Result<HashSet<NodeId>, StoreError> {
        let rows = sqlx::query(
            "SELECT id FROM aiwm_nodes JOIN nodes ON id = node_id WHERE awaits_approval = 1 AND org_id = $1",
        )
        .bind(org.as_str())
        .fetch_all(&mut *self.lists.take().await?)
        .await?;
        rows.iter().map(node_id).collect()
    }

    /// How many of the organisation's nodes in service have each role.
    pub(crate) async fn nodes_by_role(&self, org: &OwnerId) -> Result<BTreeMap<String, u64>, StoreError> {
        let rows = sqlx::query(
            "SELECT roles, COUNT(*) FROM nodes WHERE org_id = $1 AND status <> 'inactive' GROUP BY roles",
        )
        .bind(org.as_str())
        .fetch_all(&mut *self.lists.take().await?)
        .await?;
        let mut counts = BTreeMap::new();
        for row in &rows {
            let roles: Vec<String> = from_json("roles", &row.try_get::<String, _>(0)?)?;
            let nodes = count(row, 1)?;
            for role in roles {
                *counts.entry(role).or_default() += nodes;
            }
        }
        Ok(counts)
    }

    /// Notes that a node, which may not be registered yet, waits for approval.
    pub(crate) async fn await_approval(&self, node: &NodeId) -> Result<(), StoreError> {
        let statement = "INSERT INTO aiwm_nodes (node_id, awaits_approval) VALUES ($1, 1)";
        self.writer.write(Change::new(statement, node, None)).await.map(drop)
    }

    /// Notes that a node was approved; says whether it waited.
    pub(crate) async fn approve(&self, node: &NodeId) -> Result<bool, StoreError> {
        let statement =
            "UPDATE aiwm_nodes SET awaits_approval = 0 WHERE node_id = $1 AND awaits_approval = 1";
        self.writer.write(Change::new(statement, node, None)).await
    }

    /// Keeps the hash of a node's setup token in the place of any other, unless the node has a secret; says
    /// whether it did.
    pub(crate) async fn put_setup_token(&self, node: &NodeId, sha256: String) -> Result<bool, StoreError> {
        let statement = "INSERT INTO aiwm_nodes (node_id, setup_sha256) VALUES ($1, $2) \
             ON CONFLICT (node_id) DO UPDATE SET setup_sha256 = excluded.setup_sha256 \
             WHERE aiwm_nodes.secret_sha256 IS NULL";
        self.writer.write(Change::new(statement, node, Some(sha256))).await
    }

    /// Keeps a changed node as `save` does, and takes its setup token for a secret.
    pub(crate) async fn bootstrap(
        &self,
        node: &Node,
        steps: &[RecordedStep],
        setup_sha256: &str,
        secret_sha256: &str,
    ) -> Result<SecretKept, StoreError> {
        let (setup_sha256, secret_sha256) = (setup_sha256.to_owned(), secret_sha256.to_owned());
        let id = node.id.clone();
        self.writer.write(Bootstrap { id, save: Save::new(node, steps)?, setup_sha256, secret_sha256 }).await
    }

    /// Keeps a node's new secret in the place of the one that it has, and revokes the node's tokens; says
    /// whether it had one.
    pub(crate) async fn replace_secret(
        &self,
        node: &NodeId,
        sha256: String,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        self.writer.write(Replace { node: node.clone(), sha256, at }).await
    }
}

/// One statement about one node; says whether it changed something.
struct Change {
    statement: &'static str,
    node: NodeId,
    sha256: Option<String>,
}

impl Change {
    fn new(statement: &'static str, node: &NodeId, sha256: Option<String>) -> Self {
        Self { statement, node: node.clone(), sha256 }
    }
}

impl Write for Change {
    type Answer = bool;

    async fn run(&self, connection: &mut AnyConnection) -> Result<bool, StoreError> {
        let mut query = sqlx::query(self.statement).bind(self.node.as_str());
        if let Some(sha256) = &self.sha256 {
            query = query.bind(sha256);
        }
        Ok(query.execute(connection).await?.rows_affected() > 0)
    }

    fn changed(changed: &bool) -> bool {
        *changed
    }
}

struct Bootstrap {
    id: NodeId,
    save: Save,
    setup_sha256: String,
    secret_sha256: String,
}

impl Write for Bootstrap {
    type Answer = SecretKept;

    async fn run(&self, connection: &mut AnyConnection) -> Result<SecretKept, StoreError> {
        let known = sqlx::query(
            "SELECT 1 FROM aiwm_nodes WHERE node_id = $1 AND setup_sha256 = $2 AND secret_sha256 IS NULL",
        )
        .bind(self.id.as_str())
        .bind(&self.setup_sha256)
        .fetch_optional(&mut *connection)
        .await?;
        if known.is_none() {
            return Ok(SecretKept::Refused);
        }
        if !self.save.run(connection).await? {
            return Ok(SecretKept::Outdated);
        }
        sqlx::query("UPDATE aiwm_nodes SET setup_sha256 = NULL, secret_sha256 = $2 WHERE node_id = $1")
            .bind(self.id.as_str())
            .bind(&self.secret_sha256)
            .execute(connection)
            .await?;
        Ok(SecretKept::Done)
    }

    fn changed(answer: &SecretKept) -> bool {
        *answer == SecretKept::Done
    }
}

struct Replace {
    node: NodeId,
    sha256: String,
    at: Timestamp,
}

impl Write for Replace {
    type Answer = bool;

    fn is_urgent(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut AnyConnection) -> Result<bool, StoreError> {
        let replaced = sqlx::query(
            "UPDATE aiwm_nodes SET secret_sha256 = $2 WHERE node_id = $1 AND secret_sha256 IS NOT NULL",
        )
        .bind(self.node.as_str())
        .bind(&self.sha256)
        .execute(&mut *connection)
        .await?;
        if replaced.rows_affected() == 0 {
            return Ok(false);
        }
        tokens::revoke_all(connection, &self.node, self.at).await?;
        Ok(true)
    }

    fn changed(replaced: &bool) -> bool {
        *replaced
    }
}
