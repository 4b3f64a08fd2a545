//! Events that webhooks are owed. Rows are written by `nodes`, in the transaction of the change that owes
//! them, and every attempt is written down in the transaction of what follows from it.

use std::time::Duration;

use aio_protocol::{
    event::{EventKind, NodeEvent},
    ids::{NodeId, OwnerId},
    time::Timestamp,
};
use sqlx::{AnyConnection, Row, any::AnyRow};
use uuid::Uuid;

use super::{
    database::Store,
    dead_letters::{DeadLetter, DeadLetterPage},
    error::StoreError,
    outbox::{Undelivered, read as read_undelivered},
    rows::{Window, corrupt, count, signed, time},
    webhooks::WebhookAttempt,
    writer::Write,
};

/// What follows from an attempt.
#[derive(Debug, Clone)]
pub(crate) enum Follows {
    /// The event goes.
    Delivered,
    /// It has been tried for so long, and is tried again then.
    Postponed(Duration, Timestamp),
    /// It is given up.
    Dead(String),
    /// It was a test, which nobody keeps.
    Nothing,
}

impl Store {
    /// Which webhooks wait for events of which nodes.
    pub(crate) async fn webhooks_waiting(&self) -> Result<Vec<(Uuid, NodeId, OwnerId)>, StoreError> {
        let rows = sqlx::query(
            "SELECT DISTINCT node_id, org_id, webhook_id FROM webhook_events WHERE died_at IS NULL",
        )
        .fetch_all(&mut *self.pool.take().await?)
        .await?;
        let read = |row: &AnyRow| {
            let (node, org) = super::rows::owned_node(row)?;
            Ok((row.try_get::<String, _>(2)?.parse().map_err(corrupt("webhook_id"))?, node, org))
        };
        rows.iter().map(read).collect()
    }

    /// The oldest events of a node that a webhook waits for, in their order.
    pub(crate) async fn undelivered_to_webhook(
        &self,
        webhook: Uuid,
        node: &NodeId,
        limit: u64,
    ) -> Result<Vec<Undelivered>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, body, created_at, attempts, tried_millis, last_attempt_at, next_attempt_at \
             FROM webhook_events WHERE webhook_id = $1 AND node_id = $2 AND died_at IS NULL ORDER BY seq LIMIT $3",
        )
        .bind(webhook.to_string())
        .bind(node.as_str())
        .bind(signed(limit))
        .fetch_all(&mut *self.pool.take().await?)
        .await?;
        rows.iter().map(read_undelivered).collect()
    }

    /// Writes down an attempt, and what follows from it.
    pub(crate) async fn note_webhook_attempt(
        &self,
        webhook: Uuid,
        attempt: WebhookAttempt,
        follows: Follows,
    ) -> Result<(), StoreError> {
        self.writer.write(Note { webhook: webhook.to_string(), attempt, follows }).await
    }

    /// A page of a webhook's dead letters, the latest first.
    pub(crate) async fn webhook_dead_letters(
        &self,
        webhook: Uuid,
        window: Window,
    ) -> Result<DeadLetterPage, StoreError> {
        let rows = sqlx::query(
            "SELECT id, body, created_at, attempts, died_at, reason FROM webhook_events WHERE webhook_id = $1 \
             AND died_at IS NOT NULL ORDER BY died_at DESC, id DESC LIMIT $2 OFFSET $3",
        )
        .bind(webhook.to_string())
        .bind(signed(window.limit))
        .bind(signed(window.offset))
        .fetch_all(&mut *self.lists.take().await?)
        .await?;
        let letter = |row: &AnyRow| {
            let event: NodeEvent = serde_json::from_str(row.try_get("body")?).map_err(corrupt("body"))?;
            Ok(DeadLetter {
                id: row.try_get("id")?,
                event,
                noticed_at: time(row, "created_at")?,
                attempts: u32::try_from(row.try_get::<i64, _>("attempts")?).unwrap_or(u32::MAX),
                died_at: time(row, "died_at")?,
                reason: row.try_get::<Option<String>, _>("reason")?.unwrap_or_default(),
            })
        };
        let letters = rows.iter().map(letter).collect::<Result<_, StoreError>>()?;
        let total = sqlx::query("SELECT COUNT(died_at) FROM webhook_events WHERE webhook_id = $1")
            .bind(webhook.to_string())
            .fetch_one(&mut *self.lists.take().await?)
            .await?;
        Ok(DeadLetterPage { letters, total: count(&total, 0)? })
    }

    /// Puts a webhook's dead letters back into its queue, and says how many. What waits is due at once.
    pub(crate) async fn replay_to_webhook(&self, webhook: Uuid, now: Timestamp) -> Result<u64, StoreError> {
        self.writer.write(Replay { webhook: webhook.to_string(), now }).await
    }

    /// Drops a webhook's dead letters, and says how many.
    pub(crate) async fn drop_dead_letters_of_webhook(&self, webhook: Uuid) -> Result<u64, StoreError> {
        self.writer.write(Drop(webhook)).await
    }
}

