//! The three scenarios of the product, and what else moves a node.

use std::time::Duration;

use serde_json::json;

use crate::{
    harness::{Controller, refusal},
    peers::Worker,
};

const SHORT_LEASE: Duration = Duration::from_millis(900);

#[tokio::test]
async fn installation_and_connection_register_install_and_connect_a_node_in_order() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu-worker-01").await;
    assert_eq!(owner.node(&id).await["status"], "pending");
    let token = owner.token_of(&id).await;

    let installer = controller.bearer(&token);
    let path = format!("/nodes/{id}/installation");
    let (status, receipt) = installer.post(&path, json!({"phase": "started", "version": "v1.0.0"})).await;
    assert_eq!((status.as_u16(), &receipt["status"]), (200, &json!("installing")));
    let step = json!({"phase": "progress", "step": "fetch_release", "percent": 40});
    assert_eq!(installer.post(&path, step).await.0, 200);
    let node = owner.node(&id).await;
    assert_eq!(node["installation"]["phase"], "progress", "{node}");
    assert_eq!(
        (&node["installation"]["step"], &node["installation"]["percent"]),
        (&json!("fetch_release"), &json!(40))
    );

    let mut worker = Worker::connect(&controller.gateway(), &id, &token).await;
    worker.register().await;
    let welcome = worker.receive("register.ack").await;
    let interval = |name: &str| welcome["data"][name].as_u64().unwrap();
    assert!((27_000..=33_000).contains(&interval("heartbeatInterval")), "{welcome}");
    assert!((54_000..=66_000).contains(&interval("metricsInterval")), "{welcome}");
    assert_eq!(installer.post(&path, json!({"phase": "succeeded", "seconds": 1.5})).await.0, 200);

    let node = owner.await_status(&id, "online").await;
    assert_eq!(node["websocketConnected"], true);
    assert_eq!(node["ipAddress"], "127.0.0.1");
    assert_eq!(node["daemonVersion"], "1.0.0");
    assert_eq!(node["systemInfo"]["hardware"]["gpu"][0]["model"], "NVIDIA A100-SXM4-80GB");
    assert_eq!(node["installation"]["phase"], "succeeded");
    assert!(node["connectionEstablishedAt"].is_string() && node["lastSeenAt"].is_string(), "{node}");

    let events =
        owner.await_events(&id, &["node.registered", "node.installation_started", "node.connected"]).await;
    let about = |status: &str| json!({"nodeId": id, "nodeName": "gpu-worker-01", "status": status, "owner": {"orgId": "acme", "userId": "someone"}});
    assert_eq!(events[0]["data"], about("pending"));
    assert_eq!(events[1]["data"], about("installing"));
    let mut connected = about("online");
    connected["ipAddress"] = json!("127.0.0.1");
    connected["gpuDevices"] = json!([{"model": "NVIDIA A100-SXM4-80GB", "memoryTotal": 85_899_345_920_u64}]);
    assert_eq!(events[2]["data"], connected);
    assert_eq!(
        events[2].as_object().unwrap().keys().collect::<Vec<_>>(),
        ["data", "id", "timestamp", "type"]
    );
}

#[tokio::test]
async fn checksum_mismatch_is_told_to_noti_word_for_word_and_the_next_try_may_succeed() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu-worker-01").await;
    let token = owner.token_of(&id).await;
    let installer = controller.bearer(&token);
    let path = format!("/nodes/{id}/installation");
    let error = json!({"code": "CHECKSUM_MISMATCH", "message": "Downloaded binary checksum does not match",
        "details": {"expected": "abc123", "actual": "def456"}});
    installer.post(&path, json!({"phase": "started"})).await;
    let (status, receipt) =
        installer.post(&path, json!({"phase": "failed", "step": "fetch_release", "error": error})).await;
    assert_eq!((status.as_u16(), &receipt["status"]), (200, &json!("error")));
    let node = owner.node(&id).await;
    assert_eq!((&node["status"], &node["installation"]["error"]), (&json!("error"), &error));

    let types = ["node.registered", "node.installation_started", "node.installation_failed"];
    let events = owner.await_events(&id, &types).await;
    assert_eq!((&events[2]["data"]["error"], &events[2]["data"]["status"]), (&error, &json!("error")));

    installer.post(&path, json!({"phase": "started"})).await;
    assert_eq!(
        owner.node(&id).await["installation"]["error"],
        json!(null),
        "a new try forgets the old error"
    );
    let _worker = Worker::welcomed(&controller.gateway(), &id, &token).await;
    owner.await_status(&id, "online").await;
}

