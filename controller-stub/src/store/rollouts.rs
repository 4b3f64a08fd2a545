//! Rollouts and their nodes, as they are read. A node's save says that there is news of it (`nodes`), so that
//! a look at a rollout reads only whoever changed. What is written stands in `rollout_moves`.

use std::collections::BTreeSet;

use aio_protocol::{
    ids::{NodeId, OwnerId},
    node::NodeStatus,
    time::Timestamp,
    update::UpdateReport,
};
use sqlx::{Row, any::AnyRow};
use uuid::Uuid;

use super::{
    database::Store,
    error::StoreError,
    rows::{Window, corrupt, count, from_json, node_id, optional_time, signed, status, time},
};
use crate::rollout::{Candidate, Group, Member, Rollout, Sight, Stage, version_of};

/// A member whose node has said something, or that is due.
#[derive(Debug, Clone)]
pub(crate) struct News {
    pub member: Member,
    pub sight: Sight,
    /// Which save of the node this is.
    pub news: i64,
}

/// What a rollout has offered a node, and what the node's worker says.
#[derive(Debug, Clone)]
pub(crate) struct OfferOfNode {
    pub rollout: Rollout,
    pub member: Member,
    pub report: UpdateReport,
    /// What holds for the node's group.
    pub group: Group,
}

/// A member as a list shows it.
#[derive(Debug, Clone)]
pub(crate) struct ListedMember {
    pub member: Member,
    pub name: String,
    pub version: Option<String>,
    pub report: UpdateReport,
}

/// What is known of a node in a rollout.
const SIGHT: &str = "nodes.status, nodes.websocket_connected, nodes.daemon_version, nodes.update_report, \
    nodes.updates_itself, nodes.pin, node_groups.settings AS group_settings";

const GROUP_OF_NODE: &str = "LEFT JOIN node_groups ON node_groups.org_id = nodes.org_id AND node_groups.name = json_extract(nodes.labels, '$.group')";

impl Store {
    /// A rollout.
    pub(crate) async fn rollout(&self, id: Uuid) -> Result<Option<Rollout>, StoreError> {
        let row = sqlx::query("SELECT * FROM rollouts WHERE id = $1").bind(id.to_string());
        row.fetch_optional(&mut *self.pool.take().await?).await?.as_ref().map(read).transpose()
    }

    /// A page of an organisation's rollouts, newest first, and how many there are.
    pub(crate) async fn rollouts(
        &self,
        org: &OwnerId,
        window: Window,
    ) -> Result<(Vec<Rollout>, u64), StoreError> {
        let _share = self.shares.take(org).await;
        let total = sqlx::query("SELECT COUNT(*) FROM rollouts WHERE org_id = $1").bind(org.as_str());
        let total = count(&total.fetch_one(&mut *self.lists.take().await?).await?, 0)?;
        let rows = sqlx::query(
            "SELECT * FROM rollouts WHERE org_id = $1 ORDER BY created_at DESC, id DESC LIMIT $2 OFFSET $3",
        )
        .bind(org.as_str())
        .bind(signed(window.limit))
        .bind(signed(window.offset))
        .fetch_all(&mut *self.lists.take().await?)
        .await?;
        Ok((rows.iter().map(read).collect::<Result<_, _>>()?, total))
    }

    /// The rollouts of which there is news, or that are due.
    pub(crate) async fn rollouts_to_look_at(&self, now: Timestamp) -> Result<BTreeSet<Uuid>, StoreError> {
        let rows = sqlx::query(
            "SELECT rollout_id FROM rollout_nodes WHERE news > seen \
             UNION SELECT rollout_id FROM rollout_nodes WHERE due <= $1 UNION SELECT id FROM rollouts WHERE due <= $1",
        )
        .bind(now.as_millis())
        .fetch_all(&mut *self.pool.take().await?)
        .await?;
        rows.iter().map(|row| row.try_get::<String, _>(0)?.parse().map_err(corrupt("rollout_id"))).collect()
    }

