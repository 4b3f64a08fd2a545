//! Requests with an `Idempotency-Key`: which are being answered, and what was answered.

use std::time::Duration;

use aio_protocol::time::Timestamp;
use sqlx::{AnyConnection, Row};

use super::{database::Store, error::StoreError, writer::Write};

/// How long a key stands for its request.
const KEPT: Duration = Duration::from_secs(86_400);

/// What is known of a request with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reserved {
    /// Nothing; from now on it is being answered.
    New,
    /// It came before, as the request with this fingerprint, and was answered so; `None` while it
    /// is not answered.
    Known { fingerprint: String, answer: Option<KeptAnswer> },
}

/// An answer that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptAnswer {
    pub status: u16,
    pub body: String,
}

impl Store {
    /// Takes a key for a request, unless it stands for one already.
    pub(crate) async fn reserve_key(
        &self,
        id: &str,
        fingerprint: &str,
        now: Timestamp,
    ) -> Result<Reserved, StoreError> {
        let (id, fingerprint) = (id.to_owned(), fingerprint.to_owned());
        self.writer.write(Reserve { id, fingerprint, now }).await
    }

    /// Keeps the answer of a request whose key was taken, or gives the key back where there is none to keep.
    pub(crate) async fn answer_key(&self, id: &str, answer: Option<KeptAnswer>) -> Result<(), StoreError> {
        self.writer.write(Answer { id: id.to_owned(), answer }).await
    }
}

struct Reserve {
    id: String,
    fingerprint: String,
    now: Timestamp,
}

impl Write for Reserve {
    type Answer = Reserved;

    async fn run(&self, connection: &mut AnyConnection) -> Result<Reserved, StoreError> {
        sqlx::query("DELETE FROM idempotency WHERE at < $1")
            .bind(self.now.minus(KEPT).as_millis())
            .execute(&mut *connection)
            .await?;
        let known = sqlx::query("SELECT fingerprint, status, body FROM idempotency WHERE id = $1")
            .bind(&self.id)
            .fetch_optional(&mut *connection)
            .await?;
        if let Some(row) = known {
            let status: Option<i64> = row.try_get("status")?;
            let body: Option<String> = row.try_get("body")?;
            let answer = status
                .zip(body)
                .map(|(status, body)| KeptAnswer { status: u16::try_from(status).unwrap_or(200), body });
            return Ok(Reserved::Known { fingerprint: row.try_get("fingerprint")?, answer });
        }
        sqlx::query("INSERT INTO idempotency (id, fingerprint, at) VALUES ($1, $2, $3)")
            .bind(&self.id)
            .bind(&self.fingerprint)
            .bind(self.now.as_millis())
            .execute(connection)
            .await?;
        Ok(Reserved::New)
    }
}

struct Answer {
    id: String,
    answer: Option<KeptAnswer>,
}

impl Write for Answer {
    type Answer = ();

    async fn run(&self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        match &self.answer {
            Some(KeptAnswer { status, body }) => {
                sqlx::query("UPDATE idempotency SET status = $2, body = $3 WHERE id = $1")
                    .bind(&self.id)
                    .bind(i64::from(*status))
                    .bind(body)
                    .execute(connection)
                    .await?
            }
            None => {
                sqlx::query("DELETE FROM idempotency WHERE id = $1")
                    .bind(&self.id)
                    .execute(connection)
                    .await?
            }
        };
        Ok(())
    }
}
