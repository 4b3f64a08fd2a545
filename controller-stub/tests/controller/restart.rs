//! What a stop and a start leave as it was, and what they must not do.

use std::time::Duration;

use controller_stub::serve::Server;
use serde_json::json;

use crate::{harness::Controller, peers::Worker};

#[tokio::test]
async fn after_a_restart_nobody_goes_offline_before_a_whole_lease_has_passed() {
    let lease = Duration::from_secs(2);
    let mut controller = Controller::start_with(|config| config.heartbeat_timeout = lease).await;
    let address = controller.address();
    let owner = controller.owner_of("acme").await;
    let (back, gone) = (owner.add_node("back").await, owner.add_node("gone").await);
    let (back_token, gone_token) = (owner.token_of(&back).await, owner.token_of(&gone).await);
    let workers = [
        Worker::welcomed(&controller.gateway(), &back, &back_token).await,
        Worker::welcomed(&controller.gateway(), &gone, &gone_token).await,
    ];
    controller.stop().await;
    drop(workers);
    // Down for longer than a lease.
    tokio::time::sleep(lease + Duration::from_millis(200)).await;

    let started = tokio::time::Instant::now();
    controller.start_again(address).await;
    let owner = controller.owner_of("acme").await;
    for id in [&back, &gone] {
        let node = owner.node(id).await;
        assert_eq!((&node["status"], &node["websocketConnected"]), (&json!("online"), &json!(false)));
    }
    let mut worker = Worker::welcomed(&controller.gateway(), &back, &back_token).await;
    let beats = async {
        let mut pace = tokio::time::interval(lease / 4);
        for seq in 1.. {
            pace.tick().await;
            worker.heartbeat(seq).await;
        }
    };
    tokio::select! {
        () = beats => {}
        _ = owner.await_status(&gone, "offline") => {}
    }
    assert!(started.elapsed() >= lease, "{:?} is less than a lease", started.elapsed());
    assert_eq!(owner.node(&back).await["status"], "online");
    // It was online all along, so its return is no event.
    owner.await_events(&back, &["node.registered", "node.installation_started", "node.connected"]).await;
}

#[tokio::test]
async fn an_installation_that_a_restart_interrupts_has_its_whole_time_again() {
    let mut controller = Controller::start_with(|config| {
        config.installation_timeout = Duration::from_secs(1);
    })
    .await;
    let address = controller.address();
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    let path = format!("/nodes/{id}/installation");
    controller.bearer(&token).post(&path, json!({"phase": "started"})).await;
    controller.stop().await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    controller.start_again(address).await;
    let installer = controller.bearer(&token);
    assert_eq!(installer.post(&path, json!({"phase": "progress", "step": "enable_unit"})).await.0, 200);
    let owner = controller.owner_of("acme").await;
    let node = owner.await_status(&id, "error").await;
    assert_eq!(node["installation"]["error"]["details"]["lastStep"], "enable_unit");
}

#[tokio::test]
async fn two_servers_do_not_share_a_data_folder() {
    let controller = Controller::start().await;
    let error = Server::start(controller.config.clone()).await.map(drop).unwrap_err();
    assert_eq!(error.code().as_str(), "CONFIG_INVALID");
    assert!(error.to_string().contains("another controller runs"), "{error}");
}

#[tokio::test]
async fn secrets_that_the_first_start_made_are_those_of_the_second() {
    let mut controller = Controller::start_with(|config| {
        config.jwt_secret = None;
        config.noti_webhook_secret = None;
        config.noti_service_token = None;
    })
    .await;
    let address = controller.address();
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    controller.stop().await;
    controller.start_again(address).await;
    let _worker = Worker::welcomed(&controller.gateway(), &id, &token).await;
    owner.await_events(&id, &["node.registered", "node.installation_started", "node.connected"]).await;
}
