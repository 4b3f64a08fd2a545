//! Events on their way: how they are signed, that none is lost and none overtakes another, and what
//! NOTI takes and shows.

use std::{collections::HashSet, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::{
    harness::{Controller, SERVICE_TOKEN, WEBHOOK_SECRET, answer, eventually, refusal},
    peers::{FakeNoti, Post},
};

async fn with_noti(noti: &FakeNoti) -> Controller {
    Controller::start_with(|config| config.noti_service_url = Some(noti.url().parse().unwrap())).await
}

async fn await_posts(noti: &FakeNoti, acknowledged: usize) -> Vec<Post> {
    eventually(&format!("{acknowledged} acknowledged posts"), async || {
        let posts = noti.posts();
        let count = posts.iter().filter(|post| post.status.is_success()).count();
        if count == acknowledged { Ok(posts) } else { Err(format!("{count} of {}", posts.len())) }
    })
    .await
}

/// The signature after the specification's own words, not by the controller's code.
pub(crate) fn signature(id: &str, timestamp: &str, body: &[u8]) -> String {
    let key = STANDARD.decode(WEBHOOK_SECRET.trim_start_matches("whsec_")).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(&[id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

pub(crate) fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64
}

#[tokio::test]
async fn an_event_is_posted_with_the_bearer_and_a_signature_of_its_very_bytes() {
    let noti = FakeNoti::start(&[]).await;
    let controller = with_noti(&noti).await;
    let id = controller.owner_of("acme").await.add_node("gpu").await;
    let post = await_posts(&noti, 1).await.remove(0);
    assert_eq!(post.header("authorization"), format!("Bearer {SERVICE_TOKEN}"));
    assert_eq!(post.header("content-type"), "application/json");
    let (event, timestamp) = (post.header("webhook-id"), post.header("webhook-timestamp"));
    assert_eq!(post.header("webhook-signature"), signature(event, timestamp, &post.body));
    assert!((now() - timestamp.parse::<i64>().unwrap()).abs() < 60);
    let body = post.json();
    assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["data", "timestamp", "type"]);
    assert_eq!((&body["type"], &body["data"]["nodeId"]), (&json!("node.registered"), &json!(id)));
}

#[tokio::test]
async fn a_refused_event_is_posted_again_under_its_id_and_holds_back_only_its_own_node() {
    let noti = FakeNoti::start(&[500, 429, 302, 503]).await;
    let controller = with_noti(&noti).await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("slow").await;
    let installer = controller.bearer(&owner.token_of(&id).await);
    let path = format!("/nodes/{id}/installation");
    for report in [
        json!({"phase": "started"}),
        json!({"phase": "failed", "error": {"code": "DISK_FULL", "message": "no room"}}),
        json!({"phase": "started"}),
    ] {
        assert_eq!(installer.post(&path, report).await.0, 200, "NOTI's trouble is not the node's");
    }
    let posts = await_posts(&noti, 4).await;
    let kept: Vec<_> = posts
        .iter()
        .filter(|post| post.status == StatusCode::ACCEPTED)
        .map(|post| post.json()["type"].as_str().unwrap().to_owned())
        .collect();
    let expected = [
        "node.registered",
        "node.installation_started",
        "node.installation_failed",
        "node.installation_started",
    ];
    assert_eq!(kept, expected);
    let first: HashSet<_> = posts[..5].iter().map(|post| post.header("webhook-id").to_owned()).collect();
    assert_eq!(first.len(), 1, "four refusals and one acknowledgement of one event: {first:?}");
    let all: HashSet<_> = posts.iter().map(|post| post.header("webhook-id").to_owned()).collect();
    assert_eq!(all.len(), 4);
}

#[tokio::test]
async fn the_outbox_outlives_a_noti_that_is_down_and_a_restart() {
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut controller = Controller::start_with(|config| {
        config.noti_service_url = Some(format!("http://{nowhere}").parse().unwrap());
    })
    .await;
    let address = controller.address();
    let owner = controller.owner_of("acme").await;
    let mut ids = HashSet::new();
    for number in 0..5 {
        ids.insert(owner.add_node(&format!("gpu-{number}")).await);
    }
    controller.stop().await;

    let noti = FakeNoti::start(&[]).await;
    controller.config.noti_service_url = Some(noti.url().parse().unwrap());
    controller.start_again(address).await;
    let posts = await_posts(&noti, 5).await;
    let told = posts.iter().map(|post| post.json()["data"]["nodeId"].as_str().unwrap().to_owned());
    assert_eq!(told.collect::<HashSet<_>>(), ids);
}

#[tokio::test]
async fn an_event_is_with_noti_well_within_half_a_second() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    owner.add_node("warm-up").await;
    let started = tokio::time::Instant::now();
    let id = owner.add_node("gpu").await;
    owner.await_events(&id, &["node.registered"]).await;
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
}

pub(crate) fn event(node: &str) -> String {
    json!({"type": "node.registered", "timestamp": "2025-12-11T12:00:00.000Z", "data": {"nodeId": node, "nodeName": "gpu",
        "status": "pending", "owner": {"orgId": "acme", "userId": "u"}}})
    .to_string()
}

const NODE: &str = "69396100cd71623c7bbfbfee";

/// A post to the built-in NOTI as a proper emitter makes it.
pub(crate) fn posted(controller: &Controller, id: &str, timestamp: i64, body: &str) -> RequestBuilder {
    let timestamp = timestamp.to_string();
    let signature = signature(id, &timestamp, body.as_bytes());
    controller
        .bearer(SERVICE_TOKEN)
        .request(Method::POST, "/events")
        .header("content-type", "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", timestamp)
        .header("webhook-signature", signature)
        .body(body.to_owned())
}

#[tokio::test]
async fn the_built_in_noti_keeps_an_event_once() {
    let controller = Controller::start().await;
    let first = answer(posted(&controller, "evt_1", now(), &event(NODE))).await;
    assert_eq!((first.0.as_u16(), &first.1["status"]), (202, &json!("accepted")));
    let again = answer(posted(&controller, "evt_1", now() - 5, &event(NODE))).await;
    assert_eq!((again.0.as_u16(), &again.1["status"]), (200, &json!("duplicate")));
    let events = controller.owner_of("acme").await.events(NODE).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["id"], "evt_1");
}

