//! Alarms: what was raised, acknowledged and resolved, each change with the event that it owes.

use aio_protocol::{
    ids::{NodeId, OwnerId},
    node::NodeStatus,
    time::Timestamp,
};
use sqlx::{AnyConnection, Row, any::AnyRow};
use uuid::Uuid;

use super::{
    database::Store,
    error::StoreError,
    nodes::{RecordedStep, Save},
    rows::{Window, corrupt, count, from_json, node_id, optional_time, owned_node, signed, status, time},
    writer::Write,
};
use crate::{
    alarms::model::{Key, Kind, Level, Resolution, Whose},
    node::Node,
};

/// An alarm as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Alarm {
    pub id: Uuid,
    /// Nothing for the controller's own.
    pub org: Option<OwnerId>,
    pub node: Option<NodeId>,
    pub kind: Kind,
    pub part: String,
    pub level: Level,
    pub reason: String,
    pub action: String,
    pub raised_at: Timestamp,
    pub telling: Telling,
    /// When, and by whom.
    pub acknowledged: Option<(Timestamp, String)>,
    pub resolved: Option<(Timestamp, Resolution)>,
}

/// Whether an event has said that an alarm was raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Telling {
    Untold,
    Told,
    /// It was told, and got worse since.
    Outdated,
}

/// A change of an alarm.
#[derive(Debug, Clone)]
pub(crate) enum AlarmChange {
    /// It is new, or got worse, which nobody has acknowledged.
    Raise(Alarm),
    /// They say something else by now, and are no worse.
    Amend(Vec<Alarm>),
    /// An event says that it was raised.
    Tell(Uuid),
    Resolve(Uuid, Timestamp, Resolution),
}

/// Which alarms to list.
#[derive(Debug, Clone)]
pub(crate) struct AlarmQuery {
    pub org: OwnerId,
    /// Whether the controller's own belong to it.
    pub operator: bool,
    pub resolved: bool,
    pub node: Option<NodeId>,
    pub kind: Option<Kind>,
    pub window: Window,
}

/// What came of acknowledging an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acknowledged {
    Done,
    /// Somebody has before.
    Already,
    Resolved,
    NoSuch,
}

/// A node that has alarms, or may have some by its status alone.
#[derive(Debug, Clone)]
pub(crate) struct WatchedNode {
    pub id: NodeId,
    pub org: OwnerId,
    pub name: String,
    pub status: NodeStatus,
    /// The number of the controller that holds its worker; 0 where none does that is there.
    pub holder: i64,
    pub last_seen_at: Option<Timestamp>,
    /// The code and the sentence of its installation's error.
    pub failure: Option<String>,
}

impl Alarm {
    pub(crate) fn key(&self) -> Key {
        let whose = match (&self.node, &self.org) {
            (Some(node), _) => Whose::Node(node.clone()),
            (None, Some(org)) => Whose::Organisation(org.clone()),
            (None, None) => Whose::Controller,
        };
        Key { whose, kind: self.kind, part: self.part.clone() }
    }
}

impl Store {
    /// The alarms that are not resolved.
    pub(crate) async fn open_alarms(&self) -> Result<Vec<Alarm>, StoreError> {
        let rows = sqlx::query("SELECT * FROM alarms WHERE resolved_at IS NULL")
            .fetch_all(&mut *self.lists.take().await?)
            .await?;
        rows.iter().map(read).collect()
    }

