//! Events that the built-in NOTI received, in the order in which it did.

use aio_protocol::{event::NodeEvent, time::Timestamp};
use sqlx::{AnyConnection, AnyPool, Row};

use super::{
    EventQuery, Received, Since, StoreError,
    sql::{corrupt, signed},
    writer::Write,
};

/// Keeps an event that was received, and says whether it is new.
pub(super) struct Receive {
    id: String,
    org: String,
    node: String,
    happened_at: Timestamp,
    received_at: Timestamp,
    body: String,
}

impl Receive {
    pub(super) fn new(id: &str, event: &NodeEvent, now: Timestamp) -> Result<Self, StoreError> {
        Ok(Self {
            id: id.to_owned(),
            org: event.owner().org_id.to_string(),
            node: event.node_id().to_string(),
            happened_at: event.timestamp,
            received_at: now,
            body: serde_json::to_string(event).map_err(corrupt("body"))?,
        })
    }
}

impl Write for Receive {
    type Answer = bool;

    async fn run(&self, connection: &mut AnyConnection) -> Result<bool, StoreError> {
        // `WHERE TRUE` tells the parser that `ON` begins no join.
        let inserted = sqlx::query(
            "INSERT INTO inbox (id, seq, org_id, node_id, happened_at, received_at, body) \
             SELECT $1, COALESCE(MAX(seq), 0) + 1, $2, $3, $4, $5, $6 FROM inbox WHERE TRUE ON CONFLICT (id) DO NOTHING",
        )
        .bind(&self.id)
        .bind(&self.org)
        .bind(&self.node)
        .bind(self.happened_at.as_millis())
        .bind(self.received_at.as_millis())
        .bind(&self.body)
        .execute(connection)
        .await?;
        Ok(inserted.rows_affected() == 1)
    }
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
