//! What is written of rollouts: each move whole, with its audit row, and only if nobody else has saved the
//! rollout since it was read. Members are written many at a time, in one statement.

use std::collections::BTreeMap;

use aio_protocol::{
    ids::{NodeId, OwnerId},
    time::Timestamp,
};
use serde::Serialize;
use sqlx::{AnyConnection, Row};
use uuid::Uuid;

use super::{
    database::Store,
    error::StoreError,
    record::{AuditEntry, insert},
    rows::{corrupt, json},
    writer::Write,
};
use crate::rollout::{Member, Rollout, Stage, Tally};

/// What came of starting a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Started {
    Done,
    /// This other rollout is under way for some of its nodes.
    Conflict(Uuid),
    /// Somebody else saved it since it was read.
    Outdated,
}

impl Store {
    /// Keeps a new rollout.
    pub(crate) async fn add_rollout(&self, rollout: &Rollout) -> Result<(), StoreError> {
        self.writer.write(AddRollout(Columns::of(rollout, None)?)).await
    }

    /// Keeps a rollout that moved, with the members that changed; says whether nobody else had saved it.
    /// `seen` is which news of which node it has taken in, `due` when it is looked at again, `record` what
    /// the audit trail gets of it.
    pub(crate) async fn move_rollout(
        &self,
        rollout: &Rollout,
        members: &[Member],
        seen: &BTreeMap<NodeId, i64>,
        due: Option<Timestamp>,
        record: Option<AuditEntry>,
    ) -> Result<bool, StoreError> {
        let seen: BTreeMap<_, _> = seen.iter().map(|(node, news)| (node.as_str(), *news)).collect();
        let columns = Columns::of(rollout, due)?;
        let members = written(members)?;
        let seen = if seen.is_empty() { None } else { Some(json("seen", &seen)?) };
        self.writer.write(MoveRollout { columns, members, seen, record }).await
    }

    /// Starts a rollout with these members, and takes their nodes from rollouts that are not under
    /// way. It is looked at at once.
    pub(crate) async fn start_rollout(
        &self,
        rollout: &Rollout,
        members: &[Member],
        now: Timestamp,
    ) -> Result<Started, StoreError> {
        let nodes: Vec<_> = members.iter().map(|member| member.node.as_str()).collect();
        let start = StartRollout {
            columns: Columns::of(rollout, Some(now))?,
            nodes: json("nodes", &nodes)?,
            members: written(members)?,
        };
        self.writer.write(start).await
    }

    /// Adds a node that came later to a rollout, unless it belongs to it or to another.
    pub(crate) async fn join_rollout(&self, rollout: &Rollout, node: &NodeId) -> Result<bool, StoreError> {
        let wave = u8::try_from(rollout.settings.waves.len()).unwrap_or(u8::MAX);
        self.writer.write(JoinRollout { rollout: rollout.id, node: node.clone(), wave }).await
    }
}

/// A rollout as its row has it.
struct Columns {
    id: String,
    org: OwnerId,
    version: String,
    group: Option<String>,
    only: Option<String>,
    settings: String,
    created_at: Timestamp,
    actor: String,
    started_at: Option<Timestamp>,
    state: &'static str,
    detail: String,
    canaries: u32,
    in_flight: u32,
    tally: String,
    pardoned: String,
    progressed_at: Timestamp,
    revision: i64,
    due: Option<Timestamp>,
}

impl Columns {
    fn of(rollout: &Rollout, due: Option<Timestamp>) -> Result<Self, StoreError> {
        Ok(Self {
            id: rollout.id.to_string(),
            org: rollout.org.clone(),
            version: rollout.version.to_string(),
            group: rollout.group.clone(),
            only: rollout.only.as_ref().map(ToString::to_string),
            settings: json("settings", &rollout.settings)?,
            created_at: rollout.created_at,
            actor: rollout.actor.clone(),
            started_at: rollout.started_at,
            state: rollout.state.as_str(),
            detail: json("detail", &rollout.state)?,
            canaries: rollout.canaries,
            in_flight: rollout.in_flight,
            tally: json("tally", &rollout.tally)?,
            pardoned: json("pardoned", &rollout.pardoned)?,
            progressed_at: rollout.progressed_at,
            revision: rollout.revision,
            due,
        })
    }

    /// Saves it, if its revision is the one that was read.
    async fn save(&self, connection: &mut AnyConnection) -> Result<bool, StoreError> {
        let saved = sqlx::query(
            "UPDATE rollouts SET started_at = $3, state = $4, detail = $5, canaries = $6, in_flight = $7, tally = $8, \
             pardoned = $9, progressed_at = $10, due = $11, revision = revision + 1 WHERE id = $1 AND revision = $2",
        )
        .bind(&self.id)
        .bind(self.revision)
        .bind(self.started_at.map(Timestamp::as_millis))
        .bind(self.state)
        .bind(&self.detail)
        .bind(i64::from(self.canaries))
        .bind(i64::from(self.in_flight))
        .bind(&self.tally)
        .bind(&self.pardoned)
        .bind(self.progressed_at.as_millis())
        .bind(self.due.map(Timestamp::as_millis))
        .execute(connection)
        .await?;
        Ok(saved.rows_affected() > 0)
    }
}

