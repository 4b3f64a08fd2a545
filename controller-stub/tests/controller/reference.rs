//! `docs/messages.md`: every message of both WebSockets, written from the document that a running
//! controller serves and the golden files. This says how it is written, and fails when the page is
//! another. `AIO_WRITE_DOCS=1` writes it.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{harness::Controller, schema::Schemas};

const HEAD: &str = "\
# Messages

What goes over the two WebSockets, message by message. In which order, and what closes a connection, is in [the API](api.md). This page is written
from the types that read and write the messages (`cargo test -p controller-stub --test controller reference` with `AIO_WRITE_DOCS=1`); a controller serves
the same as an [AsyncAPI](https://www.asyncapi.com) document, `GET /asyncapi.json`. The examples are the golden files of
[`protocol/fixtures/`](../protocol/fixtures), and fit what the document says.

A field that is *required* is refused when it is missing; every other is left out where there is nothing to say, and read as nothing or as its usual value.
Fields that are not listed are ignored, but in `authenticate`. Ids of nodes are 24 lowercase hex digits, times RFC 3339 in UTC with milliseconds.
";

/// The parts of the page: its heading, the channel, who speaks, what stands before, and the folder
/// of the examples.
const PARTS: [(&str, &str, &str, &str, &str); 4] = [
    (
        "The worker says",
        "node",
        "receive",
        "Over `/ws/node`, each `{type, messageId, timestamp, data}`.",
        "worker",
    ),
    (
        "The controller says to the worker",
        "node",
        "send",
        "Over `/ws/node`, each `{type, messageId, timestamp, data}`. `connection_ack` has its fields beside `data`, too, for older workers.",
        "controller",
    ),
    ("The dashboard says", "events", "receive", "Over `/ws/events`, `{type, data}`, once.", "dashboard"),
    (
        "The controller says to the dashboard, and to NOTI",
        "events",
        "send",
        "Over `/ws/events`, each `{type, timestamp, data}`, and an event with `id` before it. NOTI gets the events without `id` as bodies of `POST /events`, \
         as the examples show them.",
        "events",
    ),
];

#[tokio::test]
async fn the_page_of_messages_is_what_the_types_and_the_golden_files_say() {
    let controller = Controller::start().await;
    let (status, document) = controller.nobody().get("/asyncapi.json").await;
    assert_eq!(status, 200);
    let page = page(&document);
    let path = root().join("docs/messages.md");
    if std::env::var_os("AIO_WRITE_DOCS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let differs = written.lines().zip(page.lines()).find(|(there, here)| there != here);
    assert!(
        written == page,
        "{} is not what the types say (AIO_WRITE_DOCS=1 writes it anew): {differs:?}",
        path.display()
    );
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn page(document: &Value) -> String {
    let mut page = String::from(HEAD);
    for (heading, channel, action, before, folder) in PARTS {
        write!(page, "\n## {heading}\n\n{before}\n").unwrap();
        let mut operations = document["operations"].as_object().unwrap().values();
        let of_channel = format!("#/channels/{channel}");
        let operation = operations
            .find(|it| it["action"] == action && it["channel"]["$ref"] == of_channel.as_str())
            .unwrap();
        for message in operation["messages"].as_array().unwrap() {
            let message = followed(document, message);
            let kind = message["name"].as_str().unwrap();
            let data = &message["payload"]["properties"]["data"];
            let about = followed(document, data)["description"]
                .as_str()
                .filter(|_| channel == "node")
                .unwrap_or_default();
            let summary = message["summary"].as_str().unwrap();
            let about = if about == summary { "" } else { about };
            write!(page, "\n### `{kind}`\n\n{}\n", format!("{summary} {about}").trim()).unwrap();
            let mut table = Table { document, rows: Vec::new(), shown: BTreeMap::new() };
            table.add(followed(document, data), "");
            if !table.rows.is_empty() {
                let rows = table.rows.concat();
                write!(page, "\n| field of `data` | type | required | |\n|---|---|---|---|\n{rows}").unwrap();
            }
            for example in examples(folder, kind) {
                let value = serde_json::from_str(&example).unwrap();
                let schema = if folder == "events" {
                    without_id(&message["payload"], &value)
                } else {
                    message["payload"].clone()
                };
                Schemas(document)
                    .check(&schema, &value)
                    .unwrap_or_else(|problem| panic!("{kind}: {problem}"));
                write!(page, "\n```json\n{}\n```\n", example.trim()).unwrap();
            }
        }
    }
    page
}

/// The golden files of a message: `node.register.json`, `node.register-no-gpu.json`.
fn examples(folder: &str, kind: &str) -> Vec<String> {
    // Notices lie with the dashboards' messages, events with the events.
    let folders = if folder == "events" { ["events", "dashboard"].as_slice() } else { &[folder] };
    let mut found = Vec::new();
    for folder in folders {
        for entry in fs::read_dir(root().join("protocol/fixtures").join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            if name.strip_prefix(kind).is_some_and(|rest| rest.is_empty() || rest.starts_with('-')) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no golden file of {kind}");
    found.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

/// The schema of an event where NOTI's example of it has no `id`.
fn without_id(schema: &Value, example: &Value) -> Value {
    let mut schema = schema.clone();
    if example.get("id").is_none() {
        schema["required"].as_array_mut().unwrap().retain(|name| name != "id");
    }
    schema
}

/// What a `$ref` leads to, in the end.
fn followed<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => {
            followed(document, document.pointer(reference.strip_prefix('#').unwrap()).expect(reference))
        }
        None => value,
    }
}

/// A schema without what says that it may be null: absent is the same.
fn not_null(schema: &Value) -> &Value {
    match schema["oneOf"].as_array() {
        Some(ways) if ways.iter().any(|way| way["type"] == "null") => {
            ways.iter().find(|way| way["type"] != "null").unwrap()
        }
        _ => schema,
    }
}

/// The table of a message's fields.
struct Table<'a> {
    document: &'a Value,
    rows: Vec<String>,
    /// Where what `$ref`s lead to has been written out already.
    shown: BTreeMap<&'a str, String>,
}

impl<'a> Table<'a> {
    /// A row for every field of `schema`, and for every field of that.
    fn add(&mut self, schema: &'a Value, path: &str) {
        for part in schema["allOf"].as_array().into_iter().flatten() {
            self.add(followed(self.document, part), path);
        }
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let required =
                schema["required"].as_array().is_some_and(|names| names.iter().any(|it| it == name));
            self.add_field(&path, field, required);
        }
    }

    fn add_field(&mut self, path: &str, field: &'a Value, required: bool) {
        let one = not_null(field);
        let resolved = followed(self.document, one);
        let about =
            [field, one, resolved].into_iter().find_map(|it| it["description"].as_str()).unwrap_or_default();
        let mut about = about.replace('\n', " ").replace('|', "\\|");
        let (within, path_within) = match resolved.get("items") {
            Some(items) => (items, format!("{path}[]")),
            None => (one, path.to_owned()),
        };
        let before =
            within["$ref"].as_str().and_then(|reference| self.shown.insert(reference, path_within.clone()));
        let inner = followed(self.document, within);
        let again = before.filter(|_| inner.get("properties").or(inner.get("allOf")).is_some());
        if let Some(before) = &again {
            about.push_str(&format!(" As `{before}`."));
        }
        let required = if required { "yes" } else { "" };
        self.rows.push(format!("| `{path}` | {} | {required} | {about} |\n", kind(self.document, resolved)));
        if again.is_none() {
            self.add(inner, &path_within);
        }
    }
}

fn kind(document: &Value, schema: &Value) -> String {
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<_> =
            words.iter().map(|word| format!("`{}`", word.as_str().unwrap_or_default())).collect();
        return words.join(", ");
    }
    if let Some(items) = schema.get("items") {
        return format!("list of {}", kind(document, followed(document, not_null(items))));
    }
    let types = match &schema["type"] {
        Value::Array(types) => types.iter().find_map(|it| it.as_str().filter(|it| *it != "null")),
        one => one.as_str(),
    };
    match (types, schema["format"].as_str()) {
        (Some("string"), Some("date-time")) => "time".to_owned(),
        (Some("string"), Some("uuid")) => "UUID".to_owned(),
        (Some(named), _) => named.to_owned(),
        (None, _) if schema.get("allOf").is_some() => "object".to_owned(),
        (None, _) => "anything".to_owned(),
    }
}
