//! The way back to before: a machine that was installed on and uninstalled from is as it was.

use std::{fs, path::Path};

use aio_host::layout::UNIT;
use aio_installer::{
    Checkpoint, Failure, Point, STEPS, Uneventful,
    uninstall::{Removal, Removed, uninstall},
};
use serde_json::json;

use crate::{
    crash::{At, Mishap, install_and_die},
    server::program,
    world::{Listing, World},
};

pub const PURGE: Removal = Removal { purge: true, dry_run: false };
const REMOVE: Removal = Removal { purge: false, dry_run: false };

/// The machine without the account tools' own backups, which hold what was before the last edit,
/// whoever made it.
pub fn bare(world: &World) -> Listing {
    let mut listing = world.listing();
    listing.files.remove(Path::new("etc/passwd-"));
    listing
}

pub async fn remove(world: &World, removal: Removal) -> Removed {
    remove_with(world, removal, &Uneventful).await.unwrap()
}

async fn remove_with(
    world: &World,
    removal: Removal,
    checkpoint: &dyn Checkpoint,
) -> Result<Removed, Failure> {
    uninstall(&world.host, removal, checkpoint).await
}

#[tokio::test]
async fn a_purge_leaves_what_was_there_before_and_nothing_else() {
    let world = World::new().await;
    let before = bare(&world);
    world.install().await.unwrap();
    let foreseen = remove(&world, Removal { dry_run: true, ..PURGE }).await;
    assert_eq!(world.systemd.unit(UNIT).active_state, "active", "a dry run changes nothing");

    let removed = remove(&world, PURGE).await;

    assert_eq!(removed.undone, foreseen.undone);
    assert!(removed.undone.contains(&format!("stop {UNIT}")), "{removed:?}");
    assert_eq!(removed.installed.unwrap().1.to_string(), "v1.0.0");
    assert_eq!(bare(&world), before);
}

#[tokio::test]
async fn an_uninstallation_keeps_the_configuration_for_the_next_installation() {
    let world = World::new().await;
    let before = bare(&world);
    world.install().await.unwrap();
    let config = world.host.layout.config();
    let mine = format!("{}\nlog = \"debug\"\n", fs::read_to_string(&config).unwrap());
    fs::write(&config, &mine).unwrap();

    let removed = remove(&world, REMOVE).await;

    assert_eq!(removed.kept, std::slice::from_ref(&config));
    let mut left = world.listing().without_journal().files;
    left.retain(|path, _| !before.files.contains_key(path) && path != Path::new("etc/passwd-"));
    let left: Vec<_> = left.keys().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(left, ["etc/aio-worker", "etc/aio-worker/config.toml"]);
    let again = remove(&world, REMOVE).await;
    assert!(again.undone.is_empty() && again.installed.is_none(), "{again:?}");

    world.install().await.unwrap();
    assert_eq!(fs::read_to_string(&config).unwrap(), mine);
    remove(&world, PURGE).await;
    assert_eq!(bare(&world), before);
}

#[tokio::test]
async fn where_nothing_is_installed_nothing_is_done() {
    let world = World::new().await;
    let before = bare(&world);
    let removed = remove(&world, PURGE).await;
    assert!(removed.undone.is_empty() && removed.installed.is_none(), "{removed:?}");
    assert_eq!(bare(&world), before);
}

#[tokio::test]
async fn what_installations_and_upgrades_have_replaced_comes_back() {
    let mut world = World::new().await;
    fs::write(world.host.layout.command(), "the older binary").unwrap();
    fs::write(world.host.layout.unit(), "[Service]\nExecStart=/old\n[Install]\nWantedBy=multi-user.target\n")
        .unwrap();
    let before = bare(&world);
    world.install().await.unwrap();
    world.change(|server| {
        server.version = "v1.1.0";
        server.file = program(b"the next release");
    });
    world.use_token("second", &json!({}));
    world.install().await.unwrap();
    assert!(world.release("v1.0.0").exists() && world.release("v1.1.0").exists());

    remove(&world, PURGE).await;

    assert_eq!(bare(&world), before);
}

#[tokio::test]
async fn an_uninstallation_that_is_killed_at_any_step_is_finished_by_the_next() {
    for step in STEPS {
        let world = World::new().await;
        let before = bare(&world);
        world.install().await.unwrap();
        let at = At::new(&format!("{:?}", Point::Undone(step)), Mishap::Kill);
        let reached = tokio::select! {
            _ = remove_with(&world, PURGE, &at) => false,
            () = at.killed.notified() => true,
        };
        // A step without an effect that lasts has no record.
        assert!(reached || ["reload_manager", "await_online", "fetch_release"].contains(step), "{step}");
        remove(&world, PURGE).await;
        assert_eq!(bare(&world), before, "{step}");
    }
}

