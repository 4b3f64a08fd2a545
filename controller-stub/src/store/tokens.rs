//! What was issued: which token, for whom, until when, and what it promised to install.

use aio_protocol::{ids::NodeId, time::Timestamp};
use sqlx::{AnyConnection, AnyPool, Row, any::AnyRow};

use super::{
    IssuedToken, StoreError,
    sql::{corrupt, time},
    writer::Write,
};

/// Keeps what was issued.
pub(super) struct Add(pub IssuedToken);

impl Write for Add {
    type Answer = ();

    async fn run(&self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        let Self(token) = self;
        sqlx::query(
            "INSERT INTO tokens (jti, node_id, sha256, issued_at, expires_at, release_version, release_checksums) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(&token.jti)
        .bind(token.node.as_str())
        .bind(&token.sha256)
        .bind(token.issued_at.as_millis())
        .bind(token.expires_at.as_millis())
        .bind(token.version.to_string())
        .bind(serde_json::to_string(&token.checksums).map_err(corrupt("release_checksums"))?)
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// Withdraws all that a node has, and keeps what takes their place.
pub(super) struct Revoke {
    pub node: NodeId,
    pub at: Timestamp,
    pub successor: Option<Add>,
}

impl Write for Revoke {
    type Answer = ();

    async fn run(&self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        for statement in [
            "UPDATE tokens SET revoked_at = $2 WHERE node_id = $1 AND revoked_at IS NULL",
            // Moved on even by a clock that was set back: whoever is connected is told apart by it.
            "UPDATE nodes SET tokens_not_before = CASE WHEN tokens_not_before < $2 THEN $2 ELSE tokens_not_before + 1 END \
             WHERE id = $1",
        ] {
            sqlx::query(statement)
                .bind(self.node.as_str())
                .bind(self.at.as_millis())
                .execute(&mut *connection)
                .await?;
        }
        match &self.successor {
            Some(token) => token.run(connection).await,
            None => Ok(()),
        }
    }
}

pub(super) async fn find(pool: &AnyPool, jti: &str) -> Result<Option<IssuedToken>, StoreError> {
    let row = sqlx::query("SELECT * FROM tokens WHERE jti = $1").bind(jti).fetch_optional(pool).await?;
    row.as_ref().map(read).transpose()
}

pub(super) async fn newest(pool: &AnyPool, node: &NodeId) -> Result<Option<IssuedToken>, StoreError> {
    let row = sqlx::query("SELECT * FROM tokens WHERE node_id = $1 ORDER BY issued_at DESC, jti LIMIT 1")
        .bind(node.as_str())
        .fetch_optional(pool)
        .await?;
    row.as_ref().map(read).transpose()
}

fn read(row: &AnyRow) -> Result<IssuedToken, StoreError> {
    let text = |column| row.try_get::<String, _>(column);
    Ok(IssuedToken {
        jti: text("jti")?,
        node: text("node_id")?.parse().map_err(corrupt("node_id"))?,
        sha256: text("sha256")?,
        issued_at: time(row, "issued_at")?,
        expires_at: time(row, "expires_at")?,
        version: text("release_version")?.parse().map_err(corrupt("release_version"))?,
        checksums: serde_json::from_str(&text("release_checksums")?).map_err(corrupt("release_checksums"))?,
    })
}
