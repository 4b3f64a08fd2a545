//! `/ws/node`: who gets in, who is closed and with which code, and which of two connections counts.

use std::time::Duration;

use aio_protocol::claims::{NodeClaims, NodeTokenKind};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::{
    harness::{Client, Controller, SECRET},
    peers::{Worker, dial},
};

async fn node(controller: &Controller) -> (Client, String, String) {
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    (owner, id, token)
}

pub(crate) fn signed(secret: &str, sub: &str, exp_in: i64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    let claims = NodeClaims {
        sub: sub.parse().unwrap(),
        kind: NodeTokenKind::Node,
        jti: uuid::Uuid::new_v4().to_string(),
        iat: now,
        exp: now + exp_in,
        ctl: "ws://x/ws/node".into(),
        api: "http://x".into(),
        rel: None,
        ca: None,
    };
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

/// The HTTP answer to a dial that is refused.
async fn refused(url: &str, token: Option<&str>, protocol: Option<&str>) -> (u16, String) {
    match dial(url, token, protocol).await {
        Err(Error::Http(answer)) => {
            let body: Value = serde_json::from_slice(answer.body().as_deref().unwrap()).unwrap();
            assert_eq!(body["statusCode"], answer.status().as_u16(), "{body}");
            (answer.status().as_u16(), body["code"].as_str().unwrap().to_owned())
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was let in"),
    }
}

#[tokio::test]
async fn who_does_not_belong_is_refused_before_the_upgrade() {
    let controller = Controller::start().await;
    let (owner, id, token) = node(&controller).await;
    let url = controller.gateway();
    let expired = signed(SECRET, &id, -60);
    let forged = signed("another secret, also long enough to be one", &id, 60);
    let unknown = signed(SECRET, "69396100cd71623c7bbfbfee", 60);
    let user = {
        use controller_stub::commands::{For, user_token};
        let whose = For { org: Some("acme".parse().unwrap()), user: Some("u".parse().unwrap()) };
        user_token(&controller.config, whose, vec!["organization.owner".into()], 60).await.unwrap()
    };
    let protocol = Some("aio.node.v1");
    for (token, status, code) in [
        (None, 401, "TOKEN_MISSING"),
        (Some(""), 401, "TOKEN_MISSING"),
        (Some("garbage"), 401, "TOKEN_INVALID"),
        (Some(&token[..token.len() - 4]), 401, "TOKEN_INVALID"),
        (Some(forged.as_str()), 401, "TOKEN_INVALID"),
        (Some(user.as_str()), 401, "TOKEN_INVALID"),
        (Some(expired.as_str()), 401, "TOKEN_EXPIRED"),
        (Some(unknown.as_str()), 404, "NODE_NOT_FOUND"),
    ] {
        assert_eq!(refused(&url, token, protocol).await, (status, code.to_owned()));
    }
    for protocol in [None, Some("graphql-ws")] {
        assert_eq!(refused(&url, Some(&token), protocol).await, (400, "VALIDATION_FAILED".to_owned()));
    }
    controller.sql("UPDATE tokens SET revoked_at = 1").await;
    assert_eq!(refused(&url, Some(&token), protocol).await, (401, "TOKEN_REVOKED".to_owned()));
    let token = owner.token_of(&id).await;
    controller.sql("UPDATE nodes SET status = 'inactive'").await;
    assert_eq!(refused(&url, Some(&token), protocol).await, (403, "NODE_INACTIVE".to_owned()));
}

#[tokio::test]
async fn a_token_that_shares_the_secret_is_enough() {
    let controller = Controller::start().await;
    let (owner, id, _) = node(&controller).await;
    let _worker = Worker::welcomed(&controller.gateway(), &id, &signed(SECRET, &id, 60)).await;
    owner.await_status(&id, "online").await;
}

#[tokio::test]
async fn the_greeting_is_read_by_clients_of_both_generations() {
    let controller = Controller::start().await;
    let (_, id, token) = node(&controller).await;
    let socket = dial(&controller.gateway(), Some(&token), Some("other, aio.node.v1")).await.unwrap();
    drop(socket);
    let mut worker = Worker::connect(&controller.gateway(), &id, &token).await;
    worker.send("telemetry.heartbeat", heartbeat(1)).await;
    let ack = worker.receive("state.request").await;
    assert!(ack["messageId"].is_string() && ack["timestamp"].is_string(), "{ack}");
    worker.register().await;
    worker.receive("register.ack").await;
}

fn heartbeat(seq: u64) -> Value {
    json!({"seq": seq, "status": "online", "uptimeSeconds": 5, "cpuUsage": 1.5, "ramUsage": 2.5, "health": {"state": "ok"}})
}

#[tokio::test]
async fn who_does_not_register_in_time_is_closed() {
    let controller =
        Controller::start_with(|config| config.register_timeout = Duration::from_millis(200)).await;
    let (owner, id, token) = node(&controller).await;
    let mut worker = Worker::connect(&controller.gateway(), &id, &token).await;
    assert_eq!(worker.closed().await, 4408);
    assert_eq!(owner.node(&id).await["status"], "pending");
}

#[tokio::test]
async fn who_registered_in_time_is_not_closed_at_that_time() {
    let register_timeout = Duration::from_millis(200);
    let controller = Controller::start_with(|config| config.register_timeout = register_timeout).await;
    let (_, id, token) = node(&controller).await;
    let mut worker = Worker::welcomed(&controller.gateway(), &id, &token).await;
    tokio::time::sleep(register_timeout * 2).await;
    assert!(worker.ping().await.is_empty());
}

#[tokio::test]
async fn bad_frames_close_with_the_code_that_says_why() {
    let controller = Controller::start().await;
    let (owner, id, token) = node(&controller).await;
    let url = controller.gateway();
    let foreign = json!({"type": "node.disconnecting", "messageId": uuid::Uuid::nil(), "timestamp": "2025-12-11T12:00:00.000Z",
        "data": {"nodeId": "69396100cd71623c7bbfbfee", "reason": "shutdown"}});
    for (frame, code) in [
        (Message::text("{"), 4400),
        (Message::text(r#"{"type": "telemetry.heartbeat", "data": {}}"#), 4400),
        (Message::binary(vec![1, 2, 3]), 4400),
        (Message::text(foreign.to_string()), 4403),
        (Message::text("x".repeat(65 * 1024)), 1009),
        (Message::text("x".repeat(1024 * 1024)), 1009),
    ] {
        let mut worker = Worker::welcomed(&url, &id, &token).await;
        // A peer that is closed in the middle of a large frame may learn it while it still writes.
        let _ = worker.send_raw(frame.clone()).await;
        assert_eq!(worker.closed().await, code);
        owner.await_connected(&id, false).await;
    }
    assert_eq!(owner.node(&id).await["status"], "online", "none of it was a goodbye");
}

#[tokio::test]
async fn an_unknown_type_is_answered_and_the_connection_stays() {
    let controller = Controller::start().await;
    let (_, id, token) = node(&controller).await;
    let mut worker = Worker::welcomed(&controller.gateway(), &id, &token).await;
    let question = uuid::Uuid::new_v4();
    worker.send_text(json!({"type": "node.dance", "messageId": question, "data": {}}).to_string()).await;
    let error = worker.receive("error").await;
    assert_eq!(error["data"]["code"], 2001, "{error}");
    assert_eq!(error["data"]["originalMessageId"], json!(question), "{error}");
    worker.heartbeat(1).await;
    assert!(worker.ping().await.is_empty());
}

#[tokio::test]
async fn a_gap_in_the_heartbeats_is_answered_by_a_request_for_the_state() {
    let controller = Controller::start().await;
    let (_, id, token) = node(&controller).await;
    let mut worker = Worker::welcomed(&controller.gateway(), &id, &token).await;
    worker.heartbeat(1).await;
    worker.heartbeat(3).await;
    worker.receive("state.request").await;
    worker.register().await;
    worker.receive("register.ack").await;
    worker.heartbeat(4).await;
    assert!(worker.ping().await.is_empty());
}

#[tokio::test]
async fn a_pong_comes_after_everything_before_its_ping_was_handled() {
    let controller = Controller::start().await;
    let (owner, id, token) = node(&controller).await;
    let mut worker = Worker::connect(&controller.gateway(), &id, &token).await;
    worker.register().await;
    let before = worker.ping().await;
    assert_eq!(before[0]["type"], "register.ack", "{before:?}");
    assert_eq!(owner.node(&id).await["status"], "online");
}

#[tokio::test]
async fn a_second_connection_supersedes_the_first_whose_end_changes_nothing() {
    let controller = Controller::start().await;
    let (owner, id, token) = node(&controller).await;
    let url = controller.gateway();
    let mut first = Worker::welcomed(&url, &id, &token).await;
    let mut second = Worker::welcomed(&url, &id, &token).await;
    assert_eq!(first.closed().await, 4409);
    drop(first);
    for seq in 1..=5 {
        second.heartbeat(seq).await;
        assert!(second.ping().await.is_empty());
        let node = owner.node(&id).await;
        assert_eq!((&node["websocketConnected"], &node["status"]), (&json!(true), &json!("online")));
    }
    // Nobody was told of anything but one arrival.
    let types = ["node.registered", "node.installation_started", "node.connected"];
    owner.await_events(&id, &types).await;
    drop(second);
    owner.await_connected(&id, false).await;
}

#[tokio::test]
async fn a_stop_closes_every_socket_with_restart_and_leaves_the_nodes_online() {
    let mut controller = Controller::start().await;
    let (_, id, token) = node(&controller).await;
    let address = controller.address();
    let mut worker = Worker::welcomed(&controller.gateway(), &id, &token).await;
    let (code, ()) = tokio::join!(worker.closed(), controller.stop());
    assert_eq!(code, 1012);
    controller.start_again(address).await;
    let node = controller.owner_of("acme").await.node(&id).await;
    assert_eq!((&node["status"], &node["websocketConnected"]), (&json!("online"), &json!(false)));
}
