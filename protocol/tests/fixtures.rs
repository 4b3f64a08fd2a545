//! Golden JSON: every message, event, plan and report reads as in `fixtures/` and is written back the same.
//! Fixtures are added, never edited: they are what is already spoken somewhere.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "the helpers of tests")]

use std::{collections::BTreeSet, fs, path::Path};

use aio_protocol::{
    dashboard::{DashboardRequest, Notice, ReceivedEvent},
    event::{EventKind, NodeEvent},
    installation::{InstallationPlan, InstallationReport},
    wire::{ControllerMessage, WorkerMessage},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// The fixtures of one folder: name without `.json`, and text.
fn fixtures(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(folder);
    let mut all: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap())
        })
        .collect();
    all.sort();
    all
}

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The same text with a field that nobody knows yet, at the top and in the data.
fn from_the_future(text: &str) -> String {
    let mut value = value(text);
    value["fieldOfTheFuture"] = Value::Bool(true);
    if let Some(data) = value.get_mut("data") {
        data["fieldOfTheFuture"] = Value::Bool(true);
    }
    value.to_string()
}

fn reads_and_writes_the_same<T: Serialize + DeserializeOwned>(name: &str, text: &str) {
    let read: T = serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(serde_json::to_value(&read).unwrap(), value(text), "{name}");
}

fn types_of(folder: &str) -> BTreeSet<String> {
    fixtures(folder).iter().map(|(_, text)| value(text)["type"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_worker_message_reads_and_writes_as_its_fixture() {
    for (name, text) in fixtures("worker") {
        let frame = WorkerMessage::decode(&text).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(
            value(&frame.message.encode(frame.message_id, frame.timestamp).unwrap()),
            value(&text),
            "{name}"
        );
        assert_eq!(WorkerMessage::decode(&from_the_future(&text)).unwrap(), frame, "{name}");
    }
    assert_eq!(types_of("worker"), WorkerMessage::TYPES.iter().map(|&kind| kind.to_owned()).collect());
}

#[test]
fn every_controller_message_reads_and_writes_as_its_fixture() {
    for (name, text) in fixtures("controller") {
        let frame = ControllerMessage::decode(&text).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let written = match &frame.message {
            ControllerMessage::ConnectionAck(ack) => {
                ack.encode_for_both_generations(frame.message_id, frame.timestamp)
            }
            message => message.encode(frame.message_id, frame.timestamp),
        };
        assert_eq!(value(&written.unwrap()), value(&text), "{name}");
        assert_eq!(ControllerMessage::decode(&from_the_future(&text)).unwrap(), frame, "{name}");
    }
    assert_eq!(
        types_of("controller"),
        ControllerMessage::TYPES.iter().map(|&kind| kind.to_owned()).collect()
    );
}

#[test]
fn every_event_reads_and_writes_as_its_fixture() {
    for (name, text) in fixtures("events") {
        reads_and_writes_the_same::<NodeEvent>(&name, &text);
        let event: NodeEvent = serde_json::from_str(&text).unwrap();
        assert_eq!(event.kind().as_str(), name);
        assert_eq!(serde_json::from_str::<NodeEvent>(&from_the_future(&text)).unwrap(), event, "{name}");
    }
    assert_eq!(types_of("events"), EventKind::ALL.iter().map(|kind| kind.as_str().to_owned()).collect());
}

#[test]
fn every_message_of_a_dashboards_stream_reads_and_writes_as_its_fixture() {
    for (name, text) in fixtures("dashboard") {
        match name.as_str() {
            "authenticate" => reads_and_writes_the_same::<DashboardRequest>(&name, &text),
            "event" => reads_and_writes_the_same::<ReceivedEvent>(&name, &text),
            _ => {
                reads_and_writes_the_same::<Notice>(&name, &text);
                assert_eq!(value(&text)["type"], name);
            }
        }
    }
}

#[test]
fn the_plan_and_every_report_read_and_write_as_their_fixtures() {
    for (name, text) in fixtures("installation") {
        match name.starts_with("report") {
            true => reads_and_writes_the_same::<InstallationReport>(&name, &text),
            false => reads_and_writes_the_same::<InstallationPlan>(&name, &text),
        }
    }
}

#[test]
fn an_offered_token_is_not_in_the_debug_text() {
    let (_, text) = fixtures("controller").into_iter().find(|(name, _)| name == "auth.rotate").unwrap();
    let token = value(&text)["data"]["token"].as_str().unwrap().to_owned();
    assert!(!format!("{:?}", ControllerMessage::decode(&text).unwrap()).contains(&token));
}
