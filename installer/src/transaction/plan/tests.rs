//! The plan as a table: a machine as it is, and the steps that follow.

use std::{path::PathBuf, time::Duration};

use aio_host::{files::FileSystem, systemd::UnitState};
use aio_protocol::{ids::NodeId, time::Timestamp};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::SecretString;

use super::*;
use crate::machine::{state_folder::StateFolder, updater::Updater};
use crate::{machine::adoption::OlderUnit, release::verify::tests::release_of, transaction::step::STEPS};

const NODE: &str = "69396100cd71623c7bbfbfee";

fn token(node: &str, jti: &str) -> SecretString {
    let claims = serde_json::json!({
        "sub": node.parse::<NodeId>().unwrap(), "type": "node", "jti": jti, "iat": 0, "exp": 4_000_000_000_i64,
        "ctl": "wss://aiwm.example/ws/node", "api": "https://aiwm.example",
    });
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", encode("{}"), encode(&claims.to_string()), encode("signature")).into()
}

fn file(text: &str, mode: u32) -> Entry {
    Entry::File { mode, bytes: text.into() }
}

fn link(target: impl Into<PathBuf>) -> Entry {
    Entry::Link { target: target.into() }
}

const ROOMY: FileSystem = FileSystem { free_bytes: 1 << 30, free_inodes: None, runs_programs: true };
const FULL: FileSystem = FileSystem { free_bytes: 13, ..ROOMY };

/// A machine on which nothing of ours is.
fn bare() -> Observed {
    Observed {
        config: Entry::Absent,
        ca_file: Entry::Absent,
        token: Entry::Absent,
        unit: Entry::Absent,
        older_unit: None,
        state: StateFolder::Absent,
        declaration: Entry::Absent,
        current: Entry::Absent,
        command: Entry::Absent,
        placed: None,
        user: false,
        service: UnitState {
            load_state: "not-found".into(),
            active_state: "inactive".into(),
            ..UnitState::default()
        },
        updater: Updater { units: vec![Entry::Absent; shipped::UPDATER_UNITS.len()], ..Updater::default() },
        packaged: false,
        releases: ROOMY,
        read_only: Vec::new(),
    }
}

/// A machine on which everything is as the tests' target wants it.
fn right() -> Observed {
    Observed {
        config: file(shipped::SAMPLE, 0o644),
        token: file(token(NODE, "first").expose_secret(), 0o600),
        unit: file(shipped::UNIT_TEXT, 0o644),
        state: StateFolder::Daemons,
        declaration: file(shipped::DECLARATION, 0o644),
        current: link("v1.0.0"),
        command: link("/usr/local/lib/aio-worker/current/aio-worker"),
        placed: Some(release_of(b"release").checksum),
        user: true,
        service: UnitState {
            load_state: "loaded".into(),
            active_state: "active".into(),
            file_state: "enabled".into(),
            ..UnitState::default()
        },
        ..bare()
    }
}

fn steps_for(observed: &Observed, settings: &Settings) -> Result<Vec<&'static str>, Failure> {
    steps_with(observed, settings, None)
}

fn planned(observed: &Observed, settings: &Settings, authorities: Option<&[u8]>) -> Result<Plan, Failure> {
    let token = crate::token::parse(&token(NODE, "first"), Timestamp::from_millis(0)).unwrap();
    plan(observed, &target(&token, settings, observed, authorities), &Layout::default())
}

fn target<'a>(
    token: &'a NodeToken,
    settings: &'a Settings,
    observed: &Observed,
    authorities: Option<&'a [u8]>,
) -> Target<'a> {
    Target {
        token,
        settings,
        release: (!observed.packaged).then(|| {
            let url = "https://releases.example/v1.0.0/linux-amd64";
            let promise = Promise::of(release_of(b"release"), url, None).unwrap();
            (promise, Source::Server(url.parse().unwrap()))
        }),
        authorities,
        updates: None,
        goal: Goal::Online(Duration::from_secs(60)),
        allow_downgrade: false,
        replace_identity: false,
    }
}

