//! What people do leaves a record, in the transaction of the change, and nobody else's organisation shows it.

use controller_stub::commands::{self, AuditFilter, AuditFormat, For, Issue, NodeChange};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Client, Controller, answer, refusal};

async fn trail(client: &Client, query: &str) -> Vec<Value> {
    let (status, page) = client.get(&format!("/audit?{query}")).await;
    assert_eq!(status, 200, "{page}");
    page["data"].as_array().unwrap().clone()
}

/// Action and outcome of each, oldest first.
fn told(records: &[Value]) -> Vec<(&str, &str)> {
    records.iter().rev().map(|it| (it["action"].as_str().unwrap(), it["outcome"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn everything_that_people_do_is_recorded_with_who_and_where_and_what_came_of_it() {
    let controller =
        Controller::start_with(|config| config.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()]).await;
    let owner = controller.owner_of("acme").await;
    let operator = controller.user("acme", "universe.owner").await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    let path = |action: &str| format!("/nodes/{id}{action}");
    owner.post(&path("/regenerate-credentials"), json!({})).await;
    let patch = owner.request(Method::PATCH, &path("")).json(&json!({"labels": {"rack": "r7"}}));
    answer(patch.header("x-forwarded-for", "203.0.113.7")).await;
    refusal(owner.post(&path("/maintenance"), json!({})).await, 409, "TRANSITION_REFUSED");
    refusal(owner.post("/nodes", json!({"name": "gpu"})).await, 409, "NAME_TAKEN");
    for _ in 0..2 {
        answer(owner.request(Method::DELETE, &path(""))).await;
    }
    owner.post("/dead-letters/replay", json!({})).await;
    refusal(owner.post("/dead-letters/evt_1/replay", json!({})).await, 404, "NOT_FOUND");
    operator.post("/delivery/resume", json!({})).await;
    // What is refused by its form or its bearer is nothing that anybody did.
    owner.post("/nodes", json!({"nonsense": 1})).await;
    controller.user("acme", "organization.viewer").await.post("/nodes", json!({"name": "x"})).await;

    let mut records = trail(&owner, "").await;
    records.retain(|record| record["action"] != "user_token.issue");
    assert_eq!(
        told(&records),
        [
            ("node.register", "done"),
            ("token.issue", "done"),
            ("token.regenerate", "done"),
            ("node.update", "done"),
            ("node.maintenance", "TRANSITION_REFUSED"),
            ("node.register", "NAME_TAKEN"),
            ("node.decommission", "done"),
            ("node.decommission", "unchanged"),
            ("dead_letter.replay", "unchanged"),
            ("dead_letter.replay", "NOT_FOUND"),
            ("delivery.resume", "done"),
        ]
    );
    records.reverse();
    assert_eq!((&records[0]["nodeId"], &records[0]["target"]), (&json!(id), &json!("gpu")));
    let (_, tokens) = owner.get(&path("/tokens")).await;
    assert_eq!(records[1]["target"], tokens["data"][1]["jti"], "who minted which credential");
    assert_eq!(records[3]["address"], "203.0.113.7");
    assert_eq!(records[3]["detail"], json!({"name": null, "labels": {"rack": "r7"}}));
    for record in &records {
        assert_eq!(record["actor"], "user:someone");
        assert!(record["roles"][0].as_str().unwrap().ends_with(".owner") && record["at"].is_string());
    }
    let signature = token.rsplit('.').next().unwrap();
    assert!(!json!(records).to_string().contains(signature));
    assert_eq!(trail(&controller.owner_of("evil").await, "").await.len(), 1, "its own token alone");
}

#[tokio::test]
async fn a_change_that_cannot_be_recorded_is_not_made() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    controller.sql("DROP TABLE audit").await;
    refusal(owner.post("/nodes", json!({"name": "other"})).await, 500, "CONTROLLER_ERROR");
    refusal(owner.post(&format!("/nodes/{id}/token"), json!({})).await, 500, "CONTROLLER_ERROR");
    refusal(answer(owner.request(Method::DELETE, &format!("/nodes/{id}"))).await, 500, "CONTROLLER_ERROR");
    let (_, list) = owner.get("/nodes").await;
    assert_eq!((&list["pagination"]["total"], &list["data"][0]["status"]), (&json!(1), &json!("pending")));
    assert_eq!(controller.number("SELECT COUNT(*) FROM tokens").await, 0);
}

#[tokio::test]
async fn the_trail_is_filtered_and_read_page_by_page_and_exported_as_lines_and_as_a_table() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(owner.add_node(&format!("gpu-{number}")).await);
    }
    owner.token_of(&ids[1]).await;
    assert_eq!(trail(&owner, &format!("nodeId={}", ids[1])).await.len(), 2);
    assert_eq!(trail(&owner, "actor=user:someone").await.len(), 4);
    let whose =
        For { org: Some("acme".parse().unwrap()), user: Some("auth0|first+tag@x.example".parse().unwrap()) };
    let token =
        commands::user_token(&controller.config, whose, vec!["organization.owner".into()], 60).await.unwrap();
    controller.bearer(&token).token_of(&ids[0]).await;
    assert_eq!(
        trail(&owner, "actor=user:auth0%7Cfirst+tag@x.example").await.len(),
        1,
        "a bare plus is a plus"
    );
    assert_eq!(trail(&owner, "actor=command%20line").await.len(), 2);
    assert_eq!(trail(&owner, "action=token.issue").await.len(), 2);
    assert_eq!(trail(&owner, "since=2100-01-01T00:00:00+01:00").await.len(), 0);
    assert_eq!(trail(&owner, "until=2100-01-01T00:00:00Z").await.len(), 7);
    for query in ["since=2025-01-01", "until=x", "nodeId=x", "limit=0", "format=xml", "cursor=x", "page=1"] {
        let message = refusal(owner.get(&format!("/audit?{query}")).await, 400, "VALIDATION_FAILED");
        assert!(message.contains(query.split('=').next().unwrap()), "{query}: {message}");
    }

    let (mut seen, mut query) = (Vec::new(), "limit=2".to_owned());
    loop {
        let (_, page) = owner.get(&format!("/audit?{query}")).await;
        seen.extend(page["data"].as_array().unwrap().clone());
        let Some(cursor) = page["nextCursor"].as_i64() else { break };
        query = format!("limit=2&cursor={cursor}");
    }
    assert_eq!(seen, trail(&owner, "").await);

    let export = async |format: &str| {
        let request = owner.request(Method::GET, &format!("/audit?format={format}&limit=2"));
        let answer = request.send().await.unwrap();
        assert!(answer.headers().contains_key("x-next-cursor"));
        let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
        (kind, answer.text().await.unwrap())
    };
    let (kind, lines) = export("ndjson").await;
    assert_eq!(kind, "application/x-ndjson");
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, seen[..2]);
    let (kind, table) = export("csv").await;
    assert_eq!(kind, "text/csv; charset=utf-8");
    let rows: Vec<_> = table.split_terminator("\r\n").collect();
    assert_eq!((rows.len(), rows[0]), (3, "at,actor,roles,address,action,nodeId,target,outcome,detail"));
    assert!(rows[1].contains(",organization.owner,127.0.0.1,token.issue,"), "{table}");
}

