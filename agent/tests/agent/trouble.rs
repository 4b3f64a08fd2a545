//! Everything that can go wrong between worker and controller, and what becomes of it.

use std::time::{Duration, Instant};

use aio_protocol::{
    snapshot::SessionState,
    wire::{WorkerMessage, close},
};
use aio_worker::session::machine::Timings;

use super::{
    controller::{Controller, PATIENCE, Refusal},
    daemon::{Daemon, token},
};

#[tokio::test]
async fn a_dropped_connection_is_made_again_and_seq_begins_anew() {
    let mut controller = Controller::start().await;
    let daemon = Daemon::start(&controller.url);
    let (mut peer, first) = controller.welcomed(100).await;
    while peer.heartbeat().await.seq < 2 {}
    drop(peer);
    let (mut peer, second) = controller.welcomed(100).await;
    assert_eq!(first.instance_id, second.instance_id);
    assert_eq!(peer.heartbeat().await.seq, 1);
    let reading = tokio::spawn(async move { while peer.next().await.is_some() {} });
    let snapshot =
        daemon.snapshot(|snapshot| snapshot.session.settled() && snapshot.session.sessions == 2).await;
    assert_eq!(snapshot.session.code, None);
    reading.abort();
}

#[tokio::test]
async fn a_controller_that_restarts_is_met_again_soon() {
    let mut controller = Controller::start().await;
    let _daemon = Daemon::start(&controller.url);
    let (mut peer, _) = controller.welcomed(30_000).await;
    peer.heartbeat().await;
    controller.attempt().await;
    let closed = Instant::now();
    peer.close(close::RESTART, "deploy").await;
    let again = controller.attempt().await.at - closed;
    assert!(again < Duration::from_secs(5), "{again:?}");
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    let mut controller = Controller::start().await;
    controller.refuse([
        Refusal { status: 503, retry_after: Some("2"), code: "CONTROLLER_ERROR" },
        Refusal { status: 429, retry_after: Some("1"), code: "RATE_LIMITED" },
    ]);
    let _daemon = Daemon::start(&controller.url);
    let first = controller.attempt().await.at;
    let second = controller.attempt().await.at;
    let third = controller.attempt().await.at;
    let (after_503, after_429) = (second - first, third - second);
    assert!(after_503 >= Duration::from_secs(2) && after_503 < Duration::from_secs(6), "{after_503:?}");
    assert!(after_429 >= Duration::from_secs(1) && after_429 < Duration::from_secs(5), "{after_429:?}");
    controller.welcomed(30_000).await;
}

#[tokio::test]
async fn a_refused_token_keeps_the_process_alive_and_a_new_file_is_used_at_once() {
    for (status, code) in [(401, "TOKEN_REVOKED"), (403, "TOKEN_FOREIGN"), (404, "NODE_NOT_FOUND")] {
        let mut controller = Controller::start().await;
        controller.refuse([Refusal { status, retry_after: None, code }]);
        let daemon = Daemon::start(&controller.url);
        let first = controller.attempt().await;
        assert_eq!(first.authorization, format!("Bearer {}", token(&controller.url, "first")));
        let snapshot = daemon.snapshot(|snapshot| snapshot.session.code.is_some()).await;
        assert_eq!(snapshot.session.code.as_deref(), Some(code));
        assert_eq!(snapshot.session.state, SessionState::Waiting);
        assert!(snapshot.session.detail.contains("said in words"), "{}", snapshot.session.detail);
        let cure = aio_protocol::error_code::ErrorCode::parse(code).unwrap().cure();
        assert!(snapshot.session.detail.ends_with(cure), "{}", snapshot.session.detail);
        let status =
            format!("STATUS={}", snapshot.session.detail.replacen("the controller", "The controller", 1));
        assert!(daemon.heard.words().contains(&status), "{:?}", daemon.heard.words());
        assert!(daemon.alive());
        // Half a file, and a token of nobody, are not tried.
        daemon.replace_token("e30");
        let second = token(&controller.url, "second");
        daemon.replace_token(&second);
        assert_eq!(controller.attempt().await.authorization, format!("Bearer {second}"));
        controller.welcomed(30_000).await;
    }
}

