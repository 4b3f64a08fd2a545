//! From a controller's offer to the switch, and from the switch to the end of the probation, against
//! a root that does what a test says.

use std::{fs, path::PathBuf, sync::Arc};

use aio_protocol::{
    telemetry::Health,
    update::{ManagedBy, RootAnswer, RootPhase, RootRequest, UPDATE_CAPABILITY, UpdateState},
    wire::{
        Body, CommandStatus, DisconnectReason, PendingCommand, Register, RegisterAck, UpdateCancel,
        UpdatePermit, WorkerMessage, close,
    },
};
use aio_worker::session::machine::Timings;
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixListener,
    time::timeout,
};
use uuid::Uuid;

use super::{
    binary::{program, run},
    controller::{Controller, PATIENCE, Peer},
    daemon::{Daemon, folder_with, token},
    releases::{Releases, UPDATE, VERSION},
};

/// Root's socket and status.
struct Root {
    listener: UnixListener,
    folder: Arc<TempDir>,
}

impl Root {
    /// On a node that takes updates by itself.
    fn of_node(controller: &Controller, updates: &str) -> Self {
        let folder = folder_with(&token(&controller.url, "first"));
        fs::create_dir_all(folder.path().join("run")).unwrap();
        fs::write(folder.path().join("config.toml"), format!("[updates]\n{updates}\n")).unwrap();
        let listener = UnixListener::bind(folder.path().join("run/aio-worker-update.sock")).unwrap();
        Self { listener, folder }
    }

    fn daemon(&self) -> Daemon {
        Daemon::on(&self.folder, Timings::default(), None)
    }

    /// The next request, answered.
    async fn answers(&self, answer: &RootAnswer) -> RootRequest {
        let answering = async {
            let (stream, _) = self.listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            let said = serde_json::to_string(answer).unwrap() + "\n";
            stream.write_all(said.as_bytes()).await.unwrap();
            serde_json::from_str(&line).unwrap()
        };
        timeout(PATIENCE, answering).await.expect("nobody asked root")
    }

    /// Says how it stands, as root does: in one step.
    fn says(&self, status: &serde_json::Value) {
        let path = self.folder.path().join("var/lib/aio-worker-update/status.json");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let fresh = path.with_extension("new");
        fs::write(&fresh, status.to_string()).unwrap();
        fs::rename(fresh, path).unwrap();
    }

    fn inbox(&self) -> PathBuf {
        self.folder.path().join("state/update")
    }
}

/// The next registration that says this of the update.
async fn registered(peer: &mut Peer, state: UpdateState) -> Register {
    peer.until(|message| match message {
        WorkerMessage::Register(register) if register.update.state == state => Some(register),
        _ => None,
    })
    .await
}

async fn answer(peer: &mut Peer) -> (CommandStatus, Option<String>) {
    peer.until(|message| match message {
        WorkerMessage::CommandAck(ack) => Some((ack.status, ack.error.map(|error| error.code))),
        _ => None,
    })
    .await
}

/// Welcomes the worker with something that waited for it.
async fn welcome_with<B: Body>(peer: &mut Peer, waited: &B) -> Register {
    peer.acknowledge_connection().await;
    let register = peer.register().await;
    let data = serde_json::to_value(waited).unwrap();
    let waited = PendingCommand { message_id: Uuid::now_v7(), kind: B::TYPE.into(), data };
    let ack = RegisterAck {
        heartbeat_interval: 5_000,
        metrics_interval: 3_600_000,
        pending_commands: vec![waited],
    };
    peer.send(&ack).await;
    register
}