/// Adds an event to the queue of each webhook of the node's organisation that is told of it, in the
/// transaction of `connection`.
pub(super) async fn add(
    connection: &mut AnyConnection,
    (id, kind): (&str, EventKind),
    node: &NodeId,
    seq: i64,
    body: &str,
    noticed_at: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO webhook_events (webhook_id, id, node_id, org_id, seq, kind, body, created_at, attempts, \
         tried_millis, next_attempt_at) \
         SELECT webhooks.id, $2, $1, webhooks.org_id, $3, $4, $5, $6, 0, 0, $6 \
         FROM webhooks JOIN nodes ON nodes.org_id = webhooks.org_id WHERE nodes.id = $1 \
         AND (webhooks.kinds = '' OR webhooks.kinds LIKE '%,' || $4 || ',%')",
    )
    .bind(node.as_str())
    .bind(id)
    .bind(seq)
    .bind(kind.as_str())
    .bind(body)
    .bind(noticed_at.as_millis())
    .execute(connection)
    .await?;
    Ok(())
}

struct Note {
    webhook: String,
    attempt: WebhookAttempt,
    follows: Follows,
}

impl Write for Note {
    type Answer = ();

    async fn run(&self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        let Self { webhook, attempt: WebhookAttempt { event, kind, at, millis, outcome, answer }, follows } =
            self;
        // A webhook that was removed meanwhile has no log.
        sqlx::query(
            "INSERT INTO webhook_attempts (id, webhook_id, event_id, kind, at, millis, outcome, answer) \
             SELECT $2, id, $3, CASE WHEN $4 <> '' THEN $4 ELSE COALESCE((SELECT kind FROM webhook_events \
             WHERE webhook_id = $1 AND id = $3), '') END, $5, $6, $7, $8 FROM webhooks WHERE id = $1",
        )
        .bind(webhook)
        .bind(Uuid::now_v7().to_string())
        .bind(event)
        .bind(kind)
        .bind(at.as_millis())
        .bind(signed(*millis))
        .bind(outcome)
        .bind(answer)
        .execute(&mut *connection)
        .await?;
        match follows {
            Follows::Nothing => {}
            Follows::Delivered => {
                sqlx::query("DELETE FROM webhook_events WHERE webhook_id = $1 AND id = $2")
                    .bind(webhook)
                    .bind(event)
                    .execute(connection)
                    .await?;
            }
            Follows::Postponed(tried_for, due) => {
                sqlx::query(
                    "UPDATE webhook_events SET attempts = attempts + 1, last_attempt_at = $3, next_attempt_at = $4, \
                     tried_millis = $5, reason = $6 WHERE webhook_id = $1 AND id = $2",
                )
                .bind(webhook)
                .bind(event)
                .bind(at.as_millis())
                .bind(due.as_millis())
                .bind(signed(u64::try_from(tried_for.as_millis()).unwrap_or(u64::MAX)))
                .bind(answer)
                .execute(connection)
                .await?;
            }
            Follows::Dead(reason) => {
                sqlx::query(
                    "UPDATE webhook_events SET attempts = attempts + 1, last_attempt_at = $3, died_at = $3, \
                     reason = $4 WHERE webhook_id = $1 AND id = $2",
                )
                .bind(webhook)
                .bind(event)
                .bind(at.as_millis())
                .bind(reason)
                .execute(connection)
                .await?;
            }
        }
        Ok(())
    }
}

struct Replay {
    webhook: String,
    now: Timestamp,
}

impl Write for Replay {
    type Answer = u64;

    async fn run(&self, connection: &mut AnyConnection) -> Result<u64, StoreError> {
        let replayed = sqlx::query(
            "UPDATE webhook_events SET died_at = NULL, reason = NULL, attempts = 0, tried_millis = 0, \
             last_attempt_at = NULL, next_attempt_at = $2 WHERE webhook_id = $1 AND died_at IS NOT NULL",
        )
        .bind(&self.webhook)
        .bind(self.now.as_millis())
        .execute(&mut *connection)
        .await?;
        // Whoever delivers begins anew.
        sqlx::query("UPDATE webhooks SET revision = revision + 1 WHERE id = $1")
            .bind(&self.webhook)
            .execute(connection)
            .await?;
        Ok(replayed.rows_affected())
    }
}

struct Drop(Uuid);

impl Write for Drop {
    type Answer = u64;

    async fn run(&self, connection: &mut AnyConnection) -> Result<u64, StoreError> {
        let dropped = sqlx::query("DELETE FROM webhook_events WHERE webhook_id = $1 AND died_at IS NOT NULL")
            .bind(self.0.to_string())
            .execute(connection)
            .await?;
        Ok(dropped.rows_affected())
    }

    fn changed(dropped: &u64) -> bool {
        *dropped > 0
    }
}
