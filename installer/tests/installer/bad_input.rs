//! What ends badly: each has its code, leaves the machine as it was, and the controller knows when
//! it can be told.

use std::{fs, time::Duration};

use aio_host::{
    layout::UNIT,
    systemd::{ServiceSettings, fake::StartOutcome},
};
use aio_installer::{Failure, Goal, Host, install::OutcomeKind};
use aio_protocol::error_code::ErrorCode;
use serde_json::{Value, json};

use crate::{
    server::{Plan, Release, sha256},
    world::{Daemon, World},
};

/// Installs, expects `code` and an unchanged machine, and returns the failure.
pub async fn fails(world: &World, code: ErrorCode) -> Failure {
    let before = world.listing();
    let failure = world.install().await.unwrap_err();
    assert_eq!(failure.code, code, "{failure:?}");
    assert_eq!(world.listing(), before, "{failure:?}");
    let token = world.change(|server| server.token.clone()).unwrap_or_default();
    let said = format!("{failure:?}{:?}", world.reports());
    assert!(token.is_empty() || !said.contains(&token), "the token is told");
    failure
}

/// The error of the last report, which must be a failure of this code.
fn reported(world: &World, code: ErrorCode) -> Value {
    assert_eq!(world.phases(), ["started", "failed"]);
    let error = world.reports().last().unwrap()["error"].clone();
    assert_eq!(error["code"], code.as_str());
    error
}

#[tokio::test]
async fn an_altered_release_is_refused_with_both_checksums() {
    let world = World::new().await;
    let (size, expected, url) = world.change(|server| {
        let mut altered = server.file.clone();
        altered[10] ^= 1;
        server.release = Release::Other(altered);
        let url = format!("{}/releases/v1.0.0/linux-amd64", server.base);
        (server.file.len(), sha256(&server.file), url)
    });
    let failure = fails(&world, ErrorCode::ChecksumMismatch).await;
    let details = &reported(&world, ErrorCode::ChecksumMismatch)["details"];
    assert_eq!(details["expected"], *expected);
    assert!(details["actual"].as_str().unwrap().starts_with("sha256:"), "{details}");
    assert_ne!(details["actual"], details["expected"]);
    assert_eq!((&details["size"], &details["url"]), (&json!(size), &json!(url)));
    assert!(failure.message.contains(&expected), "{}", failure.message);
    assert_eq!(world.reports().last().unwrap()["step"], "fetch_release");
}

#[tokio::test]
async fn a_release_that_is_not_as_promised_is_refused() {
    let whole = World::new().await.change(|server| server.file.clone());
    let longer = [whole.as_slice(), b"!"].concat();
    let shorter = whole[..whole.len() - 1].to_vec();
    let table = [
        (Release::Status(404), ErrorCode::ReleaseNotFound, 1),
        (Release::Status(500), ErrorCode::DownloadFailed, 4),
        (Release::Status(403), ErrorCode::DownloadFailed, 1),
        (Release::CutOff(9), ErrorCode::DownloadFailed, 4),
        (Release::Endless, ErrorCode::SizeMismatch, 1),
        (Release::Other(longer.clone()), ErrorCode::SizeMismatch, 1),
        (Release::Other(shorter.clone()), ErrorCode::SizeMismatch, 1),
        (Release::Chunked(longer), ErrorCode::SizeMismatch, 1),
        (Release::Chunked(shorter), ErrorCode::SizeMismatch, 1),
        (Release::Elsewhere("http://releases.invalid/x".to_owned()), ErrorCode::DownloadFailed, 1),
    ];
    for (release, code, downloads) in table {
        let world = World::new().await;
        world.change(|server| server.release = release.clone());
        fails(&world, code).await;
        reported(&world, code);
        assert_eq!(world.change(|server| server.downloads), downloads, "{release:?}");
    }
}

#[tokio::test]
async fn a_download_that_stalls_is_given_up() {
    let mut world = World::new().await;
    world.request.stall_timeout = Some(Duration::from_millis(100));
    world.change(|server| server.release = Release::Stalled);
    fails(&world, ErrorCode::DownloadFailed).await;
}