#[tokio::test]
async fn an_offer_becomes_the_version_that_runs() {
    let (mut controller, releases) = (Controller::start().await, Releases::start().await);
    let root = Root::of_node(&controller, "mode = \"auto\"");
    let mut daemon = root.daemon();
    let (mut peer, register) = controller.welcomed(3_600_000).await;
    assert_eq!(register.capabilities, [UPDATE_CAPABILITY]);
    assert_eq!(register.update.managed_by, ManagedBy::Controller);

    peer.send(&releases.offer()).await;
    assert_eq!(answer(&mut peer).await, (CommandStatus::Accepted, None));
    let asked = root.answers(&RootAnswer::Staged).await;
    let RootRequest::Stage { update_id, manifest_sha256, .. } = asked else { panic!("{asked:?}") };
    assert_eq!((update_id, Some(manifest_sha256)), (UPDATE, releases.offer().manifest_sha256));
    assert!(root.inbox().join(UPDATE.to_string()).join("index.json.minisig").exists());

    let awaiting = registered(&mut peer, UpdateState::Awaiting).await.update;
    assert_eq!((awaiting.update_id, awaiting.target), (Some(UPDATE), Some(VERSION.parse().unwrap())));
    peer.send(&UpdatePermit { update_id: UPDATE, seconds: 300 }).await;
    // The answer to the heartbeat's ping is on its way before anything else is read.
    let (asked, ()) = tokio::join!(root.answers(&RootAnswer::Switching), async {
        registered(&mut peer, UpdateState::Switching).await;
    });
    assert_eq!(asked, RootRequest::Switch { update_id: UPDATE });
    daemon.snapshot(|snapshot| snapshot.update.state == UpdateState::Switching).await;
    daemon.ask_to_stop();
    let goodbye = peer
        .until(|message| match message {
            WorkerMessage::Disconnecting(goodbye) => Some(goodbye),
            _ => None,
        })
        .await;
    assert_eq!((goodbye.reason, goodbye.expected_back_seconds), (DisconnectReason::Update, Some(30)));
    assert!(peer.next().await.is_none());
    daemon.ended().await;

    let status = |phase: &str| json!({ "phase": phase, "updateId": UPDATE, "version": VERSION });
    root.says(&status("proving"));
    // Its GPU driver takes its time, and nobody is told that the GPUs are gone.
    let _next = Daemon::hanging_on(&root.folder);
    let (mut peer, register) = controller.welcomed(3_600_000).await;
    assert_eq!((register.update.state, register.update.update_id), (UpdateState::Proving, Some(UPDATE)));
    assert_eq!(register.system_info.hardware.gpu.len(), 2);
    assert!(!register.boot_id.is_empty());
    let beat = peer.heartbeat().await;
    assert_eq!((beat.gpu_status.len(), beat.health.state), (2, Health::Ok));
    root.says(&status("probation"));
    registered(&mut peer, UpdateState::Probation).await;
    root.says(&json!({ "indexSerial": 3, "last": {
        "updateId": UPDATE, "from": "v1.0.0", "version": VERSION, "verdict": "succeeded",
        "at": "2027-01-01T00:00:00Z",
    }}));
    let update = registered(&mut peer, UpdateState::Idle).await.update;
    let last = update.last.unwrap();
    assert_eq!((last.update_id, last.verdict), (UPDATE, aio_protocol::update::Verdict::Succeeded));
    assert_eq!(update.index_serial, Some(3));
}

#[tokio::test]
async fn an_offer_that_waited_for_the_worker_is_taken_when_it_is_welcomed() {
    let (mut controller, releases) = (Controller::start().await, Releases::start().await);
    let root = Root::of_node(&controller, "mode = \"auto\"");
    let _daemon = root.daemon();
    let mut peer = controller.peer().await;
    welcome_with(&mut peer, &releases.offer()).await;
    assert_eq!(answer(&mut peer).await, (CommandStatus::Accepted, None));
    assert!(matches!(root.answers(&RootAnswer::Staged).await, RootRequest::Stage { .. }));
}

