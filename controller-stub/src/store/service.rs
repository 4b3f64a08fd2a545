//! How long an organisation's nodes were there, and how long events took to be delivered.

use std::time::Duration;

use aio_protocol::{ids::OwnerId, node::NodeStatus, time::Timestamp};
use sqlx::Row;

use super::{
    database::Store,
    error::StoreError,
    rows::{count, signed, status, time},
};

/// Number of latest events whose delivery is measured.
const MAX_MEASURED: u64 = 1_000;

/// How long nodes were online and offline, all nodes together. Other states count as neither.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Service {
    pub online: Duration,
    pub offline: Duration,
}

/// A change of a node's status.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Move {
    node: String,
    from: Option<NodeStatus>,
    to: NodeStatus,
    at: Timestamp,
}

impl Service {
    fn add(&mut self, status: Option<NodeStatus>, time: Duration) {
        match status {
            Some(NodeStatus::Online) => self.online += time,
            Some(NodeStatus::Offline) => self.offline += time,
            _ => {}
        }
    }

    /// Of nodes that moved from `since` to `now`; each node's moves follow each other.
    fn of_moves(moves: &[Move], since: Timestamp, now: Timestamp) -> Self {
        let mut service = Self::default();
        for moves in moves.chunk_by(|a, b| a.node == b.node) {
            let mut state = moves.first().and_then(|first| first.from);
            let mut begun = since;
            for it in moves {
                service.add(state, it.at.since(begun));
                (state, begun) = (Some(it.to), it.at);
            }
            service.add(state, now.since(begun));
        }
        service
    }
}

impl Store {
    /// How long the organisation's nodes were online and offline from `since` to `now`.
    pub(crate) async fn service(
        &self,
        org: &OwnerId,
        since: Timestamp,
        now: Timestamp,
    ) -> Result<Service, StoreError> {
        let _share = self.shares.take(org).await;
        let rows = sqlx::query(
            "SELECT node_id, from_status, to_status, at FROM transitions JOIN nodes ON nodes.id = node_id \
             WHERE org_id = $1 AND at >= $2 AND (from_status IS NULL OR from_status <> to_status) ORDER BY node_id, seq",
        )
        .bind(org.as_str())
        .bind(since.as_millis())
        .fetch_all(&mut *self.lists.take().await?)
        .await?;
        let mut moves = Vec::with_capacity(rows.len());
        for row in &rows {
            let from = row.try_get::<Option<String>, _>("from_status")?;
            moves.push(Move {
                node: row.try_get("node_id")?,
                from: from.map(|_| status(row, "from_status")).transpose()?,
                to: status(row, "to_status")?,
                at: time(row, "at")?,
            });
        }
        let mut service = Service::of_moves(&moves, since, now);
        let still = sqlx::query(
            "SELECT status, COUNT(*) FROM nodes WHERE org_id = $1 AND status IN ('online', 'offline') \
             AND NOT EXISTS (SELECT 1 FROM transitions WHERE node_id = nodes.id AND at >= $2 \
             AND (from_status IS NULL OR from_status <> to_status)) GROUP BY status",
        )
        .bind(org.as_str())
        .bind(since.as_millis())
        .fetch_all(&mut *self.lists.take().await?)
        .await?;
        for row in &still {
            let nodes = u32::try_from(count(row, 1)?).unwrap_or(u32::MAX);
            service.add(Some(status(row, "status")?), now.since(since).saturating_mul(nodes));
        }
        Ok(service)
    }

    /// How many milliseconds each of the latest events since took from what happened to the built-in NOTI,
    /// the shortest first.
    pub(crate) async fn delivery_ms(&self, org: &OwnerId, since: Timestamp) -> Result<Vec<u64>, StoreError> {
        let _share = self.shares.take(org).await;
        let rows = sqlx::query(
            "SELECT received_at - happened_at FROM inbox WHERE org_id = $1 AND received_at >= $2 \
             ORDER BY seq DESC LIMIT $3",
        )
        .bind(org.as_str())
        .bind(since.as_millis())
        .bind(signed(MAX_MEASURED))
        .fetch_all(&mut *self.lists.take().await?)
        .await?;
        let mut took = rows.iter().map(|row| count(row, 0)).collect::<Result<Vec<_>, _>>()?;
        took.sort_unstable();
        Ok(took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_counts_from_what_it_was_before_to_what_it_is_now_and_maintenance_is_neither() {
        use NodeStatus::{Maintenance, Offline, Online, Pending};
        let at = |second: i64| Timestamp::from_millis(second * 1000);
        let step = |node: &str, from: Option<NodeStatus>, to, second| Move {
            node: node.to_owned(),
            from,
            to,
            at: at(second),
        };
        let moves = [
            // Online before, away for 10 s, out of service at 60.
            step("a", Some(Online), Offline, 20),
            step("a", Some(Offline), Online, 30),
            step("a", Some(Online), Maintenance, 60),
            // New at 50, online from 70.
            step("b", None, Pending, 50),
            step("b", Some(Pending), Online, 70),
        ];
        let service = Service::of_moves(&moves, at(0), at(100));
        assert_eq!(service.online, Duration::from_secs(20 + 30 + 30));
        assert_eq!(service.offline, Duration::from_secs(10));
        assert_eq!(Service::of_moves(&[], at(0), at(100)), Service::default());
    }
}
