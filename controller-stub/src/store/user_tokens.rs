//! When the tokens of users end that were made on the command line to last. The tokens themselves are kept
//! nowhere.

use std::time::Duration;

use aio_protocol::{ids::OwnerId, node::Owner, time::Timestamp};
use sqlx::{AnyConnection, Row, any::AnyRow};

use super::{
    database::Store,
    error::StoreError,
    rows::{corrupt, time},
    writer::Write,
};

/// A token that ended so long ago is of no interest any more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(7 * 86_400);

impl Store {
    /// Notes that a user has a token, unless one that ends later is known.
    pub(crate) async fn note_user_token(
        &self,
        whose: &Owner,
        issued_at: Timestamp,
        expires_at: Timestamp,
    ) -> Result<(), StoreError> {
        self.writer.write(Note { whose: whose.clone(), issued_at, expires_at }).await
    }

    /// Users whose last token ends before `soon` with less than a sixth of its life left, or has ended in the
    /// last week, and when.
    pub(crate) async fn ending_user_tokens(
        &self,
        now: Timestamp,
        soon: Timestamp,
    ) -> Result<Vec<(OwnerId, OwnerId, Timestamp)>, StoreError> {
        let rows = sqlx::query(
            "SELECT org_id, user_id, expires_at FROM user_tokens WHERE expires_at < $1 AND expires_at > $2 \
             AND (expires_at - $3) * 6 < expires_at - issued_at",
        )
        .bind(soon.as_millis())
        .bind(now.minus(FORGOTTEN_AFTER).as_millis())
        .bind(now.as_millis())
        .fetch_all(&mut *self.lists.take().await?)
        .await?;
        let read = |row: &AnyRow| {
            let org = row.try_get::<String, _>(0)?.parse().map_err(corrupt("org_id"))?;
            let user = row.try_get::<String, _>(1)?.parse().map_err(corrupt("user_id"))?;
            Ok((org, user, time(row, "expires_at")?))
        };
        rows.iter().map(read).collect()
    }
}

struct Note {
    whose: Owner,
    issued_at: Timestamp,
    expires_at: Timestamp,
}

impl Write for Note {
    type Answer = ();

    async fn run(&self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        let Self { whose: Owner { org_id, user_id }, issued_at, expires_at } = self;
        sqlx::query("DELETE FROM user_tokens WHERE expires_at < $1")
            .bind(issued_at.minus(FORGOTTEN_AFTER).as_millis())
            .execute(&mut *connection)
            .await?;
        sqlx::query(
            "INSERT INTO user_tokens (org_id, user_id, issued_at, expires_at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (org_id, user_id) DO UPDATE SET issued_at = excluded.issued_at, \
             expires_at = excluded.expires_at WHERE user_tokens.expires_at < excluded.expires_at",
        )
        .bind(org_id.as_str())
        .bind(user_id.as_str())
        .bind(issued_at.as_millis())
        .bind(expires_at.as_millis())
        .execute(connection)
        .await?;
        Ok(())
    }
}
