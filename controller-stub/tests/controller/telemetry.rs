//! What a node measures, from its worker's message to whoever looks.

use serde_json::{Value, json};

use crate::{
    harness::{Client, Controller, eventually, refusal},
    peers::Worker,
};

pub(crate) fn metrics(gpus: Value) -> Value {
    json!({"cpuUsage": 12.5, "ramUsage": 41.25, "uptimeSeconds": 86_400, "memoryUsed": 445_954_235_392_u64,
        "disk": [{"mountPoint": "/", "fileSystem": "ext4", "total": 1000, "available": 400}],
        "network": {"receivedBytes": 7, "sentBytes": 8}, "gpu": gpus})
}

/// Two containers: one of a pod, which is not well, and one of Docker.
pub(crate) fn containers() -> Value {
    json!([
        {"id": "4c".repeat(32), "engine": "containerd", "name": "web", "cpuUsage": 150.5, "cpuSeconds": 86_400.125,
            "pod": {"uid": "0c9d3d1e", "name": "cart-0", "namespace": "shop"}, "memoryUsed": 4_294_967_296_u64,
            "memoryLimit": 8_589_934_592_u64, "oomKills": 2, "restarts": 7, "gpus": ["0"],
            "problems": ["restarting", "oom_killed"]},
        {"id": "9f".repeat(32), "engine": "docker", "state": "paused", "restarts": 0}])
}

/// What is measured on a machine with these containers.
pub(crate) fn metrics_with(containers: Value) -> Value {
    let mut told = metrics(json!([]));
    told["containers"] = containers;
    told
}

async fn measured(user: &Client, node: &str) -> Value {
    let (status, body) = user.get(&format!("/nodes/{node}/metrics")).await;
    assert_eq!(status, 200, "{body}");
    body
}

#[tokio::test]
async fn the_newest_metrics_are_shown_while_the_worker_is_connected() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let nothing = json!({"newest": null, "step": 300, "points": []});
    assert_eq!(measured(&owner, &id).await, nothing);

    let mut worker = Worker::welcomed(&controller.gateway(), &id, &owner.token_of(&id).await).await;
    let gpus = json!([
        {"deviceId": "0", "utilization": 97, "memoryUsed": 64_424_509_440_u64, "temperature": 61, "powerDraw": 388, "clockSm": 1410},
        {"deviceId": "1", "status": "unknown", "health": "unhealthy",
            "findings": [{"health": "unhealthy", "reason": "Xid 79", "action": "reboot"}]}]);
    worker.send("telemetry.metrics", metrics(gpus.clone())).await;
    worker.ping().await;
    let shown = measured(&controller.user("acme", "organization.viewer").await, &id).await;
    let mut newest = shown["newest"].clone();
    assert!(newest["at"].take().is_string(), "{shown}");
    let mut told = metrics(gpus);
    (told["nodeId"], told["at"]) = (json!(id), Value::Null);
    assert_eq!(newest, told, "what was not said is not shown");
    assert_eq!(shown["points"], json!([]), "five minutes are not over");

    worker.send("node.disconnecting", json!({"reason": "shutdown"})).await;
    drop(worker);
    eventually("nothing of now", async || {
        let shown = measured(&owner, &id).await;
        if shown == nothing { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn the_history_survives_a_restart_and_is_asked_for_by_time_and_step() {
    let mut controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    controller.sql("INSERT INTO telemetry_nodes (number, node_id) SELECT 1, id FROM nodes").await;
    // Version 1, two messages, the processors' series alone: 10.0 % to 20.0 %, in the middle; one GPU at 7 %.
    controller
        .sql(
            "INSERT INTO telemetry (key, data) SELECT (strftime('%s', 'now') / 300 - n) * 4294967296 + 1, X'010201646480010700' \
             FROM (SELECT 1 AS n UNION SELECT 2 UNION SELECT 20)",
        )
        .await;
    let address = controller.address();
    controller.stop().await;
    controller.start_again(address).await;
    let owner = controller.owner_of("acme").await;

    let points = measured(&owner, &id).await["points"].as_array().unwrap().clone();
    assert_eq!(points.len(), 3, "{points:?}");
    let mut point = points[2].clone();
    let begins = point["at"].take();
    let range = json!({"min": 7.0, "mean": 7.0, "max": 7.0});
    let cpu = json!({"min": 10.0, "mean": 15.02, "max": 20.0});
    assert_eq!(
        point,
        json!({"at": null, "samples": 2, "cpuUsage": cpu, "gpu": [{"deviceId": "0", "utilization": range}]})
    );
    let path = format!("/nodes/{id}/metrics?from={}", begins.as_str().unwrap());
    assert_eq!(owner.get(&path).await.1["points"].as_array().unwrap().len(), 1);
    let day = owner.get(&format!("/nodes/{id}/metrics?step=86400")).await.1;
    let points = day["points"].as_array().unwrap();
    assert!(matches!(points.len(), 1 | 2) && day["step"] == 86_400, "a day, or the end of one: {day}");
    for (query, field) in [
        ("from=yesterday", "from"),
        ("from=2025-12-11T12:00:00Z&to=2025-12-11T12:00:00Z", "from"),
        ("step=1", "step"),
        ("step=450", "step"),
        ("since=2025-12-11T12:00:00Z", "since"),
    ] {
        let message =
            refusal(owner.get(&format!("/nodes/{id}/metrics?{query}")).await, 400, "VALIDATION_FAILED");
        assert!(message.contains(field), "{query}: {message}");
    }
}

#[tokio::test]
async fn no_history_is_kept_where_none_is_wanted() {
    let controller = Controller::start_with(|config| config.telemetry_retention = std::time::Duration::ZERO);
    let controller = controller.await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let mut worker = Worker::welcomed(&controller.gateway(), &id, &owner.token_of(&id).await).await;
    worker.send("telemetry.metrics", metrics(json!([]))).await;
    worker.ping().await;
    assert_eq!(measured(&owner, &id).await["newest"]["cpuUsage"], 12.5, "the newest is");
    assert_eq!(controller.number("SELECT COUNT(*) FROM telemetry").await, 0);
}

#[tokio::test]
async fn a_nodes_containers_are_shown_while_its_worker_tells_of_them() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let mut worker = Worker::welcomed(&controller.gateway(), &id, &owner.token_of(&id).await).await;
    let shown = async || {
        let (_, node) = owner.get(&format!("/nodes/{id}")).await;
        (node["containers"].clone(), node["containersLeftOut"].clone())
    };
    worker.send("telemetry.metrics", metrics(json!([]))).await;
    worker.ping().await;
    assert_eq!(shown().await, (Value::Null, json!(0)), "a worker that does not look says nothing");
    let mut told = metrics_with(containers());
    told["leftOut"] = json!({"containers": 3});
    worker.send("telemetry.metrics", told).await;
    worker.ping().await;
    assert_eq!(shown().await, (containers(), json!(3)));
    let newest = measured(&owner, &id).await["newest"].clone();
    assert_eq!((&newest["containers"], &newest["leftOut"]["containers"]), (&containers(), &json!(3)));
    let (_, list) = owner.get("/nodes").await;
    assert_eq!(list["data"][0].get("containers"), None, "a list is short");

    worker.send("node.disconnecting", json!({"reason": "shutdown"})).await;
    drop(worker);
    eventually("nothing of now", async || {
        let shown = shown().await;
        if shown == (Value::Null, json!(0)) { Ok(()) } else { Err(format!("{shown:?}")) }
    })
    .await;
}
