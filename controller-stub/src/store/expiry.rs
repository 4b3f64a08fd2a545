//! What may be dropped once it is old. The built-in NOTI's events have rules of their own (`inbox`).

use aio_protocol::{
    ids::{NodeId, OwnerId},
    time::Timestamp,
};
use sqlx::AnyConnection;

use super::{
    database::Store,
    error::StoreError,
    inbox::Prune,
    rows::{count, node_id, signed},
    telemetry,
    writer::Write,
};
use crate::telemetry::Slot;

/// What is dropped once it is old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expirable {
    /// Events that the built-in NOTI received, by when it did.
    Events,
    /// Moves of nodes, by when they were made.
    Transitions,
    /// What people did, by when they did it.
    Audit,
    /// Events that were given up, by when they were.
    DeadLetters,
    /// Tokens, by when they ended.
    Tokens,
    /// Decommissioned nodes and all that is kept of them, by their last move.
    InactiveNodes,
    /// Alarms that are resolved, by when they were.
    Alarms,
    /// Silences, by their end.
    Silences,
    /// What webhooks are owed, given up or not, by when it was noticed.
    WebhookEvents,
    /// Attempts at webhooks, by when they were made.
    WebhookAttempts,
    /// Windows of telemetry, by when they began.
    Telemetry,
}

impl Expirable {
    pub(crate) const ALL: [Self; 11] = [
        Self::Events,
        Self::Transitions,
        Self::Audit,
        Self::DeadLetters,
        Self::Tokens,
        Self::InactiveNodes,
        Self::Alarms,
        Self::Silences,
        Self::WebhookEvents,
        Self::WebhookAttempts,
        Self::Telemetry,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Transitions => "transitions",
            Self::Audit => "audit",
            Self::DeadLetters => "dead_letters",
            Self::Tokens => "tokens",
            Self::InactiveNodes => "inactive_nodes",
            Self::Alarms => "alarms",
            Self::Silences => "silences",
            Self::WebhookEvents => "webhook_events",
            Self::WebhookAttempts => "webhook_attempts",
            Self::Telemetry => "telemetry",
        }
    }
}

/// The nodes that were decommissioned before a time and owe no event any more.
const GONE: &str = "status = 'inactive' AND ($2 = '' OR org_id = $2) \
     AND NOT EXISTS (SELECT 1 FROM transitions WHERE node_id = nodes.id AND at >= $1) \
     AND NOT EXISTS (SELECT 1 FROM outbox WHERE node_id = nodes.id)";

impl Store {
    /// Drops the oldest of these that are from before `before`, at most `limit`, and says how many.
    /// `now` is what the wall clock shows.
    pub(crate) async fn expire(
        &self,
        what: Expirable,
        before: Timestamp,
        now: Timestamp,
        limit: u64,
    ) -> Result<u64, StoreError> {
        let statement = match what {
            Expirable::Events => return self.writer.write(Prune { before, now, limit }).await,
            Expirable::Telemetry => return self.drop_telemetry(Slot::of(before), limit).await,
            Expirable::InactiveNodes => return self.purge_nodes(None, before, limit).await,
            Expirable::Transitions => {
                "DELETE FROM transitions WHERE (node_id, seq) IN \
                 (SELECT node_id, seq FROM transitions WHERE at < $1 ORDER BY at LIMIT $2)"
            }
            Expirable::Audit => {
                "DELETE FROM audit WHERE seq IN (SELECT seq FROM audit WHERE at < $1 ORDER BY seq LIMIT $2)"
            }
            Expirable::Alarms => {
                "DELETE FROM alarms WHERE id IN \
                 (SELECT id FROM alarms WHERE resolved_at < $1 ORDER BY resolved_at LIMIT $2)"
            }
            Expirable::Silences => {
                "DELETE FROM silences WHERE id IN (SELECT id FROM silences WHERE until < $1 ORDER BY until LIMIT $2)"
            }
            Expirable::WebhookEvents => {
                "DELETE FROM webhook_events WHERE (webhook_id, id) IN \
                 (SELECT webhook_id, id FROM webhook_events WHERE created_at < $1 ORDER BY created_at LIMIT $2)"
            }
            Expirable::WebhookAttempts => {
                "DELETE FROM webhook_attempts WHERE id IN \
                 (SELECT id FROM webhook_attempts WHERE at < $1 ORDER BY at LIMIT $2)"
            }
            Expirable::DeadLetters => {
                "DELETE FROM dead_letters WHERE id IN \
                 (SELECT id FROM dead_letters WHERE died_at < $1 ORDER BY died_at LIMIT $2)"
            }
            Expirable::Tokens => {
                "DELETE FROM tokens WHERE jti IN \
                 (SELECT jti FROM tokens WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)"
            }
        };
        self.writer.write(Expire { statement, before, limit }).await
    }

