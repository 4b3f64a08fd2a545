//! Events that NOTI has not acknowledged. Rows are written by `nodes`, in the transaction of the change that owes them.

use aio_protocol::{
    ids::{NodeId, OwnerId},
    time::Timestamp,
};
use sqlx::{AnyConnection, AnyPool, Row, any::AnyRow};

use super::{
    Backlog, StoreError, Undelivered,
    sql::{corrupt, signed, time},
    writer::Write,
};

/// Adds an event in the transaction of `connection`.
pub(super) async fn add(
    connection: &mut AnyConnection,
    node: &NodeId,
    seq: i64,
    body: &str,
    noticed_at: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO outbox (id, node_id, seq, body, created_at, attempts, next_attempt_at) \
         VALUES ($1, $2, $3, $4, $5, 0, $5)",
    )
    .bind(format!("evt_{}", uuid::Uuid::now_v7().simple()))
    .bind(node.as_str())
    .bind(seq)
    .bind(body)
    .bind(noticed_at.as_millis())
    .execute(connection)
    .await?;
    Ok(())
}

/// Which nodes have events, and whose they are. Reads the index of the outbox and nothing of the events.
pub(super) async fn nodes(pool: &AnyPool) -> Result<Vec<(NodeId, OwnerId)>, StoreError> {
    let rows = sqlx::query("SELECT id, org_id FROM nodes WHERE id IN (SELECT node_id FROM outbox)")
        .fetch_all(pool)
        .await?;
    rows.iter().map(owned_node).collect()
}

/// A node and whose it is, in the first two columns.
pub(super) fn owned_node(row: &AnyRow) -> Result<(NodeId, OwnerId), StoreError> {
    let node = row.try_get::<String, _>(0)?.parse().map_err(corrupt("node_id"))?;
    let organisation = row.try_get::<String, _>(1)?.parse().map_err(corrupt("org_id"))?;
    Ok((node, organisation))
}

/// The oldest events of a node, in their order.
pub(super) async fn oldest(
    pool: &AnyPool,
    node: &NodeId,
    limit: u64,
) -> Result<Vec<Undelivered>, StoreError> {
    let rows = sqlx::query(
        "SELECT id, body, created_at, attempts, first_attempt_at, next_attempt_at FROM outbox \
         WHERE node_id = $1 ORDER BY seq LIMIT $2",
    )
    .bind(node.as_str())
    .bind(signed(limit))
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Undelivered {
                id: row.try_get("id")?,
                body: row.try_get("body")?,
                noticed_at: time(row, "created_at")?,
                attempts: u32::try_from(row.try_get::<i64, _>("attempts")?).unwrap_or(u32::MAX),
                first_attempt_at: row
                    .try_get::<Option<i64>, _>("first_attempt_at")?
                    .map(Timestamp::from_millis),
                due: time(row, "next_attempt_at")?,
            })
        })
        .collect()
}

/// How much is owed. Ids begin with their time, so the oldest is the first by its key.
pub(super) async fn backlog(pool: &AnyPool) -> Result<Backlog, StoreError> {
    let row = sqlx::query(
        "SELECT (SELECT COUNT(*) FROM outbox), (SELECT created_at FROM outbox ORDER BY id LIMIT 1), \
         (SELECT COUNT(*) FROM dead_letters)",
    )
    .fetch_one(pool)
    .await?;
    let count =
        |column: usize| Ok::<_, StoreError>(u64::try_from(row.try_get::<i64, _>(column)?).unwrap_or(0));
    Ok(Backlog {
        events: count(0)?,
        oldest: row.try_get::<Option<i64>, _>(1)?.map(Timestamp::from_millis),
        dead: count(2)?,
    })
}

/// Forgets an event.
pub(super) struct Remove {
    pub id: String,
}

impl Write for Remove {
    type Answer = ();

    async fn run(&self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM outbox WHERE id = $1").bind(&self.id).execute(connection).await?;
        Ok(())
    }
}

/// Notes a failed attempt and when the next one is due.
pub(super) struct Postpone {
    pub id: String,
    pub attempted_at: Timestamp,
    pub due: Timestamp,
    pub error: String,
}

impl Write for Postpone {
    type Answer = ();

    async fn run(&self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE outbox SET attempts = attempts + 1, first_attempt_at = COALESCE(first_attempt_at, $2), \
             next_attempt_at = $3, last_error = $4 WHERE id = $1",
        )
        .bind(&self.id)
        .bind(self.attempted_at.as_millis())
        .bind(self.due.as_millis())
        .bind(&self.error)
        .execute(connection)
        .await?;
        Ok(())
    }
}
