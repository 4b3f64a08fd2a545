//! What an admin does to a node: maintenance, resume, decommissioning, new credentials; and the
//! audit trail of it all.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    harness::{Client, Controller, answer, eventually, refusal},
    peers::{Worker, dial},
};

async fn delete(client: &Client, id: &str) -> (u16, Value) {
    let (status, node) = answer(client.request(Method::DELETE, &format!("/nodes/{id}"))).await;
    (status.as_u16(), node)
}

#[tokio::test]
async fn maintenance_keeps_the_worker_connected_and_resume_brings_the_node_back_online() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let (enter, leave) = (format!("/nodes/{id}/maintenance"), format!("/nodes/{id}/resume"));
    let (status, body) = owner.post(&enter, json!({})).await;
    assert_eq!((status.as_u16(), &body["code"]), (409, &json!("TRANSITION_REFUSED")));
    assert!(body["allowed"].as_array().unwrap().contains(&json!("decommission")), "{body}");

    let mut worker = Worker::welcomed(&controller.gateway(), &id, &owner.token_of(&id).await).await;
    for _ in 0..2 {
        let (status, node) = answer(owner.request(Method::POST, &enter)).await;
        assert_eq!((status.as_u16(), &node["status"]), (200, &json!("maintenance")));
    }
    worker.heartbeat(1).await;
    worker.ping().await;
    let node = owner.node(&id).await;
    assert_eq!((&node["status"], &node["websocketConnected"]), (&json!("maintenance"), &json!(true)));
    let (status, node) = owner.post(&leave, json!({})).await;
    assert_eq!((status.as_u16(), &node["status"]), (200, &json!("online")));
    refusal(owner.post(&leave, json!({})).await, 409, "TRANSITION_REFUSED");
    owner
        .await_events(
            &id,
            &[
                "node.registered",
                "node.installation_started",
                "node.connected",
                "node.maintenance_mode",
                "node.resumed",
            ],
        )
        .await;
}

#[tokio::test]
async fn a_node_that_is_resumed_without_its_worker_is_offline() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let worker = Worker::welcomed(&controller.gateway(), &id, &owner.token_of(&id).await).await;
    owner.post(&format!("/nodes/{id}/maintenance"), json!({})).await;
    drop(worker);
    owner.await_connected(&id, false).await;
    assert_eq!(owner.node(&id).await["status"], "maintenance");
    let (_, node) = owner.post(&format!("/nodes/{id}/resume"), json!({})).await;
    assert_eq!(node["status"], "offline");
}

#[tokio::test]
async fn maintenance_begins_from_offline_and_error_too_and_ends_in_what_the_node_is_then() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    for failed in [false, true] {
        let id = owner.add_node(if failed { "failed" } else { "away" }).await;
        let token = owner.token_of(&id).await;
        if failed {
            let error = json!({"code": "CHECKSUM_MISMATCH", "message": "It differs.", "details": {}});
            for report in [json!({"phase": "started"}), json!({"phase": "failed", "error": error})] {
                let installer = controller.bearer(&token);
                assert_eq!(installer.post(&format!("/nodes/{id}/installation"), report).await.0, 200);
            }
        } else {
            let mut worker = Worker::welcomed(&controller.gateway(), &id, &token).await;
            worker.send("node.disconnecting", json!({"reason": "shutdown"})).await;
            drop(worker);
        }
        let before = if failed { "error" } else { "offline" };
        eventually("the node to be what it is to be", async || {
            let node = owner.node(&id).await;
            if node["status"] == before { Ok(()) } else { Err(node.to_string()) }
        })
        .await;
        let maintenance = async || owner.post(&format!("/nodes/{id}/maintenance"), json!({})).await;
        let (status, node) = maintenance().await;
        assert_eq!((status.as_u16(), &node["status"]), (200, &json!("maintenance")));
        let (_, node) = owner.post(&format!("/nodes/{id}/resume"), json!({})).await;
        assert_eq!(node["status"], "offline");
        assert_eq!(maintenance().await.0, 200);
        let _worker = Worker::welcomed(&controller.gateway(), &id, &token).await;
        owner.await_connected(&id, true).await;
        assert_eq!(owner.node(&id).await["status"], "maintenance", "its worker changes nothing of that");
        let (_, node) = owner.post(&format!("/nodes/{id}/resume"), json!({})).await;
        assert_eq!(node["status"], "online");
    }
}