struct AddRollout(Columns);

impl Write for AddRollout {
    type Answer = ();

    async fn run(&self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        let Self(it) = self;
        sqlx::query(
            "INSERT INTO rollouts (id, org_id, version, node_group, only_node, settings, created_at, actor, state, detail, canaries, \
             in_flight, tally, pardoned, progressed_at, revision) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, 0)",
        )
        .bind(&it.id)
        .bind(it.org.as_str())
        .bind(&it.version)
        .bind(it.group.as_deref())
        .bind(it.only.as_deref())
        .bind(&it.settings)
        .bind(it.created_at.as_millis())
        .bind(&it.actor)
        .bind(it.state)
        .bind(&it.detail)
        .bind(i64::from(it.canaries))
        .bind(i64::from(it.in_flight))
        .bind(&it.tally)
        .bind(&it.pardoned)
        .bind(it.progressed_at.as_millis())
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// A member as its row has it; the names are those of the columns.
#[derive(Serialize)]
struct MemberRow<'a> {
    node_id: &'a str,
    wave: u8,
    place: u32,
    stage: &'static str,
    note: String,
    due: Option<i64>,
    open: u8,
}

/// The members as one value, none when there are none.
fn written(members: &[Member]) -> Result<Option<String>, StoreError> {
    let row = |member: &'_ Member| {
        Ok::<_, StoreError>(serde_json::json!(MemberRow {
            node_id: member.node.as_str(),
            wave: member.wave,
            place: member.place,
            stage: member.stage.as_str(),
            note: json("note", &member.note)?,
            due: member.due.map(Timestamp::as_millis),
            open: u8::from(member.is_open()),
        }))
    };
    let rows = members.iter().map(row).collect::<Result<Vec<_>, _>>()?;
    if rows.is_empty() { Ok(None) } else { json("members", &rows).map(Some) }
}

async fn put_members(connection: &mut AnyConnection, rollout: &str, members: &str) -> Result<(), StoreError> {
    let columns = ["node_id", "wave", "place", "stage", "note", "due", "open"];
    let value = |name| match name {
        "node_id" | "stage" | "note" => format!("json_extract(it.value, '$.{name}')"),
        number => format!("CAST(json_extract(it.value, '$.{number}') AS BIGINT)"),
    };
    let statement = format!(
        "INSERT INTO rollout_nodes (rollout_id, {}) SELECT $1, {} FROM json_each($2) AS it WHERE true \
         ON CONFLICT (rollout_id, node_id) DO UPDATE SET wave = excluded.wave, stage = excluded.stage, note = excluded.note, \
         due = excluded.due, open = excluded.open",
        columns.join(", "),
        columns.map(value).join(", ")
    );
    sqlx::query(sqlx::AssertSqlSafe(statement)).bind(rollout).bind(members).execute(connection).await?;
    Ok(())
}

struct MoveRollout {
    columns: Columns,
    members: Option<String>,
    seen: Option<String>,
    record: Option<AuditEntry>,
}

impl Write for MoveRollout {
    type Answer = bool;

    async fn run(&self, connection: &mut AnyConnection) -> Result<bool, StoreError> {
        if !self.columns.save(&mut *connection).await? {
            return Ok(false);
        }
        if let Some(members) = &self.members {
            put_members(&mut *connection, &self.columns.id, members).await?;
        }
        if let Some(seen) = &self.seen {
            sqlx::query(
                "UPDATE rollout_nodes SET seen = (SELECT CAST(it.value AS BIGINT) FROM json_each($2) AS it WHERE it.key = node_id) \
                 WHERE rollout_id = $1 AND node_id IN (SELECT key FROM json_each($2))",
            )
            .bind(&self.columns.id)
            .bind(seen)
            .execute(&mut *connection)
            .await?;
        }
        if let Some(record) = &self.record {
            insert(connection, record, None, "done").await?;
        }
        Ok(true)
    }

    fn changed(saved: &bool) -> bool {
        *saved
    }
}

struct StartRollout {
    columns: Columns,
    /// Ids, in JSON.
    nodes: String,
    members: Option<String>,
}

impl Write for StartRollout {
    type Answer = Started;