#[tokio::test]
async fn a_worker_that_lost_its_place_says_so_and_does_not_fight_for_it() {
    let mut controller = Controller::start().await;
    let daemon = Daemon::start(&controller.url);
    let (mut peer, _) = controller.welcomed(30_000).await;
    peer.heartbeat().await;
    controller.attempt().await;
    peer.close(close::SUPERSEDED, "").await;
    let snapshot = daemon.snapshot(|snapshot| snapshot.session.code.is_some()).await;
    assert_eq!(snapshot.session.code.as_deref(), Some("NODE_SUPERSEDED"));
    assert!(snapshot.session.detail.contains("another worker"), "{}", snapshot.session.detail);
    let soon = tokio::time::timeout(Duration::from_secs(3), controller.attempt()).await;
    assert!(soon.is_err(), "it dialled again within 3 s");
    assert!(daemon.alive());
}

#[tokio::test]
async fn a_token_that_ended_in_mid_session_asks_for_a_person() {
    let mut controller = Controller::start().await;
    let daemon = Daemon::start(&controller.url);
    let (mut peer, _) = controller.welcomed(30_000).await;
    peer.heartbeat().await;
    peer.close(close::TOKEN_ENDED, "TOKEN_EXPIRED").await;
    let snapshot = daemon.snapshot(|snapshot| snapshot.session.code.is_some()).await;
    assert_eq!(snapshot.session.code.as_deref(), Some("TOKEN_EXPIRED"));
}

#[tokio::test]
async fn frames_that_nobody_understands_change_nothing() {
    let mut controller = Controller::start().await;
    let daemon = Daemon::start(&controller.url);
    let (mut peer, _) = controller.welcomed(100).await;
    peer.heartbeat().await;
    for text in [
        r#"{"type":"node.dance","messageId":"01890a5d-ac96-774b-bcce-b302099a8057","data":{}}"#,
        r#"{"type":"register.ack","data":{"heartbeatInterval":"soon"}}"#,
        r#"{"type":"error","data":{"code":2001,"message":"what?"}}"#,
        "not json",
        "",
    ] {
        peer.send_text(text).await;
    }
    let seq = peer.heartbeat().await.seq;
    assert!(peer.heartbeat().await.seq > seq);
    assert_eq!(daemon.snapshot(|_| true).await.session.sessions, 1);
}

#[tokio::test]
async fn a_frame_beyond_the_limit_ends_the_connection_and_not_the_worker() {
    let mut controller = Controller::start().await;
    let _daemon = Daemon::start(&controller.url);
    let (mut peer, _) = controller.welcomed(30_000).await;
    peer.heartbeat().await;
    peer.send_text("x".repeat(65 * 1024)).await;
    controller.welcomed(30_000).await;
}

#[tokio::test]
async fn a_connection_that_is_only_half_there_is_made_again() {
    let mut controller = Controller::start().await;
    let timings = Timings { pong: Duration::from_millis(300), ..Timings::default() };
    let daemon = Daemon::with(&controller.url, timings, None);
    // Its socket stays open and nobody reads it: no pong will come.
    let (deaf, _) = controller.welcomed(30_000).await;
    let (mut peer, _) = controller.welcomed(30_000).await;
    let reading = tokio::spawn(async move { while peer.next().await.is_some() {} });
    daemon.snapshot(|snapshot| snapshot.session.sessions == 2 && snapshot.session.settled()).await;
    drop(deaf);
    reading.abort();
}

#[tokio::test]
async fn a_controller_that_never_welcomes_is_left_and_tried_again() {
    let mut controller = Controller::start().await;
    let timings = Timings { welcome: Duration::from_millis(200), ..Timings::default() };
    let _daemon = Daemon::with(&controller.url, timings, None);
    let mut silent = controller.peer().await;
    silent.acknowledge_connection().await;
    assert!(matches!(silent.message().await.message, WorkerMessage::Register(_)));
    controller.welcomed(30_000).await;
}

#[tokio::test]
async fn who_answers_nothing_at_all_is_left_and_tried_again() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let timings = Timings { connect: Duration::from_millis(200), ..Timings::default() };
    let daemon = Daemon::with(&format!("ws://{}/ws/node", listener.local_addr().unwrap()), timings, None);
    let first = listener.accept().await.unwrap();
    let second = listener.accept().await.unwrap();
    let snapshot = daemon.snapshot(|snapshot| snapshot.session.code.is_some()).await;
    assert_eq!(snapshot.session.code.as_deref(), Some("CONTROLLER_UNREACHABLE"));
    drop((first, second));
}