#[tokio::test]
async fn a_permit_and_a_cancellation_that_waited_for_the_worker_are_obeyed_when_it_is_back() {
    let (mut controller, releases) = (Controller::start().await, Releases::start().await);
    let root = Root::of_node(&controller, "mode = \"auto\"");
    let _daemon = root.daemon();
    let prepare = async |peer: &mut Peer| {
        peer.send(&releases.offer()).await;
        assert!(matches!(root.answers(&RootAnswer::Staged).await, RootRequest::Stage { .. }));
        registered(peer, UpdateState::Awaiting).await;
    };
    let (mut peer, _) = controller.welcomed(3_600_000).await;
    prepare(&mut peer).await;
    peer.close(close::RESTART, "").await;

    let mut peer = controller.peer().await;
    let register = welcome_with(&mut peer, &UpdateCancel { update_id: UPDATE, reason: None }).await;
    assert_eq!(register.update.state, UpdateState::Awaiting);
    assert_eq!(answer(&mut peer).await, (CommandStatus::Accepted, None));
    registered(&mut peer, UpdateState::Idle).await;
    prepare(&mut peer).await;
    peer.close(close::RESTART, "").await;

    let mut peer = controller.peer().await;
    let register = welcome_with(&mut peer, &UpdatePermit { update_id: UPDATE, seconds: 300 }).await;
    assert_eq!(register.update.state, UpdateState::Awaiting);
    assert_eq!(answer(&mut peer).await, (CommandStatus::Accepted, None));
    let beats = async { while peer.next().await.is_some() {} };
    let asked = tokio::select! {
        asked = root.answers(&RootAnswer::Switching) => asked,
        () = beats => panic!("the worker went away"),
    };
    assert_eq!(asked, RootRequest::Switch { update_id: UPDATE });
}

#[tokio::test]
async fn a_node_whose_updates_are_off_says_so_until_its_configuration_says_otherwise() {
    let (mut controller, releases) = (Controller::start().await, Releases::start().await);
    let root = Root::of_node(&controller, "");
    let daemon = root.daemon();
    let (mut peer, register) = controller.welcomed(3_600_000).await;
    assert_eq!(register.capabilities, [""; 0]);
    peer.send(&releases.offer()).await;
    assert_eq!(answer(&mut peer).await, (CommandStatus::Rejected, Some("UPDATES_OFF".into())));
    daemon.reload("[updates]\nmode = \"notify\"\n").await;
    let register = peer
        .until(|message| match message {
            WorkerMessage::Register(register) if !register.capabilities.is_empty() => Some(register),
            _ => None,
        })
        .await;
    assert_eq!(register.update.managed_by, ManagedBy::Controller);
    peer.send(&releases.offer()).await;
    let deferred = registered(&mut peer, UpdateState::Deferred).await;
    assert!(deferred.update.reason.unwrap().contains("`aio-worker update now`"));
}

#[tokio::test]
async fn what_root_refuses_is_told_with_root_s_code_and_what_is_taken_back_is_removed() {
    let (mut controller, releases) = (Controller::start().await, Releases::start().await);
    let root = Root::of_node(&controller, "mode = \"auto\"");
    let _daemon = root.daemon();
    let (mut peer, _) = controller.welcomed(3_600_000).await;
    peer.send(&releases.offer()).await;
    let refused = RootAnswer::Refused { code: "SIGNATURE_INVALID".into(), message: "by nobody known".into() };
    root.answers(&refused).await;
    let update = registered(&mut peer, UpdateState::Deferred).await.update;
    assert_eq!(update.last.unwrap().code.as_deref(), Some("SIGNATURE_INVALID"));
    assert!(update.reason.unwrap().contains("by nobody known"));
    peer.send(&UpdateCancel { update_id: UPDATE, reason: Some("it was halted".into()) }).await;
    let update = registered(&mut peer, UpdateState::Idle).await.update;
    assert_eq!(update.last.unwrap().code.as_deref(), Some("SIGNATURE_INVALID"));
    let folder = root.inbox().join(UPDATE.to_string());
    let gone = async {
        while folder.exists() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, gone).await.expect("what was downloaded stays");
}

#[tokio::test]
async fn a_daemon_that_root_takes_back_is_expected_back_and_one_that_is_stopped_in_probation_is_not() {
    for (phase, reason) in
        [(RootPhase::Reverting, DisconnectReason::Update), (RootPhase::Probation, DisconnectReason::Shutdown)]
    {
        let mut controller = Controller::start().await;
        let root = Root::of_node(&controller, "mode = \"auto\"");
        root.says(&json!({ "phase": "probation", "updateId": UPDATE, "version": VERSION }));
        let daemon = root.daemon();
        let (mut peer, _) = controller.welcomed(3_600_000).await;
        // Between this and the stop there is no time for the next look.
        root.says(&json!({ "phase": phase, "updateId": UPDATE, "version": VERSION }));
        daemon.ask_to_stop();
        let goodbye = peer
            .until(|message| match message {
                WorkerMessage::Disconnecting(goodbye) => Some(goodbye),
                _ => None,
            })
            .await;
        assert_eq!(goodbye.reason, reason);
    }
}

