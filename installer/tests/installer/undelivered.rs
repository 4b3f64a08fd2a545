//! A failure that the controller cannot be told is kept, and told by whoever comes next.

use std::{fs, sync::Arc, time::Duration};

use aio_installer::{
    Goal, Uneventful,
    uninstall::{Removal, uninstall},
};
use aio_protocol::error_code::ErrorCode;
use serde_json::Value;

use crate::{
    server::program,
    world::{Daemon, World},
};

/// A machine on which an installation fails when the service starts, while the controller fails as well.
async fn failed() -> World {
    let mut world = World::new().await;
    world.request.goal = Goal::Online(Duration::from_millis(100));
    fails_untold(&world).await;
    world
}

async fn fails_untold(world: &World) -> String {
    let shared = Arc::clone(&world.server);
    world.systemd.on_start(move |_| shared.lock().unwrap().report_status = 500);
    let failure = world.install().await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::OnlineTimeout, "{failure:?}");
    assert!(failure.details.contains_key("reportFailed"), "{failure:?}");
    world.change(|server| {
        server.report_status = 200;
        server.reports.clear();
    });
    failure.details["reportKept"].as_str().unwrap().to_owned()
}

fn kept(world: &World) -> usize {
    fs::read_dir(world.host.layout.undelivered()).map_or(0, Iterator::count)
}

#[tokio::test]
async fn the_next_installation_tells_first_what_the_last_one_could_not() {
    let mut world = failed().await;
    let token = world.change(|server| server.token.clone()).unwrap();
    let file = fs::read_dir(world.host.layout.undelivered()).unwrap().next().unwrap().unwrap().path();
    assert!(!fs::read_to_string(file).unwrap().contains(&token), "the token is in a report");
    world.request.goal = Goal::Online(Duration::from_secs(10));
    world.daemon_comes_to_life();

    world.install().await.unwrap();

    assert_eq!(world.phases(), ["failed", "started", "succeeded"]);
    let told: Value = world.reports()[0].clone();
    assert_eq!((&told["error"]["code"], &told["step"]), (&"ONLINE_TIMEOUT".into(), &"await_online".into()));
    assert!(told["error"]["details"]["failedAt"].is_string(), "{told}");
    assert_eq!(kept(&world), 0);
}

#[tokio::test]
async fn what_cannot_be_told_yet_stays_and_what_nobody_wants_goes() {
    let mut world = failed().await;
    world.change(|server| server.report_status = 500);
    assert_eq!(world.install().await.unwrap_err().code, ErrorCode::ControllerError);
    assert_eq!(kept(&world), 1);

    // A file of another node is not this controller's to hear of; one that cannot be read is nobody's.
    let dir = world.host.layout.undelivered();
    let other = fs::read_dir(&dir).unwrap().next().unwrap().unwrap().path();
    let text =
        fs::read_to_string(&other).unwrap().replace("69396100cd71623c7bbfbfee", "ffffffffffffffffffffffff");
    fs::write(&other, text).unwrap();
    fs::write(dir.join("0.json"), "torn").unwrap();
    world.change(|server| {
        server.report_status = 409;
        server.reports.clear();
    });
    world.request.goal = Goal::Online(Duration::from_secs(10));
    world.daemon_comes_to_life();
    world.install().await.unwrap();
    assert!(!world.phases().contains(&"failed".to_owned()), "{:?}", world.phases());
    assert_eq!(kept(&world), 1);

    uninstall(&world.host, Removal { purge: true, dry_run: false }, &Uneventful).await.unwrap();
    assert!(!world.host.layout.journal_dir().exists());
}

#[tokio::test]
async fn a_failed_upgrade_leaves_it_to_the_worker_that_goes_on() {
    let mut world = World::new().await;
    world.install().await.unwrap();
    // As on a real machine the state is the daemon's: here that is whoever runs this test.
    let passwd = world.dir.path().join("etc/passwd");
    let uid = rustix::process::geteuid().as_raw();
    let text = fs::read_to_string(&passwd).unwrap().replace(":999:999:", &format!(":{uid}:{uid}:"));
    fs::write(&passwd, text).unwrap();
    world.change(|server| {
        server.version = "v1.1.0";
        server.file = program(b"the next release");
    });
    world.request.goal = Goal::Online(Duration::from_millis(100));
    world.daemon_is(Daemon::Stuck(None));

    let path = fails_untold(&world).await;

    let state = world.host.layout.state_dir();
    assert!(path.starts_with(state.to_str().unwrap()), "{path}");
    let failure: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(failure["error"]["code"], "ONLINE_TIMEOUT");

    // Where the daemon's user has put a link, nothing is written behind it.
    fs::remove_dir_all(state.join("undelivered")).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), state.join("undelivered")).unwrap();
    let shared = Arc::clone(&world.server);
    world.systemd.on_start(move |_| shared.lock().unwrap().report_status = 500);
    let failure = world.install().await.unwrap_err();
    assert!(!failure.details.contains_key("reportKept"), "{failure:?}");
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}
