//! Events that the built-in NOTI received, in the order in which it did: `seq` grows by one with each and is
//! never used twice. They are dropped from the old end; the newest of each organisation stays, so that
//! whoever has it knows that nothing was missed.

use aio_protocol::{
    event::NodeEvent,
    ids::{NodeId, OwnerId},
    time::Timestamp,
};
use sqlx::{AnyConnection, Row, any::AnyRow};

use super::{
    database::Store,
    error::StoreError,
    rows::{corrupt, json, signed, time},
    writer::Write,
};

/// Which events to list.
#[derive(Debug, Clone)]
pub(crate) struct EventQuery {
    pub org: OwnerId,
    pub node: Option<NodeId>,
    /// Those with a larger number.
    pub after: i64,
    pub limit: u64,
}

/// Where a list of events begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Since {
    /// With the oldest that is kept.
    Beginning,
    /// With the next that comes.
    Now,
    /// After the event with this id.
    Event(String),
    /// With the first that happened at this time or later.
    Time(Timestamp),
}

impl Since {
    /// A time, or else an event's id.
    pub(crate) fn parse(text: String) -> Self {
        Timestamp::from_query(&text).map(Self::Time).unwrap_or(Self::Event(text))
    }

    /// Whether this could name an event: `evt_…` as our outbox names them, `msg_…` as others do, or
    /// a UUID. Whatever is kept can be named, too; this tells an event that is gone from a text
    /// that never was one.
    pub(crate) fn is_plausible(&self) -> bool {
        let Self::Event(id) = self else { return true };
        let prefixed = id.split_once('_').is_some_and(|(prefix, rest)| {
            !prefix.is_empty() && !rest.is_empty() && prefix.bytes().all(|b| b.is_ascii_alphabetic())
        });
        let plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        plain && (prefixed || uuid::Uuid::try_parse(id).is_ok())
    }
}

/// An event that the built-in NOTI received.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Received {
    pub id: String,
    /// Its place in the order in which events were received.
    pub seq: i64,
    pub event: NodeEvent,
}

impl Store {
    /// Keeps an event that the built-in NOTI received; says whether it is new.
    pub(crate) async fn receive(
        &self,
        id: &str,
        event: &NodeEvent,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.writer.write(Receive::new(id, event, now)?).await
    }

    /// When the newest event was received.
    pub(crate) async fn newest_event(&self) -> Result<Option<Timestamp>, StoreError> {
        let newest = sqlx::query("SELECT received_at FROM inbox ORDER BY seq DESC LIMIT 1")
            .fetch_optional(&mut *self.pool.take().await?)
            .await?;
        newest.map(|row| time(&row, "received_at")).transpose()
    }

    /// The place of the newest event; 0 before there is one.
    pub(crate) async fn newest_place(&self) -> Result<i64, StoreError> {
        let newest = sqlx::query("SELECT COALESCE(MAX(seq), 0) FROM inbox")
            .fetch_one(&mut *self.pool.take().await?)
            .await?;
        Ok(newest.try_get(0)?)
    }

    /// Behind which number a list of an organisation's events begins; none when the event to begin
    /// behind is not there.
    pub(crate) async fn event_position(
        &self,
        org: &OwnerId,
        since: &Since,
    ) -> Result<Option<i64>, StoreError> {
        let found = match since {
            Since::Beginning => return Ok(Some(0)),
            Since::Now => {
                sqlx::query("SELECT COALESCE(MAX(seq), 0) FROM inbox WHERE org_id = $1").bind(org.as_str())
            }
            Since::Event(id) => {
                sqlx::query("SELECT seq FROM inbox WHERE org_id = $1 AND id = $2").bind(org.as_str()).bind(id)
            }
            // The first that happened then or later; behind the last when there is none.
            Since::Time(time) => sqlx::query(
                "SELECT COALESCE((SELECT MIN(seq) - 1 FROM inbox WHERE org_id = $1 AND happened_at >= $2), \
                 (SELECT MAX(seq) FROM inbox WHERE org_id = $1), 0)",
            )
            .bind(org.as_str())
            .bind(time.as_millis()),
        };
        Ok(found
            .fetch_optional(&mut *self.pool.take().await?)
            .await?
            .map(|row| row.try_get(0))
            .transpose()?)
    }

