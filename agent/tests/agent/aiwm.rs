//! A worker and an AIWM: login, join, register, heartbeats, metrics, and what goes wrong with each.

mod reference;
mod service;

use std::time::{Duration, Instant};

use aio_protocol::{error_code::ErrorCode, snapshot::SessionState};
use aio_worker::session::machine::Timings;
use serde_json::json;

use self::service::{Aiwm, SECRET, refused};
use super::{
    controller::NODE,
    daemon::{Daemon, folder_with},
};

fn daemon_of(aiwm: &Aiwm) -> Daemon {
    Daemon::on(&folder_with(&aiwm.credentials()), Timings::default(), None)
}

#[tokio::test]
async fn a_worker_logs_in_joins_registers_and_is_online() {
    let mut aiwm = Aiwm::start().await;
    let daemon = daemon_of(&aiwm);
    let login = aiwm.call("/nodes/auth/login").await;
    assert_eq!(login.body, json!({"id": NODE, "secret": SECRET}));
    let mut peer = aiwm.peer().await;
    assert_eq!(peer.join().await, "a.b.1");
    peer.acknowledge().await;
    let register = peer.event("node.register").await;
    let info = &register["data"]["systemInfo"];
    assert_eq!(info["hardware"]["gpu"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&info["os"]["platform"], &info["hardware"]["gpu"][0]["vendor"]),
        (&json!("linux"), &json!("NVIDIA"))
    );
    peer.pace(30_000).await;
    let beat = peer.event("telemetry.heartbeat").await;
    assert_eq!((&beat["data"]["status"], &beat["data"]["nodeId"]), (&json!("online"), &json!(NODE)));
    assert_eq!(beat["data"]["gpuStatus"][0], json!({"deviceId": "0", "utilization": 50, "status": "active"}));
    // The heartbeat is acknowledged by the pong of a WebSocket ping.
    let reading = tokio::spawn(async move { peer.next().await });
    let snapshot = daemon.snapshot(|snapshot| snapshot.session.settled()).await;
    assert_eq!(snapshot.session.state, SessionState::Online);
    reading.abort();
}

#[tokio::test]
async fn a_ping_is_answered_and_a_command_refused_with_its_metadata() {
    let mut aiwm = Aiwm::start().await;
    let _daemon = daemon_of(&aiwm);
    let (mut peer, _) = aiwm.welcomed(30_000).await;
    peer.send("2").await;
    while peer.packet().await != "3" {}
    peer.say(
        "agent.start",
        json!({"type": "agent.start", "messageId": "c-1", "metadata": {"trace": "t"},
            "data": {"deploymentId": "d-1", "secret": "in-the-clear"}}),
    )
    .await;
    let result = peer.event("command.result").await;
    assert_eq!(result["metadata"], json!({"trace": "t"}));
    let data = &result["data"];
    assert_eq!((&data["originalMessageId"], &data["deploymentId"]), (&json!("c-1"), &json!("d-1")));
    assert_eq!((&data["status"], &data["error"]["code"]), (&json!("error"), &json!("COMMAND_UNSUPPORTED")));
}

#[tokio::test]
async fn whoever_is_cut_off_comes_back_with_the_same_token_and_registers_at_once() {
    let mut aiwm = Aiwm::start().await;
    let _daemon = daemon_of(&aiwm);
    let (peer, first) = aiwm.welcomed(30_000).await;
    let began = Instant::now();
    peer.cut();
    let (_peer, second) = aiwm.welcomed(30_000).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(first["data"], second["data"]);
    assert_eq!(aiwm.calls("/nodes/auth/login"), 1, "the token still holds");
}

