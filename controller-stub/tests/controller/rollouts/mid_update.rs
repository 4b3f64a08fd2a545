//! What an operator does to a node while it is updated, message by message.

use serde_json::{Value, json};

use super::{await_stage, await_state, begin, later_events, managed, order, quick};
use crate::{
    harness::{Client, Controller, answer, eventually},
    peers::Worker,
};

/// A worker that has an offer of v1.1.0 and waits for its permit, which the paused rollout withholds.
async fn awaiting(controller: &Controller, owner: &Client) -> (String, String, Worker, Value) {
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    let mut worker = Worker::connect(&controller.gateway(), &id, &token).await;
    worker.register_updating("1.0.0", managed()).await;
    worker.receive("register.ack").await;
    let rollout = begin(owner, quick("v1.1.0")).await;
    let offer = worker.receive("node.update").await;
    order(owner, &rollout, "pause").await;
    let update = json!({"managedBy": "controller", "state": "awaiting", "updateId": offer["data"]["updateId"],
        "target": "v1.1.0"});
    worker.register_updating("1.0.0", update.clone()).await;
    worker.receive("register.ack").await;
    await_stage(owner, &rollout, "staged", 1).await;
    (id, rollout, worker, update)
}

/// Switches with its permit, and comes back on probation.
async fn switch(controller: &Controller, owner: &Client, id: &str, worker: &mut Worker, update: &mut Value) {
    worker.receive("update.permit").await;
    worker.send("node.disconnecting", json!({"reason": "update", "expectedBackSeconds": 30})).await;
    let token = owner.token_of(id).await;
    *worker = Worker::connect(&controller.gateway(), id, &token).await;
    update["state"] = json!("probation");
    worker.register_updating("1.1.0", update.clone()).await;
    worker.receive("register.ack").await;
}

/// Says that the update has succeeded.
async fn succeed(worker: &mut Worker, update: &Value) {
    let last = json!({"updateId": update["updateId"], "from": "v1.0.0", "version": "v1.1.0", "verdict": "succeeded",
        "at": "2025-12-11T12:00:00.000Z"});
    let idle = json!({"managedBy": "controller", "state": "idle", "last": last});
    worker.register_updating("1.1.0", idle).await;
}

async fn patch(owner: &Client, id: &str, change: Value) {
    let request = owner.request(reqwest::Method::PATCH, &format!("/nodes/{id}"));
    let (status, node) = answer(request.json(&change)).await;
    assert_eq!(status, 200, "{node}");
}

#[tokio::test]
async fn a_node_that_is_renamed_and_in_maintenance_in_mid_update_goes_on_and_stays_there() {
    let controller = Controller::start().await;
    controller.write_index();
    let owner = controller.owner_of("acme").await;
    let (id, rollout, mut worker, mut update) = awaiting(&controller, &owner).await;
    patch(&owner, &id, json!({"name": "renamed", "labels": {"group": "other"}})).await;
    let (status, node) = owner.post(&format!("/nodes/{id}/maintenance"), json!({})).await;
    assert_eq!(status, 200, "{node}");
    order(&owner, &rollout, "resume").await;
    switch(&controller, &owner, &id, &mut worker, &mut update).await;
    await_stage(&owner, &rollout, "probation", 1).await;
    patch(&owner, &id, json!({"name": "renamed-again"})).await;
    succeed(&mut worker, &update).await;
    await_state(&owner, &rollout, "completed").await;
    let node = owner.node(&id).await;
    assert_eq!(
        (&node["status"], &node["name"], &node["daemonVersion"]),
        (&json!("maintenance"), &json!("renamed-again"), &json!("1.1.0"))
    );
    let events = ["node.maintenance_mode", "node.updated"];
    eventually("both events", async || match later_events(&owner, &id).await {
        seen if seen == events => Ok(()),
        seen => Err(format!("{seen:?}")),
    })
    .await;
}

