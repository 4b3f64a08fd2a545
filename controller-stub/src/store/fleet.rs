//! What figures say of every node in service, read a few nodes at a time: the fleet is large, and nobody
//! else should wait.

use aio_protocol::{
    ids::{NodeId, OwnerId},
    node::NodeStatus,
    time::Timestamp,
};
use sqlx::{Row, any::AnyRow};

use super::{
    database::Store,
    error::StoreError,
    rows::{corrupt, node_id, optional_time, status},
};

/// A node in service.
#[derive(Debug, Clone)]
pub(crate) struct FleetNode {
    pub id: NodeId,
    pub org: OwnerId,
    pub name: String,
    pub status: NodeStatus,
    pub last_seen_at: Option<Timestamp>,
    pub daemon_version: Option<String>,
    /// The JSON of what its worker says of updates.
    pub update_report: Option<String>,
    /// The JSON of what its worker said of its machine.
    pub system_info: Option<String>,
}

impl Store {
    /// The nodes in service that a controller shows, in the order of their ids: those that it holds, and
    /// where it leads those that none does. So each is one controller's.
    pub(crate) async fn fleet_ids(&self, number: i64, leads: bool) -> Result<Vec<NodeId>, StoreError> {
        let rows = sqlx::query(
            "SELECT id FROM nodes WHERE status <> 'inactive' AND (held_by = $1 \
             OR $2 = 1 AND held_by NOT IN (SELECT number FROM controllers)) ORDER BY id",
        )
        .bind(number)
        .bind(i64::from(leads))
        .fetch_all(&mut *self.lists.take().await?)
        .await?;
        rows.iter().map(node_id).collect()
    }

    /// Those of these nodes that are in service.
    pub(crate) async fn fleet_nodes(&self, ids: &[NodeId]) -> Result<Vec<FleetNode>, StoreError> {
        let places: Vec<_> = (1..=ids.len()).map(|place| format!("${place}")).collect();
        let select = format!(
            "SELECT id, org_id, name, status, last_seen_at, at AS sighted_at, daemon_version, update_report, system_info \
             FROM nodes LEFT JOIN sightings ON node_id = id WHERE status <> 'inactive' AND id IN ({}) ORDER BY id",
            places.join(", ")
        );
        let query =
            ids.iter().fold(sqlx::query(sqlx::AssertSqlSafe(select)), |query, id| query.bind(id.as_str()));
        query.fetch_all(&mut *self.lists.take().await?).await?.iter().map(read).collect()
    }
}

fn read(row: &AnyRow) -> Result<FleetNode, StoreError> {
    Ok(FleetNode {
        id: node_id(row)?,
        org: row.try_get::<String, _>("org_id")?.parse().map_err(corrupt("org_id"))?,
        name: row.try_get("name")?,
        status: status(row, "status")?,
        last_seen_at: optional_time(row, "sighted_at")?.or(optional_time(row, "last_seen_at")?),
        daemon_version: row.try_get("daemon_version")?,
        update_report: row.try_get("update_report")?,
        system_info: row.try_get("system_info")?,
    })
}
