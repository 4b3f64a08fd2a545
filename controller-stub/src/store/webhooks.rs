//! Webhooks of organisations: where they are, what they are told, and the secrets that sign it. What each is
//! owed stands in `webhook_events`.

use aio_protocol::{ids::OwnerId, time::Timestamp};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{AnyConnection, Row, any::AnyRow};
use uuid::Uuid;

use super::{
    database::Store,
    error::StoreError,
    rows::{corrupt, count, optional_time, signed, time},
    writer::Write,
};

/// A webhook.
#[derive(Debug, Clone)]
pub(crate) struct Webhook {
    pub id: Uuid,
    pub org: OwnerId,
    /// It may hold a secret.
    pub url: String,
    pub description: String,
    /// The types of event that it is told of; all when empty. A later version may have known others.
    pub kinds: Vec<String>,
    pub secret: SecretString,
    /// The secret that also signs, and until when.
    pub previous: Option<(SecretString, Timestamp)>,
    pub created_at: Timestamp,
    pub created_by: String,
    /// Another after every change.
    pub revision: i64,
}

impl Store {
    /// Every webhook, or an organisation's, in the order in which they were made.
    pub(crate) async fn webhooks(&self, org: Option<&OwnerId>) -> Result<Vec<Webhook>, StoreError> {
        let rows =
            sqlx::query("SELECT * FROM webhooks WHERE ($1 = '' OR org_id = $1) ORDER BY created_at, id")
                .bind(org.map_or("", OwnerId::as_str))
                .fetch_all(&mut *self.lists.take().await?)
                .await?;
        rows.iter().map(read).collect()
    }

    /// A webhook of an organisation.
    pub(crate) async fn webhook(&self, org: &OwnerId, id: Uuid) -> Result<Option<Webhook>, StoreError> {
        let row = sqlx::query("SELECT * FROM webhooks WHERE id = $1 AND org_id = $2")
            .bind(id.to_string())
            .bind(org.as_str())
            .fetch_optional(&mut *self.pool.take().await?)
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// Keeps a new webhook, unless its organisation has `most` already; says whether it did.
    pub(crate) async fn add_webhook(&self, webhook: Webhook, most: u64) -> Result<bool, StoreError> {
        self.writer.write(Add { webhook, most }).await
    }

    /// Keeps a webhook that was changed, if nobody has changed or removed it since it was read; says whether
    /// it did.
    pub(crate) async fn change_webhook(&self, webhook: Webhook) -> Result<bool, StoreError> {
        self.writer.write(Change(webhook)).await
    }

    /// Removes a webhook with all that it was owed; says whether it was there.
    pub(crate) async fn remove_webhook(&self, org: &OwnerId, id: Uuid) -> Result<bool, StoreError> {
        self.writer.write(Remove { org: org.clone(), id: id.to_string() }).await
    }
}

/// Types of event as the column holds them.
fn listed(kinds: &[String]) -> String {
    if kinds.is_empty() { String::new() } else { format!(",{},", kinds.join(",")) }
}

fn read(row: &AnyRow) -> Result<Webhook, StoreError> {
    let kinds = row.try_get::<String, _>("kinds")?;
    let previous = row.try_get::<Option<String>, _>("previous_secret")?;
    Ok(Webhook {
        id: row.try_get::<String, _>("id")?.parse().map_err(corrupt("id"))?,
        org: row.try_get::<String, _>("org_id")?.parse().map_err(corrupt("org_id"))?,
        url: row.try_get("url")?,
        description: row.try_get("description")?,
        kinds: kinds.split(',').filter(|kind| !kind.is_empty()).map(str::to_owned).collect(),
        secret: row.try_get::<String, _>("secret")?.into(),
        previous: previous.map(SecretString::from).zip(optional_time(row, "previous_until")?),
        created_at: time(row, "created_at")?,
        created_by: row.try_get("created_by")?,
        revision: row.try_get("revision")?,
    })
}

struct Add {
    webhook: Webhook,
    most: u64,
}

impl Write for Add {
    type Answer = bool;

    async fn run(&self, connection: &mut AnyConnection) -> Result<bool, StoreError> {
        let Webhook { id, org, url, description, kinds, secret, created_at, created_by, .. } = &self.webhook;
        let there = sqlx::query("SELECT COUNT(*) FROM webhooks WHERE org_id = $1")
            .bind(org.as_str())
            .fetch_one(&mut *connection)
            .await?;
        if count(&there, 0)? >= self.most {
            return Ok(false);
        }
        sqlx::query(
            "INSERT INTO webhooks (id, org_id, url, description, kinds, secret, created_at, created_by, revision) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 1)",
        )
        .bind(id.to_string())
        .bind(org.as_str())
        .bind(url)
        .bind(description)
        .bind(listed(kinds))
        .bind(secret.expose_secret())
        .bind(created_at.as_millis())
        .bind(created_by)
        .execute(connection)
        .await?;
        Ok(true)
    }

