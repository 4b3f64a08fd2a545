//! Golden JSON of AIWM's dialect: every message, body and claim reads as in `fixtures/aiwm/` and is
//! written back the same, fields that nobody knows yet are passed by, and no secret is in any text
//! for people. Fixtures are added, never edited.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "the helpers of tests")]

use std::{fmt::Debug, fs, path::Path};

use aio_protocol::aiwm::{
    Envelope,
    answers::{CommandAck, CommandResult},
    command::Command,
    controller::{ConnectionAck, ErrorEvent, Exception, Join, JoinRefused, RegisterAck},
    credentials::Credentials,
    mona,
    register::Register,
    rest::{Bootstrap, Bootstrapped, LoggedIn, Login, Refresh, Refused},
    setup::{NodeTokenClaims, SetupClaims},
    telemetry::{Heartbeat, Metrics},
};
use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// The fixtures of one folder: name without `.json`, and what it holds.
fn fixtures(folder: &str) -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/aiwm").join(folder);
    let mut all: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), value)
        })
        .collect();
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    assert!(!all.is_empty());
    all
}

fn golden<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, value: &Value) -> T {
    let read: T = serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(&serde_json::to_value(&read).unwrap(), value, "{name}");
    read
}

/// As [`golden`], for what may grow: a field of the future is passed by.
fn growing<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, value: &Value) -> T {
    let read: T = golden(name, value);
    let mut future = value.clone();
    future["fieldOfTheFuture"] = Value::Bool(true);
    assert_eq!(serde_json::from_value::<T>(future).unwrap(), read, "{name}");
    read
}

#[test]
fn every_message_of_a_worker_reads_and_writes_as_its_fixture() {
    for (name, value) in fixtures("worker") {
        match name.as_str() {
            // Our worker never writes the older form; the double reads it field by field.
            "node.register-flat" => {}
            _ if name.starts_with("node.register") => drop(growing::<Envelope<Register>>(&name, &value)),
            _ if name.starts_with("telemetry.heartbeat") => {
                drop(growing::<Envelope<Heartbeat>>(&name, &value));
            }
            "telemetry.metrics" => drop(growing::<Envelope<Metrics>>(&name, &value)),
            "command.ack" => drop(growing::<Envelope<CommandAck>>(&name, &value)),
            _ => drop(growing::<Envelope<CommandResult>>(&name, &value)),
        }
    }
}

#[test]
fn every_message_of_the_service_reads_and_writes_as_its_fixture() {
    for (name, value) in fixtures("controller") {
        match name.as_str() {
            _ if name.starts_with("connection.ack") => drop(growing::<ConnectionAck>(&name, &value)),
            _ if name.starts_with("register.ack") => drop(growing::<RegisterAck>(&name, &value)),
            "error" => drop(growing::<ErrorEvent>(&name, &value)),
            "exception" => drop(growing::<Exception>(&name, &value)),
            "join-refused" => drop(growing::<JoinRefused>(&name, &value)),
            _ => drop(growing::<Command>(&name, &value)),
        }
    }
}

#[test]
fn every_body_and_claim_reads_and_writes_as_its_fixture() {
    for (name, value) in fixtures("rest") {
        match name.as_str() {
            "bootstrap" => drop(growing::<Bootstrap>(&name, &value)),
            "bootstrapped" => drop(growing::<Bootstrapped>(&name, &value)),
            "login" => drop(growing::<Login>(&name, &value)),
            "refresh" => drop(growing::<Refresh>(&name, &value)),
            "refused" => drop(growing::<Refused>(&name, &value)),
            "credentials" => drop(golden::<Credentials>(&name, &value)),
            _ => drop(growing::<LoggedIn>(&name, &value)),
        }
    }
    for (name, value) in fixtures("tokens") {
        match name.as_str() {
            "node" => drop(growing::<NodeTokenClaims>(&name, &value)),
            // `sub` says again what `nodeId` says.
            _ => {
                let claims: SetupClaims = serde_json::from_value(value.clone()).unwrap();
                let mut written = serde_json::to_value(claims).unwrap();
                written["sub"] = value["sub"].clone();
                assert_eq!(written, value, "{name}");
            }
        }
    }
    for (name, value) in fixtures("mona") {
        match name.as_str() {
            "push" => {
                golden::<mona::Push>(&name, &value);
                let mut future = value.clone();
                future["fieldOfTheFuture"] = Value::Bool(true);
                assert!(serde_json::from_value::<mona::Push>(future).is_err(), "MONA knows no more");
            }
            _ => drop(growing::<mona::Pushed>(&name, &value)),
        }
    }
}