#[tokio::test]
async fn an_installation_that_was_cut_off_is_uninstalled_too() {
    for step in STEPS {
        let world = World::new().await;
        let before = bare(&world);
        install_and_die(&world, &At::new(&format!("{:?}", Point::Applied(step)), Mishap::Kill)).await;
        remove(&world, PURGE).await;
        assert_eq!(bare(&world), before, "{step}");
    }
}

#[tokio::test]
async fn what_cannot_be_undone_is_told_and_tried_again() {
    let world = World::new().await;
    let before = bare(&world);
    world.install().await.unwrap();
    let stuck = At::new(&format!("{:?}", Point::Undone("write_unit")), Mishap::Failure);
    let failure = remove_with(&world, PURGE, &stuck).await.unwrap_err();
    assert!(failure.message.contains("not everything could be undone"), "{}", failure.message);
    remove(&world, PURGE).await;
    assert_eq!(bare(&world), before);
}

/// A state folder that somebody else has made before, and what lies outside.
fn foreign_state(world: &World) -> std::path::PathBuf {
    let state = world.host.layout.state_dir();
    fs::create_dir_all(state.join("sub")).unwrap();
    fs::write(state.join("sub/mine"), "mine").unwrap();
    let victim = world.dir.path().join("etc/victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("passwords"), "keep").unwrap();
    victim
}

/// What a daemon that was taken over may do with the folder that is its own.
fn plant_links(world: &World, victim: &Path) {
    let state = world.host.layout.state_dir();
    for name in ["sub", "planted"] {
        let _ = fs::remove_dir_all(state.join(name));
        std::os::unix::fs::symlink(victim, state.join(name)).unwrap();
    }
    fs::create_dir(state.join("deep")).unwrap();
    std::os::unix::fs::symlink(victim, state.join("deep/planted")).unwrap();
}

#[tokio::test]
async fn no_link_that_the_daemon_plants_is_followed_by_an_uninstallation() {
    let world = World::new().await;
    let victim = foreign_state(&world);
    let before = bare(&world);
    world.install().await.unwrap();
    plant_links(&world, &victim);
    remove(&world, PURGE).await;
    assert_eq!(bare(&world), before, "what was there is back, and nothing else is touched");
}

#[tokio::test]
async fn no_link_that_the_daemon_plants_is_followed_by_an_undo() {
    let world = World::new().await;
    let victim = foreign_state(&world);
    let before = bare(&world);
    let (layout, planted) = (world.host.layout.clone(), victim.clone());
    world.systemd.on_start(move |_| {
        fs::create_dir_all(layout.state_dir().join("sub")).unwrap();
        fs::remove_dir_all(layout.state_dir().join("sub")).unwrap();
        std::os::unix::fs::symlink(&planted, layout.state_dir().join("sub")).unwrap();
    });
    world.systemd.next_start(aio_host::systemd::fake::StartOutcome::Done);
    let interrupt = {
        let state = world.host.layout.state_dir();
        Box::pin(async move {
            while !state.join("sub").is_symlink() {
                tokio::task::yield_now().await;
            }
            "SIGINT"
        })
    };
    world.install_with(&Uneventful, interrupt).await.unwrap_err();
    assert_eq!(bare(&world), before);
}

#[tokio::test]
async fn an_empty_state_folder_of_somebody_else_is_used_and_given_back_without_following_links() {
    let world = World::new().await;
    let victim = foreign_state(&world);
    let state = world.host.layout.state_dir();
    fs::remove_dir_all(state.join("sub")).unwrap();
    fs::create_dir(state.join("lost+found")).unwrap();
    let before = bare(&world);
    world.install().await.unwrap();
    assert!(state.join("lost+found").exists(), "it may be a file system of its own");
    plant_links(&world, &victim);
    remove(&world, PURGE).await;
    assert_eq!(bare(&world), before);
}

#[tokio::test]
async fn what_is_moved_aside_is_told_and_a_second_run_moves_nothing() {
    let world = World::new().await;
    foreign_state(&world);
    let outcome = world.install().await.unwrap();
    let aio_installer::install::OutcomeKind::Installed { warnings, .. } = outcome.kind else {
        panic!("{outcome:?}")
    };
    let aside = world.host.layout.state_dir().with_file_name("aio-worker.before");
    assert!(warnings.iter().any(|warning| warning.contains(aside.to_str().unwrap())), "{warnings:?}");
    assert_eq!(fs::read_to_string(aside.join("sub/mine")).unwrap(), "mine");
    assert!(world.planned().await.is_empty());
    world.change(|server| {
        server.version = "v1.1.0";
        server.file = program(b"the next release");
    });
    world.install().await.unwrap();
    assert!(!world.host.layout.state_dir().with_file_name("aio-worker.before.1").exists());
}
