//! The health that an event told last of a node's GPUs, so that a restart tells nothing twice. A node without
//! a row was told to be well, or nothing was ever told of it.

use std::collections::HashMap;

use aio_protocol::{ids::NodeId, telemetry::Health};
use sqlx::{AnyConnection, Row, any::AnyRow};

use super::{
    database::Store,
    error::StoreError,
    nodes::{RecordedStep, Save},
    rows::{from_json, node_id},
    writer::Write,
};
use crate::node::Node;

impl Store {
    /// By node, where it is not `ok`.
    pub(crate) async fn told_healths(&self) -> Result<HashMap<NodeId, Health>, StoreError> {
        let rows = sqlx::query("SELECT node_id, health FROM told_healths")
            .fetch_all(&mut *self.lists.take().await?)
            .await?;
        let health = |row: &AnyRow| from_json("health", &format!("\"{}\"", row.try_get::<String, _>(1)?));
        rows.iter().map(|row| Ok((node_id(row)?, health(row)?))).collect()
    }

    /// Keeps a node with the event that tells this health; says whether nobody saved it meanwhile.
    pub(crate) async fn save_with_health(
        &self,
        node: &Node,
        steps: &[RecordedStep],
        health: Health,
    ) -> Result<bool, StoreError> {
        self.writer.write(SaveWithHealth(Save::new(node, steps)?, node.id.clone(), health)).await
    }
}

struct SaveWithHealth(Save, NodeId, Health);

impl Write for SaveWithHealth {
    type Answer = bool;

    async fn run(&self, connection: &mut AnyConnection) -> Result<bool, StoreError> {
        let Self(save, node, health) = self;
        if !save.run(connection).await? {
            return Ok(false);
        }
        sqlx::query("DELETE FROM told_healths WHERE node_id = $1")
            .bind(node.as_str())
            .execute(&mut *connection)
            .await?;
        if !health.is_ok() {
            sqlx::query("INSERT INTO told_healths (node_id, health) VALUES ($1, $2)")
                .bind(node.as_str())
                .bind(health.as_str())
                .execute(&mut *connection)
                .await?;
        }
        Ok(true)
    }

    fn changed(saved: &bool) -> bool {
        *saved
    }
}
