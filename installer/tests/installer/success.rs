//! What ends well: a first installation, a second run, a new token, an upgrade.

use std::{fs, pin::Pin, time::Duration};

use aio_host::layout::{KEPT_TOKEN, UNIT};
use aio_installer::{Checkpoint, Failure, Goal, Point, STEPS, Uneventful, install::OutcomeKind};
use aio_protocol::error_code::ErrorCode;
use serde_json::json;

use crate::{
    server::{Plan, Release, program},
    world::{Daemon, World, token},
};

#[tokio::test]
async fn a_bare_machine_is_online_after_one_run_and_the_controller_heard_of_it() {
    let world = World::new().await;
    world.daemon_is(Daemon::OnlineSoon);
    let outcome = world.install().await.unwrap();
    let OutcomeKind::Installed { worker, timings, warnings } = outcome.kind else { panic!("{outcome:?}") };
    assert_eq!(outcome.node_name.as_deref(), Some("gpu-worker-01"));
    assert_eq!(worker.gpus[0]["model"], "NVIDIA H100");
    assert_eq!(timings.iter().map(|timing| timing.step).collect::<Vec<_>>(), STEPS);
    assert!(warnings.is_empty(), "{warnings:?}");

    let files = world.listing().files;
    let mode = |path: &str| files[std::path::Path::new(path)].split(' ').next().unwrap().to_owned();
    assert_eq!(mode("etc/aio-worker/token"), "100600");
    assert_eq!(mode("etc/aio-worker/config.toml"), "100644");
    assert_eq!(mode("etc/systemd/system/aio-worker.service"), "100644");
    assert_eq!(mode("usr/local/lib/aio-worker/v1.0.0/aio-worker"), "100755");
    assert_eq!(mode("var/lib/aio-installer"), "40700");
    assert_eq!(mode("var/lib/aio-installer/journal.jsonl"), "100600");
    assert_eq!(fs::read(world.host.layout.command()).unwrap(), world.change(|server| server.file.clone()));
    assert!(!files.keys().any(|path| path.to_string_lossy().contains(".fetch-")), "{files:?}");
    assert_eq!(world.systemd.unit(UNIT).file_state, "enabled");

    assert_eq!(world.phases(), ["started", "succeeded"]);
    let seconds = world.reports().last().unwrap()["seconds"].as_f64().unwrap();
    assert!(seconds > 0.0 && seconds < 10.0, "{seconds}");
    assert_eq!(world.change(|server| server.leaked.clone()), None, "the token went to the release server");
}

#[tokio::test]
async fn the_controller_hears_of_a_step_while_it_is_under_way() {
    let world = World::new().await;
    world.change(|server| server.release = Release::Stalled);
    let progressed = async {
        while !world.reports().iter().any(|report| report["step"] == "fetch_release") {
            tokio::task::yield_now().await;
        }
        "SIGINT"
    };
    world.install_with(&Uneventful, Box::pin(progressed)).await.unwrap_err();
    let phases: Vec<_> = world.reports().iter().map(|report| report["phase"].clone()).collect();
    assert_eq!(phases, ["started", "progress", "failed"]);
}

#[tokio::test]
async fn a_dry_run_names_every_step_and_changes_nothing() {
    let world = World::new().await;
    let before = world.listing();
    assert_eq!(world.planned().await, STEPS);
    assert_eq!(world.listing(), before);
    assert!(world.reports().is_empty());
}

#[tokio::test]
async fn a_token_that_the_daemon_was_given_since_makes_a_second_run_no_other() {
    let world = World::new().await;
    world.install().await.unwrap();
    let base = world.request.token.claims().api.clone();
    let rotated = token(&base, "rotated", &json!({"iat": 100}));
    world.change(|server| server.token = Some(rotated.clone()));
    let kept = world.host.layout.state_dir().join(KEPT_TOKEN);
    fs::create_dir_all(kept.parent().unwrap()).unwrap();
    for (what, text) in [
        ("another node's", token(&base, "x", &json!({"iat": 100, "sub": "000000000000000000000000"}))),
        ("no token", "no token".to_owned()),
    ] {
        fs::write(&kept, text).unwrap();
        assert_eq!(world.install().await.unwrap_err().code, ErrorCode::TokenInvalid, "{what}");
    }
    fs::write(&kept, format!("{rotated}\nthe offer\n")).unwrap();
    let outcome = world.install().await.unwrap();
    assert!(matches!(outcome.kind, OutcomeKind::AlreadyInstalled { .. }), "{outcome:?}");

    // Another token of the operator's speaks for itself.
    let mut world = world;
    world.use_token("other", &json!({"iat": 50}));
    assert!(matches!(world.install().await.unwrap().kind, OutcomeKind::Installed { .. }));
}

