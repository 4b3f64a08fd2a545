//! Rollouts from outside: workers that answer offers as real ones do, and what the controller, its database
//! and its events say meanwhile.

use std::{sync::atomic::Ordering, time::Duration};

use serde_json::{Value, json};

#[path = "rollouts/mid_update.rs"]
mod mid_update;
#[path = "rollouts/node.rs"]
mod node;

use self::node::{Kind, Node};
use crate::{
    harness::{Client, Controller, eventually, refusal},
    peers::Worker,
};

fn managed() -> Value {
    json!({"managedBy": "controller", "state": "idle"})
}

fn quick(version: &str) -> Value {
    json!({"version": version, "soakSeconds": 0, "wavePauseSeconds": 0, "canaries": "1", "inFlight": "2"})
}

async fn begin(owner: &Client, rollout: Value) -> String {
    let (status, rollout) = owner.post("/rollouts", rollout).await;
    assert_eq!((status.as_u16(), rollout["state"].as_str()), (201, Some("draft")), "{rollout}");
    let id = rollout["id"].as_str().unwrap().to_owned();
    order(owner, &id, "start").await;
    id
}

async fn order(owner: &Client, id: &str, order: &str) -> Value {
    let (status, rollout) = owner.post(&format!("/rollouts/{id}/{order}"), json!({})).await;
    assert_eq!(status, 200, "{order}: {rollout}");
    rollout
}

async fn await_state(owner: &Client, id: &str, state: &str) -> Value {
    eventually(&format!("the rollout {state}"), async || {
        let (_, rollout) = owner.get(&format!("/rollouts/{id}")).await;
        if rollout["state"] == state { Ok(rollout) } else { Err(rollout.to_string()) }
    })
    .await
}

async fn await_stage(owner: &Client, id: &str, stage: &str, nodes: u64) {
    eventually(&format!("{nodes} nodes {stage}"), async || {
        let (_, rollout) = owner.get(&format!("/rollouts/{id}")).await;
        if rollout["nodes"][stage] == nodes { Ok(()) } else { Err(rollout.to_string()) }
    })
    .await;
}

async fn await_online(owner: &Client, nodes: &[Node]) {
    for node in nodes {
        owner.await_status(&node.id, "online").await;
    }
}

/// The types of a node's events beyond those of its registration.
async fn later_events(owner: &Client, node: &str) -> Vec<String> {
    let events = owner.events(node).await;
    events.iter().skip(3).map(|event| event["type"].as_str().unwrap().to_owned()).collect()
}

/// A node that a rollout brings to the new version.
pub(crate) async fn update_one(controller: &Controller, owner: &Client) {
    controller.write_index();
    let node = Node::start(controller, owner, "updated", Kind::Good, managed()).await;
    owner.await_status(&node.id, "online").await;
    let id = begin(owner, quick("v1.1.0")).await;
    await_state(owner, &id, "completed").await;
}

#[tokio::test]
async fn a_fleet_comes_to_a_new_version_and_nobody_hears_of_anything_but_that() {
    let controller = Controller::start().await;
    controller.write_index();
    let owner = controller.owner_of("acme").await;
    let mut nodes = Vec::new();
    for number in 0..6 {
        nodes.push(Node::start(&controller, &owner, &format!("gpu-{number}"), Kind::Good, managed()).await);
    }
    let pinned = json!({"managedBy": "controller", "state": "idle", "pin": "v1.0.0"});
    let pinned = Node::start(&controller, &owner, "pinned", Kind::Good, pinned).await;
    let packaged = json!({"managedBy": "package", "state": "idle"});
    let packaged = Node::start(&controller, &owner, "packaged", Kind::Good, packaged).await;
    await_online(&owner, &nodes).await;
    for node in [&pinned, &packaged] {
        owner.await_status(&node.id, "online").await;
    }
    let id = begin(&owner, quick("v1.1.0")).await;
    let rollout = await_state(&owner, &id, "completed").await;
    assert_eq!((&rollout["nodes"]["succeeded"], &rollout["nodes"]["skipped"]), (&json!(6), &json!(2)));
    for node in &nodes {
        assert_eq!((node.offers(), node.permits.load(Ordering::SeqCst)), (1, 1));
        let seen = owner.node(&node.id).await;
        assert_eq!((&seen["status"], &seen["daemonVersion"]), (&json!("online"), &json!("1.1.0")));
        assert_eq!(seen["update"]["last"]["verdict"], "succeeded");
        eventually("node.updated", async || match later_events(&owner, &node.id).await {
            events if events == ["node.updated"] => Ok(()),
            events => Err(format!("{events:?}")),
        })
        .await;
    }
    let (_, left_out) = owner.get(&format!("/rollouts/{id}/nodes?stage=skipped")).await;
    let reasons: Vec<_> =
        left_out["data"].as_array().unwrap().iter().map(|it| it["skipped"].as_str().unwrap()).collect();
    assert!(reasons.contains(&"pinned") && reasons.contains(&"packaged"), "{left_out}");
    assert!(left_out.to_string().contains("apt-get install --only-upgrade aio-worker"), "{left_out}");
    assert_eq!((pinned.offers(), packaged.offers()), (0, 0));
    let (_, audit) = owner.get("/audit?action=rollout.move").await;
    let moves: Vec<_> =
        audit["data"].as_array().unwrap().iter().rev().map(|it| it["detail"]["state"].clone()).collect();
    assert_eq!(moves.last(), Some(&json!("completed")), "{moves:?}");
    let (_, figures) = controller_metrics(&controller).await;
    assert!(figures.contains("aio_rollout_nodes"), "{figures}");
}

