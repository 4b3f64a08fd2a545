//! Nodes, with the audit rows and events that their changes owe.

use std::collections::BTreeMap;

use aio_protocol::{
    event::{EventKind, NodeEvent},
    ids::{NodeId, OwnerId},
    node::{NodeStatus, Owner},
    time::Timestamp,
};
use sqlx::{AnyConnection, Row, any::AnyRow};

use super::{
    database::Store,
    error::StoreError,
    groups, outbox,
    rows::{corrupt, count, from_json, json, node_id, optional_time, owned_node, status, time},
    signals, tokens, webhook_events,
    writer::Write,
};
use crate::{labels::natural_key, node::Node};

/// One move of a node, with all that is owed for it. `event` also says what the node's status is after it.
#[derive(Debug, Clone)]
pub(crate) struct RecordedStep {
    pub from: Option<NodeStatus>,
    pub to: NodeStatus,
    /// The trigger's name.
    pub cause: &'static str,
    /// Who caused it.
    pub actor: String,
    /// When the frame, the request or the end of a lease that caused it was noticed: the event's
    /// delivery is measured from here.
    pub noticed_at: Timestamp,
    /// Whether NOTI is told of it.
    pub posted: bool,
    pub event: NodeEvent,
}

/// A node, and what is known of a token of it.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    pub node: Node,
    /// `None` when it was not issued here.
    pub revoked: Option<bool>,
    /// Whether it is an offer that nobody has taken yet.
    pub offered: bool,
}

impl Store {
    /// Keeps a changed node with the audit rows and events of its steps, if nobody else has saved
    /// it since `node` was read; says whether it did.
    pub(crate) async fn save(&self, node: &Node, steps: &[RecordedStep]) -> Result<bool, StoreError> {
        self.writer.write(Save::new(node, steps)?).await
    }

    pub(crate) async fn node(&self, id: &NodeId) -> Result<Option<Node>, StoreError> {
        let row = sqlx::query(
            "SELECT nodes.*, at AS sighted_at FROM nodes LEFT JOIN sightings ON node_id = id WHERE id = $1",
        )
        .bind(id.as_str())
        .fetch_optional(&mut *self.pool.take().await?)
        .await?;
        row.as_ref().map(read).transpose()
    }

    /// A node, and what is known of a token of it. One read, because every worker of the fleet asks
    /// for it when it comes back.
    pub(crate) async fn admission(&self, id: &NodeId, jti: &str) -> Result<Option<Admission>, StoreError> {
        let row = sqlx::query(
            "SELECT nodes.*, at AS sighted_at, CASE WHEN tokens.jti IS NULL THEN -1 WHEN tokens.revoked_at IS NULL THEN 0 ELSE 1 END AS revoked, \
             CASE WHEN tokens.replaces IS NOT NULL AND tokens.taken_at IS NULL THEN 1 ELSE 0 END AS offered \
             FROM nodes LEFT JOIN sightings ON sightings.node_id = nodes.id \
             LEFT JOIN tokens ON tokens.jti = $2 AND tokens.node_id = nodes.id WHERE nodes.id = $1",
        )
        .bind(id.as_str())
        .bind(jti)
        .fetch_optional(&mut *self.pool.take().await?)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let revoked = match row.try_get::<i64, _>("revoked")? {
            -1 => None,
            revoked => Some(revoked != 0),
        };
        let offered = row.try_get::<i64, _>("offered")? != 0;
        Ok(Some(Admission { node: read(&row)?, revoked, offered }))
    }

    /// How many nodes have each status; one that no node has is absent.
    pub(crate) async fn census(&self) -> Result<BTreeMap<NodeStatus, u64>, StoreError> {
        let counts = sqlx::query("SELECT status, COUNT(*) FROM nodes GROUP BY status")
            .fetch_all(&mut *self.lists.take().await?)
            .await?;
        by_status(&counts)
    }

    /// The organisations that have nodes.
    pub(crate) async fn organisations(&self) -> Result<Vec<OwnerId>, StoreError> {
        let rows = sqlx::query("SELECT DISTINCT org_id FROM nodes")
            .fetch_all(&mut *self.lists.take().await?)
            .await?;
        rows.iter().map(|row| row.try_get::<String, _>(0)?.parse().map_err(corrupt("org_id"))).collect()
    }

