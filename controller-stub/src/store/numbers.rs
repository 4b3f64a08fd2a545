//! An organisation's nodes in numbers, for whoever looks at all of them at once, and when to look again.

use std::collections::BTreeMap;

use aio_protocol::{
    ids::{NodeId, OwnerId},
    node::NodeStatus,
    time::Timestamp,
};
use sqlx::Row;
use tokio::sync::watch;

use super::{
    database::Store,
    error::StoreError,
    nodes::by_status,
    rows::{count, from_json, optional_time},
};
/// An organisation's nodes in numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct FleetNumbers {
    /// A status that no node has is absent.
    pub by_status: BTreeMap<NodeStatus, u64>,
    /// Nodes in service by the version that their worker named; none for those that never did.
    pub versions: Vec<(Option<String>, u64)>,
    /// Installations that ended since, and how long each that succeeded took, in milliseconds, the shortest
    /// first.
    pub installed_ms: Vec<u64>,
    pub failed_installations: u64,
}

/// Events on their way.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct DeliveryNumbers {
    pub waiting: u64,
    pub oldest: Option<Timestamp>,
    /// Those that NOTI keeps since.
    pub delivered: u64,
    pub dead: u64,
}

impl Store {
    /// Changes whenever something was committed here.
    pub(crate) fn commits(&self) -> watch::Receiver<u64> {
        self.writer.commits()
    }

    /// Notes that another process has committed something.
    pub(crate) fn note_commit(&self) {
        self.writer.note_commit();
    }

    /// An organisation's nodes in numbers; installations are those that ended after `since`.
    pub(crate) async fn fleet_numbers(
        &self,
        org: &OwnerId,
        since: Timestamp,
    ) -> Result<FleetNumbers, StoreError> {
        let _share = self.shares.take(org).await;
        let counts = sqlx::query("SELECT status, COUNT(*) FROM nodes WHERE org_id = $1 GROUP BY status")
            .bind(org.as_str())
            .fetch_all(&mut *self.lists.take().await?)
            .await?;
        let versions = sqlx::query(
            "SELECT daemon_version, COUNT(*) AS nodes FROM nodes WHERE org_id = $1 AND status <> 'inactive' \
             GROUP BY daemon_version ORDER BY nodes DESC, COALESCE(daemon_version, '') DESC",
        )
        .bind(org.as_str())
        .fetch_all(&mut *self.lists.take().await?)
        .await?;
        // What an installation ended with, and when it had begun.
        let ends = sqlx::query(
            "SELECT ends.to_status AS status, ends.at - (SELECT begins.at FROM transitions AS begins \
             WHERE begins.node_id = ends.node_id AND begins.seq < ends.seq AND begins.to_status = 'installing' \
             ORDER BY begins.seq DESC LIMIT 1) AS took \
             FROM transitions AS ends JOIN nodes ON nodes.id = ends.node_id \
             WHERE ends.at >= $2 AND ends.from_status = 'installing' AND nodes.org_id = $1",
        )
        .bind(org.as_str())
        .bind(since.as_millis())
        .fetch_all(&mut *self.lists.take().await?)
        .await?;
        let mut numbers = FleetNumbers { by_status: by_status(&counts)?, ..FleetNumbers::default() };
        for row in &versions {
            numbers.versions.push((row.try_get(0)?, count(row, 1)?));
        }
        for row in &ends {
            let took = row.try_get::<Option<i64>, _>("took")?.unwrap_or_default();
            match row.try_get::<String, _>("status")?.as_str() {
                // A worker that connects without an installer records both steps at once.
                "online" if took > 0 => numbers.installed_ms.push(took.unsigned_abs()),
                "error" => numbers.failed_installations += 1,
                _ => {}
            }
        }
        numbers.installed_ms.sort_unstable();
        Ok(numbers)
    }

    /// The organisation's nodes whose worker's socket is open.
    pub(crate) async fn connected_nodes(&self, org: &OwnerId) -> Result<Vec<NodeId>, StoreError> {
        // One row: one for each node would take a fleet's time in the driver.
        let row = sqlx::query(
            "SELECT json_group_array(id) FROM nodes WHERE org_id = $1 AND websocket_connected = 1",
        )
        .bind(org.as_str())
        .fetch_one(&mut *self.lists.take().await?)
        .await?;
        from_json("id", &row.try_get::<String, _>(0)?)
    }

    /// An organisation's events on their way; what was delivered and what died are those after `since`.
    pub(crate) async fn delivery_numbers(
        &self,
        org: &OwnerId,
        since: Timestamp,
    ) -> Result<DeliveryNumbers, StoreError> {
        let _share = self.shares.take(org).await;
        let waiting = sqlx::query(
            "SELECT COUNT(*), MIN(outbox.created_at) AS oldest FROM outbox JOIN nodes ON nodes.id = outbox.node_id \
             WHERE nodes.org_id = $1",
        )
        .bind(org.as_str())
        .fetch_one(&mut *self.lists.take().await?)
        .await?;
        let delivered = sqlx::query("SELECT COUNT(*) FROM inbox WHERE org_id = $1 AND received_at >= $2")
            .bind(org.as_str())
            .bind(since.as_millis())
            .fetch_one(&mut *self.lists.take().await?)
            .await?;
        let dead = sqlx::query("SELECT COUNT(*) FROM dead_letters WHERE org_id = $1 AND died_at >= $2")
            .bind(org.as_str())
            .bind(since.as_millis())
            .fetch_one(&mut *self.lists.take().await?)
            .await?;
        Ok(DeliveryNumbers {
            waiting: count(&waiting, 0)?,
            oldest: optional_time(&waiting, "oldest")?,
            delivered: count(&delivered, 0)?,
            dead: count(&dead, 0)?,
        })
    }
}
