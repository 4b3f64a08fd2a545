//! What the pages' buttons ask for: each is a request to the API, whose refusal is the answer.

use std::sync::Arc;

use aio_protocol::error_code::ErrorCode;
use askama::Template;
use axum::{
    extract::{Path, State},
    http::{Method, StatusCode},
    response::Response,
};
use serde_json::{Map, Value, json};

use super::{
    Pages,
    frame::{Frame, Tab},
    session::{Posted, Visitor},
    words,
};
use crate::{
    api::{audit::Asked, error::Rejection},
    store::{Ended, Store},
};

/// A token, shown once.
#[derive(Template)]
#[template(path = "pages/token.html")]
struct NewToken {
    frame: Frame,
    id: String,
    command: String,
    script: Option<String>,
    expires_at: String,
    replaced: bool,
}

pub(super) async fn node(
    State(_): State<Arc<Pages>>,
    Path((id, action)): Path<(String, String)>,
    Posted { visitor, fields }: Posted,
) -> Response {
    let (path, page) =
        (format!("/nodes/{}", words::escaped(&id)), format!("ui/nodes/{}", words::escaped(&id)));
    let api = &visitor.api;
    let done = match action.as_str() {
        "maintenance" | "resume" => {
            let done = api.send(Method::POST, &format!("{path}/{action}"), None).await;
            done.map(|_| if action == "resume" { "Maintenance has ended." } else { "Maintenance has begun." })
        }
        "rename" => {
            let body = json!({ "name": fields.text("name") });
            api.send(Method::PATCH, &path, Some(body)).await.map(|_| "It has another name.")
        }
        "labels" => match labels(&visitor, &path, fields.text("labels")).await {
            Ok(changes) => {
                let body = json!({ "labels": changes });
                api.send(Method::PATCH, &path, Some(body)).await.map(|_| "Its labels are changed.")
            }
            Err(rejection) => Err(rejection),
        },
        "token" | "regenerate" => return token(&visitor, id, &path, action == "regenerate").await,
        "decommission" => match sure(&visitor, &path, fields.text("name")).await {
            Ok(()) => api.send(Method::DELETE, &path, None).await.map(|_| "It is decommissioned."),
            Err(rejection) => Err(rejection),
        },
        _ => Err(unknown()),
    };
    match done {
        Ok(notice) => visitor.go_to(&page, notice),
        Err(rejection) => visitor.scene.refuse(rejection),
    }
}

fn unknown() -> Rejection {
    Rejection::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, "there is no such button")
}

/// Whoever decommissions a node types its name.
async fn sure(visitor: &Visitor, path: &str, typed: &str) -> Result<(), Rejection> {
    let node: Value = visitor.api.get(path).await?;
    if node.get("name").and_then(Value::as_str) == Some(typed) {
        return Ok(());
    }
    Err(Rejection::field("name: what was typed is not the node's name, so nothing was done"))
}

/// What turns a node's labels into those of the text.
async fn labels(visitor: &Visitor, path: &str, text: &str) -> Result<Value, Rejection> {
    let node: Value = visitor.api.get(path).await?;
    let mut changes = Map::new();
    for key in node.get("labels").and_then(Value::as_object).into_iter().flat_map(Map::keys) {
        changes.insert(key.clone(), Value::Null);
    }
    for label in text.split([' ', ',', '\n']).map(str::trim).filter(|label| !label.is_empty()) {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        changes.insert(key.to_owned(), value.into());
    }
    Ok(changes.into())
}

async fn token(visitor: &Visitor, id: String, path: &str, replaces: bool) -> Response {
    let path = format!("{path}/{}", if replaces { "regenerate-credentials" } else { "token" });
    let made = match visitor.api.send(Method::POST, &path, None).await {
        Ok(made) => made,
        Err(rejection) => return visitor.scene.refuse(rejection),
    };
    let text = |name: &str| made.get(name).and_then(Value::as_str).map(str::to_owned);
    visitor.scene.page(&NewToken {
        frame: Frame::new(&visitor.scene, Tab::Nodes),
        command: format!("sudo aio-worker install --token {}", text("token").unwrap_or_default()),
        script: text("installScript"),
        expires_at: text("expiresAt").unwrap_or_default(),
        replaced: replaces,
        id,
    })
}

pub(super) async fn create_rollout(
    State(_): State<Arc<Pages>>,
    Posted { visitor, fields }: Posted,
) -> Response {
    let mut body = json!({ "version": fields.text("version"), "urgent": fields.some("urgent").is_some() });
    if let (Some(group), Some(body)) = (fields.some("group"), body.as_object_mut()) {
        body.insert("group".to_owned(), group.into());
    }
    let made = visitor.api.send(Method::POST, "/rollouts", Some(body)).await;
    match made.map(|made| made.get("id").and_then(Value::as_str).unwrap_or_default().to_owned()) {
        Ok(id) => visitor.go_to(&format!("ui/updates/{id}"), "It is a draft; start it when you are ready."),
        Err(rejection) => visitor.scene.refuse(rejection),
    }
}

pub(super) async fn rollout(
    State(_): State<Arc<Pages>>,
    Path((id, order)): Path<(String, String)>,
    Posted { visitor, fields }: Posted,
) -> Response {
    let path = format!("/rollouts/{}/{}", words::escaped(&id), words::escaped(&order));
    let body = fields.some("revert").map(|_| json!({ "revert": true }));
    match visitor.api.send(Method::POST, &path, body).await {
        Ok(_) => visitor.go_to(&format!("ui/updates/{}", words::escaped(&id)), "Done."),
        Err(rejection) => visitor.scene.refuse(rejection),
    }
}

pub(super) async fn delivery(
    State(_): State<Arc<Pages>>,
    Path(order): Path<String>,
    Posted { visitor, fields }: Posted,
) -> Response {
    let (path, notice) = match (order.as_str(), fields.some("letter")) {
        ("resume", _) => ("/delivery/resume".to_owned(), "Every event that waits is tried now."),
        ("replay", None) => ("/dead-letters/replay".to_owned(), "All of them are on their way again."),
        ("replay", Some(letter)) => {
            (format!("/dead-letters/{}/replay", words::escaped(letter)), "It is on its way again.")
        }
        _ => return visitor.scene.refuse(unknown()),
    };
    match visitor.api.send(Method::POST, &path, None).await {
        Ok(_) => visitor.go_to("ui/delivery", notice),
        Err(rejection) => visitor.scene.refuse(rejection),
    }
}

/// Ends one's own sessions.
pub(super) async fn end_sessions(State(_): State<Arc<Pages>>, Posted { visitor, .. }: Posted) -> Response {
    let asked =
        Asked { action: "session.end", node: None, target: None, detail: Some(json!({ "all": true })) };
    let work = async |store: Store| {
        let (org, user) = (&visitor.person.org_id, visitor.person.sub.clone());
        Ok(store.end_sessions(org, Ended::User(user)).await?)
    };
    match visitor.person.audited(visitor.app(), asked, work).await {
        Ok(_) => visitor.scene.see_other("ui/login"),
        Err(rejection) => visitor.scene.refuse(rejection),
    }
}