#[tokio::test]
async fn what_the_command_line_does_is_recorded_too() {
    let controller = Controller::start().await;
    let config = &controller.config;
    let whose = For { org: Some("acme".parse().unwrap()), user: Some("someone".parse().unwrap()) };
    let issue = Issue { whose: whose.clone(), lasts_secs: 3600, ..Issue::default() };
    commands::add_nodes(config, vec!["gpu-1".into(), "gpu-2".into()], issue.clone()).await.unwrap();
    let named = vec!["gpu-1".to_owned(), "gpu-2".to_owned()];
    commands::add_tokens(config, commands::Which::These(named), issue).await.unwrap();
    let labels = [("rack".to_owned(), Some("r7".to_owned()))].into_iter().collect();
    let change = NodeChange { name: Some("gpu-3".to_owned()), labels };
    let changed = commands::change_node(config, whose.clone(), "gpu-2", change.clone()).await.unwrap();
    assert_eq!((changed.name.as_str(), changed.labels.len()), ("gpu-3", 1));
    // What is so already is no change.
    commands::change_node(config, whose.clone(), "gpu-3", change.clone()).await.unwrap();
    let taken = commands::change_node(config, whose.clone(), "gpu-1", change).await.unwrap_err();
    assert_eq!(taken.code(), aio_protocol::error_code::ErrorCode::NameTaken);
    commands::revoke_tokens(config, whose.clone(), "gpu-3").await.unwrap();

    let mut out = Vec::new();
    commands::audit(config, whose, AuditFilter::default(), AuditFormat::Ndjson, &mut out).await.unwrap();
    let text = String::from_utf8(out).unwrap();
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        told(&records),
        [
            ("node.register", "done"),
            ("node.register", "done"),
            ("token.issue", "done"),
            ("token.issue", "done"),
            ("node.update", "done"),
            ("token.revoke", "done"),
        ]
    );
    for record in &records {
        assert_eq!((&record["actor"], &record["address"]), (&json!("command line"), &Value::Null));
        assert!(record["detail"]["uid"].is_u64() && record["nodeId"].is_string(), "{record}");
    }
    assert!(records[5]["target"].is_string(), "the first token of a node that was registered");
}

#[tokio::test]
async fn a_record_is_small_and_plain_whatever_was_asked_for() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let odd = owner.post("/dead-letters/a%0Ab%E2%80%AEc%1b[31m/replay", json!({})).await;
    refusal(odd, 404, "NOT_FOUND");
    let long = format!("/dead-letters/{}/replay", "x".repeat(5_000));
    refusal(owner.post(&long, json!({})).await, 404, "NOT_FOUND");
    let labels: serde_json::Map<_, _> =
        (0..60).map(|number| (format!("{}{number}", "k".repeat(60)), json!("v".repeat(60)))).collect();
    let patch = owner.request(Method::PATCH, &format!("/nodes/{id}")).json(&json!({ "labels": labels }));
    assert_eq!(answer(patch).await.0, 200);
    let unknown =
        owner.request(Method::PATCH, &format!("/nodes/{id}")).json(&json!({"labels": {"bad key": null}}));
    refusal(answer(unknown).await, 400, "VALIDATION_FAILED");
    for record in trail(&owner, "").await {
        let text = record.to_string();
        assert!(text.len() < 2_600, "{} bytes", text.len());
        assert!(!text.contains(['\u{1b}', '\u{202e}']) && !text.contains("\\u001b"), "{text}");
    }
}

#[tokio::test]
async fn what_changes_something_takes_no_query_and_no_body_that_it_does_not_know() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let careful = owner.request(Method::DELETE, &format!("/nodes/{id}?dryRun=true"));
    refusal(answer(careful).await, 400, "VALIDATION_FAILED");
    refusal(owner.post("/dead-letters/replay", json!({"ids": ["a"]})).await, 400, "VALIDATION_FAILED");
    assert_eq!(owner.node(&id).await["status"], "pending");
}