    /// Which nodes that are online a controller of this number holds.
    pub(crate) async fn online_nodes(&self, number: i64) -> Result<Vec<(NodeId, OwnerId)>, StoreError> {
        // A row for each organisation: one for each node would take a fleet's time in the driver.
        let rows = sqlx::query(
            "SELECT org_id, json_group_array(id) FROM nodes WHERE status = 'online' AND held_by = $1 GROUP BY org_id",
        )
        .bind(number)
        .fetch_all(&mut *self.pool.take().await?)
        .await?;
        let mut nodes = Vec::new();
        for row in &rows {
            let org: OwnerId = row.try_get::<String, _>(0)?.parse().map_err(corrupt("org_id"))?;
            let ids: Vec<NodeId> = from_json("id", &row.try_get::<String, _>(1)?)?;
            nodes.extend(ids.into_iter().map(|id| (id, org.clone())));
        }
        Ok(nodes)
    }

    /// Which nodes are being installed, and how often each was saved.
    pub(crate) async fn installing_nodes(&self) -> Result<Vec<(NodeId, OwnerId, i64)>, StoreError> {
        let rows = sqlx::query("SELECT id, org_id, version FROM nodes WHERE status = 'installing'")
            .fetch_all(&mut *self.pool.take().await?)
            .await?;
        let read = |row: &AnyRow| {
            let (id, org) = owned_node(row)?;
            Ok((id, org, row.try_get(2)?))
        };
        rows.iter().map(read).collect()
    }

    /// Writes when nodes were last heard of. Moves a node's time back only where it is later than `now`.
    pub(crate) async fn put_last_seen(
        &self,
        seen: Vec<(NodeId, Timestamp)>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let seen: BTreeMap<_, _> = seen.iter().map(|(id, at)| (id.as_str(), at.as_millis())).collect();
        self.writer.write(PutLastSeen { seen: json("seen", &seen)?, now }).await
    }

    /// Notes that no node is connected, and none is held: at the start of who serves alone, none is.
    pub(crate) async fn clear_connections(&self) -> Result<(), StoreError> {
        self.writer.write(ClearConnections).await
    }

    /// The nodes whose workers are connected to other controllers than that of this number.
    pub(crate) async fn connected_elsewhere(&self, number: i64) -> Result<Vec<NodeId>, StoreError> {
        let rows = sqlx::query("SELECT id FROM nodes WHERE websocket_connected = 1 AND held_by <> $1")
            .bind(number)
            .fetch_all(&mut *self.lists.take().await?)
            .await?;
        rows.iter().map(node_id).collect()
    }

    /// Whose tokens were revoked while their worker was connected to the controller of this number, and it
    /// still is.
    pub(crate) async fn connected_without_token(&self, number: i64) -> Result<Vec<NodeId>, StoreError> {
        // The index of that name holds these and no others.
        let rows = sqlx::query(
            "SELECT id FROM nodes WHERE websocket_connected = 1 AND tokens_not_before <> admitted_not_before \
             AND held_by = $1",
        )
        .bind(number)
        .fetch_all(&mut *self.pool.take().await?)
        .await?;
        rows.iter().map(node_id).collect()
    }
}

/// Keeps a new node, with its first audit row and its first event.
pub(super) struct Add {
    node: Node,
    roles: String,
    labels: String,
    step: Entry,
}

impl Add {
    pub(super) fn new(node: &Node, step: &RecordedStep) -> Result<Self, StoreError> {
        Ok(Self {
            roles: json("roles", &node.role)?,
            labels: json("labels", &node.labels)?,
            node: node.clone(),
            step: Entry::new(step)?,
        })
    }

    pub(super) fn node(&self) -> &Node {
        &self.node
    }
}

impl Write for Add {
    type Answer = ();

    async fn run(&self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        let Self { node, roles, labels, step } = self;
        sqlx::query(
            "INSERT INTO nodes (id, version, org_id, user_id, name, roles, status, created_at, websocket_connected, \
             labels, name_key) VALUES ($1, 1, $2, $3, $4, $5, $6, $7, 0, $8, $9)",
        )
        .bind(node.id.as_str())
        .bind(node.owner.org_id.as_str())
        .bind(node.owner.user_id.as_str())
        .bind(&node.name)
        .bind(roles)
        .bind(node.status.as_str())
        .bind(node.created_at.as_millis())
        .bind(labels)
        .bind(natural_key(&node.name))
        .execute(&mut *connection)
        .await?;
        record(connection, &node.id, 0, std::slice::from_ref(step)).await
    }
}