    /// An organisation's newest events before one of them, newest first.
    #[cfg(feature = "pages")]
    pub(crate) async fn newest_events(
        &self,
        org: &OwnerId,
        before: Option<i64>,
        limit: u64,
    ) -> Result<Vec<Received>, StoreError> {
        let _share = self.shares.take(org).await;
        let rows = sqlx::query(
            "SELECT id, seq, body FROM inbox WHERE org_id = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3",
        )
        .bind(org.as_str())
        .bind(before.unwrap_or(i64::MAX))
        .bind(signed(limit))
        .fetch_all(&mut *self.lists.take().await?)
        .await?;
        rows.iter().map(read).collect()
    }

    /// Received events, oldest first.
    pub(crate) async fn events(&self, query: &EventQuery) -> Result<Vec<Received>, StoreError> {
        let _share = self.shares.take(&query.org).await;
        let rows = sqlx::query(
            "SELECT id, seq, body FROM inbox WHERE org_id = $1 AND ($2 = '' OR node_id = $2) AND seq > $3 \
             ORDER BY seq LIMIT $4",
        )
        .bind(query.org.as_str())
        .bind(query.node.as_ref().map_or("", |node| node.as_str()))
        .bind(query.after)
        .bind(signed(query.limit))
        .fetch_all(&mut *self.lists.take().await?)
        .await?;
        rows.iter().map(read).collect()
    }
}

fn read(row: &AnyRow) -> Result<Received, StoreError> {
    let event = serde_json::from_str(row.try_get("body")?).map_err(corrupt("body"))?;
    Ok(Received { id: row.try_get("id")?, seq: row.try_get("seq")?, event })
}

/// Keeps an event that was received, and says whether it is new.
struct Receive {
    id: String,
    org: String,
    node: String,
    happened_at: Timestamp,
    received_at: Timestamp,
    body: String,
}

