//! New tokens for old, against a controller that says yes, no, or nothing.

use std::{io::Read, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use aio_protocol::{
    time::Timestamp,
    wire::{CommandAck, CommandStatus, TokenOffer, WorkerMessage, close},
};
use aio_worker::session::machine::Timings;
use tempfile::TempDir;
use uuid::Uuid;

use super::{
    binary::Service,
    controller::{Controller, PATIENCE, Peer, Refusal},
    daemon::{Daemon, folder_with, token_with},
};

/// The `age`-th token, each newer and longer than the one before.
fn token(controller: &Controller, age: i64) -> String {
    token_with(&controller.url, &format!("token-{age}"), |claims| {
        claims["iat"] = (1_000_000_000 + age).into();
        claims["exp"] = (4_000_000_000 + age * 1000).into();
    })
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

async fn offer(peer: &mut Peer, token: &str) -> Uuid {
    let offer = TokenOffer {
        token: token.to_owned(),
        expires_at: Timestamp::from_millis(0),
        offer_id: "offer".into(),
    };
    peer.send(&offer).await
}

async fn answer(peer: &mut Peer) -> CommandAck {
    match peer.rare_message().await {
        WorkerMessage::CommandAck(ack) => ack,
        other => panic!("{other:?}"),
    }
}

fn daemon(folder: &Arc<TempDir>) -> Daemon {
    Daemon::on(folder, Timings::default(), None)
}

/// What the state folder holds of tokens.
fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("state")).unwrap();
    let mut names: Vec<_> = entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.starts_with("gpus.json") && !name.starts_with(".gpus.json"));
    names.sort();
    names
}

/// Waits until the state folder holds these: the daemon writes files beside its session.
async fn holds(folder: &Path, names: &[&str]) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while files(folder) != names {
        assert!(tokio::time::Instant::now() < deadline, "{:?}, not {names:?}", files(folder));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_offered_token_is_used_at_once_and_after_a_restart() {
    let mut controller = Controller::start().await;
    let folder = folder_with(&token(&controller, 0));
    let mut worker = daemon(&folder);
    let (mut peer, _) = controller.welcomed(30_000).await;
    assert_eq!(controller.attempt().await.authorization, bearer(&token(&controller, 0)));
    let new = token(&controller, 1);
    offer(&mut peer, &new).await;
    let (mut peer, _) = controller.welcomed(30_000).await;
    assert_eq!(controller.attempt().await.authorization, bearer(&new));
    // The heartbeat comes behind all that the welcome has caused.
    peer.heartbeat().await;
    holds(folder.path(), &["token"]).await;
    let mode = folder.path().join("state/token").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    worker.snapshot(|snapshot| snapshot.token_expires_at == Timestamp::from_millis(4_000_001_000_000)).await;
    worker.ask_to_stop();
    drop(peer);
    worker.ended().await;

    let _worker = daemon(&folder);
    assert_eq!(controller.attempt().await.authorization, bearer(&new));
}

#[tokio::test]
async fn an_offered_token_that_is_refused_is_given_back_on_the_next_session() {
    let mut controller = Controller::start().await;
    let folder = folder_with(&token(&controller, 0));
    let _worker = daemon(&folder);
    let (mut peer, _) = controller.welcomed(30_000).await;
    controller.attempt().await;
    controller.refuse([Refusal { status: 401, retry_after: None, code: "TOKEN_REVOKED" }]);
    let id = offer(&mut peer, &token(&controller, 1)).await;
    let (mut peer, _) = controller.welcomed(30_000).await;
    let tried = [controller.attempt().await, controller.attempt().await].map(|attempt| attempt.authorization);
    assert_eq!(tried, [bearer(&token(&controller, 1)), bearer(&token(&controller, 0))]);
    let ack = answer(&mut peer).await;
    assert_eq!((ack.original_message_id, ack.status), (id, CommandStatus::Rejected));
    assert_eq!(ack.error.unwrap().code, "TOKEN_REVOKED");
    holds(folder.path(), &[""; 0]).await;
}

#[tokio::test]
async fn a_token_that_is_closed_upon_before_the_welcome_is_given_back_too() {
    let mut controller = Controller::start().await;
    let folder = folder_with(&token(&controller, 0));
    let _worker = daemon(&folder);
    let (mut peer, _) = controller.welcomed(30_000).await;
    let id = offer(&mut peer, &token(&controller, 1)).await;
    controller.peer().await.close(close::TOKEN_ENDED, "TOKEN_REVOKED: the token was withdrawn").await;
    let (mut peer, _) = controller.welcomed(30_000).await;
    assert_eq!(answer(&mut peer).await.original_message_id, id);
}

#[tokio::test]
async fn a_connection_that_fails_gives_no_token_back() {
    let mut controller = Controller::start().await;
    let folder = folder_with(&token(&controller, 0));
    let _worker = daemon(&folder);
    let (mut peer, _) = controller.welcomed(30_000).await;
    controller.attempt().await;
    controller.refuse([503, 502, 429].map(|status| Refusal { status, retry_after: Some("0"), code: "X" }));
    offer(&mut peer, &token(&controller, 1)).await;
    drop(controller.peer().await);
    controller.welcomed(30_000).await;
    for _ in 0..5 {
        assert_eq!(controller.attempt().await.authorization, bearer(&token(&controller, 1)));
    }
}

#[tokio::test]
async fn an_offer_that_cannot_be_taken_is_given_back_in_the_same_session() {
    let mut controller = Controller::start().await;
    let folder = folder_with(&token(&controller, 1));
    let _worker = daemon(&folder);
    let (mut peer, _) = controller.welcomed(30_000).await;
    for (offered, code) in
        [("nonsense".to_owned(), "TOKEN_INVALID"), (token(&controller, 0), "OFFER_REFUSED")]
    {
        let id = offer(&mut peer, &offered).await;
        let ack = answer(&mut peer).await;
        assert_eq!((ack.original_message_id, ack.error.unwrap().code.as_str()), (id, code));
    }
    // Where nothing can be stored, nothing is tried.
    std::fs::remove_dir_all(folder.path().join("state")).unwrap();
    std::fs::write(folder.path().join("state"), "in the way").unwrap();
    offer(&mut peer, &token(&controller, 2)).await;
    assert_eq!(answer(&mut peer).await.error.unwrap().code, "FILE_FAILED");
    controller.attempt().await;
    let another = tokio::time::timeout(Duration::from_millis(300), controller.attempt()).await;
    assert!(another.is_err(), "it dialled again");
}

#[tokio::test]
async fn a_newer_token_of_the_operators_wins_over_a_rotated_one() {
    let mut controller = Controller::start().await;
    let folder = folder_with(&token(&controller, 0));
    let mut worker = daemon(&folder);
    let (mut peer, _) = controller.welcomed(30_000).await;
    offer(&mut peer, &token(&controller, 1)).await;
    let (mut peer, _) = controller.welcomed(30_000).await;
    peer.heartbeat().await;
    worker.ask_to_stop();
    drop(peer);
    worker.ended().await;

    std::fs::write(folder.path().join("token"), token(&controller, 2)).unwrap();
    let _worker = daemon(&folder);
    let (mut peer, _) = controller.welcomed(30_000).await;
    peer.heartbeat().await;
    let tried: Vec<_> = [controller.attempt().await, controller.attempt().await, controller.attempt().await]
        .map(|attempt| attempt.authorization)
        .into();
    assert_eq!(tried[2], bearer(&token(&controller, 2)));
    holds(folder.path(), &[""; 0]).await;
}

#[tokio::test]
async fn a_refused_rotated_token_gives_way_to_the_installed_one() {
    let mut controller = Controller::start().await;
    let folder = folder_with(&token(&controller, 0));
    let _worker = daemon(&folder);
    let (mut peer, _) = controller.welcomed(30_000).await;
    offer(&mut peer, &token(&controller, 1)).await;
    let (mut peer, _) = controller.welcomed(30_000).await;
    peer.heartbeat().await;
    peer.close(close::TOKEN_ENDED, "TOKEN_REVOKED").await;
    controller.welcomed(30_000).await;
    for age in [0, 1, 0] {
        assert_eq!(controller.attempt().await.authorization, bearer(&token(&controller, age)));
    }
}

/// How far the controller lets a rotation come before the worker's process is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    Offered,
    Tried,
    Registered,
    Welcomed,
}