#[test]
fn no_secret_is_in_a_text_for_people() {
    let of = |folder: &str, name: &str| {
        fixtures(folder).into_iter().find(|(other, _)| other == name).map(|(_, value)| value).unwrap()
    };
    let shown = [
        format!("{:?}", golden::<Command>("agent.start", &of("controller", "agent.start"))),
        format!("{:?}", golden::<RegisterAck>("pending", &of("controller", "register.ack-pending"))),
        format!("{:?}", golden::<Bootstrapped>("bootstrapped", &of("rest", "bootstrapped"))),
        format!("{:?}", golden::<Login>("login", &of("rest", "login"))),
        format!("{:?}", golden::<LoggedIn>("logged-in", &of("rest", "logged-in"))),
        format!("{:?}", golden::<Credentials>("credentials", &of("rest", "credentials"))),
        format!("{:?}", Join { token: Some("a.b.c".to_owned()) }),
    ];
    for text in shown {
        for secret in ["in-the-clear", "summariser", "vllm", "7d1b0f52", "a.b.c"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[test]
fn an_answer_names_the_command_and_gives_its_metadata_back() {
    let (_, value) = fixtures("controller").into_iter().find(|(name, _)| name == "agent.start").unwrap();
    let command: Command = serde_json::from_value(value).unwrap();
    let answer = CommandResult::failed(&command, Default::default());
    let at = "2025-12-11T12:05:00.000Z".parse().unwrap();
    let written = serde_json::to_value(answer.wrapped(&command, "m-1", at)).unwrap();
    assert_eq!(written["metadata"]["trace"], "t-1");
    assert_eq!(written["data"]["originalMessageId"], "c-17");
    assert_eq!(written["data"]["deploymentId"], "d-9");
}

/// Golden files with one value replaced, somewhere.
fn mutated() -> impl Strategy<Value = Value> {
    let folders = ["worker", "controller", "rest", "tokens", "mona"];
    let all: Vec<_> = folders.into_iter().flat_map(fixtures).map(|(_, value)| value).collect();
    let other = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        Just(serde_json::json!([])),
        Just(serde_json::json!({})),
        Just(serde_json::json!([{"a": [1, "x"]}, 7])),
    ];
    (prop::sample::select(all), any::<prop::sample::Index>(), other).prop_map(|(mut value, index, other)| {
        let mut pointers = vec![];
        collect(&value, String::new(), &mut pointers);
        let pointer: &String = index.get(&pointers);
        *value.pointer_mut(pointer).unwrap() = other;
        value
    })
}

fn collect(value: &Value, pointer: String, all: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| collect(value, format!("{pointer}/{name}"), all));
        }
        Value::Array(items) => {
            let each = items.iter().enumerate();
            each.for_each(|(index, value)| collect(value, format!("{pointer}/{index}"), all));
        }
        _ => {}
    }
    all.push(pointer);
}

/// What is read can be written, and what was written reads the same: no reader takes what it cannot keep.
fn steady<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &Value) -> Result<(), TestCaseError> {
    if let Ok(read) = serde_json::from_value::<T>(value.clone()) {
        let written = serde_json::to_value(&read).unwrap();
        prop_assert_eq!(serde_json::from_value::<T>(written).unwrap(), read);
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_mutated_message_panics(value in mutated()) {
        steady::<Envelope<Register>>(&value)?;
        steady::<Envelope<Heartbeat>>(&value)?;
        steady::<Envelope<CommandResult>>(&value)?;
        steady::<ConnectionAck>(&value)?;
        steady::<RegisterAck>(&value)?;
        steady::<ErrorEvent>(&value)?;
        steady::<Exception>(&value)?;
        steady::<Command>(&value)?;
        steady::<LoggedIn>(&value)?;
        steady::<Bootstrapped>(&value)?;
        steady::<Refused>(&value)?;
        steady::<Credentials>(&value)?;
        steady::<SetupClaims>(&value)?;
        steady::<NodeTokenClaims>(&value)?;
        steady::<mona::Push>(&value)?;
    }

    #[test]
    fn no_part_of_a_register_in_another_shape_loses_the_rest(value in mutated()) {
        let is_register = value.pointer("/data/systemInfo/hardware/memory/total").is_some_and(Value::is_u64);
        if let (true, Ok(read)) = (is_register, serde_json::from_value::<Envelope<Register>>(value.clone())) {
            let total = value.pointer("/data/systemInfo/hardware/memory/total").and_then(Value::as_u64);
            prop_assert_eq!(Some(read.data.system_info.hardware.memory.total), total);
        }
    }
}