fn steps_with(
    observed: &Observed,
    settings: &Settings,
    authorities: Option<&[u8]>,
) -> Result<Vec<&'static str>, Failure> {
    Ok(planned(observed, settings, authorities)?.names().collect())
}

fn steps(observed: &Observed) -> Vec<&'static str> {
    steps_for(observed, &Settings::default()).unwrap()
}

fn refusal(observed: &Observed) -> ErrorCode {
    steps_for(observed, &Settings::default()).unwrap_err().code
}

#[test]
fn authorities_are_written_once_and_named_in_the_configuration() {
    let with = |observed: &Observed| steps_with(observed, &Settings::default(), Some(b"PEM")).unwrap();
    let restart = ["write_config", "start_unit", "await_online"];
    assert_eq!(with(&right()), restart);
    let Entry::File { bytes, .. } = right().config else { panic!("no file") };
    let named = format!("{}ca_file = \"/etc/aio-worker/ca.pem\"\n", String::from_utf8(bytes).unwrap());
    let done = Observed { config: file(&named, 0o644), ca_file: file("PEM", 0o644), ..right() };
    assert_eq!(with(&done), [""; 0]);
    assert_eq!(with(&Observed { ca_file: file("other", 0o644), ..done.clone() }), restart);
    assert_eq!(steps(&done), [""; 0], "what was made known stays known");
}

#[test]
fn a_bare_machine_takes_every_step_in_the_catalogue_s_order() {
    assert_eq!(steps(&bare()), STEPS);
    let more = ["write_units", "reload_manager", "switch_release", "enable_updater"];
    let begin = STEPS.iter().position(|step| *step == "enable_unit").unwrap();
    let (before, after) = STEPS.split_at(begin);
    assert_eq!(updates(&bare()), [before, &more, after].concat());
}

/// The steps where the controller is to update the node.
fn updates(observed: &Observed) -> Vec<&'static str> {
    let token = crate::token::parse(&token(NODE, "first"), Timestamp::from_millis(0)).unwrap();
    let settings = Settings::default();
    let target = Target { updates: Some(vec![key()]), ..target(&token, &settings, observed, None) };
    plan(observed, &target, &Layout::default()).unwrap().names().collect()
}

fn key() -> String {
    "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3".to_owned()
}

/// A machine whose controller updates it.
fn updated() -> Observed {
    let units = shipped::UPDATER_UNITS.map(|(_, text)| file(text, 0o644)).to_vec();
    let socket =
        UnitState { active_state: "active".into(), file_state: "enabled".into(), ..UnitState::default() };
    let updater =
        Updater { units, link: Some("v1.0.0".into()), keys: vec!["E7620F1842B4E81F.pub".into()], socket };
    Observed { updater, ..right() }
}

#[test]
fn updates_are_switched_on_without_touching_the_worker_and_stay_on() {
    assert_eq!(
        updates(&right()),
        ["write_units", "reload_manager", "switch_release", "enable_updater", "await_online"]
    );
    assert_eq!(updates(&updated()), [""; 0]);
    assert_eq!(steps(&updated()), [""; 0], "nobody has to ask again");
    let mut older = updated();
    older.updater.units[1] = file("of an older release", 0o644);
    older.updater.link = Some("v0.9.0".into());
    assert_eq!(steps(&older), ["write_units", "reload_manager", "switch_release", "await_online"]);
    let mut another_key = updated();
    another_key.updater.keys.clear();
    assert_eq!(steps(&another_key), [""; 0], "whose word counts, only root says");
    assert_eq!(updates(&another_key), ["write_units", "await_online"]);
    let mut closed = updated();
    closed.updater.socket.active_state = "inactive".into();
    assert_eq!(steps(&closed), ["enable_updater", "await_online"]);
    // The updater's link is no release that runs: what is pruned goes by the worker's.
    let plan = planned(&older, &Settings::default(), None).unwrap();
    assert_eq!(plan.releases(), None);
}

