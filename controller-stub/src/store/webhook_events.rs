//! Events that webhooks are owed. Rows are written by `nodes`, in the transaction of the change that owes
//! them, and every attempt is written down in the transaction of what follows from it.

use std::time::Duration;

use aio_protocol::{
    event::{EventKind, NodeEvent},
    ids::NodeId,
    time::Timestamp,
};
use sqlx::{AnyConnection, Row, any::AnyRow};
use uuid::Uuid;

use super::{
    database::Store,
    dead_letters::{DeadLetter, DeadLetterPage},
    error::StoreError,
    outbox::{Undelivered, read as read_undelivered},
    rows::{Window, corrupt, count, node_id, signed, time},
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
    /// The nodes whose events these webhooks wait for. Looks one event of each up, however many wait.
    pub(crate) async fn webhooks_waiting(
        &self,
        webhooks: &[Uuid],
    ) -> Result<Vec<(Uuid, NodeId)>, StoreError> {
        let rows = sqlx::query(
            "WITH RECURSIVE lanes (webhook, node) AS ( \
             SELECT value, (SELECT MIN(node_id) FROM webhook_events WHERE webhook_id = value AND died_at IS NULL) \
             FROM json_each($1) \
             UNION ALL \
             SELECT webhook, (SELECT MIN(node_id) FROM webhook_events WHERE webhook_id = webhook AND node_id > node \
             AND died_at IS NULL) FROM lanes WHERE node IS NOT NULL) \
             SELECT node, webhook FROM lanes WHERE node IS NOT NULL",
        )
        .bind(serde_json::to_string(webhooks).unwrap_or_default())
        .fetch_all(&mut *self.pool.take().await?)
        .await?;
        let read = |row: &AnyRow| {
            Ok((row.try_get::<String, _>(1)?.parse().map_err(corrupt("webhook_id"))?, node_id(row)?))
        };
        rows.iter().map(read).collect()
    }

    /// Gives the oldest events up that a webhook waits for, at most `limit`, for this reason; says how many.
    pub(crate) async fn give_oldest_up(
        &self,
        webhook: Uuid,
        limit: u64,
        now: Timestamp,
        reason: String,
    ) -> Result<u64, StoreError> {
        self.writer.write(GiveUp { webhook: webhook.to_string(), limit, now, reason }).await
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

struct GiveUp {
    webhook: String,
    limit: u64,
    now: Timestamp,
    reason: String,
}

impl Write for GiveUp {
    type Answer = u64;

    async fn run(&self, connection: &mut AnyConnection) -> Result<u64, StoreError> {
        // Ids begin with their time.
        let given_up = sqlx::query(
            "UPDATE webhook_events SET died_at = $3, reason = $4 WHERE webhook_id = $1 AND id IN \
             (SELECT id FROM webhook_events WHERE webhook_id = $1 AND died_at IS NULL ORDER BY id LIMIT $2)",
        )
        .bind(&self.webhook)
        .bind(signed(self.limit))
        .bind(self.now.as_millis())
        .bind(&self.reason)
        .execute(connection)
        .await?;
        Ok(given_up.rows_affected())
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing;

    async fn owe(store: &Store, webhook: Uuid, id: &str, node: &NodeId) {
        let row = "INSERT INTO webhook_events (webhook_id, id, node_id, org_id, seq, kind, body, created_at, \
                   attempts, tried_millis, next_attempt_at) VALUES ($1, $2, $3, 'acme', 1, 'k', '{}', 1, 0, 0, 1)";
        sqlx::query(row)
            .bind(webhook.to_string())
            .bind(id)
            .bind(node.as_str())
            .execute(&mut *store.pool.take().await.unwrap())
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn the_oldest_events_are_given_up_and_nobody_waits_for_them_or_for_those_of_other_webhooks() {
        let data = tempfile::tempdir().unwrap();
        let store = testing::store(data.path()).await;
        let (full, other) = (Uuid::now_v7(), Uuid::now_v7());
        let nodes = [1, 2].map(|byte| NodeId::from_bytes([byte; 12]));
        for (webhook, id, node) in [
            (full, "evt_3", &nodes[1]),
            (full, "evt_1", &nodes[0]),
            (full, "evt_2", &nodes[0]),
            (full, "evt_4", &nodes[1]),
            (other, "evt_1", &nodes[0]),
        ] {
            owe(&store, webhook, id, node).await;
        }
        let waiting = async || {
            let mut waiting = store.webhooks_waiting(&[full]).await.unwrap();
            waiting.sort();
            waiting
        };
        assert_eq!(waiting().await, [(full, nodes[0].clone()), (full, nodes[1].clone())]);
        let give_up = async |limit| {
            store.give_oldest_up(full, limit, Timestamp::from_millis(7), "too many".to_owned()).await.unwrap()
        };
        assert_eq!((give_up(1).await, give_up(1).await), (1, 1));
        assert_eq!(waiting().await, [(full, nodes[1].clone())]);
        let left = store.undelivered_to_webhook(full, &nodes[1], 9).await.unwrap();
        assert_eq!(left.into_iter().map(|event| event.id).collect::<Vec<_>>(), ["evt_3", "evt_4"]);
        let owed = store.owed_to_webhooks(None).await.unwrap();
        let dead: u64 = owed.iter().map(|(.., owed)| owed.dead).sum();
        assert_eq!(dead, 2);
        assert_eq!(give_up(9).await, 2);
        assert_eq!(store.webhooks_waiting(&[]).await.unwrap(), []);
    }
}