#[tokio::test]
async fn an_action_takes_no_fields() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    for action in ["maintenance", "resume"] {
        let path = format!("/nodes/{id}/{action}");
        let message = refusal(owner.post(&path, json!({"reason": "x"})).await, 400, "VALIDATION_FAILED");
        assert!(message.contains("reason"), "{message}");
    }
}

#[tokio::test]
async fn a_decommissioned_node_stays_listed_and_its_tokens_open_nothing() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    let mut worker = Worker::welcomed(&controller.gateway(), &id, &token).await;
    let (status, node) = delete(&owner, &id).await;
    assert_eq!(
        (status, &node["status"], &node["websocketConnected"]),
        (200, &json!("inactive"), &json!(false))
    );
    assert_eq!(worker.closed().await, 4401);

    let node = controller.bearer(&token);
    refusal(node.get(&format!("/nodes/{id}/installation")).await, 403, "NODE_INACTIVE");
    assert!(dial(&controller.gateway(), Some(&token), Some("aio.node.v1")).await.is_err());
    for path in ["token", "regenerate-credentials"] {
        refusal(owner.post(&format!("/nodes/{id}/{path}"), json!({})).await, 409, "NODE_INACTIVE");
    }
    let (status, body) = owner.post(&format!("/nodes/{id}/maintenance"), json!({})).await;
    assert_eq!((status.as_u16(), &body["allowed"]), (409, &json!(["decommission"])));

    assert_eq!(delete(&owner, &id).await.0, 200, "and a second time is as good as once");
    let types = ["node.registered", "node.installation_started", "node.connected", "node.decommissioned"];
    owner.await_events(&id, &types).await;
    assert_eq!(owner.get("/nodes?status=inactive").await.1["data"][0]["_id"], json!(id));
}

#[tokio::test]
async fn new_credentials_end_every_older_token_and_its_connection_at_once() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let (id, other) = (owner.add_node("gpu").await, owner.add_node("other").await);
    let (first, second) = (owner.token_of(&id).await, owner.token_of(&id).await);
    let bystander = owner.token_of(&other).await;
    let path = format!("/nodes/{id}/installation");
    for token in [&first, &second] {
        assert_eq!(controller.bearer(token).get(&path).await.0, 200);
    }
    let mut worker = Worker::welcomed(&controller.gateway(), &id, &first).await;
    let asked = tokio::time::Instant::now();
    let (status, new) =
        owner.post(&format!("/nodes/{id}/regenerate-credentials"), json!({"expiresIn": 3600})).await;
    assert_eq!(status, 201, "{new}");
    assert_eq!(worker.closed().await, 4401);
    assert!(asked.elapsed().as_millis() < 1000, "{:?}", asked.elapsed());
    let node = owner.node(&id).await;
    assert_eq!((&node["status"], &node["websocketConnected"]), (&json!("online"), &json!(false)));

    for token in [&first, &second] {
        refusal(controller.bearer(token).get(&path).await, 401, "TOKEN_REVOKED");
    }
    assert_eq!(controller.bearer(&bystander).get(&format!("/nodes/{other}/installation")).await.0, 200);
    let new = new["token"].as_str().unwrap();
    assert_eq!(controller.bearer(new).get(&path).await.0, 200);
    Worker::welcomed(&controller.gateway(), &id, new).await;
}

