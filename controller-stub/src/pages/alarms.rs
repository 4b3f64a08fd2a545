//! What somebody should look at, who has seen it, and what is silenced.

use std::{collections::HashMap, sync::Arc};

use aio_protocol::time::Timestamp;
use askama::Template;
use axum::{
    extract::{Path, Query, State, rejection::QueryRejection},
    http::Method,
    response::Response,
};
use serde::Deserialize;
use serde_json::json;

use super::{
    Pages,
    frame::{Frame, Tab},
    node::ListOf,
    nodes::{Listed, Pagination},
    session::{Posted, Visitor},
    words,
};
use crate::api::error::Rejection;

/// An alarm, as the API shows it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Alarm {
    pub id: String,
    pub node_id: Option<String>,
    pub kind: String,
    pub level: String,
    pub state: String,
    pub reason: String,
    pub action: String,
    pub raised_at: Timestamp,
    pub acknowledged_at: Option<Timestamp>,
    pub acknowledged_by: Option<String>,
    pub resolved_at: Option<Timestamp>,
    pub resolution: Option<String>,
    pub told: bool,
}

impl Alarm {
    /// The class of its mark.
    pub(super) fn class(&self) -> &'static str {
        match (self.state.as_str(), self.level.as_str()) {
            ("resolved", _) => "good",
            (_, "critical") => "bad",
            _ => "warn",
        }
    }

    fn what(&self) -> String {
        self.kind.replace('_', " ")
    }
}