    /// The rollouts that may have something to give to nodes.
    pub(crate) async fn started_rollouts(&self) -> Result<Vec<Rollout>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM rollouts WHERE state NOT IN ('draft', 'aborted', 'superseded') ORDER BY started_at DESC",
        )
        .fetch_all(&mut *self.pool.take().await?)
        .await?;
        rows.iter().map(read).collect()
    }

    /// Members of which there is news, or that are due; at most `limit`.
    pub(crate) async fn rollout_news(
        &self,
        rollout: Uuid,
        now: Timestamp,
        limit: u64,
    ) -> Result<Vec<News>, StoreError> {
        let statement = format!(
            "SELECT member.*, {SIGHT} FROM rollout_nodes AS member JOIN nodes ON nodes.id = member.node_id {GROUP_OF_NODE} \
             WHERE member.rollout_id = $1 AND member.node_id IN (SELECT node_id FROM rollout_nodes WHERE rollout_id = $1 AND news > seen \
             UNION SELECT node_id FROM rollout_nodes WHERE rollout_id = $1 AND due <= $2 LIMIT $3)"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(statement))
            .bind(rollout.to_string())
            .bind(now.as_millis())
            .bind(signed(limit))
            .fetch_all(&mut *self.pool.take().await?)
            .await?;
        rows.iter()
            .map(|row| Ok(News { member: member(row)?, sight: sight(row)?, news: row.try_get("news")? }))
            .collect()
    }

    /// Members of a stage in the waves from `waves.0` to `waves.1`, in their order, with what is known of
    /// their nodes.
    pub(crate) async fn members_of_stage(
        &self,
        rollout: Uuid,
        stage: Stage,
        waves: (u8, u8),
        limit: u32,
    ) -> Result<Vec<(Member, Sight)>, StoreError> {
        let statement = format!(
            "SELECT member.*, {SIGHT} FROM rollout_nodes AS member JOIN nodes ON nodes.id = member.node_id {GROUP_OF_NODE} \
             WHERE member.rollout_id = $1 AND member.stage = $2 AND member.wave BETWEEN $3 AND $4 \
             ORDER BY member.wave, member.place LIMIT $5"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(statement))
            .bind(rollout.to_string())
            .bind(stage.as_str())
            .bind(i64::from(waves.0))
            .bind(i64::from(waves.1))
            .bind(i64::from(limit))
            .fetch_all(&mut *self.pool.take().await?)
            .await?;
        rows.iter().map(|row| Ok((member(row)?, sight(row)?))).collect()
    }

    /// The nodes of a rollout that were offered something.
    pub(crate) async fn nodes_of_rollout(&self, rollout: Uuid) -> Result<Vec<NodeId>, StoreError> {
        let rows = sqlx::query(
            "SELECT node_id FROM rollout_nodes WHERE rollout_id = $1 AND json_extract(note, '$.offer') IS NOT NULL",
        )
        .bind(rollout.to_string())
        .fetch_all(&mut *self.pool.take().await?)
        .await?;
        rows.iter().map(node_id).collect()
    }

    /// All members of a rollout.
    pub(crate) async fn members(&self, rollout: Uuid) -> Result<Vec<Member>, StoreError> {
        let rows = sqlx::query("SELECT * FROM rollout_nodes WHERE rollout_id = $1 ORDER BY wave, place")
            .bind(rollout.to_string())
            .fetch_all(&mut *self.lists.take().await?)
            .await?;
        rows.iter().map(member).collect()
    }

    /// A page of a rollout's members in their order, of one stage or of all, and how many there are.
    pub(crate) async fn listed_members(
        &self,
        rollout: Uuid,
        stage: Option<Stage>,
        window: Window,
    ) -> Result<(Vec<ListedMember>, u64), StoreError> {
        let (rollout, stage) = (rollout.to_string(), stage.map_or("", Stage::as_str));
        let rows = sqlx::query(
            "SELECT member.*, nodes.name, nodes.daemon_version, nodes.update_report FROM rollout_nodes AS member \
             JOIN nodes ON nodes.id = member.node_id WHERE rollout_id = $1 AND ($2 = '' OR stage = $2) \
             ORDER BY wave, place LIMIT $3 OFFSET $4",
        )
        .bind(&rollout)
        .bind(stage)
        .bind(signed(window.limit))
        .bind(signed(window.offset))
        .fetch_all(&mut *self.lists.take().await?)
        .await?;
        let total = sqlx::query(
            "SELECT COUNT(*) FROM rollout_nodes WHERE rollout_id = $1 AND ($2 = '' OR stage = $2)",
        )
        .bind(&rollout)
        .bind(stage)
        .fetch_one(&mut *self.lists.take().await?)
        .await?;
        let listed = |row: &AnyRow| {
            Ok::<_, StoreError>(ListedMember {
                member: member(row)?,
                name: row.try_get("name")?,
                version: row.try_get("daemon_version")?,
                report: report(row)?.unwrap_or_default(),
            })
        };
        Ok((rows.iter().map(listed).collect::<Result<_, _>>()?, count(&total, 0)?))
    }

    /// The newest rollouts that have offered this node something, the open one first, with what decides
    /// what its worker is to be told. One statement: a whole fleet asks when a controller is back.
    pub(crate) async fn offers_of_node(&self, node: &NodeId) -> Result<Vec<OfferOfNode>, StoreError> {
        let statement = format!(
            "SELECT rollouts.*, member.node_id, member.wave, member.place, member.stage, member.note, \
             member.due AS member_due, nodes.update_report, node_groups.settings AS group_settings \
             FROM rollout_nodes AS member JOIN rollouts ON rollouts.id = member.rollout_id \
             JOIN nodes ON nodes.id = member.node_id {GROUP_OF_NODE} \
             WHERE member.node_id = $1 AND json_extract(member.note, '$.offer') IS NOT NULL \
             ORDER BY member.open DESC, rollouts.started_at DESC LIMIT 3"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(statement))
            .bind(node.as_str())
            .fetch_all(&mut *self.pool.take().await?)
            .await?;
        rows.iter()
            .map(|row| {
                let due = optional_time(row, "member_due")?;
                Ok(OfferOfNode {
                    rollout: read(row)?,
                    member: Member { due, ..member(row)? },
                    report: report(row)?.unwrap_or_default(),
                    group: group_settings(row)?.unwrap_or_default(),
                })
            })
            .collect()
    }

    /// The newest rollout that is about this node, unless the node belongs to it or to an open one.
    pub(crate) async fn rollout_to_join(&self, node: &NodeId) -> Result<Option<Rollout>, StoreError> {
        let row = sqlx::query(
            "SELECT * FROM (SELECT rollouts.* FROM nodes JOIN rollouts ON rollouts.org_id = nodes.org_id \
             WHERE nodes.id = $1 AND nodes.updates_itself = 1 AND rollouts.only_node IS NULL \
             AND rollouts.state NOT IN ('draft', 'aborted', 'superseded') \
             AND (rollouts.node_group IS NULL OR rollouts.node_group = json_extract(nodes.labels, '$.group')) \
             ORDER BY rollouts.started_at DESC LIMIT 1) AS newest WHERE NOT EXISTS \
             (SELECT 1 FROM rollout_nodes WHERE node_id = $1 AND (open = 1 OR rollout_id = newest.id))",
        );
        row.bind(node.as_str())
            .fetch_optional(&mut *self.pool.take().await?)
            .await?
            .as_ref()
            .map(read)
            .transpose()
    }

    /// The nodes of an organisation that a rollout to this group, or to this node alone, is about.
    pub(crate) async fn candidates(
        &self,
        org: &OwnerId,
        group: Option<&str>,
        only: Option<&NodeId>,
    ) -> Result<Vec<Candidate>, StoreError> {
        let statement = format!(
            "SELECT nodes.id, {SIGHT}, COALESCE(json_extract(system_info, '$.architecture'), '') AS platform, \
             COALESCE(json_extract(system_info, '$.os.name') || ' ' || json_extract(system_info, '$.os.version'), '') AS os, \
             COALESCE(json_extract(system_info, '$.hardware.gpuDriver.version'), '') AS driver, \
             COALESCE(json_extract(system_info, '$.hardware.gpu[0].model'), '') AS gpu FROM nodes {GROUP_OF_NODE} \
             WHERE nodes.org_id = $1 AND nodes.status NOT IN ('inactive', 'pending') \
             AND ($2 = '' OR json_extract(nodes.labels, '$.group') = $2) AND ($3 = '' OR nodes.id = $3)"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(statement))
            .bind(org.as_str())
            .bind(group.unwrap_or_default())
            .bind(only.map_or("", NodeId::as_str))
            .fetch_all(&mut *self.lists.take().await?)
            .await?;
        let text = |row: &AnyRow, column| row.try_get::<String, _>(column);
        rows.iter()
            .map(|row| {
                Ok(Candidate {
                    node: node_id(row)?,
                    sight: sight(row)?,
                    kinds: [
                        text(row, "platform")?,
                        text(row, "os")?,
                        text(row, "driver")?,
                        text(row, "gpu")?,
                    ],
                })
            })
            .collect()
    }

    /// How many nodes run each version; for figures.
    pub(crate) async fn nodes_by_version(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let rows = sqlx::query(
            "SELECT COALESCE(daemon_version, ''), COUNT(*) FROM nodes WHERE status <> 'inactive' GROUP BY 1 ORDER BY 2 DESC",
        )
        .fetch_all(&mut *self.lists.take().await?)
        .await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, count(row, 1)?))).collect()
    }
}