    async fn run(&self, connection: &mut AnyConnection) -> Result<Started, StoreError> {
        let Self { columns, nodes, members } = self;
        let conflict = sqlx::query(
            "SELECT rollouts.id FROM json_each($1) AS it JOIN rollout_nodes AS member ON member.node_id = it.value \
             JOIN rollouts ON rollouts.id = member.rollout_id WHERE rollouts.id <> $2 AND member.stage <> 'skipped' \
             AND rollouts.state IN ('canary', 'soaking', 'rolling', 'finishing', 'paused', 'reverting') LIMIT 1",
        )
        .bind(nodes)
        .bind(&columns.id)
        .fetch_optional(&mut *connection)
        .await?;
        if let Some(row) = conflict {
            let other = row.try_get::<String, _>(0)?.parse().map_err(corrupt("id"))?;
            return Ok(Started::Conflict(other));
        }
        if !columns.save(&mut *connection).await? {
            return Ok(Started::Outdated);
        }
        let older = "state IN ('completed', 'halted') AND org_id = $2 AND id <> $1 AND $3 = '' AND ($4 = '' OR node_group = $4)";
        for statement in [
            format!(
                "UPDATE rollout_nodes SET open = 0 WHERE rollout_id IN (SELECT id FROM rollouts WHERE {older})"
            ),
            format!(
                "UPDATE rollouts SET state = 'superseded', detail = '{{\"state\":\"superseded\"}}', due = 0, \
                 revision = revision + 1 WHERE {older}"
            ),
        ] {
            sqlx::query(sqlx::AssertSqlSafe(statement))
                .bind(&columns.id)
                .bind(columns.org.as_str())
                .bind(columns.only.as_deref().unwrap_or_default())
                .bind(columns.group.as_deref().unwrap_or_default())
                .execute(&mut *connection)
                .await?;
        }
        let others = sqlx::query(
            "SELECT DISTINCT rollout_id FROM rollout_nodes WHERE open = 1 AND node_id IN (SELECT value FROM json_each($1))",
        )
        .bind(nodes)
        .fetch_all(&mut *connection)
        .await?;
        sqlx::query(
            "UPDATE rollout_nodes SET open = 0, due = NULL, stage = 'skipped', note = json_set(note, '$.skip', 'superseded') \
             WHERE open = 1 AND node_id IN (SELECT value FROM json_each($1))",
        )
        .bind(nodes)
        .execute(&mut *connection)
        .await?;
        for other in others {
            recount(&mut *connection, &other.try_get::<String, _>(0)?).await?;
        }
        if let Some(members) = members {
            put_members(&mut *connection, &columns.id, members).await?;
        }
        Ok(Started::Done)
    }

    fn changed(started: &Started) -> bool {
        *started == Started::Done
    }
}

/// Counts a rollout's members anew.
async fn recount(connection: &mut AnyConnection, rollout: &str) -> Result<(), StoreError> {
    let rows = sqlx::query(
        "SELECT wave, stage, COUNT(*) FROM rollout_nodes WHERE rollout_id = $1 GROUP BY wave, stage",
    )
    .bind(rollout)
    .fetch_all(&mut *connection)
    .await?;
    let mut tally = Tally::default();
    for row in &rows {
        let wave = u8::try_from(row.try_get::<i64, _>(0)?).unwrap_or(u8::MAX);
        if let Some(stage) = Stage::parse(&row.try_get::<String, _>(1)?) {
            (0..row.try_get::<i64, _>(2)?).for_each(|_| tally.add(wave, stage));
        }
    }
    sqlx::query("UPDATE rollouts SET tally = $2, revision = revision + 1 WHERE id = $1")
        .bind(rollout)
        .bind(json("tally", &tally)?)
        .execute(connection)
        .await?;
    Ok(())
}

struct JoinRollout {
    rollout: Uuid,
    node: NodeId,
    wave: u8,
}

impl Write for JoinRollout {
    type Answer = bool;

    async fn run(&self, connection: &mut AnyConnection) -> Result<bool, StoreError> {
        let rollout = self.rollout.to_string();
        let added = sqlx::query(
            "INSERT INTO rollout_nodes (rollout_id, node_id, wave, place, stage, note, open, news) \
             SELECT $1, $2, $3, (SELECT COALESCE(MAX(place), 0) + 1 FROM rollout_nodes WHERE rollout_id = $1), 'late', '{}', 1, 1 \
             WHERE NOT EXISTS (SELECT 1 FROM rollout_nodes WHERE node_id = $2 AND (open = 1 OR rollout_id = $1)) \
             AND EXISTS (SELECT 1 FROM rollouts WHERE id = $1 AND state NOT IN ('draft', 'halted', 'reverting', 'aborted', 'superseded'))",
        )
        .bind(&rollout)
        .bind(self.node.as_str())
        .bind(i64::from(self.wave))
        .execute(&mut *connection)
        .await?;
        if added.rows_affected() == 0 {
            return Ok(false);
        }
        recount(connection, &rollout).await?;
        Ok(true)
    }

    fn changed(added: &bool) -> bool {
        *added
    }
}
