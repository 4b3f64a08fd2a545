//! Webhooks of organisations: what each is told, signed and in order, that one that fails harms nobody, and
//! where none may be.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::{
    harness::{Client, Controller, answer, eventually, refusal},
    peers::{FakeNoti, Post, Worker},
};

/// A controller that may post to this machine.
async fn controller() -> Controller {
    Controller::start_with(|config| {
        config.webhook_networks = vec!["127.0.0.0/8".parse().unwrap()];
        config.alarm_interval = crate::alarms::SOON;
    })
    .await
}

fn url(endpoint: &FakeNoti) -> String {
    format!("{}/events", endpoint.url())
}

async fn add(owner: &Client, body: Value) -> (String, String) {
    let (status, webhook) = owner.post("/webhooks", body).await;
    assert_eq!(status, 201, "{webhook}");
    (webhook["id"].as_str().unwrap().to_owned(), webhook["secret"].as_str().unwrap().to_owned())
}

async fn await_taken(endpoint: &FakeNoti, types: &[&str]) -> Vec<Post> {
    eventually(&format!("posts {types:?}"), async || {
        let mut posts = endpoint.posts();
        posts.retain(|post| post.status.is_success());
        let seen: Vec<_> =
            posts.iter().map(|post| post.json()["type"].as_str().unwrap().to_owned()).collect();
        if seen == types { Ok(posts) } else { Err(format!("{seen:?}")) }
    })
    .await
}