pub(super) fn read(row: &AnyRow) -> Result<Rollout, StoreError> {
    let text = |column| row.try_get::<String, _>(column);
    let optional = |column| row.try_get::<Option<String>, _>(column);
    let small = |column| Ok::<_, StoreError>(u32::try_from(row.try_get::<i64, _>(column)?).unwrap_or(0));
    Ok(Rollout {
        id: text("id")?.parse().map_err(corrupt("id"))?,
        org: text("org_id")?.parse().map_err(corrupt("org_id"))?,
        version: text("version")?.parse().map_err(corrupt("version"))?,
        group: optional("node_group")?,
        only: optional("only_node")?.map(|id| id.parse().map_err(corrupt("only_node"))).transpose()?,
        settings: from_json("settings", &text("settings")?)?,
        created_at: time(row, "created_at")?,
        actor: text("actor")?,
        started_at: optional_time(row, "started_at")?,
        state: from_json("detail", &text("detail")?)?,
        canaries: small("canaries")?,
        in_flight: small("in_flight")?,
        tally: from_json("tally", &text("tally")?)?,
        pardoned: from_json("pardoned", &text("pardoned")?)?,
        progressed_at: time(row, "progressed_at")?,
        revision: row.try_get("revision")?,
    })
}

fn member(row: &AnyRow) -> Result<Member, StoreError> {
    let stage = row.try_get::<String, _>("stage")?;
    let small = |column| row.try_get::<i64, _>(column);
    Ok(Member {
        node: row.try_get::<String, _>("node_id")?.parse().map_err(corrupt("node_id"))?,
        wave: u8::try_from(small("wave")?).unwrap_or(u8::MAX),
        place: u32::try_from(small("place")?).unwrap_or(u32::MAX),
        stage: from_json("stage", &format!("\"{stage}\""))?,
        note: from_json("note", &row.try_get::<String, _>("note")?)?,
        due: optional_time(row, "due")?,
    })
}

