//! The namespace `/ws/node`: each line of the contract's table, and what becomes of the node.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::peer::{Heard, Node, Peer, controller, node};
use crate::{
    gateway::signed,
    harness::{Client, Controller},
};

async fn set_up() -> (Controller, Client, Node) {
    let controller = controller().await;
    let owner = controller.owner_of("acme").await;
    let node = node(&controller, &owner, "gpu-01").await;
    (controller, owner, node)
}

async fn await_status(owner: &Client, id: &str, status: &str) -> Value {
    owner.await_status(id, status).await
}

#[tokio::test]
async fn a_worker_joins_registers_beats_and_leaves_and_noti_hears_of_it() {
    let (controller, owner, node) = set_up().await;
    assert_eq!(owner.node(&node.id).await["status"], "installing");
    let mut peer = Peer::connect(&controller).await;
    assert_eq!(peer.open["pingInterval"], 25_000, "{}", peer.open);
    assert_eq!((&peer.open["pingTimeout"], &peer.open["maxPayload"]), (&json!(20_000), &json!(1_000_000)));
    assert_eq!(peer.open["upgrades"], json!([]));
    peer.join(&node.token).await;
    assert!(peer.text().await.starts_with("40/ws/node,"));
    let ack = peer.event("connection.ack").await;
    for (field, value) in [
        ("type", json!("connection.ack")),
        ("status", json!("success")),
        ("nodeId", json!(node.id)),
        ("controllerId", json!("controller-main")),
        ("serverVersion", json!("1.0.0")),
    ] {
        assert_eq!(ack[field], value, "{ack}");
    }
    let registered = peer.register().await;
    let data = &registered["data"];
    assert_eq!((&data["status"], &data["nodeId"]), (&json!("success"), &json!(node.id)), "{registered}");
    assert_eq!(data["controllerInfo"]["heartbeatInterval"], 30_000, "{registered}");
    assert_eq!((&data["controllerInfo"]["timezone"], &data["pendingCommands"]), (&json!("UTC"), &json!([])));
    let seen = await_status(&owner, &node.id, "online").await;
    assert_eq!(seen["systemInfo"]["architecture"]["cpu"], "x86_64", "{seen}");
    peer.heartbeat(json!({"status": "online", "cpuUsage": 12.5})).await;
    peer.nothing_came().await;
    peer.leave().await;
    await_status(&owner, &node.id, "offline").await;
    let types = ["node.registered", "node.installation_started", "node.connected", "node.disconnected"];
    let events = owner.await_events(&node.id, &types).await;
    assert_eq!(events[2]["data"]["gpuDevices"][0]["model"], "NVIDIA L4", "{}", events[2]);
}

#[tokio::test]
async fn who_does_not_belong_is_told_and_the_connection_stays_open() {
    let (controller, _, node) = set_up().await;
    let mut tokens = vec![("40/ws/node,".to_owned(), "TOKEN_MISSING")];
    let foreign = signed("another secret, also long enough to be one", &node.id, 60);
    let own = signed(crate::harness::SECRET, &node.id, 60);
    for token in ["garbage", &foreign, &own, &node.setup, &node.token[..node.token.len() - 3]] {
        tokens.push((format!("40/ws/node,{}", json!({ "token": token })), "TOKEN_INVALID"));
    }
    let old = expired(&node.id);
    tokens.push((format!("40/ws/node,{}", json!({ "token": old })), "TOKEN_EXPIRED"));
    for (join, message) in tokens {
        let mut peer = Peer::connect(&controller).await;
        peer.say(&join).await;
        assert_eq!(peer.text().await, format!("44/ws/node,{{\"message\":\"{message}\"}}"));
        peer.nothing_came().await;
        // It may try again on the same connection.
        peer.join(&node.token).await;
        assert!(peer.text().await.starts_with("40/ws/node,"));
    }
    for other in ["/other", "/ws/node/"] {
        let mut peer = Peer::connect(&controller).await;
        peer.say(&format!("40{other},")).await;
        assert_eq!(peer.text().await, format!("44{other},{{\"message\":\"Invalid namespace\"}}"));
        peer.nothing_came().await;
    }
}

