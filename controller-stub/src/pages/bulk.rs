//! What is done to every node of a filter. Each node is asked for by itself, so one that refuses keeps no
//! other from it, and each stands in the audit trail.

use std::{collections::BTreeMap, sync::Arc};

use aio_protocol::error_code::ErrorCode;
use askama::Template;
use axum::{extract::State, http::Method, response::Response};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    Pages,
    frame::{Frame, Tab},
    nodes::NodePage,
    session::{Posted, Visitor},
    words,
};
use crate::api::{error::Rejection, roles::Permission};

/// So many nodes are asked for at a time; their changes share commits.
const AT_ONCE: usize = 64;

/// So many nodes are named of those that refuse for the same reason.
const NAMED: usize = 5;

#[derive(Template)]
#[template(path = "pages/bulk.html")]
struct Outcome {
    frame: Frame,
    action: String,
    done: u64,
    refused: Vec<Refused>,
}

/// Nodes that refuse for the same reason.
struct Refused {
    why: String,
    count: u64,
    names: Vec<String>,
}

pub(super) async fn act(State(_): State<Arc<Pages>>, Posted { visitor, fields }: Posted) -> Response {
    let (conditions, action) = (fields.text("conditions"), fields.text("action"));
    let built = async {
        let (path, method, body) = match action {
            "maintenance" | "resume" => (format!("/{action}"), Method::POST, None),
            "label" => (String::new(), Method::PATCH, Some(label(fields.text("label"))?)),
            _ => return Err(Rejection::field("action: must be maintenance, resume or label")),
        };
        if !visitor.may(Permission::Manage) {
            // Before the list is read: the API would refuse each of its nodes.
            let message = "this takes a role that may manage nodes";
            return Err(Rejection::forbidden(ErrorCode::Forbidden, message));
        }
        let nodes = nodes_of(&visitor, conditions).await?;
        // Whoever pressed the button saw this number.
        if fields.text("count").parse() != Ok(nodes.len()) {
            let message = format!(
                "count: the filter has {} nodes now, and had {} when the page was made; look again",
                nodes.len(),
                fields.text("count")
            );
            return Err(Rejection::field(message));
        }
        Ok(run(&visitor, nodes, &path, &method, body.as_ref()).await)
    };
    match built.await {
        Ok((done, refused)) => visitor.scene.page(&Outcome {
            frame: Frame::new(&visitor.scene, Tab::Nodes),
            action: match action {
                "maintenance" => "Maintenance has begun on".to_owned(),
                "resume" => "Maintenance has ended on".to_owned(),
                _ => format!("The label {} is set on", fields.text("label")),
            },
            done,
            refused,
        }),
        Err(rejection) => visitor.scene.refuse(rejection),
    }
}

/// `key=value` sets a label, `key-` takes one away.
fn label(text: &str) -> Result<Value, Rejection> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Value::from(value)),
        None => match text.strip_suffix('-') {
            Some(key) if !key.is_empty() => (key, Value::Null),
            _ => return Err(Rejection::field("label: must be key=value, or key- to take it away")),
        },
    };
    Ok(json!({ "labels": { key: value } }))
}

async fn nodes_of(visitor: &Visitor, conditions: &str) -> Result<Vec<(String, String)>, Rejection> {
    let mut nodes = Vec::new();
    let mut cursor = String::new();
    loop {
        let query = format!("/nodes?{conditions}&sort=name&limit=100{cursor}");
        let page: NodePage = visitor.api.get(&query).await?;
        nodes.extend(page.data.into_iter().map(|node| (node.id.to_string(), node.name)));
        match page.pagination.next_cursor {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(nodes),
        }
    }
}

async fn run(
    visitor: &Visitor,
    nodes: Vec<(String, String)>,
    path: &str,
    method: &Method,
    body: Option<&Value>,
) -> (u64, Vec<Refused>) {
    let mut waiting = nodes.into_iter();
    let (mut done, mut refused) = (0, BTreeMap::<String, Refused>::new());
    let mut running = JoinSet::new();
    loop {
        while running.len() < AT_ONCE
            && let Some((id, name)) = waiting.next()
        {
            let (api, method, body) = (visitor.api.clone(), method.clone(), body.cloned());
            let path = format!("/nodes/{id}{path}");
            running.spawn(async move { (name, api.send(method, &path, body).await) });
        }
        let Some(ended) = running.join_next().await else { break };
        match ended {
            Ok((_, Ok(_))) => done += 1,
            Ok((name, Err(rejection))) => {
                let why = format!("{}: {}", rejection.code().as_str(), reason(&rejection));
                let entry = refused.entry(why.clone());
                let entry = entry.or_insert_with(|| Refused { why, count: 0, names: Vec::new() });
                entry.count += 1;
                if entry.names.len() < NAMED {
                    entry.names.push(name);
                }
            }
            Err(error) => tracing::error!(%error, "a node of many was not asked for"),
        }
    }
    (done, refused.into_values().collect())
}

/// What refused, without the node's own id: so that alike refusals are counted together.
fn reason(rejection: &Rejection) -> String {
    let words = rejection.message().split(' ');
    let is_id = |word: &&str| word.len() == 24 && word.bytes().all(|b| b.is_ascii_hexdigit());
    words.filter(|word| !is_id(word)).collect::<Vec<_>>().join(" ")
}
