//! What becomes of a GPU that fails: who hears of it, and when.

use std::sync::Arc;

use aio_host::gpu::{Gone, Reading, XidEvent};
use aio_protocol::{
    inventory::GpuDriverState,
    telemetry::{Health, RecoveryAction},
    time::Timestamp,
    wire::WorkerMessage,
};
use aio_worker::session::machine::Timings;
use tempfile::TempDir;

use super::{
    controller::{Controller, NODE},
    daemon::{Daemon, folder_with, gpus, token},
};

#[tokio::test]
async fn a_gpu_that_fails_is_told_at_once_with_what_to_do_and_not_at_the_next_heartbeat() {
    let mut controller = Controller::start().await;
    let daemon = Daemon::start(&controller.url);
    // The next heartbeat would come in an hour.
    let (mut peer, _) = controller.welcomed(3_600_000).await;
    let first = peer.heartbeat().await;
    assert_eq!((first.seq, first.health.state), (1, Health::Ok));
    daemon.machine.tell(|report| {
        let uuid = report.gpus[1].uuid.clone();
        report.xids = vec![XidEvent { sequence: 1, at: Timestamp::from_millis(1), uuid, code: 79 }];
        report.xids[0].at = std::time::SystemTime::now().into();
        report.readings[1] = Reading { gone: Some(Gone::Lost), ..Reading::silent("1") };
    });
    let beat = peer.heartbeat().await;
    assert_eq!(beat.seq, 2);
    assert_eq!((beat.health.state, beat.health.action), (Health::Unhealthy, RecoveryAction::Reboot));
    assert!(beat.health.worst.as_ref().is_some_and(|worst| worst.starts_with("GPU 1: ")), "{beat:?}");
    let metrics = peer
        .until(|message| match message {
            WorkerMessage::Metrics(metrics) => Some(metrics),
            _ => None,
        })
        .await;
    assert_eq!(metrics.node_id.as_str(), NODE);
    let reasons: Vec<_> = metrics.gpu[1].findings.iter().map(|finding| finding.reason.as_str()).collect();
    assert_eq!(reasons, ["Xid 79: it has fallen off the bus", "it has fallen off the bus"]);
    assert_eq!((metrics.gpu[0].status.health, metrics.gpu[0].findings.len()), (Health::Ok, 0));

    let snapshot = daemon.snapshot(|snapshot| snapshot.health.state == Health::Unhealthy).await;
    assert_eq!(snapshot.gpu_status, metrics.gpu);
}

/// A folder whose daemon has seen two GPUs and has ended.
async fn folder_that_knows_two_gpus(controller: &mut Controller) -> Arc<TempDir> {
    let folder = folder_with(&token(&controller.url, "first"));
    let mut daemon = Daemon::on(&folder, Timings::default(), None);
    let (mut peer, _) = controller.welcomed(300).await;
    peer.heartbeat().await;
    wait_for_memory(&folder).await;
    daemon.ask_to_stop();
    while peer.next().await.is_some() {}
    daemon.ended().await;
    folder
}

#[tokio::test]
async fn a_gpu_that_is_gone_is_still_missed_after_a_restart_of_the_daemon() {
    let mut controller = Controller::start().await;
    let folder = folder_that_knows_two_gpus(&mut controller).await;
    let daemon = Daemon::on(&folder, Timings::default(), None);
    daemon.machine.tell(|report| *report = gpus(1));
    let (mut peer, _) = controller.welcomed(300).await;
    let missing = peer
        .until(|message| match message {
            WorkerMessage::Heartbeat(beat) if beat.health.state == Health::Unhealthy => beat.health.worst,
            _ => None,
        })
        .await;
    assert_eq!(missing, "1 of 2 GPUs missing: GPU 1 (NVIDIA H100 GPU-1)");
    let snapshot = daemon.snapshot(|snapshot| !snapshot.missing_gpus.is_empty()).await;
    assert_eq!(snapshot.missing_gpus[0].uuid.as_deref(), Some("GPU-1"));
}

#[tokio::test]
async fn a_driver_that_hangs_from_the_first_still_has_the_gpus_that_it_had() {
    let mut controller = Controller::start().await;
    let folder = folder_that_knows_two_gpus(&mut controller).await;
    let daemon = Daemon::hanging_on(&folder);
    let (_peer, register) = controller.welcomed(300).await;
    let hardware = register.system_info.hardware;
    assert_eq!((hardware.gpu_driver.state, hardware.gpu.len()), (GpuDriverState::Unknown, 2));
    let snapshot = daemon.snapshot(|snapshot| snapshot.gpus.len() == 2).await;
    assert_eq!(snapshot.health.state, Health::Unknown);
    assert!(snapshot.gpu_status.iter().all(|gpu| gpu.status.health == Health::Unknown));
    daemon.machine.hang(false);
}

async fn wait_for_memory(folder: &TempDir) {
    let file = folder.path().join("state/gpus.json");
    let written = async {
        while !file.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(super::controller::PATIENCE, written).await.expect("nothing is remembered");
}
