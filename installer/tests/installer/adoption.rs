//! Machines that somebody else has set up before: by the older script, or by hand.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use aio_host::{config::ConfigFile, layout::UNIT};
use aio_installer::{
    Uneventful,
    install::{Outcome, OutcomeKind},
    uninstall::{Removal, uninstall},
};
use aio_protocol::error_code::ErrorCode;

use crate::{
    server::Release,
    world::{Listing, NODE, World},
};

/// As the script writes it.
fn script_s_unit(node: &str) -> String {
    format!(
        "[Service]\nUser=root\nEnvironment=\"AIO_NODE_TOKEN=a.secret.token\"\n\
         Environment=\"AIO_CONTROLLER_ENDPOINT=ws://127.0.0.1:3305/ws/node\"\n\
         Environment=\"AIO_NODE_ID={node}\"\nExecStart=/usr/local/bin/aio-worker start\n\n\
         [Install]\nWantedBy=multi-user.target\n"
    )
}

/// A machine on which the script's daemon is enabled and runs.
async fn set_up_by_the_script(node: &str) -> World {
    let world = World::new().await;
    let layout = &world.host.layout;
    fs::write(layout.unit(), script_s_unit(node)).unwrap();
    fs::write(layout.command(), "the script's download").unwrap();
    fs::set_permissions(layout.command(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(layout.state_dir()).unwrap();
    fs::set_permissions(layout.state_dir(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(layout.state_dir().join("of-the-script"), "kept").unwrap();
    world.host.systemd.reload_and_start().await;
    world
}

trait Prepare {
    async fn reload_and_start(&self);
}

impl Prepare for aio_host::systemd::Systemd {
    async fn reload_and_start(&self) {
        self.reload().await.unwrap();
        self.enable(UNIT).await.unwrap();
        self.start(UNIT).await.unwrap();
    }
}

/// Without what the daemon of the test itself writes on each start.
fn bare(world: &World) -> Listing {
    let mut listing = world.listing();
    listing.files.remove(Path::new("etc/passwd-"));
    listing.files.remove(Path::new("var/lib/aio-worker/state.json"));
    listing
}

fn warnings(outcome: Outcome) -> Vec<String> {
    match outcome.kind {
        OutcomeKind::Installed { warnings, .. } => warnings,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_script_s_settings_are_adopted_its_files_kept_and_an_uninstallation_brings_it_back() {
    let world = set_up_by_the_script(NODE).await;
    let before = bare(&world);

    let warnings = warnings(world.install().await.unwrap());

    let layout = &world.host.layout;
    let backup = layout.unit().with_file_name("aio-worker.service.bak");
    assert!(warnings.iter().any(|warning| warning.contains(backup.to_str().unwrap())), "{warnings:?}");
    assert_eq!(fs::read_to_string(&backup).unwrap(), script_s_unit(NODE));
    assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600, "the token is in it");
    assert!(!fs::read_to_string(layout.unit()).unwrap().contains("secret"));
    let config = ConfigFile::read(&layout.config()).unwrap();
    assert_eq!(config.controller_endpoint.as_deref(), Some("ws://127.0.0.1:3305/ws/node"));
    assert!(world.planned().await.is_empty(), "a second run finds everything right");

    let removed = uninstall(&world.host, Removal { purge: true, dry_run: false }, &Uneventful).await.unwrap();
    assert!(removed.undone.contains(&format!("restart {UNIT}")), "{removed:?}");
    assert_eq!(bare(&world), before);
}

#[tokio::test]
async fn a_failure_leaves_the_script_s_daemon_running() {
    let world = set_up_by_the_script(NODE).await;
    let before = bare(&world);
    world.daemon_is(crate::world::Daemon::Stuck(Some("TOKEN_REVOKED")));
    assert_eq!(world.install().await.unwrap_err().code, ErrorCode::TokenRevoked);
    assert_eq!(bare(&world), before);
    world.change(|server| server.release = Release::Status(404));
    assert_eq!(world.install().await.unwrap_err().code, ErrorCode::ReleaseNotFound);
    assert_eq!(bare(&world), before);
}

#[tokio::test]
async fn a_machine_that_the_script_made_another_node_is_not_taken_over() {
    let mut world = set_up_by_the_script("ffffffffffffffffffffffff").await;
    let before = world.listing();
    assert_eq!(world.install().await.unwrap_err().code, ErrorCode::IdentityConflict);
    assert_eq!(world.listing(), before);
    world.request.replace_identity = true;
    world.install().await.unwrap();
}

#[tokio::test]
async fn an_edited_unit_is_kept_and_told_and_drop_ins_stay() {
    let world = World::new().await;
    let told = warnings(world.install().await.unwrap());
    assert!(told.is_empty(), "{told:?}");
    let layout = &world.host.layout;
    let drop_in = layout.unit().with_file_name("aio-worker.service.d").join("mine.conf");
    fs::create_dir(drop_in.parent().unwrap()).unwrap();
    fs::write(&drop_in, "[Service]\nNice=5\n").unwrap();
    assert!(world.planned().await.is_empty(), "a drop-in is the admin's");

    for suffix in ["bak", "bak.1"] {
        let edited = format!("{}# edited: {suffix}\n", fs::read_to_string(layout.unit()).unwrap());
        fs::write(layout.unit(), &edited).unwrap();
        let told = warnings(world.install().await.unwrap());
        let kept = layout.unit().with_file_name(format!("aio-worker.service.{suffix}"));
        assert!(told.iter().any(|warning| warning.contains(kept.to_str().unwrap())), "{told:?}");
        assert_eq!(fs::read_to_string(kept).unwrap(), edited);
    }
    assert!(drop_in.exists());
}
