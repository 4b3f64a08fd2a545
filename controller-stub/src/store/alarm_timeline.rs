//! What became of an alarm, and who did it, where the alarm's own row does not say: silences that held
//! meanwhile, and who took its node out of service.

use aio_protocol::{
    ids::{NodeId, OwnerId},
    node::NodeStatus,
    time::Timestamp,
};
use sqlx::Row;

use super::{
    database::Store,
    error::StoreError,
    silences::{self, Silence},
};

impl Store {
    /// How many alarms of each kind are not over, the controller's own among them for an `operator`.
    #[cfg(feature = "pages")]
    pub(crate) async fn alarm_counts(
        &self,
        org: &OwnerId,
        operator: bool,
    ) -> Result<Vec<(String, u64)>, StoreError> {
        let rows = sqlx::query(
            "SELECT kind, COUNT(*) FROM alarms WHERE (org_id = $1 OR ($2 = 1 AND org_id = '')) \
             AND resolved_at IS NULL GROUP BY kind ORDER BY kind",
        )
        .bind(org.as_str())
        .bind(i64::from(operator))
        .fetch_all(&mut *self.lists.take().await?)
        .await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, super::rows::count(row, 1)?))).collect()
    }

    /// An organisation's silences that held at some time from `since` to `until`, in the order of their
    /// beginning.
    pub(crate) async fn silences_between(
        &self,
        org: &OwnerId,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<Silence>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM silences WHERE org_id = $1 AND until >= $2 AND created_at <= $3 ORDER BY created_at, id",
        )
        .bind(org.as_str())
        .bind(since.as_millis())
        .bind(until.as_millis())
        .fetch_all(&mut *self.lists.take().await?)
        .await?;
        rows.iter().map(silences::read).collect()
    }

    /// Who made a node last what it was at `at`, if it was `status` then.
    pub(crate) async fn who_made_it(
        &self,
        node: &NodeId,
        status: NodeStatus,
        at: Timestamp,
    ) -> Result<Option<String>, StoreError> {
        let row = sqlx::query(
            "SELECT actor FROM transitions WHERE node_id = $1 AND to_status = $2 AND from_status <> $2 AND at <= $3 \
             ORDER BY seq DESC LIMIT 1",
        )
        .bind(node.as_str())
        .bind(status.as_str())
        .bind(at.as_millis())
        .fetch_optional(&mut *self.pool.take().await?)
        .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }
}