#[tokio::test]
async fn disconnection_turns_a_silent_node_offline_after_the_lease_and_online_when_it_returns() {
    let controller = Controller::start_with(|config| config.heartbeat_timeout = SHORT_LEASE).await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu-worker-01").await;
    let token = owner.token_of(&id).await;
    let mut worker = Worker::connect(&controller.gateway(), &id, &token).await;
    worker.register().await;
    let welcome = worker.receive("register.ack").await;
    let interval = welcome["data"]["heartbeatInterval"].as_u64().unwrap();
    assert!((200..300).contains(&interval), "three fit into the lease: {welcome}");
    worker.heartbeat(1).await;
    worker.ping().await;
    let seen = owner.node(&id).await["lastSeenAt"].as_str().unwrap().to_owned();

    // The connection stays open, and pings are no sign of life.
    assert_eq!(worker.closed().await, 4408);
    let node = owner.await_status(&id, "offline").await;
    assert_eq!((&node["websocketConnected"], &node["lastSeenAt"]), (&json!(false), &json!(seen)));
    let types = ["node.registered", "node.installation_started", "node.connected", "node.disconnected"];
    let events = owner.await_events(&id, &types).await;
    assert_eq!(events[3]["data"]["disconnectReason"], "heartbeat_timeout");
    assert_eq!(events[3]["data"]["lastSeenAt"], seen.as_str());
    assert_eq!(events[3]["data"]["status"], "offline");

    let _back = Worker::welcomed(&controller.gateway(), &id, &token).await;
    let types = [&types[..], &["node.connected"]].concat();
    owner.await_events(&id, &types).await;
}

#[tokio::test]
async fn heartbeats_keep_a_node_online_beyond_its_lease() {
    let controller = Controller::start_with(|config| config.heartbeat_timeout = SHORT_LEASE).await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    let mut worker = Worker::welcomed(&controller.gateway(), &id, &token).await;
    let mut pace = tokio::time::interval(SHORT_LEASE / 3);
    for seq in 1..=9 {
        pace.tick().await;
        worker.heartbeat(seq).await;
        assert_eq!(worker.ping().await, [] as [serde_json::Value; 0]);
        assert_eq!(owner.node(&id).await["status"], "online");
    }
}

#[tokio::test]
async fn a_dropped_socket_waits_for_the_lease_and_a_goodbye_does_not() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    drop(Worker::welcomed(&controller.gateway(), &id, &token).await);
    let node = owner.await_connected(&id, false).await;
    assert_eq!(node["status"], "online");

    let mut worker = Worker::welcomed(&controller.gateway(), &id, &token).await;
    owner.await_connected(&id, true).await;
    worker.send("node.disconnecting", json!({"reason": "reboot", "expectedBackSeconds": 60})).await;
    owner.await_status(&id, "offline").await;
    let types = ["node.registered", "node.installation_started", "node.connected", "node.disconnected"];
    let events = owner.await_events(&id, &types).await;
    assert_eq!(events[3]["data"]["disconnectReason"], "reboot");
}

