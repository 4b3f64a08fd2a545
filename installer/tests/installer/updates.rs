//! Root's part of an update: what it believes, what it does, how it gets back, whatever happens
//! meanwhile.

mod node;

use std::{collections::BTreeMap, fs, os::unix::fs::symlink, path::PathBuf, time::Duration};

use aio_host::{
    layout::{REHEARSAL_UNIT, UNIT, UPDATE_SOCKET_UNIT},
    systemd::fake::StartOutcome,
};
use aio_installer::{Point, UPDATER_STEPS, Uneventful, update};
use aio_protocol::{
    error_code::ErrorCode,
    update::{RootAnswer, RootPhase, RootRequest, RootStatus, Verdict},
};
use minisign::KeyPair;

use crate::{
    crash::{At, Mishap, install_and_die},
    server::program,
    uninstall::{PURGE, bare, remove},
    world::{Daemon, Listing, NODE, World},
};
use node::{ID, Node, Release, TIMINGS, asking, release, version};

const SWITCH: RootRequest = RootRequest::Switch { update_id: ID };

#[tokio::test]
async fn a_release_is_verified_rehearsed_switched_to_and_committed() {
    let node = Node::new().await;
    let before = node.listing();
    let stage = node.bring(&release("v1.1.0"));
    let calls = node.world.systemd.calls().len();
    assert_eq!(node.ask(&[stage]).await, [RootAnswer::Staged]);
    let status = node.status();
    assert_eq!((status.phase, status.update_id, status.index_serial), (RootPhase::Staged, Some(ID), Some(7)));
    let layout = &node.world.host.layout;
    assert!(!layout.rehearsal_unit().exists(), "a rehearsal leaves no unit");
    assert!(node.world.systemd.calls()[calls..].contains(&format!("StartUnit({REHEARSAL_UNIT})")));

    assert_eq!(node.ask(&[SWITCH]).await, [RootAnswer::Switching]);

    assert_eq!(node.verdict(), (Verdict::Succeeded, None));
    assert_eq!(node.runs(), "v1.1.0");
    assert_eq!(fs::read_link(layout.updater()).unwrap(), PathBuf::from("v1.1.0"));
    let unit = |name: &str| fs::read_to_string(layout.units().join(name)).unwrap();
    assert!(unit(UNIT).starts_with("# of v1.1.0") && unit(UPDATE_SOCKET_UNIT).starts_with("# of v1.1.0"));
    assert!(!layout.units().join("aio-worker-later.service").exists(), "no unit comes that was not there");
    assert!(!layout.staged_release().exists());
    let restarts = node.world.systemd.calls().iter().filter(|call| call.starts_with("RestartUnit")).count();
    assert_eq!(restarts, 1, "one gap");

    // And back, with the units of then.
    let back = RootRequest::Revert { update_id: ID };
    assert_eq!(node.ask(std::slice::from_ref(&back)).await, [RootAnswer::Switching]);
    assert_eq!(node.verdict(), (Verdict::Reverted, None));
    assert_eq!(node.runs(), "v1.0.0");
    let files = |listing: &Listing| {
        let releases = |path: &PathBuf| path.starts_with("usr/local/lib");
        let kept = listing.files.iter().filter(|(path, _)| !releases(path));
        kept.map(|(path, what)| (path.clone(), what.clone())).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(files(&node.listing()), files(&before));
    let [RootAnswer::Refused { code, .. }] = &node.ask(&[back]).await[..] else { panic!("twice back") };
    assert_eq!(code, ErrorCode::RevertImpossible.as_str());

    remove(&node.world, PURGE).await;
    assert!(!node.world.host.layout.releases().exists());
}

#[tokio::test]
async fn an_uninstallation_after_updates_leaves_nothing() {
    let mut world = World::new().await;
    let before = bare(&world);
    let keys = KeyPair::generate_unencrypted_keypair().unwrap();
    asking(&mut world, &keys);
    world.install().await.unwrap();
    let node = Node { world, keys, timings: TIMINGS };
    for folder in [
        node.world.host.layout.update_status().parent().unwrap().to_owned(),
        node.world.host.layout.update_runtime_dir(),
    ] {
        fs::create_dir_all(folder).unwrap();
    }
    for name in ["v1.1.0", "v1.2.0"] {
        let stage = node.bring(&release(name));
        assert_eq!(node.ask(&[stage, SWITCH]).await, [RootAnswer::Staged, RootAnswer::Switching]);
        assert_eq!(node.runs(), name);
    }
    assert!(!node.world.release("v1.0.0").exists(), "it is neither the one that runs nor the one before");
    remove(&node.world, PURGE).await;
    assert_eq!(bare(&node.world), before);
}

#[tokio::test]
async fn a_release_that_does_not_work_is_left_again_and_says_why() {
    let stuck = |code| Daemon::Unlike("1.1.0", Box::new(Daemon::Stuck(code)));
    let lost = Daemon::Unlike("1.1.0", Box::new(Daemon::WithoutGpus));
    let table: [(&str, Option<StartOutcome>, Daemon, Verdict, ErrorCode); 6] = [
        ("its GPUs are gone", None, lost, Verdict::Faulty, ErrorCode::UpdateFaulty),
        (
            "it ends at once",
            Some(StartOutcome::Failed),
            Daemon::Online(NODE),
            Verdict::Faulty,
            ErrorCode::UpdateFaulty,
        ),
        (
            "it says nothing",
            Some(StartOutcome::Timeout),
            Daemon::Online(NODE),
            Verdict::Faulty,
            ErrorCode::UpdateFaulty,
        ),
        ("it is refused", None, stuck(Some("TOKEN_REVOKED")), Verdict::Faulty, ErrorCode::UpdateFaulty),
        ("it is not online", None, stuck(None), Verdict::Faulty, ErrorCode::UpdateFaulty),
        ("nobody is online", None, Daemon::Stuck(None), Verdict::Inconclusive, ErrorCode::UpdateInconclusive),
    ];
    for (what, start, daemon, verdict, code) in table {
        let node = Node::new().await;
        let stage = node.bring(&release("v1.1.0"));
        assert_eq!(node.ask(&[stage]).await, [RootAnswer::Staged]);
        let before = node.listing();
        if let Some(outcome) = start {
            node.world.systemd.next_start(outcome);
        }
        node.world.daemon_is(daemon);
        assert_eq!(node.ask(&[SWITCH]).await, [RootAnswer::Switching], "{what}");
        assert_eq!(node.verdict(), (verdict, Some(code.as_str().to_owned())), "{what}");
        let mut after = before;
        after.files.retain(|path, _| !path.starts_with("usr/local/lib/aio-worker/.staged"));
        assert_eq!(node.listing(), after, "{what}");
        assert_eq!(node.runs(), "v1.0.0");
    }
}

#[tokio::test]
async fn a_release_that_fails_its_rehearsal_is_never_switched_to() {
    let node = Node::new().await;
    let before = node.listing();
    let stage = node.bring(&release("v1.1.0"));
    node.world.systemd.next_start(StartOutcome::Failed);
    let [RootAnswer::Refused { code, .. }, RootAnswer::Refused { code: nothing, .. }] =
        &node.ask(&[stage, SWITCH]).await[..]
    else {
        panic!("it was staged")
    };
    assert_eq!(code, ErrorCode::RehearsalFailed.as_str());
    assert_eq!(nothing, ErrorCode::UpdateInvalid.as_str());
    assert_eq!((node.listing(), node.status().phase), (before, RootPhase::Idle));
}

#[tokio::test]
async fn what_is_cut_off_at_any_moment_is_undone_by_the_next_service_and_by_the_next_boot() {
    const STEPS: [&str; 6] =
        ["place_release", "write_units", "reload_manager", "switch_release", "start_unit", "await_online"];
    let moments =
        STEPS.iter().flat_map(|step| [Point::Intended(step), Point::Applied(step), Point::Done(step)]);
    for (number, moment) in moments.enumerate() {
        let boots = number % 2 == 0;
        let node = Node::new().await;
        let stage = node.bring(&release("v1.1.0"));
        assert_eq!(node.ask(&[stage]).await, [RootAnswer::Staged]);
        let without_staged = |node: &Node| {
            let mut listing = node.listing();
            listing.files.retain(|path, _| !path.starts_with("usr/local/lib/aio-worker/.staged"));
            listing
        };
        let before = without_staged(&node);
        let at = At::new(&format!("{moment:?}"), Mishap::Kill);
        tokio::select! {
            answers = node.ask_with(&[SWITCH], &at) => panic!("{moment:?} never came: {answers:?}"),
            () = at.killed.notified() => {}
        }
        let restarts =
            || node.world.systemd.calls().iter().filter(|call| call.starts_with("RestartUnit")).count();
        let restarted = restarts();
        if boots {
            update::recover(&node.world.host, TIMINGS).await.unwrap();
            assert_eq!(restarts(), restarted, "at boot nobody is waited for");
        } else {
            node.ask(&[]).await;
        }
        assert_eq!(node.verdict().0, Verdict::Interrupted, "{moment:?}");
        assert_eq!(without_staged(&node), before, "{moment:?}, at boot: {boots}");
    }
}

#[tokio::test]
async fn switching_updates_on_is_undone_whenever_it_is_cut_off() {
    for step in UPDATER_STEPS {
        for moment in [Point::Intended(step), Point::Applied(step), Point::Done(step)] {
            let mut world = World::new().await;
            let before = bare(&world);
            asking(&mut world, &KeyPair::generate_unencrypted_keypair().unwrap());
            install_and_die(&world, &At::new(&format!("{moment:?}"), Mishap::Kill)).await;
            remove(&world, PURGE).await;
            assert_eq!(bare(&world), before, "{moment:?}");
        }
    }
}

#[tokio::test]
async fn what_the_daemon_s_user_puts_in_the_way_is_refused_and_never_followed() {
    let node = Node::new().await;
    let before = node.listing();
    let good = release("v1.1.0");
    let inbox = node.inbox();
    let secret = node.world.dir.path().join("run/secret");
    fs::write(&secret, program(b"the release v1.1.0")).unwrap();
    let refused = async |change: &dyn Fn(), what: &str| {
        let stage = node.bring(&good);
        change();
        let [RootAnswer::Refused { code, message }] = &node.ask(&[stage]).await[..] else {
            panic!("{what} was taken")
        };
        assert_eq!(node.listing(), before, "{what}");
        ErrorCode::parse(code).unwrap_or_else(|| panic!("{code}: {message}"))
    };
    let file = |name: &str| inbox.join(name);
    let replace = |name: &str, bytes: &[u8]| fs::write(file(name), bytes).unwrap();
    let link = |name: &str| {
        fs::remove_file(file(name)).unwrap();
        symlink(&secret, file(name)).unwrap();
    };
    for name in ["linux-amd64", "index.json", "manifest.json", UNIT] {
        assert_eq!(refused(&|| link(name), name).await, ErrorCode::FileFailed, "a link: {name}");
        let fifo = || {
            fs::remove_file(file(name)).unwrap();
            rustix::fs::mknodat(
                rustix::fs::CWD,
                file(name),
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::RUSR,
                0,
            )
            .unwrap();
        };
        assert_eq!(refused(&fifo, name).await, ErrorCode::ReleaseInvalid, "a pipe: {name}");
        let gone = || fs::remove_file(file(name)).unwrap();
        assert_eq!(refused(&gone, name).await, ErrorCode::FileFailed, "nothing: {name}");
    }
    let moved = || {
        let elsewhere = node.world.dir.path().join("run/elsewhere");
        let _ = fs::remove_dir_all(&elsewhere);
        fs::rename(&inbox, &elsewhere).unwrap();
        symlink(&elsewhere, &inbox).unwrap();
    };
    assert_eq!(refused(&moved, "the folder is a link").await, ErrorCode::FileFailed);
    fs::remove_file(&inbox).unwrap();
    fs::remove_dir_all(node.world.dir.path().join("run/elsewhere")).unwrap();
    let table: [(&str, &dyn Fn(), ErrorCode); 7] = [
        ("cut off", &|| replace("linux-amd64", &good.program[..30]), ErrorCode::SizeMismatch),
        ("longer", &|| replace("linux-amd64", &[&good.program[..], b"!"].concat()), ErrorCode::SizeMismatch),
        ("swapped", &|| replace("linux-amd64", &program(b"the release v1.2.0")), ErrorCode::ChecksumMismatch),
        ("another unit", &|| replace(UNIT, b"[Service]\nExecStart=/bin/sh\n"), ErrorCode::ChecksumMismatch),
        ("another manifest", &|| replace("manifest.json", b"{}"), ErrorCode::ChecksumMismatch),
        ("a huge index", &|| replace("index.json", &vec![b' '; 300 << 10]), ErrorCode::SizeMismatch),
        ("unsigned", &|| replace("index.json.minisig", b"no signature"), ErrorCode::SignatureInvalid),
    ];
    for (what, change, code) in table {
        assert_eq!(refused(change, what).await, code, "{what}");
    }
}

#[tokio::test]
async fn root_believes_no_other_key_no_old_index_and_no_other_platform() {
    let node = Node::new().await;
    let code = async |node: &Node, release: &Release| match &node.ask(&[node.bring(release)]).await[..] {
        [RootAnswer::Staged] => None,
        [RootAnswer::Refused { code, .. }] => ErrorCode::parse(code),
        other => panic!("{other:?}"),
    };
    let keys = KeyPair::generate_unencrypted_keypair().unwrap();
    let other = Node { world: World::new().await, keys, timings: TIMINGS };
    let forged = Node { keys: other.keys, ..node };
    assert_eq!(code(&forged, &release("v1.1.0")).await, Some(ErrorCode::SignatureForeign));
    let node = Node::new().await;
    let mut expired = release("v1.1.0");
    expired.index.expires_at = expired.index.issued_at;
    assert_eq!(code(&node, &expired).await, Some(ErrorCode::IndexExpired));
    assert_eq!(code(&node, &release("v1.1.0")).await, None);
    let mut replayed = release("v1.2.0");
    replayed.index.serial = 6;
    assert_eq!(code(&node, &replayed).await, Some(ErrorCode::IndexReplayed));
    let mut foreign = release("v1.2.0");
    foreign.program[18] = 183;
    assert_eq!(code(&node, &foreign).await, Some(ErrorCode::ArchitectureMismatch));
    let mut floored = release("v1.2.0");
    floored.index.floor = Some(version("v1.3.0"));
    assert_eq!(code(&node, &floored).await, Some(ErrorCode::UpdateBelowFloor));
    let request = node.bring(&release("v1.2.0"));
    let RootRequest::Stage { update_id, version, manifest_sha256, .. } = request else { unreachable!() };
    let mistaken = RootRequest::Stage { update_id, version, manifest_sha256, index_serial: 8 };
    let [RootAnswer::Refused { code, .. }] = &node.ask(&[mistaken]).await[..] else { panic!("taken") };
    assert_eq!(code, ErrorCode::UpdateInvalid.as_str());
}

#[tokio::test]
async fn what_is_no_request_is_answered_and_changes_nothing() {
    let node = Node::new().await;
    let before = node.listing();
    let lines = [
        String::new(),
        "x".repeat(2048),
        r#"{"ask":"stage"}"#.to_owned(),
        format!(r#"{{"ask":"switch","updateId":"{ID}","path":"/etc"}}"#),
        format!(r#"{{"ask":"switch","updateId":"{ID}"}}"#),
        format!(r#"{{"ask":"revert","updateId":"{ID}"}}"#),
    ];
    let answers = node.say(&lines, &Uneventful).await;
    let codes: Vec<_> = answers
        .iter()
        .map(|line| match serde_json::from_str(line).unwrap() {
            RootAnswer::Refused { code, .. } => code,
            other => panic!("{other:?}"),
        })
        .collect();
    let invalid = ErrorCode::UpdateInvalid.as_str();
    let impossible = ErrorCode::RevertImpossible.as_str();
    assert_eq!(codes, [invalid, invalid, invalid, invalid, invalid, impossible]);
    assert_eq!(node.listing(), before);
}

/// Root's record as it would be at another phase.
fn pretend(node: &Node, phase: &str) {
    let path = node.world.host.layout.update_status();
    let mut status: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    status["phase"] = phase.into();
    fs::write(path, status.to_string()).unwrap();
}

#[tokio::test]
async fn an_update_whose_place_an_installation_has_taken_was_interrupted() {
    let node = Node::new().await;
    let stage = node.bring(&release("v1.1.0"));
    assert_eq!(node.ask(&[stage]).await, [RootAnswer::Staged]);
    pretend(&node, "probation");
    node.ask(&[]).await;
    assert_eq!(node.verdict().0, Verdict::Interrupted);
    assert_eq!(node.runs(), "v1.0.0");
}

#[tokio::test]
async fn an_update_whose_last_word_was_not_written_any_more_has_succeeded() {
    let node = Node::new().await;
    let stage = node.bring(&release("v1.1.0"));
    assert_eq!(node.ask(&[stage, SWITCH]).await, [RootAnswer::Staged, RootAnswer::Switching]);
    let path = node.world.host.layout.update_status();
    let mut status: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (field, value) in
        [("phase", "probation"), ("updateId", &ID.to_string()), ("from", "v1.0.0"), ("version", "v1.1.0")]
    {
        status[field] = value.into();
    }
    status.as_object_mut().unwrap().remove("last");
    fs::write(path, status.to_string()).unwrap();
    node.ask(&[]).await;
    assert_eq!(node.verdict(), (Verdict::Succeeded, None));
    assert_eq!(node.status().phase, RootPhase::Idle);
}

#[tokio::test]
async fn a_way_back_whose_last_word_was_not_written_any_more_was_taken() {
    let node = Node::new().await;
    let stage = node.bring(&release("v1.1.0"));
    let back = RootRequest::Revert { update_id: ID };
    node.ask(&[stage, SWITCH]).await;
    let before = node.status();
    assert_eq!(node.ask(&[back]).await, [RootAnswer::Switching]);
    let after = node.status();
    for phase in [RootPhase::Reverting, RootPhase::Proving] {
        let cut_off = RootStatus {
            phase,
            update_id: Some(ID),
            from: Some(version("v1.1.0")),
            version: Some(version("v1.0.0")),
            ..before.clone()
        };
        let path = node.world.host.layout.update_status();
        fs::write(path, serde_json::to_vec(&cut_off).unwrap()).unwrap();
        update::recover(&node.world.host, TIMINGS).await.unwrap();
        let status = node.status();
        assert_eq!((node.verdict().0, &status.previous), (Verdict::Reverted, &after.previous), "{phase:?}");
        assert_eq!(node.runs(), "v1.0.0");
    }
}

#[tokio::test]
async fn what_an_operator_takes_back_is_taken_back_for_good_whenever_that_is_cut_off() {
    let back = RootRequest::Revert { update_id: ID };
    for step in ["start_unit", "switch_release", "write_units", "place_release"] {
        let mut node = Node::new().await;
        node.timings.probation = Duration::from_secs(60);
        let asked = [node.bring(&release("v1.1.0")), SWITCH, back.clone()];
        let at = At::new(&format!("{:?}", Point::Undone(step)), Mishap::Kill);
        tokio::select! {
            answers = node.ask_with(&asked, &at) => {
                panic!("{step} was never undone: {answers:?}")
            }
            () = at.killed.notified() => {}
        }
        update::recover(&node.world.host, TIMINGS).await.unwrap();
        assert_eq!(node.verdict(), (Verdict::Reverted, None), "{step}");
        assert_eq!(node.runs(), "v1.0.0");
    }
}

#[tokio::test]
async fn a_machine_that_cannot_take_a_release_says_nothing_against_it() {
    let node = Node::new().await;
    let stage = node.bring(&release("v1.1.0"));
    assert_eq!(node.ask(&[stage]).await, [RootAnswer::Staged]);
    let unit = node.world.host.layout.unit();
    let before = fs::read(&unit).unwrap();
    fs::remove_file(&unit).unwrap();
    fs::create_dir(&unit).unwrap();
    assert_eq!(node.ask(&[SWITCH]).await, [RootAnswer::Switching]);
    let (verdict, code) = node.verdict();
    assert_eq!((verdict, code.as_deref()), (Verdict::Inconclusive, Some("FILE_FAILED")));
    fs::remove_dir(&unit).unwrap();
    fs::write(&unit, before).unwrap();
    assert_eq!(node.runs(), "v1.0.0");
}

#[tokio::test]
async fn an_installation_is_told_of_the_update_that_holds_the_machine() {
    let node = Node::new().await;
    let stage = node.bring(&release("v1.1.0"));
    assert_eq!(node.ask(&[stage]).await, [RootAnswer::Staged]);
    let folder = fs::File::open(node.world.host.layout.journal_dir()).unwrap();
    rustix::fs::flock(&folder, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let code = async || node.world.install().await.unwrap_err().code;
    pretend(&node, "probation");
    assert_eq!(code().await, ErrorCode::UpdateBusy);
    pretend(&node, "idle");
    assert_eq!(code().await, ErrorCode::InstallLocked);
}
