//! How long an organisation's nodes were there, and how long events took to be delivered.

use std::time::Duration;

use aio_protocol::{ids::OwnerId, time::Timestamp};
use sqlx::Row;

use super::{
    database::Store,
    error::StoreError,
    rows::{count, signed},
};

/// Number of latest events whose delivery is measured.
const MAX_MEASURED: u64 = 1_000;

/// How long nodes were online and offline, all nodes together. Other states count as neither.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Service {
    pub online: Duration,
    pub offline: Duration,
}

impl Store {
    /// How long the organisation's nodes were online and offline from `since` to `now`.
    ///
    /// As if each node had been all the time what it is now; then each change takes away what came before it
    /// in its new state, and gives it to the state before.
    pub(crate) async fn service(
        &self,
        org: &OwnerId,
        since: Timestamp,
        now: Timestamp,
    ) -> Result<Service, StoreError> {
        let _share = self.shares.take(org).await;
        let row = sqlx::query(
            "SELECT CAST(SUM(CASE WHEN to_status = 'online' THEN -since ELSE 0 END \
                 + CASE WHEN from_status = 'online' THEN since ELSE 0 END) AS BIGINT), \
                 CAST(SUM(CASE WHEN to_status = 'offline' THEN -since ELSE 0 END \
                 + CASE WHEN from_status = 'offline' THEN since ELSE 0 END) AS BIGINT), \
                 (SELECT COUNT(*) FROM nodes WHERE org_id = $1 AND status = 'online'), \
                 (SELECT COUNT(*) FROM nodes WHERE org_id = $1 AND status = 'offline') \
             FROM (SELECT from_status, to_status, CASE WHEN at < $3 THEN at ELSE $3 END - $2 AS since \
                 FROM transitions JOIN nodes ON nodes.id = node_id WHERE org_id = $1 AND at >= $2) AS moves",
        )
        .bind(org.as_str())
        .bind(since.as_millis())
        .bind(now.as_millis())
        .fetch_one(&mut *self.lists.take().await?)
        .await?;
        let total = |moved: usize, nodes: usize| -> Result<Duration, StoreError> {
            let moved = row.try_get::<Option<i64>, _>(moved)?.unwrap_or_default();
            let period = i64::try_from(now.since(since).as_millis()).unwrap_or(i64::MAX);
            let still = period.saturating_mul(signed(count(&row, nodes)?));
            Ok(Duration::from_millis(still.saturating_add(moved).max(0).unsigned_abs()))
        };
        Ok(Service { online: total(0, 2)?, offline: total(1, 3)? })
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
    use super::{super::testing, *};

    /// From, to, and in which second.
    type Change = (Option<&'static str>, &'static str, i64);

    const NODES: [(&str, &[Change]); 5] = [
        // Online before, away for 10 s, out of service at 60, of which somebody said so again.
        (
            "a",
            &[
                (Some("pending"), "online", -50),
                (Some("online"), "offline", 20),
                (Some("offline"), "online", 30),
                (Some("online"), "maintenance", 60),
                (Some("maintenance"), "maintenance", 65),
            ],
        ),
        // New at 50, online from 70.
        ("b", &[(None, "pending", 50), (Some("pending"), "online", 70)]),
        ("still", &[(Some("pending"), "online", -9)]),
        // By a clock that was ahead.
        ("ahead", &[(Some("online"), "offline", 500)]),
        ("nothing", &[]),
    ];

    #[tokio::test]
    async fn a_node_counts_from_what_it_was_before_to_what_it_is_now_and_maintenance_is_neither() {
        let folder = tempfile::tempdir().unwrap();
        let store = testing::store(folder.path()).await;
        let at = |second: i64| Timestamp::from_millis(1_764_000_000_000 + second * 1000);
        let service = async |org: &str| store.service(&org.parse().unwrap(), at(0), at(100)).await.unwrap();
        assert_eq!(service("acme").await, Service::default());
        for (id, moves) in NODES {
            let now = moves.last().map_or("pending", |(_, to, _)| *to);
            let mut pool = store.pool.take().await.unwrap();
            sqlx::query(
                "INSERT INTO nodes (id, version, org_id, user_id, name, roles, status, created_at, \
                 websocket_connected, name_key) VALUES ($1, 1, 'acme', 'ann', $1, '[]', $2, 1, 0, $1)",
            )
            .bind(id)
            .bind(now)
            .execute(&mut *pool)
            .await
            .unwrap();
            for (seq, (from, to, second)) in (1_i64..).zip(moves) {
                sqlx::query(
                    "INSERT INTO transitions (node_id, seq, from_status, to_status, cause, actor, at) \
                     VALUES ($1, $2, $3, $4, 'test', 'ann', $5)",
                )
                .bind(id)
                .bind(seq)
                .bind(*from)
                .bind(*to)
                .bind(at(*second).as_millis())
                .execute(&mut *pool)
                .await
                .unwrap();
            }
        }
        let seconds = Duration::from_secs;
        let expected = Service { online: seconds(20 + 30 + 30 + 100 + 100), offline: seconds(10) };
        assert_eq!(service("acme").await, expected);
        assert_eq!(service("other").await, Service::default());
    }
}
