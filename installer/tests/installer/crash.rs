//! A failure, and a killed process, at every moment of an installation. The moments come from the
//! code: a new step cannot be forgotten.

use std::{fs, os::unix::fs::PermissionsExt, pin::Pin, sync::Mutex};

use aio_installer::{Checkpoint, Failure, Point, STEPS, Uneventful, install::OutcomeKind};
use aio_protocol::error_code::ErrorCode;
use serde_json::json;

use crate::{
    server::{Plan, program},
    world::{Listing, World},
};

/// What happens at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    /// The step fails.
    Failure,
    /// The process is gone, without a word.
    Kill,
}

/// A checkpoint at which something happens.
pub struct At {
    pub moment: String,
    mishap: Mishap,
    seen: Mutex<Vec<String>>,
    pub killed: tokio::sync::Notify,
}

impl At {
    pub fn new(moment: &str, mishap: Mishap) -> Self {
        Self { moment: moment.to_owned(), mishap, seen: Mutex::default(), killed: tokio::sync::Notify::new() }
    }
}

impl Checkpoint for At {
    fn reached<'a>(&'a self, point: Point<'a>) -> Pin<Box<dyn Future<Output = Result<(), Failure>> + 'a>> {
        let moment = format!("{point:?}");
        self.seen.lock().unwrap().push(moment.clone());
        Box::pin(async move {
            if moment != self.moment {
                return Ok(());
            }
            match self.mishap {
                Mishap::Failure => Err(Failure::new(ErrorCode::Internal, moment)),
                Mishap::Kill => {
                    self.killed.notify_one();
                    std::future::pending().await
                }
            }
        })
    }
}

/// Every moment of an installation of these steps.
fn moments(steps: &[&'static str]) -> Vec<String> {
    let points =
        steps.iter().flat_map(|step| [Point::Intended(step), Point::Applied(step), Point::Done(step)]);
    points.chain([Point::Complete]).map(|point| format!("{point:?}")).collect()
}

/// Installs until the process is killed.
pub async fn install_and_die(world: &World, at: &At) {
    tokio::select! {
        outcome = world.install_with(at, Box::pin(std::future::pending())) => panic!("{} never came: {outcome:?}", at.moment),
        () = at.killed.notified() => {}
    }
}

pub async fn upgradable() -> (World, Listing) {
    let mut world = World::new().await;
    fs::write(world.host.layout.command(), "the older binary").unwrap();
    world.install().await.unwrap();
    world.change(|server| {
        server.version = "v1.1.0";
        server.file = program(b"the next release");
    });
    world.use_token("second", &json!({}));
    // As somebody left it: of another owner where that can be, and of a mode of its own.
    fs::write(world.host.layout.unit(), "[Service]\n[Install]\nWantedBy=multi-user.target\n").unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(world.host.layout.unit(), Some(7), Some(8)).unwrap();
    }
    fs::set_permissions(world.host.layout.unit(), fs::Permissions::from_mode(0o6640)).unwrap();
    let before = world.listing();
    (world, before)
}

const UPGRADE: &[&str] = &[
    "fetch_release",
    "place_release",
    "write_token",
    "write_unit",
    "switch_release",
    "reload_manager",
    "start_unit",
    "await_online",
];

#[tokio::test]
async fn the_moments_are_those_of_a_real_installation() {
    let world = World::new().await;
    let at = At::new("none", Mishap::Failure);
    world.install_with(&at, Box::pin(std::future::pending())).await.unwrap();
    assert_eq!(*at.seen.lock().unwrap(), moments(STEPS));
    let (world, _) = upgradable().await;
    assert_eq!(world.planned().await, UPGRADE);
}

#[tokio::test]
async fn a_failure_at_any_moment_leaves_a_bare_machine_bare() {
    for moment in moments(STEPS) {
        let world = World::new().await;
        let before = world.listing();
        let at = At::new(&moment, Mishap::Failure);
        let failure = world.install_with(&at, Box::pin(std::future::pending())).await.unwrap_err();
        assert_eq!(failure.message, moment);
        assert_eq!(world.listing(), before, "{moment}");
        assert_eq!(world.phases(), ["started", "failed"], "{moment}");
        let named =
            STEPS.iter().find(|step| moment.contains(&format!("\"{step}\""))).unwrap_or(&"await_online");
        assert_eq!(world.reports().last().unwrap()["step"], **named);
    }
}