/// What `aio-worker update …` answers, for programs.
async fn told(daemon: &Daemon, words: &[&str]) -> serde_json::Value {
    let mut command = program(&["update"]);
    command.args(words).args(["--output", "json", "--runtime-dir", daemon.runtime_dir.to_str().unwrap()]);
    let (status, stdout, stderr) = tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap();
    assert_eq!((status, stderr.as_str()), (0, ""), "{stdout}");
    serde_json::from_str(&stdout).unwrap()
}

#[tokio::test]
async fn an_operator_puts_an_update_off_and_then_wants_it_now() {
    let (mut controller, releases) = (Controller::start().await, Releases::start().await);
    let root = Root::of_node(&controller, "mode = \"auto\"");
    let daemon = root.daemon();
    let (mut peer, _) = controller.welcomed(100).await;
    peer.heartbeat().await;
    let until = told(&daemon, &["defer", "2h"]).await["deferredUntil"].as_str().unwrap().to_owned();
    let waits = |snapshot: &aio_protocol::snapshot::WorkerSnapshot| {
        snapshot.update.reason.as_ref().is_some_and(|reason| reason.contains(&until))
    };
    daemon.snapshot(waits).await;
    peer.send(&releases.offer()).await;
    registered(&mut peer, UpdateState::Deferred).await;

    let update = told(&daemon, &["now"]).await["update"].clone();
    assert_ne!(update["state"], "deferred", "{update}");
    let asked = root.answers(&RootAnswer::Staged).await;
    assert!(matches!(asked, RootRequest::Stage { update_id: UPDATE, .. }), "{asked:?}");
    registered(&mut peer, UpdateState::Awaiting).await;
    let status = told(&daemon, &["status"]).await;
    assert_eq!(status["update"]["state"], "awaiting");
    assert_eq!(status["update"]["target"], VERSION);
    assert!(!daemon.runtime_dir.join("update-order").exists(), "an order counts once");
}

#[tokio::test]
async fn a_pin_in_the_configuration_keeps_its_version() {
    let (mut controller, releases) = (Controller::start().await, Releases::start().await);
    let root = Root::of_node(&controller, "mode = \"auto\"");
    let daemon = root.daemon();
    let (mut peer, _) = controller.welcomed(3_600_000).await;
    let config = root.folder.path().join("config.toml");
    let pin = |words: &'static [&'static str]| {
        let mut command = program(&["update"]);
        command.args(words).args(["--output", "json", "--config", config.to_str().unwrap()]);
        tokio::task::spawn_blocking(move || run(&mut command))
    };
    let (status, stdout, _) = pin(&["pin", "v1.0.0"]).await.unwrap();
    let answer: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((status, &answer), (0, &json!({ "pin": "v1.0.0", "reloaded": false })));
    daemon.reload(&fs::read_to_string(&config).unwrap()).await;
    daemon.snapshot(|snapshot| snapshot.update.pin.is_some()).await;
    peer.send(&releases.offer()).await;
    assert_eq!(answer_code(&mut peer).await.as_deref(), Some("UPDATE_PINNED"));
    let (status, _, _) = pin(&["unpin"]).await.unwrap();
    assert_eq!((status, fs::read_to_string(&config).unwrap().contains("\npin")), (0, false));
    daemon.reload(&fs::read_to_string(&config).unwrap()).await;
    daemon.snapshot(|snapshot| snapshot.update.pin.is_none()).await;
    peer.send(&releases.offer()).await;
    assert_eq!(answer_code(&mut peer).await, None);
}

async fn answer_code(peer: &mut Peer) -> Option<String> {
    answer(peer).await.1
}

#[tokio::test]
async fn where_no_worker_answers_an_operator_s_word_is_lost_and_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    for words in [&["status"][..], &["now"], &["defer", "1h"]] {
        let mut command = program(&["update"]);
        command.args(words).args(["--output", "json", "--runtime-dir", folder.path().to_str().unwrap()]);
        let (status, stdout, _) = tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap();
        let answer: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!((status, answer["error"]["code"].as_str()), (69, Some("WORKER_NOT_RUNNING")), "{words:?}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
