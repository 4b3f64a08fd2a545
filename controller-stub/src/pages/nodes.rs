//! The list of nodes: searched, filtered, sorted, a page at a time. What is done to many goes by the filter
//! and not by what a page happens to show.

use std::{collections::BTreeMap, sync::Arc};

use aio_protocol::{
    container::Container,
    ids::NodeId,
    node::NodeStatus,
    telemetry::{Health, HealthSummary},
    time::Timestamp,
};
use askama::Template;
use axum::{
    extract::{Query, State, rejection::QueryRejection},
    response::Response,
};
use serde::Deserialize;

use super::{
    Pages,
    counts::{Count, status_counts},
    frame::{Frame, Tab},
    session::Visitor,
    words,
};
use crate::{api::error::Rejection, node::Installation};

const PER_PAGE: u64 = 50;

/// `GET /nodes`.
#[derive(Deserialize)]
pub(super) struct NodePage {
    pub data: Vec<Listed>,
    pub pagination: Pagination,
    pub statistics: Statistics,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pagination {
    pub total: u64,
    pub total_pages: u64,
    #[serde(default)]
    pub next_cursor: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Statistics {
    pub by_status: BTreeMap<NodeStatus, u64>,
}

/// A node, as the API lists it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listed {
    #[serde(rename = "_id")]
    pub id: NodeId,
    pub name: String,
    pub status: NodeStatus,
    pub labels: BTreeMap<String, String>,
    pub websocket_connected: bool,
    pub last_seen_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub connection_established_at: Option<Timestamp>,
    pub ip_address: Option<String>,
    pub daemon_version: Option<String>,
    pub installation: Option<Installation>,
    pub update: Option<aio_protocol::update::UpdateReport>,
    pub pin: Option<String>,
    pub gpu_health: Option<HealthSummary>,
    pub identity_conflict: Option<serde_json::Value>,
    #[serde(default)]
    pub system_info: Option<serde_json::Value>,
    #[serde(default)]
    pub containers: Option<Vec<Container>>,
    #[serde(default)]
    pub containers_left_out: u32,
}

/// A node in a table.
pub(super) struct Row {
    pub id: NodeId,
    pub name: String,
    pub labels: Vec<String>,
    pub status: &'static str,
    pub about: &'static str,
    pub health: &'static str,
    /// What is wrong with it, in a sentence.
    pub reason: String,
    pub version: String,
    pub address: String,
    pub last_seen_at: Option<Timestamp>,
}

impl From<Listed> for Row {
    fn from(it: Listed) -> Self {
        Self {
            reason: reason(&it),
            status: it.status.as_str(),
            about: words::about_status(&it.status),
            labels: it.labels.iter().map(|(key, value)| label(key, value)).collect(),
            health: words::health(it.gpu_health.as_ref()),
            version: it.daemon_version.unwrap_or_default(),
            address: it.ip_address.unwrap_or_default(),
            last_seen_at: it.last_seen_at,
            id: it.id,
            name: it.name,
        }
    }
}

pub(super) fn label(key: &str, value: &str) -> String {
    if value.is_empty() { key.to_owned() } else { format!("{key}={value}") }
}

/// Why a node needs somebody: the worst of what is known.
pub(super) fn reason(node: &Listed) -> String {
    if node.identity_conflict.is_some() {
        return "another machine claims to be this node and is refused".to_owned();
    }
    let installation = node.installation.as_ref();
    if node.status == NodeStatus::Error
        && let Some(error) = installation.and_then(|it| it.error.as_ref())
    {
        return format!("{}: {}", error.code, error.message);
    }
    if node.status == NodeStatus::Installing {
        let step = installation.and_then(|it| it.step.clone()).unwrap_or_else(|| "it has begun".to_owned());
        return match installation.and_then(|it| it.percent) {
            Some(percent) => format!("{step}, {percent} %"),
            None => step,
        };
    }
    let health = node.gpu_health.as_ref().filter(|health| health.state != Health::Ok);
    if let Some(worst) = health.and_then(|health| health.worst.clone()) {
        return match health.and_then(|health| health.action.in_words()) {
            Some(action) => format!("{worst}; {action}"),
            None => worst,
        };
    }
    String::new()
}

/// What the list is narrowed to, as the page's address says it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Asked {
    q: String,
    status: String,
    health: String,
    version: String,
    label: String,
    sort: String,
    page: String,
    done: String,
}

impl Asked {
    /// The conditions as the API's query; without the order and the page.
    pub(super) fn conditions(&self) -> String {
        let mut query = Vec::new();
        let text = self.q.trim();
        if !text.is_empty() {
            let pattern = if text.contains('*') { text.to_owned() } else { format!("*{text}*") };
            query.push(format!("name={}", words::escaped(&pattern)));
        }
        for (name, value) in [
            ("status", &self.status),
            ("health", &self.health),
            ("version", &self.version),
            ("label", &self.label),
        ] {
            if !value.trim().is_empty() {
                query.push(format!("{name}={}", words::escaped(value.trim())));
            }
        }
        query.join("&")
    }

