//! The audit trail, as it is read. `nodes` writes it, in the transaction of the move.

use aio_protocol::{ids::NodeId, node::NodeStatus};
use sqlx::{AnyPool, Row, any::AnyRow};

use super::{
    StoreError, Transition, TransitionPage, Window,
    sql::{corrupt, signed, time},
};

pub(super) async fn page(
    pool: &AnyPool,
    node: &NodeId,
    window: Window,
) -> Result<TransitionPage, StoreError> {
    let rows =
        sqlx::query("SELECT * FROM transitions WHERE node_id = $1 ORDER BY seq DESC LIMIT $2 OFFSET $3")
            .bind(node.as_str())
            .bind(signed(window.limit))
            .bind(signed(window.offset))
            .fetch_all(pool)
            .await?;
    let count = sqlx::query("SELECT COUNT(*) FROM transitions WHERE node_id = $1")
        .bind(node.as_str())
        .fetch_one(pool)
        .await?;
    Ok(TransitionPage {
        transitions: rows.iter().map(read).collect::<Result<_, _>>()?,
        total: u64::try_from(count.try_get::<i64, _>(0)?).unwrap_or(0),
    })
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