#[tokio::test]
async fn an_installation_without_reports_fails_as_stalled_and_reports_keep_it_alive() {
    let lease = Duration::from_millis(900);
    let controller = Controller::start_with(|config| config.installation_timeout = lease).await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let installer = controller.bearer(&owner.token_of(&id).await);
    let path = format!("/nodes/{id}/installation");
    installer.post(&path, json!({"phase": "started"})).await;
    let mut pace = tokio::time::interval(lease / 3);
    for percent in 1..=6 {
        pace.tick().await;
        let step = json!({"phase": "progress", "step": "fetch_release", "percent": percent});
        assert_eq!(installer.post(&path, step).await.0, 200);
    }
    let node = owner.await_status(&id, "error").await;
    assert_eq!(node["installation"]["error"]["code"], "INSTALL_STALLED", "{node}");
    let types = ["node.registered", "node.installation_started", "node.installation_failed"];
    let events = owner.await_events(&id, &types).await;
    assert_eq!(events[2]["data"]["error"]["code"], "INSTALL_STALLED");
    assert_eq!(events[2]["data"]["error"]["details"]["lastStep"], "fetch_release");
}

#[tokio::test]
async fn what_the_status_does_not_allow_is_refused_with_what_it_does() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    let installer = controller.bearer(&token);
    let path = format!("/nodes/{id}/installation");
    let (status, body) = installer.post(&path, json!({"phase": "progress", "step": "x"})).await;
    let allowed: Vec<_> = body["allowed"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    assert!(allowed.contains(&"installation_started") && !allowed.contains(&"installation_failed"), "{body}");
    refusal((status, body), 409, "TRANSITION_REFUSED");

    // An online node stays so, whatever an installer says.
    let mut worker = Worker::welcomed(&controller.gateway(), &id, &token).await;
    refusal(installer.post(&path, json!({"phase": "started"})).await, 409, "TRANSITION_REFUSED");
    worker.send("node.installation_started", json!({"version": "v1.1.0"})).await;
    assert_eq!(worker.receive("error").await["data"]["code"], 2002);
    assert_eq!(owner.node(&id).await["status"], "online");
}

#[tokio::test]
async fn an_upgrade_that_failed_is_told_once_and_the_node_stays_what_it_was() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    let mut worker = Worker::welcomed(&controller.gateway(), &id, &token).await;
    let error =
        json!({"code": "SERVICE_FAILED", "message": "it ended at once", "details": {"exitStatus": 1}});

    // From the installer, again because its answer was lost, and from the worker that goes on.
    let installer = controller.bearer(&token);
    let report = json!({"phase": "failed", "step": "start_unit", "error": error});
    for _ in 0..2 {
        let (status, body) = installer.post(&format!("/nodes/{id}/installation"), report.clone()).await;
        assert_eq!((status.as_u16(), &body["status"]), (200, &json!("online")), "{body}");
    }
    worker.send("node.installation_failed", json!({"step": "start_unit", "error": error})).await;
    worker.ping().await;
    let other = json!({"code": "DISK_FULL", "message": "no room", "details": {}});
    worker.send("node.installation_failed", json!({"step": "fetch_release", "error": other})).await;

    let types = [
        "node.registered",
        "node.installation_started",
        "node.connected",
        "node.installation_failed",
        "node.installation_failed",
    ];
    let events = owner.await_events(&id, &types).await;
    let told: Vec<_> =
        events[3..].iter().map(|event| (&event["data"]["error"]["code"], &event["data"]["status"])).collect();
    let online = json!("online");
    assert_eq!(told, [(&json!("SERVICE_FAILED"), &online), (&json!("DISK_FULL"), &online)]);
    assert_eq!(owner.node(&id).await["installation"]["error"]["code"], "DISK_FULL");
}

#[tokio::test]
async fn last_seen_reaches_the_database_in_batches_and_the_api_at_once() {
    let mut controller = Controller::start().await;
    let address = controller.address();
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    let mut worker = Worker::welcomed(&controller.gateway(), &id, &token).await;
    let welcomed_at = owner.node(&id).await["lastSeenAt"].clone();
    let mut seq = 0;
    let seen = loop {
        seq += 1;
        worker.heartbeat(seq).await;
        worker.ping().await;
        let seen = owner.node(&id).await["lastSeenAt"].clone();
        if seen != welcomed_at {
            break seen;
        }
    };
    drop(worker);
    controller.stop().await;
    controller.start_again(address).await;
    let owner = controller.owner_of("acme").await;
    assert_eq!(owner.node(&id).await["lastSeenAt"], seen);
}
