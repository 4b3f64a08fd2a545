//! Events that were given up, and their way back into the outbox, or out of it. An event is in one of the two
//! tables, never in both.

use aio_protocol::{
    event::NodeEvent,
    ids::{NodeId, OwnerId},
    time::Timestamp,
};
use sqlx::{AnyConnection, Row};

use super::{
    database::Store,
    error::StoreError,
    rows::{Window, corrupt, count, owned_node, signed, time},
    writer::Write,
};

/// An event that was given up.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DeadLetter {
    pub id: String,
    pub event: NodeEvent,
    pub noticed_at: Timestamp,
    pub attempts: u32,
    pub died_at: Timestamp,
    pub reason: String,
}

/// A page of dead letters.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DeadLetterPage {
    pub letters: Vec<DeadLetter>,
    /// How many the organisation has in all.
    pub total: u64,
}

impl Store {
    /// Gives an event up: it becomes a dead letter.
    pub(crate) async fn bury(&self, id: &str, now: Timestamp, reason: &str) -> Result<(), StoreError> {
        self.writer.write(Bury { id: id.to_owned(), reason: reason.to_owned(), now }).await
    }

    /// A page of an organisation's dead letters, the latest first.
    pub(crate) async fn dead_letters(
        &self,
        org: &OwnerId,
        window: Window,
    ) -> Result<DeadLetterPage, StoreError> {
        let _share = self.shares.take(org).await;
        let rows = sqlx::query(
            "SELECT id, body, created_at, attempts, died_at, reason FROM dead_letters WHERE org_id = $1 \
             ORDER BY died_at DESC, id DESC LIMIT $2 OFFSET $3",
        )
        .bind(org.as_str())
        .bind(signed(window.limit))
        .bind(signed(window.offset))
        .fetch_all(&mut *self.lists.take().await?)
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
            .fetch_one(&mut *self.lists.take().await?)
            .await?;
        Ok(DeadLetterPage { letters, total: count(&total, 0)? })
    }

    /// Puts an organisation's dead letters back into the outbox, or the one with this id; says how
    /// many, and of which nodes.
    pub(crate) async fn replay(
        &self,
        org: &OwnerId,
        id: Option<&str>,
        now: Timestamp,
    ) -> Result<(u64, Vec<(NodeId, OwnerId)>), StoreError> {
        self.writer.write(Replay { org: org.clone(), id: id.map(str::to_owned), now }).await
    }

    /// Drops an organisation's dead letters; says how many.
    pub(crate) async fn drop_dead_letters(&self, org: &OwnerId) -> Result<u64, StoreError> {
        self.writer.write(Drop(org.clone())).await
    }
}

/// Gives an event up.
struct Bury {
    id: String,
    reason: String,
    now: Timestamp,
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
struct Replay {
    org: OwnerId,
    id: Option<String>,
    now: Timestamp,
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

    fn changed((replayed, _): &Self::Answer) -> bool {
        *replayed > 0
    }
}

/// Drops an organisation's dead letters.
struct Drop(OwnerId);

impl Write for Drop {
    type Answer = u64;

    async fn run(&self, connection: &mut AnyConnection) -> Result<u64, StoreError> {
        let dropped = sqlx::query("DELETE FROM dead_letters WHERE org_id = $1")
            .bind(self.0.as_str())
            .execute(connection)
            .await?;
        Ok(dropped.rows_affected())
    }

    fn changed(dropped: &u64) -> bool {
        *dropped > 0
    }
}