#[tokio::test]
async fn a_node_that_is_decommissioned_in_mid_update_is_left_out_and_nothing_waits_for_it() {
    for switched in [false, true] {
        let controller = Controller::start().await;
        controller.write_index();
        let owner = controller.owner_of("acme").await;
        let (id, rollout, mut worker, mut update) = awaiting(&controller, &owner).await;
        order(&owner, &rollout, "resume").await;
        if switched {
            switch(&controller, &owner, &id, &mut worker, &mut update).await;
            await_stage(&owner, &rollout, "probation", 1).await;
        }
        let gone = owner.request(reqwest::Method::DELETE, &format!("/nodes/{id}"));
        assert_eq!(gone.send().await.unwrap().status(), 200);
        let ended = await_state(&owner, &rollout, "completed").await;
        assert_eq!(ended["nodes"]["skipped"], 1, "{ended}");
        let (_, nodes) = owner.get(&format!("/rollouts/{rollout}/nodes")).await;
        assert_eq!(nodes["data"][0]["skipped"], "decommissioned", "{nodes}");
        let events = later_events(&owner, &id).await;
        assert!(!events.contains(&"node.update_failed".to_owned()), "{events:?}");
    }
}

#[tokio::test]
async fn a_node_that_is_pinned_in_mid_update_stops_before_it_switches_and_goes_on_after() {
    for switched in [false, true] {
        let controller = Controller::start().await;
        controller.write_index();
        let owner = controller.owner_of("acme").await;
        let (id, rollout, mut worker, mut update) = awaiting(&controller, &owner).await;
        if switched {
            order(&owner, &rollout, "resume").await;
            switch(&controller, &owner, &id, &mut worker, &mut update).await;
            await_stage(&owner, &rollout, "probation", 1).await;
        }
        let pin = owner.request(reqwest::Method::PUT, &format!("/nodes/{id}/pin"));
        let (status, pinned) = answer(pin.json(&json!({"version": "v1.0.0"}))).await;
        assert_eq!(status, 200, "{pinned}");
        if switched {
            succeed(&mut worker, &update).await;
            let ended = await_state(&owner, &rollout, "completed").await;
            assert_eq!(ended["nodes"]["succeeded"], 1, "{ended}");
        } else {
            let cancel = worker.receive("update.cancel").await;
            assert_eq!(cancel["data"]["updateId"], update["updateId"]);
            assert_eq!(cancel["data"]["reason"], "it is pinned to another version");
            order(&owner, &rollout, "resume").await;
            let ended = await_state(&owner, &rollout, "completed").await;
            assert_eq!(ended["nodes"]["skipped"], 1, "{ended}");
        }
    }
}

#[tokio::test]
async fn a_node_that_is_cloned_in_mid_update_is_let_go_once_and_the_one_that_is_heard_decides() {
    let controller = Controller::start().await;
    controller.write_index();
    let owner = controller.owner_of("acme").await;
    let (id, rollout, mut worker, update) = awaiting(&controller, &owner).await;
    // The copy has the node's token, and nothing of its update.
    let token = owner.token_of(&id).await;
    let mut copy = Worker::connect(&controller.gateway(), &id, &token).await;
    copy.register_updating("1.0.0", managed()).await;
    copy.receive("register.ack").await;
    assert_eq!(worker.closed().await, 4409);
    order(&owner, &rollout, "resume").await;
    let offer = copy.receive("node.update").await;
    let mut of_copy = update.clone();
    of_copy["updateId"] = offer["data"]["updateId"].clone();
    copy.register_updating("1.0.0", of_copy.clone()).await;
    copy.receive("register.ack").await;
    switch(&controller, &owner, &id, &mut copy, &mut of_copy).await;
    succeed(&mut copy, &of_copy).await;
    let ended = await_state(&owner, &rollout, "completed").await;
    assert_eq!((&ended["nodes"]["succeeded"], &ended["nodes"]["skipped"]), (&json!(1), &json!(0)), "{ended}");
    let updated = controller.number("SELECT COUNT(*) FROM transitions WHERE cause = 'updated'").await;
    assert_eq!(updated, 1);
}
