//! The store over sqlx's `Any`, with SQLite so far: how the database is opened, and which file answers what.

use std::{collections::BTreeMap, path::Path};

use aio_protocol::{
    event::NodeEvent,
    ids::{NodeId, OwnerId},
    node::NodeStatus,
    time::Timestamp,
};
use reqwest::Url;
use sqlx::{
    AnyPool, Executor,
    any::{AnyPoolOptions, AnyRow},
};

use super::{
    Admission, Answer, Backlog, DeadLetterPage, EventQuery, IssuedToken, Newcomer, NodePage, NodeQuery,
    Received, RecordedStep, Replacement, Since, Store, StoreError, TransitionPage, Undelivered, Window,
    dead_letters, enrolments, inbox, nodes, offers, outbox, settings, tokens, transitions, writer::Writer,
};
use crate::{node::Node, rotation::History};

/// Takes SQLite's write lock at once: a transaction that first reads and then writes could otherwise fail half-way.
pub(super) const BEGIN: &str = "BEGIN IMMEDIATE";

/// Of readers; the writer has one of its own.
const CONNECTIONS: u32 = 4;

pub(crate) struct SqlStore {
    pool: AnyPool,
    writer: Writer,
}

impl SqlStore {
    /// Opens the database at `url`, or `controller.db` in `data_dir`, making it when it is not there.
    pub(crate) async fn open(url: Option<&str>, data_dir: &Path) -> Result<Self, StoreError> {
        let url = match url {
            Some(url) => url.to_owned(),
            None => file_url(&data_dir.join("controller.db"))?,
        };
        sqlx::any::install_default_drivers();
        let options = AnyPoolOptions::new().after_connect(|connection, _| {
            Box::pin(async move {
                // A commit is on the disk when it returns, and another process that writes is waited for.
                connection
                    .execute(
                        "PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                         PRAGMA foreign_keys = ON;",
                    )
                    .await?;
                Ok(())
            })
        });
        let pool = options.clone().max_connections(CONNECTIONS).connect(&url).await?;
        // SQLite has no lock to hold over migrations. Of two processes that start on a new database at once, the slower may fail at
        // each of them once, and on its next try finds that one done.
        let migrations = sqlx::migrate!("./migrations");
        let mut tries = migrations.iter().count();
        while let Err(error) = migrations.run(&pool).await {
            if tries == 0 {
                return Err(error.into());
            }
            tries -= 1;
        }
        let writer = Writer::start(options.max_connections(1).connect(&url).await?);
        Ok(Self { pool, writer })
    }

    /// Writes what waits and closes every connection, so that nothing is left to recover.
    pub(crate) async fn close(&self) {
        self.writer.close().await;
        self.pool.close().await;
    }
}

/// The database of a file, whatever characters its path has.
fn file_url(path: &Path) -> Result<String, StoreError> {
    let unusable = || StoreError::Place(path.display().to_string());
    let path_text = std::path::absolute(path).map_err(|_| unusable())?;
    let url = Url::from_file_path(path_text).map_err(|()| unusable())?;
    Ok(format!("sqlite://{}?mode=rwc", url.path()))
}

/// Something in a column that is not what was written there.
pub(super) fn corrupt<E: std::error::Error + Send + Sync + 'static>(
    what: &'static str,
) -> impl FnOnce(E) -> StoreError {
    move |source| StoreError::Corrupt { what, source: Box::new(source) }
}

/// A time in a column.
pub(super) fn time(row: &AnyRow, column: &str) -> Result<Timestamp, StoreError> {
    use sqlx::Row;
    Ok(Timestamp::from_millis(row.try_get(column)?))
}

