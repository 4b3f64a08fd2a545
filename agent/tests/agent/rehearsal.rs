//! A new version tries itself beside the running one, and disturbs nobody.

use std::process::Command;

use serde_json::Value;

use super::{
    binary::{Service, program, run},
    controller::{Controller, Refusal},
    daemon::{folder_with, token},
};

/// The rehearsal of the daemon in this folder.
fn rehearsal(folder: &std::path::Path) -> Command {
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let mut command = program(&["rehearse", "--token-file", &at("token"), "--config", &at("config.toml")]);
    command.args(["--runtime-dir", &at("run"), "--state-dir", &at("state")]);
    command
}

async fn rehearsed(folder: &std::path::Path) -> (i32, String, String) {
    let mut command = rehearsal(folder);
    tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap()
}

#[tokio::test]
async fn a_rehearsal_is_let_in_and_leaves_without_a_word_and_without_a_trace() {
    let mut controller = Controller::start().await;
    let folder = folder_with(&token(&controller.url, "first"));
    let _service = Service::on(&folder);
    let (mut running, _) = controller.welcomed(3_600_000).await;
    running.heartbeat().await;
    let before = std::fs::read_dir(folder.path().join("state")).unwrap().count();

    let (outcome, ()) = tokio::join!(rehearsed(folder.path()), async {
        let mut peer = controller.peer().await;
        peer.acknowledge_connection().await;
        assert!(peer.next().await.is_none(), "it said something");
    });

    assert_eq!(outcome, (0, String::new(), String::new()));
    assert_eq!(std::fs::read_dir(folder.path().join("state")).unwrap().count(), before);
    running.send(&aio_protocol::wire::StateRequest { reason: None }).await;
    running.register().await;
}

#[tokio::test]
async fn a_rehearsal_that_fails_says_why_in_one_line_and_with_its_exit_status() {
    let said = |(status, stdout, _): (i32, String, String)| {
        assert_eq!(stdout.lines().count(), 1, "{stdout}");
        let answer: Value = serde_json::from_str(&stdout).unwrap();
        assert!(!answer["message"].as_str().unwrap().is_empty());
        (status, answer["code"].as_str().unwrap().to_owned())
    };
    let controller = Controller::start().await;
    let folder = folder_with(&token(&controller.url, "first"));
    controller.refuse([Refusal { status: 401, retry_after: None, code: "TOKEN_REVOKED" }]);
    assert_eq!(said(rehearsed(folder.path()).await), (78, "TOKEN_REVOKED".into()));
    std::fs::write(folder.path().join("config.toml"), "log = \"a=b=c\"\n").unwrap();
    assert_eq!(said(rehearsed(folder.path()).await), (78, "CONFIG_INVALID".into()));
    std::fs::write(folder.path().join("config.toml"), "").unwrap();
    std::fs::remove_file(folder.path().join("token")).unwrap();
    assert_eq!(said(rehearsed(folder.path()).await), (78, "TOKEN_MISSING".into()));
    let nobody = folder_with(&token("ws://127.0.0.1:1/ws/node", "first"));
    assert_eq!(said(rehearsed(nobody.path()).await), (1, "CONTROLLER_UNREACHABLE".into()));
}
