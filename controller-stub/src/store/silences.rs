//! Silences: which alarms are not told, until when and why.

use aio_protocol::{
    ids::{NodeId, OwnerId},
    time::Timestamp,
};
use sqlx::{AnyConnection, Row, any::AnyRow};
use uuid::Uuid;

use super::{
    database::Store,
    error::StoreError,
    rows::{corrupt, count, time},
    writer::Write,
};
use crate::labels::Selector;

/// A time in which alarms of a node, or of the nodes with a label, are not told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Silence {
    pub id: Uuid,
    pub org: OwnerId,
    pub of: Silenced,
    pub until: Timestamp,
    pub reason: String,
    pub created_at: Timestamp,
    pub created_by: String,
}

/// What a silence names.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Silenced {
    Node(NodeId),
    Label(String),
}

impl Silence {
    /// Whether it is of a node with these labels, as they are kept.
    pub(crate) fn covers(&self, node: &NodeId, labels: &str) -> bool {
        match &self.of {
            Silenced::Node(named) => named == node,
            Silenced::Label(label) => {
                label.parse::<Selector>().is_ok_and(|selector| labels.contains(&selector.in_json()))
            }
        }
    }
}

impl Store {
    /// The organisation's silences that hold at `now`, or all, the next to end first.
    pub(crate) async fn silences(
        &self,
        org: Option<&OwnerId>,
        now: Timestamp,
    ) -> Result<Vec<Silence>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM silences WHERE until > $1 AND ($2 = '' OR org_id = $2) ORDER BY until, id",
        )
        .bind(now.as_millis())
        .bind(org.map_or("", OwnerId::as_str))
        .fetch_all(&mut *self.lists.take().await?)
        .await?;
        rows.iter().map(read).collect()
    }

    /// Keeps a silence, unless its organisation has `most` that hold already; says whether it did.
    pub(crate) async fn add_silence(&self, silence: Silence, most: u64) -> Result<bool, StoreError> {
        self.writer.write(AddSilence { silence, most }).await
    }

    /// Ends an organisation's silence; says whether it held.
    pub(crate) async fn end_silence(
        &self,
        org: &OwnerId,
        id: Uuid,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.writer.write(EndSilence { org: org.clone(), id, now }).await
    }
}

pub(super) fn read(row: &AnyRow) -> Result<Silence, StoreError> {
    let node = row.try_get::<Option<String>, _>("node_id")?;
    let label = row.try_get::<Option<String>, _>("label")?.unwrap_or_default();
    Ok(Silence {
        id: row.try_get::<String, _>("id")?.parse().map_err(corrupt("id"))?,
        org: row.try_get::<String, _>("org_id")?.parse().map_err(corrupt("org_id"))?,
        of: match node {
            Some(node) => Silenced::Node(node.parse().map_err(corrupt("node_id"))?),
            None => Silenced::Label(label),
        },
        until: time(row, "until")?,
        reason: row.try_get("reason")?,
        created_at: time(row, "created_at")?,
        created_by: row.try_get("created_by")?,
    })
}

struct AddSilence {
    silence: Silence,
    most: u64,
}

impl Write for AddSilence {
    type Answer = bool;

    async fn run(&self, connection: &mut AnyConnection) -> Result<bool, StoreError> {
        let Silence { id, org, of, until, reason, created_at, created_by } = &self.silence;
        let there = sqlx::query("SELECT COUNT(*) FROM silences WHERE org_id = $1 AND until > $2")
            .bind(org.as_str())
            .bind(created_at.as_millis())
            .fetch_one(&mut *connection)
            .await?;
        if count(&there, 0)? >= self.most {
            return Ok(false);
        }
        let (node, label) = match of {
            Silenced::Node(node) => (Some(node.as_str()), None),
            Silenced::Label(label) => (None, Some(label.as_str())),
        };
        sqlx::query(
            "INSERT INTO silences (id, org_id, node_id, label, until, reason, created_at, created_by) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(id.to_string())
        .bind(org.as_str())
        .bind(node)
        .bind(label)
        .bind(until.as_millis())
        .bind(reason)
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

struct EndSilence {
    org: OwnerId,
    id: Uuid,
    now: Timestamp,
}

impl Write for EndSilence {
    type Answer = bool;

    async fn run(&self, connection: &mut AnyConnection) -> Result<bool, StoreError> {
        let ended =
            sqlx::query("UPDATE silences SET until = $3 WHERE id = $1 AND org_id = $2 AND until > $3")
                .bind(self.id.to_string())
                .bind(self.org.as_str())
                .bind(self.now.as_millis())
                .execute(connection)
                .await?;
        Ok(ended.rows_affected() > 0)
    }

    fn changed(ended: &bool) -> bool {
        *ended
    }
}
