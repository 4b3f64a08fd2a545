//! A request with an `Idempotency-Key` is done once, however often it is sent.

use std::num::NonZeroU32;

use reqwest::{Method, Response, header::HeaderValue};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::{Client, Controller, answer, refusal};

async fn send(client: &Client, path: &str, key: &str, body: Value) -> Response {
    client.request(Method::POST, path).header("idempotency-key", key).json(&body).send().await.unwrap()
}

async fn told(response: Response) -> (u16, bool, Value) {
    let replayed = response.headers().get("idempotency-replayed") == Some(&HeaderValue::from_static("true"));
    (response.status().as_u16(), replayed, response.json().await.unwrap())
}

/// How a key of the tests' user that is being answered is kept.
pub(crate) fn id(org: &str, path: &str, key: &str) -> String {
    hash(&[org, "someone", path, key])
}

/// Of a body.
pub(crate) fn fingerprint(body: &str) -> String {
    hash(&[body])
}

fn hash(parts: &[&str]) -> String {
    let hash = parts
        .iter()
        .fold(Sha256::new(), |hash, part| hash.chain_update(part.len().to_be_bytes()).chain_update(part));
    hex::encode(hash.finalize())
}

#[tokio::test]
async fn a_request_that_is_sent_again_is_done_once_and_answered_as_before() {
    let mut controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let (status, replayed, node) = told(send(&owner, "/nodes", "k1", json!({"name": "gpu"})).await).await;
    assert_eq!((status, replayed), (201, false));
    for _ in 0..2 {
        let again = told(send(&owner, "/nodes", "k1", json!({"name": "gpu"})).await).await;
        assert_eq!(again, (201, true, node.clone()));
    }
    assert_eq!(owner.get("/nodes").await.1["pagination"]["total"], 1);

    let id = node["_id"].as_str().unwrap();
    let path = format!("/nodes/{id}/regenerate-credentials");
    let first = told(send(&owner, &path, "k1", json!({"expiresIn": 3600})).await).await;
    assert_eq!((first.0, first.1), (201, false), "a key counts by path");
    // The token is not kept, and comes again all the same, after a restart too.
    let signature = first.2["token"].as_str().unwrap().rsplit('.').next().unwrap().to_owned();
    let kept =
        controller.text_in_database("SELECT body FROM idempotency WHERE body LIKE '%installScript%'").await;
    assert!(kept.contains("installScript") && !kept.contains(&signature), "{kept}");
    let address = controller.address();
    controller.stop().await;
    controller.start_again(address).await;
    assert_eq!(
        told(send(&owner, &path, "k1", json!({"expiresIn": 3600})).await).await,
        (201, true, first.2.clone())
    );
    let worker = controller.bearer(first.2["token"].as_str().unwrap());
    assert_eq!(worker.get(&format!("/nodes/{id}/installation")).await.0, 200, "it was not made anew");

    let theirs = controller.owner_of("evil").await;
    let (status, replayed, _) = told(send(&theirs, "/nodes", "k1", json!({"name": "gpu"})).await).await;
    assert_eq!((status, replayed), (201, false), "a key counts by organisation");
}

#[tokio::test]
async fn a_key_with_another_body_or_in_use_or_in_other_hands_is_refused() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    assert_eq!(send(&owner, "/nodes", "k1", json!({"name": "gpu"})).await.status(), 201);
    let keyed = |client: &Client, key: &str, body: Value| {
        client.request(Method::POST, "/nodes").header("idempotency-key", key).json(&body)
    };
    refusal(answer(keyed(&owner, "k1", json!({"name": "other"}))).await, 422, "IDEMPOTENCY_KEY_REUSED");
    for key in ["", "a b", "a\tb", &"x".repeat(256)] {
        let message =
            refusal(answer(keyed(&owner, key, json!({"name": "x"}))).await, 400, "VALIDATION_FAILED");
        assert!(message.starts_with("Idempotency-Key: "), "{message}");
    }
    let viewer = controller.user("acme", "organization.viewer").await;
    refusal(answer(keyed(&viewer, "k1", json!({"name": "gpu"}))).await, 403, "FORBIDDEN");
    refusal(answer(keyed(&controller.nobody(), "k1", json!({"name": "gpu"}))).await, 401, "TOKEN_MISSING");

    // What was refused has made nothing: the same key may try again.
    refusal(answer(keyed(&owner, "k2", json!({"nonsense": 1}))).await, 400, "VALIDATION_FAILED");
    refusal(answer(keyed(&owner, "k2", json!({"name": "gpu"}))).await, 409, "NAME_TAKEN");
    assert_eq!(answer(keyed(&owner, "k2", json!({"name": "gpu-2"}))).await.0, 201);

    let body = json!({"name": "raced"});
    let at_once = (0..8).map(|_| answer(keyed(&owner, "k3", body.clone())));
    let answers = futures_util::future::join_all(at_once).await;
    for (status, body) in &answers {
        assert!(*status == 201 || body["code"] == "IDEMPOTENCY_KEY_IN_USE", "{status} {body}");
    }
    assert!(answers.iter().any(|(status, _)| *status == 201));
    assert_eq!(owner.get("/nodes?name=raced").await.1["pagination"]["total"], 1);

    // A controller that ended in between left this behind.
    let (id, fingerprint) = (id("acme", "/nodes", "k4"), fingerprint(r#"{"name":"new"}"#));
    let pending = format!(
        "INSERT INTO idempotency (id, fingerprint, at) VALUES ('{id}', '{fingerprint}', 4000000000000)"
    );
    controller.sql(pending.leak()).await;
    refusal(answer(keyed(&owner, "k4", json!({"name": "new"}))).await, 409, "IDEMPOTENCY_KEY_IN_USE");
    controller.sql("UPDATE idempotency SET at = 0").await;
    assert_eq!(answer(keyed(&owner, "k4", json!({"name": "new"}))).await.0, 201, "a key is kept for a day");
}

#[tokio::test]
async fn a_request_with_a_key_is_counted_once_and_before_anything_is_written() {
    let controller =
        Controller::start_with(|config| config.api_requests_per_second = NonZeroU32::new(1)).await;
    let owner = controller.owner_of("acme").await;
    assert_eq!(send(&owner, "/nodes", "k1", json!({"name": "gpu"})).await.status(), 201);
    let mut refused = 0;
    for number in 0..20 {
        let response = send(&owner, "/nodes", &format!("k{number}"), json!({"nonsense": 1})).await;
        refused += u32::from(response.status() == 429);
    }
    assert!(refused > 10, "{refused}");
    assert_eq!(controller.number("SELECT COUNT(*) FROM idempotency").await, 1);
}
