//! Tokens that were offered in place of others. An offer is open until it is taken or revoked, and a node has
//! one open offer at most.

use aio_protocol::{ids::NodeId, time::Timestamp};
use sqlx::{AnyConnection, Row};

use super::{
    database::Store,
    error::StoreError,
    tokens::{self, IssuedToken},
    writer::Write,
};

/// A token that is offered in place of another.
#[derive(Debug, Clone)]
pub(crate) struct Replacement {
    pub issued: IssuedToken,
    /// The `jti` of the other.
    pub replaces: String,
    pub replaced_issued_at: Timestamp,
}

/// What was offered in place of a token so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct History {
    pub offers: u32,
    /// When the last offer was made.
    pub last: Option<Timestamp>,
    /// Whether the worker rejected the last one.
    pub rejected: bool,
}

impl Store {
    /// Whether a token of a node was replaced by another that its worker then used.
    pub(crate) async fn was_replaced(&self, node: &NodeId, jti: &str) -> Result<bool, StoreError> {
        let replaced = sqlx::query(
            "SELECT 1 FROM tokens WHERE replaces = $2 AND node_id = $1 AND taken_at IS NOT NULL LIMIT 1",
        )
        .bind(node.as_str())
        .bind(jti)
        .fetch_optional(&mut *self.pool.take().await?)
        .await?;
        Ok(replaced.is_some())
    }

    /// What was offered in place of a token so far.
    pub(crate) async fn offers_for(&self, jti: &str) -> Result<History, StoreError> {
        let offers = sqlx::query(
            "SELECT issued_at, rejection FROM tokens WHERE replaces = $1 ORDER BY issued_at DESC",
        )
        .bind(jti)
        .fetch_all(&mut *self.pool.take().await?)
        .await?;
        let Some(last) = offers.first() else { return Ok(History::default()) };
        Ok(History {
            offers: u32::try_from(offers.len()).unwrap_or(u32::MAX),
            last: Some(Timestamp::from_millis(last.try_get("issued_at")?)),
            rejected: last.try_get::<Option<String>, _>("rejection")?.is_some(),
        })
    }

    /// Keeps an offer and revokes the one before it; refuses when the token that it replaces was revoked.
    pub(crate) async fn offer_token(&self, replacement: Replacement) -> Result<bool, StoreError> {
        self.writer.write(Offer(replacement)).await
    }

    /// Notes that an offer was taken, and revokes the token that it replaces. Says whether the
    /// offer still stood.
    pub(crate) async fn take_offer(&self, jti: &str, at: Timestamp) -> Result<bool, StoreError> {
        self.writer.write(Take { jti: jti.to_owned(), at }).await
    }

    /// Notes that an offer was rejected, and revokes it. Says whether it stood.
    pub(crate) async fn reject_offer(
        &self,
        node: &NodeId,
        jti: &str,
        reason: &str,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let reject = Reject { node: node.clone(), jti: jti.to_owned(), reason: reason.to_owned(), at };
        self.writer.write(reject).await
    }
}

const OPEN: &str = "replaces IS NOT NULL AND taken_at IS NULL AND revoked_at IS NULL";

/// Keeps an offer and revokes the one before it, unless the token that it replaces was revoked.
/// Says whether it did.
struct Offer(Replacement);

impl Write for Offer {
    type Answer = bool;

    async fn run(&self, connection: &mut AnyConnection) -> Result<bool, StoreError> {
        let Replacement { issued, replaces, replaced_issued_at } = &self.0;
        // The same question that opens a connection; asked again here, so that no token outlives a
        // revocation by an offer.
        let valid = sqlx::query(
            "SELECT 1 FROM nodes LEFT JOIN tokens ON tokens.jti = $2 AND tokens.node_id = nodes.id \
             WHERE nodes.id = $1 AND nodes.status <> 'inactive' AND ((tokens.jti IS NOT NULL AND tokens.revoked_at IS NULL) \
             OR (tokens.jti IS NULL AND nodes.tokens_not_before < $3))",
        )
        .bind(issued.node.as_str())
        .bind(replaces)
        .bind(replaced_issued_at.as_millis())
        .fetch_optional(&mut *connection)
        .await?;
        if valid.is_none() {
            return Ok(false);
        }
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "UPDATE tokens SET revoked_at = $2 WHERE node_id = $1 AND {OPEN}"
        )))
        .bind(issued.node.as_str())
        .bind(issued.issued_at.as_millis())
        .execute(&mut *connection)
        .await?;
        tokens::Add(issued.clone()).run(connection).await?;
        sqlx::query("UPDATE tokens SET replaces = $2 WHERE jti = $1")
            .bind(&issued.jti)
            .bind(replaces)
            .execute(&mut *connection)
            .await?;
        Ok(true)
    }
}

/// Notes that an open offer was taken, and revokes the token that it replaces. Says whether it was open.
struct Take {
    jti: String,
    at: Timestamp,
}

impl Write for Take {
    type Answer = bool;

    async fn run(&self, connection: &mut AnyConnection) -> Result<bool, StoreError> {
        let taken = sqlx::query(sqlx::AssertSqlSafe(format!(
            "UPDATE tokens SET taken_at = $2 WHERE jti = $1 AND {OPEN}"
        )))
        .bind(&self.jti)
        .bind(self.at.as_millis())
        .execute(&mut *connection)
        .await?;
        if taken.rows_affected() == 0 {
            return Ok(false);
        }
        for statement in [
            // A token that another issuer made with our key has no row that could say that it is revoked.
            "INSERT INTO tokens (jti, node_id, sha256, issued_at, expires_at, release_version, release_checksums) \
             SELECT replaces, node_id, '', issued_at, expires_at, release_version, release_checksums FROM tokens \
             WHERE jti = $1 AND taken_at = $2 ON CONFLICT (jti) DO NOTHING",
            "UPDATE tokens SET revoked_at = $2 WHERE revoked_at IS NULL \
             AND jti = (SELECT offer.replaces FROM tokens AS offer WHERE offer.jti = $1)",
        ] {
            sqlx::query(statement)
                .bind(&self.jti)
                .bind(self.at.as_millis())
                .execute(&mut *connection)
                .await?;
        }
        Ok(true)
    }
}

/// Notes that an open offer of a node was rejected, which revokes it. Says whether there was one.
struct Reject {
    node: NodeId,
    jti: String,
    reason: String,
    at: Timestamp,
}

impl Write for Reject {
    type Answer = bool;

    async fn run(&self, connection: &mut AnyConnection) -> Result<bool, StoreError> {
        let rejected = sqlx::query(sqlx::AssertSqlSafe(format!(
            "UPDATE tokens SET revoked_at = $3, rejection = $4 WHERE jti = $1 AND node_id = $2 AND {OPEN}"
        )))
        .bind(&self.jti)
        .bind(self.node.as_str())
        .bind(self.at.as_millis())
        .bind(&self.reason)
        .execute(connection)
        .await?;
        Ok(rejected.rows_affected() > 0)
    }
}
