//! What was issued: which token, for whom, until when, and what it promised to install.

use std::collections::BTreeMap;

use aio_protocol::{
    ids::{NodeId, OwnerId},
    release::{Checksum, Platform, ReleaseVersion},
    time::Timestamp,
};
use sqlx::{AnyConnection, Row, any::AnyRow};

use super::{
    database::Store,
    error::StoreError,
    record::Subject,
    rows::{Window, corrupt, count, from_json, json, optional_time, signed, time},
    writer::Write,
};

/// A token that was issued; not the token itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IssuedToken {
    pub jti: String,
    pub node: NodeId,
    pub sha256: String,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
    /// The release that it installs.
    pub version: ReleaseVersion,
    /// What was published of that release when the token was made.
    pub checksums: BTreeMap<Platform, Checksum>,
    /// Who minted it: `user:<id>`, `controller` or `command line`; not known of old ones.
    pub minted_by: Option<String>,
}

/// A token of a node, as far as it may be told.
#[derive(Debug, Clone)]
pub(crate) struct KnownToken {
    pub issued: IssuedToken,
    pub revoked_at: Option<Timestamp>,
}

impl Store {
    pub(crate) async fn add_token(&self, token: IssuedToken) -> Result<(), StoreError> {
        self.writer.write(Add(token)).await
    }

    pub(crate) async fn token(&self, jti: &str) -> Result<Option<IssuedToken>, StoreError> {
        let row = sqlx::query("SELECT * FROM tokens WHERE jti = $1")
            .bind(jti)
            .fetch_optional(&mut *self.pool.take().await?)
            .await?;
        row.as_ref().map(read).transpose()
    }

    pub(crate) async fn newest_token(&self, node: &NodeId) -> Result<Option<IssuedToken>, StoreError> {
        let row = sqlx::query("SELECT * FROM tokens WHERE node_id = $1 ORDER BY issued_at DESC, jti LIMIT 1")
            .bind(node.as_str())
            .fetch_optional(&mut *self.pool.take().await?)
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// A page of a node's tokens, newest first, and how many there are.
    pub(crate) async fn tokens_of(
        &self,
        node: &NodeId,
        window: Window,
    ) -> Result<(Vec<KnownToken>, u64), StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM tokens WHERE node_id = $1 ORDER BY issued_at DESC, jti LIMIT $2 OFFSET $3",
        )
        .bind(node.as_str())
        .bind(signed(window.limit))
        .bind(signed(window.offset))
        .fetch_all(&mut *self.pool.take().await?)
        .await?;
        let total = sqlx::query("SELECT COUNT(*) FROM tokens WHERE node_id = $1").bind(node.as_str());
        let total = count(&total.fetch_one(&mut *self.pool.take().await?).await?, 0)?;
        let known =
            |row| Ok(KnownToken { issued: read(row)?, revoked_at: optional_time(row, "revoked_at")? });
        Ok((rows.iter().map(known).collect::<Result<_, StoreError>>()?, total))
    }

    /// How many nodes of an organisation are in service and accept tokens that were issued before `before`.
    pub(crate) async fn nodes_with_tokens_before(
        &self,
        org: &OwnerId,
        before: Timestamp,
    ) -> Result<u64, StoreError> {
        let row =
            sqlx::query(sqlx::AssertSqlSafe(format!("SELECT COUNT(*) FROM nodes WHERE {OLDER_TOKENS}")))
                .bind(org.as_str())
                .bind(before.as_millis())
                .fetch_one(&mut *self.lists.take().await?)
                .await?;
        count(&row, 0)
    }

    /// Revokes every token of an organisation's nodes that was issued before `before`, by whomever,
    /// and says how many nodes that concerns. Workers that are connected are closed, whichever
    /// token they came with.
    pub(crate) async fn revoke_issued_before(
        &self,
        org: &OwnerId,
        before: Timestamp,
        at: Timestamp,
    ) -> Result<u64, StoreError> {
        self.writer.write(RevokeBefore { org: org.clone(), before, at }).await
    }

    /// Revokes every token of a node that was issued until `at`, by whomever, and keeps the one
    /// that takes their place.
    pub(crate) async fn revoke_tokens(
        &self,
        node: &NodeId,
        at: Timestamp,
        successor: Option<IssuedToken>,
    ) -> Result<(), StoreError> {
        self.writer.write(Revoke { node: node.clone(), at, successor: successor.map(Add) }).await
    }
}