/// The signature after the specification's own words.
fn signature(secret: &str, post: &Post) -> String {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    let (id, timestamp) = (post.header("webhook-id").as_bytes(), post.header("webhook-timestamp").as_bytes());
    mac.update(&[id, b".", timestamp, b".", &post.body].concat());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

async fn order(owner: &Client, webhook: &str, order: &str) -> Value {
    let (status, body) = answer(owner.request(Method::POST, &format!("/webhooks/{webhook}/{order}"))).await;
    assert_eq!(status, 200, "{body}");
    body
}

#[tokio::test]
async fn every_webhook_is_told_of_its_types_of_event_signed_with_its_own_secret() {
    let (all, some, foreign) =
        (FakeNoti::start(&[]).await, FakeNoti::start(&[]).await, FakeNoti::start(&[]).await);
    let controller = controller().await;
    let owner = controller.owner_of("acme").await;
    let (_, secret_of_all) = add(&owner, json!({"url": url(&all)})).await;
    let (_, secret_of_some) = add(&owner, json!({"url": url(&some), "eventTypes": ["node.connected"]})).await;
    add(&controller.owner_of("evil").await, json!({"url": url(&foreign)})).await;
    let id = owner.add_node("gpu").await;
    let _worker = Worker::welcomed(&controller.gateway(), &id, &owner.token_of(&id).await).await;
    let types = ["node.registered", "node.installation_started", "node.connected"];
    let posts = await_taken(&all, &types).await;
    let connected = await_taken(&some, &["node.connected"]).await.remove(0);
    for (post, secret) in
        [(&posts[0], &secret_of_all), (&posts[2], &secret_of_all), (&connected, &secret_of_some)]
    {
        assert_eq!(post.header("webhook-signature"), signature(secret, post));
        assert_eq!(post.header("content-type"), "application/json");
        assert_eq!(post.headers.get("authorization"), None, "NOTI's token is NOTI's");
    }
    assert_eq!(posts[2].header("webhook-id"), connected.header("webhook-id"), "one event has one id");
    assert_eq!(posts[0].json()["data"]["nodeId"], id.as_str());
    assert!(foreign.posts().is_empty());
    let (_, list) = owner.get("/webhooks").await;
    let shown = list.to_string();
    assert!(!shown.contains(&secret_of_all) && !shown.contains("whsec_"), "{shown}");
    assert_eq!(list["data"][0]["state"], "running", "{list}");
    assert_eq!(list["data"][1]["eventTypes"], json!(["node.connected"]));
    let (_, audit) = owner.get("/audit?action=webhook.add").await;
    assert_eq!(audit["data"][0]["detail"], json!({"host": "127.0.0.1"}), "no URL: it may hold a secret");
}

#[tokio::test]
async fn a_webhook_that_fails_holds_up_nobody_and_is_told_all_in_order_once_it_is_well_also_after_a_restart()
{
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let well = FakeNoti::start(&[]).await;
    let mut controller = controller().await;
    let address = controller.address();
    let owner = controller.owner_of("acme").await;
    let (failing, _) = add(&owner, json!({"url": format!("http://{nowhere}/")})).await;
    add(&owner, json!({"url": url(&well)})).await;
    let id = owner.add_node("gpu").await;
    let _worker = Worker::welcomed(&controller.gateway(), &id, &owner.token_of(&id).await).await;
    let types = ["node.registered", "node.installation_started", "node.connected"];
    await_taken(&well, &types).await;
    owner.await_events(&id, &types).await;
    let path = format!("/webhooks/{failing}");
    let attempts = eventually("a failed attempt", async || {
        let (_, log) = owner.get(&format!("{path}/attempts")).await;
        if log["data"].as_array().is_some_and(|data| !data.is_empty()) {
            Ok(log)
        } else {
            Err(log.to_string())
        }
    })
    .await;
    let attempt = &attempts["data"][0];
    assert_eq!((&attempt["outcome"], &attempt["type"]), (&json!("postponed"), &json!("node.registered")));
    assert!(attempt["answer"].as_str().unwrap().starts_with("it did not answer: "), "{attempt}");
    assert_eq!(owner.get(&path).await.1["waiting"], 3);

    controller.stop().await;
    controller.start_again(address).await;
    let owner = controller.owner_of("acme").await;
    let cured = FakeNoti::start(&[]).await;
    let change = owner.request(Method::PATCH, &path).json(&json!({"url": url(&cured)}));
    assert_eq!(answer(change).await.0, 200);
    await_taken(&cured, &types).await;
    eventually("nothing to be owed", async || {
        let (_, webhook) = owner.get(&path).await;
        if webhook["waiting"] == 0 { Ok(()) } else { Err(webhook.to_string()) }
    })
    .await;
    assert_eq!(well.posts().len(), 3, "what was delivered is not delivered again");
}

#[tokio::test]
async fn what_a_webhook_rejects_is_its_own_dead_letter_until_it_is_replayed() {
    let (endpoint, other) = (FakeNoti::start(&[422]).await, FakeNoti::start(&[]).await);
    let controller = controller().await;
    let owner = controller.owner_of("acme").await;
    let (webhook, _) = add(&owner, json!({"url": url(&endpoint)})).await;
    add(&owner, json!({"url": url(&other)})).await;
    let id = owner.add_node("gpu").await;
    await_taken(&other, &["node.registered"]).await;
    let path = format!("/webhooks/{webhook}");
    let letters = eventually("a dead letter", async || {
        let (_, letters) = owner.get(&format!("{path}/dead-letters")).await;
        if letters["pagination"]["total"] == 1 { Ok(letters) } else { Err(letters.to_string()) }
    })
    .await;
    let letter = &letters["data"][0];
    assert_eq!((&letter["reason"], &letter["attempts"]), (&json!("rejected: it answered 422"), &json!(1)));
    assert_eq!(letter["event"]["data"]["nodeId"], id.as_str());
    assert_eq!(owner.get("/dead-letters").await.1["pagination"]["total"], 0, "NOTI has taken it");
    let (_, alarms) = eventually("an alarm", async || {
        let alarms = owner.get("/alarms").await;
        if alarms.1["pagination"]["total"] == 1 { Ok(alarms) } else { Err(alarms.1.to_string()) }
    })
    .await;
    assert_eq!(alarms["data"][0]["kind"], "dead_letters");
    assert!(alarms["data"][0]["reason"].as_str().unwrap().contains(&webhook), "{alarms}");
    assert_eq!(order(&owner, &webhook, "replay").await, json!({"replayed": 1}));
    let again = await_taken(&endpoint, &["node.registered"]).await.remove(0);
    assert_eq!(again.header("webhook-id"), letter["id"].as_str().unwrap());
    eventually("both attempts in the log", async || {
        let (_, log) = owner.get(&format!("{path}/attempts")).await;
        let outcomes: Vec<_> =
            log["data"].as_array().unwrap().iter().map(|it| it["outcome"].clone()).collect();
        if outcomes == ["delivered", "dead"] { Ok(()) } else { Err(log.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn dead_letters_of_a_webhook_and_of_noti_are_dropped_apart_and_no_alarm_is_left() {
    let (noti, endpoint) = (FakeNoti::start(&[422]).await, FakeNoti::start(&[422]).await);
    let controller = Controller::start_with(|config| {
        config.webhook_networks = vec!["127.0.0.0/8".parse().unwrap()];
        config.alarm_interval = crate::alarms::SOON;
        config.noti_service_url = Some(noti.url().parse().unwrap());
    })
    .await;
    let owner = controller.owner_of("acme").await;
    let (webhook, _) = add(&owner, json!({"url": url(&endpoint)})).await;
    owner.add_node("gpu").await;
    let await_alarms = async |count: u64| {
        eventually(&format!("{count} alarms"), async || {
            let (_, alarms) = owner.get("/alarms?kind=dead_letters").await;
            if alarms["pagination"]["total"] == count { Ok(()) } else { Err(alarms.to_string()) }
        })
        .await;
    };
    await_alarms(2).await;
    let (of_webhook, of_noti) = (format!("/webhooks/{webhook}/dead-letters"), "/dead-letters");
    for (path, action, left) in [(&*of_webhook, "webhook.drop", 1), (of_noti, "dead_letter.drop", 0)] {
        assert_eq!(owner.get(path).await.1["pagination"]["total"], 1);
        for dropped in [1, 0] {
            let answered = answer(owner.request(Method::DELETE, path)).await;
            assert_eq!(answered, (StatusCode::OK, json!({ "dropped": dropped })));
        }
        let (_, audit) = owner.get(&format!("/audit?action={action}")).await;
        let outcomes: Vec<_> =
            audit["data"].as_array().unwrap().iter().map(|it| it["outcome"].clone()).collect();
        assert_eq!(outcomes, ["unchanged", "done"], "{audit}");
        await_alarms(left).await;
    }
}

#[tokio::test]
async fn a_webhook_that_is_gone_stops_until_somebody_resumes_it() {
    let endpoint = FakeNoti::start(&[410]).await;
    let controller = controller().await;
    let owner = controller.owner_of("acme").await;
    let (webhook, _) = add(&owner, json!({"url": url(&endpoint)})).await;
    owner.add_node("gpu").await;
    eventually("it to stop", async || {
        let (_, shown) = owner.get(&format!("/webhooks/{webhook}")).await;
        if shown["state"] == "stopped" { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
    assert_eq!(order(&owner, &webhook, "replay").await, json!({"replayed": 0}));
    await_taken(&endpoint, &["node.registered"]).await;
}

#[tokio::test]
async fn two_secrets_sign_while_one_takes_the_other_s_place() {
    let endpoint = FakeNoti::start(&[]).await;
    let controller = controller().await;
    let owner = controller.owner_of("acme").await;
    let (webhook, before) = add(&owner, json!({"url": url(&endpoint)})).await;
    let rotated = order(&owner, &webhook, "rotate").await;
    let after = rotated["secret"].as_str().unwrap();
    assert_ne!(after, before);
    assert!(rotated["previousSecretUntil"].is_string(), "{rotated}");
    owner.add_node("gpu").await;
    let post = await_taken(&endpoint, &["node.registered"]).await.remove(0);
    let expected = [after, before.as_str()].map(|secret| signature(secret, &post)).join(" ");
    assert_eq!(post.header("webhook-signature"), expected);
    let over = controller.sql("UPDATE webhooks SET previous_until = 1, revision = revision + 1");
    over.await;
    assert_eq!(order(&owner, &webhook, "test").await["outcome"], "delivered");
    let post = await_taken(&endpoint, &["node.registered", "webhook.test"]).await.remove(1);
    assert_eq!(post.header("webhook-signature"), signature(after, &post));
}

#[tokio::test]
async fn types_of_event_that_a_later_version_knew_stay_until_others_are_wanted() {
    let controller = controller().await;
    let owner = controller.owner_of("acme").await;
    let (webhook, _) = add(&owner, json!({"url": "https://hooks.example.com/"})).await;
    controller.sql("UPDATE webhooks SET kinds = ',node.danced,'").await;
    let path = format!("/webhooks/{webhook}");
    let change = async |body: Value| {
        let (status, webhook) = answer(owner.request(Method::PATCH, &path).json(&body)).await;
        assert_eq!(status, 200, "{webhook}");
        webhook["eventTypes"].clone()
    };
    assert_eq!(change(json!({"description": "pager"})).await, json!(["node.danced"]));
    let told = controller.number("SELECT COUNT(*) FROM webhooks WHERE kinds = ',node.danced,'").await;
    assert_eq!(told, 1, "and not of all");
    assert_eq!(change(json!({"eventTypes": []})).await, json!([]));
}

#[tokio::test]
async fn a_test_is_posted_once_and_says_what_came_of_it_and_no_redirect_is_followed() {
    let endpoint = FakeNoti::start(&[302, 202]).await;
    let controller = controller().await;
    let owner = controller.owner_of("acme").await;
    let (webhook, secret) = add(&owner, json!({"url": url(&endpoint)})).await;
    let failed = order(&owner, &webhook, "test").await;
    assert_eq!((&failed["outcome"], &failed["answer"]), (&json!("failed"), &json!("it answered 302")));
    let taken = order(&owner, &webhook, "test").await;
    assert_eq!((&taken["outcome"], &taken["type"]), (&json!("delivered"), &json!("webhook.test")));
    let posts = endpoint.posts();
    assert_eq!(posts.len(), 2);
    assert_eq!(posts[1].status, StatusCode::ACCEPTED);
    assert_eq!(posts[1].header("webhook-signature"), signature(&secret, &posts[1]));
    assert_eq!(posts[1].json()["data"], json!({"webhookId": webhook}));
    let (_, log) = owner.get(&format!("/webhooks/{webhook}/attempts")).await;
    assert_eq!(log["data"].as_array().unwrap().len(), 2, "{log}");
}

#[tokio::test]
async fn no_webhook_is_at_an_address_inside_by_its_url_or_by_its_name() {
    let endpoint = FakeNoti::start(&[]).await;
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    for url in [
        "https://127.0.0.1/",
        "https://169.254.169.254/latest",
        "https://[::ffff:10.0.0.1]/",
        "https://[fd00::1]/",
        "http://hooks.example.com/",
        "https://2130706433/",
        "https://someone@example.com/",
        "no URL",
    ] {
        let message = refusal(owner.post("/webhooks", json!({ "url": url })).await, 400, "VALIDATION_FAILED");
        assert!(message.starts_with("url: "), "{url}: {message}");
    }
    let port = endpoint.address.port();
    let (webhook, _) = add(&owner, json!({"url": format!("https://localhost:{port}/noti/events")})).await;
    let tested = order(&owner, &webhook, "test").await;
    let answer = tested["answer"].as_str().unwrap();
    assert!(
        tested["outcome"] == "failed" && answer.contains("no address that a webhook may be at"),
        "{tested}"
    );
    assert!(endpoint.posts().is_empty());
    let long = json!({"url": "https://example.com/", "description": "é".repeat(256)});
    let message = refusal(owner.post("/webhooks", long).await, 400, "VALIDATION_FAILED");
    assert!(message.starts_with("description: "), "{message}");
    let twice = json!({"url": "https://example.com/", "description": "é".repeat(255),
        "eventTypes": ["node.resumed", "node.connected", "node.resumed"]});
    let (status, made) = owner.post("/webhooks", twice).await;
    assert_eq!((status.as_u16(), &made["description"]), (201, &json!("é".repeat(255))));
    assert_eq!(made["eventTypes"].as_array().unwrap().len(), 2, "{made}");
    let unknown = json!({"url": "https://example.com/", "eventTypes": ["node.danced"]});
    let message = refusal(owner.post("/webhooks", unknown).await, 400, "VALIDATION_FAILED");
    assert!(message.starts_with("eventTypes: `node.danced`"), "{message}");
}

#[tokio::test]
async fn an_organisation_has_at_most_twenty_webhooks_and_what_is_removed_is_told_nothing() {
    let endpoint = FakeNoti::start(&[]).await;
    let controller = controller().await;
    let owner = controller.owner_of("acme").await;
    let mut first = None;
    for _ in 0..20 {
        let (id, _) = add(&owner, json!({"url": url(&endpoint), "eventTypes": ["node.resumed"]})).await;
        first.get_or_insert(id);
    }
    let body = json!({"url": url(&endpoint)});
    let message = refusal(owner.post("/webhooks", body.clone()).await, 400, "VALIDATION_FAILED");
    assert!(message.contains("20 webhooks"), "{message}");
    let path = format!("/webhooks/{}", first.unwrap());
    let evil = controller.owner_of("evil").await;
    refusal(evil.get(&path).await, 404, "NOT_FOUND");
    assert_eq!(evil.request(Method::DELETE, &path).send().await.unwrap().status(), 404);
    assert_eq!(owner.request(Method::DELETE, &path).send().await.unwrap().status(), 204);
    refusal(owner.get(&path).await, 404, "NOT_FOUND");
    add(&owner, body).await;
    owner.add_node("gpu").await;
    await_taken(&endpoint, &["node.registered"]).await;
}