    /// A page of alarms, the latest first, and how many there are.
    pub(crate) async fn alarms(&self, query: &AlarmQuery) -> Result<(Vec<Alarm>, u64), StoreError> {
        const WHICH: &str = "(org_id = $1 OR ($2 = 1 AND org_id = '')) AND ($3 = '' OR node_id = $3) \
             AND (resolved_at IS NULL) = ($4 = 0) AND ($5 = '' OR kind = $5)";
        let kind = query.kind.map_or("", Kind::as_str);
        let _share = self.shares.take(&query.org).await;
        let node = query.node.as_ref().map_or("", NodeId::as_str);
        let (operator, resolved) = (i64::from(query.operator), i64::from(query.resolved));
        // First, so that no alarm is counted that the page might have shown.
        let total = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT COUNT(*) FROM alarms WHERE {WHICH}")))
            .bind(query.org.as_str())
            .bind(operator)
            .bind(node)
            .bind(resolved)
            .bind(kind)
            .fetch_one(&mut *self.lists.take().await?)
            .await?;
        let select =
            format!("SELECT * FROM alarms WHERE {WHICH} ORDER BY raised_at DESC, id DESC LIMIT $6 OFFSET $7");
        let rows = sqlx::query(sqlx::AssertSqlSafe(select))
            .bind(query.org.as_str())
            .bind(operator)
            .bind(node)
            .bind(resolved)
            .bind(kind)
            .bind(signed(query.window.limit))
            .bind(signed(query.window.offset))
            .fetch_all(&mut *self.lists.take().await?)
            .await?;
        Ok((rows.iter().map(read).collect::<Result<_, _>>()?, count(&total, 0)?))
    }

    /// An alarm of the organisation, or of the controller for an operator.
    pub(crate) async fn alarm(
        &self,
        org: &OwnerId,
        operator: bool,
        id: Uuid,
    ) -> Result<Option<Alarm>, StoreError> {
        let row =
            sqlx::query("SELECT * FROM alarms WHERE id = $1 AND (org_id = $2 OR ($3 = 1 AND org_id = ''))")
                .bind(id.to_string())
                .bind(org.as_str())
                .bind(i64::from(operator))
                .fetch_optional(&mut *self.pool.take().await?)
                .await?;
        row.as_ref().map(read).transpose()
    }

    /// Makes a change that owes no event.
    pub(crate) async fn change_alarm(&self, change: AlarmChange) -> Result<(), StoreError> {
        self.writer.write(Change(change)).await
    }

    /// Makes a change with the event that it owes, if nobody else has saved the node since it was read.
    pub(crate) async fn save_with_alarm(
        &self,
        node: &Node,
        steps: &[RecordedStep],
        change: AlarmChange,
    ) -> Result<bool, StoreError> {
        self.writer.write(SaveWithAlarm(Save::new(node, steps)?, change)).await
    }

    /// Notes that somebody has seen an alarm.
    pub(crate) async fn acknowledge_alarm(
        &self,
        org: &OwnerId,
        operator: bool,
        id: Uuid,
        at: Timestamp,
        by: &str,
    ) -> Result<Acknowledged, StoreError> {
        let (org, by) = (org.clone(), by.to_owned());
        self.writer.write(Acknowledge { org, operator, id, at, by }).await
    }

    /// The nodes that have alarms, or a status that may be one.
    pub(crate) async fn watched_nodes(&self) -> Result<Vec<WatchedNode>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, org_id, name, status, last_seen_at, at AS sighted_at, installation, \
             COALESCE((SELECT number FROM controllers WHERE number = held_by), 0) AS holder \
             FROM nodes LEFT JOIN sightings ON node_id = id WHERE status IN ('offline', 'error', 'maintenance') \
             OR id IN (SELECT node_id FROM alarms WHERE resolved_at IS NULL)",
        )
        .fetch_all(&mut *self.lists.take().await?)
        .await?;
        rows.iter().map(read_watched).collect()
    }

    /// Nodes that are connected and whose last token ends before `soon`, with less than a sixth of its life
    /// left, whose they are, and when it ends.
    pub(crate) async fn ending_tokens(
        &self,
        now: Timestamp,
        soon: Timestamp,
    ) -> Result<Vec<(NodeId, OwnerId, Timestamp)>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, org_id, MAX(expires_at) AS ends_at FROM nodes JOIN tokens ON tokens.node_id = nodes.id \
             WHERE websocket_connected = 1 AND revoked_at IS NULL GROUP BY id, org_id HAVING MAX(expires_at) < $1 \
             AND MAX((expires_at - $2) * 6 - (expires_at - issued_at)) < 0",
        )
        .bind(soon.as_millis())
        .bind(now.as_millis())
        .fetch_all(&mut *self.lists.take().await?)
        .await?;
        let read = |row: &AnyRow| {
            let (node, org) = owned_node(row)?;
            Ok((node, org, time(row, "ends_at")?))
        };
        rows.iter().map(read).collect()
    }

    /// Whose rollouts are halted: the organisation, the rollout and its version.
    pub(crate) async fn halted_rollouts(&self) -> Result<Vec<(OwnerId, String, String)>, StoreError> {
        let rows = sqlx::query("SELECT org_id, id, version FROM rollouts WHERE state = 'halted'")
            .fetch_all(&mut *self.lists.take().await?)
            .await?;
        let read = |row: &AnyRow| {
            let org = row.try_get::<String, _>(0)?.parse().map_err(corrupt("org_id"))?;
            Ok((org, row.try_get(1)?, row.try_get(2)?))
        };
        rows.iter().map(read).collect()
    }

    /// How many dead letters each organisation has.
    pub(crate) async fn dead_letter_counts(&self) -> Result<Vec<(OwnerId, u64)>, StoreError> {
        let rows = sqlx::query("SELECT org_id, COUNT(*) FROM dead_letters GROUP BY org_id")
            .fetch_all(&mut *self.lists.take().await?)
            .await?;
        let read = |row: &AnyRow| {
            Ok((row.try_get::<String, _>(0)?.parse().map_err(corrupt("org_id"))?, count(row, 1)?))
        };
        rows.iter().map(read).collect()
    }
}

