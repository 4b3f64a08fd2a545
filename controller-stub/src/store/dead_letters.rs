//! Events that were given up, and their way back into the outbox. An event is in one of the two tables, never in both.

use aio_protocol::{
    ids::{NodeId, OwnerId},
    time::Timestamp,
};
use sqlx::{AnyConnection, AnyPool, Row};

use super::{
    DeadLetter, DeadLetterPage, StoreError, Window,
    outbox::owned_node,
    sql::{corrupt, signed, time},
    writer::Write,
};

/// Gives an event up.
pub(super) struct Bury {
    pub id: String,
    pub reason: String,
    pub now: Timestamp,
}

impl Write for Bury {
    type Answer = ();

    async fn run(&self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        let moved = sqlx::query(
            "INSERT INTO dead_letters (id, node_id, org_id, seq, body, created_at, attempts, died_at, reason) \
             SELECT o.id, o.node_id, n.org_id, o.seq, o.body, o.created_at, o.attempts + 1, $2, $3 \
             FROM outbox o JOIN nodes n ON n.id = o.node_id WHERE o.id = $1",
        )
        .bind(&self.id)
        .bind(self.now.as_millis())
        .bind(&self.reason)
        .execute(&mut *connection)
        .await?;
        if moved.rows_affected() == 1 {
            sqlx::query("DELETE FROM outbox WHERE id = $1").bind(&self.id).execute(connection).await?;
        }
        Ok(())
    }
}

/// Puts an organisation's dead letters back into the outbox, or one of them; says which nodes they are of.
pub(super) struct Replay {
    pub org: OwnerId,
    pub id: Option<String>,
    pub now: Timestamp,
}

impl Write for Replay {
    type Answer = (u64, Vec<(NodeId, OwnerId)>);

    async fn run(&self, connection: &mut AnyConnection) -> Result<Self::Answer, StoreError> {
        let (org, id) = (self.org.as_str(), self.id.as_deref().unwrap_or(""));
        let nodes = sqlx::query(
            "SELECT DISTINCT node_id, org_id FROM dead_letters WHERE org_id = $1 AND ($2 = '' OR id = $2)",
        )
        .bind(org)
        .bind(id)
        .fetch_all(&mut *connection)
        .await?;
        let nodes = nodes.iter().map(owned_node).collect::<Result<Vec<_>, _>>()?;
        let moved = sqlx::query(
            "INSERT INTO outbox (id, node_id, seq, body, created_at, attempts, next_attempt_at) \
             SELECT id, node_id, seq, body, created_at, 0, $3 \
             FROM dead_letters WHERE org_id = $1 AND ($2 = '' OR id = $2)",
        )
        .bind(org)
        .bind(id)
        .bind(self.now.as_millis())
        .execute(&mut *connection)
        .await?;
        sqlx::query("DELETE FROM dead_letters WHERE org_id = $1 AND ($2 = '' OR id = $2)")
            .bind(org)
            .bind(id)
            .execute(connection)
            .await?;
        Ok((moved.rows_affected(), nodes))
    }
}

/// A page of an organisation's dead letters, the latest first.
pub(super) async fn page(
    pool: &AnyPool,
    org: &OwnerId,
    window: Window,
) -> Result<DeadLetterPage, StoreError> {
    let rows = sqlx::query(
        "SELECT id, body, created_at, attempts, died_at, reason FROM dead_letters WHERE org_id = $1 \
         ORDER BY died_at DESC, id DESC LIMIT $2 OFFSET $3",
    )
    .bind(org.as_str())
    .bind(signed(window.limit))
    .bind(signed(window.offset))
    .fetch_all(pool)
    .await?;
    let letters = rows.iter().map(|row| {
        Ok(DeadLetter {
            id: row.try_get("id")?,
            event: serde_json::from_str(row.try_get("body")?).map_err(corrupt("body"))?,
            noticed_at: time(row, "created_at")?,
            attempts: u32::try_from(row.try_get::<i64, _>("attempts")?).unwrap_or(u32::MAX),
            died_at: time(row, "died_at")?,
            reason: row.try_get("reason")?,
        })
    });
    let letters = letters.collect::<Result<_, StoreError>>()?;
    let total = sqlx::query("SELECT COUNT(*) FROM dead_letters WHERE org_id = $1")
        .bind(org.as_str())
        .fetch_one(pool)
        .await?;
    Ok(DeadLetterPage { letters, total: u64::try_from(total.try_get::<i64, _>(0)?).unwrap_or(0) })
}