    fn changed(added: &bool) -> bool {
        *added
    }
}

struct Change(Webhook);

impl Write for Change {
    type Answer = bool;

    async fn run(&self, connection: &mut AnyConnection) -> Result<bool, StoreError> {
        let Webhook { id, org, url, description, kinds, secret, previous, revision, .. } = &self.0;
        let changed = sqlx::query(
            "UPDATE webhooks SET url = $4, description = $5, kinds = $6, secret = $7, previous_secret = $8, \
             previous_until = $9, revision = revision + 1 WHERE id = $1 AND org_id = $2 AND revision = $3",
        )
        .bind(id.to_string())
        .bind(org.as_str())
        .bind(revision)
        .bind(url)
        .bind(description)
        .bind(listed(kinds))
        .bind(secret.expose_secret())
        .bind(previous.as_ref().map(|(secret, _)| secret.expose_secret()))
        .bind(previous.as_ref().map(|(_, until)| until.as_millis()))
        .execute(connection)
        .await?;
        Ok(changed.rows_affected() > 0)
    }

    fn changed(changed: &bool) -> bool {
        *changed
    }
}

struct Remove {
    org: OwnerId,
    id: String,
}

impl Write for Remove {
    type Answer = bool;

    fn is_urgent(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut AnyConnection) -> Result<bool, StoreError> {
        let removed = sqlx::query("DELETE FROM webhooks WHERE id = $1 AND org_id = $2")
            .bind(&self.id)
            .bind(self.org.as_str())
            .execute(&mut *connection)
            .await?;
        if removed.rows_affected() == 0 {
            return Ok(false);
        }
        for statement in [
            "DELETE FROM webhook_events WHERE webhook_id = $1",
            "DELETE FROM webhook_attempts WHERE webhook_id = $1",
        ] {
            sqlx::query(statement).bind(&self.id).execute(&mut *connection).await?;
        }
        Ok(true)
    }

    fn changed(removed: &bool) -> bool {
        *removed
    }
}

/// How much a webhook is owed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Owed {
    pub waiting: u64,
    /// Events that were given up.
    pub dead: u64,
}

impl Store {
    /// How much the webhooks of an organisation, or all, are owed; those that are owed nothing are absent.
    pub(crate) async fn owed_to_webhooks(
        &self,
        org: Option<&OwnerId>,
    ) -> Result<Vec<(Uuid, OwnerId, Owed)>, StoreError> {
        let rows = sqlx::query(
            "SELECT webhook_id, org_id, COUNT(*), COUNT(died_at) FROM webhook_events \
             WHERE ($1 = '' OR org_id = $1) GROUP BY webhook_id, org_id",
        )
        .bind(org.map_or("", OwnerId::as_str))
        .fetch_all(&mut *self.lists.take().await?)
        .await?;
        let owed = |row: &AnyRow| {
            let (all, dead) = (count(row, 2)?, count(row, 3)?);
            let id = row.try_get::<String, _>(0)?.parse().map_err(corrupt("webhook_id"))?;
            let org = row.try_get::<String, _>(1)?.parse().map_err(corrupt("org_id"))?;
            Ok((id, org, Owed { waiting: all.saturating_sub(dead), dead }))
        };
        rows.iter().map(owed).collect()
    }

    /// The latest attempts at a webhook, or the latest of its dead letters' rows, as many as a page shows.
    pub(crate) async fn webhook_attempts(
        &self,
        webhook: Uuid,
        limit: u64,
    ) -> Result<Vec<WebhookAttempt>, StoreError> {
        let rows = sqlx::query(
            "SELECT event_id, kind, at, millis, outcome, answer FROM webhook_attempts WHERE webhook_id = $1 \
             ORDER BY id DESC LIMIT $2",
        )
        .bind(webhook.to_string())
        .bind(signed(limit))
        .fetch_all(&mut *self.lists.take().await?)
        .await?;
        let read = |row: &AnyRow| {
            Ok(WebhookAttempt {
                event: row.try_get("event_id")?,
                kind: row.try_get("kind")?,
                at: time(row, "at")?,
                millis: u64::try_from(row.try_get::<i64, _>("millis")?).unwrap_or(0),
                outcome: row.try_get("outcome")?,
                answer: row.try_get("answer")?,
            })
        };
        rows.iter().map(read).collect()
    }
}

/// What came of an attempt at a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WebhookAttempt {
    pub event: String,
    /// The type of the event.
    pub kind: String,
    pub at: Timestamp,
    pub millis: u64,
    /// `delivered`, `postponed` or `dead`.
    pub outcome: String,
    pub answer: String,
}