/// A node token of AIWM's form whose hour is over.
fn expired(id: &str) -> String {
    use jsonwebtoken::{EncodingKey, Header};
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({"sub": id, "type": "node", "username": "gpu-01", "status": "online", "roles": ["worker"],
        "orgId": "acme", "iat": now - 3660, "exp": now - 60});
    let key = EncodingKey::from_secret(crate::harness::SECRET.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap()
}

#[tokio::test]
async fn a_worker_whose_node_is_gone_is_told_after_the_join_and_sent_away() {
    let (controller, _, node) = set_up().await;
    controller.sql("UPDATE nodes SET status = 'inactive'").await;
    let mut peer = Peer::connect(&controller).await;
    peer.join(&node.token).await;
    assert!(peer.text().await.starts_with("40/ws/node,"));
    let ack = peer.event("connection.ack").await;
    assert_eq!((&ack["status"], &ack["error"]["code"]), (&json!("error"), &json!("1004")), "{ack}");
    assert!(ack["error"]["timestamp"].is_string() && ack["error"]["message"].is_string(), "{ack}");
    assert_eq!(peer.text().await, "41/ws/node,");
    assert_eq!(peer.hear().await, Heard::Closed(None));
}

#[tokio::test]
async fn a_second_connection_supersedes_the_first_whose_end_changes_nothing() {
    let (controller, owner, node) = set_up().await;
    let mut first = Peer::welcomed(&controller, &node.token).await;
    let mut second = Peer::joined(&controller, &node.token).await;
    assert_eq!(first.text().await, "41/ws/node,");
    assert_eq!(first.hear().await, Heard::Closed(None));
    second.register().await;
    for _ in 0..5 {
        second.heartbeat(json!({})).await;
        second.nothing_came().await;
        assert_eq!(owner.node(&node.id).await["status"], "online");
    }
    drop(second);
    await_status(&owner, &node.id, "offline").await;
}

#[tokio::test]
async fn a_worker_is_offline_at_once_when_its_connection_is_cut() {
    let (controller, owner, node) = set_up().await;
    let peer = Peer::welcomed(&controller, &node.token).await;
    drop(peer);
    await_status(&owner, &node.id, "offline").await;
    assert_eq!(owner.node(&node.id).await["websocketConnected"], false);
}

#[tokio::test]
async fn what_cannot_be_understood_is_answered_as_the_contract_says() {
    let (controller, owner, node) = set_up().await;
    let mut peer = Peer::joined(&controller, &node.token).await;
    for (event, message) in [
        ("node.dance", json!({"data": {}})),
        ("telemetry.metrics", json!({"data": {"cpu": {}}})),
        ("telemetry.heartbeat", json!({"data": {"nodeId": "another", "status": 7}})),
        ("command.ack", json!({"data": {"originalMessageId": "x"}})),
    ] {
        peer.emit(event, message).await;
        peer.nothing_came().await;
    }
    peer.say("42/ws/node,7[\"telemetry.heartbeat\",{\"data\":{}}]").await;
    peer.nothing_came().await;
    for event in ["node.register", "telemetry.heartbeat", "telemetry.metrics"] {
        peer.emit(event, json!({"type": event})).await;
        let exception = peer.event("exception").await;
        assert_eq!((&exception["status"], &exception["cause"]["pattern"]), (&json!("error"), &json!(event)));
    }
    peer.emit("node.register", json!({"data": {"cpuCores": "eight"}})).await;
    let error = peer.event("error").await;
    assert_eq!(error["error"]["code"], "REGISTRATION_FAILED", "{error}");
    assert_eq!(owner.node(&node.id).await["status"], "installing", "nothing of it registered the worker");
    peer.register().await;
    peer.emit("node.register", json!({"data": {"cpuCores": 8, "ramTotal": 1024, "daemonVersion": "1.2.3"}}))
        .await;
    peer.event("register.ack").await;
    let seen = await_status(&owner, &node.id, "online").await;
    assert_eq!(seen["daemonVersion"], "1.2.3", "{seen}");
}

#[tokio::test]
async fn a_malformed_packet_and_a_second_join_close_the_connection_without_a_word() {
    let (controller, _, node) = set_up().await;
    for malformed in ["4x", "9", "42/ws/node,", "42/ws/node,{", "45/ws/node,9999-[]", "hello"] {
        let mut peer = Peer::joined(&controller, &node.token).await;
        peer.say(malformed).await;
        assert_eq!(peer.hear().await, Heard::Closed(None), "{malformed}");
    }
    let mut peer = Peer::joined(&controller, &node.token).await;
    peer.join(&node.token).await;
    assert_eq!(peer.hear().await, Heard::Closed(None));
}

#[tokio::test]
async fn a_message_that_is_too_large_closes_with_1009_and_a_large_one_is_taken() {
    let (controller, _, node) = set_up().await;
    for length in [1_000_001, 5_000_000] {
        let mut peer = Peer::joined(&controller, &node.token).await;
        peer.send(Message::text("4".repeat(length))).await;
        assert_eq!(peer.hear().await, Heard::Closed(Some(1009)), "{length}");
    }
    let mut stranger = Peer::connect(&controller).await;
    stranger.send(Message::text("4".repeat(65_537))).await;
    assert_eq!(stranger.hear().await, Heard::Closed(Some(1009)), "who has not joined has less");
    let mut peer = Peer::joined(&controller, &node.token).await;
    let text = "x".repeat(999_000);
    peer.emit("telemetry.metrics", json!({"data": {"text": text}})).await;
    peer.nothing_came().await;
}

#[tokio::test]
async fn who_says_more_than_any_worker_is_closed() {
    let (controller, _, node) = set_up().await;
    let mut peer = Peer::joined(&controller, &node.token).await;
    for _ in 0..400 {
        peer.heartbeat(json!({})).await;
    }
    assert_eq!(peer.hear().await, Heard::Closed(Some(4429)));
}

#[tokio::test]
async fn a_node_that_is_set_aside_comes_back_with_a_status_or_a_register_and_not_without() {
    let (controller, owner, node) = set_up().await;
    let mut peer = Peer::welcomed(&controller, &node.token).await;
    await_status(&owner, &node.id, "online").await;
    for how in ["heartbeat", "register"] {
        let (status, body) = owner.post(&format!("/nodes/{}/maintenance", node.id), json!({})).await;
        assert_eq!((status.as_u16(), &body["status"]), (200, &json!("maintenance")), "{body}");
        peer.heartbeat(json!({"cpuUsage": 1.0})).await;
        peer.nothing_came().await;
        assert_eq!(owner.node(&node.id).await["status"], "maintenance");
        match how {
            "heartbeat" => {
                // The connection learns at its next turn that its node was set aside.
                let mut beats = 0;
                while owner.node(&node.id).await["status"] != "online" {
                    beats += 1;
                    assert!(beats < 40, "a heartbeat with a status changes nothing");
                    peer.heartbeat(json!({"status": "online"})).await;
                    peer.nothing_came().await;
                }
            }
            _ => {
                peer.register().await;
                await_status(&owner, &node.id, "online").await;
            }
        }
    }
}

#[tokio::test]
async fn a_revoked_worker_is_sent_away_and_its_tokens_open_nothing() {
    let (controller, owner, node) = set_up().await;
    let mut peer = Peer::welcomed(&controller, &node.token).await;
    await_status(&owner, &node.id, "online").await;
    let (status, body) = owner.post(&format!("/nodes/{}/regenerate-credentials", node.id), json!({})).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(peer.text().await, "41/ws/node,");
    assert_eq!(peer.hear().await, Heard::Closed(None));
    let mut peer = Peer::connect(&controller).await;
    peer.join(&node.token).await;
    assert_eq!(peer.text().await, "44/ws/node,{\"message\":\"TOKEN_INVALID\"}");
    let secret = body["credentials"]["secret"].as_str().unwrap();
    let token = super::peer::login(&controller.nobody(), &node.id, secret).await;
    Peer::welcomed(&controller, &token).await;
    assert_eq!(body["affectedStatus"], "online");
}

#[tokio::test]
async fn a_stop_cuts_every_connection_without_a_close_frame_and_leaves_the_nodes_online() {
    let (mut controller, owner, node) = set_up().await;
    let address = controller.address();
    let mut peer = Peer::welcomed(&controller, &node.token).await;
    await_status(&owner, &node.id, "online").await;
    let (heard, ()) = tokio::join!(peer.hear(), controller.stop());
    assert_eq!(heard, Heard::Cut);
    controller.start_again(address).await;
    let node = controller.owner_of("acme").await.node(&node.id).await;
    assert_eq!((&node["status"], &node["websocketConnected"]), (&json!("online"), &json!(false)));
}

#[tokio::test]
async fn a_worker_that_is_silent_for_a_lease_is_offline() {
    let controller =
        super::peer::controller_with(|config| config.heartbeat_timeout = Duration::from_millis(300)).await;
    let owner = controller.owner_of("acme").await;
    let node = node(&controller, &owner, "gpu-01").await;
    let _peer = Peer::welcomed(&controller, &node.token).await;
    await_status(&owner, &node.id, "offline").await;
}

/// The contract's 45 s are the time that it takes.
#[tokio::test]
async fn who_does_not_join_and_who_answers_no_ping_is_closed_after_45_s() {
    let (controller, owner, node) = set_up().await;
    let began = std::time::Instant::now();
    let no_join = Peer::connect(&controller).await;
    let mut refused = Peer::connect(&controller).await;
    refused.join("forged").await;
    refused.text().await;
    let mut silent = Peer::welcomed(&controller, &node.token).await;
    silent.silent = true;
    let closed = async |mut peer: Peer| {
        // A busy machine is late, and never early.
        assert_eq!(peer.hear_within(Duration::from_secs(80)).await, Some(Heard::Closed(None)));
        let after = began.elapsed().as_secs_f64();
        assert!(after >= 44.5, "{after} s");
    };
    tokio::join!(closed(no_join), closed(refused), closed(silent));
    await_status(&owner, &node.id, "offline").await;
}

#[tokio::test]
async fn one_address_has_no_more_sessions_without_a_token_than_its_share() {
    let controller = super::peer::controller_with(|config| config.api_requests_per_second = None).await;
    let nobody = controller.nobody();
    let open = async || {
        let request = nobody.request(reqwest::Method::GET, "/socket.io/?EIO=4&transport=polling");
        request.send().await.unwrap().status().as_u16()
    };
    for number in 0..512 {
        assert_eq!(open().await, 200, "{number}");
    }
    assert_eq!(open().await, 503);
}

#[tokio::test]
async fn what_is_no_session_of_engine_io_is_refused_in_its_words() {
    let controller = controller().await;
    let nobody = controller.nobody();
    for (query, code) in [
        ("", 0),
        ("?EIO=4&transport=smoke", 0),
        ("?EIO=3&transport=polling", 5),
        ("?EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAA", 1),
    ] {
        let (status, body) = nobody.get(&format!("/socket.io/{query}")).await;
        assert_eq!((status.as_u16(), &body["code"]), (400, &json!(code)), "{query}: {body}");
    }
    let (status, body) = nobody.post("/socket.io/?EIO=4&transport=polling", json!({})).await;
    assert_eq!((status.as_u16(), &body["code"]), (400, &json!(2)), "{body}");
}

#[tokio::test]
async fn a_request_that_polls_brings_no_more_packets_than_a_worker_has() {
    let controller = controller().await;
    let nobody = controller.nobody();
    let path = "/socket.io/?EIO=4&transport=polling";
    let opened = nobody.request(reqwest::Method::GET, path).send().await.unwrap().text().await.unwrap();
    let opened: Value = serde_json::from_str(&opened[1..]).unwrap();
    let path = format!("{path}&sid={}", opened["sid"].as_str().unwrap());
    let say = async |body: String| {
        let request = nobody.request(reqwest::Method::POST, &path).header("content-type", "text/plain");
        request.body(body).send().await.unwrap().status().as_u16()
    };
    assert_eq!(say("3".into()).await, 200);
    assert_eq!(say(["3"; 200].join("\u{1e}")).await, 429);
    assert_eq!(say("3".repeat(70_000)).await, 413);
}

#[tokio::test]
async fn a_worker_of_aiwms_dialect_is_measured_too() {
    let (controller, owner, node) = set_up().await;
    let mut peer = Peer::welcomed(&controller, &node.token).await;
    let data = json!({"cpu": {"usage": 12.5, "cores": 8, "loadAverage": [1, 2, 3]}, "memory": {"total": 1024, "used": 256, "free": 768},
        "gpuDevices": [{"deviceId": "0", "utilization": 50}]});
    peer.heartbeat(json!({"uptimeSeconds": 77})).await;
    peer.emit("telemetry.metrics", json!({"type": "telemetry.metrics", "data": data})).await;
    peer.nothing_came().await;
    let (_, measured) = owner.get(&format!("/nodes/{}/metrics", node.id)).await;
    let newest = &measured["newest"];
    let machine = (&newest["uptimeSeconds"], &newest["cpuUsage"], &newest["ramUsage"]);
    assert_eq!(machine, (&json!(77), &json!(12.5), &json!(25.0)), "{newest}");
    assert_eq!(newest["gpu"], json!([{"deviceId": "0", "utilization": 50, "health": "unknown"}]));
}