async fn controller_metrics(controller: &Controller) -> (u16, String) {
    eventually("the figures", async || {
        let answer = controller.nobody().request(reqwest::Method::GET, "/metrics").send().await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        if text.contains("aio_nodes_by_version{") { Ok((status, text)) } else { Err(text) }
    })
    .await
}

#[tokio::test]
async fn a_faulty_release_halts_at_its_canary_and_can_be_retried_on_a_node() {
    let controller = Controller::start().await;
    controller.write_index();
    let owner = controller.owner_of("acme").await;
    let mut nodes = Vec::new();
    for number in 0..4 {
        nodes.push(Node::start(&controller, &owner, &format!("gpu-{number}"), Kind::Faulty, managed()).await);
    }
    await_online(&owner, &nodes).await;
    let id = begin(&owner, quick("v1.1.0")).await;
    let rollout = await_state(&owner, &id, "halted").await;
    assert_eq!(rollout["detail"]["criterion"], "faultyCanary");
    assert_eq!(nodes.iter().map(Node::offers).sum::<usize>(), 1, "one canary alone");
    let canary = nodes.iter().find(|node| node.offers() == 1).unwrap();
    eventually("node.update_failed", async || match later_events(&owner, &canary.id).await {
        events if events == ["node.update_failed"] => Ok(()),
        events => Err(format!("{events:?}")),
    })
    .await;
    let (_, failed) = owner.get(&format!("/rollouts/{id}/nodes?stage=faulty")).await;
    assert_eq!(
        (&failed["data"][0]["code"], &failed["data"][0]["nodeId"]),
        (&json!("UPDATE_FAULTY"), &json!(canary.id))
    );
    assert!(failed["data"][0]["reason"].as_str().unwrap().contains("it ended at once"));

    let (status, own) =
        owner.post(&format!("/nodes/{}/update", canary.id), json!({"version": "v1.1.0"})).await;
    assert_eq!(status, 200, "{own}");
    await_state(&owner, own["id"].as_str().unwrap(), "halted").await;
    assert_eq!(canary.offers(), 2);
    order(&owner, &id, "abort").await;
    assert_eq!(nodes.iter().map(Node::offers).sum::<usize>(), 2);
}

#[tokio::test]
async fn a_node_that_was_away_gets_the_offer_when_it_registers_and_one_that_is_new_too() {
    let controller = Controller::start().await;
    controller.write_index();
    let owner = controller.owner_of("acme").await;
    let first = Node::start(&controller, &owner, "gpu-0", Kind::Good, managed()).await;
    let away = owner.add_node("gpu-1").await;
    let token = owner.token_of(&away).await;
    let mut worker = Worker::connect(&controller.gateway(), &away, &token).await;
    worker.register_updating("1.0.0", managed()).await;
    worker.receive("register.ack").await;
    worker.send("node.disconnecting", json!({"reason": "shutdown"})).await;
    owner.await_status(&away, "offline").await;
    await_online(&owner, std::slice::from_ref(&first)).await;

    let id = begin(&owner, quick("v1.1.0")).await;
    let rollout = await_state(&owner, &id, "completed").await;
    assert_eq!(rollout["nodes"]["late"], 1, "{rollout}");
    let late = Node::live(&controller, &away, &token, Kind::Good, managed());
    await_stage(&owner, &id, "succeeded", 2).await;
    assert_eq!(late.offers(), 1);
    let new = Node::start(&controller, &owner, "gpu-2", Kind::Good, managed()).await;
    await_stage(&owner, &id, "succeeded", 3).await;
    assert_eq!((new.offers(), first.offers()), (1, 1));
}