/// Keeps what was issued.
pub(super) struct Add(pub IssuedToken);

impl Write for Add {
    type Answer = ();

    async fn run(&self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        let Self(token) = self;
        sqlx::query(
            "INSERT INTO tokens (jti, node_id, sha256, issued_at, expires_at, release_version, release_checksums, minted_by) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(&token.jti)
        .bind(token.node.as_str())
        .bind(&token.sha256)
        .bind(token.issued_at.as_millis())
        .bind(token.expires_at.as_millis())
        .bind(token.version.to_string())
        .bind(json("release_checksums", &token.checksums)?)
        .bind(token.minted_by.as_deref())
        .execute(connection)
        .await?;
        Ok(())
    }

    fn subjects(&self) -> Vec<Subject> {
        vec![Subject { node: self.0.node.clone(), target: self.0.jti.clone() }]
    }
}

/// Nodes of an organisation in service that accept tokens from before a time.
const OLDER_TOKENS: &str = "org_id = $1 AND tokens_not_before < $2 - 1 AND status <> 'inactive'";

struct RevokeBefore {
    org: OwnerId,
    before: Timestamp,
    at: Timestamp,
}

impl Write for RevokeBefore {
    type Answer = u64;

    fn is_urgent(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut AnyConnection) -> Result<u64, StoreError> {
        sqlx::query(
            "UPDATE tokens SET revoked_at = $3 WHERE revoked_at IS NULL AND issued_at < $2 \
             AND node_id IN (SELECT id FROM nodes WHERE org_id = $1)",
        )
        .bind(self.org.as_str())
        .bind(self.before.as_millis())
        .bind(self.at.as_millis())
        .execute(&mut *connection)
        .await?;
        // What was issued until the mark is refused, so it is the last moment before.
        let statement = format!("UPDATE nodes SET tokens_not_before = $2 - 1 WHERE {OLDER_TOKENS}");
        let marked = sqlx::query(sqlx::AssertSqlSafe(statement))
            .bind(self.org.as_str())
            .bind(self.before.as_millis())
            .execute(connection)
            .await?;
        Ok(marked.rows_affected())
    }

    fn changed(nodes: &u64) -> bool {
        *nodes > 0
    }
}

/// Revokes all that a node has, and keeps what takes their place.
struct Revoke {
    node: NodeId,
    at: Timestamp,
    successor: Option<Add>,
}

impl Write for Revoke {
    type Answer = ();

    fn is_urgent(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        revoke_all(connection, &self.node, self.at).await?;
        match &self.successor {
            Some(token) => token.run(connection).await,
            None => Ok(()),
        }
    }

    fn subjects(&self) -> Vec<Subject> {
        self.successor.as_ref().map_or_else(Vec::new, Add::subjects)
    }
}

/// Revokes every token of a node that was issued until `at`, in the transaction of `connection`.
pub(super) async fn revoke_all(
    connection: &mut AnyConnection,
    node: &NodeId,
    at: Timestamp,
) -> Result<(), StoreError> {
    for statement in [
        "UPDATE tokens SET revoked_at = $2 WHERE node_id = $1 AND revoked_at IS NULL",
        // Moved on even by a clock that was set back: whoever is connected is told apart by it.
        "UPDATE nodes SET tokens_not_before = CASE WHEN tokens_not_before < $2 THEN $2 ELSE tokens_not_before + 1 END \
             WHERE id = $1",
    ] {
        sqlx::query(statement).bind(node.as_str()).bind(at.as_millis()).execute(&mut *connection).await?;
    }
    Ok(())
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
        checksums: from_json("release_checksums", &text("release_checksums")?)?,
        minted_by: row.try_get("minted_by")?,
    })
}
