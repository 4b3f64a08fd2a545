//! Another configuration for a daemon that lives: what is used at once, what stays, and what a
//! broken one does, which is nothing.

use std::{sync::Arc, time::Duration};

use aio_host::systemd::ManagerReport;
use aio_protocol::{
    service::{Service, ServiceState},
    snapshot::SessionState,
    telemetry::Health,
};
use aio_worker::session::machine::Timings;

use super::{
    binary::Service as Program,
    controller::{Controller, PATIENCE, Refusal},
    daemon::{Daemon, folder_with, token},
};

/// Waits until systemd was told a word that begins like this.
async fn heard(daemon: &Daemon, beginning: &str) -> String {
    let search = async {
        loop {
            let words = daemon.heard.words();
            if let Some(word) = words.iter().rev().find(|word| word.starts_with(beginning)) {
                return word.clone();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, search).await;
    found.unwrap_or_else(|_| panic!("nobody said {beginning}: {:?}", daemon.heard.words()))
}

#[tokio::test]
async fn another_endpoint_is_used_at_once_by_a_new_connection_of_the_same_process() {
    let (mut first, mut second) = (Controller::start().await, Controller::start().await);
    let daemon = Daemon::start(&first.url);
    let (mut peer, register) = first.welcomed(30_000).await;
    peer.heartbeat().await;

    daemon.reload(&format!("controller_endpoint = \"{}\"\n", second.url)).await;

    while peer.next().await.is_some() {}
    let (mut peer, again) = second.welcomed(100).await;
    peer.heartbeat().await;
    assert_eq!(again.instance_id, register.instance_id);
    let words = daemon.heard.words();
    let reloading = words.iter().position(|word| word.starts_with("RELOADING=1\nMONOTONIC_USEC=")).unwrap();
    assert_eq!(words[reloading..].iter().filter(|word| *word == "READY=1").count(), 1, "{words:?}");
}

#[tokio::test]
async fn a_configuration_that_says_the_same_of_the_connection_leaves_it_alone() {
    let mut controller = Controller::start().await;
    let daemon = Daemon::start(&controller.url);
    let (mut peer, _) = controller.welcomed(100).await;
    daemon.reload("log = \"debug\"\n").await;
    heard(&daemon, "RELOADING=1").await;
    let seq = peer.heartbeat().await.seq;
    assert_eq!(peer.heartbeat().await.seq, seq + 1);
    assert_eq!(daemon.snapshot(|_| true).await.session.sessions, 1);
}

#[tokio::test]
async fn a_broken_configuration_changes_nothing_and_is_complained_about_until_it_is_mended() {
    let mut controller = Controller::start().await;
    let daemon = Daemon::start(&controller.url);
    let (mut peer, _) = controller.welcomed(100).await;
    peer.heartbeat().await;
    heard(&daemon, "STATUS=Online").await;
    for broken in ["= =", "no_such_key = 1", "controller_endpoint = \"nowhere\"", "proxy = \"ftp://x\""] {
        daemon.reload(broken).await;
        let status = heard(&daemon, "STATUS=Online at ").await;
        let complaint = async {
            while !daemon.heard.words().iter().any(|word| word.contains("(not reloaded, CONFIG_INVALID: ")) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, complaint).await.unwrap_or_else(|_| panic!("{broken}: {status}"));
        let seq = peer.heartbeat().await.seq;
        assert_eq!(peer.heartbeat().await.seq, seq + 1, "{broken}");
    }
    daemon.reload("").await;
    let mended = async {
        while heard(&daemon, "STATUS=").await.contains("not reloaded") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, mended).await.expect("the complaint stays");
    assert_eq!(daemon.snapshot(|_| true).await.session.sessions, 1);
}

#[tokio::test]
async fn a_configuration_that_hangs_holds_up_neither_the_session_nor_the_watchdog() {
    let mut controller = Controller::start().await;
    let daemon = Daemon::with(&controller.url, Timings::default(), Some(Duration::from_millis(100)));
    let (mut peer, _) = controller.welcomed(100).await;
    // Whoever opens a pipe waits until somebody writes.
    let pipe = daemon.config_path();
    let _ = std::fs::remove_file(&pipe);
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    daemon.ask_to_reload().await;
    heard(&daemon, "RELOADING=1").await;
    let fed = || daemon.heard.words().iter().filter(|word| *word == "WATCHDOG=1").count();
    let (before, seq) = (fed(), peer.heartbeat().await.seq);
    let goes_on = async { while peer.heartbeat().await.seq < seq + 5 || fed() < before + 3 {} };
    tokio::time::timeout(PATIENCE, goes_on).await.expect("the loop stands still");
    let words = daemon.heard.words();
    let mut since = words.iter().skip_while(|word| !word.starts_with("RELOADING=1"));
    assert!(!since.any(|word| word == "READY=1"), "{words:?}");
    // A second question is answered, too, when the first is.
    daemon.ask_to_reload().await;
    std::fs::write(&pipe, "[health]\nexpected_gpus = 3\n").unwrap();
    let taken_up = async { while peer.heartbeat().await.health.state != Health::Unhealthy {} };
    tokio::time::timeout(PATIENCE, taken_up).await.expect("the configuration is not taken up");
    std::fs::write(&pipe, "").unwrap();
    let taken_back = async { while peer.heartbeat().await.health.state != Health::Ok {} };
    tokio::time::timeout(PATIENCE, taken_back).await.expect("the second question is lost");
}

#[tokio::test]
async fn gpus_are_judged_at_once_by_what_the_new_configuration_expects() {
    let mut controller = Controller::start().await;
    let daemon = Daemon::start(&controller.url);
    // The next heartbeat would come in an hour.
    let (mut peer, _) = controller.welcomed(3_600_000).await;
    assert_eq!(peer.heartbeat().await.health.state, Health::Ok);
    daemon.reload("[health]\nexpected_gpus = 3\n").await;
    let health = peer.heartbeat().await.health;
    assert_eq!(
        (health.state, health.worst.as_deref()),
        (Health::Unhealthy, Some("2 of 3 expected GPUs are here"))
    );
}

#[tokio::test]
async fn whoever_waits_tries_at_once_when_the_configuration_is_reloaded() {
    let mut controller = Controller::start().await;
    controller.refuse([Refusal { status: 401, retry_after: None, code: "TOKEN_REVOKED" }]);
    let daemon = Daemon::start(&controller.url);
    controller.attempt().await;
    daemon.snapshot(|snapshot| snapshot.session.code.as_deref() == Some("TOKEN_REVOKED")).await;
    // It would wait for half a minute.
    daemon.reload("").await;
    let (mut peer, _) = controller.welcomed(30_000).await;
    peer.heartbeat().await;
}

#[tokio::test]
async fn a_token_that_was_replaced_is_used_at_once_and_one_of_another_node_is_refused() {
    let mut controller = Controller::start().await;
    let daemon = Daemon::start(&controller.url);
    let (mut peer, _) = controller.welcomed(100).await;
    assert!(controller.attempt().await.authorization.ends_with(&token(&controller.url, "first")));

    let foreign = super::daemon::token_with(&controller.url, "x", |claims| {
        claims["sub"] = "aaaaaaaaaaaaaaaaaaaaaaaa".into();
    });
    daemon.replace_token(&foreign);
    daemon.reload("").await;
    let complaint = async {
        while !daemon.heard.words().iter().any(|word| word.contains("not reloaded, TOKEN_FOREIGN")) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, complaint).await.expect("nobody complains");
    peer.heartbeat().await;

    let second = token(&controller.url, "second");
    daemon.replace_token(&second);
    daemon.reload("").await;
    while peer.next().await.is_some() {}
    let (mut peer, _) = controller.welcomed(100).await;
    assert!(controller.attempt().await.authorization.ends_with(&second));
    peer.heartbeat().await;
}

#[tokio::test]
async fn sighup_changes_the_log_of_the_program_without_another_process() {
    let mut controller = Controller::start().await;
    let folder = folder_with(&token(&controller.url, "first"));
    std::fs::write(folder.path().join("config.toml"), "log = \"error\"\n").unwrap();
    let mut service = Program::on(&folder);
    let (mut peer, _) = controller.welcomed(30_000).await;
    peer.heartbeat().await;
    std::fs::write(folder.path().join("config.toml"), "log = \"info\"\n").unwrap();
    service.signal(rustix::process::Signal::HUP);
    service.told("RELOADING=1\nMONOTONIC_USEC=").await;
    service.told("READY=1").await;
    service.signal(rustix::process::Signal::TERM);
    while peer.next().await.is_some() {}
    drop(peer);
    assert_eq!(service.exit_status().await, Some(0));
    let mut log = String::new();
    std::io::Read::read_to_string(&mut service.child.stderr.take().unwrap(), &mut log).unwrap();
    assert!(log.contains("the configuration was reloaded") && !log.contains(" starts"), "{log}");
}

#[tokio::test]
async fn services_are_registered_with_the_machine_again_when_they_change_and_told_by_the_status_socket() {
    let mut controller = Controller::start().await;
    let daemon = Daemon::start(&controller.url);
    let docker = |state| Service {
        state,
        version: Some("24.0.7".into()),
        restarts: Some(0),
        ..Service::unknown("docker.service")
    };
    let report = |state| {
        let virtualization = Some("kvm".to_owned());
        Some(Arc::new(ManagerReport { virtualization, services: vec![docker(state)] }))
    };
    let (mut peer, first) = controller.welcomed(30_000).await;
    assert_eq!((first.system_info.virtualization, first.system_info.services), (None, vec![]));
    daemon.systemd.send_replace(report(ServiceState::Active));
    let register = peer.register().await;
    assert_eq!(register.system_info.services, [docker(ServiceState::Active)]);
    assert_eq!(register.system_info.virtualization.as_deref(), Some("kvm"));
    let runtime = register.system_info.container_runtime.unwrap();
    assert_eq!(
        (runtime.name.as_str(), runtime.active, runtime.version.as_deref()),
        ("docker", true, Some("24.0.7"))
    );
    let told = daemon.snapshot(|snapshot| !snapshot.services.is_empty()).await;
    assert_eq!((told.session.state, told.services.len()), (SessionState::Online, 1));
    daemon.systemd.send_replace(report(ServiceState::Failed));
    assert_eq!(peer.register().await.system_info.services, [docker(ServiceState::Failed)]);
}