#[tokio::test]
async fn a_controller_that_is_stopped_in_every_state_goes_on_and_does_nothing_twice() {
    let mut controller = Controller::start().await;
    controller.write_index();
    let owner = controller.owner_of("acme").await;
    let mut nodes = Vec::new();
    for number in 0..12 {
        nodes.push(Node::start(&controller, &owner, &format!("gpu-{number}"), Kind::Good, managed()).await);
    }
    await_online(&owner, &nodes).await;
    let address = controller.address();
    let id = begin(&owner, quick("v1.1.0")).await;
    for reached in 0..8 {
        eventually("another node is let go", async || {
            let permits: u32 = nodes.iter().map(|node| node.permits.load(Ordering::SeqCst)).sum();
            if permits >= reached { Ok(()) } else { Err(permits.to_string()) }
        })
        .await;
        controller.stop().await;
        controller.start_again(address).await;
    }
    let owner = controller.owner_of("acme").await;
    let rollout = await_state(&owner, &id, "completed").await;
    assert_eq!(rollout["nodes"]["succeeded"], 12, "{rollout}");
    for node in &nodes {
        assert_eq!((node.offers(), node.permits.load(Ordering::SeqCst)), (1, 1));
    }
    let counted =
        controller.number("SELECT COUNT(*) FROM rollout_nodes WHERE stage = 'succeeded' AND open = 0").await;
    assert_eq!(counted, 12);
}

#[tokio::test]
async fn what_is_paused_lets_nobody_go_and_what_is_aborted_takes_its_offers_back() {
    let controller = Controller::start().await;
    controller.write_index();
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    let mut worker = Worker::connect(&controller.gateway(), &id, &token).await;
    worker.register_updating("1.0.0", managed()).await;
    worker.receive("register.ack").await;
    let rollout = begin(&owner, quick("v1.1.0")).await;
    let offer = worker.receive("node.update").await;
    let deadline: aio_protocol::time::Timestamp =
        offer["data"]["deadline"].as_str().unwrap().parse().unwrap();
    let left = deadline.since(aio_protocol::time::Timestamp::from(std::time::SystemTime::now()));
    assert!((23 * 3600..=24 * 3600).contains(&left.as_secs()), "{left:?}");
    assert_eq!(offer["data"]["manifestSha256"], format!("sha256:{}", "b".repeat(64)));
    order(&owner, &rollout, "pause").await;
    let awaiting = json!({"managedBy": "controller", "state": "awaiting", "updateId": offer["data"]["updateId"],
        "target": "v1.1.0"});
    worker.register_updating("1.0.0", awaiting.clone()).await;
    worker.receive("register.ack").await;
    await_stage(&owner, &rollout, "staged", 1).await;
    assert_eq!(worker.receive_within(Duration::from_secs(2)).await, None, "no permit while it is paused");
    order(&owner, &rollout, "resume").await;
    let permit = worker.receive("update.permit").await;
    assert_eq!(
        (&permit["data"]["updateId"], &permit["data"]["seconds"]),
        (&offer["data"]["updateId"], &json!(300))
    );
    // A worker that comes back and still waits is let go again, and only once.
    worker.register_updating("1.0.0", awaiting.clone()).await;
    let ack = worker.receive("register.ack").await;
    assert_eq!(ack["data"]["pendingCommands"][0]["type"], "update.permit", "{ack}");
    order(&owner, &rollout, "abort").await;
    let cancel = worker.receive("update.cancel").await;
    assert_eq!(cancel["data"]["updateId"], offer["data"]["updateId"]);
    let message = refusal(
        owner.post(&format!("/rollouts/{rollout}/start"), json!({})).await,
        409,
        "TRANSITION_REFUSED",
    );
    assert!(message.contains("aborted"), "{message}");
}