#[derive(Deserialize)]
struct AlarmPage {
    data: Vec<Alarm>,
    pagination: Pagination,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Silence {
    id: String,
    node_id: Option<String>,
    label: Option<String>,
    until: Timestamp,
    reason: String,
    created_by: String,
}

/// An alarm and its node's name.
struct Line {
    it: Alarm,
    name: String,
}

#[derive(Template)]
#[template(path = "pages/alarms.html")]
struct Alarms {
    frame: Frame,
    lines: Vec<Line>,
    silences: Vec<Silence>,
    total: u64,
    over: bool,
    /// The kind that the list is narrowed to, as an address says it; empty for all.
    kind: String,
    before: Option<u64>,
    after: Option<u64>,
}

/// Something that became of an alarm, as the API shows it.
#[derive(Deserialize)]
struct Moment {
    at: Timestamp,
    what: String,
    by: String,
    until: Option<Timestamp>,
    detail: Option<String>,
}

/// An alarm with what became of it, as the API shows it.
#[derive(Deserialize)]
struct WithTimeline {
    #[serde(flatten)]
    it: Alarm,
    timeline: Vec<Moment>,
}

#[derive(Template)]
#[template(path = "pages/alarm.html")]
struct OneAlarm {
    frame: Frame,
    it: Alarm,
    timeline: Vec<Moment>,
}

/// What became of an alarm, and who did it.
pub(super) async fn show(State(_): State<Arc<Pages>>, Path(id): Path<String>, visitor: Visitor) -> Response {
    match visitor.api.get::<WithTimeline>(&format!("/alarms/{}", words::escaped(&id))).await {
        Ok(WithTimeline { it, timeline }) => {
            let frame = Frame::new(&visitor.scene, Tab::Alarms);
            visitor.scene.page(&OneAlarm { frame, it, timeline })
        }
        Err(rejection) => visitor.scene.refuse(rejection),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Which {
    over: String,
    kind: String,
    page: String,
}

pub(super) async fn list(
    State(_): State<Arc<Pages>>,
    visitor: Visitor,
    which: Result<Query<Which>, QueryRejection>,
) -> Response {
    let built = async { build(&visitor, which?.0).await };
    match built.await {
        Ok(page) => visitor.scene.page(&page),
        Err(rejection) => visitor.scene.refuse(rejection),
    }
}

async fn build(visitor: &Visitor, which: Which) -> Result<Alarms, Rejection> {
    let page = which.page.parse().unwrap_or(1_u64).max(1);
    let over = !which.over.is_empty();
    let kind = words::escaped(&which.kind);
    let narrowed = if kind.is_empty() { String::new() } else { format!("&kind={kind}") };
    let path = format!("/alarms?limit=100&page={page}&resolved={over}{narrowed}");
    let found: AlarmPage = visitor.api.get(&path).await?;
    let silences: ListOf<Silence> = visitor.api.get("/silences").await?;
    let mut names = HashMap::new();
    let mut lines = Vec::new();
    for it in found.data {
        let name = match &it.node_id {
            Some(id) if names.contains_key(id) => names.get(id).cloned().unwrap_or_default(),
            Some(id) => {
                // A node that was purged has an id alone.
                let node = visitor.api.get::<Listed>(&format!("/nodes/{id}")).await;
                let name = node.map_or_else(|_| id.clone(), |node| node.name);
                names.insert(id.clone(), name.clone());
                name
            }
            None => String::new(),
        };
        lines.push(Line { it, name });
    }
    let Pagination { total, total_pages, .. } = found.pagination;
    Ok(Alarms {
        frame: Frame::new(&visitor.scene, Tab::Alarms),
        lines,
        silences: silences.data,
        total,
        over,
        kind,
        before: (page > 1).then(|| page - 1),
        after: (page < total_pages).then(|| page + 1),
    })
}

/// Says that an alarm was seen.
pub(super) async fn acknowledge(
    State(_): State<Arc<Pages>>,
    Path(id): Path<String>,
    Posted { visitor, .. }: Posted,
) -> Response {
    let path = format!("/alarms/{}/acknowledge", words::escaped(&id));
    match visitor.api.send(Method::POST, &path, None).await {
        Ok(_) => visitor.go_to("ui/alarms", "It is noted that you have seen it."),
        Err(rejection) => visitor.scene.refuse(rejection),
    }
}

/// Silences a label, or a node by its name.
pub(super) async fn silence(State(_): State<Arc<Pages>>, Posted { visitor, fields }: Posted) -> Response {
    let done = async {
        let hours = fields.text("hours").parse::<u64>();
        let hours = hours.map_err(|_| Rejection::field("hours: must be a number of hours"))?;
        let mut body = json!({ "seconds": hours.saturating_mul(3600), "reason": fields.text("reason") });
        let (name, value) = match (fields.some("node"), fields.some("label")) {
            (Some(name), None) => ("nodeId", node_named(&visitor, name).await?),
            (None, Some(label)) => ("label", label.to_owned()),
            _ => return Err(Rejection::field("node: either a node or a label must be named")),
        };
        if let Some(body) = body.as_object_mut() {
            body.insert(name.to_owned(), value.into());
        }
        visitor.api.send(Method::POST, "/silences", Some(body)).await
    };
    match done.await {
        Ok(_) => {
            visitor.go_to("ui/alarms", "It is silenced: its alarms are raised and listed, and not told.")
        }
        Err(rejection) => visitor.scene.refuse(rejection),
    }
}

async fn node_named(visitor: &Visitor, name: &str) -> Result<String, Rejection> {
    let path = format!("/nodes?name={}&limit=2", words::escaped(&name.replace('*', "")));
    let found: ListOf<Listed> = visitor.api.get(&path).await?;
    let node = found.data.into_iter().next();
    node.map(|node| node.id.to_string()).ok_or_else(|| Rejection::no_node(name))
}

/// Ends a silence.
pub(super) async fn end_silence(
    State(_): State<Arc<Pages>>,
    Path(id): Path<String>,
    Posted { visitor, .. }: Posted,
) -> Response {
    let path = format!("/silences/{}", words::escaped(&id));
    match visitor.api.send(Method::DELETE, &path, None).await {
        Ok(_) => visitor.go_to("ui/alarms", "The silence is over."),
        Err(rejection) => visitor.scene.refuse(rejection),
    }
}