#[tokio::test]
async fn without_the_right_signature_nothing_is_downloaded_or_kept() {
    let keys = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
    let sign =
        |bytes: &[u8]| minisign::sign(Some(&keys.pk), &keys.sk, bytes, None, None).unwrap().into_string();
    let foreign = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
    let by_another =
        minisign::sign(Some(&foreign.pk), &foreign.sk, &b"x"[..], None, None).unwrap().into_string();
    let table = [
        (None, ErrorCode::SignatureMissing, 0),
        (Some("not a signature".to_owned()), ErrorCode::SignatureInvalid, 0),
        (Some(by_another), ErrorCode::SignatureForeign, 0),
        (Some(sign(b"another file")), ErrorCode::SignatureInvalid, 1),
    ];
    for (signature, code, downloads) in table {
        let mut world = World::new().await;
        world.use_token("first", &json!({ "rel": keys.pk.to_base64() }));
        world.change(|server| server.signature = signature);
        fails(&world, code).await;
        reported(&world, code);
        assert_eq!(world.change(|server| server.downloads), downloads);
    }
}

#[tokio::test]
async fn a_controller_that_gives_no_plan_is_told_apart_from_one_that_is_none() {
    let table = [
        (Plan::Refused(401, "TOKEN_REVOKED"), ErrorCode::TokenRevoked),
        (Plan::Refused(401, "TOKEN_EXPIRED"), ErrorCode::TokenExpired),
        (Plan::Refused(403, "TOKEN_FOREIGN"), ErrorCode::TokenForeign),
        (Plan::Refused(404, "NODE_NOT_FOUND"), ErrorCode::NodeNotFound),
        (Plan::Refused(401, "A_CODE_OF_THE_FUTURE"), ErrorCode::TokenInvalid),
        (Plan::Refused(500, "INTERNAL"), ErrorCode::ControllerError),
        (Plan::Text("<html>welcome to nginx</html>"), ErrorCode::ControllerInvalid),
        (Plan::Text("{}"), ErrorCode::ControllerInvalid),
        (Plan::Foreign(401, ""), ErrorCode::ControllerInvalid),
        (Plan::Foreign(403, "<html>blocked by policy</html>"), ErrorCode::ControllerInvalid),
        (Plan::Foreign(403, r#"{"code":"TOKEN_REVOKED","message":"no"}"#), ErrorCode::ControllerInvalid),
        (
            Plan::Foreign(401, r#"{"statusCode":200,"error":"x","message":"no","code":"TOKEN_REVOKED"}"#),
            ErrorCode::ControllerInvalid,
        ),
        (Plan::Foreign(429, "slow down"), ErrorCode::RateLimited),
        (Plan::Endless, ErrorCode::ControllerInvalid),
        (Plan::Given(json!({ "nodeId": "ffffffffffffffffffffffff" })), ErrorCode::ControllerInvalid),
        (Plan::Given(json!({ "size": 0 })), ErrorCode::ControllerInvalid),
        (Plan::Given(json!({ "version": "v1/../../x" })), ErrorCode::ControllerInvalid),
        (Plan::Given(json!({ "platform": "linux-arm64" })), ErrorCode::PlatformUnsupported),
        (Plan::Given(json!({ "status": "inactive" })), ErrorCode::NodeInactive),
    ];
    for (plan, code) in table {
        let world = World::new().await;
        world.change(|server| server.plan = plan);
        fails(&world, code).await;
        assert!(world.reports().is_empty());
    }
}

#[tokio::test]
async fn a_plan_that_crosses_the_network_in_the_clear_is_refused() {
    let world = World::new().await;
    world.change(|server| server.plan = Plan::Given(json!({ "downloadUrl": "http://releases.invalid/x" })));
    fails(&world, ErrorCode::InsecureUrl).await;
    reported(&world, ErrorCode::InsecureUrl);
}

#[tokio::test]
async fn a_token_whose_endpoints_are_not_encrypted_is_refused_before_it_is_sent() {
    for changes in [json!({ "api": "http://aiwm.invalid" }), json!({ "ctl": "ws://aiwm.invalid/ws/node" })] {
        let mut world = World::new().await;
        world.use_token("first", &changes);
        fails(&world, ErrorCode::InsecureUrl).await;
        assert_eq!(world.change(|server| server.plans), 0);
    }
}

#[tokio::test]
async fn who_does_not_answer_is_unreachable_and_who_speaks_no_http_is_no_controller() {
    // A port that was free a moment ago: nobody listens.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut world = World::new().await;
    world.use_token("first", &json!({ "api": format!("http://{free}") }));
    let failure = fails(&world, ErrorCode::ControllerUnreachable).await;
    assert!(failure.message.contains(&free.to_string()), "{}", failure.message);

    let mut world = World::new().await;
    world.use_token("first", &json!({ "api": "https://aiwm.invalid" }));
    fails(&world, ErrorCode::ControllerUnreachable).await;

    let ssh = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut world = World::new().await;
    world.use_token("first", &json!({ "api": format!("http://{}", ssh.local_addr().unwrap()) }));
    tokio::spawn(async move {
        while let Ok((mut peer, _)) = ssh.accept().await {
            use tokio::io::AsyncWriteExt;
            let _ = peer.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n").await;
        }
    });
    fails(&world, ErrorCode::ControllerInvalid).await;
}

#[tokio::test]
async fn a_machine_that_must_not_be_changed_is_not_and_the_controller_hears_why() {
    let world = World::new().await;
    world.systemd.mask(UNIT).unwrap();
    fails(&world, ErrorCode::UnitMasked).await;
    reported(&world, ErrorCode::UnitMasked);

    let world = World::new().await;
    fs::create_dir_all(world.host.layout.config_dir()).unwrap();
    fs::write(world.host.layout.config(), "contoller_endpoint = \"x\"\n").unwrap();
    let failure = fails(&world, ErrorCode::ConfigInvalid).await;
    assert!(failure.message.contains("contoller_endpoint"), "{}", failure.message);

    let world = World::new().await;
    world.change(|server| server.plan = Plan::Given(json!({ "size": 1 << 30 })));
    let releases = aio_host::files::FileSystem::of(world.dir.path()).unwrap();
    if releases.free_bytes < 2 << 30 {
        fails(&world, ErrorCode::DiskFull).await;
    }
}

#[tokio::test]
async fn a_machine_of_another_node_stays_that_node_s_unless_it_is_said() {
    let mut world = World::new().await;
    world.install().await.unwrap();
    let other = "ffffffffffffffffffffffff";
    world.change(|server| server.node = other.to_owned());
    world.use_token("other", &json!({ "sub": other }));
    world.change(|server| server.reports.clear());
    fails(&world, ErrorCode::IdentityConflict).await;
    reported(&world, ErrorCode::IdentityConflict);

    world.request.replace_identity = true;
    world.daemon_is(Daemon::Online(other));
    world.install().await.unwrap();
    let token = fs::read_to_string(world.host.layout.token()).unwrap();
    assert_eq!(Some(token), world.change(|server| server.token.clone()));
}

#[tokio::test]
async fn an_older_version_is_installed_only_when_that_is_said() {
    let mut world = World::new().await;
    world.change(|server| server.version = "v1.1.0");
    world.install().await.unwrap();
    world.change(|server| server.version = "v1.0.9");
    fails(&world, ErrorCode::DowngradeRefused).await;
    world.request.allow_downgrade = true;
    world.install().await.unwrap();
    assert_eq!(fs::read_link(world.host.layout.current()).unwrap(), std::path::Path::new("v1.0.9"));
}

#[tokio::test]
async fn a_service_that_does_not_start_is_explained_and_taken_away() {
    let world = World::new().await;
    world.systemd.next_start(StartOutcome::Failed);
    let failure = fails(&world, ErrorCode::ServiceFailed).await;
    assert_eq!(failure.details["jobResult"], "failed");
    assert!(failure.details.contains_key("exitStatus"), "{failure:?}");
    let details = reported(&world, ErrorCode::ServiceFailed)["details"].clone();
    assert_eq!(details["jobResult"], "failed");
    let said = json!(["aio-worker.service: cannot open /etc/x", "with [node token]"]);
    assert_eq!((&details["journal"], &failure.details["journal"]), (&said, &said));
}

#[tokio::test]
async fn a_worker_that_does_not_get_online_is_taken_away_again() {
    let mut world = World::new().await;
    world.request.goal = Goal::Online(Duration::from_millis(200));
    world.daemon_is(Daemon::Stuck(Some("CONTROLLER_UNREACHABLE")));
    let failure = fails(&world, ErrorCode::OnlineTimeout).await;
    assert_eq!(failure.details["workerCode"], "CONTROLLER_UNREACHABLE");
    reported(&world, ErrorCode::OnlineTimeout);

    let mut world = World::new().await;
    world.request.goal = Goal::Online(Duration::from_millis(200));
    world.daemon_is(Daemon::Online("ffffffffffffffffffffffff"));
    fails(&world, ErrorCode::OnlineTimeout).await;

    // What waiting cannot mend is not waited for.
    let mut world = World::new().await;
    world.request.goal = Goal::Online(Duration::from_secs(600));
    world.daemon_is(Daemon::Stuck(Some("TOKEN_REVOKED")));
    fails(&world, ErrorCode::TokenRevoked).await;
}

#[tokio::test]
async fn an_interrupted_installation_is_undone_wherever_it_was() {
    let mut world = World::new().await;
    world.request.stall_timeout = Some(Duration::from_secs(60));
    world.change(|server| server.release = Release::Stalled);
    let before = world.listing();
    let downloading = async {
        while world.change(|server| server.downloads) == 0 {
            tokio::task::yield_now().await;
        }
        "SIGTERM"
    };
    let failure = world.install_with(&aio_installer::Uneventful, Box::pin(downloading)).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Interrupted);
    assert_eq!(world.listing(), before);
    reported(&world, ErrorCode::Interrupted);

    let world = World::new().await;
    world.change(|server| server.plan = Plan::Never);
    let failure =
        world.install_with(&aio_installer::Uneventful, Box::pin(async { "SIGINT" })).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Interrupted);
    assert!(world.reports().is_empty());
}

#[tokio::test]
async fn two_installations_at_a_time_are_one_too_many() {
    let world = World::new().await;
    world.change(|server| server.plan = Plan::Never);
    let first = world.install();
    let second = async {
        while world.change(|server| server.plans) == 0 {
            tokio::task::yield_now().await;
        }
        world.install().await
    };
    let second = tokio::select! {
        outcome = first => panic!("{outcome:?}"),
        outcome = second => outcome,
    };
    assert_eq!(second.unwrap_err().code, ErrorCode::InstallLocked);
}

#[tokio::test]
async fn a_clock_that_is_far_off_is_told_in_words_and_installed_on_by_nobody() {
    let world = World::new().await;
    world.change(|server| server.date = Some("Thu, 11 Dec 2025 12:00:00 GMT"));
    let failure = fails(&world, ErrorCode::ClockSkewed).await;
    assert!(failure.message.contains("ahead of the controller's"), "{}", failure.message);
    reported(&world, ErrorCode::ClockSkewed);
}

#[tokio::test]
async fn a_system_that_nobody_has_tested_is_installed_on_only_by_force() {
    let mut world = World::new().await;
    let file = world.dir.path().join("etc/os-release");
    fs::write(file, "ID=fedora\nVERSION_ID=40\nPRETTY_NAME=\"Fedora Linux 40\"\n").unwrap();
    let failure = fails(&world, ErrorCode::SystemUntested).await;
    assert!(failure.message.contains("Fedora Linux 40"), "{}", failure.message);
    reported(&world, ErrorCode::SystemUntested);

    world.request.force_os = true;
    let OutcomeKind::Installed { warnings, .. } = world.install().await.unwrap().kind else { panic!() };
    assert!(warnings.iter().any(|warning| warning.contains("Fedora Linux 40")), "{warnings:?}");
}

#[tokio::test]
async fn a_job_that_waits_for_others_has_the_time_that_was_asked_for_and_they_are_named() {
    let mut world = World::new().await;
    let Host { layout, systemd, accounts, service_log, platform } = world.host;
    let systemd = systemd.with_job_bound(Duration::from_millis(50));
    world.host = Host { layout, systemd, accounts, service_log, platform };
    world.systemd.next_start(StartOutcome::Never);
    world.systemd.queue_behind(&["network-online.target", "NetworkManager-wait-online.service"]);
    world.request.goal = Goal::Online(Duration::from_millis(700));
    let before = world.listing().without_journal();
    let failure = world.install().await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::ServiceFailed);
    let waits = "waits for network-online.target and NetworkManager-wait-online.service";
    assert!(failure.message.contains(waits) && !failure.message.contains("success"), "{}", failure.message);
    assert_eq!(failure.details["waitsFor"][0], "network-online.target");
    assert!(world.request.began.elapsed() >= Duration::from_millis(700));
    assert_eq!(world.listing().without_journal(), before);
}

#[tokio::test]
async fn a_drop_in_that_takes_the_token_from_the_service_is_named() {
    let world = World::new().await;
    let drop_in = world.dir.path().join("run/systemd/system/service.d/zzz-lxc-service.conf");
    fs::create_dir_all(drop_in.parent().unwrap()).unwrap();
    fs::write(&drop_in, "[Service]\nLoadCredential=\n").unwrap();
    world.systemd.give(ServiceSettings {
        drop_ins: vec![drop_in.clone()],
        user: "aio-worker".to_owned(),
        credentials: Vec::new(),
        runtime_directories: vec!["aio-worker".to_owned()],
        state_directories: vec!["aio-worker".to_owned()],
    });
    let named = format!("{} takes LoadCredential= from the unit", drop_in.display());
    world.systemd.next_start(StartOutcome::Failed);
    let failure = world.install().await.unwrap_err();
    assert!(failure.message.contains(&named), "{}", failure.message);
    let outcome = world.install().await.unwrap();
    let OutcomeKind::Installed { warnings, .. } = outcome.kind else { panic!("{outcome:?}") };
    assert_eq!(warnings, [named]);
}
