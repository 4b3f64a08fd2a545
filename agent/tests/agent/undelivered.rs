//! What an installer could not tell, the worker tells.

use std::fs;

use aio_protocol::wire::WorkerMessage;
use aio_worker::session::machine::Timings;
use serde_json::json;

use super::{
    controller::{Controller, NODE},
    daemon::{Daemon, folder_with, token},
};

#[tokio::test]
async fn a_failed_upgrade_is_told_when_the_controller_is_there_again_and_not_forgotten_before_it_was_read() {
    let mut controller = Controller::start().await;
    let folder = folder_with(&token(&controller.url, "first"));
    let undelivered = folder.path().join("state/undelivered");
    fs::create_dir_all(&undelivered).unwrap();
    let file = undelivered.join("1.json");
    let failure = json!({ "nodeId": NODE, "at": "2025-12-11T12:00:00.000Z", "step": "start_unit",
        "error": { "code": "SERVICE_FAILED", "message": "it ended at once", "details": { "exitStatus": 1 } } });
    fs::write(&file, failure.to_string()).unwrap();
    let daemon = Daemon::on(&folder, Timings::default(), None);
    let told = |message| match message {
        WorkerMessage::InstallationFailed(told) => Some(told),
        _ => None,
    };

    // Told, and the connection is lost before anything else is read.
    let (mut peer, _) = controller.welcomed(50).await;
    assert_eq!(peer.until(told).await.error.code, "SERVICE_FAILED");
    peer.close(1012, "restart").await;
    assert!(file.exists());

    let (mut peer, _) = controller.welcomed(50).await;
    let told = peer.until(told).await;
    assert_eq!((told.node_id.as_str(), told.step.as_deref()), (NODE, Some("start_unit")));
    assert_eq!(told.error.details["failedAt"], "2025-12-11T12:00:00.000Z");
    while file.exists() {
        peer.heartbeat().await;
    }
    assert!(daemon.alive());
}