#[test]
fn a_package_s_version_is_apt_s_to_change() {
    let token = crate::token::parse(&token(NODE, "first"), Timestamp::from_millis(0)).unwrap();
    let settings = Settings::default();
    let observed = Observed { packaged: true, unit: Entry::Absent, command: Entry::Absent, ..right() };
    let target = Target { updates: Some(vec![key()]), ..target(&token, &settings, &observed, None) };
    let refused = plan(&observed, &target, &Layout::default()).unwrap_err();
    assert_eq!(refused.code, ErrorCode::UpdatePackaged);
}

#[test]
fn a_machine_that_is_right_takes_none() {
    assert!(steps(&right()).is_empty());
}

#[test]
fn each_thing_that_is_wrong_takes_its_own_steps() {
    let unit = |change: fn(&mut UnitState)| {
        let mut observed = right();
        change(&mut observed.service);
        observed
    };
    let another = token(NODE, "second");
    let table: [(&str, Observed, &[&str]); 14] = [
        (
            "another token",
            Observed { token: file(another.expose_secret(), 0o600), ..right() },
            &["write_token", "start_unit", "await_online"],
        ),
        (
            "a token that others can read",
            Observed { token: file(token(NODE, "first").expose_secret(), 0o644), ..right() },
            &["write_token", "start_unit", "await_online"],
        ),
        (
            "a token file without token",
            Observed { token: file("garbage", 0o600), ..right() },
            &["write_token", "start_unit", "await_online"],
        ),
        (
            "no configuration",
            Observed { config: Entry::Absent, ..right() },
            &["write_config", "start_unit", "await_online"],
        ),
        (
            "another release",
            Observed { placed: None, current: link("v0.9.0"), ..right() },
            &["fetch_release", "place_release", "switch_release", "start_unit", "await_online"],
        ),
        (
            "a release that is there but not in use",
            Observed { current: link("v0.9.0"), ..right() },
            &["switch_release", "start_unit", "await_online"],
        ),
        (
            "a release file that rotted",
            Observed { placed: None, ..right() },
            &["fetch_release", "place_release", "start_unit", "await_online"],
        ),
        (
            "another unit",
            Observed { unit: file("[Service]", 0o644), ..right() },
            &["write_unit", "reload_manager", "start_unit", "await_online"],
        ),
        (
            "a command that is a file",
            Observed { command: file("#!/bin/sh", 0o755), ..right() },
            &["link_command", "await_online"],
        ),
        (
            "no declaration",
            Observed { declaration: Entry::Absent, ..right() },
            &["declare_user", "await_online"],
        ),
        ("no user", Observed { user: false, ..right() }, &["create_user", "await_online"]),
        (
            "a unit that is not enabled",
            unit(|unit| unit.file_state = "disabled".into()),
            &["enable_unit", "await_online"],
        ),
        (
            "a unit that does not run",
            unit(|unit| unit.active_state = "inactive".into()),
            &["start_unit", "await_online"],
        ),
        (
            "a unit that has failed",
            unit(|unit| unit.active_state = "failed".into()),
            &["start_unit", "await_online"],
        ),
    ];
    for (what, observed, expected) in table {
        assert_eq!(steps(&observed), expected, "{what}");
    }
}

#[test]
fn a_configuration_is_kept_and_changed_only_where_the_operator_asked() {
    let mine = Observed { config: file("log = \"debug\"\n", 0o640), ..right() };
    assert!(steps(&mine).is_empty());
    let settings = Settings { insecure_http: true, ..Settings::default() };
    assert_eq!(steps_for(&mine, &settings).unwrap(), ["write_config", "start_unit", "await_online"]);
}

