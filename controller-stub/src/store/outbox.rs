//! Events that NOTI has not acknowledged. Rows are written by `nodes`, in the transaction of the change that owes them.

use aio_protocol::{ids::NodeId, time::Timestamp};
use sqlx::{AnyConnection, AnyPool, Row};

use super::{
    StoreError, Undelivered,
    sql::{corrupt, time},
    writer::Write,
};

/// Adds an event in the transaction of `connection`.
pub(super) async fn add(
    connection: &mut AnyConnection,
    node: &NodeId,
    seq: i64,
    body: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO outbox (id, node_id, seq, body, created_at, attempts, next_attempt_at) \
         VALUES ($1, $2, $3, $4, $5, 0, $5)",
    )
    .bind(format!("evt_{}", uuid::Uuid::now_v7().simple()))
    .bind(node.as_str())
    .bind(seq)
    .bind(body)
    .bind(now.as_millis())
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn nodes(pool: &AnyPool) -> Result<Vec<NodeId>, StoreError> {
    let rows = sqlx::query("SELECT DISTINCT node_id FROM outbox").fetch_all(pool).await?;
    rows.iter().map(|row| row.try_get::<String, _>(0)?.parse().map_err(corrupt("node_id"))).collect()
}

pub(super) async fn oldest(pool: &AnyPool, node: &NodeId) -> Result<Option<Undelivered>, StoreError> {
    let row = sqlx::query(
        "SELECT id, body, attempts, next_attempt_at FROM outbox WHERE node_id = $1 ORDER BY seq LIMIT 1",
    )
    .bind(node.as_str())
    .fetch_optional(pool)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Undelivered {
        id: row.try_get("id")?,
        body: row.try_get("body")?,
        attempts: u32::try_from(row.try_get::<i64, _>("attempts")?).unwrap_or(u32::MAX),
        due: time(&row, "next_attempt_at")?,
    }))
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
    pub due: Timestamp,
    pub error: String,
}

impl Write for Postpone {
    type Answer = ();

    async fn run(&self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE outbox SET attempts = attempts + 1, next_attempt_at = $2, last_error = $3 WHERE id = $1",
        )
        .bind(&self.id)
        .bind(self.due.as_millis())
        .bind(&self.error)
        .execute(connection)
        .await?;
        Ok(())
    }
}