impl Receive {
    fn new(id: &str, event: &NodeEvent, now: Timestamp) -> Result<Self, StoreError> {
        Ok(Self {
            id: id.to_owned(),
            org: event.owner().org_id.to_string(),
            node: event.node_id().to_string(),
            happened_at: event.timestamp,
            received_at: now,
            body: json("body", event)?,
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

/// Drops the oldest events that were received before `before`, at most `limit`, and says how many.
/// What was received later than `now` was so by a clock that was wrong, and goes with the next that
/// is old enough.
pub(super) struct Prune {
    pub before: Timestamp,
    pub now: Timestamp,
    pub limit: u64,
}

/// Whether an event's organisation has a newer one.
const SUCCEEDED: &str =
    "EXISTS (SELECT 1 FROM inbox AS newer WHERE newer.org_id = inbox.org_id AND newer.seq > inbox.seq)";

impl Write for Prune {
    type Answer = u64;

    async fn run(&self, connection: &mut AnyConnection) -> Result<u64, StoreError> {
        let oldest = format!("SELECT seq, received_at FROM inbox WHERE {SUCCEEDED} ORDER BY seq LIMIT $1");
        let oldest = sqlx::query(sqlx::AssertSqlSafe(oldest))
            .bind(signed(self.limit))
            .fetch_all(&mut *connection)
            .await?;
        // Only a whole beginning goes, even when the clock was set back once: a list never has a
        // gap in its middle.
        let mut last = None;
        for row in &oldest {
            let received_at = time(row, "received_at")?;
            if received_at > self.now {
                continue;
            }
            if received_at >= self.before {
                break;
            }
            last = Some(row.try_get::<i64, _>("seq")?);
        }
        let Some(last) = last else { return Ok(0) };
        let prune = format!("DELETE FROM inbox WHERE seq <= $1 AND {SUCCEEDED}");
        Ok(sqlx::query(sqlx::AssertSqlSafe(prune)).bind(last).execute(connection).await?.rows_affected())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::{Expirable, testing};

    async fn store() -> (Store, tempfile::TempDir) {
        let data = tempfile::tempdir().unwrap();
        (testing::store(data.path()).await, data)
    }

    fn event(org: &str, at: i64) -> NodeEvent {
        let node = NodeId::from_bytes([1; 12]);
        serde_json::from_value(serde_json::json!({"type": "node.registered", "timestamp": Timestamp::from_millis(at),
            "data": {"nodeId": node, "nodeName": "gpu", "status": "pending", "owner": {"orgId": org, "userId": "u"}}}))
        .unwrap()
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn org(name: &str) -> OwnerId {
        name.parse().unwrap()
    }

    async fn ids(store: &Store, name: &str, since: Since) -> Option<Vec<String>> {
        let after = store.event_position(&org(name), &since).await.unwrap()?;
        let query = EventQuery { org: org(name), node: None, after, limit: 1000 };
        Some(store.events(&query).await.unwrap().into_iter().map(|it| it.id).collect())
    }

    #[tokio::test]
    async fn what_is_old_is_dropped_in_small_batches_and_the_newest_of_each_organisation_stays() {
        let (store, _data) = store().await;
        for number in 0..10 {
            store.receive(&format!("a{number}"), &event("a", number), at(number)).await.unwrap();
        }
        store.receive("b", &event("b", 0), at(0)).await.unwrap();
        let mut dropped = Vec::new();
        loop {
            match store.expire(Expirable::Events, at(1_000), at(9_000), 4).await.unwrap() {
                0 => break,
                some => dropped.push(some),
            }
        }
        assert_eq!(dropped, [4, 4, 1]);
        assert_eq!(ids(&store, "a", Since::Beginning).await.unwrap(), ["a9"]);
        assert_eq!(ids(&store, "b", Since::Beginning).await.unwrap(), ["b"]);
        // Numbers go on, and whoever had the last knows that nothing was missed.
        store.receive("a10", &event("a", 10), at(2_000)).await.unwrap();
        assert_eq!(ids(&store, "a", Since::Event("a9".into())).await.unwrap(), ["a10"]);
        assert_eq!(
            ids(&store, "a", Since::Event("a8".into())).await,
            None,
            "it was pruned, and that is told"
        );
        assert_eq!(
            ids(&store, "a", Since::Event("b".into())).await,
            None,
            "another organisation's is not there"
        );
    }

    #[tokio::test]
    async fn a_clock_that_was_set_back_makes_no_gap() {
        let (store, _data) = store().await;
        for (id, received) in [("a", 5_000), ("b", 100), ("c", 6_000)] {
            store.receive(id, &event("a", 0), at(received)).await.unwrap();
        }
        assert_eq!(store.expire(Expirable::Events, at(1_000), at(9_000), 100).await.unwrap(), 0);
        assert_eq!(ids(&store, "a", Since::Beginning).await.unwrap(), ["a", "b", "c"]);
        assert_eq!(store.expire(Expirable::Events, at(5_500), at(9_000), 100).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn what_was_received_by_a_clock_set_ahead_keeps_nothing_else_from_going() {
        let (store, _data) = store().await;
        for (id, received) in [("ahead", 99_000), ("old", 100), ("ahead too", 99_000), ("new", 6_000)] {
            store.receive(id, &event("a", 0), at(received)).await.unwrap();
        }
        assert_eq!(store.expire(Expirable::Events, at(1_000), at(9_000), 100).await.unwrap(), 2);
        assert_eq!(ids(&store, "a", Since::Beginning).await.unwrap(), ["ahead too", "new"]);
    }

    #[tokio::test]
    async fn a_time_begins_with_the_first_event_that_happened_then_or_later() {
        let (store, _data) = store().await;
        for (id, happened) in [("a", 100), ("b", 300), ("late", 200)] {
            store.receive(id, &event("a", happened), at(1_000)).await.unwrap();
        }
        assert_eq!(ids(&store, "a", Since::Time(at(101))).await.unwrap(), ["b", "late"]);
        assert!(ids(&store, "a", Since::Time(at(301))).await.unwrap().is_empty());
        assert!(ids(&store, "a", Since::Now).await.unwrap().is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn pages_of_any_size_make_the_whole_list(page in 1..9_u64, events in 0..20_usize) {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                let (store, _data) = store().await;
                let expected: Vec<_> = (0..events).map(|number| format!("e{number}")).collect();
                for id in &expected {
                    store.receive(id, &event("a", 7), at(7)).await.unwrap();
                    store.receive(&format!("other-{id}"), &event("b", 7), at(7)).await.unwrap();
                }
                let (mut seen, mut since) = (Vec::new(), Since::Beginning);
                loop {
                    let after = store.event_position(&org("a"), &since).await.unwrap().unwrap();
                    let query = EventQuery { org: org("a"), node: None, after, limit: page };
                    let found = store.events(&query).await.unwrap();
                    let Some(last) = found.last() else { break };
                    since = Since::Event(last.id.clone());
                    seen.extend(found.into_iter().map(|it| it.id));
                }
                assert_eq!(seen, expected);
            });
        }
    }
}