/// A word of a column, as the API writes it.
fn word<T: serde::de::DeserializeOwned>(row: &AnyRow, column: &'static str) -> Result<T, StoreError> {
    from_json(column, &format!("\"{}\"", row.try_get::<String, _>(column)?))
}

fn read(row: &AnyRow) -> Result<Alarm, StoreError> {
    let filled = |text: String| Some(text).filter(|text| !text.is_empty());
    let acknowledged = optional_time(row, "acknowledged_at")?;
    let resolved = optional_time(row, "resolved_at")?;
    Ok(Alarm {
        id: row.try_get::<String, _>("id")?.parse().map_err(corrupt("id"))?,
        org: filled(row.try_get("org_id")?)
            .map(|text| text.parse())
            .transpose()
            .map_err(corrupt("org_id"))?,
        node: filled(row.try_get("node_id")?)
            .map(|text| text.parse())
            .transpose()
            .map_err(corrupt("node_id"))?,
        kind: word(row, "kind")?,
        part: row.try_get("part")?,
        level: word(row, "level")?,
        reason: row.try_get("reason")?,
        action: row.try_get("action")?,
        raised_at: time(row, "raised_at")?,
        telling: match row.try_get::<i64, _>("told")? {
            0 => Telling::Untold,
            2 => Telling::Outdated,
            _ => Telling::Told,
        },
        acknowledged: match acknowledged {
            Some(at) => Some((at, row.try_get::<Option<String>, _>("acknowledged_by")?.unwrap_or_default())),
            None => None,
        },
        resolved: match resolved {
            Some(at) => Some((at, word(row, "resolution")?)),
            None => None,
        },
    })
}

fn read_watched(row: &AnyRow) -> Result<WatchedNode, StoreError> {
    let installation: Option<crate::node::Installation> = row
        .try_get::<Option<String>, _>("installation")?
        .map(|text| from_json("installation", &text))
        .transpose()?;
    let error = installation.and_then(|installation| installation.error);
    Ok(WatchedNode {
        id: node_id(row)?,
        org: row.try_get::<String, _>("org_id")?.parse().map_err(corrupt("org_id"))?,
        name: row.try_get("name")?,
        status: status(row, "status")?,
        holder: row.try_get("holder")?,
        last_seen_at: optional_time(row, "sighted_at")?.or(optional_time(row, "last_seen_at")?),
        failure: error.map(|error| format!("{}: {}", error.code, error.message)),
    })
}

