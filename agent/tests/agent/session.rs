//! The life of a session when all is well.

use std::time::{Duration, Instant};

use aio_host::dial::black_hole::{self, BlackHole};
use aio_protocol::{
    inventory::GpuDriverState,
    snapshot::SessionState,
    telemetry::Health,
    wire::{
        CommandStatus, DisconnectReason, NodeDrain, PendingCommand, RegisterAck, StateRequest, WorkerMessage,
    },
};
use uuid::Uuid;

use super::{
    controller::{Controller, NODE},
    daemon::{Daemon, gpus},
};

#[tokio::test]
async fn a_controller_whose_first_address_swallows_packets_is_reached_at_the_other() {
    let test = "agent::session::a_controller_whose_first_address_swallows_packets_is_reached_at_the_other";
    if !black_hole::is_here(test).unwrap() {
        return;
    }
    let mut controller = Controller::start().await;
    let url = controller.url.replace("127.0.0.1", "localhost");
    let port = url.trim_end_matches("/ws/node").rsplit(':').next().unwrap().parse().unwrap();
    let _hole = BlackHole::beside(port).await.unwrap();
    let _daemon = Daemon::start(&url);
    let (mut peer, _) = controller.welcomed(30_000).await;
    assert_eq!(peer.heartbeat().await.seq, 1);
}

#[tokio::test]
async fn a_worker_registers_and_its_first_heartbeat_goes_out_at_once_and_settles_it() {
    let mut controller = Controller::start().await;
    let daemon = Daemon::start(&controller.url);
    let (mut peer, register) = controller.welcomed(30_000).await;
    assert_eq!(register.node_id.as_str(), NODE);
    assert_eq!(register.daemon_version, env!("CARGO_PKG_VERSION"));
    assert_eq!(register.instance_id.get_version_num(), 7);
    assert_eq!(register.system_info.hardware.gpu.len(), 2);
    let welcomed = Instant::now();
    let beat = peer.heartbeat().await;
    assert!(welcomed.elapsed() < Duration::from_secs(5), "{:?}", welcomed.elapsed());
    assert_eq!((beat.seq, beat.gpu_status.len(), beat.health.state), (1, 2, Health::Ok));
    assert_eq!((beat.host.cpu_usage, beat.host.uptime_seconds), (12.5, 86_400));
    let reading = tokio::spawn(async move { peer.next().await });
    let snapshot = daemon.snapshot(|snapshot| snapshot.session.settled()).await;
    assert_eq!((snapshot.session.state, snapshot.session.sessions), (SessionState::Online, 1));
    assert_eq!((snapshot.instance_id, snapshot.gpus.len()), (register.instance_id, 2));
    reading.abort();
}

#[tokio::test]
async fn nothing_is_settled_before_the_heartbeat_is_acknowledged() {
    let mut controller = Controller::start().await;
    let daemon = Daemon::start(&controller.url);
    let (peer, _) = controller.welcomed(30_000).await;
    // The controller reads nothing, so no ping is answered.
    let snapshot = daemon.snapshot(|snapshot| snapshot.session.state == SessionState::Online).await;
    assert!(!snapshot.session.settled() && snapshot.session.last_heartbeat_at.is_none());
    drop(peer);
}

#[tokio::test]
async fn the_pace_of_the_controller_is_obeyed_and_seq_counts_from_one() {
    let mut controller = Controller::start().await;
    let _daemon = Daemon::start(&controller.url);
    let (mut peer, _) = controller.welcomed(100).await;
    peer.heartbeat().await;
    let began = Instant::now();
    for seq in 2..=6 {
        assert_eq!(peer.heartbeat().await.seq, seq);
    }
    let taken = began.elapsed();
    assert!(taken >= Duration::from_millis(400) && taken < Duration::from_secs(5), "{taken:?}");
}

#[tokio::test]
async fn metrics_have_a_pace_of_their_own() {
    let mut controller = Controller::start().await;
    let _daemon = Daemon::start(&controller.url);
    let mut peer = controller.peer().await;
    peer.acknowledge_connection().await;
    peer.register().await;
    peer.pace(3_600_000, 100).await;
    let mut seen = 0;
    while seen < 2 {
        if let WorkerMessage::Metrics(metrics) = peer.message().await.message {
            assert_eq!((metrics.disk.len(), metrics.gpu.len(), metrics.memory_used), (1, 2, 1 << 33));
            seen += 1;
        }
    }
}

