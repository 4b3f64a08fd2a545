//! What is decided for nodes and groups of them about updates: pins and limits. Whoever is concerned is
//! looked at again by its rollout.

use aio_protocol::{
    ids::{NodeId, OwnerId},
    release::ReleaseVersion,
};
use sqlx::{AnyConnection, Row};

use super::{
    database::Store,
    error::StoreError,
    rows::{from_json, json},
    writer::Write,
};
use crate::rollout::Group;

impl Store {
    /// What holds for a group; nothing special when nobody has said anything.
    pub(crate) async fn group(&self, org: &OwnerId, name: &str) -> Result<Group, StoreError> {
        let row = sqlx::query("SELECT settings FROM node_groups WHERE org_id = $1 AND name = $2")
            .bind(org.as_str())
            .bind(name)
            .fetch_optional(&mut *self.pool.take().await?)
            .await?;
        row.map_or_else(|| Ok(Group::default()), |row| from_json("group", &row.try_get::<String, _>(0)?))
    }

    /// Says what holds for a group.
    pub(crate) async fn put_group(&self, org: &OwnerId, name: &str, group: &Group) -> Result<(), StoreError> {
        let put = PutGroup { org: org.clone(), name: name.to_owned(), settings: json("group", group)? };
        self.writer.write(put).await
    }

    /// Keeps a node at a version, or at none.
    pub(crate) async fn pin_node(
        &self,
        node: &NodeId,
        pin: Option<&ReleaseVersion>,
    ) -> Result<bool, StoreError> {
        self.writer.write(Pin { node: node.clone(), pin: pin.map(ToString::to_string) }).await
    }
}

struct PutGroup {
    org: OwnerId,
    name: String,
    settings: String,
}

impl Write for PutGroup {
    type Answer = ();

    async fn run(&self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO node_groups (org_id, name, settings) VALUES ($1, $2, $3) \
             ON CONFLICT (org_id, name) DO UPDATE SET settings = excluded.settings",
        )
        .bind(self.org.as_str())
        .bind(&self.name)
        .bind(&self.settings)
        .execute(&mut *connection)
        .await?;
        sqlx::query(
            "UPDATE rollout_nodes SET news = news + 1 WHERE open = 1 AND node_id IN \
             (SELECT id FROM nodes WHERE org_id = $1 AND json_extract(labels, '$.group') = $2)",
        )
        .bind(self.org.as_str())
        .bind(&self.name)
        .execute(connection)
        .await?;
        Ok(())
    }
}

struct Pin {
    node: NodeId,
    pin: Option<String>,
}

impl Write for Pin {
    type Answer = bool;

    async fn run(&self, connection: &mut AnyConnection) -> Result<bool, StoreError> {
        let pinned = sqlx::query(
            "UPDATE nodes SET pin = $2, version = version + 1 WHERE id = $1 AND COALESCE(pin, '') <> COALESCE($2, '')",
        )
        .bind(self.node.as_str())
        .bind(self.pin.as_deref())
        .execute(&mut *connection)
        .await?;
        if pinned.rows_affected() == 0 {
            return Ok(false);
        }
        note_news(connection, &self.node).await?;
        Ok(true)
    }

    fn changed(pinned: &bool) -> bool {
        *pinned
    }
}

/// Tells the rollout of a node that there is news of it.
pub(super) async fn note_news(connection: &mut AnyConnection, node: &NodeId) -> Result<(), StoreError> {
    sqlx::query("UPDATE rollout_nodes SET news = news + 1 WHERE node_id = $1 AND open = 1")
        .bind(node.as_str())
        .execute(connection)
        .await?;
    Ok(())
}