/// Keeps a changed node with the audit rows and events of its steps; says whether nobody else had
/// saved it first. A node that is decommissioned loses its tokens in the same transaction.
pub(super) struct Save {
    node: Node,
    system_info: Option<String>,
    installation: Option<String>,
    update: Option<String>,
    steps: Vec<Entry>,
}

impl Save {
    pub(super) fn new(node: &Node, steps: &[RecordedStep]) -> Result<Self, StoreError> {
        Ok(Self {
            system_info: node.system_info.as_ref().map(|info| json("system_info", info)).transpose()?,
            installation: node.installation.as_ref().map(|it| json("installation", it)).transpose()?,
            update: node.update.as_ref().map(|it| json("update_report", it)).transpose()?,
            steps: steps.iter().map(Entry::new).collect::<Result<_, _>>()?,
            node: Node { system_info: None, installation: None, ..node.clone() },
        })
    }
}

impl Write for Save {
    type Answer = bool;

    fn is_urgent(&self) -> bool {
        self.node.status == NodeStatus::Inactive
    }

    async fn run(&self, connection: &mut AnyConnection) -> Result<bool, StoreError> {
        let Self { node, system_info, installation, update, steps } = self;
        let next = node.version + i64::try_from(steps.len().max(1)).unwrap_or(i64::MAX);
        let saved = sqlx::query(
            "UPDATE nodes SET version = $3, status = $4, websocket_connected = $5, last_seen_at = $6, \
             connection_established_at = $7, ip_address = $8, daemon_version = $9, instance_id = $10, boot_id = $11, \
             system_info = $12, installation = $13, admitted_not_before = $14, update_report = $15, updates_itself = $16, held_by = $17 WHERE id = $1 AND version = $2",
        )
        .bind(node.id.as_str())
        .bind(node.version)
        .bind(next)
        .bind(node.status.as_str())
        .bind(i64::from(node.websocket_connected))
        .bind(node.last_seen_at.map(Timestamp::as_millis))
        .bind(node.connection_established_at.map(Timestamp::as_millis))
        .bind(node.ip_address.map(|address| address.to_string()))
        .bind(node.daemon_version.as_deref())
        .bind(node.instance_id.map(|id| id.to_string()))
        .bind(node.boot_id.as_deref())
        .bind(system_info.as_deref())
        .bind(installation.as_deref())
        .bind(node.admitted_not_before.as_millis())
        .bind(update.as_deref())
        .bind(i64::from(node.updates_itself))
        .bind(node.held_by)
        .execute(&mut *connection)
        .await?;
        if saved.rows_affected() == 0 {
            return Ok(false);
        }
        if node.was_held_by != node.held_by && node.was_held_by != 0 {
            signals::moved(connection, &node.id, node.was_held_by).await?;
        }
        sqlx::query("DELETE FROM sightings WHERE node_id = $1")
            .bind(node.id.as_str())
            .execute(&mut *connection)
            .await?;
        groups::note_news(connection, &node.id).await?;
        record(connection, &node.id, node.version, steps).await?;
        if let Some(last) = steps.last().filter(|last| last.to == NodeStatus::Inactive) {
            tokens::revoke_all(connection, &node.id, last.at).await?;
        }
        Ok(true)
    }

    fn changed(saved: &bool) -> bool {
        *saved
    }
}

/// What the audit trail and the outbox hold of a step.
struct Entry {
    from: Option<NodeStatus>,
    to: NodeStatus,
    cause: &'static str,
    actor: String,
    at: Timestamp,
    noticed_at: Timestamp,
    kind: EventKind,
    event: String,
    /// Whether NOTI is told of it.
    posted: bool,
}

impl Entry {
    fn new(step: &RecordedStep) -> Result<Self, StoreError> {
        step.event.check()?;
        Ok(Self {
            from: step.from,
            to: step.to,
            cause: step.cause,
            actor: step.actor.clone(),
            at: step.event.timestamp,
            noticed_at: step.noticed_at,
            kind: step.event.kind(),
            event: json("event", &step.event)?,
            posted: step.posted,
        })
    }
}