#[tokio::test]
async fn the_audit_trail_says_what_moved_a_node_who_and_when_newest_first() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let _worker = Worker::welcomed(&controller.gateway(), &id, &owner.token_of(&id).await).await;
    owner.post(&format!("/nodes/{id}/maintenance"), json!({})).await;
    let (status, list) = owner.get(&format!("/nodes/{id}/transitions")).await;
    assert_eq!(status, 200, "{list}");
    assert_eq!(list["pagination"], json!({"page": 1, "limit": 20, "total": 4, "totalPages": 1}));
    let told: Vec<_> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| format!("{} {} {} {}", it["from"], it["to"], it["trigger"], it["actor"]).replace('"', ""))
        .collect();
    assert_eq!(
        told,
        [
            "online maintenance maintenance user:someone".to_owned(),
            format!("installing online worker_welcomed node:{id}"),
            format!("pending installing worker_welcomed node:{id}"),
            "null pending registered user:someone".to_owned(),
        ]
    );
    assert!(list["data"].as_array().unwrap().iter().all(|it| it["at"].as_str().unwrap().ends_with('Z')));
    let (_, page) = owner.get(&format!("/nodes/{id}/transitions?page=2&limit=3")).await;
    assert_eq!(
        (page["data"].as_array().unwrap().len(), &page["data"][0]["trigger"]),
        (1, &json!("registered"))
    );
    refusal(owner.get(&format!("/nodes/{id}/transitions?order=x")).await, 400, "VALIDATION_FAILED");
}

#[tokio::test]
async fn tokens_that_were_revoked_behind_the_servers_back_end_their_connection_too() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let mut worker = Worker::welcomed(&controller.gateway(), &id, &owner.token_of(&id).await).await;
    controller.sql("UPDATE nodes SET tokens_not_before = tokens_not_before + 1").await;
    assert_eq!(worker.closed().await, 4401);
    owner.await_connected(&id, false).await;
}

#[tokio::test]
async fn lists_are_ordered_as_asked() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let mut ids = Vec::new();
    for name in ["b", "c", "a", "d"] {
        ids.push(owner.add_node(name).await);
        // Times of creation have milliseconds.
        eventually("the next millisecond", async || {
            let (_, list) = owner.get("/nodes?limit=1&sort=-createdAt").await;
            let created: aio_protocol::time::Timestamp =
                serde_json::from_value(list["data"][0]["createdAt"].clone()).unwrap();
            let now: aio_protocol::time::Timestamp = std::time::SystemTime::now().into();
            if now > created { Ok(()) } else { Err(now.to_string()) }
        })
        .await;
    }
    let _worker = Worker::welcomed(&controller.gateway(), &ids[1], &owner.token_of(&ids[1]).await).await;
    let names = async |sort: &str| {
        let mut seen = Vec::new();
        for page in 1..=4 {
            let (_, list) = owner.get(&format!("/nodes?limit=1&page={page}{sort}")).await;
            seen.push(list["data"][0]["name"].as_str().unwrap().to_owned());
        }
        seen.concat()
    };
    assert_eq!(names("").await, "dacb");
    assert_eq!(names("&sort=-createdAt").await, "dacb");
    assert_eq!(names("&sort=createdAt").await, "bcad");
    assert_eq!(names("&sort=name").await, "abcd");
    assert_eq!(names("&sort=-name").await, "dcba");
    assert!(names("&sort=status").await.starts_with('c'), "online comes before pending");
    assert!(names("&sort=-status").await.ends_with('c'));
    assert!(names("&sort=-lastSeenAt").await.starts_with('c'));
    assert!(names("&sort=lastSeenAt").await.ends_with('c'));
    for sort in ["createdat", "-", "id", "", "--name", "name,id"] {
        let message = refusal(owner.get(&format!("/nodes?sort={sort}")).await, 400, "VALIDATION_FAILED");
        assert!(message.contains("sort"), "{message}");
    }
}