#[tokio::test]
async fn a_worker_that_is_killed_in_mid_rotation_comes_back_with_a_token_that_works() {
    use Moment::{Offered, Registered, Tried, Welcomed};
    for moment in [Offered, Tried, Registered, Welcomed, Welcomed, Offered] {
        let mut controller = Controller::start().await;
        let folder = folder_with(&token(&controller, 0));
        let (old, new) = (bearer(&token(&controller, 0)), bearer(&token(&controller, 1)));
        let mut service = Service::on(&folder);
        let (mut peer, _) = controller.welcomed(30_000).await;
        controller.attempt().await;
        offer(&mut peer, &token(&controller, 1)).await;
        if moment >= Tried {
            let mut peer = controller.peer().await;
            assert_eq!(controller.attempt().await.authorization, new);
            if moment >= Registered {
                peer.acknowledge_connection().await;
                peer.register().await;
            }
            if moment >= Welcomed {
                peer.pace(30_000, 60_000).await;
            }
        }
        service.kill();
        let mut log = String::new();
        service.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        for secret in [&old, &new] {
            assert!(!log.contains(secret.trim_start_matches("Bearer ")), "{moment:?}: {log}");
        }

        let mut service = Service::on(&folder);
        let (mut peer, _) = controller.welcomed(30_000).await;
        peer.heartbeat().await;
        let mut last = controller.attempt().await.authorization;
        if moment == Offered {
            // It may have dialled with the new one before it was killed.
            while let Ok(attempt) =
                tokio::time::timeout(Duration::from_millis(100), controller.attempt()).await
            {
                last = attempt.authorization;
            }
            assert!(last == old || last == new, "{last}");
        } else {
            assert_eq!(last, new, "{moment:?}: what the controller may have welcomed is not forgotten");
        }
        holds(folder.path(), if last == new { &["token"] } else { &[] }).await;
        service.kill();
    }
}
