//! The windows of nodes' telemetry. A window's key is its number since 1970 times 2^32 and the node's number:
//! a batch is added at the end of the table, a node's history is one look-up for each window, and what is old
//! is a range at the beginning.

use aio_protocol::ids::NodeId;
use sqlx::{AnyConnection, Row};

use super::{database::Store, error::StoreError, rows::signed, writer::Write};
use crate::telemetry::{Closed, Slot};

/// Node numbers are below this.
const NODES: i64 = 1 << 32;

/// The keys of the node $1 in the windows from $2 to $3.
const KEYS: &str = "WITH RECURSIVE keys(key) AS ( \
     SELECT $2 * 4294967296 + number FROM telemetry_nodes WHERE node_id = $1 \
     UNION ALL SELECT key + 4294967296 FROM keys WHERE key < $3 * 4294967296)";

impl Store {
    /// Keeps windows of nodes that are in service.
    pub(crate) async fn keep_telemetry(&self, windows: Vec<Closed>) -> Result<(), StoreError> {
        self.writer.write(Keep(windows)).await
    }

    /// The windows of a node from `first` to `last`, in order.
    pub(crate) async fn telemetry(
        &self,
        node: &NodeId,
        first: Slot,
        last: Slot,
    ) -> Result<Vec<(Slot, Vec<u8>)>, StoreError> {
        let select = format!(
            "{KEYS} SELECT key, data FROM telemetry WHERE key IN (SELECT key FROM keys) ORDER BY key"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(select))
            .bind(node.as_str())
            .bind(i64::from(first.0))
            .bind(i64::from(last.0))
            .fetch_all(&mut *self.lists.take().await?)
            .await?;
        let window = |row: &sqlx::any::AnyRow| {
            let slot = row.try_get::<i64, _>(0)? / NODES;
            Ok((Slot(u32::try_from(slot).unwrap_or(0)), row.try_get(1)?))
        };
        rows.iter().map(window).collect()
    }

    /// Drops windows before `first`, at most `limit`, and says how many.
    pub(crate) async fn drop_telemetry(&self, first: Slot, limit: u64) -> Result<u64, StoreError> {
        self.writer.write(Drop { first, limit }).await
    }
}

struct Keep(Vec<Closed>);

impl Write for Keep {
    type Answer = ();

    async fn run(&self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        for window in &self.0 {
            // A later window of the same time, after the clock was set back, takes the place of the earlier
            // one.
            let insert = "INSERT INTO telemetry (key, data) SELECT $1 * 4294967296 + number, $2 FROM telemetry_nodes \
                 WHERE node_id = $3 ON CONFLICT (key) DO UPDATE SET data = excluded.data";
            let insert = sqlx::query(insert)
                .bind(i64::from(window.slot.0))
                .bind(&window.data)
                .bind(window.node.as_str());
            if insert.execute(&mut *connection).await?.rows_affected() > 0 {
                continue;
            }
            let number = "INSERT INTO telemetry_nodes (number, node_id) \
                 SELECT COALESCE((SELECT MAX(number) FROM telemetry_nodes), 0) + 1, id FROM nodes \
                 WHERE id = $1 AND status <> 'inactive'";
            let numbered = sqlx::query(number).bind(window.node.as_str()).execute(&mut *connection).await?;
            if numbered.rows_affected() > 0 {
                sqlx::query("INSERT INTO telemetry (key, data) SELECT $1 * 4294967296 + number, $2 FROM telemetry_nodes WHERE node_id = $3")
                    .bind(i64::from(window.slot.0))
                    .bind(&window.data)
                    .bind(window.node.as_str())
                    .execute(&mut *connection)
                    .await?;
            }
        }
        Ok(())
    }
}

struct Drop {
    first: Slot,
    limit: u64,
}

impl Write for Drop {
    type Answer = u64;

    async fn run(&self, connection: &mut AnyConnection) -> Result<u64, StoreError> {
        let dropped = sqlx::query(
            "DELETE FROM telemetry WHERE key IN (SELECT key FROM telemetry WHERE key < $1 ORDER BY key LIMIT $2)",
        )
        .bind(i64::from(self.first.0) * NODES)
        .bind(signed(self.limit))
        .execute(connection)
        .await?;
        Ok(dropped.rows_affected())
    }
}

