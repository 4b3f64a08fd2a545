//! The record of what somebody asked for, while its change is under way: written with the change,
//! or not at all.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use aio_protocol::{
    ids::{NodeId, OwnerId},
    text,
    time::Timestamp,
};
use sqlx::AnyConnection;

use super::{error::StoreError, rows::json};

/// The outcome of what changed something.
const DONE: &str = "done";

/// The longest target and detail of a record, in bytes.
const MAX_TARGET_BYTES: usize = 128;
const MAX_DETAIL_BYTES: usize = 2048;

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

/// An entry that waits for its change.
#[derive(Clone)]
pub(super) struct Pending {
    pub entry: Arc<AuditEntry>,
    pub written: Arc<AtomicBool>,
}

/// What a change concerns, where the change knows it better than whoever asked for it.
pub(super) struct Subject {
    pub node: NodeId,
    pub target: String,
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

pub(super) async fn insert(
    connection: &mut AnyConnection,
    entry: &AuditEntry,
    subject: Option<Subject>,
    outcome: &str,
) -> Result<(), StoreError> {
    let (node, target) = match subject {
        Some(Subject { node, target }) => (Some(node), Some(target)),
        None => (entry.node.clone(), entry.target.clone()),
    };
    // Whoever asks for much leaves no more behind than others.
    let target = target.map(|target| text::clean(&target, MAX_TARGET_BYTES));
    let detail = entry.detail.as_ref().map(ToString::to_string).map(|detail| match detail.len() {
        0..=MAX_DETAIL_BYTES => detail,
        bytes => serde_json::json!({ "omittedBytes": bytes }).to_string(),
    });
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
    .bind(detail)
    .execute(connection)
    .await?;
    Ok(())
}
