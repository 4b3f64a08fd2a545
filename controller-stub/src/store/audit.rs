//! The audit trail of what people did. A store that acts on somebody's behalf writes the record in the
//! transaction of the change, by itself: whoever adds a change cannot forget it.

use std::sync::Arc;

use aio_protocol::{
    ids::{NodeId, OwnerId},
    time::Timestamp,
};
use sqlx::{AnyConnection, Row, any::AnyRow};

use super::{
    database::Store,
    error::StoreError,
    record::{AuditEntry, Pending, insert},
    rows::{corrupt, from_json, signed, time},
    writer::Write,
};

/// A record of the trail.
#[derive(Debug, Clone)]
pub(crate) struct AuditRecord {
    pub seq: i64,
    pub at: Timestamp,
    pub actor: String,
    pub roles: Vec<String>,
    pub address: Option<String>,
    pub action: String,
    pub node: Option<NodeId>,
    pub target: Option<String>,
    /// `done`, `unchanged`, or the code of the refusal.
    pub outcome: String,
    pub detail: Option<serde_json::Value>,
}

/// Which records to list, newest first; what is not said is no condition.
#[derive(Debug, Clone)]
pub(crate) struct AuditQuery {
    pub org: OwnerId,
    pub node: Option<NodeId>,
    pub actor: Option<String>,
    pub action: Option<String>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// Those with a smaller number.
    pub before: Option<i64>,
    pub limit: u64,
}

impl Store {
    /// This store for one request: its first change is recorded with `entry`, both or neither.
    pub(crate) fn on_behalf(&self, entry: AuditEntry) -> Self {
        let pending = Pending { entry: Arc::new(entry), written: Arc::default() };
        Self { writer: self.writer.recording(pending), ..self.clone() }
    }

    /// Records what came of the request which this store acts for, unless its change has recorded it.
    pub(crate) async fn record_outcome(&self, outcome: &'static str) -> Result<(), StoreError> {
        let Some(pending) = self.writer.pending().filter(|it| !it.is_written()).cloned() else {
            return Ok(());
        };
        self.writer.silent().write(Alone { pending: pending.clone(), outcome }).await?;
        pending.commit();
        Ok(())
    }

    /// A page of an organisation's audit trail, newest first.
    pub(crate) async fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditRecord>, StoreError> {
        let _share = self.shares.take(&query.org).await;
        let rows = sqlx::query(
            "SELECT * FROM audit WHERE org_id = $1 AND seq < $2 AND ($3 = '' OR node_id = $3) AND ($4 = '' OR actor = $4) \
             AND ($5 = '' OR action = $5) AND at >= $6 AND at < $7 ORDER BY seq DESC LIMIT $8",
        )
        .bind(query.org.as_str())
        .bind(query.before.unwrap_or(i64::MAX))
        .bind(query.node.as_ref().map_or("", NodeId::as_str))
        .bind(query.actor.as_deref().unwrap_or_default())
        .bind(query.action.as_deref().unwrap_or_default())
        .bind(query.since.map_or(0, Timestamp::as_millis))
        .bind(query.until.map_or(i64::MAX, Timestamp::as_millis))
        .bind(signed(query.limit))
        .fetch_all(&mut *self.lists.take().await?)
        .await?;
        rows.iter().map(read).collect()
    }
}

struct Alone {
    pending: Pending,
    outcome: &'static str,
}

impl Write for Alone {
    type Answer = ();

    async fn run(&self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        insert(connection, &self.pending.entry, None, self.outcome).await
    }
}

fn read(row: &AnyRow) -> Result<AuditRecord, StoreError> {
    let optional = |column| row.try_get::<Option<String>, _>(column);
    Ok(AuditRecord {
        seq: row.try_get("seq")?,
        at: time(row, "at")?,
        actor: row.try_get("actor")?,
        roles: from_json("roles", &row.try_get::<String, _>("roles")?)?,
        address: optional("address")?,
        action: row.try_get("action")?,
        node: optional("node_id")?.map(|id| id.parse().map_err(corrupt("node_id"))).transpose()?,
        target: optional("target")?,
        outcome: row.try_get("outcome")?,
        detail: optional("detail")?.map(|text| from_json("detail", &text)).transpose()?,
    })
}