    /// How many nodes of the organisation, or of all, were decommissioned before `before` and owe no event.
    pub(crate) async fn purgeable(
        &self,
        org: Option<&OwnerId>,
        before: Timestamp,
    ) -> Result<u64, StoreError> {
        let statement = format!("SELECT COUNT(*) FROM nodes WHERE {GONE}");
        let row = sqlx::query(sqlx::AssertSqlSafe(statement))
            .bind(before.as_millis())
            .bind(org.map_or("", OwnerId::as_str))
            .fetch_one(&mut *self.lists.take().await?)
            .await?;
        count(&row, 0)
    }

    /// Drops such nodes with their tokens and their moves, at most `limit`, and says how many.
    pub(crate) async fn purge_nodes(
        &self,
        org: Option<&OwnerId>,
        before: Timestamp,
        limit: u64,
    ) -> Result<u64, StoreError> {
        let org = org.map_or_else(String::new, OwnerId::to_string);
        self.writer.write(Purge { org, before, limit }).await
    }
}

struct Expire {
    statement: &'static str,
    before: Timestamp,
    limit: u64,
}

impl Write for Expire {
    type Answer = u64;

    async fn run(&self, connection: &mut AnyConnection) -> Result<u64, StoreError> {
        let expired = sqlx::query(self.statement)
            .bind(self.before.as_millis())
            .bind(signed(self.limit))
            .execute(connection)
            .await?;
        Ok(expired.rows_affected())
    }
}

struct Purge {
    org: String,
    before: Timestamp,
    limit: u64,
}

impl Write for Purge {
    type Answer = u64;

    async fn run(&self, connection: &mut AnyConnection) -> Result<u64, StoreError> {
        let gone = format!("SELECT id FROM nodes WHERE {GONE} LIMIT $3");
        let rows = sqlx::query(sqlx::AssertSqlSafe(gone))
            .bind(self.before.as_millis())
            .bind(&self.org)
            .bind(signed(self.limit))
            .fetch_all(&mut *connection)
            .await?;
        let gone = rows.iter().map(node_id).collect::<Result<Vec<NodeId>, _>>()?;
        for id in &gone {
            telemetry::forget(connection, id).await?;
            for statement in [
                "DELETE FROM tokens WHERE node_id = $1",
                "DELETE FROM transitions WHERE node_id = $1",
                "DELETE FROM sightings WHERE node_id = $1",
                "DELETE FROM aiwm_nodes WHERE node_id = $1",
                "DELETE FROM rollout_nodes WHERE node_id = $1",
                "DELETE FROM alarms WHERE node_id = $1",
                "DELETE FROM silences WHERE node_id = $1",
                "DELETE FROM told_healths WHERE node_id = $1",
                "DELETE FROM webhook_events WHERE node_id = $1",
                "DELETE FROM nodes WHERE id = $1",
            ] {
                sqlx::query(statement).bind(id.as_str()).execute(&mut *connection).await?;
            }
        }
        Ok(gone.len() as u64)
    }

    fn changed(purged: &u64) -> bool {
        *purged > 0
    }
}

#[cfg(test)]
mod tests {
    use aio_protocol::node::{NodeRole, NodeStatus, Owner};

    use super::*;
    use crate::{
        lifecycle::registration,
        node::Node,
        store::{IssuedToken, Newcomer, testing},
    };

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn node(number: u8, org: &str) -> Node {
        let owner = Owner { org_id: org.parse().unwrap(), user_id: "u".parse().unwrap() };
        let name = format!("gpu-{number}");
        Node::registered(NodeId::from_bytes([number; 12]), name, vec![NodeRole::Worker], owner, at(1_000))
    }

