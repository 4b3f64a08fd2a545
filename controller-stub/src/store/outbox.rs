//! Events that NOTI has not acknowledged. Rows are written by `nodes`, in the transaction of the
//! change that owes them.

use std::time::Duration;

use aio_protocol::{
    ids::{NodeId, OwnerId},
    time::Timestamp,
};
use sqlx::{AnyConnection, Row, any::AnyRow};

use super::{
    database::Store,
    error::StoreError,
    rows::{count, optional_time, owned_node, signed, time},
    writer::Write,
};

/// An event that NOTI has not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Undelivered {
    pub id: String,
    /// What is posted, byte for byte.
    pub body: String,
    pub noticed_at: Timestamp,
    /// Failed attempts so far.
    pub attempts: u32,
    /// How long it had been tried at its last attempt.
    pub tried_for: Duration,
    pub last_attempt_at: Option<Timestamp>,
    pub due: Timestamp,
}

/// How much is owed to NOTI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Backlog {
    pub events: u64,
    /// The oldest of them, and when it was noticed.
    pub oldest: Option<(String, Timestamp)>,
    /// Those that were given up.
    pub dead: u64,
}

impl Store {
    /// Which nodes have events that NOTI has not acknowledged, and whose they are. Reads the index
    /// of the outbox and nothing of the events.
    pub(crate) async fn nodes_with_undelivered(&self) -> Result<Vec<(NodeId, OwnerId)>, StoreError> {
        let rows = sqlx::query("SELECT id, org_id FROM nodes WHERE id IN (SELECT node_id FROM outbox)")
            .fetch_all(&mut *self.pool.take().await?)
            .await?;
        rows.iter().map(owned_node).collect()
    }

    /// The oldest events of a node that NOTI has not acknowledged, in their order.
    pub(crate) async fn undelivered(
        &self,
        node: &NodeId,
        limit: u64,
    ) -> Result<Vec<Undelivered>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, body, created_at, attempts, tried_millis, last_attempt_at, next_attempt_at FROM outbox \
             WHERE node_id = $1 ORDER BY seq LIMIT $2",
        )
        .bind(node.as_str())
        .bind(signed(limit))
        .fetch_all(&mut *self.pool.take().await?)
        .await?;
        rows.iter().map(read).collect()
    }

    /// How much is owed to NOTI. Ids begin with their time, so the oldest is the first by its key.
    pub(crate) async fn backlog(&self) -> Result<Backlog, StoreError> {
        let counts = sqlx::query("SELECT (SELECT COUNT(*) FROM outbox), (SELECT COUNT(*) FROM dead_letters)")
            .fetch_one(&mut *self.pool.take().await?)
            .await?;
        let oldest = sqlx::query("SELECT id, created_at FROM outbox ORDER BY id LIMIT 1")
            .fetch_optional(&mut *self.pool.take().await?)
            .await?;
        let oldest = oldest.map(|row| Ok::<_, StoreError>((row.try_get("id")?, time(&row, "created_at")?)));
        Ok(Backlog { events: count(&counts, 0)?, oldest: oldest.transpose()?, dead: count(&counts, 1)? })
    }

    /// Forgets an event that NOTI acknowledged.
    pub(crate) async fn delivered(&self, id: &str) -> Result<(), StoreError> {
        self.writer.write(Remove { id: id.to_owned() }).await
    }

    /// Notes a failed attempt at an event that has been tried for `tried_for`, and when the next one is due.
    pub(crate) async fn postpone(
        &self,
        id: &str,
        tried_for: Duration,
        now: Timestamp,
        due: Timestamp,
        error: &str,
    ) -> Result<(), StoreError> {
        let postpone =
            Postpone { id: id.to_owned(), tried_for, attempted_at: now, due, error: error.to_owned() };
        self.writer.write(postpone).await
    }
}

pub(super) fn read(row: &AnyRow) -> Result<Undelivered, StoreError> {
    let tried_millis = row.try_get::<i64, _>("tried_millis")?;
    Ok(Undelivered {
        id: row.try_get("id")?,
        body: row.try_get("body")?,
        noticed_at: time(row, "created_at")?,
        attempts: u32::try_from(row.try_get::<i64, _>("attempts")?).unwrap_or(u32::MAX),
        tried_for: Duration::from_millis(u64::try_from(tried_millis).unwrap_or(0)),
        last_attempt_at: optional_time(row, "last_attempt_at")?,
        due: time(row, "next_attempt_at")?,
    })
}

/// The id of a new event.
pub(super) fn new_id() -> String {
    format!("evt_{}", uuid::Uuid::now_v7().simple())
}

/// Adds an event in the transaction of `connection`.
pub(super) async fn add(
    connection: &mut AnyConnection,
    id: &str,
    node: &NodeId,
    seq: i64,
    body: &str,
    noticed_at: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO outbox (id, node_id, seq, body, created_at, attempts, next_attempt_at) \
         VALUES ($1, $2, $3, $4, $5, 0, $5)",
    )
    .bind(id)
    .bind(node.as_str())
    .bind(seq)
    .bind(body)
    .bind(noticed_at.as_millis())
    .execute(connection)
    .await?;
    Ok(())
}

/// Forgets an event.
struct Remove {
    id: String,
}

impl Write for Remove {
    type Answer = ();

    async fn run(&self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM outbox WHERE id = $1").bind(&self.id).execute(connection).await?;
        Ok(())
    }
}

/// Notes a failed attempt and when the next one is due.
struct Postpone {
    id: String,
    tried_for: Duration,
    attempted_at: Timestamp,
    due: Timestamp,
    error: String,
}

impl Write for Postpone {
    type Answer = ();

    async fn run(&self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE outbox SET attempts = attempts + 1, first_attempt_at = COALESCE(first_attempt_at, $2), \
             last_attempt_at = $2, next_attempt_at = $3, last_error = $4, tried_millis = $5 WHERE id = $1",
        )
        .bind(&self.id)
        .bind(self.attempted_at.as_millis())
        .bind(self.due.as_millis())
        .bind(&self.error)
        .bind(signed(u64::try_from(self.tried_for.as_millis()).unwrap_or(u64::MAX)))
        .execute(connection)
        .await?;
        Ok(())
    }
}
