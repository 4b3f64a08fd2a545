//! What the doctor finds, on machines that are well and on machines that are not.

use aio_host::{
    dial::black_hole::{self, BlackHole},
    systemd::SystemdError,
};
use aio_installer::doctor::{Examination, Finding, Verdict, examine};
use aio_protocol::error_code::ErrorCode;
use serde_json::json;

use crate::{
    package::unpack_package,
    server::Plan,
    world::{World, token},
};

fn examination(world: &World, changes: Option<&serde_json::Value>) -> Examination {
    let base = world.change(|server| server.base.clone());
    Examination {
        layout: world.host.layout.clone(),
        root: true,
        token: changes.map(|changes| token(&base, "first", changes).into()),
        ca_file: None,
        proxy: None,
        insecure_http: false,
    }
}

#[tokio::test]
async fn doctor_and_installation_reach_a_controller_whose_first_address_swallows_packets() {
    let test = "doctor::doctor_and_installation_reach_a_controller_whose_first_address_swallows_packets";
    if !black_hole::is_here(test).unwrap() {
        return;
    }
    let mut world = World::new().await;
    let base = world.change(|server| server.base.replace("127.0.0.1", "localhost"));
    let port = base.rsplit(':').next().unwrap().parse().unwrap();
    let _hole = BlackHole::beside(port).await.unwrap();
    world.change(|server| server.base.clone_from(&base));
    let claims = json!({ "ctl": base.replacen("http", "ws", 1) });
    world.use_token("second", &claims);

    let asked =
        Examination { token: Some(token(&base, "second", &claims).into()), ..examination(&world, None) };
    let found = examine(&asked, Ok(&world.host.systemd)).await;
    for check in ["name", "connection", "controller", "node", "endpoint"] {
        assert_eq!(named(&found, check).result, Verdict::Ok, "{:?}", named(&found, check));
    }
    world.install().await.unwrap();
}

async fn findings(world: &World, changes: Option<&serde_json::Value>) -> Vec<Finding> {
    let before = world.listing();
    let found = examine(&examination(world, changes), Ok(&world.host.systemd)).await;
    assert_eq!(world.listing(), before, "a doctor changes nothing");
    found
}

fn named<'a>(findings: &'a [Finding], check: &str) -> &'a Finding {
    findings.iter().find(|finding| finding.check == check).unwrap()
}

#[tokio::test]
async fn a_machine_that_is_well_is_found_well_before_and_after_the_installation() {
    let world = World::new().await;
    let expected = [
        "root",
        "system",
        "architecture",
        "disk",
        "folders",
        "lock",
        "accounts",
        "systemd",
        "unit",
        "drop_ins",
        "containers",
        "token",
        "proxy",
        "name",
        "connection",
        "trust",
        "controller",
        "node",
        "clock",
        "endpoint",
    ];
    let found = findings(&world, Some(&json!({}))).await;
    assert_eq!(found.iter().map(|finding| finding.check).collect::<Vec<_>>(), expected);
    // Nobody listens where the token says that the worker is to connect.
    let failed: Vec<_> = found.iter().filter(|finding| finding.result == Verdict::Failed).collect();
    assert!(matches!(failed[..], [finding] if finding.check == "endpoint"), "{failed:?}");
    assert!(named(&found, "node").reason.contains("gpu-worker-01"), "{found:?}");

    world.install().await.unwrap();
    let found = findings(&world, None).await;
    for check in ["unit", "token", "controller", "node", "clock"] {
        assert_eq!(named(&found, check).result, Verdict::Ok, "{found:?}");
    }
}

#[tokio::test]
async fn without_a_token_the_controller_is_not_looked_for() {
    let world = World::new().await;
    let found = findings(&world, None).await;
    for check in ["token", "name", "controller", "node", "clock"] {
        assert_eq!(named(&found, check).result, Verdict::Skipped, "{found:?}");
    }
    assert_eq!(world.change(|server| server.plans), 0);
}

#[tokio::test]
async fn each_trouble_has_its_check_and_its_code() {
    let refused = World::new().await;
    refused.change(|server| server.plan = Plan::Refused(401, "TOKEN_REVOKED"));
    let found = findings(&refused, Some(&json!({}))).await;
    assert_eq!(named(&found, "node").code, Some(ErrorCode::TokenRevoked));
    assert_eq!(named(&found, "controller").result, Verdict::Ok);

    let nothing_offered = World::new().await;
    nothing_offered.change(|server| server.plan = Plan::Refused(404, "RELEASE_NOT_FOUND"));
    let found = findings(&nothing_offered, Some(&json!({}))).await;
    assert_eq!(named(&found, "node").code, Some(ErrorCode::ReleaseNotFound));
    unpack_package(&nothing_offered);
    let found = findings(&nothing_offered, Some(&json!({}))).await;
    assert_eq!(named(&found, "node").result, Verdict::Ok, "{found:?}");

    let world = World::new().await;
    for (what, changes, check, code) in [
        ("an ended token", json!({ "exp": 1 }), "token", ErrorCode::TokenExpired),
        (
            "nobody listens",
            json!({ "api": "http://127.0.0.1:9" }),
            "controller",
            ErrorCode::ControllerUnreachable,
        ),
        ("in the clear", json!({ "api": "http://192.0.2.1" }), "controller", ErrorCode::InsecureUrl),
        (
            "nobody listens",
            json!({ "api": "http://127.0.0.1:9" }),
            "connection",
            ErrorCode::ControllerUnreachable,
        ),
        ("no such name", json!({ "api": "https://aiwm.invalid" }), "name", ErrorCode::ControllerUnreachable),
    ] {
        let found = findings(&world, Some(&changes)).await;
        assert_eq!(named(&found, check).code, Some(code), "{what}: {found:?}");
        assert_eq!(named(&found, check).cure.as_deref(), Some(code.cure()), "{what}");
    }
    let nonsense = Examination { token: Some("nonsense".into()), ..examination(&world, None) };
    let found = examine(&nonsense, Ok(&world.host.systemd)).await;
    assert_eq!(named(&found, "token").code, Some(ErrorCode::TokenInvalid));
    assert_eq!(named(&found, "clock").result, Verdict::Skipped);

    let container = examine(&examination(&world, None), Err(SystemdError::NotBooted)).await;
    assert_eq!(named(&container, "systemd").code, Some(ErrorCode::SystemdMissing));
    assert_eq!(named(&container, "unit").result, Verdict::Skipped);
}