async fn change(connection: &mut AnyConnection, change: &AlarmChange) -> Result<(), StoreError> {
    match change {
        AlarmChange::Raise(alarm) => {
            sqlx::query(
                "INSERT INTO alarms (id, org_id, node_id, kind, part, level, reason, action, raised_at, told) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (id) DO UPDATE SET \
                 level = excluded.level, reason = excluded.reason, action = excluded.action, told = excluded.told, \
                 acknowledged_at = NULL, acknowledged_by = NULL",
            )
            .bind(alarm.id.to_string())
            .bind(alarm.org.as_ref().map_or("", OwnerId::as_str))
            .bind(alarm.node.as_ref().map_or("", NodeId::as_str))
            .bind(alarm.kind.as_str())
            .bind(&alarm.part)
            .bind(alarm.level.as_str())
            .bind(&alarm.reason)
            .bind(&alarm.action)
            .bind(alarm.raised_at.as_millis())
            .bind(match alarm.telling {
                Telling::Untold => 0_i64,
                Telling::Told => 1,
                Telling::Outdated => 2,
            })
            .execute(connection)
            .await?;
        }
        AlarmChange::Amend(alarms) => {
            for alarm in alarms {
                sqlx::query("UPDATE alarms SET level = $2, reason = $3, action = $4 WHERE id = $1")
                    .bind(alarm.id.to_string())
                    .bind(alarm.level.as_str())
                    .bind(&alarm.reason)
                    .bind(&alarm.action)
                    .execute(&mut *connection)
                    .await?;
            }
        }
        AlarmChange::Tell(id) => {
            sqlx::query("UPDATE alarms SET told = 1 WHERE id = $1")
                .bind(id.to_string())
                .execute(connection)
                .await?;
        }
        AlarmChange::Resolve(id, at, resolution) => {
            sqlx::query(
                "UPDATE alarms SET resolved_at = $2, resolution = $3 WHERE id = $1 AND resolved_at IS NULL",
            )
            .bind(id.to_string())
            .bind(at.as_millis())
            .bind(resolution.as_str())
            .execute(connection)
            .await?;
        }
    }
    Ok(())
}

struct Change(AlarmChange);

impl Write for Change {
    type Answer = ();

    async fn run(&self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        change(connection, &self.0).await
    }
}

struct SaveWithAlarm(Save, AlarmChange);

impl Write for SaveWithAlarm {
    type Answer = bool;

    async fn run(&self, connection: &mut AnyConnection) -> Result<bool, StoreError> {
        if !self.0.run(connection).await? {
            return Ok(false);
        }
        change(connection, &self.1).await?;
        Ok(true)
    }

    fn changed(saved: &bool) -> bool {
        *saved
    }
}

struct Acknowledge {
    org: OwnerId,
    operator: bool,
    id: Uuid,
    at: Timestamp,
    by: String,
}

impl Write for Acknowledge {
    type Answer = Acknowledged;

    async fn run(&self, connection: &mut AnyConnection) -> Result<Acknowledged, StoreError> {
        let acknowledged = sqlx::query(
            "UPDATE alarms SET acknowledged_at = $4, acknowledged_by = $5 WHERE id = $1 AND resolved_at IS NULL \
             AND acknowledged_at IS NULL AND (org_id = $2 OR ($3 = 1 AND org_id = ''))",
        )
        .bind(self.id.to_string())
        .bind(self.org.as_str())
        .bind(i64::from(self.operator))
        .bind(self.at.as_millis())
        .bind(&self.by)
        .execute(&mut *connection)
        .await?;
        if acknowledged.rows_affected() > 0 {
            return Ok(Acknowledged::Done);
        }
        let found =
            sqlx::query("SELECT * FROM alarms WHERE id = $1 AND (org_id = $2 OR ($3 = 1 AND org_id = ''))")
                .bind(self.id.to_string())
                .bind(self.org.as_str())
                .bind(i64::from(self.operator))
                .fetch_optional(connection)
                .await?;
        Ok(match found.as_ref().map(read).transpose()? {
            None => Acknowledged::NoSuch,
            Some(alarm) if alarm.resolved.is_some() => Acknowledged::Resolved,
            Some(_) => Acknowledged::Already,
        })
    }

    fn changed(acknowledged: &Acknowledged) -> bool {
        *acknowledged == Acknowledged::Done
    }
}