    async fn rows(store: &Store, table: &str) -> u64 {
        let statement = sqlx::AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}"));
        count(&sqlx::query(statement).fetch_one(&mut *store.pool.take().await.unwrap()).await.unwrap(), 0)
            .unwrap()
    }

    async fn store() -> (Store, tempfile::TempDir) {
        let data = tempfile::tempdir().unwrap();
        (testing::store(data.path()).await, data)
    }

    async fn add(store: &Store, node: &Node, ends: i64) {
        let token = IssuedToken {
            jti: format!("token of {}", node.id),
            node: node.id.clone(),
            sha256: String::new(),
            issued_at: at(1_000),
            expires_at: at(ends),
            version: "v1.0.0".parse().unwrap(),
            checksums: Default::default(),
            minted_by: None,
        };
        let newcomer = Newcomer { node: node.clone(), step: registration(node, "test"), token: Some(token) };
        store.enrol_nodes(&[newcomer]).await.unwrap();
    }

    async fn deliver(store: &Store, id: &NodeId) {
        for event in store.undelivered(id, 100).await.unwrap() {
            store.delivered(&event.id).await.unwrap();
        }
    }

    #[tokio::test]
    async fn tokens_go_after_their_end_and_moves_after_their_time_a_few_at_once() {
        let (store, _data) = store().await;
        for (number, ends) in [(1, 5_000), (2, 6_000), (3, 50_000)] {
            add(&store, &node(number, "a"), ends).await;
        }
        assert_eq!(store.expire(Expirable::Tokens, at(5_000), at(90_000), 10).await.unwrap(), 0);
        assert_eq!(store.expire(Expirable::Tokens, at(10_000), at(90_000), 1).await.unwrap(), 1);
        assert_eq!(store.expire(Expirable::Tokens, at(10_000), at(90_000), 10).await.unwrap(), 1);
        assert_eq!(rows(&store, "tokens").await, 1);
        assert_eq!(store.expire(Expirable::Transitions, at(1_000), at(90_000), 10).await.unwrap(), 0);
        assert_eq!(store.expire(Expirable::Transitions, at(1_001), at(90_000), 10).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn a_dead_letter_goes_after_its_time() {
        let (store, _data) = store().await;
        let node = node(1, "a");
        add(&store, &node, 5_000).await;
        let event = store.undelivered(&node.id, 1).await.unwrap().remove(0);
        store.bury(&event.id, at(2_000), "refused").await.unwrap();
        assert_eq!(store.expire(Expirable::DeadLetters, at(2_000), at(90_000), 10).await.unwrap(), 0);
        assert_eq!(store.expire(Expirable::DeadLetters, at(2_001), at(90_000), 10).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn only_nodes_that_are_out_of_service_and_owe_nothing_are_purged() {
        let (store, _data) = store().await;
        let (gone, other, serving) = (node(1, "a"), node(2, "b"), node(3, "a"));
        for node in [&gone, &other, &serving] {
            add(&store, node, 50_000).await;
        }
        for node in [&gone, &other] {
            let inactive = Node { status: NodeStatus::Inactive, version: 1, ..node.clone() };
            assert!(store.save(&inactive, &[]).await.unwrap());
        }
        let org = gone.owner.org_id.clone();
        assert_eq!(store.purge_nodes(Some(&org), at(9_000), 10).await.unwrap(), 0, "events are owed");
        deliver(&store, &gone.id).await;
        deliver(&store, &other.id).await;
        assert_eq!(store.purgeable(Some(&org), at(1_000)).await.unwrap(), 0, "not old enough");
        assert_eq!(store.purgeable(Some(&org), at(9_000)).await.unwrap(), 1);
        assert_eq!(store.purge_nodes(Some(&org), at(9_000), 10).await.unwrap(), 1);
        assert_eq!((rows(&store, "nodes").await, rows(&store, "tokens").await), (2, 2));
        assert_eq!(store.expire(Expirable::InactiveNodes, at(9_000), at(90_000), 10).await.unwrap(), 1);
        assert!(store.node(&serving.id).await.unwrap().is_some());
    }
}
