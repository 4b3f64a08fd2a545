//! Whatever a request's body or query holds, its reader takes it or refuses it with a 400 that names the field. `PROPTEST_CASES`
//! says how many of each kind are tried.

use axum::{extract::Query, http::Uri};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use aio_protocol::installation::InstallationReport;

use super::{
    body::{NoFields, parse},
    dead_letters,
    error::Rejection,
    events, installation, nodes, token, transitions,
};

/// The message alone, since the names of a refusal's own fields are names of bodies' fields too.
fn told(refusal: &str) -> String {
    refusal.split_once("message: ").unwrap().1.split(", allowed: ").next().unwrap().to_owned()
}

/// Reads a body as the handlers do, and says why it was refused.
fn read(kind: usize, body: &[u8]) -> Result<(), String> {
    fn refusal(rejection: &Rejection) -> String {
        let text = format!("{rejection:?}");
        assert!(text.contains("status: 400") && text.contains("ValidationFailed"), "{text}");
        told(&text)
    }
    fn only<T: DeserializeOwned>(body: &[u8]) -> Result<(), Rejection> {
        parse::<T>(body).map(drop)
    }
    let read = match kind {
        0 => only::<nodes::Registration>(body),
        1 => only::<token::TokenRequest>(body),
        2 => only::<NoFields>(body),
        _ => parse::<installation::Report>(body)
            .and_then(|report| InstallationReport::try_from(report).map(drop).map_err(Rejection::field)),
    };
    read.map_err(|rejection| refusal(&rejection))
}

/// Bodies that are taken, by the number of their kind.
fn valid() -> Vec<(usize, Value)> {
    let checksums = json!({"expected": "a", "actual": "b"});
    vec![
        (0, json!({"name": "gpu-worker-01"})),
        (0, json!({"name": "gpu-worker-01", "role": ["worker", "storage"]})),
        (1, json!({})),
        (
            1,
            json!({"expiresIn": 3600, "osType": "linux", "installMethod": "systemd", "daemonVersion": "v1.0.0"}),
        ),
        (2, json!({})),
        (3, json!({"phase": "started", "version": "v1.0.0"})),
        (3, json!({"phase": "progress", "step": "fetch_release", "percent": 40})),
        (
            3,
            json!({"phase": "failed", "step": "fetch_release",
            "error": {"code": "CHECKSUM_MISMATCH", "message": "It differs", "details": checksums}}),
        ),
        (3, json!({"phase": "succeeded", "seconds": 2.5})),
    ]
}

fn any_json() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from)
    ];
    let word = prop_oneof![
        "\\PC{0,20}".prop_map(Value::from),
        ".{0,5}".prop_map(Value::from),
        prop::sample::select(vec![
            "worker",
            "linux",
            "systemd",
            "v1.0.0",
            "started",
            "progress",
            "failed",
            "succeeded"
        ])
        .prop_map(Value::from),
    ];
    let leaf = prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), number, word];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((field(), inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn field() -> impl Strategy<Value = String> {
    let known = [
        "name",
        "role",
        "expiresIn",
        "osType",
        "installMethod",
        "daemonVersion",
        "phase",
        "version",
        "step",
        "percent",
        "error",
        "seconds",
        "code",
        "message",
        "details",
    ];
    prop_oneof![
        4 => prop::sample::select(known.to_vec()).prop_map(str::to_owned),
        1 => "[a-zA-Z_$]{1,8}",
    ]
}

/// Reads a query as the handlers do.
fn ask(query: &str) -> Vec<Result<(), String>> {
    fn only<T: DeserializeOwned>(uri: &Uri) -> Result<(), String> {
        Query::<T>::try_from_uri(uri)
            .map(drop)
            .map_err(|rejection| format!("{:?}", Rejection::from(rejection)))
    }
    let Ok(uri) = format!("/x?{query}").parse() else { return Vec::new() };
    vec![
        only::<nodes::Filter>(&uri),
        only::<transitions::Which>(&uri),
        only::<installation::For>(&uri),
        only::<events::Filter>(&uri),
        only::<dead_letters::Pages>(&uri),
    ]
}

#[test]
fn what_is_valid_is_taken() {
    for (kind, body) in valid() {
        assert_eq!(read(kind, body.to_string().as_bytes()), Ok(()), "{body}");
    }
    assert!(ask("page=2&limit=100&status=online&sort=-lastSeenAt")[0].is_ok());
    assert!(ask("nodeId=69396100cd71623c7bbfbfee&since=evt_1&limit=1000")[3].is_ok());
    assert!(ask("platform=linux-amd64")[2].is_ok());
}

proptest! {
    #[test]
    fn no_bytes_do_harm(kind in 0..4_usize, body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(kind, &body);
    }

    #[test]
    fn no_json_does_harm(kind in 0..4_usize, body in any_json()) {
        let _ = read(kind, body.to_string().as_bytes());
    }

    #[test]
    fn a_body_that_is_cut_or_altered_somewhere_does_no_harm(
        (kind, body) in prop::sample::select(valid()), at in any::<prop::sample::Index>(), byte in any::<Option<u8>>(),
    ) {
        let mut bytes = body.to_string().into_bytes();
        let at = at.index(bytes.len());
        match byte {
            Some(byte) => bytes[at] = byte,
            None => bytes.truncate(at),
        }
        let _ = read(kind, &bytes);
    }

    #[test]
    fn a_field_that_is_refused_is_named(
        (kind, mut body) in prop::sample::select(valid()), name in field(), value in any_json(),
    ) {
        let fields = body.as_object_mut().unwrap();
        let others = fields.keys().cloned().collect::<Vec<_>>();
        fields.insert(name.clone(), value.clone());
        if let Err(refusal) = read(kind, body.to_string().as_bytes()) {
            // Another phase refuses the fields that belonged to the one before.
            let named = refusal.contains(&name) || (name == "phase" && others.iter().any(|it| refusal.contains(it.as_str())));
            prop_assert!(named, "{name} = {value}: {refusal}");
        }
    }

    #[test]
    fn an_unknown_field_is_refused_by_name((kind, mut body) in prop::sample::select(valid()), name in "[a-z]{9,12}", value in any_json()) {
        body.as_object_mut().unwrap().insert(name.clone(), value);
        let refusal = read(kind, body.to_string().as_bytes()).unwrap_err();
        prop_assert!(refusal.contains(&name), "{refusal}");
    }

    #[test]
    fn no_query_does_harm(query in "[ -~]{0,60}") {
        for refusal in ask(&query.replace([' ', '"', '<', '>', '`', '#'], "")).into_iter().filter_map(Result::err) {
            prop_assert!(refusal.contains("status: 400"), "{refusal}");
        }
    }

    #[test]
    fn a_value_of_a_query_that_is_refused_is_named(
        name in prop::sample::select(vec!["page", "limit", "status", "sort", "platform", "nodeId", "nonsense"]),
        value in "[-a-zA-Z0-9.%]{0,24}",
    ) {
        for refusal in ask(&format!("{name}={value}")).into_iter().filter_map(Result::err) {
            prop_assert!(refusal.contains("status: 400") && told(&refusal).contains(name), "{name}={value}: {refusal}");
        }
    }
}