fn report(row: &AnyRow) -> Result<Option<UpdateReport>, StoreError> {
    let text = row.try_get::<Option<String>, _>("update_report")?;
    text.map(|text| from_json("update_report", &text)).transpose()
}

fn group_settings(row: &AnyRow) -> Result<Option<Group>, StoreError> {
    let text = row.try_get::<Option<String>, _>("group_settings")?;
    text.map(|text| from_json("group", &text)).transpose()
}

fn sight(row: &AnyRow) -> Result<Sight, StoreError> {
    let optional = |column| row.try_get::<Option<String>, _>(column);
    let status = status(row, "status")?;
    let connected = row.try_get::<i64, _>("websocket_connected")? != 0;
    let group = group_settings(row)?;
    let own = optional("pin")?.map(|text| text.parse().map_err(corrupt("pin"))).transpose()?;
    Ok(Sight {
        // In maintenance a node has no lease that says whether it is there.
        online: match status {
            NodeStatus::Online => true,
            NodeStatus::Maintenance => connected,
            _ => false,
        },
        version: optional("daemon_version")?.as_deref().and_then(version_of),
        able: row.try_get::<i64, _>("updates_itself")? != 0,
        report: report(row)?.unwrap_or_default(),
        pin: own.or(group.and_then(|group| group.pin)),
        decommissioned: status == NodeStatus::Inactive,
    })
}
