//! Rollouts: each with its waves, who is where and why, and the orders that its state takes.

use std::{collections::BTreeMap, sync::Arc};

use aio_protocol::time::Timestamp;
use askama::Template;
use axum::{
    extract::{Path, Query, State, rejection::QueryRejection},
    response::Response,
};
use serde::Deserialize;
use serde_json::Value;

use super::{
    Pages,
    frame::{Frame, Tab},
    node::ListOf,
    nodes::Pagination,
    session::Visitor,
    words,
};
use crate::api::error::Rejection;

/// A rollout, as the API shows it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rollout {
    id: String,
    version: String,
    group: Option<String>,
    node_id: Option<String>,
    settings: Settings,
    state: String,
    detail: Value,
    created_at: Timestamp,
    created_by: String,
    started_at: Option<Timestamp>,
    canaries: u64,
    in_flight: u64,
    nodes: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Settings {
    waves: Vec<u8>,
    #[serde(default)]
    urgent: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Member {
    node_id: String,
    name: Option<String>,
    wave: u8,
    stage: String,
    reason: Option<String>,
    code: Option<String>,
    daemon_version: Option<String>,
}

#[derive(Deserialize)]
struct Members {
    data: Vec<Member>,
    pagination: Pagination,
}

/// An order that somebody may give.
struct Order {
    name: &'static str,
    order: &'static str,
    about: &'static str,
    danger: bool,
}

/// A rollout in the list.
struct Line {
    it: Rollout,
    class: &'static str,
    whose: String,
    done: u64,
    all: u64,
    why: String,
}

#[derive(Template)]
#[template(path = "pages/updates.html")]
struct Updates {
    frame: Frame,
    lines: Vec<Line>,
}

#[derive(Template)]
#[template(path = "pages/rollout.html")]
struct RolloutPage {
    frame: Frame,
    line: Line,
    waves: String,
    stages: Vec<(String, u64)>,
    stage: String,
    members: Vec<Member>,
    total: u64,
    before: Option<u64>,
    after: Option<u64>,
    orders: Vec<Order>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Which {
    stage: String,
    page: String,
}

impl Line {
    fn new(it: Rollout) -> Self {
        let count = |stages: &[&str]| stages.iter().filter_map(|stage| it.nodes.get(*stage)).sum();
        let whose = match (&it.group, &it.node_id) {
            (Some(group), _) => format!("nodes with group={group}"),
            (None, Some(node)) => format!("node {node}"),
            (None, None) => "all nodes".to_owned(),
        };
        Self {
            class: match it.state.as_str() {
                "completed" => "good",
                "halted" => "bad",
                "paused" | "reverting" => "warn",
                "draft" | "aborted" | "superseded" => "",
                _ => "busy",
            },
            done: count(&["succeeded"]),
            all: it.nodes.values().sum::<u64>() - count(&["skipped"]),
            why: why(&it.detail),
            whose,
            it,
        }
    }
}

/// What there is to say of a state beside its name.
fn why(detail: &Value) -> String {
    let text = |name: &str| detail.get(name).and_then(Value::as_str);
    let number = |name: &str| detail.get(name).and_then(Value::as_u64);
    if let Some(criterion) = detail.get("criterion") {
        let words = criterion.as_str().map_or_else(|| criterion.to_string(), str::to_owned);
        return format!("it stopped itself: {words}");
    }
    if let Some(by) = detail.get("by") {
        return format!("paused by {}", by.as_str().map_or_else(|| by.to_string(), str::to_owned));
    }
    match (number("wave"), text("until"), text("opensAt")) {
        (Some(wave), _, Some(at)) => format!("wave {wave}, from {at} on"),
        (Some(wave), ..) => format!("wave {wave}"),
        (_, Some(until), _) => format!("until {until}"),
        _ => String::new(),
    }
}

pub(super) async fn list(State(_): State<Arc<Pages>>, visitor: Visitor) -> Response {
    match visitor.api.get::<ListOf<Rollout>>("/rollouts?limit=50").await {
        Ok(found) => visitor.scene.page(&Updates {
            frame: Frame::new(&visitor.scene, Tab::Updates),
            lines: found.data.into_iter().map(Line::new).collect(),
        }),
        Err(rejection) => visitor.scene.refuse(rejection),
    }
}

pub(super) async fn show(
    State(_): State<Arc<Pages>>,
    Path(id): Path<String>,
    visitor: Visitor,
    which: Result<Query<Which>, QueryRejection>,
) -> Response {
    let built = async { build(&visitor, &id, which?.0).await };
    match built.await {
        Ok(page) => visitor.scene.page(&page),
        Err(rejection) => visitor.scene.refuse(rejection),
    }
}

async fn build(visitor: &Visitor, id: &str, which: Which) -> Result<RolloutPage, Rejection> {
    let id = words::escaped(id);
    let line = Line::new(visitor.api.get(&format!("/rollouts/{id}")).await?);
    let page = which.page.parse().unwrap_or(1_u64).max(1);
    let stage = if which.stage.is_empty() {
        String::new()
    } else {
        format!("&stage={}", words::escaped(&which.stage))
    };
    let members: Members =
        visitor.api.get(&format!("/rollouts/{id}/nodes?limit=100&page={page}{stage}")).await?;
    Ok(RolloutPage {
        frame: Frame::new(&visitor.scene, Tab::Updates),
        waves: line.it.settings.waves.iter().map(|it| format!("{it} %")).collect::<Vec<_>>().join(", "),
        stages: line
            .it
            .nodes
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(it, n)| (it.clone(), *n))
            .collect(),
        stage: which.stage,
        total: members.pagination.total,
        before: (page > 1).then(|| page - 1),
        after: (page < members.pagination.total_pages).then(|| page + 1),
        members: members.data,
        orders: orders(&line.it.state),
        line,
    })
}

/// What a state takes; what it does not take the API refuses as well.
fn orders(state: &str) -> Vec<Order> {
    let start = Order { name: "Start", order: "start", about: "the canaries go first", danger: false };
    let pause = Order { name: "Pause", order: "pause", about: "those that switch finish", danger: false };
    let resume = Order {
        name: "Resume",
        order: "resume",
        about: "what has failed until now counts as known",
        danger: false,
    };
    let promote =
        Order { name: "Promote", order: "promote", about: "wait for no time between waves", danger: false };
    let abort = Order {
        name: "Abort",
        order: "abort",
        about: "offers are taken back; a node that switches goes on",
        danger: true,
    };
    match state {
        "draft" => vec![start, abort],
        "canary" | "soaking" | "rolling" => vec![pause, promote, abort],
        "finishing" | "completed" | "reverting" => vec![pause, abort],
        "paused" | "halted" => vec![resume, abort],
        _ => Vec::new(),
    }
}