#[tokio::test]
async fn what_is_no_controller_is_named_as_such() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let daemon = Daemon::start(&format!("ws://{}/ws/node", listener.local_addr().unwrap()));
    let (mut stream, _) = listener.accept().await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"SSH-2.0-OpenSSH_9.2\r\n\r\n").await.unwrap();
    let snapshot = daemon.snapshot(|snapshot| snapshot.session.code.is_some()).await;
    assert_eq!(snapshot.session.code.as_deref(), Some("CONTROLLER_INVALID"), "{}", snapshot.session.detail);
}

#[tokio::test]
async fn an_unreachable_controller_does_not_keep_the_daemon_from_ending() {
    let mut daemon = Daemon::start("ws://127.0.0.1:1/ws/node");
    let snapshot = daemon.snapshot(|snapshot| snapshot.session.code.is_some()).await;
    assert_eq!(snapshot.session.code.as_deref(), Some("CONTROLLER_UNREACHABLE"));
    let asked = Instant::now();
    daemon.ask_to_stop();
    daemon.ended().await;
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_controller_that_went_deaf_does_not_keep_the_daemon_from_ending() {
    let mut controller = Controller::start().await;
    let mut daemon = Daemon::start(&controller.url);
    let (deaf, _) = controller.welcomed(30_000).await;
    daemon.snapshot(|snapshot| snapshot.session.state == SessionState::Online).await;
    let asked = Instant::now();
    daemon.ask_to_stop();
    daemon.ended().await;
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    drop(deaf);
}

#[tokio::test]
async fn a_redirect_is_told_as_what_it_is_and_the_token_is_not_taken_there() {
    let mut elsewhere = Controller::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let daemon = Daemon::start(&format!("ws://{}/ws/node", listener.local_addr().unwrap()));
    let (mut stream, _) = listener.accept().await.unwrap();
    let answer = format!(
        "HTTP/1.1 308 Permanent Redirect\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n",
        elsewhere.url
    );
    tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes()).await.unwrap();
    let snapshot = daemon.snapshot(|snapshot| snapshot.session.code.is_some()).await;
    assert_eq!(snapshot.session.code.as_deref(), Some("CONTROLLER_INVALID"));
    for word in ["308", &elsewhere.url] {
        assert!(snapshot.session.detail.contains(word), "{}", snapshot.session.detail);
    }
    let followed = tokio::time::timeout(Duration::from_secs(1), elsewhere.attempt()).await;
    assert!(followed.is_err(), "the token was shown to whom an answer named");
}

#[tokio::test]
async fn a_controller_that_moved_is_found_where_a_new_token_says() {
    let mut before = Controller::start().await;
    let mut after = Controller::start().await;
    let daemon = Daemon::start(&before.url);
    let (mut peer, first) = before.welcomed(30_000).await;
    peer.heartbeat().await;
    peer.close(close::TOKEN_ENDED, "TOKEN_REVOKED").await;
    daemon.snapshot(|snapshot| snapshot.session.code.as_deref() == Some("TOKEN_REVOKED")).await;
    let moved = token(&after.url, "moved");
    daemon.replace_token(&moved);
    let (mut peer, second) = after.welcomed(30_000).await;
    assert_eq!(peer.heartbeat().await.seq, 1);
    assert_eq!(after.attempt().await.authorization, format!("Bearer {moved}"));
    assert_eq!(first.instance_id, second.instance_id, "it is the same process");
    let snapshot = daemon.snapshot(|snapshot| snapshot.session.state == SessionState::Online).await;
    assert_eq!((&snapshot.controller, snapshot.session.code), (&after.url, None));
}

#[tokio::test]
async fn a_token_file_that_hangs_holds_up_neither_the_watchdog_nor_the_end() {
    let mut controller = Controller::start().await;
    let mut daemon = Daemon::with(&controller.url, Timings::default(), Some(Duration::from_millis(100)));
    let (peer, _) = controller.welcomed(30_000).await;
    // Whoever opens a pipe waits until somebody writes.
    let pipe = daemon.token_path();
    std::fs::remove_file(&pipe).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    peer.close(1012, "").await;
    daemon.snapshot(|snapshot| snapshot.session.state == SessionState::Connecting).await;
    let told = |daemon: &Daemon| daemon.heard.words().iter().filter(|word| *word == "WATCHDOG=1").count();
    let before = told(&daemon);
    let loop_turns = async {
        while told(&daemon) < before + 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, loop_turns).await.expect("the loop stands still");
    daemon.ask_to_stop();
    daemon.ended().await;
    // The thread that waits for the pipe is to end with this test.
    drop(std::fs::OpenOptions::new().write(true).open(&pipe));
}
