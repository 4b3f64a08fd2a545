//! Alarms: raised, seen, silenced and over.

use std::time::Duration;

use aio_protocol::telemetry::Health;
use controller_stub::commands::{self, For, Listed};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    harness::{Client, Controller, eventually, refusal},
    peers::Worker,
    telemetry::{containers, metrics, metrics_with},
};

/// How often a test's controller looks.
pub(crate) const SOON: Duration = Duration::from_millis(20);

async fn controller(offline_after: Duration) -> Controller {
    Controller::start_with(|config| {
        config.alarm_interval = SOON;
        config.alarm_offline_after = offline_after;
    })
    .await
}

async fn listed(user: &Client, query: &str) -> Vec<Value> {
    let (status, list) = user.get(&format!("/alarms?{query}")).await;
    assert_eq!(status, 200, "{list}");
    list["data"].as_array().unwrap().clone()
}

/// Waits until the organisation has these kinds of alarm, each as often, and says them.
async fn await_alarms(user: &Client, query: &str, kinds: &[&str]) -> Vec<Value> {
    eventually(&format!("alarms {kinds:?}"), async || {
        let mut alarms = listed(user, query).await;
        alarms.sort_by_key(|alarm| (alarm["kind"].to_string(), alarm["reason"].to_string()));
        let found: Vec<_> = alarms.iter().map(|alarm| alarm["kind"].as_str().unwrap()).collect();
        if found == kinds { Ok(alarms) } else { Err(format!("{alarms:?}")) }
    })
    .await
}

/// The types of a node's events that are about alarms.
async fn told(user: &Client, node: &str) -> Vec<String> {
    let events = user.events(node).await;
    let types = events.iter().map(|event| event["type"].as_str().unwrap().to_owned());
    types.filter(|kind| kind.starts_with("alarm.")).collect()
}

