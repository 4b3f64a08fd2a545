//! The controllers that serve the database together, and the nodes of those that are gone. The dialect adds
//! and removes them.

use std::collections::HashSet;

use aio_protocol::time::Timestamp;
use sqlx::{AnyConnection, Row, any::AnyRow};

use super::{
    database::Store,
    error::StoreError,
    rows::{signed, time},
    writer::Write,
};

/// A controller that serves the database together with others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Controller {
    pub number: i64,
    /// Of its machine.
    pub name: String,
    pub address: String,
    pub version: String,
    pub started_at: Timestamp,
    /// When it was heard of last, by the database's clock.
    pub beaten_at: Timestamp,
    /// Whether it does what is done once.
    pub leads: bool,
    /// Workers that are connected to it.
    pub workers: i64,
}

impl Store {
    /// The controllers that serve the database together, in the order in which they came. None where one
    /// serves it alone.
    pub(crate) async fn controllers(&self) -> Result<Vec<Controller>, StoreError> {
        let rows = sqlx::query(
            "SELECT number, name, address, version, started_at, beaten_at, leads, \
             (SELECT COUNT(*) FROM nodes WHERE held_by = number AND websocket_connected = 1) AS workers \
             FROM controllers ORDER BY number",
        )
        .fetch_all(&mut *self.lists.take().await?)
        .await?;
        rows.iter().map(read).collect()
    }

    /// The numbers of the controllers that serve the database together.
    pub(crate) async fn controller_numbers(&self) -> Result<HashSet<i64>, StoreError> {
        let rows =
            sqlx::query("SELECT number FROM controllers").fetch_all(&mut *self.lists.take().await?).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Says what a controller is called, where it listens, and its version.
    pub(crate) async fn introduce(
        &self,
        number: i64,
        name: String,
        address: String,
        version: String,
    ) -> Result<(), StoreError> {
        self.writer.write(Introduce { number, name, address, version }).await
    }

    /// Gives this controller the nodes that are connected or online and that none which is there holds, at
    /// most `limit`; says how many.
    pub(crate) async fn take_orphans(&self, number: i64, limit: u64) -> Result<u64, StoreError> {
        self.writer.write(TakeOrphans { number, limit }).await
    }
}

fn read(row: &AnyRow) -> Result<Controller, StoreError> {
    Ok(Controller {
        number: row.try_get("number")?,
        name: row.try_get("name")?,
        address: row.try_get("address")?,
        version: row.try_get("version")?,
        started_at: time(row, "started_at")?,
        beaten_at: time(row, "beaten_at")?,
        leads: row.try_get::<i64, _>("leads")? != 0,
        workers: row.try_get("workers")?,
    })
}

struct Introduce {
    number: i64,
    name: String,
    address: String,
    version: String,
}

impl Write for Introduce {
    type Answer = ();

    async fn run(&self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        sqlx::query("UPDATE controllers SET name = $2, address = $3, version = $4 WHERE number = $1")
            .bind(self.number)
            .bind(&self.name)
            .bind(&self.address)
            .bind(&self.version)
            .execute(connection)
            .await?;
        Ok(())
    }
}

struct TakeOrphans {
    number: i64,
    limit: u64,
}

impl Write for TakeOrphans {
    type Answer = u64;

    async fn run(&self, connection: &mut AnyConnection) -> Result<u64, StoreError> {
        let taken = sqlx::query(
            "UPDATE nodes SET held_by = $1, websocket_connected = 0, version = version + 1 WHERE id IN \
             (SELECT id FROM nodes WHERE (websocket_connected = 1 OR status = 'online') \
             AND held_by NOT IN (SELECT number FROM controllers) LIMIT $2)",
        )
        .bind(self.number)
        .bind(signed(self.limit))
        .execute(connection)
        .await?;
        Ok(taken.rows_affected())
    }
}

#[cfg(test)]
mod tests {
    use aio_protocol::{
        ids::NodeId,
        node::{NodeRole, NodeStatus, Owner},
    };

    use super::*;
    use crate::{
        lifecycle::registration,
        node::Node,
        store::{Newcomer, Signal, testing},
    };

