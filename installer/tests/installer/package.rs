//! A machine on which a Debian package has put program, unit and user: an installation adds what is
//! of this machine alone.

use std::fs;

use aio_installer::install::OutcomeKind;
use aio_protocol::error_code::ErrorCode;

use crate::{bad_input::fails, server::Plan, world::World};

/// What `apt install aio-worker` leaves.
pub fn unpack_package(world: &World) {
    let layout = &world.host.layout;
    let root = world.dir.path();
    for folder in ["usr/bin", "usr/lib/systemd/system"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::write(layout.packaged_command(), "the package's program").unwrap();
    let unit = include_str!("../../../systemd/aio-worker.service");
    fs::write(root.join("usr/lib/systemd/system/aio-worker.service"), unit).unwrap();
}

#[tokio::test]
async fn a_package_is_configured_and_nothing_is_downloaded() {
    let world = World::new().await;
    unpack_package(&world);
    let expected = ["write_config", "write_token", "enable_unit", "start_unit", "await_online"];
    assert_eq!(world.planned().await, expected);

    let outcome = world.install().await.unwrap();

    assert!(matches!(outcome.kind, OutcomeKind::Installed { .. }), "{outcome:?}");
    let layout = &world.host.layout;
    for path in [layout.releases(), layout.command(), layout.unit(), layout.sysusers()] {
        assert!(!path.exists(), "{}", path.display());
    }
    assert_eq!(world.change(|server| server.downloads), 0);
    assert_eq!(world.planned().await, [""; 0]);
}

#[tokio::test]
async fn a_package_and_an_installation_beside_it_are_never_two_workers() {
    let world = World::new().await;
    world.install().await.unwrap();
    unpack_package(&world);
    let failure = fails(&world, ErrorCode::PackageConflict).await;
    assert!(failure.message.contains("etc/systemd/system/aio-worker.service"), "{}", failure.message);
}

#[tokio::test]
async fn a_package_needs_no_release_that_the_controller_offers_and_another_machine_does() {
    let nothing_offered = Plan::Refused(404, "RELEASE_NOT_FOUND");
    let world = World::new().await;
    world.change(|server| server.plan = nothing_offered.clone());
    unpack_package(&world);

    let outcome = world.install().await.unwrap();

    let OutcomeKind::Installed { warnings, .. } = &outcome.kind else { panic!("{outcome:?}") };
    assert_eq!(*warnings, [""; 0]);
    let started = &world.reports()[0];
    assert_eq!(started["phase"], "started");
    assert_eq!(started["version"], concat!("v", env!("CARGO_PKG_VERSION")));
    assert_eq!(world.planned().await, [""; 0]);

    let bare = World::new().await;
    bare.change(|server| server.plan = nothing_offered);
    fails(&bare, ErrorCode::ReleaseNotFound).await;
}
