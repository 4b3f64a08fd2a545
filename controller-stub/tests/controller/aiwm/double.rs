//! The double: it fails as a test orders it, and tells what was said.

use std::os::unix::fs::PermissionsExt;

use aio_protocol::error_code::ErrorCode;
use controller_stub::{
    config::{Aiwm, Config, Settings},
    serve::Server,
};
use rcgen::KeyPair;
use reqwest::Method;
use serde_json::{Value, json};

use super::peer::{Heard, Node, Peer, controller_with, login, node, post};
use crate::harness::{Client, Controller, answer};

async fn set_up() -> (Controller, Client, Node) {
    let controller = controller_with(|config| config.aiwm_double = true).await;
    let owner = controller.owner_of("acme").await;
    let node = node(&controller, &owner, "gpu-01").await;
    (controller, owner, node)
}

async fn order(controller: &Controller, fault: Value) -> Value {
    let (status, body) = post(&controller.nobody(), "/_double/faults", fault).await;
    assert_eq!(status, 201, "{body}");
    body
}

#[tokio::test]
async fn a_join_is_refused_as_ordered_and_then_no_more() {
    let (controller, _, node) = set_up().await;
    for message in ["TOKEN_MISSING", "TOKEN_INVALID", "TOKEN_EXPIRED"] {
        order(&controller, json!({"fault": "refuse", "with": message, "nodeId": node.id})).await;
        let mut peer = Peer::connect(&controller).await;
        peer.join(&node.token).await;
        assert_eq!(peer.text().await, format!("44/ws/node,{{\"message\":\"{message}\"}}"));
    }
    for code in ["1004", "1005", "INTERNAL_ERROR"] {
        order(&controller, json!({"fault": "refuse", "with": code})).await;
        let mut peer = Peer::connect(&controller).await;
        peer.join(&node.token).await;
        assert!(peer.text().await.starts_with("40/ws/node,"));
        let ack = peer.event("connection.ack").await;
        assert_eq!((&ack["status"], &ack["error"]["code"]), (&json!("error"), &json!(code)), "{ack}");
        assert_eq!(peer.text().await, "41/ws/node,");
        assert_eq!(peer.hear().await, Heard::Closed(None));
    }
    Peer::welcomed(&controller, &node.token).await;
}

#[tokio::test]
async fn a_connection_is_cut_or_sent_away_at_once() {
    let (controller, owner, node) = set_up().await;
    let mut peer = Peer::welcomed(&controller, &node.token).await;
    assert_eq!(order(&controller, json!({"fault": "cut", "nodeId": node.id})).await["ended"], 1);
    assert_eq!(peer.hear().await, Heard::Cut);
    owner.await_status(&node.id, "offline").await;
    let mut peer = Peer::welcomed(&controller, &node.token).await;
    assert_eq!(order(&controller, json!({"fault": "sendAway"})).await["ended"], 1);
    assert_eq!(peer.hear().await, Heard::Closed(None));
}

#[tokio::test]
async fn a_token_expires_when_it_is_told_to_and_a_heartbeat_gets_lost() {
    let (controller, owner, node) = set_up().await;
    order(&controller, json!({"fault": "expire", "nodeId": node.id})).await;
    let mut peer = Peer::connect(&controller).await;
    peer.join(&node.token).await;
    assert_eq!(peer.text().await, "44/ws/node,{\"message\":\"TOKEN_EXPIRED\"}");
    let token = login(&controller.nobody(), &node.id, &node.secret).await;
    let mut peer = Peer::welcomed(&controller, &token).await;
    let before = owner.node(&node.id).await["lastHeartbeat"].clone();
    order(&controller, json!({"fault": "loseHeartbeat", "nodeId": node.id})).await;
    peer.heartbeat(json!({})).await;
    peer.nothing_came().await;
    assert_eq!(owner.node(&node.id).await["lastHeartbeat"], before);
    peer.heartbeat(json!({})).await;
    peer.nothing_came().await;
    assert_ne!(owner.node(&node.id).await["lastHeartbeat"], before);
}