#[tokio::test]
async fn two_rollouts_share_no_node_and_a_newer_one_takes_the_place_of_one_that_is_over() {
    let controller = Controller::start().await;
    controller.write_index();
    let owner = controller.owner_of("acme").await;
    let node = Node::start(&controller, &owner, "gpu", Kind::Good, managed()).await;
    await_online(&owner, std::slice::from_ref(&node)).await;
    let mut slow = quick("v1.1.0");
    slow["soakSeconds"] = json!(3600);
    let first = begin(&owner, slow).await;
    await_state(&owner, &first, "soaking").await;
    let (_, second) = owner.post("/rollouts", quick("v2.0.0")).await;
    let second = second["id"].as_str().unwrap().to_owned();
    let start = owner.post(&format!("/rollouts/{second}/start"), json!({})).await;
    assert!(refusal(start, 409, "ROLLOUT_CONFLICT").contains(&first));
    order(&owner, &first, "promote").await;
    await_state(&owner, &first, "completed").await;
    order(&owner, &second, "start").await;
    await_state(&owner, &second, "completed").await;
    await_state(&owner, &first, "superseded").await;
    assert_eq!(owner.node(&node.id).await["daemonVersion"], "2.0.0");
}

#[tokio::test]
async fn a_pin_of_the_controller_keeps_a_node_out_until_it_is_taken_away_and_so_does_a_group_s() {
    let controller = Controller::start().await;
    controller.write_index();
    let owner = controller.owner_of("acme").await;
    let node = Node::start(&controller, &owner, "gpu-0", Kind::Good, managed()).await;
    let other = Node::start(&controller, &owner, "gpu-1", Kind::Good, managed()).await;
    await_online(&owner, &[]).await;
    for it in [&node, &other] {
        owner.await_status(&it.id, "online").await;
    }
    let put = async |path: &str, body: Value| {
        crate::harness::answer(owner.request(reqwest::Method::PUT, path).json(&body)).await
    };
    let pin = format!("/nodes/{}/pin", node.id);
    let message = refusal(put(&pin, json!({"version": "v0.9.0"})).await, 409, "UPDATE_BELOW_FLOOR");
    assert!(message.contains("v1.0.0"), "{message}");
    let (status, pinned) = put(&pin, json!({"version": "v1.0.0"})).await;
    assert_eq!((status.as_u16(), &pinned["pin"]), (200, &json!("v1.0.0")));
    let labels = owner.request(reqwest::Method::PATCH, &format!("/nodes/{}", other.id));
    crate::harness::answer(labels.json(&json!({"labels": {"group": "lab"}}))).await;
    assert_eq!(put("/groups/lab", json!({"pin": "v1.0.0"})).await.0, 200);

    let (status, plan) = {
        let mut plan = quick("v1.1.0");
        plan["dryRun"] = json!(true);
        owner.post("/rollouts", plan).await
    };
    assert_eq!((status.as_u16(), plan["nodes"].as_array().unwrap().len()), (200, 2));
    assert!(plan["nodes"].as_array().unwrap().iter().all(|it| it["skipped"] == "pinned"), "{plan}");
    let id = begin(&owner, quick("v1.1.0")).await;
    let rollout = await_state(&owner, &id, "completed").await;
    assert_eq!(rollout["nodes"]["skipped"], 2);
    let unpinned = crate::harness::answer(owner.request(reqwest::Method::DELETE, &pin)).await;
    assert_eq!((unpinned.0.as_u16(), &unpinned.1["pin"]), (200, &Value::Null));
    await_stage(&owner, &id, "succeeded", 1).await;
    assert_eq!(put("/groups/lab", json!({})).await.0, 200);
    await_stage(&owner, &id, "succeeded", 2).await;
    assert_eq!((node.offers(), other.offers()), (1, 1));
}

#[tokio::test]
async fn a_node_that_leaves_for_an_update_stays_online_for_so_long_and_no_longer() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    let mut worker = Worker::welcomed(&controller.gateway(), &id, &token).await;
    worker.send("node.disconnecting", json!({"reason": "update", "expectedBackSeconds": 2})).await;
    owner.await_connected(&id, false).await;
    assert_eq!(owner.node(&id).await["status"], "online");
    // Back in time, it was never gone.
    let mut worker = Worker::welcomed(&controller.gateway(), &id, &token).await;
    assert_eq!(owner.events(&id).await.len(), 3);
    worker.send("node.disconnecting", json!({"reason": "update", "expectedBackSeconds": 1})).await;
    owner.await_status(&id, "offline").await;
    let events = owner
        .await_events(
            &id,
            &["node.registered", "node.installation_started", "node.connected", "node.disconnected"],
        )
        .await;
    assert_eq!(events[3]["data"]["disconnectReason"], "heartbeat_timeout");
}

