//! A refusal names the field. `PROPTEST_CASES` says how many of each kind are tried.

use proptest::prelude::*;
use serde_json::{Map, Value};

use crate::api::inputs::{BODIES, QUERIES};

fn any_json() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from)
    ];
    let word = prop_oneof![
        "\\PC{0,20}".prop_map(Value::from),
        ".{0,5}".prop_map(Value::from),
        prop::sample::select(vec!["worker", "linux", "systemd", "v1.0.0", "started", "failed"])
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

/// A field of some body, or of none.
fn field() -> impl Strategy<Value = String> {
    let known = BODIES.iter().flat_map(|input| input.seeds).flat_map(|seed| {
        let fields: Map<String, Value> = serde_json::from_str(seed).unwrap();
        fields.into_iter().map(|(name, _)| name)
    });
    let known: Vec<_> = known.collect();
    prop_oneof![4 => prop::sample::select(known), 1 => "[a-zA-Z_$]{1,8}"]
}

/// A body that is taken, and the number of its kind.
fn valid() -> impl Strategy<Value = (usize, Map<String, Value>)> {
    let each = BODIES.iter().enumerate().flat_map(|(kind, input)| {
        input.seeds.iter().map(move |seed| (kind, serde_json::from_str(seed).unwrap()))
    });
    prop::sample::select(each.collect::<Vec<(usize, Map<String, Value>)>>())
}

fn read(kind: usize, body: Map<String, Value>) -> Result<(), String> {
    (BODIES[kind].read)(Value::Object(body).to_string().as_bytes())
}

#[test]
fn what_is_valid_is_taken() {
    for input in BODIES.iter().chain(&QUERIES) {
        for seed in input.seeds {
            assert_eq!((input.read)(seed.as_bytes()), Ok(()), "{}: {seed}", input.name);
        }
    }
}

proptest! {
    #[test]
    fn a_field_that_is_refused_is_named((kind, mut body) in valid(), name in field(), value in any_json()) {
        let others = body.keys().cloned().collect::<Vec<_>>();
        body.insert(name.clone(), value.clone());
        if let Err(refusal) = read(kind, body) {
            // Another phase refuses the fields that belonged to the one before.
            let named = refusal.contains(&name) || (name == "phase" && others.iter().any(|it| refusal.contains(it.as_str())));
            prop_assert!(named, "{name} = {value}: {refusal}");
        }
    }

    #[test]
    fn an_unknown_field_is_refused_by_name((kind, mut body) in valid(), name in "[a-z]{9,12}", value in any_json()) {
        body.insert(name.clone(), value);
        let refusal = read(kind, body).unwrap_err();
        prop_assert!(refusal.contains(&name), "{refusal}");
    }

    #[test]
    fn a_value_of_a_query_that_is_refused_is_named(
        name in prop::sample::select(vec!["page", "limit", "status", "sort", "platform", "nodeId", "label", "cursor", "until", "nonsense"]),
        value in "[-a-zA-Z0-9.,=%]{0,24}",
    ) {
        for input in &QUERIES {
            if let Err(refusal) = (input.read)(format!("{name}={value}").as_bytes()) {
                prop_assert!(refusal.contains(name), "{name}={value}: {refusal}");
            }
        }
    }
}
