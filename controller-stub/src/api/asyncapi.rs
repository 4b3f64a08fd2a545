//! The AsyncAPI document: the messages of both WebSockets, from the types that read and write them. Served at
//! `/asyncapi.json`; `docs/messages.md` is made of it. What goes by HTTP, the events for NOTI included, is in
//! the OpenAPI document.

use aio_protocol::{
    dashboard::{self, Authenticate, Welcome},
    event::EventKind,
    release::build,
    schema::{Described, Named},
    time::Timestamp,
    wire::{self, ControllerMessage, WorkerMessage},
};
use reqwest::Url;
use serde_json::{Map, Value, json};
use utoipa::{PartialSchema, ToSchema};

use super::event_schemas;
use crate::deployment::Deployment;

/// The whole document.
pub(super) fn document(deployment: &Deployment) -> Value {
    let mut schemas = Named::from([(Timestamp::name().into_owned(), Timestamp::schema())]);
    let mut node = Channel::new("node");
    for message in ControllerMessage::described() {
        node.add(Direction::Send, message.kind, message.about, frame(&message));
        schemas.extend(message.named);
    }
    for message in WorkerMessage::described() {
        node.add(Direction::Receive, message.kind, message.about, frame(&message));
        schemas.extend(message.named);
    }

    let mut events = Channel::new("events");
    let authenticate = Described::of::<Authenticate>("authenticate", "Who watches, and from where on.");
    events.add(Direction::Receive, authenticate.kind, authenticate.about, notice(&authenticate, false));
    schemas.extend(authenticate.named);
    let welcome = Described::of::<Welcome>("events.welcome", "The token is accepted; first of all.");
    events.add(Direction::Send, welcome.kind, welcome.about, notice(&welcome, true));
    schemas.extend(welcome.named);
    let live = "What was missed has been sent; from here on events come as they happen.";
    let nothing = json!({ "type": "object", "properties": {} });
    events.add(
        Direction::Send,
        "events.live",
        live,
        object("events.live", nothing, &[("timestamp", time())]),
    );
    for kind in EventKind::ALL {
        let event = serde_json::to_value(event_schemas::of(kind, &mut schemas)).unwrap_or_default();
        let data = event.pointer("/properties/data").cloned().unwrap_or_default();
        let id =
            json!({ "type": "string", "description": "The same at every delivery; what `since` takes." });
        let event = object(kind.as_str(), data, &[("id", id), ("timestamp", time())]);
        events.add(Direction::Send, kind.as_str(), kind.about(), event);
    }

    let schemas: Map<_, _> = schemas
        .into_iter()
        .map(|(name, schema)| (name, serde_json::to_value(schema).unwrap_or_default()))
        .collect();
    let operations: Map<_, _> = node.operations().into_iter().chain(events.operations()).collect();
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "AIWM node WebSockets",
            "version": build::number(),
            "description": "What controller-stub says to workers and dashboards over WebSockets, and takes from them. Each frame is one JSON object.",
        },
        "servers": servers(deployment),
        "defaultContentType": "application/json",
        "channels": {
            "node": node.written(wire::GATEWAY_PATH, wire::SUBPROTOCOL, "A worker and its controller."),
            "events": events.written(dashboard::PATH, dashboard::SUBPROTOCOL, "The events of an organisation, for dashboards."),
        },
        "operations": operations,
        "components": { "schemas": schemas },
    })
}

/// Where the WebSockets are, when the controller was told its address.
fn servers(deployment: &Deployment) -> Value {
    let url = Url::parse(&deployment.api).ok().filter(|_| deployment.public);
    url.map_or_else(
        || json!({}),
        |url| {
            let protocol = if url.scheme() == "https" { "wss" } else { "ws" };
            let path = url.path().trim_end_matches('/');
            json!({ "controller": { "host": url.authority(), "protocol": protocol, "pathname": path } })
        },
    )
}

/// As this side sees it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Send,
    Receive,
}

struct Channel {
    name: &'static str,
    messages: Map<String, Value>,
    sent: Vec<Value>,
    received: Vec<Value>,
}

impl Channel {
    fn new(name: &'static str) -> Self {
        Self { name, messages: Map::new(), sent: Vec::new(), received: Vec::new() }
    }

    fn add(&mut self, direction: Direction, kind: &str, about: &str, payload: Value) {
        self.messages.insert(kind.to_owned(), json!({ "name": kind, "summary": about, "payload": payload }));
        let side = if direction == Direction::Send { &mut self.sent } else { &mut self.received };
        side.push(json!({ "$ref": format!("#/channels/{}/messages/{kind}", self.name) }));
    }

    fn operations(&self) -> [(String, Value); 2] {
        let channel = json!({ "$ref": format!("#/channels/{}", self.name) });
        [("send", "Send", &self.sent), ("receive", "Receive", &self.received)].map(
            |(action, end, messages)| {
                let operation = json!({ "action": action, "channel": channel, "messages": messages });
                (format!("{}{end}", self.name), operation)
            },
        )
    }

    fn written(self, address: &str, subprotocol: &str, about: &str) -> Value {
        let header = json!({ "type": "string", "enum": [subprotocol] });
        let headers = json!({ "type": "object", "properties": { "Sec-WebSocket-Protocol": header } });
        json!({
            "address": address,
            "description": about,
            "messages": self.messages,
            "bindings": { "ws": { "method": "GET", "headers": headers } },
        })
    }
}

/// A frame between worker and controller.
fn frame(message: &Described) -> Value {
    let id = json!({ "type": "string", "format": "uuid" });
    object(message.kind, data(message), &[("messageId", id), ("timestamp", time())])
}

/// A frame between dashboard and controller that is no event.
fn notice(message: &Described, timed: bool) -> Value {
    let time = [("timestamp", time())];
    object(message.kind, data(message), if timed { &time } else { &[] })
}

fn object(kind: &str, data: Value, beside: &[(&str, Value)]) -> Value {
    let mut properties = Map::from_iter([("type".to_owned(), json!({ "type": "string", "enum": [kind] }))]);
    properties.extend(beside.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())));
    properties.insert("data".to_owned(), data);
    let required: Vec<_> = properties.keys().cloned().collect();
    json!({ "type": "object", "properties": properties, "required": required })
}

fn data(message: &Described) -> Value {
    json!({ "$ref": reference(&message.data) })
}

fn time() -> Value {
    json!({ "$ref": reference(&Timestamp::name()) })
}

fn reference(schema: &str) -> String {
    format!("#/components/schemas/{schema}")
}