#[tokio::test]
async fn another_noti_is_told_of_updates_only_if_it_wants_to() {
    for (types, expected) in [(None, 0), (Some("node.updated"), 1)] {
        let noti = crate::peers::FakeNoti::start(&[]).await;
        let url = noti.url();
        let settings = controller_stub::config::Settings {
            noti_service_url: Some(url.clone()),
            noti_event_types: types.map(str::to_owned),
            ..Default::default()
        };
        let chosen = controller_stub::config::Config::check("data", settings).unwrap().noti_event_types;
        let controller = Controller::start_with(|config| {
            config.noti_service_url = Some(url.parse().unwrap());
            config.noti_event_types = chosen;
        })
        .await;
        controller.write_index();
        let owner = controller.owner_of("acme").await;
        let node = Node::start(&controller, &owner, "gpu", Kind::Good, managed()).await;
        await_online(&owner, std::slice::from_ref(&node)).await;
        let id = begin(&owner, quick("v1.1.0")).await;
        await_state(&owner, &id, "completed").await;
        let updated = controller.number("SELECT COUNT(*) FROM transitions WHERE cause = 'updated'").await;
        assert_eq!(updated, 1);
        eventually("an empty outbox", async || {
            match controller.number("SELECT COUNT(*) FROM outbox").await {
                0 => Ok(()),
                owed => Err(owed.to_string()),
            }
        })
        .await;
        let told = noti.posts().iter().filter(|post| post.json()["type"] == "node.updated").count();
        assert_eq!(told, expected, "{types:?}");
    }
}

/// What a command prints, which must succeed.
fn command(line: &str, controller: &Controller) -> String {
    let arguments: Vec<_> = line.split(' ').collect();
    let output = crate::program::run(&arguments, &controller.config.data_dir);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_rolls_out_what_the_server_carries_out() {
    let controller = Controller::start().await;
    controller.write_index();
    let owner = controller.owner_of("acme").await;
    let mut nodes = Vec::new();
    for number in 0..3 {
        nodes.push(Node::start(&controller, &owner, &format!("gpu-{number}"), Kind::Good, managed()).await);
    }
    let packaged = json!({"managedBy": "package", "state": "idle"});
    let packaged = Node::start(&controller, &owner, "packaged", Kind::Good, packaged).await;
    await_online(&owner, &nodes).await;
    owner.await_status(&packaged.id, "online").await;
    let pinned = command("node pin gpu-2 v1.0.0 --org acme", &controller);
    assert!(pinned.contains(&nodes[2].id), "{pinned}");
    let quick = "--org acme --soak 0s --wave-pause 0s --canaries 1 --in-flight 2";
    let plan = command(&format!("rollout create v1.1.0 {quick} --dry-run"), &controller);
    assert!(plan.starts_with("1 canaries, wave 3: 1\n"), "{plan}");
    assert!(plan.contains("gpu-2  it is pinned to another version"), "{plan}");
    assert!(plan.contains(
        "packaged  its version is the package manager's: apt-get install --only-upgrade aio-worker"
    ));
    assert_eq!(command("rollout list --org acme", &controller), "");
    let created = command(&format!("rollout create v1.1.0 {quick}"), &controller);
    assert!(created.contains("v1.1.0  all nodes  canary"), "{created}");
    let (_, list) = owner.get("/rollouts").await;
    let id = list["data"][0]["id"].as_str().unwrap().to_owned();
    let followed = command("rollout status --follow --org acme", &controller);
    assert!(followed.contains("completed  2 skipped, 2 succeeded"), "{followed}");
    let status = command("rollout status --output json --org acme", &controller);
    let lines: Vec<Value> = status.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["id"], lines.len()), (&json!(id), 5));
    command("node unpin gpu-2 --org acme", &controller);
    await_stage(&owner, &id, "succeeded", 3).await;
    let refused = crate::program::run(&["rollout", "resume", "--org", "acme"], &controller.config.data_dir);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("error[TRANSITION_REFUSED]"));
    command("node update gpu-0 v2.0.0 --org acme", &controller);
    eventually("v2.0.0 on the node", async || {
        let node = owner.node(&nodes[0].id).await;
        if node["daemonVersion"] == "2.0.0" { Ok(()) } else { Err(node.to_string()) }
    })
    .await;
    let (_, audit) = owner.get("/audit?actor=command+line").await;
    let actions: Vec<_> =
        audit["data"].as_array().unwrap().iter().rev().map(|it| it["action"].as_str().unwrap()).collect();
    for action in ["node.pin", "rollout.create", "rollout.start", "node.unpin", "node.roll_out"] {
        assert!(actions.contains(&action), "{actions:?}");
    }
}