    async fn controller(store: &Store, number: i64) {
        let row = "INSERT INTO controllers (number, name, address, version, started_at, beaten_at, beats, leads) \
                   VALUES ($1, 'a', 'b', 'c', 1, 2, 3, 0)";
        let mut connection = store.pool.take().await.unwrap();
        sqlx::query(row).bind(number).execute(&mut *connection).await.unwrap();
    }

    /// A node that is online and held by a controller.
    async fn node(store: &Store, byte: u8, held_by: i64) -> Node {
        let owner = Owner { org_id: "o".parse().unwrap(), user_id: "u".parse().unwrap() };
        let (id, at) = (NodeId::from_bytes([byte; 12]), Timestamp::from_millis(1));
        let node = Node::registered(id.clone(), format!("gpu-{byte}"), vec![NodeRole::Worker], owner, at);
        let step = registration(&node, "test");
        store.enrol_nodes(&[Newcomer { node: node.clone(), step, token: None }]).await.unwrap();
        let mut node = store.node(&id).await.unwrap().unwrap();
        (node.status, node.websocket_connected, node.held_by) = (NodeStatus::Online, true, held_by);
        assert!(store.save(&node, &[]).await.unwrap());
        store.node(&id).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn nodes_whose_controller_is_gone_are_taken_a_few_at_once_and_no_others() {
        let data = tempfile::tempdir().unwrap();
        let store = testing::store(data.path()).await;
        for number in [1, 2] {
            controller(&store, number).await;
        }
        for (byte, held_by) in [(1, 1), (2, 2), (3, 9), (4, 9), (5, 0)] {
            node(&store, byte, held_by).await;
        }
        let mut taken = Vec::new();
        loop {
            match store.take_orphans(1, 2).await.unwrap() {
                0 => break,
                some => taken.push(some),
            }
        }
        assert_eq!(taken, [2, 1]);
        assert_eq!(store.online_nodes(1).await.unwrap().len(), 4);
        let workers: Vec<_> = store.controllers().await.unwrap().iter().map(|it| it.workers).collect();
        assert_eq!(workers, [1, 1], "whose controller is gone has no socket");
    }

    #[tokio::test]
    async fn whoever_held_a_node_is_told_once_that_another_has_it_and_nobody_who_is_gone_is() {
        let data = tempfile::tempdir().unwrap();
        let store = testing::store(data.path()).await;
        for number in [1, 2] {
            controller(&store, number).await;
        }
        let mut moving = node(&store, 1, 1).await;
        assert_eq!(store.take_signals(1).await.unwrap(), []);
        for holder in [2, 9, 1] {
            moving.held_by = holder;
            assert!(store.save(&moving, &[]).await.unwrap());
            moving = store.node(&moving.id).await.unwrap().unwrap();
        }
        assert_eq!(store.take_signals(1).await.unwrap(), [(moving.id.clone(), Signal::Moved)]);
        assert_eq!(store.take_signals(2).await.unwrap(), [(moving.id.clone(), Signal::Moved)]);
        assert_eq!(store.take_signals(9).await.unwrap(), []);
        // Its worker is to be told something, by whoever holds it.
        for _ in 0..2 {
            store.signal_told(2, vec![moving.id.clone()]).await.unwrap();
        }
        store.signal_told(1, vec![moving.id.clone()]).await.unwrap();
        assert_eq!(store.take_signals(1).await.unwrap(), [(moving.id.clone(), Signal::Told)]);
        for number in [1, 2] {
            assert_eq!(store.take_signals(number).await.unwrap(), []);
        }
    }

    #[tokio::test]
    async fn whoever_serves_alone_holds_all_nodes_under_no_number() {
        let data = tempfile::tempdir().unwrap();
        let store = testing::store(data.path()).await;
        let held = node(&store, 1, 7).await;
        store.clear_connections().await.unwrap();
        let cleared = store.node(&held.id).await.unwrap().unwrap();
        assert_eq!((cleared.held_by, cleared.websocket_connected), (0, false));
        assert_eq!(store.online_nodes(0).await.unwrap().len(), 1);
    }
}
