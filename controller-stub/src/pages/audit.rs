//! What people did, or were refused.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::{Query, State, rejection::QueryRejection},
    response::Response,
};
use serde::Deserialize;

use super::{
    Pages,
    frame::{Frame, Tab},
    node::Recorded,
    session::Visitor,
    words,
};
use crate::api::error::Rejection;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Which {
    actor: String,
    action: String,
    cursor: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Trail {
    data: Vec<Recorded>,
    next_cursor: Option<i64>,
}

#[derive(Template)]
#[template(path = "pages/audit.html")]
struct Audit {
    frame: Frame,
    asked: Which,
    records: Vec<Recorded>,
    older: Option<String>,
}

impl Recorded {
    pub(super) fn class(&self) -> &'static str {
        match self.outcome.as_str() {
            "done" => "good",
            "unchanged" => "",
            _ => "bad",
        }
    }

    /// What was asked for, on one line.
    pub(super) fn details(&self) -> String {
        let detail = self.detail.as_ref().map(ToString::to_string);
        [self.target.clone(), detail].into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

pub(super) async fn list(
    State(_): State<Arc<Pages>>,
    visitor: Visitor,
    which: Result<Query<Which>, QueryRejection>,
) -> Response {
    let built = async {
        let asked = which?.0;
        let mut query = String::new();
        for (name, value) in [("actor", &asked.actor), ("action", &asked.action)] {
            if !value.trim().is_empty() {
                query.push_str(&format!("&{name}={}", words::escaped(value.trim())));
            }
        }
        let cursor = asked.cursor.parse::<i64>().map(|it| format!("&cursor={it}")).unwrap_or_default();
        let trail: Trail = visitor.api.get(&format!("/audit?limit=100{query}{cursor}")).await?;
        Ok::<_, Rejection>(Audit {
            frame: Frame::new(&visitor.scene, Tab::Audit),
            older: trail.next_cursor.map(|next| format!("ui/audit?cursor={next}{query}")),
            records: trail.data,
            asked,
        })
    };
    match built.await {
        Ok(page) => visitor.scene.page(&page),
        Err(rejection) => visitor.scene.refuse(rejection),
    }
}