#[tokio::test]
async fn the_built_in_noti_refuses_what_is_unsigned_old_altered_or_no_event() {
    let controller = Controller::start().await;
    let whole = event(NODE);
    let post = |id| posted(&controller, id, now(), &whole);
    let no_bearer = |token: &str| controller.bearer(token).request(Method::POST, "/events").json(&json!({}));
    refusal(answer(no_bearer("wrong")).await, 401, "TOKEN_INVALID");
    refusal(answer(controller.nobody().request(Method::POST, "/events")).await, 401, "TOKEN_MISSING");
    refusal(answer(no_bearer(SERVICE_TOKEN)).await, 401, "SIGNATURE_REFUSED");
    refusal(answer(post("evt_2").body(whole.replace("gpu", "cpu"))).await, 401, "SIGNATURE_REFUSED");
    for ago in [310, -310] {
        refusal(answer(posted(&controller, "evt_3", now() - ago, &whole)).await, 401, "SIGNATURE_REFUSED");
    }
    for body in ["{}", "not json", &whole.replace("node.registered", "node.danced")] {
        refusal(answer(posted(&controller, "evt_4", now(), body)).await, 400, "VALIDATION_FAILED");
    }
    let large = event(NODE).replace("gpu", &"x".repeat(70_000));
    refusal(answer(posted(&controller, "evt_5", now(), &large)).await, 413, "BODY_TOO_LARGE");
    assert_eq!(controller.owner_of("acme").await.events(NODE).await, [] as [Value; 0]);
}

#[tokio::test]
async fn events_are_shown_oldest_first_by_node_and_since() {
    let controller = Controller::start().await;
    let other = "0123456789abcdef01234567";
    for (id, node) in [("evt_1", NODE), ("evt_2", other), ("evt_3", NODE)] {
        assert_eq!(answer(posted(&controller, id, now(), &event(node))).await.0, 202);
    }
    let owner = controller.owner_of("acme").await;
    let ids = async |query: &str| {
        let (_, events) = owner.get(&format!("/events?{query}")).await;
        let data = events["data"].as_array().unwrap().clone();
        data.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids("").await, ["evt_1", "evt_2", "evt_3"]);
    assert_eq!(ids("since=evt_1").await, ["evt_2", "evt_3"]);
    assert_eq!(ids(&format!("since=evt_1&nodeId={NODE}")).await, ["evt_3"]);
    assert_eq!(ids("limit=2").await, ["evt_1", "evt_2"]);
    assert_eq!(ids("since=2025-12-11T12:00:00.000Z").await.len(), 3);
    assert_eq!(ids("since=2025-12-11T12:00:00.001Z").await.len(), 0);
    for query in ["limit=0", "limit=1001", "nodeId=x", "sice=x"] {
        refusal(owner.get(&format!("/events?{query}")).await, 400, "VALIDATION_FAILED");
    }
    // A `+` that is not escaped is a blank to whoever decodes the query.
    assert_eq!(ids("since=2025-12-11T13:00:00.000+01:00").await.len(), 3);
    assert_eq!(ids("since=2025-12-11T13:00:00.000%2B01:00").await.len(), 3);
    for since in [
        "2025-01-01",
        "2025-01-01T00:00:00",
        "2025-13-01T00:00:00Z",
        "1765454400",
        "yesterday",
        "",
        "evt_",
        "evt%201",
    ] {
        let message = refusal(owner.get(&format!("/events?since={since}")).await, 400, "VALIDATION_FAILED");
        assert!(message.starts_with("since: "), "{since}: {message}");
    }
    for since in ["evt_9", "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W", "01890a5d-ac96-774b-bcce-b302099a8057"] {
        refusal(owner.get(&format!("/events?since={since}")).await, 410, "EVENT_GONE");
    }
}