#[tokio::test]
async fn a_second_run_plans_nothing_and_restarts_nothing() {
    let world = World::new().await;
    world.install().await.unwrap();
    let (before, calls) = (world.listing(), world.systemd.calls().len());
    assert!(world.planned().await.is_empty());
    let outcome = world.install().await.unwrap();
    assert!(matches!(outcome.kind, OutcomeKind::AlreadyInstalled { .. }), "{outcome:?}");
    assert_eq!(world.listing(), before);
    let since = world.systemd.calls().split_off(calls);
    assert!(!since.iter().any(|call| call.contains("start") || call.contains("Start")), "{since:?}");
    assert_eq!(world.change(|server| server.downloads), 1);
    assert_eq!(world.phases(), ["started", "succeeded"]);
}

#[tokio::test]
async fn a_new_token_of_the_same_node_is_written_and_the_service_restarted() {
    let mut world = World::new().await;
    world.install().await.unwrap();
    world.use_token("second", &json!({}));
    assert_eq!(world.planned().await, ["write_token", "start_unit", "await_online"]);
    world.install().await.unwrap();
    let written = fs::read_to_string(world.host.layout.token()).unwrap();
    assert_eq!(Some(written), world.change(|server| server.token.clone()));
    assert!(world.systemd.calls().iter().any(|call| call.starts_with("RestartUnit")));
    assert!(!world.host.layout.journal_dir().join("replaced").exists(), "the old token is kept for nothing");
}

#[tokio::test]
async fn an_upgrade_switches_to_the_new_release_and_keeps_the_previous() {
    let mut world = World::new().await;
    world.install().await.unwrap();
    world.change(|server| {
        server.version = "v1.1.0";
        server.file = program(b"the next release");
    });
    let expected = ["fetch_release", "place_release", "switch_release", "start_unit", "await_online"];
    assert_eq!(world.planned().await, expected);
    world.install().await.unwrap();
    assert_eq!(fs::read(world.host.layout.command()).unwrap(), program(b"the next release"));
    assert!(world.release("v1.0.0").exists());
    assert!(world.planned().await.is_empty());

    // Back again is the same path, and needs no download.
    world.request.allow_downgrade = true;
    world.change(|server| {
        server.version = "v1.0.0";
        server.file = program(&b"the release ".repeat(9000));
    });
    assert_eq!(world.planned().await, ["switch_release", "start_unit", "await_online"]);
    world.install().await.unwrap();
    assert_eq!(world.change(|server| server.downloads), 2);
}

#[tokio::test]
async fn of_many_releases_the_one_that_runs_and_the_one_before_stay() {
    let world = World::new().await;
    let versions = ["v1.0.0", "v1.1.0", "v1.2.0", "v1.3.0"];
    for version in versions {
        world.change(|server| {
            server.version = version;
            server.file = program(version.as_bytes());
        });
        // What others put beside a release stays, and so does its folder.
        if version == "v1.1.0" {
            fs::write(world.release("v1.0.0").with_file_name("note"), "mine").unwrap();
        }
        world.install().await.unwrap();
    }
    let there: Vec<_> = versions.into_iter().filter(|version| world.release(version).exists()).collect();
    assert_eq!(there, ["v1.2.0", "v1.3.0"]);
    let folders = versions.map(|version| world.release(version).parent().unwrap().exists());
    assert_eq!(folders, [true, false, true, true]);
    assert!(world.planned().await.is_empty());
}

/// Makes it impossible to sweep away what was replaced, once all is done.
struct LitterAtTheEnd<'w>(&'w World);