async fn await_told(user: &Client, node: &str, types: &[&str]) {
    eventually(&format!("events {types:?}"), async || {
        let told = told(user, node).await;
        if told == types { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
}

/// A controller's owner, and the alarm of an installation that failed.
pub(crate) async fn failed_installation(controller: &Controller) -> (Client, Value) {
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("failing").await;
    let installer = controller.bearer(&owner.token_of(&id).await);
    let error = json!({"code": "CHECKSUM_MISMATCH", "message": "It differs.", "details": {}});
    for report in [json!({"phase": "started"}), json!({"phase": "failed", "error": error})] {
        assert_eq!(installer.post(&format!("/nodes/{id}/installation"), report).await.0, 200);
    }
    let alarm = await_alarms(&owner, "", &["installation_failed"]).await.remove(0);
    (owner, alarm)
}

fn ill(findings: &[(&str, &str)]) -> (Value, Value) {
    let found: Vec<_> = findings
        .iter()
        .map(|(reason, action)| json!({"health": "unhealthy", "reason": reason, "action": action}))
        .collect();
    let health = match findings.first() {
        Some((reason, action)) => json!({"state": "unhealthy", "worst": reason, "action": action}),
        None => json!({"state": "ok"}),
    };
    (health, json!([{"deviceId": "3", "utilization": 5, "health": "unhealthy", "findings": found}]))
}

async fn say(worker: &mut Worker, seq: u64, findings: &[(&str, &str)]) {
    let (health, gpus) = ill(findings);
    worker.send("telemetry.metrics", metrics(gpus)).await;
    worker.send("telemetry.heartbeat", json!({"seq": seq, "health": health})).await;
    worker.ping().await;
}

#[tokio::test]
async fn an_alarm_says_what_is_wrong_and_what_to_do_is_seen_and_is_over() {
    let controller = controller(Duration::ZERO).await;
    let (owner, alarm) = failed_installation(&controller).await;
    let node = alarm["nodeId"].as_str().unwrap().to_owned();
    assert!(alarm["reason"].as_str().unwrap().contains("CHECKSUM_MISMATCH: It differs."), "{alarm}");
    assert!(alarm["action"].as_str().unwrap().contains("troubleshooting"), "{alarm}");
    assert_eq!(
        (&alarm["state"], &alarm["level"], &alarm["told"]),
        (&json!("raised"), &json!("warning"), &json!(true))
    );
    await_told(&owner, &node, &["alarm.raised"]).await;

    let path = format!("/alarms/{}/acknowledge", alarm["id"].as_str().unwrap());
    let viewer = controller.user("acme", "organization.viewer").await;
    refusal(viewer.post(&path, json!({})).await, 403, "FORBIDDEN");
    refusal(controller.owner_of("evil").await.post(&path, json!({})).await, 404, "NOT_FOUND");
    let (status, seen) = owner.post(&path, json!({})).await;
    assert_eq!(
        (status.as_u16(), &seen["state"], &seen["acknowledgedBy"]),
        (200, &json!("acknowledged"), &json!("user:someone"))
    );
    assert_eq!(owner.post(&path, json!({})).await.1, seen, "a second time changes nothing");
    let (_, audit) = owner.get("/audit?action=alarm.acknowledge").await;
    let outcomes: Vec<_> = audit["data"].as_array().unwrap().iter().map(|it| it["outcome"].clone()).collect();
    assert_eq!(outcomes, ["unchanged", "done"], "{audit}");
    assert_eq!(listed(&owner, "").await.len(), 1, "it goes on");

    // A worker that connects has installed; the next failure is another alarm, which nobody has seen.
    let token = owner.token_of(&node).await;
    let worker = Worker::welcomed(&controller.gateway(), &node, &token).await;
    await_alarms(&owner, "", &[]).await;
    await_told(&owner, &node, &["alarm.raised", "alarm.resolved"]).await;
    let over = listed(&owner, "resolved=true").await;
    assert_eq!(
        (&over[0]["state"], &over[0]["resolution"]),
        (&json!("resolved"), &json!("cured")),
        "{over:?}"
    );
    let events = owner.events(&node).await;
    let event = events.iter().find(|event| event["type"] == "alarm.resolved").unwrap();
    assert_eq!(
        (&event["data"]["alarmId"], &event["data"]["resolution"]),
        (&alarm["id"], &json!("cured")),
        "{event}"
    );
    drop(worker);
    assert!(
        viewer.get("/alarms").await.0.is_success()
            && listed(&controller.owner_of("evil").await, "").await.is_empty()
    );
}

#[tokio::test]
async fn several_findings_are_several_alarms_and_outlive_a_restart_and_the_nodes_absence() {
    let mut controller = controller(Duration::from_secs(3600)).await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    let mut worker = Worker::welcomed(&controller.gateway(), &id, &token).await;
    say(
        &mut worker,
        1,
        &[("Xid 79: it has fallen off the bus", "reboot"), ("Xid 48: a double bit error", "reset_gpu")],
    )
    .await;
    let alarms = await_alarms(&owner, "", &["gpu_health", "gpu_health"]).await;
    assert_eq!(alarms[0]["reason"], "GPU 3: Xid 48: a double bit error");
    assert_eq!(
        (&alarms[1]["action"], &alarms[1]["level"]),
        (&json!("reboot the machine"), &json!("critical"))
    );
    let path = format!("/alarms/{}/acknowledge", alarms[1]["id"].as_str().unwrap());
    assert_eq!(owner.post(&path, json!({})).await.0, 200);
    let seen = await_alarms(&owner, "", &["gpu_health", "gpu_health"]).await;

    let address = controller.address();
    drop(worker);
    controller.stop().await;
    controller.start_again(address).await;
    let owner = controller.owner_of("acme").await;
    assert_eq!(
        await_alarms(&owner, "", &["gpu_health", "gpu_health"]).await,
        seen,
        "the same, and one was seen"
    );
    let mut worker = Worker::welcomed(&controller.gateway(), &id, &token).await;
    say(&mut worker, 1, &[("Xid 48: a double bit error", "reset_gpu")]).await;
    assert_eq!(await_alarms(&owner, "", &["gpu_health", "gpu_health"]).await, seen, "it is damped");

    // Maintenance ends those that run, and raises none.
    assert_eq!(owner.post(&format!("/nodes/{id}/maintenance"), json!({})).await.0, 200);
    await_alarms(&owner, "", &[]).await;
    let over = listed(&owner, "resolved=true").await;
    assert!(over.iter().all(|alarm| alarm["resolution"] == "maintenance") && over.len() == 2, "{over:?}");
    await_told(&owner, &id, &["alarm.raised", "alarm.raised", "alarm.resolved", "alarm.resolved"]).await;
    say(&mut worker, 2, &[("Xid 48: a double bit error", "reset_gpu")]).await;
    assert_eq!(owner.post(&format!("/nodes/{id}/resume"), json!({})).await.0, 200);
    let again = await_alarms(&owner, "", &["gpu_health"]).await;
    assert_eq!(again[0]["state"], "raised", "nobody has seen the new one");

    owner.request(Method::DELETE, &format!("/nodes/{id}")).send().await.unwrap();
    await_alarms(&owner, "", &[]).await;
    let (_, over) = owner.get(&format!("/alarms?resolved=true&nodeId={id}&limit=1")).await;
    assert_eq!(
        (&over["data"][0]["resolution"], &over["pagination"]["total"]),
        (&json!("decommissioned"), &json!(3)),
        "{over}"
    );
}

#[tokio::test]
async fn a_container_that_is_not_well_is_an_alarm_until_it_is_or_is_gone() {
    let controller = controller(Duration::ZERO).await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let mut worker = Worker::welcomed(&controller.gateway(), &id, &owner.token_of(&id).await).await;
    worker.send("telemetry.metrics", metrics_with(containers())).await;
    let both = ["container_oom_killed", "container_restarting"];
    let alarms = await_alarms(&owner, "", &both).await;
    assert_eq!(
        (&alarms[1]["reason"], &alarms[1]["level"], &alarms[1]["nodeId"]),
        (&json!("the container shop/cart-0/web is started again and again"), &json!("warning"), &json!(id))
    );
    await_told(&owner, &id, &["alarm.raised", "alarm.raised"]).await;

    // Started once more under another id, it is the same container; and a worker that could not look says
    // nothing.
    let mut again = containers();
    again[0]["id"] = json!("5d".repeat(32));
    again[0]["restarts"] = json!(8);
    worker.send("telemetry.metrics", metrics_with(again.clone())).await;
    worker.send("telemetry.metrics", metrics(json!([]))).await;
    worker.ping().await;
    let looks = controller.number("SELECT COUNT(*) FROM alarms").await;
    again[0]["problems"] = json!(["oom_killed"]);
    worker.send("telemetry.metrics", metrics_with(again)).await;
    let left = await_alarms(&owner, "", &both[..1]).await;
    assert_eq!((&left[0], looks), (&alarms[0], 2), "the same as before");

    // Gone.
    worker.send("telemetry.metrics", metrics_with(json!([]))).await;
    await_alarms(&owner, "", &[]).await;
    let over = listed(&owner, "resolved=true").await;
    assert!(over.iter().all(|alarm| alarm["resolution"] == "cured") && over.len() == 2, "{over:?}");
}

#[tokio::test]
async fn what_is_wrong_with_a_machine_is_an_alarm_for_as_long_as_its_worker_says_so() {
    let controller = controller(Duration::ZERO).await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let mut worker = Worker::welcomed(&controller.gateway(), &id, &owner.token_of(&id).await).await;
    let with = |problems: Value| {
        let mut told = metrics(json!([]));
        told["problems"] = problems;
        told
    };
    let disk = json!({"kind": "disk_full", "part": "/data", "reason": "/data is 91 % full"});
    let problems = json!([
        disk,
        {"kind": "inodes_full", "part": "/", "reason": "98 % of the inodes of / are used"},
        {"kind": "memory_full", "reason": "97 % of the main memory is used"},
        {"kind": "overheated", "part": "k10temp Tctl", "reason": "k10temp Tctl is at 101 °C"},
        {"kind": "service_failed", "part": "docker.service", "reason": "docker.service has failed"},
        {"kind": "of_a_newer_worker", "reason": "it is bored"}]);
    worker.send("telemetry.metrics", with(problems)).await;
    let kinds = ["disk_full", "inodes_full", "memory_full", "overheated", "service_failed"];
    let alarms = await_alarms(&owner, "", &kinds).await;
    assert_eq!(
        (&alarms[0]["reason"], &alarms[0]["action"]),
        (&json!("gpu: /data is 91 % full"), &json!("make room on it"))
    );
    // It grows, which is written down and told to nobody, and a worker that judges nothing says nothing of it.
    let grown = json!({"kind": "disk_full", "part": "/data", "reason": "/data is 95 % full"});
    worker.send("telemetry.metrics", with(json!([grown]))).await;
    let left = eventually("the alarm to say so", async || {
        let left = await_alarms(&owner, "", &kinds[..1]).await;
        if left[0]["reason"] == "gpu: /data is 95 % full" { Ok(left) } else { Err(format!("{left:?}")) }
    })
    .await;
    assert_eq!((&left[0]["id"], &left[0]["raisedAt"]), (&alarms[0]["id"], &alarms[0]["raisedAt"]));
    let raised = told(&owner, &id).await.iter().filter(|kind| *kind == "alarm.raised").count();
    assert_eq!(raised, kinds.len());
    worker.send("telemetry.metrics", metrics(json!([]))).await;
    worker.ping().await;
    let newest = owner.get(&format!("/nodes/{id}/metrics")).await.1["newest"].clone();
    assert_eq!(newest.get("problems"), None, "{newest}");
    assert_eq!(listed(&owner, "").await, left);
    worker.send("telemetry.metrics", with(json!([]))).await;
    await_alarms(&owner, "", &[]).await;
}

#[tokio::test]
async fn an_alarm_that_gets_worse_is_raised_again_which_nobody_has_seen_yet() {
    let controller = controller(Duration::ZERO).await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let mut worker = Worker::welcomed(&controller.gateway(), &id, &owner.token_of(&id).await).await;
    let mut say = async |seq: u64, state: &str| {
        let found = json!([{"health": state, "reason": "memory errors"}]);
        let gpus = json!([{"deviceId": "3", "health": state, "findings": found}]);
        worker.send("telemetry.metrics", metrics(gpus)).await;
        let health = json!({"state": state, "worst": "GPU 3: memory errors"});
        worker.send("telemetry.heartbeat", json!({"seq": seq, "health": health})).await;
        worker.ping().await;
    };
    let await_level = async |level: &str| {
        eventually(&format!("a {level} alarm"), async || {
            let alarm = await_alarms(&owner, "", &["gpu_health"]).await.remove(0);
            if alarm["level"] == level { Ok(alarm) } else { Err(alarm.to_string()) }
        })
        .await
    };
    say(1, "degraded").await;
    let warning = await_level("warning").await;
    let path = format!("/alarms/{}/acknowledge", warning["id"].as_str().unwrap());
    assert_eq!(owner.post(&path, json!({})).await.0, 200);
    say(2, "unhealthy").await;
    let critical = await_level("critical").await;
    assert_eq!((&critical["id"], &critical["state"]), (&warning["id"], &json!("raised")));
    await_told(&owner, &id, &["alarm.raised", "alarm.raised"]).await;
    let events = owner.events(&id).await;
    let levels: Vec<_> = events
        .iter()
        .filter(|event| event["type"] == "alarm.raised")
        .map(|event| (&event["data"]["alarmId"], event["data"]["level"].as_str().unwrap()))
        .collect();
    assert_eq!(levels, [(&warning["id"], "warning"), (&warning["id"], "critical")]);

    // Better again, which is told to nobody; and worse in a silence, which is told after it.
    say(3, "degraded").await;
    await_level("warning").await;
    let (_, silence) = owner.post("/silences", json!({"nodeId": id, "seconds": 60, "reason": "x"})).await;
    say(4, "unhealthy").await;
    await_level("critical").await;
    await_told(&owner, &id, &["alarm.raised", "alarm.raised"]).await;
    let path = format!("/silences/{}", silence["id"].as_str().unwrap());
    assert_eq!(owner.request(Method::DELETE, &path).send().await.unwrap().status(), 204);
    await_told(&owner, &id, &["alarm.raised"; 3]).await;
}

#[tokio::test]
async fn another_health_is_told_once_and_a_restart_tells_nothing_twice() {
    let mut controller = controller(Duration::ZERO).await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    let mut worker = Worker::welcomed(&controller.gateway(), &id, &token).await;
    let changes = async |owner: &Client, count: usize| {
        eventually("the changes of its health", async || {
            let events = owner.events(&id).await;
            let changes: Vec<_> =
                events.into_iter().filter(|event| event["type"] == "node.health_changed").collect();
            if changes.len() == count { Ok(changes) } else { Err(format!("{changes:?}")) }
        })
        .await
    };
    let ill = [("Xid 79: it has fallen off the bus", "reboot")];
    say(&mut worker, 1, &[]).await;
    say(&mut worker, 2, &ill).await;
    let told = changes(&owner, 1).await;
    assert_eq!(told[0]["data"]["from"], "ok");
    assert_eq!(
        told[0]["data"]["health"],
        json!({"state": "unhealthy", "worst": "Xid 79: it has fallen off the bus", "action": "reboot"})
    );

    let address = controller.address();
    drop(worker);
    let unheard = async |owner: &Client| {
        let node = owner.await_connected(&id, false).await;
        assert_eq!(node["gpuHealth"]["state"], "unknown", "{node}");
        let seen = format!("its worker is not connected, last seen {}", node["lastSeenAt"].as_str().unwrap());
        assert_eq!(node["gpuHealth"]["worst"], seen.as_str(), "{node}");
        let (_, list) = owner.get("/nodes").await;
        assert_eq!(list["data"][0]["gpuHealth"], node["gpuHealth"], "{list}");
    };
    unheard(&owner).await;
    controller.stop().await;
    controller.start_again(address).await;
    let owner = controller.owner_of("acme").await;
    unheard(&owner).await;
    let listed = async || {
        let whose = For { org: Some("acme".parse().unwrap()), user: None };
        commands::list_nodes(&controller.config, whose, Listed::default()).await.unwrap().remove(0)
    };
    assert_eq!(listed().await.gpu_health, Some(Health::Unknown));
    let mut worker = Worker::welcomed(&controller.gateway(), &id, &token).await;
    say(&mut worker, 1, &ill).await;
    await_alarms(&owner, "", &["gpu_health"]).await;
    assert_eq!(listed().await.gpu_health, Some(Health::Unhealthy));
    say(&mut worker, 2, &[]).await;
    let told = changes(&owner, 2).await;
    let data = &told[1]["data"];
    assert_eq!((&data["from"], &data["health"]), (&json!("unhealthy"), &json!({"state": "ok"})));
}

#[tokio::test]
async fn a_silence_names_a_node_or_a_label_and_what_is_still_wrong_is_told_after_it() {
    let controller = controller(Duration::ZERO).await;
    let owner = controller.owner_of("acme").await;
    let (_, node) = owner.post("/nodes", json!({"name": "gpu", "labels": {"rack": "r7"}})).await;
    let id = node["_id"].as_str().unwrap().to_owned();
    let silence = json!({"label": "rack=r7", "seconds": 3600, "reason": "the rack moves"});
    let (status, silence) = owner.post("/silences", silence).await;
    assert_eq!(
        (status.as_u16(), &silence["createdBy"], &silence["nodeId"]),
        (201, &json!("user:someone"), &Value::Null)
    );
    for wrong in [
        json!({"seconds": 60, "reason": "x"}),
        json!({"nodeId": id, "label": "rack=r7", "seconds": 60, "reason": "x"}),
        json!({"label": "no label", "seconds": 60, "reason": "x"}),
        json!({"label": "rack", "seconds": 59, "reason": "x"}),
        json!({"label": "rack", "seconds": 60, "reason": " "}),
    ] {
        refusal(owner.post("/silences", wrong).await, 400, "VALIDATION_FAILED");
    }

    let mut worker = Worker::welcomed(&controller.gateway(), &id, &owner.token_of(&id).await).await;
    worker.send("node.disconnecting", json!({"reason": "shutdown"})).await;
    owner.await_status(&id, "offline").await;
    let alarm = await_alarms(&owner, "", &["node_offline"]).await.remove(0);
    assert_eq!((&alarm["told"], &alarm["state"]), (&json!(false), &json!("raised")), "{alarm}");
    assert!(told(&owner, &id).await.is_empty());

    let path = format!("/silences/{}", silence["id"].as_str().unwrap());
    assert_eq!(owner.request(Method::DELETE, &path).send().await.unwrap().status(), 204);
    await_told(&owner, &id, &["alarm.raised"]).await;
    assert_eq!(owner.get("/silences").await.1["data"], json!([]));
    let (_, audit) = owner.get("/audit?action=silence.add").await;
    assert_eq!(audit["data"][0]["detail"]["reason"], "the rack moves", "{audit}");
}

#[tokio::test]
async fn an_organisation_has_at_most_a_thousand_silences_that_hold() {
    let controller = controller(Duration::ZERO).await;
    let owner = controller.owner_of("acme").await;
    let many = "INSERT INTO silences (id, org_id, label, until, reason, created_at, created_by) \
                WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 999) \
                SELECT '00000000-0000-7000-8000-' || CAST(100000000000 + n AS TEXT), 'acme', 'rack', \
                4000000000000, 'it moves', 1, 'user:u' FROM numbers";
    controller.sql(many).await;
    let silence = json!({"label": "rack=r7", "seconds": 60, "reason": "the rack moves"});
    let (status, last) = owner.post("/silences", silence.clone()).await;
    assert_eq!(status, 201, "{last}");
    let message = refusal(owner.post("/silences", silence.clone()).await, 400, "VALIDATION_FAILED");
    assert!(message.contains("1000 silences"), "{message}");
    let path = format!("/silences/{}", last["id"].as_str().unwrap());
    assert_eq!(owner.request(Method::DELETE, &path).send().await.unwrap().status(), 204);
    assert_eq!(owner.post("/silences", silence).await.0, 201);
}

#[tokio::test]
async fn a_node_that_cannot_be_told_of_keeps_no_other_from_it() {
    let controller = controller(Duration::ZERO).await;
    let owner = controller.owner_of("acme").await;
    let silence = json!({"label": "rack=r7", "seconds": 3600, "reason": "the rack moves"});
    let (_, silence) = owner.post("/silences", silence).await;
    let mut ids = Vec::new();
    for name in ["gone", "there"] {
        let (_, node) = owner.post("/nodes", json!({"name": name, "labels": {"rack": "r7"}})).await;
        let id = node["_id"].as_str().unwrap().to_owned();
        let mut worker = Worker::welcomed(&controller.gateway(), &id, &owner.token_of(&id).await).await;
        worker.send("node.disconnecting", json!({"reason": "shutdown"})).await;
        owner.await_status(&id, "offline").await;
        ids.push(id);
    }
    await_alarms(&owner, "", &["node_offline", "node_offline"]).await;
    controller.sql("DELETE FROM nodes WHERE name = 'gone'").await;
    let path = format!("/silences/{}", silence["id"].as_str().unwrap());
    assert_eq!(owner.request(Method::DELETE, &path).send().await.unwrap().status(), 204);
    await_told(&owner, &ids[1], &["alarm.raised"]).await;
    // What comes after it in a look comes, too.
    let mut worker = Worker::welcomed(&controller.gateway(), &ids[1], &owner.token_of(&ids[1]).await).await;
    say(&mut worker, 1, &[("Xid 79: it has fallen off the bus", "reboot")]).await;
    eventually("its health to be told", async || {
        let events = owner.events(&ids[1]).await;
        let told = events.iter().any(|event| event["type"] == "node.health_changed");
        if told { Ok(()) } else { Err(format!("{events:?}")) }
    })
    .await;
}

#[tokio::test]
async fn an_alarm_s_timeline_says_who_did_what_and_when() {
    let controller = controller(Duration::ZERO).await;
    let (owner, alarm) = failed_installation(&controller).await;
    let (path, node) = (format!("/alarms/{}", alarm["id"].as_str().unwrap()), alarm["nodeId"].clone());
    let steps = async || {
        let (status, shown) = owner.get(&path).await;
        assert_eq!((status.as_u16(), &shown["id"], &shown["kind"]), (200, &alarm["id"], &alarm["kind"]));
        let timeline = shown["timeline"].as_array().unwrap().clone();
        let times: Vec<_> = timeline.iter().map(|moment| moment["at"].as_str().unwrap().to_owned()).collect();
        assert!(times.is_sorted(), "{shown}");
        timeline
    };
    let words = |moments: &[Value]| -> Vec<_> {
        moments.iter().map(|it| format!("{} {}", it["what"], it["by"]).replace('"', "")).collect()
    };
    assert_eq!(words(&steps().await), ["raised controller"]);
    let silence = json!({"nodeId": node, "seconds": 3600, "reason": "a new disk"});
    let (_, silence) = owner.post("/silences", silence).await;
    let other = json!({"label": "rack=r9", "seconds": 3600, "reason": "another rack"});
    assert_eq!(owner.post("/silences", other).await.0, 201);
    let seen = owner.request(Method::POST, &format!("{path}/acknowledge")).send().await.unwrap();
    assert_eq!(seen.status(), 200);
    let id = node.as_str().unwrap();
    assert_eq!(
        owner.request(Method::POST, &format!("/nodes/{id}/maintenance")).send().await.unwrap().status(),
        200
    );
    await_alarms(&owner, "", &[]).await;
    let timeline = steps().await;
    assert_eq!(
        words(&timeline),
        ["raised controller", "silenced user:someone", "acknowledged user:someone", "resolved user:someone"]
    );
    assert_eq!((&timeline[1]["until"], &timeline[1]["detail"]), (&silence["until"], &json!("a new disk")));
    assert_eq!(timeline[3]["detail"], "maintenance");
    refusal(controller.owner_of("evil").await.get(&path).await, 404, "NOT_FOUND");
}

#[tokio::test]
async fn the_end_of_a_user_s_lasting_token_is_told_before_it_until_there_is_another() {
    let controller = controller(Duration::ZERO).await;
    let owner = controller.owner_of("acme").await;
    let issue = async |days: u64| {
        let whose = For { org: Some("acme".parse().unwrap()), user: Some("grafana".parse().unwrap()) };
        let roles = vec!["organization.viewer".to_owned()];
        commands::user_token(&controller.config, whose, roles, days * 86_400).await.unwrap();
    };
    issue(1).await;
    assert_eq!(controller.number("SELECT COUNT(*) FROM user_tokens").await, 0, "it is not made to last");
    issue(30).await;
    controller
        .sql("UPDATE user_tokens SET issued_at = issued_at - 2500000000, expires_at = issued_at + 3600000")
        .await;
    let alarm = await_alarms(&owner, "", &["user_token_ending"]).await.remove(0);
    let reason = alarm["reason"].as_str().unwrap();
    assert!(reason.starts_with("the last token of the user grafana ends at "), "{alarm}");
    assert!(alarm["action"].as_str().unwrap().contains("controller-stub user-token"), "{alarm}");
    issue(30).await;
    await_alarms(&owner, "", &[]).await;
}