#[test]
fn a_machine_that_must_not_be_changed_is_refused() {
    let other = token("ffffffffffffffffffffffff", "other");
    let masked =
        UnitState { load_state: "masked".into(), file_state: "masked".into(), ..UnitState::default() };
    let table = [
        (ErrorCode::IdentityConflict, Observed { token: file(other.expose_secret(), 0o600), ..right() }),
        (ErrorCode::DowngradeRefused, Observed { current: link("v99.0.0"), ..right() }),
        (ErrorCode::ConfigInvalid, Observed { config: file("contoller_endpoint = \"x\"", 0o644), ..bare() }),
        (
            ErrorCode::ConfigInvalid,
            Observed { config: Entry::File { mode: 0o644, bytes: vec![0xff] }, ..bare() },
        ),
        (ErrorCode::UnitMasked, Observed { service: masked, ..bare() }),
        (ErrorCode::UnitMasked, Observed { unit: link("/dev/null"), ..bare() }),
        (ErrorCode::DiskFull, Observed { releases: FULL, ..bare() }),
        (ErrorCode::DiskFull, Observed { releases: FileSystem { free_inodes: Some(9), ..ROOMY }, ..bare() }),
        (
            ErrorCode::TargetNoexec,
            Observed { releases: FileSystem { runs_programs: false, ..ROOMY }, ..bare() },
        ),
        (ErrorCode::TargetReadOnly, Observed { read_only: vec!["/usr/local/lib".into()], ..bare() }),
        (ErrorCode::FileFailed, Observed { command: Entry::Other, ..bare() }),
    ];
    for (code, observed) in table {
        assert_eq!(refusal(&observed), code, "{observed:?}");
    }
}

#[test]
fn room_and_writability_do_not_matter_when_nothing_is_to_be_done() {
    let observed = Observed { releases: FULL, read_only: vec!["/usr".into()], ..right() };
    assert!(steps(&observed).is_empty());
    let only_token = Observed { releases: FULL, token: Entry::Absent, ..right() };
    assert_eq!(steps(&only_token), ["write_token", "start_unit", "await_online"]);
}

#[test]
fn what_is_observed_never_shows_the_token() {
    let shown = format!("{:?}", right());
    assert!(!shown.contains(token(NODE, "first").expose_secret()), "{shown}");
}

/// A machine as the older script leaves it.
fn older(endpoint: &str, node: &str) -> Observed {
    let text = format!(
        "[Service]\nEnvironment=AIO_CONTROLLER_ENDPOINT={endpoint}\nEnvironment=AIO_NODE_ID={node}\n"
    );
    let older_unit = Some(OlderUnit::read(Path::new("/nowhere/aio-worker.service"), &text));
    let service =
        UnitState { active_state: "active".into(), file_state: "enabled".into(), ..right().service };
    let command = file("the script's download", 0o755);
    Observed { unit: file(&text, 0o644), older_unit, command, service, ..bare() }
}

fn written_config(observed: &Observed, settings: &Settings) -> Result<String, Failure> {
    let steps = planned(observed, settings, None)?;
    let written = steps.steps.into_iter().find_map(|step| match step {
        Step::WriteConfig(write) => write.files.into_iter().next(),
        _ => None,
    });
    Ok(written.map(|(_, bytes, _)| String::from_utf8(bytes).unwrap()).unwrap_or_default())
}

#[test]
fn what_the_older_script_s_unit_sets_is_adopted() {
    let none = Settings::default();
    let adopted = |observed: &Observed, settings: &Settings| {
        let text = written_config(observed, settings).unwrap();
        aio_host::config::ConfigFile::parse(Path::new("x"), &text).unwrap().controller_endpoint
    };
    let elsewhere = older("wss://other.example/ws/node", NODE);
    assert_eq!(adopted(&elsewhere, &none).as_deref(), Some("wss://other.example/ws/node"));
    assert_eq!(adopted(&older("wss://aiwm.example/ws/node", NODE), &none), None, "the token says the same");
    let asked =
        Settings { controller_endpoint: Some("wss://third.example/ws".into()), ..Settings::default() };
    assert_eq!(adopted(&elsewhere, &asked), asked.controller_endpoint, "the operator has the last word");
    let mine = file("controller_endpoint = \"wss://fourth.example/ws\"\n", 0o644);
    assert_eq!(
        written_config(&Observed { config: mine, ..elsewhere }, &none).unwrap(),
        "",
        "so has the file"
    );

    let code = |observed: &Observed| written_config(observed, &none).unwrap_err().code;
    assert_eq!(code(&older("ws://other.example/ws/node", NODE)), ErrorCode::InsecureUrl);
    assert_eq!(code(&older("other.example", NODE)), ErrorCode::ControllerInvalid);
    assert_eq!(code(&older("", "ffffffffffffffffffffffff")), ErrorCode::IdentityConflict);
}