#[tokio::test]
async fn answers_are_late_when_it_is_ordered_and_orders_can_be_taken_back() {
    let (controller, _, node) = set_up().await;
    let nobody = controller.nobody();
    order(&controller, json!({"fault": "delay", "millis": 300, "at": "rest"})).await;
    order(&controller, json!({"fault": "delay", "millis": 300, "at": "join", "nodeId": node.id})).await;
    let began = std::time::Instant::now();
    nobody.get("/health").await;
    assert!(began.elapsed().as_millis() >= 300);
    let began = std::time::Instant::now();
    Peer::joined(&controller, &node.token).await;
    assert!(began.elapsed().as_millis() >= 300);
    order(&controller, json!({"fault": "refuse", "with": "1005", "times": 3})).await;
    let (_, list) = nobody.get("/_double/faults").await;
    assert_eq!(list["data"], json!([{"times": 3, "fault": "refuse", "with": "1005"}]), "{list}");
    let cleared = nobody.request(Method::DELETE, "/_double/faults").send().await.unwrap();
    assert_eq!(cleared.status(), 204);
    Peer::joined(&controller, &node.token).await;
    for wrong in [
        json!({}),
        json!({"fault": "explode"}),
        json!({"fault": "expire"}),
        json!({"fault": "cut", "nodeId": "x"}),
    ] {
        assert_eq!(post(&nobody, "/_double/faults", wrong.clone()).await.0, 400, "{wrong}");
    }
}

#[tokio::test]
async fn all_that_was_said_is_told_without_a_secret() {
    let (controller, _, node) = set_up().await;
    let mut peer = Peer::welcomed(&controller, &node.token).await;
    peer.emit("command.result", json!({"data": {"status": "success", "result": {"secret": "s3cret"}}})).await;
    peer.emit("node.dance", json!({"data": {"steps": 3}})).await;
    peer.nothing_came().await;
    let (_, all) = controller.nobody().get("/_double/recording").await;
    let text = all.to_string();
    for secret in [&node.secret, &node.setup, &node.token, "s3cret"] {
        assert!(!text.contains(secret), "{secret} is in {text}");
    }
    for said in ["POST /nodes/auth/bootstrap", "POST /nodes/auth/login", "[redacted]"] {
        assert!(text.contains(said), "{said} is not in {text}");
    }
    let (_, own) = controller.nobody().get(&format!("/_double/recording?nodeId={}", node.id)).await;
    let said: Vec<_> =
        own["data"].as_array().unwrap().iter().map(|it| (it["by"].clone(), it["what"].clone())).collect();
    let expected = [
        ("controller", "connection.ack"),
        ("peer", "node.register"),
        ("controller", "register.ack"),
        ("peer", "command.result"),
        ("peer", "node.dance"),
    ];
    assert_eq!(said, expected.map(|(by, what)| (json!(by), json!(what))));
    controller.nobody().request(Method::DELETE, "/_double/recording").send().await.unwrap();
    let (_, none) = controller.nobody().get("/_double/recording").await;
    assert_eq!(none, json!({"data": [], "dropped": 0}));
}

#[tokio::test]
async fn without_the_setting_there_is_no_double_and_with_it_only_on_loopback() {
    let controller = super::peer::controller().await;
    for path in ["/_double/faults", "/_double/recording"] {
        assert_eq!(answer(controller.nobody().request(Method::GET, path)).await.0, 404, "{path}");
    }
    let folder = tempfile::tempdir().unwrap();
    let mut exposed = Config::new(folder.path());
    (exposed.aiwm, exposed.aiwm_double, exposed.insecure_http) = (Some(Aiwm::Lenient), true, true);
    exposed.listen = ([0, 0, 0, 0], 0).into();
    let mut proxied = exposed.clone();
    proxied.listen = ([127, 0, 0, 1], 0).into();
    proxied.public_url = Some("https://aiwm.example".parse().unwrap());
    for config in [exposed, proxied] {
        let refused = Server::check(&config).await.err().unwrap();
        assert_eq!(refused.code(), ErrorCode::DoubleExposed, "DOUBLE_EXPOSED");
    }
    // AIWM's tokens are signed with a secret.
    let key = folder.path().join("key.pem");
    std::fs::write(&key, KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem()).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut by_key = Config::new(folder.path().join("data"));
    by_key.listen = ([127, 0, 0, 1], 0).into();
    (by_key.aiwm, by_key.jwt_private_key_file) = (Some(Aiwm::Lenient), Some(key));
    let refused = Server::start(by_key).await.err().unwrap();
    assert!(refused.to_string().contains("JWT_SECRET"), "{refused}");
    assert_eq!(refused.code(), ErrorCode::ConfigInvalid);
    let settings = Settings { aiwm_double: Some("true".into()), ..Settings::default() };
    assert_eq!(Config::check("data", settings).err().unwrap().code(), ErrorCode::ConfigInvalid);
    let settings = Settings { aiwm: Some("loose".into()), ..Settings::default() };
    assert!(Config::check("data", settings).is_err());
    let settings = Settings { aiwm: Some("Strict".into()), ..Settings::default() };
    assert_eq!(Config::check("data", settings).unwrap().aiwm, Some(Aiwm::Strict));
}