/// An unsigned number for a column.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Store for SqlStore {
    fn setting<'a>(&'a self, name: &'a str) -> Answer<'a, Option<String>> {
        Box::pin(settings::read(&self.pool, name))
    }

    fn put_setting<'a>(&'a self, name: &'a str, value: &'a str) -> Answer<'a, ()> {
        Box::pin(self.writer.write(settings::Put { name: name.to_owned(), value: value.to_owned() }))
    }

    fn settle<'a>(&'a self, name: &'a str, value: &'a str) -> Answer<'a, String> {
        Box::pin(self.writer.write(settings::Settle { name: name.to_owned(), value: value.to_owned() }))
    }

    fn add_node<'a>(&'a self, node: &'a Node, step: &'a RecordedStep) -> Answer<'a, ()> {
        Box::pin(async { self.writer.write(nodes::Add::new(node, step)?).await })
    }

    fn enrol_nodes<'a>(&'a self, newcomers: &'a [Newcomer]) -> Answer<'a, Vec<String>> {
        Box::pin(async { self.writer.write(enrolments::Enrol::new(newcomers)?).await })
    }

    fn save<'a>(&'a self, node: &'a Node, steps: &'a [RecordedStep]) -> Answer<'a, bool> {
        Box::pin(async { self.writer.write(nodes::Save::new(node, steps)?).await })
    }

    fn node<'a>(&'a self, id: &'a NodeId) -> Answer<'a, Option<Node>> {
        Box::pin(nodes::find(&self.pool, id))
    }

    fn admission<'a>(&'a self, id: &'a NodeId, jti: &'a str) -> Answer<'a, Option<Admission>> {
        Box::pin(nodes::admission(&self.pool, id, jti))
    }

    fn nodes<'a>(&'a self, query: &'a NodeQuery) -> Answer<'a, NodePage> {
        Box::pin(nodes::page(&self.pool, query))
    }

    fn census(&self) -> Answer<'_, BTreeMap<NodeStatus, u64>> {
        Box::pin(nodes::census(&self.pool))
    }

    fn nodes_with_status(&self, status: NodeStatus) -> Answer<'_, Vec<NodeId>> {
        Box::pin(nodes::with_status(&self.pool, status))
    }

    fn put_last_seen<'a>(&'a self, seen: &'a [(NodeId, Timestamp)]) -> Answer<'a, ()> {
        Box::pin(self.writer.write(nodes::PutLastSeen(seen.to_vec())))
    }

    fn clear_connections(&self) -> Answer<'_, ()> {
        Box::pin(self.writer.write(nodes::ClearConnections))
    }

    fn add_token<'a>(&'a self, token: &'a IssuedToken) -> Answer<'a, ()> {
        Box::pin(self.writer.write(tokens::Add(token.clone())))
    }

    fn token<'a>(&'a self, jti: &'a str) -> Answer<'a, Option<IssuedToken>> {
        Box::pin(tokens::find(&self.pool, jti))
    }

    fn newest_token<'a>(&'a self, node: &'a NodeId) -> Answer<'a, Option<IssuedToken>> {
        Box::pin(tokens::newest(&self.pool, node))
    }

    fn revoke_tokens<'a>(
        &'a self,
        node: &'a NodeId,
        at: Timestamp,
        successor: Option<&'a IssuedToken>,
    ) -> Answer<'a, ()> {
        let (node, successor) = (node.clone(), successor.cloned().map(tokens::Add));
        Box::pin(self.writer.write(tokens::Revoke { node, at, successor }))
    }

    fn offers_for<'a>(&'a self, jti: &'a str) -> Answer<'a, History> {
        Box::pin(offers::history(&self.pool, jti))
    }

    fn offer_token<'a>(&'a self, replacement: &'a Replacement) -> Answer<'a, bool> {
        Box::pin(self.writer.write(offers::Offer(replacement.clone())))
    }

    fn take_offer<'a>(&'a self, jti: &'a str, at: Timestamp) -> Answer<'a, bool> {
        Box::pin(self.writer.write(offers::Take { jti: jti.to_owned(), at }))
    }

    fn reject_offer<'a>(
        &'a self,
        node: &'a NodeId,
        jti: &'a str,
        reason: &'a str,
        at: Timestamp,
    ) -> Answer<'a, bool> {
        let (node, jti, reason) = (node.clone(), jti.to_owned(), reason.to_owned());
        Box::pin(self.writer.write(offers::Reject { node, jti, reason, at }))
    }

    fn connected_without_token(&self) -> Answer<'_, Vec<NodeId>> {
        Box::pin(nodes::connected_without_token(&self.pool))
    }

    fn transitions<'a>(&'a self, node: &'a NodeId, window: Window) -> Answer<'a, TransitionPage> {
        Box::pin(transitions::page(&self.pool, node, window))
    }

    fn nodes_with_undelivered(&self) -> Answer<'_, Vec<(NodeId, OwnerId)>> {
        Box::pin(outbox::nodes(&self.pool))
    }

    fn undelivered<'a>(&'a self, node: &'a NodeId, limit: u64) -> Answer<'a, Vec<Undelivered>> {
        Box::pin(outbox::oldest(&self.pool, node, limit))
    }

    fn backlog(&self) -> Answer<'_, Backlog> {
        Box::pin(outbox::backlog(&self.pool))
    }

    fn delivered<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(self.writer.write(outbox::Remove { id: id.to_owned() }))
    }

    fn postpone<'a>(&'a self, id: &'a str, now: Timestamp, due: Timestamp, error: &'a str) -> Answer<'a, ()> {
        let (id, error) = (id.to_owned(), error.to_owned());
        Box::pin(self.writer.write(outbox::Postpone { id, attempted_at: now, due, error }))
    }

    fn bury<'a>(&'a self, id: &'a str, now: Timestamp, reason: &'a str) -> Answer<'a, ()> {
        let (id, reason) = (id.to_owned(), reason.to_owned());
        Box::pin(self.writer.write(dead_letters::Bury { id, reason, now }))
    }

    fn dead_letters<'a>(&'a self, org: &'a OwnerId, window: Window) -> Answer<'a, DeadLetterPage> {
        Box::pin(dead_letters::page(&self.pool, org, window))
    }

    fn replay<'a>(
        &'a self,
        org: &'a OwnerId,
        id: Option<&'a str>,
        now: Timestamp,
    ) -> Answer<'a, (u64, Vec<(NodeId, OwnerId)>)> {
        let (org, id) = (org.clone(), id.map(str::to_owned));
        Box::pin(self.writer.write(dead_letters::Replay { org, id, now }))
    }

    fn receive<'a>(&'a self, id: &'a str, event: &'a NodeEvent, now: Timestamp) -> Answer<'a, bool> {
        Box::pin(async move { self.writer.write(inbox::Receive::new(id, event, now)?).await })
    }

    fn event_position<'a>(&'a self, org: &'a OwnerId, since: &'a Since) -> Answer<'a, Option<i64>> {
        Box::pin(inbox::position(&self.pool, org, since))
    }

    fn prune_events(&self, before: Timestamp, limit: u64) -> Answer<'_, u64> {
        Box::pin(self.writer.write(inbox::Prune { before, limit }))
    }

    fn events<'a>(&'a self, query: &'a EventQuery) -> Answer<'a, Vec<Received>> {
        Box::pin(inbox::list(&self.pool, query))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_database_is_made_wherever_its_folder_is_and_survives_its_process() {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join("odd name %41 ? # é");
        std::fs::create_dir(&folder).unwrap();
        let store = SqlStore::open(None, &folder).await.unwrap();
        assert_eq!(store.settle("owner", "first").await.unwrap(), "first");
        assert_eq!(store.settle("owner", "second").await.unwrap(), "first");
        store.close().await;
        assert!(folder.join("controller.db").is_file());

        let again = SqlStore::open(None, &folder).await.unwrap();
        assert_eq!(again.setting("owner").await.unwrap().as_deref(), Some("first"));
        again.put_setting("owner", "third").await.unwrap();
        assert_eq!(again.setting("owner").await.unwrap().as_deref(), Some("third"));
        assert_eq!(again.setting("nothing").await.unwrap(), None);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn two_processes_may_start_on_a_new_database_at_once() {
        let data = tempfile::tempdir().unwrap();
        let open = || {
            let folder = data.path().to_owned();
            tokio::spawn(async move { SqlStore::open(None, &folder).await })
        };
        let (first, second) = (open(), open());
        first.await.unwrap().unwrap().put_setting("owner", "one").await.unwrap();
        assert_eq!(second.await.unwrap().unwrap().setting("owner").await.unwrap().as_deref(), Some("one"));
    }

    #[tokio::test]
    async fn every_connection_is_durable_and_patient() {
        let data = tempfile::tempdir().unwrap();
        let store = SqlStore::open(None, data.path()).await.unwrap();
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut connection = store.pool.acquire().await.unwrap();
            let read = async |connection: &mut sqlx::AnyConnection, pragma| {
                use sqlx::Row;
                let row = sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA {pragma}")))
                    .fetch_one(connection)
                    .await
                    .unwrap();
                row.try_get::<i64, _>(0).unwrap()
            };
            assert_eq!(read(&mut connection, "synchronous").await, 2);
            assert_eq!(read(&mut connection, "busy_timeout").await, 10_000);
            held.push(connection);
        }
    }
}
