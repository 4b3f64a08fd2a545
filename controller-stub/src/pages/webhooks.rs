//! The organisation's webhooks: where they are, how they stand, and the latest attempts at one.

use std::sync::Arc;

use aio_protocol::{event::EventKind, time::Timestamp};
use askama::Template;
use axum::{
    extract::{Path, State},
    http::Method,
    response::Response,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Pages,
    frame::{Frame, Tab},
    node::ListOf,
    session::{Posted, Visitor},
    words,
};
use crate::api::error::Rejection;

/// A webhook, as the API shows it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Webhook {
    id: String,
    url: String,
    description: String,
    event_types: Vec<String>,
    state: Option<String>,
    waiting: u64,
    dead: u64,
    previous_secret_until: Option<Timestamp>,
}

impl Webhook {
    /// The class of its mark.
    fn class(&self) -> &'static str {
        match self.state.as_deref() {
            Some("running") => "good",
            Some("paused") => "warn",
            Some("stopped") => "bad",
            _ => "busy",
        }
    }

    fn kinds(&self) -> String {
        if self.event_types.is_empty() { "all events".to_owned() } else { self.event_types.join(", ") }
    }
}

/// An attempt, as the API shows it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attempt {
    event_id: String,
    #[serde(rename = "type")]
    kind: String,
    at: Timestamp,
    millis: u64,
    outcome: String,
    answer: String,
}

impl Attempt {
    fn class(&self) -> &'static str {
        match self.outcome.as_str() {
            "delivered" => "good",
            "postponed" => "warn",
            _ => "bad",
        }
    }
}

#[derive(Template)]
#[template(path = "pages/webhooks.html")]
struct Webhooks {
    frame: Frame,
    webhooks: Vec<Webhook>,
    kinds: [&'static str; EventKind::ALL.len()],
}

#[derive(Template)]
#[template(path = "pages/webhook.html")]
struct OneWebhook {
    frame: Frame,
    it: Webhook,
    attempts: Vec<Attempt>,
}

/// A webhook's secret, which is shown once.
#[derive(Template)]
#[template(path = "pages/webhook_secret.html")]
struct Secret {
    frame: Frame,
    id: String,
    secret: String,
}

pub(super) async fn list(State(_): State<Arc<Pages>>, visitor: Visitor) -> Response {
    let built = async {
        let webhooks: ListOf<Webhook> = visitor.api.get("/webhooks").await?;
        Ok::<_, Rejection>(Webhooks {
            frame: Frame::new(&visitor.scene, Tab::Delivery),
            webhooks: webhooks.data,
            kinds: EventKind::ALL.map(EventKind::as_str),
        })
    };
    match built.await {
        Ok(page) => visitor.scene.page(&page),
        Err(rejection) => visitor.scene.refuse(rejection),
    }
}

pub(super) async fn show(State(_): State<Arc<Pages>>, Path(id): Path<String>, visitor: Visitor) -> Response {
    let built = async {
        let path = format!("/webhooks/{}", words::escaped(&id));
        let it: Webhook = visitor.api.get(&path).await?;
        let attempts: ListOf<Attempt> = visitor.api.get(&format!("{path}/attempts")).await?;
        let frame = Frame::new(&visitor.scene, Tab::Delivery);
        Ok::<_, Rejection>(OneWebhook { frame, it, attempts: attempts.data })
    };
    match built.await {
        Ok(page) => visitor.scene.page(&page),
        Err(rejection) => visitor.scene.refuse(rejection),
    }
}

/// Makes a webhook, and shows its secret.
pub(super) async fn add(State(_): State<Arc<Pages>>, Posted { visitor, fields }: Posted) -> Response {
    let mut body = json!({ "url": fields.text("url"), "description": fields.text("description") });
    if let (Some(kind), Some(body)) = (fields.some("kind"), body.as_object_mut()) {
        body.insert("eventTypes".to_owned(), json!([kind]));
    }
    with_secret(&visitor, "/webhooks", Some(body)).await
}

async fn with_secret(visitor: &Visitor, path: &str, body: Option<Value>) -> Response {
    match visitor.api.send(Method::POST, path, body).await {
        Ok(made) => {
            let text = |name: &str| made.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            let frame = Frame::new(&visitor.scene, Tab::Delivery);
            visitor.scene.page(&Secret { frame, id: text("id"), secret: text("secret") })
        }
        Err(rejection) => visitor.scene.refuse(rejection),
    }
}

/// Tests, replays, rotates or removes a webhook.
pub(super) async fn order(
    State(_): State<Arc<Pages>>,
    Path((id, order)): Path<(String, String)>,
    Posted { visitor, .. }: Posted,
) -> Response {
    let path = format!("/webhooks/{}", words::escaped(&id));
    if order == "rotate" {
        return with_secret(&visitor, &format!("{path}/rotate"), None).await;
    }
    let page = format!("ui/webhooks/{}", words::escaped(&id));
    let sent = match order.as_str() {
        "remove" => visitor.api.send(Method::DELETE, &path, None).await,
        "test" | "replay" => visitor.api.send(Method::POST, &format!("{path}/{order}"), None).await,
        _ => Err(Rejection::field("the order: must be test, replay, rotate or remove")),
    };
    match (sent, order.as_str()) {
        (Ok(_), "remove") => visitor.go_to("ui/webhooks", "The webhook is removed."),
        (Ok(answer), "test") => {
            let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default();
            visitor.go_to(&page, &format!("The test: {}; {}.", text("outcome"), text("answer")))
        }
        (Ok(_), _) => visitor.go_to(&page, "What it was not told of is on its way again."),
        (Err(rejection), _) => visitor.scene.refuse(rejection),
    }
}
