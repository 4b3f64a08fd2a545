//! The audit trail, as it is read. `nodes` writes it, in the transaction of the move.

use aio_protocol::{ids::NodeId, node::NodeStatus, time::Timestamp};
use sqlx::{Row, any::AnyRow};

use super::{
    database::Store,
    error::StoreError,
    rows::{Window, corrupt, count, signed, time},
};

/// A row of the audit trail: a move that a node made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transition {
    pub from: Option<NodeStatus>,
    pub to: NodeStatus,
    pub cause: String,
    pub actor: String,
    pub at: Timestamp,
}

/// A page of an audit trail.
#[derive(Debug, Clone)]
pub(crate) struct TransitionPage {
    pub transitions: Vec<Transition>,
    /// How many there are in all.
    pub total: u64,
}

impl Store {
    /// A page of a node's audit trail, newest first.
    pub(crate) async fn transitions(
        &self,
        node: &NodeId,
        window: Window,
    ) -> Result<TransitionPage, StoreError> {
        let rows =
            sqlx::query("SELECT * FROM transitions WHERE node_id = $1 ORDER BY seq DESC LIMIT $2 OFFSET $3")
                .bind(node.as_str())
                .bind(signed(window.limit))
                .bind(signed(window.offset))
                .fetch_all(&mut *self.lists.take().await?)
                .await?;
        let total = sqlx::query("SELECT COUNT(*) FROM transitions WHERE node_id = $1")
            .bind(node.as_str())
            .fetch_one(&mut *self.lists.take().await?)
            .await?;
        Ok(TransitionPage {
            transitions: rows.iter().map(read).collect::<Result<_, _>>()?,
            total: count(&total, 0)?,
        })
    }
}

fn read(row: &AnyRow) -> Result<Transition, StoreError> {
    let from = row.try_get::<Option<String>, _>("from_status")?;
    Ok(Transition {
        from: from.map(|text| status("from_status", text)).transpose()?,
        to: status("to_status", row.try_get("to_status")?)?,
        cause: row.try_get("cause")?,
        actor: row.try_get("actor")?,
        at: time(row, "at")?,
    })
}

fn status(what: &'static str, text: String) -> Result<NodeStatus, StoreError> {
    serde_json::from_value(serde_json::Value::String(text)).map_err(corrupt(what))
}