/// Drops all windows of a node.
pub(super) async fn forget(connection: &mut AnyConnection, node: &NodeId) -> Result<(), StoreError> {
    // One look-up for each window that there is.
    let windows = "WITH RECURSIVE slots(slot) AS (SELECT MIN(key) / 4294967296 FROM telemetry UNION ALL \
        SELECT (SELECT MIN(key) / 4294967296 FROM telemetry WHERE key >= (slot + 1) * 4294967296) FROM slots \
        WHERE slot IS NOT NULL) DELETE FROM telemetry WHERE key IN (SELECT slot * 4294967296 + number \
        FROM slots, telemetry_nodes WHERE node_id = $1)";
    sqlx::query(windows).bind(node.as_str()).execute(&mut *connection).await?;
    sqlx::query("DELETE FROM telemetry_nodes WHERE node_id = $1")
        .bind(node.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use aio_protocol::{
        node::{NodeRole, NodeStatus, Owner},
        time::Timestamp,
    };

    use super::*;
    use crate::{
        lifecycle::registration,
        node::Node,
        store::{Newcomer, testing},
    };

    fn node(number: u16) -> Node {
        let owner = Owner { org_id: "acme".parse().unwrap(), user_id: "u".parse().unwrap() };
        let [high, low] = number.to_be_bytes();
        let id = NodeId::from_bytes([9, 9, 9, 9, 9, 9, 9, 9, 9, 9, high, low]);
        let at = Timestamp::from_millis(1_000);
        Node::registered(id, format!("gpu-{number}"), vec![NodeRole::Worker], owner, at)
    }

    async fn store_with(nodes: u16) -> (Store, tempfile::TempDir) {
        let data = tempfile::tempdir().unwrap();
        let store = testing::store(data.path()).await;
        let newcomers = (0..nodes).map(node).map(|node| {
            let step = registration(&node, "test");
            Newcomer { node, step, token: None }
        });
        store.enrol_nodes(&newcomers.collect::<Vec<_>>()).await.unwrap();
        (store, data)
    }

    fn window(number: u16, slot: u32, data: &[u8]) -> Closed {
        Closed { node: node(number).id, slot: Slot(slot), data: data.to_vec() }
    }

    async fn slots(store: &Store, number: u16) -> Vec<u32> {
        let windows = store.telemetry(&node(number).id, Slot(0), Slot(9_000)).await.unwrap();
        windows.into_iter().map(|(slot, _)| slot.0).collect()
    }

    #[tokio::test]
    async fn a_nodes_windows_are_read_in_order_and_only_its_own() {
        let (store, _data) = store_with(2).await;
        let windows = vec![window(0, 7_000, b"a"), window(1, 7_000, b"b"), window(0, 7_002, b"c")];
        store.keep_telemetry(windows).await.unwrap();
        store.keep_telemetry(vec![window(0, 7_002, b"d")]).await.unwrap();
        let found = store.telemetry(&node(0).id, Slot(6_999), Slot(7_002)).await.unwrap();
        assert_eq!(found, [(Slot(7_000), b"a".to_vec()), (Slot(7_002), b"d".to_vec())]);
        assert_eq!(store.telemetry(&node(0).id, Slot(7_001), Slot(7_001)).await.unwrap(), []);
        assert_eq!(slots(&store, 1).await, [7_000]);
    }

    #[tokio::test]
    async fn old_windows_go_a_few_at_once_and_a_nodes_go_with_it() {
        let (store, _data) = store_with(2).await;
        for slot in 1..=4 {
            store.keep_telemetry(vec![window(0, slot, b"a"), window(1, slot, b"b")]).await.unwrap();
        }
        assert_eq!(store.drop_telemetry(Slot(3), 3).await.unwrap(), 3);
        assert_eq!(store.drop_telemetry(Slot(3), 3).await.unwrap(), 1);
        assert_eq!(store.drop_telemetry(Slot(3), 3).await.unwrap(), 0);
        assert_eq!(slots(&store, 0).await, [3, 4]);

        let gone = Node { status: NodeStatus::Inactive, version: 1, ..node(0) };
        assert!(store.save(&gone, &[]).await.unwrap());
        for event in store.undelivered(&gone.id, 100).await.unwrap() {
            store.delivered(&event.id).await.unwrap();
        }
        assert_eq!(store.purge_nodes(None, Timestamp::from_millis(9_000), 10).await.unwrap(), 1);
        assert_eq!((slots(&store, 0).await, slots(&store, 1).await), (vec![], vec![3, 4]));
        store.keep_telemetry(vec![window(0, 5, b"a"), window(1, 5, b"b")]).await.unwrap();
        assert_eq!((slots(&store, 0).await, slots(&store, 1).await), (vec![], vec![3, 4, 5]));
    }

    /// A day of a fleet would take long; an hour shows what a node and hour take.
    #[tokio::test]
    async fn a_node_with_eight_gpus_takes_less_than_two_kib_an_hour() {
        let (store, data) = store_with(500).await;
        let file = data.path().join("controller.db");
        let checkpoint = async || {
            sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
                .execute(&mut *store.lists.take().await.unwrap())
                .await
                .unwrap();
            fs::metadata(&file).unwrap().len()
        };
        // What the packing's own test says that a window takes at the worst.
        let worst = [7; 148];
        let keep = async |slot| {
            let windows = (0..500).map(|number| window(number, slot, &worst)).collect();
            store.keep_telemetry(windows).await.unwrap();
        };
        // Gives each node its number.
        keep(5_999_999).await;
        let before = checkpoint().await;
        for slot in 6_000_000..6_000_012 {
            keep(slot).await;
        }
        let each = (checkpoint().await - before) / 500;
        println!("a node with 8 GPUs takes {each} bytes of the database an hour at the worst");
        assert!((148 * 12..=2 * 1024).contains(&each), "{each} bytes");
    }
}
