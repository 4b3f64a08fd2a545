//! Events that the built-in NOTI received, in the order in which it did.

use aio_protocol::{event::NodeEvent, time::Timestamp};
use sqlx::{AnyPool, Row};

use super::{
    EventQuery, Received, Since, StoreError,
    sql::{BEGIN, corrupt, signed},
};

pub(super) async fn receive(
    pool: &AnyPool,
    id: &str,
    event: &NodeEvent,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let body = serde_json::to_string(event).map_err(corrupt("body"))?;
    let mut transaction = pool.begin_with(BEGIN).await?;
    // `WHERE TRUE` tells the parser that `ON` begins no join.
    let inserted = sqlx::query(
        "INSERT INTO inbox (id, seq, org_id, node_id, happened_at, received_at, body) \
         SELECT $1, COALESCE(MAX(seq), 0) + 1, $2, $3, $4, $5, $6 FROM inbox WHERE TRUE ON CONFLICT (id) DO NOTHING",
    )
    .bind(id)
    .bind(event.owner().org_id.as_str())
    .bind(event.node_id().as_str())
    .bind(event.timestamp.as_millis())
    .bind(now.as_millis())
    .bind(body)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(inserted.rows_affected() == 1)
}

pub(super) async fn list(pool: &AnyPool, query: &EventQuery) -> Result<Vec<Received>, StoreError> {
    let (after_event, from_time) = match &query.since {
        None => ("", 0),
        Some(Since::Event(id)) => (id.as_str(), 0),
        Some(Since::Time(time)) => ("", time.as_millis()),
    };
    let rows = sqlx::query(
        "SELECT id, body FROM inbox WHERE org_id = $1 AND ($2 = '' OR node_id = $2) AND happened_at >= $3 \
         AND seq > COALESCE((SELECT seq FROM inbox WHERE id = $4 AND org_id = $1), 0) ORDER BY seq LIMIT $5",
    )
    .bind(query.org.as_str())
    .bind(query.node.as_ref().map_or("", |node| node.as_str()))
    .bind(from_time)
    .bind(after_event)
    .bind(signed(query.limit))
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            let event = serde_json::from_str(row.try_get("body")?).map_err(corrupt("body"))?;
            Ok(Received { id: row.try_get("id")?, event })
        })
        .collect()
}
