//! The audit trail of what people did. A store that acts on somebody's behalf writes the record in the transaction of the change, by itself:
//! whoever adds a change cannot forget it.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use aio_protocol::{
    ids::{NodeId, OwnerId},
    time::Timestamp,
};
use sqlx::{AnyConnection, Row, any::AnyRow};

use super::{
    database::Store,
    error::StoreError,
    rows::{corrupt, from_json, json, signed, time},
    writer::Write,
};

/// The outcome of what changed something.
const DONE: &str = "done";

/// Who asks for a change, and for which.
#[derive(Debug, Clone)]
pub(crate) struct AuditEntry {
    pub at: Timestamp,
    pub org: OwnerId,
    /// `user:<id>` or `command line`.
    pub actor: String,
    pub roles: Vec<String>,
    pub address: Option<IpAddr>,
    /// What, e.g. `token.issue`.
    pub action: &'static str,
    pub node: Option<NodeId>,
    /// What else it concerns: a token's `jti`, an event, a name.
    pub target: Option<String>,
    /// What was asked for; never a secret.
    pub detail: Option<serde_json::Value>,
}

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

/// An entry that waits for its change.
#[derive(Clone)]
pub(super) struct Pending {
    entry: Arc<AuditEntry>,
    written: Arc<AtomicBool>,
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
        .fetch_all(&self.lists)
        .await?;
        rows.iter().map(read).collect()
    }
}

impl Pending {
    pub(super) fn is_written(&self) -> bool {
        self.written.load(Ordering::Acquire)
    }

    /// Notes that the record is committed.
    pub(super) fn commit(&self) {
        self.written.store(true, Ordering::Release);
    }

    /// Writes the record, or one for each subject that the change names.
    pub(super) async fn write(
        &self,
        connection: &mut AnyConnection,
        subjects: Vec<Subject>,
    ) -> Result<(), StoreError> {
        if subjects.is_empty() {
            return insert(connection, &self.entry, None, DONE).await;
        }
        for subject in subjects {
            insert(connection, &self.entry, Some(subject), DONE).await?;
        }
        Ok(())
    }
}

/// What a change concerns, where the change knows it better than whoever asked for it.
pub(super) struct Subject {
    pub node: NodeId,
    pub target: String,
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

async fn insert(
    connection: &mut AnyConnection,
    entry: &AuditEntry,
    subject: Option<Subject>,
    outcome: &str,
) -> Result<(), StoreError> {
    let (node, target) = match subject {
        Some(Subject { node, target }) => (Some(node), Some(target)),
        None => (entry.node.clone(), entry.target.clone()),
    };
    sqlx::query(
        "INSERT INTO audit (seq, at, org_id, actor, roles, address, action, node_id, target, outcome, detail) \
         SELECT COALESCE(MAX(seq), 0) + 1, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10 FROM audit",
    )
    .bind(entry.at.as_millis())
    .bind(entry.org.as_str())
    .bind(&entry.actor)
    .bind(json("roles", &entry.roles)?)
    .bind(entry.address.map(|address| address.to_string()))
    .bind(entry.action)
    .bind(node.map(String::from))
    .bind(target)
    .bind(outcome)
    .bind(entry.detail.as_ref().map(ToString::to_string))
    .execute(connection)
    .await?;
    Ok(())
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
