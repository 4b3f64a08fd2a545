//! Peers that a gateway must bear: slow, silent, half-open, flooding, lying and malformed ones.
//! Each is closed with the code that says why, or answered, and none of them moves a node that it
//! should not.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    harness::{Client, Controller},
    peers::Worker,
};

const SHORT_LEASE: Duration = Duration::from_millis(900);

async fn welcomed(controller: &Controller) -> (Client, Worker) {
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    let worker = Worker::welcomed(&controller.gateway(), &id, &token).await;
    (owner, worker)
}

async fn short_lease() -> Controller {
    Controller::start_with(|config| config.heartbeat_timeout = SHORT_LEASE).await
}

#[tokio::test]
async fn a_peer_that_sends_a_frame_too_slowly_is_as_good_as_silent() {
    let controller = short_lease().await;
    let (owner, worker) = welcomed(&controller).await;
    let id = worker.node.clone();
    let mut raw = worker.bare();
    // A masked text frame of 100 bytes, a byte at a time.
    let mut frame = vec![0x81, 0x80 | 100, 0, 0, 0, 0];
    frame.extend([b' '; 100]);
    let drip = async {
        for byte in frame {
            if raw.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = drip => {}
        _ = owner.await_status(&id, "offline") => {}
    }
}

#[tokio::test]
async fn pings_and_pongs_are_no_sign_of_life() {
    let controller = short_lease().await;
    let (owner, mut worker) = welcomed(&controller).await;
    let id = worker.node.clone();
    let chatter = async {
        loop {
            let _ = worker.send_raw(Message::Ping(vec![1].into())).await;
            let _ = worker.send_raw(Message::Pong(vec![1].into())).await;
            tokio::time::sleep(SHORT_LEASE / 5).await;
        }
    };
    tokio::select! {
        () = chatter => {}
        _ = owner.await_status(&id, "offline") => {}
    }
}

#[tokio::test]
async fn a_half_open_connection_ends_with_the_lease_and_its_worker_may_return_at_any_time() {
    let controller = short_lease().await;
    let (owner, silent) = welcomed(&controller).await;
    let (id, token) = (silent.node.clone(), owner.token_of(&silent.node).await);
    // Neither reads, nor writes, nor closes, as a machine without power.
    let _held = silent.bare();
    let mut back = Worker::welcomed(&controller.gateway(), &id, &token).await;
    back.heartbeat(1).await;
    assert!(back.ping().await.is_empty());
    assert_eq!(owner.node(&id).await["status"], "online");
    let _held_too = back.bare();
    let node = owner.await_status(&id, "offline").await;
    assert_eq!(node["websocketConnected"], false);
}

#[tokio::test]
async fn a_peer_that_never_reads_does_not_keep_the_others_waiting() {
    let controller = Controller::start().await;
    let (owner, deaf) = welcomed(&controller).await;
    let mut raw = deaf.bare();
    // Every unknown type is answered, and the answers are never read.
    let frame = json!({"type": "node.dance", "messageId": uuid::Uuid::nil(), "data": {"x": "y".repeat(50)}})
        .to_string();
    let flood = async {
        loop {
            if raw.write_all(&masked(0x1, frame.as_bytes())).await.is_err() {
                break;
            }
        }
    };
    let others = async {
        let id = owner.add_node("other").await;
        let token = owner.token_of(&id).await;
        let mut worker = Worker::welcomed(&controller.gateway(), &id, &token).await;
        for seq in 1..=20 {
            worker.heartbeat(seq).await;
            assert!(worker.ping().await.is_empty());
        }
    };
    tokio::join!(others, flood);
}

#[tokio::test]
async fn a_flood_of_messages_is_closed_with_4429() {
    let controller = Controller::start().await;
    let (owner, mut worker) = welcomed(&controller).await;
    let beat =
        |seq| json!({"type": "telemetry.heartbeat", "data": {"nodeId": worker.node, "seq": seq}}).to_string();
    let beats: Vec<_> = (1..=200).map(beat).collect();
    for beat in beats {
        if worker.send_raw(Message::text(beat)).await.is_err() {
            break;
        }
    }
    assert_eq!(worker.closed().await, 4429);
    assert_eq!(owner.node(&worker.node).await["status"], "online", "a flood is no goodbye");
}

#[tokio::test]
async fn a_flood_of_registrations_is_closed_before_it_wears_the_database() {
    let controller = Controller::start().await;
    let (_, mut worker) = welcomed(&controller).await;
    for _ in 0..30 {
        worker.register().await;
    }
    assert_eq!(worker.closed().await, 4429);
}

#[tokio::test]
async fn a_flood_of_pings_is_closed_with_4429() {
    let controller = Controller::start().await;
    let (_, mut worker) = welcomed(&controller).await;
    for _ in 0..300 {
        if worker.send_raw(Message::Ping(vec![7].into())).await.is_err() {
            break;
        }
    }
    assert_eq!(worker.closed().await, 4429);
}

#[tokio::test]
async fn a_workers_own_view_of_its_status_never_overrules_an_admins() {
    let controller = Controller::start().await;
    let (owner, mut worker) = welcomed(&controller).await;
    controller.sql("UPDATE nodes SET status = 'maintenance', version = version + 1").await;
    for (seq, status) in [(1, "online"), (2, "draining"), (3, "offline"), (4, "root")] {
        let data = json!({"seq": seq, "status": status, "health": {"state": "ok"}});
        worker.send("telemetry.heartbeat", data).await;
    }
    worker.register().await;
    worker.receive("register.ack").await;
    assert!(worker.ping().await.is_empty());
    let node = owner.node(&worker.node).await;
    assert_eq!((&node["status"], &node["websocketConnected"]), (&json!("maintenance"), &json!(true)));
}

#[tokio::test]
async fn a_heartbeat_that_goes_back_asks_for_the_state_and_moves_no_time_back() {
    let controller = Controller::start().await;
    let (owner, mut worker) = welcomed(&controller).await;
    worker.heartbeat(1).await;
    worker.heartbeat(u64::MAX).await;
    worker.receive("state.request").await;
    let seen = owner.node(&worker.node).await["lastSeenAt"].clone();
    // There is no number after the largest; one comes again, and an old one too.
    worker.heartbeat(u64::MAX).await;
    worker.heartbeat(1).await;
    worker.receive("state.request").await;
    assert!(worker.ping().await.is_empty());
    assert!(owner.node(&worker.node).await["lastSeenAt"].as_str() >= seen.as_str());
}

#[tokio::test]
async fn absurd_numbers_neither_end_the_connection_nor_the_controller() {
    let controller = Controller::start().await;
    let (owner, mut worker) = welcomed(&controller).await;
    let id = worker.node.clone();
    let beat =
        |rest: &str| format!(r#"{{"type":"telemetry.heartbeat","data":{{"nodeId":"{id}","seq":1,{rest}}}}}"#);
    for rest in [
        r#""cpuUsage":1e308"#,
        r#""cpuUsage":-7,"uptimeSeconds":18446744073709551615"#,
        r#""activeDeployments":99999999999"#,
    ] {
        worker.send_text(beat(rest)).await;
    }
    let far = json!({"type": "telemetry.metrics", "timestamp": "9999-12-30T00:00:00Z", "data": {"nodeId": id, "memoryUsed": u64::MAX}});
    worker.send_text(far.to_string()).await;
    worker.ping().await;
    let node = owner.node(&id).await;
    assert_eq!(node["status"], "online");
    assert!(node["lastSeenAt"].as_str().unwrap() < "9999", "a worker's clock is not ours: {node}");
    for seq in ["-1", "1.5", "18446744073709551616", "\"1\""] {
        let mut worker = Worker::welcomed(&controller.gateway(), &id, &owner.token_of(&id).await).await;
        worker
            .send_text(format!(r#"{{"type":"telemetry.heartbeat","data":{{"nodeId":"{id}","seq":{seq}}}}}"#))
            .await;
        assert_eq!(worker.closed().await, 4400, "{seq}");
    }
}

#[tokio::test]
async fn json_without_end_is_malformed() {
    let controller = Controller::start().await;
    let (_, mut worker) = welcomed(&controller).await;
    let deep = "[".repeat(60_000);
    worker.send_text(format!(r#"{{"type":"node.register","data":{deep}"#)).await;
    assert_eq!(worker.closed().await, 4400);
}

#[tokio::test]
async fn text_that_is_no_utf8_ends_the_connection_and_no_other() {
    let controller = Controller::start().await;
    let (owner, worker) = welcomed(&controller).await;
    let id = worker.node.clone();
    let mut raw = worker.bare();
    raw.write_all(&masked(0x1, &[0xff, 0xfe, 0x80])).await.unwrap();
    assert_eq!(close_code(&mut raw).await, Some(1007));
    owner.await_connected(&id, false).await;
    assert_eq!(owner.node(&id).await["status"], "online");
}

#[tokio::test]
async fn frames_that_no_client_may_send_end_the_connection() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    let mut unmasked = vec![0x81, 2];
    unmasked.extend(b"{}");
    let with_first = |first: u8, payload: &[u8]| {
        let mut frame = masked(0x9, payload);
        frame[0] = first;
        frame
    };
    let mut interrupted = with_first(0x01, b"begins");
    interrupted.extend(masked(0x1, b"another"));
    for (bytes, code) in [
        (unmasked, 1002),
        (masked(0x3, b"reserved opcode"), 1002),
        (masked(0x0, b"continues nothing"), 1002),
        (with_first(0x09, b"a ping in pieces"), 1002),
        (with_first(0xc1, b"compressed"), 1002),
        (masked(0x9, &[0; 126]), 1002),
        (interrupted, 1002),
        (masked(0x8, b"x"), 1002),
        (masked(0x8, &999_u16.to_be_bytes()), 1002),
        (masked(0x8, &[0x03, 0xe8, 0xff]), 1007),
        (masked(0x8, &1000_u16.to_be_bytes()), 1000),
        (masked(0x8, &4321_u16.to_be_bytes()), 4321),
    ] {
        let worker = Worker::welcomed(&controller.gateway(), &id, &token).await;
        let mut raw = worker.bare();
        raw.write_all(&bytes).await.unwrap();
        assert_eq!(close_code(&mut raw).await, Some(code), "{bytes:?}");
        owner.await_connected(&id, false).await;
    }
}

#[tokio::test]
async fn frames_that_the_library_never_shows_count_as_well() {
    let controller = Controller::start().await;
    let (owner, worker) = welcomed(&controller).await;
    let id = worker.node.clone();
    let mut begun = masked(0x1, b"{");
    begun[0] = 0x01;
    let mut empty = masked(0x0, b"");
    empty[0] = 0x00;
    let mut raw = worker.bare();
    raw.write_all(&begun).await.unwrap();
    let (mut reader, mut writer) = raw.split();
    let many = empty.repeat(1000);
    let flood = async {
        let mut sent = 0_u64;
        while sent < 50_000_000 && writer.write_all(&many).await.is_ok() {
            sent += many.len() as u64;
        }
        sent
    };
    let closed = async { close_code(&mut reader).await };
    let (sent, code) = tokio::join!(flood, closed);
    assert_eq!(code, Some(4429));
    assert!(sent < 50_000_000, "the flood was read to its end");
    owner.await_connected(&id, false).await;
}

#[tokio::test]
async fn a_close_is_answered_with_its_own_code_and_then_the_connection_ends() {
    let controller = Controller::start().await;
    let (_, worker) = welcomed(&controller).await;
    let mut raw = worker.bare();
    raw.write_all(&masked(0x8, &[0x03, 0xe9, b'b', b'y', b'e'])).await.unwrap();
    assert_eq!(close_code(&mut raw).await, Some(1001));
}

#[tokio::test]
async fn a_message_in_a_thousand_pieces_is_one_message_and_no_larger_than_any_other() {
    let controller = Controller::start().await;
    let (_, worker) = welcomed(&controller).await;
    let mut raw = worker.bare();
    let mut bytes = masked(0x1, &[b' '; 1000]);
    bytes[0] = 0x01;
    for _ in 0..70 {
        let mut piece = masked(0x0, &[b' '; 1000]);
        piece[0] = 0x00;
        bytes.extend(piece);
    }
    let _ = raw.write_all(&bytes).await;
    assert_eq!(close_code(&mut raw).await, Some(1009));
}

#[tokio::test]
async fn who_says_goodbye_and_stays_is_closed() {
    let controller = Controller::start().await;
    let (owner, mut worker) = welcomed(&controller).await;
    worker.send("node.disconnecting", json!({"reason": "shutdown"})).await;
    owner.await_status(&worker.node, "offline").await;
    assert_eq!(worker.closed().await, 4408);
}

#[tokio::test]
async fn words_of_a_worker_are_cleaned_and_cut_before_they_are_stored() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    let report = json!({"phase": "failed", "step": "fetch\u{202e}_release\n", "error":
        {"code": "DISK\u{200b}_FULL", "message": "no room\nroot: ok\u{1b}[31m", "details": {"log": "a\u{202e}b"}}});
    let reports = format!("/nodes/{id}/installation");
    for report in [json!({"phase": "started"}), report] {
        let (status, answer) = controller.bearer(&token).post(&reports, report).await;
        assert_eq!(status, 200, "{answer}");
    }
    let installation = owner.node(&id).await["installation"].clone();
    assert_eq!(installation["step"], "fetch_release");
    let error = json!({"code": "DISK_FULL", "message": "no room root: ok[31m", "details": {"log": "ab"}});
    assert_eq!(installation["error"], error);

    let mut worker = Worker::connect(&controller.gateway(), &id, &token).await;
    let info =
        json!({"os": {"name": "Debian", "version": "12", "kernel": "6", "hostname": "h".repeat(60_000)}});
    let register = json!({"instanceId": uuid::Uuid::nil(), "bootId": "b", "daemonVersion": "1.0.0\nroot\u{202e}", "systemInfo": info});
    worker.send("node.register", register).await;
    worker.receive("register.ack").await;
    let node = owner.node(&id).await;
    assert_eq!(node["daemonVersion"], "1.0.0 root");
    assert_eq!(node["systemInfo"]["os"]["hostname"].as_str().map(str::len), Some(255));
}

/// Reads to the end, and says the code of the close frame that came last.
pub(crate) async fn close_code(reader: &mut (impl AsyncRead + Unpin)) -> Option<u16> {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), reader.read_to_end(&mut bytes)).await;
    read.expect("the connection ends in time").expect("it is no reset");
    let (mut code, mut rest) = (None, &bytes[..]);
    while let [first, length, after @ ..] = rest {
        let (length, after) = match length {
            126 => (usize::from(u16::from_be_bytes([after[0], after[1]])), &after[2..]),
            length => (usize::from(*length), after),
        };
        if *first == 0x88 {
            code = Some(u16::from_be_bytes([after[0], after[1]]));
        }
        rest = &after[length..];
    }
    code
}

/// A whole frame of a client, masked with zeros. The payload is shorter than 64 KiB.
pub(crate) fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match u8::try_from(payload.len()) {
        Ok(len @ ..126) => frame.push(0x80 | len),
        _ => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}