#[tokio::test]
async fn a_failure_at_any_moment_of_an_upgrade_leaves_the_old_worker_running() {
    for moment in moments(UPGRADE) {
        let (world, before) = upgradable().await;
        let at = At::new(&moment, Mishap::Failure);
        world.install_with(&at, Box::pin(std::future::pending())).await.unwrap_err();
        assert_eq!(world.listing(), before, "{moment}");
        assert_eq!(before.active, "active");
    }
}

#[tokio::test]
async fn a_killed_installation_is_made_good_by_the_next_run() {
    let clean = World::new().await;
    clean.install().await.unwrap();
    let installed = names(clean.listing().without_journal());
    for moment in moments(STEPS) {
        let world = World::new().await;
        install_and_die(&world, &At::new(&moment, Mishap::Kill)).await;
        let outcome = world.install().await.unwrap_or_else(|failure| panic!("{moment}: {failure:?}"));
        assert!(matches!(outcome.kind, OutcomeKind::Installed { .. }), "{moment}: {outcome:?}");
        assert_eq!(names(world.listing().without_journal()), installed, "{moment}");
        assert!(world.planned().await.is_empty(), "{moment}");
    }
}

#[tokio::test]
async fn a_killed_installation_is_undone_by_a_next_run_that_can_do_no_more() {
    for moment in moments(STEPS) {
        let world = World::new().await;
        let before = world.listing();
        install_and_die(&world, &At::new(&moment, Mishap::Kill)).await;
        world.change(|server| server.plan = Plan::Refused(401, "TOKEN_REVOKED"));
        world.install().await.unwrap_err();
        assert_eq!(world.listing(), before, "{moment}");
    }
}

#[tokio::test]
async fn a_killed_upgrade_goes_back_to_the_old_worker() {
    for moment in moments(UPGRADE) {
        let (world, before) = upgradable().await;
        install_and_die(&world, &At::new(&moment, Mishap::Kill)).await;
        world.change(|server| server.plan = Plan::Refused(401, "TOKEN_REVOKED"));
        world.install().await.unwrap_err();
        assert_eq!(world.listing(), before, "{moment}");
    }
}

#[tokio::test]
async fn an_undoing_that_is_killed_is_taken_up_again() {
    for step in STEPS {
        let world = World::new().await;
        let before = world.listing();
        install_and_die(&world, &At::new(&format!("{:?}", Point::Complete), Mishap::Kill)).await;
        world.change(|server| server.plan = Plan::Refused(401, "TOKEN_REVOKED"));
        install_and_die(&world, &At::new(&format!("{:?}", Point::Undone(step)), Mishap::Kill)).await;
        world.install_with(&Uneventful, Box::pin(std::future::pending())).await.unwrap_err();
        assert_eq!(world.listing(), before, "{step}");
    }
}

#[tokio::test]
async fn what_cannot_be_undone_is_told_and_tried_again_by_the_next_run() {
    let world = World::new().await;
    let before = world.listing();
    let at = At::new(&format!("{:?}", Point::Applied("start_unit")), Mishap::Kill);
    install_and_die(&world, &at).await;
    let stuck = At::new(&format!("{:?}", Point::Undone("write_unit")), Mishap::Failure);
    let failure = world.install_with(&stuck, Box::pin(std::future::pending())).await.unwrap_err();
    assert!(failure.message.contains("not everything could be undone"), "{}", failure.message);
    assert!(world.host.layout.journal_dir().join("journal.jsonl").exists());
    world.change(|server| server.plan = Plan::Refused(401, "TOKEN_REVOKED"));
    world.install().await.unwrap_err();
    assert_eq!(world.listing(), before);
}

#[tokio::test]
async fn a_journal_that_cannot_be_understood_is_left_alone() {
    let world = World::new().await;
    let dir = world.host.layout.journal_dir();
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("journal.jsonl"), "{\"record\":\"of a newer installer\"}\n").unwrap();
    let before = world.listing();
    assert_eq!(world.install().await.unwrap_err().code, ErrorCode::JournalUnreadable);
    assert_eq!(world.listing(), before);
}

/// Names, modes and owners: contents that hold a port differ from world to world.
fn names(listing: Listing) -> Vec<(std::path::PathBuf, String)> {
    let shape = |text: &str| text.split(' ').take(2).collect::<Vec<_>>().join(" ");
    listing.files.iter().map(|(path, text)| (path.clone(), shape(text))).collect()
}