#[tokio::test]
async fn nothing_is_registered_before_the_connection_is_acknowledged() {
    for ack in ["connection.ack", "CONNECTION_ACK"] {
        let mut controller = Controller::start().await;
        let _daemon = Daemon::start(&controller.url);
        let mut peer = controller.peer().await;
        // A question about the state, before its time, is not answered; the acknowledgement of the
        // older generation is.
        peer.send(&StateRequest { reason: None }).await;
        peer.send_text(format!(r#"{{"type":"{ack}","status":"success","nodeId":"{NODE}"}}"#)).await;
        assert!(matches!(peer.message().await.message, WorkerMessage::Register(_)), "{ack}");
        peer.pace(30_000, 60_000).await;
        assert!(matches!(peer.message().await.message, WorkerMessage::Heartbeat(_)), "{ack}");
    }
}

#[tokio::test]
async fn a_request_for_the_state_is_answered_with_a_full_register() {
    let mut controller = Controller::start().await;
    let _daemon = Daemon::start(&controller.url);
    let (mut peer, first) = controller.welcomed(30_000).await;
    peer.send(&StateRequest { reason: Some("a gap".into()) }).await;
    assert_eq!(peer.register().await, first);
}

#[tokio::test]
async fn a_changed_inventory_is_registered_anew_in_the_same_session() {
    let mut controller = Controller::start().await;
    let daemon = Daemon::start(&controller.url);
    let (mut peer, first) = controller.welcomed(300).await;
    peer.heartbeat().await;
    *daemon.machine.gpus.lock().unwrap() = gpus(1);
    let second = peer.register().await;
    assert_eq!(second.instance_id, first.instance_id);
    assert_eq!(second.system_info.hardware.gpu.len(), 1);
}

#[tokio::test]
async fn what_the_worker_cannot_do_is_refused_in_words() {
    let mut controller = Controller::start().await;
    let _daemon = Daemon::start(&controller.url);
    let mut peer = controller.peer().await;
    peer.acknowledge_connection().await;
    peer.register().await;
    let waited = PendingCommand {
        message_id: Uuid::now_v7(),
        kind: "node.update".into(),
        data: serde_json::json!({}),
    };
    let ack = RegisterAck {
        heartbeat_interval: 30_000,
        metrics_interval: 60_000,
        pending_commands: vec![waited.clone()],
    };
    peer.send(&ack).await;
    let asked = peer.send(&NodeDrain { deadline_seconds: None }).await;
    for (id, kind) in [(waited.message_id, "node.update"), (asked, "node.drain")] {
        let WorkerMessage::CommandAck(ack) = peer.rare_message().await else { panic!("no answer") };
        assert_eq!((ack.original_message_id, ack.status), (id, CommandStatus::Rejected));
        let error = ack.error.unwrap();
        assert_eq!(error.code, "COMMAND_UNSUPPORTED");
        assert!(error.message.contains(kind));
    }
}

#[tokio::test]
async fn a_worker_that_is_stopped_says_goodbye_and_tells_systemd_first() {
    let mut controller = Controller::start().await;
    let mut daemon = Daemon::start(&controller.url);
    let (mut peer, _) = controller.welcomed(30_000).await;
    peer.heartbeat().await;
    let heard = daemon.heard.clone();
    daemon.ask_to_stop();
    let WorkerMessage::Disconnecting(goodbye) = peer.rare_message().await else { panic!("no goodbye") };
    assert_eq!(goodbye.reason, DisconnectReason::Shutdown);
    assert!(peer.next().await.is_none());
    daemon.ended().await;
    let words = heard.words();
    assert_eq!(words.first().map(String::as_str), Some("READY=1"));
    let at = |word: &str| words.iter().position(|other| other == word);
    assert!(at("STOPPING=1").is_some() && at("STOPPING=1") < at("STATUS=Stopping"), "{words:?}");
    assert!(words.iter().any(|word| word.starts_with("STATUS=Online at ws://")), "{words:?}");
}

#[tokio::test]
async fn a_driver_that_hangs_delays_no_heartbeat_and_does_not_keep_the_daemon_from_ending() {
    let mut controller = Controller::start().await;
    let mut daemon = Daemon::start(&controller.url);
    let machine = daemon.machine.clone();
    let (mut peer, _) = controller.welcomed(200).await;
    peer.heartbeat().await;
    machine.hang(true);
    let (mut beat, mut register) = (None, None);
    let mut last = Instant::now();
    while beat.is_none() || register.is_none() {
        match peer.message().await.message {
            WorkerMessage::Heartbeat(heartbeat) => {
                assert!(
                    last.elapsed() < Duration::from_secs(2),
                    "{:?} after the last heartbeat",
                    last.elapsed()
                );
                last = Instant::now();
                beat = (heartbeat.health.state == Health::Unknown).then_some(heartbeat);
            }
            WorkerMessage::Register(news) => register = Some(news.system_info.hardware),
            _ => {}
        }
    }
    let (beat, hardware) = (beat.unwrap(), register.unwrap());
    assert_eq!((beat.gpu_status.len(), hardware.gpu.len()), (2, 2));
    assert!(beat.health.worst.unwrap().contains("driver not answering"));
    assert_eq!(hardware.gpu_driver.state, GpuDriverState::Unknown);
    let asked = Instant::now();
    daemon.ask_to_stop();
    while peer.next().await.is_some() {}
    daemon.ended().await;
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    machine.hang(false);
}

#[tokio::test]
async fn the_watchdog_hears_at_half_its_time() {
    let controller = Controller::start().await;
    let watchdog = Duration::from_millis(200);
    let daemon = Daemon::with(&controller.url, Default::default(), Some(watchdog));
    let began = Instant::now();
    let barks = || daemon.heard.words().iter().filter(|word| *word == "WATCHDOG=1").count();
    while barks() < 6 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(began.elapsed() < Duration::from_secs(10));
    }
    // Six, the first of them at once, are five halves.
    assert!(began.elapsed() >= Duration::from_millis(450), "{:?}", began.elapsed());
}
