//! The status socket as its readers meet it.

use std::{io::ErrorKind, os::unix::fs::PermissionsExt, time::Duration};

use aio_worker::status_socket;
use tokio::{io::AsyncReadExt, net::UnixStream};

use super::{controller::Controller, daemon::Daemon};

const PATIENCE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn the_socket_is_open_to_every_user_and_gone_with_the_daemon() {
    let controller = Controller::start().await;
    let mut daemon = Daemon::start(&controller.url);
    daemon.snapshot(|_| true).await;
    let path = daemon.runtime_dir.join("status.sock");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
    let left: Vec<_> =
        std::fs::read_dir(&daemon.runtime_dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["status.sock"]);
    daemon.ask_to_stop();
    daemon.ended().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_file_that_a_killed_daemon_left_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    drop(std::os::unix::net::UnixListener::bind(folder.path().join("status.sock")).unwrap());
    let error = status_socket::read(folder.path(), PATIENCE).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    let socket = status_socket::bind(folder.path()).unwrap();
    assert!(UnixStream::connect(folder.path().join("status.sock")).await.is_ok());
    drop(socket);
}

#[tokio::test]
async fn readers_beyond_the_bound_are_turned_away_and_places_become_free() {
    let controller = Controller::start().await;
    let daemon = Daemon::start(&controller.url);
    daemon.snapshot(|_| true).await;
    let path = daemon.runtime_dir.join("status.sock");
    let mut readers = vec![];
    for _ in 0..64 {
        readers.push(UnixStream::connect(&path).await.unwrap());
    }
    let mut turned_away = 0;
    for reader in &mut readers {
        turned_away += u32::from(reader.read(&mut [0; 16]).await.unwrap() == 0);
    }
    // Root has 16 places, and each other user 8.
    let places = if rustix::process::geteuid().is_root() { 16 } else { 8 };
    assert_eq!(turned_away, 64 - places);
    drop(readers);
    // A place is free again as soon as the daemon has noticed.
    while status_socket::read(&daemon.runtime_dir, PATIENCE).await.is_err() {
        assert!(daemon.alive());
    }
}