/// Writes the audit rows and events of steps that follow the node's save number `version`.
async fn record(
    connection: &mut AnyConnection,
    node: &NodeId,
    version: i64,
    steps: &[Entry],
) -> Result<(), StoreError> {
    for (seq, step) in (version + 1..).zip(steps) {
        sqlx::query(
            "INSERT INTO transitions (node_id, seq, from_status, to_status, cause, actor, at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(node.as_str())
        .bind(seq)
        .bind(step.from.map(NodeStatus::as_str))
        .bind(step.to.as_str())
        .bind(step.cause)
        .bind(&step.actor)
        .bind(step.at.as_millis())
        .execute(&mut *connection)
        .await?;
        let id = outbox::new_id();
        if step.posted {
            outbox::add(connection, &id, node, seq, &step.event, step.noticed_at).await?;
        }
        webhook_events::add(connection, (&id, step.kind), node, seq, &step.event, step.noticed_at).await?;
    }
    Ok(())
}

/// Writes when nodes were last heard of.
struct PutLastSeen {
    /// Milliseconds by node, in JSON.
    seen: String,
    now: Timestamp,
}

impl Write for PutLastSeen {
    type Answer = ();

    async fn run(&self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        // One statement for the whole fleet: each would cost its own way to the database's thread and back.
        sqlx::query(
            "INSERT INTO sightings (node_id, at) \
             SELECT nodes.id, CAST(seen.value AS BIGINT) FROM json_each($1) AS seen CROSS JOIN nodes \
             WHERE nodes.id = seen.key AND (COALESCE(last_seen_at, 0) < CAST(seen.value AS BIGINT) OR last_seen_at > $2) \
             ON CONFLICT (node_id) DO UPDATE SET at = excluded.at \
             WHERE sightings.at < excluded.at OR sightings.at > $2",
        )
        .bind(&self.seen)
        .bind(self.now.as_millis())
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// Notes that no node is connected.
pub(super) struct ClearConnections;

impl Write for ClearConnections {
    type Answer = ();

    async fn run(&self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE nodes SET websocket_connected = 0, held_by = 0, version = version + 1 \
             WHERE websocket_connected = 1 OR held_by <> 0",
        )
        .execute(connection)
        .await?;
        Ok(())
    }
}

pub(super) fn by_status(counts: &[AnyRow]) -> Result<BTreeMap<NodeStatus, u64>, StoreError> {
    counts.iter().map(|row| Ok((status(row, "status")?, count(row, 1)?))).collect()
}

pub(super) fn read(row: &AnyRow) -> Result<Node, StoreError> {
    let text = |column| row.try_get::<String, _>(column);
    let optional = |column| row.try_get::<Option<String>, _>(column);
    Ok(Node {
        id: text("id")?.parse().map_err(corrupt("id"))?,
        name: text("name")?,
        role: from_json("roles", &text("roles")?)?,
        status: status(row, "status")?,
        owner: Owner {
            org_id: text("org_id")?.parse().map_err(corrupt("org_id"))?,
            user_id: text("user_id")?.parse().map_err(corrupt("user_id"))?,
        },
        websocket_connected: row.try_get::<i64, _>("websocket_connected")? != 0,
        last_seen_at: optional_time(row, "sighted_at")?.or(optional_time(row, "last_seen_at")?),
        connection_established_at: optional_time(row, "connection_established_at")?,
        created_at: time(row, "created_at")?,
        ip_address: optional("ip_address")?
            .map(|text| text.parse())
            .transpose()
            .map_err(corrupt("ip_address"))?,
        daemon_version: optional("daemon_version")?,
        update: optional("update_report")?.map(|text| from_json("update_report", &text)).transpose()?,
        updates_itself: row.try_get::<i64, _>("updates_itself")? != 0,
        pin: optional("pin")?.map(|text| text.parse()).transpose().map_err(corrupt("pin"))?,
        gpu_health: None,
        identity_conflict: None,
        instance_id: optional("instance_id")?
            .map(|text| text.parse())
            .transpose()
            .map_err(corrupt("instance_id"))?,
        boot_id: optional("boot_id")?,
        system_info: optional("system_info")?.map(|text| from_json("system_info", &text)).transpose()?,
        labels: from_json("labels", &text("labels")?)?,
        installation: optional("installation")?.map(|text| from_json("installation", &text)).transpose()?,
        tokens_not_before: time(row, "tokens_not_before")?,
        admitted_not_before: time(row, "admitted_not_before")?,
        held_by: row.try_get("held_by")?,
        was_held_by: row.try_get("held_by")?,
        version: row.try_get("version")?,
    })
}
