//! What happened to the organisation's nodes, newest first, as the built-in NOTI has it.

use std::sync::Arc;

use aio_protocol::{event::NodeEvent, time::Timestamp};
use askama::Template;
use axum::{
    extract::{Query, State, rejection::QueryRejection},
    response::Response,
};
use serde::Deserialize;
use serde_json::Value;

use super::{
    Pages,
    frame::{Frame, Tab},
    session::Visitor,
    words,
};
use crate::{api::error::Rejection, store::Received};

const SHOWN: u64 = 200;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Which {
    /// The `seq` of the last one that was shown.
    before: String,
}

/// An event in the list.
pub(super) struct Line {
    pub at: Timestamp,
    pub kind: String,
    pub class: &'static str,
    pub node_id: String,
    pub node_name: String,
    pub detail: String,
}

impl Line {
    pub(super) fn new(event: &NodeEvent) -> Self {
        let value = serde_json::to_value(event).unwrap_or_default();
        let of = |value: &Value, name: &str| {
            value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let data = value.get("data").cloned().unwrap_or_default();
        let kind = of(&value, "type");
        let class = match kind.as_str() {
            "node.connected" | "node.updated" | "node.resumed" => "good",
            "node.disconnected" | "node.installation_failed" | "node.update_failed" | "alarm.raised" => "bad",
            "node.installation_started" | "node.registered" => "busy",
            "node.health_changed" => match data.pointer("/health/state").and_then(Value::as_str) {
                Some("ok") => "good",
                Some("unhealthy") => "bad",
                _ => "warn",
            },
            _ => "",
        };
        Self {
            at: event.timestamp,
            class,
            node_id: of(&data, "nodeId"),
            node_name: of(&data, "nodeName"),
            detail: detail(&data),
            kind,
        }
    }
}

/// What only this event says, in few words.
fn detail(data: &Value) -> String {
    let text = |name: &str| data.get(name).and_then(Value::as_str);
    let mut parts = Vec::new();
    if let Some(error) = data.get("error") {
        let of = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
        parts.push(format!("{}: {}", of("code"), of("message")));
    }
    if let Some(health) = data.get("health") {
        let of = |name: &str| health.get(name).and_then(Value::as_str).map(str::to_owned);
        parts.extend(of("state"));
        parts.extend(of("worst"));
    }
    for name in ["reason", "ipAddress", "version", "from", "to", "state"] {
        if let Some(value) = text(name) {
            parts.push(if name == "reason" { value.replace('_', " ") } else { format!("{name} {value}") });
        }
    }
    if let Some(gpus) = data.get("gpuDevices").and_then(Value::as_array) {
        parts.push(words::counted(&(gpus.len() as u64), "GPU"));
    }
    parts.join(", ")
}

#[derive(Template)]
#[template(path = "pages/events.html")]
struct Events {
    frame: Frame,
    lines: Vec<Line>,
    older: Option<i64>,
    newest: bool,
}

pub(super) async fn list(
    State(_): State<Arc<Pages>>,
    visitor: Visitor,
    which: Result<Query<Which>, QueryRejection>,
) -> Response {
    let built = async {
        let before = which?.0.before.parse().ok();
        let org = &visitor.user().org_id;
        let mut found: Vec<Received> = visitor.app().store.newest_events(org, before, SHOWN + 1).await?;
        let more = found.len() as u64 > SHOWN;
        found.truncate(SHOWN as usize);
        Ok::<_, Rejection>(Events {
            frame: Frame::new(&visitor.scene, Tab::Events),
            older: found.last().filter(|_| more).map(|last| last.seq),
            lines: found.iter().map(|it| Line::new(&it.event)).collect(),
            newest: before.is_none(),
        })
    };
    match built.await {
        Ok(page) => visitor.scene.page(&page),
        Err(rejection) => visitor.scene.refuse(rejection),
    }
}