#[tokio::test]
async fn a_join_that_is_refused_closes_the_socket_and_leads_to_a_login() {
    let mut aiwm = Aiwm::start().await;
    let _daemon = daemon_of(&aiwm);
    let (peer, _) = aiwm.welcomed(30_000).await;
    peer.cut();
    let mut peer = aiwm.peer().await;
    peer.packet().await;
    peer.send(r#"44/ws/node,{"message":"TOKEN_EXPIRED"}"#).await;
    assert_eq!(peer.next().await, None, "the worker leaves the socket open");
    let mut peer = aiwm.peer().await;
    assert_eq!(peer.join().await, "a.b.2");
    assert_eq!(aiwm.calls("/nodes/auth/login"), 2);
}

#[tokio::test]
async fn a_secret_that_is_refused_is_told_and_no_reason_to_end() {
    let mut aiwm = Aiwm::start().await;
    aiwm.answer("/nodes/auth/login", 401, refused(401, "Invalid credentials"));
    let daemon = daemon_of(&aiwm);
    let snapshot = daemon.snapshot(|snapshot| snapshot.session.code.is_some()).await;
    assert_eq!(snapshot.session.code.as_deref(), Some(ErrorCode::SecretRefused.as_str()));
    assert_eq!(snapshot.session.state, SessionState::Waiting);
    assert!(snapshot.session.detail.contains("aio-worker credentials set"), "{}", snapshot.session.detail);
    // Another secret is tried as soon as it is there.
    let changed = aiwm.credentials().replace(SECRET, "another");
    daemon.replace_token(&changed);
    while aiwm.call("/nodes/auth/login").await.body["secret"] != "another" {}
    aiwm.welcomed(30_000).await;
}

#[tokio::test]
async fn a_node_that_is_inactive_waits_and_never_ends() {
    let mut aiwm = Aiwm::start().await;
    let daemon = daemon_of(&aiwm);
    let mut peer = aiwm.peer().await;
    peer.join().await;
    let error =
        json!({"code": "1005", "message": "Node is inactive", "timestamp": "2025-12-11T12:00:00.000Z"});
    peer.say("connection.ack", json!({"status": "error", "error": error})).await;
    let snapshot = daemon.snapshot(|snapshot| snapshot.session.code.is_some()).await;
    assert_eq!(snapshot.session.code.as_deref(), Some(ErrorCode::NodeSuspended.as_str()));
    assert!(daemon.alive());
}

#[tokio::test]
async fn a_token_is_exchanged_before_its_end_and_one_that_is_refused_is_followed_by_a_login() {
    let mut aiwm = Aiwm::start().await;
    // Half of a short life is its margin.
    aiwm.tokens_hold(2);
    let _daemon = daemon_of(&aiwm);
    let (_peer, _) = aiwm.welcomed(30_000).await;
    let refresh = aiwm.call("/nodes/auth/refresh").await;
    assert_eq!(refresh.body, json!({"token": "a.b.1"}));
    aiwm.answer("/nodes/auth/refresh", 401, refused(401, "Invalid token"));
    aiwm.call("/nodes/auth/refresh").await;
    let login = aiwm.call("/nodes/auth/login").await;
    assert_eq!(login.body["secret"], SECRET);
}

#[tokio::test]
async fn metrics_are_pushed_with_the_node_token_and_a_refused_one_is_not_shown_twice() {
    let mut aiwm = Aiwm::start().await;
    aiwm.answer("/mona/metrics/push/node", 401, refused(401, "Unauthorized"));
    let daemon = daemon_of(&aiwm);
    daemon.machine.tell(|report| report.readings[1].detail.status.temperature = None);
    let (_peer, _) = aiwm.welcomed(30_000).await;
    let refused = aiwm.call("/mona/metrics/push/node").await;
    assert_eq!(refused.bearer.as_deref(), Some("a.b.1"));
    let push = aiwm.call("/mona/metrics/push/node").await;
    assert_eq!(push.bearer.as_deref(), Some("a.b.2"));
    assert_eq!((&push.body["nodeId"], &push.body["status"]), (&json!(NODE), &json!("online")));
    assert_eq!(push.body["gpu"].as_array().map(Vec::len), Some(1), "{}", push.body);
    assert!(push.body["memory"]["total"].as_u64() > Some(1 << 30), "bytes: {}", push.body);
}

#[tokio::test]
async fn a_stop_leaves_the_namespace_before_the_socket_is_closed() {
    let mut aiwm = Aiwm::start().await;
    let mut daemon = daemon_of(&aiwm);
    let (mut peer, _) = aiwm.welcomed(30_000).await;
    daemon.ask_to_stop();
    let mut last = String::new();
    while let Some(packet) = peer.next().await {
        last = packet;
    }
    assert_eq!(last, "41/ws/node,");
    daemon.ended().await;
}

#[tokio::test]
async fn a_message_of_a_megabyte_is_taken_and_a_larger_one_is_not() {
    let mut aiwm = Aiwm::start().await;
    let daemon = daemon_of(&aiwm);
    let (mut peer, _) = aiwm.welcomed(30_000).await;
    let filler = |bytes: usize| json!({"filler": "x".repeat(bytes)});
    peer.say("of.the.future", filler(900_000)).await;
    peer.send("2").await;
    while peer.packet().await != "3" {}
    peer.say("of.the.future", filler(1_000_001)).await;
    let snapshot = daemon.snapshot(|snapshot| snapshot.session.code.is_some()).await;
    assert_eq!(snapshot.session.code.as_deref(), Some(ErrorCode::ControllerInvalid.as_str()));
}

/// Nothing of the secret, the tokens or a command's data is in what a daemon says.
#[tokio::test]
async fn no_secret_is_in_the_status() {
    let mut aiwm = Aiwm::start().await;
    let daemon = daemon_of(&aiwm);
    let (mut peer, _) = aiwm.welcomed(30_000).await;
    peer.say("agent.start", json!({"messageId": "c-1", "data": {"secret": "in-the-clear"}})).await;
    peer.event("command.result").await;
    let snapshot = daemon.snapshot(|snapshot| snapshot.session.state == SessionState::Online).await;
    let shown = format!("{}{snapshot:?}", serde_json::to_string(&snapshot).unwrap());
    for secret in [SECRET, "in-the-clear", "a.b.1"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