    /// The same list as an address of the pages, with another order or page.
    fn address(&self, sort: &str, page: u64) -> String {
        let mut query = Vec::new();
        for (name, value) in [
            ("q", &self.q),
            ("status", &self.status),
            ("health", &self.health),
            ("version", &self.version),
            ("label", &self.label),
        ] {
            if !value.trim().is_empty() {
                query.push(format!("{name}={}", words::escaped(value.trim())));
            }
        }
        if !sort.is_empty() && sort != "name" {
            query.push(format!("sort={}", words::escaped(sort)));
        }
        if page > 1 {
            query.push(format!("page={page}"));
        }
        if query.is_empty() { "ui/nodes".to_owned() } else { format!("ui/nodes?{}", query.join("&")) }
    }

    fn sort(&self) -> &str {
        if self.sort.is_empty() { "name" } else { &self.sort }
    }

    fn is_narrowed(&self) -> bool {
        !self.conditions().is_empty()
    }
}

/// A column that orders the list.
struct Column {
    name: &'static str,
    page: String,
    /// For the browser: `ascending`, `descending` or `none`.
    order: &'static str,
}

#[derive(Template)]
#[template(path = "pages/nodes.html")]
struct Nodes {
    frame: Frame,
    asked: Asked,
    statuses: Vec<Count>,
    all: u64,
    total: u64,
    healths: [&'static str; 5],
    rows: Vec<Row>,
    by_name: Column,
    by_state: Column,
    by_version: Column,
    by_age: Column,
    narrowed: bool,
    /// The filter as the form for many sends it.
    conditions: String,
    from: u64,
    to: u64,
    before: Option<String>,
    after: Option<String>,
}

pub(super) async fn list(
    State(_): State<Arc<Pages>>,
    visitor: Visitor,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Response {
    let built = async { build(&visitor, asked?.0).await };
    match built.await {
        Ok(page) => visitor.scene.page(&page),
        Err(rejection) => visitor.scene.refuse(rejection),
    }
}

async fn build(visitor: &Visitor, asked: Asked) -> Result<Nodes, Rejection> {
    let conditions = asked.conditions();
    let page = asked.page.parse().unwrap_or(1_u64).max(1);
    let sort = asked.sort();
    // Those that are gone are listed where somebody asks for them.
    let shown = if asked.status.is_empty() { in_service(&conditions) } else { conditions.clone() };
    let query = format!("/nodes?{shown}&sort={}&limit={PER_PAGE}&page={page}", words::escaped(sort));
    let listed: NodePage = visitor.api.get(&query).await?;
    let Pagination { total, total_pages, .. } = listed.pagination;
    let mut statuses = status_counts(&listed.statistics.by_status);
    let all = statuses.iter().map(|it| it.count).sum();
    let gone = listed.statistics.by_status.get(&NodeStatus::Inactive).copied().unwrap_or_default();
    statuses.push(Count {
        name: "inactive",
        about: words::about_status(&NodeStatus::Inactive),
        count: gone,
        page: "ui/nodes?status=inactive".to_owned(),
    });
    let column = |name, key: &str| {
        let (order, next) = match sort.strip_prefix('-') {
            None if sort == key => ("ascending", format!("-{key}")),
            Some(descending) if descending == key => ("descending", key.to_owned()),
            _ => ("none", key.to_owned()),
        };
        Column { name, page: asked.address(&next, 1), order }
    };
    let (by_name, by_state) = (column("Name", "name"), column("State", "status"));
    let (by_version, by_age) = (column("Version", "version"), column("Last heard", "lastSeenAt"));
    let from = if total == 0 { 0 } else { (page - 1) * PER_PAGE + 1 };
    Ok(Nodes {
        frame: Frame::new(&visitor.scene, Tab::Nodes),
        statuses,
        all,
        total,
        to: total.min(page * PER_PAGE),
        from,
        before: (page > 1).then(|| asked.address(sort, page - 1)),
        after: (page < total_pages).then(|| asked.address(sort, page + 1)),
        narrowed: asked.is_narrowed(),
        conditions: shown,
        healths: ["", "ok", "degraded", "unknown", "unhealthy"],
        by_name,
        by_state,
        by_version,
        by_age,
        rows: listed.data.into_iter().map(Row::from).collect(),
        asked,
    })
}

/// `conditions`, and that a node is in service.
fn in_service(conditions: &str) -> String {
    let all: Vec<_> = NodeStatus::ALL.into_iter().filter(|it| *it != NodeStatus::Inactive).collect();
    let statuses: Vec<_> = all.iter().map(|it| it.as_str()).collect();
    let joint = if conditions.is_empty() { "" } else { "&" };
    format!("{conditions}{joint}status={}", statuses.join(","))
}