impl Checkpoint for LitterAtTheEnd<'_> {
    fn reached<'a>(&'a self, point: Point<'a>) -> Pin<Box<dyn Future<Output = Result<(), Failure>> + 'a>> {
        if point == Point::Complete {
            let litter = self.0.host.layout.journal_dir().join("replaced").join("litter");
            fs::create_dir_all(litter.join("more")).unwrap();
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

#[tokio::test]
async fn what_cannot_be_swept_away_after_the_commit_is_a_warning_and_no_failure() {
    let world = World::new().await;
    let outcome =
        world.install_with(&LitterAtTheEnd(&world), Box::pin(std::future::pending())).await.unwrap();
    let OutcomeKind::Installed { warnings, .. } = outcome.kind else { panic!("{outcome:?}") };
    assert!(warnings.iter().any(|warning| warning.contains("litter")), "{warnings:?}");
    assert_eq!(world.phases(), ["started", "succeeded"]);
    assert!(world.planned().await.is_empty(), "it is installed, and stays so");
    world.install().await.unwrap();
}

#[tokio::test]
async fn a_controller_that_asks_for_patience_gets_what_a_command_has_of_it() {
    let world = World::new().await;
    world.change(|server| {
        server.plan = Plan::RefusedAtFirst(429, "RATE_LIMITED", 1);
        server.retry_after = Some("1");
    });
    let outcome = world.install().await.unwrap();
    assert!(outcome.took >= Duration::from_secs(1), "{outcome:?}");

    let world = World::new().await;
    world.change(|server| {
        server.plan = Plan::Refused(503, "CONTROLLER_ERROR");
        server.retry_after = Some("3600");
    });
    let failure = world.install().await.unwrap_err();
    assert_eq!(
        (failure.code, &failure.details["retryAfterSeconds"]),
        (ErrorCode::ControllerError, &json!(3600))
    );
    assert_eq!(world.change(|server| server.plans), 1);
}

#[tokio::test]
async fn what_passes_by_itself_is_waited_out() {
    let world = World::new().await;
    world.change(|server| {
        server.plan = Plan::RefusedAtFirst(503, "CONTROLLER_ERROR", 2);
        server.release = Release::CutOff(1);
    });
    world.install().await.unwrap();
    assert_eq!(world.change(|server| (server.plans, server.downloads)), (3, 2));

    let world = World::new().await;
    world.change(|server| server.release = Release::StatusAtFirst(502, 2));
    world.install().await.unwrap();
    assert_eq!(world.change(|server| server.downloads), 3);
}

#[tokio::test]
async fn who_does_not_wait_is_not_told_that_the_worker_is_online() {
    let mut world = World::new().await;
    world.daemon_is(Daemon::Stuck(None));
    world.request.goal = Goal::Ready;
    let outcome = world.install().await.unwrap();
    let OutcomeKind::Started { timings } = outcome.kind else { panic!("{outcome:?}") };
    let steps: Vec<_> = timings.iter().map(|timing| timing.step).collect();
    assert_eq!(steps, STEPS[..STEPS.len() - 1], "all but the waiting");
    assert_eq!(world.phases(), ["started"], "the worker tells of its success by itself");
    let again = world.install().await.unwrap();
    assert!(matches!(&again.kind, OutcomeKind::Started { timings } if timings.is_empty()), "{again:?}");
}

#[tokio::test]
async fn a_download_that_breaks_or_is_refused_in_between_is_taken_up_where_it_was() {
    let world = World::new().await;
    world.change(|server| server.release = Release::Piecemeal { changes: false });
    world.install().await.unwrap();
    assert_eq!(world.change(|server| (server.downloads, server.parts)), (11, 10));
}

#[tokio::test]
async fn parts_that_do_not_fit_together_are_downloaded_anew_as_a_whole() {
    let world = World::new().await;
    world.change(|server| server.release = Release::Piecemeal { changes: true });
    world.install().await.unwrap();
    assert_eq!(world.change(|server| (server.downloads, server.parts)), (11, 9));
}

#[tokio::test]
async fn a_node_that_is_online_may_refuse_every_report() {
    let world = World::new().await;
    world.change(|server| server.report_status = 409);
    let outcome = world.install().await.unwrap();
    let OutcomeKind::Installed { warnings, .. } = outcome.kind else { panic!("{outcome:?}") };
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[tokio::test]
async fn a_signed_release_is_installed_under_the_token_s_key() {
    let mut world = World::new().await;
    let keys = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
    let signature = world.change(|server| {
        minisign::sign(Some(&keys.pk), &keys.sk, &server.file[..], None, None).unwrap().into_string()
    });
    world.change(|server| server.signature = Some(signature));
    world.use_token("first", &json!({ "rel": keys.pk.to_base64() }));
    world.install().await.unwrap();
}

#[tokio::test]
async fn what_the_older_script_left_is_replaced_and_kept_for_the_way_back() {
    let world = World::new().await;
    fs::write(world.host.layout.command(), "the older binary").unwrap();
    fs::write(world.host.layout.unit(), "[Service]\nExecStart=/usr/local/bin/aio-worker\n").unwrap();
    world.install().await.unwrap();
    assert!(world.host.layout.command().symlink_metadata().unwrap().is_symlink());
    let kept = world.host.layout.journal_dir().join("replaced");
    let texts: Vec<_> =
        fs::read_dir(kept).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect();
    assert!(texts.contains(&"the older binary".to_owned()), "{texts:?}");
}

#[tokio::test]
async fn an_operator_s_configuration_is_kept_with_what_was_asked_for_added() {
    let mut world = World::new().await;
    let config = world.host.layout.config();
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    fs::write(&config, "# mine\nlog = \"debug\"\n").unwrap();
    world.request.settings.insecure_http = true;
    world.install().await.unwrap();
    assert_eq!(fs::read_to_string(&config).unwrap(), "# mine\nlog = \"debug\"\ninsecure_http = true\n");
}
