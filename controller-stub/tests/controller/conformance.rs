//! The OpenAPI document and the controller say the same: every answer is documented, status and
//! shape, and every documented answer is provoked.

use std::{collections::BTreeSet, num::NonZeroU32};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::KeyPair;
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::{
    access::{sign, upgrade, upgrade_as},
    delivery::event,
    harness::{Client, Controller, SECRET, eventually},
    idempotency,
    inspector::Inspector,
    peers::{FakeNoti, Worker},
    schema::Schemas,
};

const UNKNOWN_NODE: &str = "69396100cd71623c7bbfbfee";

fn plain(request: RequestBuilder) -> RequestBuilder {
    request
}

fn as_worker(request: RequestBuilder) -> RequestBuilder {
    upgrade(request, "aio.node.v1")
}

fn as_dashboard(request: RequestBuilder) -> RequestBuilder {
    upgrade(request, "aio.events.v1")
}

fn node_token(node: &str) -> String {
    let claims = json!({"sub": node, "type": "node", "jti": "j", "iat": 1, "exp": 4_000_000_000_u64, "ctl": "", "api": ""});
    jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &claims,
        &EncodingKey::from_secret(SECRET.as_bytes()),
    )
    .unwrap()
}

#[tokio::test]
async fn every_answer_is_documented_and_every_documented_answer_occurs() {
    let controller = Controller::start_with(|config| config.api_requests_per_second = None).await;
    let mut inspector = Inspector::new(&controller).await;
    what_succeeds(&controller, &mut inspector).await;
    what_a_status_refuses(&controller, &mut inspector).await;
    what_every_operation_of_a_shape_refuses(&controller, &mut inspector).await;
    what_a_release_answers(&controller, &mut inspector).await;
    what_the_gateway_refuses(&mut inspector).await;
    what_dashboards_and_observers_are_refused(&controller, &mut inspector).await;
    what_a_verifying_replica_refuses(&mut inspector).await;
    too_many(&mut inspector).await;
    dead_letters(&mut inspector).await;
    broken(&mut inspector).await;

    let documented: BTreeSet<_> = inspector
        .operations()
        .into_iter()
        .flat_map(|operation| {
            let statuses = operation.value["responses"].as_object().unwrap().keys();
            statuses.map(|it| (operation.id.clone(), it.parse::<u16>().unwrap())).collect::<Vec<_>>()
        })
        .collect();
    let missing: Vec<_> = documented.difference(&inspector.seen).collect();
    assert!(missing.is_empty(), "documented and never provoked: {missing:?}");
}

async fn what_succeeds(controller: &Controller, it: &mut Inspector) {
    let owner = controller.owner_of("acme").await;
    let operator = controller.user("acme", "universe.owner").await;
    for operation in ["health", "readiness", "metrics", "fleetMetrics"] {
        it.expect(&controller.nobody(), operation, "", 200, plain).await;
    }
    let node = it.expect(&owner, "registerNode", "", 201, |it| it.json(&json!({"name": "gpu"}))).await;
    let id = node["_id"].as_str().unwrap().to_owned();
    let token = it.expect(&owner, "issueToken", &id, 201, plain).await["token"].as_str().unwrap().to_owned();
    let installer = controller.bearer(&token);
    it.expect(&installer, "planInstallation", &id, 200, plain).await;
    it.expect(&installer, "reportInstallation", &id, 200, |it| it.json(&json!({"phase": "started"}))).await;
    let worker = Worker::welcomed(&controller.gateway(), &id, &token).await;
    it.expect(&owner, "showNode", &id, 200, plain).await;
    it.expect(&owner, "listNodes", "", 200, plain).await;
    it.expect(&owner, "beginMaintenance", &id, 200, plain).await;
    it.expect(&owner, "resume", &id, 200, plain).await;
    it.expect(&owner, "listTransitions", &id, 200, plain).await;
    it.expect(&owner, "showNodeMetrics", &id, 200, plain).await;
    it.expect(&owner, "changeNode", &id, 200, |it| it.json(&json!({"labels": {"rack": "r7"}}))).await;
    it.expect(&owner, "registerNode", "", 409, |it| it.json(&json!({"name": "gpu"}))).await;
    it.expect(&owner, "listTokens", &id, 200, plain).await;
    it.expect(&owner, "listAudit", "", 200, plain).await;
    alarms(it, &owner, &id).await;
    webhooks(it, &owner).await;
    rollouts(controller, it, &owner, &id).await;
    drop(worker);
    let new = it.expect(&owner, "regenerateCredentials", &id, 201, |it| it.json(&json!({}))).await;
    let worker = controller.bearer(new["token"].as_str().unwrap());
    it.expect(&worker, "connectWorker", "", 101, as_worker).await;
    it.expect(&owner, "decommissionNode", &id, 200, plain).await;
    owner
        .await_events(
            &id,
            &[
                "node.registered",
                "node.installation_started",
                "node.connected",
                "node.maintenance_mode",
                "node.resumed",
                "node.decommissioned",
            ],
        )
        .await;
    it.expect(&owner, "listEvents", "", 200, plain).await;
    let service = controller.bearer(crate::harness::SERVICE_TOKEN);
    for status in [202, 200] {
        it.expect(&service, "receiveEvent", "", status, |it| sign(it, "evt_1", &event(&id))).await;
    }
    it.expect(&owner, "listDeadLetters", "", 200, plain).await;
    it.expect(&owner, "replayDeadLetters", "", 200, plain).await;
    it.expect(&owner, "dropDeadLetters", "", 200, plain).await;
    it.expect(&owner, "getDelivery", "", 200, plain).await;
    it.expect(&operator, "resumeDelivery", "", 200, plain).await;
    it.expect(&operator, "listControllers", "", 200, plain).await;
}

/// Alarms themselves are another test.
async fn alarms(it: &mut Inspector, owner: &Client, id: &str) {
    it.expect(owner, "listAlarms", "", 200, plain).await;
    it.expect(owner, "acknowledgeAlarm", "", 404, plain).await;
    it.expect(owner, "showAlarm", "", 404, plain).await;
    let of = |node: &str| json!({"nodeId": node, "seconds": 60, "reason": "a new disk"});
    it.expect(owner, "addSilence", "", 404, |it| it.json(&of(UNKNOWN_NODE))).await;
    let silence = it.expect(owner, "addSilence", "", 201, |it| it.json(&of(id))).await;
    it.expect(owner, "listSilences", "", 200, plain).await;
    let operation = it.operation("endSilence");
    let path = format!("/silences/{}", silence["id"].as_str().unwrap());
    for status in [204, 404] {
        assert_eq!(it.ask(owner, &operation, &path, plain).await.0, status);
    }
    alarm(it).await;
}

/// What becomes of them is another test.
async fn webhooks(it: &mut Inspector, owner: &Client) {
    let all = [
        ("showWebhook", "", 200),
        ("changeWebhook", "", 200),
        ("rotateWebhook", "/rotate", 200),
        ("testWebhook", "/test", 200),
        ("listWebhookAttempts", "/attempts", 200),
        ("listWebhookDeadLetters", "/dead-letters", 200),
        ("dropWebhookDeadLetters", "/dead-letters", 200),
        ("replayToWebhook", "/replay", 200),
        ("removeWebhook", "", 204),
    ];
    let body = |operation: &str, it: RequestBuilder| match operation {
        "changeWebhook" => it.json(&json!({"eventTypes": ["alarm.raised"]})),
        _ => it,
    };
    for (operation, ..) in all {
        it.expect(owner, operation, "", 404, |it| body(operation, it)).await;
    }
    let new = json!({"url": "https://localhost/", "eventTypes": ["alarm.raised"], "description": "pager"});
    let webhook = it.expect(owner, "addWebhook", "", 201, |it| it.json(&new)).await;
    it.expect(owner, "listWebhooks", "", 200, plain).await;
    for (operation, path, status) in all {
        let path = format!("/webhooks/{}{path}", webhook["id"].as_str().unwrap());
        let told = it.operation(operation);
        assert_eq!(it.ask(owner, &told, &path, |it| body(operation, it)).await.0, status, "{operation}");
    }
}

/// One that is raised at once.
async fn alarm(it: &mut Inspector) {
    let controller = Controller::start_with(|config| config.alarm_interval = crate::alarms::SOON).await;
    let (owner, alarm) = crate::alarms::failed_installation(&controller).await;
    let path = format!("/alarms/{}", alarm["id"].as_str().unwrap());
    for (operation, path) in
        [("acknowledgeAlarm", format!("{path}/acknowledge")), ("showAlarm", path.clone())]
    {
        let operation = it.operation(operation);
        assert_eq!(it.ask(&owner, &operation, &path, plain).await.0, 200);
    }
}

async fn rollouts(controller: &Controller, it: &mut Inspector, owner: &Client, id: &str) {
    let of = |version: &str| json!({ "version": version });
    it.expect(owner, "createRollout", "", 409, |it| it.json(&of("v1.1.0"))).await;
    it.expect(owner, "updateNode", id, 409, plain).await;
    for id in ["downloadReleaseIndex", "downloadReleaseIndexSignature"] {
        it.expect(owner, id, "", 404, plain).await;
    }
    controller.write_index();
    it.expect(owner, "createRollout", "", 404, |it| it.json(&of("v9.9.9"))).await;
    it.expect(owner, "createRollout", "", 409, |it| it.json(&of("v0.1.0"))).await;
    let plan = json!({"version": "v1.1.0", "dryRun": true, "waves": [50, 100], "canaries": "1"});
    it.expect(owner, "createRollout", "", 200, |it| it.json(&plan)).await;
    let rollout = it.expect(owner, "createRollout", "", 201, |it| it.json(&of("v1.1.0"))).await;
    let path = format!("/rollouts/{}", rollout["id"].as_str().unwrap());
    for (operation, path, status) in [
        ("showRollout", path.clone(), 200),
        ("orderRollout", format!("{path}/pause"), 409),
        ("orderRollout", format!("{path}/start"), 200),
        ("listRolloutNodes", format!("{path}/nodes?stage=skipped"), 200),
        ("orderRollout", format!("{path}/abort"), 200),
        ("showGroup", "/groups/-gpu".to_owned(), 404),
    ] {
        let operation = it.operation(operation);
        let (seen, body) = it.ask(owner, &operation, &path, plain).await;
        assert_eq!(seen, status, "{}: {body}", operation.id);
    }
    for operation in ["showRollout", "listRolloutNodes", "orderRollout"] {
        it.expect(owner, operation, "", 404, plain).await;
    }
    it.expect(owner, "listRollouts", "", 200, plain).await;
    it.expect(owner, "pinNode", id, 409, |it| it.json(&of("v0.1.0"))).await;
    it.expect(owner, "pinNode", id, 200, |it| it.json(&of("v1.0.0"))).await;
    it.expect(owner, "unpinNode", id, 200, plain).await;
    it.expect(owner, "updateNode", id, 200, plain).await;
    it.expect(owner, "showGroup", "", 200, plain).await;
    it.expect(owner, "changeGroup", "", 200, |it| it.json(&json!({"inFlight": "2"}))).await;
    it.expect(owner, "changeGroup", "", 409, |it| it.json(&json!({"pin": "v0.1.0"}))).await;
    let change = it.operation("changeGroup");
    let (status, _) = it.ask(owner, &change, "/groups/-gpu", |it| it.json(&json!({}))).await;
    assert_eq!(status, 404);
}

async fn what_a_status_refuses(controller: &Controller, it: &mut Inspector) {
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let installer = controller.bearer(&owner.token_of(&id).await);
    it.expect(&owner, "beginMaintenance", &id, 409, plain).await;
    it.expect(&owner, "resume", &id, 409, plain).await;
    let progress = json!({"phase": "progress", "step": "fetch_release"});
    it.expect(&installer, "reportInstallation", &id, 409, |it| it.json(&progress)).await;
    it.expect(&owner, "decommissionNode", &id, 200, plain).await;
    it.expect(&owner, "issueToken", &id, 409, plain).await;
    it.expect(&owner, "regenerateCredentials", &id, 409, plain).await;
    it.expect(&owner, "changeNode", &id, 409, |it| it.json(&json!({"name": "other"}))).await;
    it.expect(&installer, "planInstallation", &id, 403, plain).await;
    it.expect(&installer, "connectWorker", "", 403, as_worker).await;
}

/// Whether it applies, the status that is expected, who asks, where, and with what.
type Check<'a> = (bool, u16, &'a Client, &'a str, &'a dyn Fn(RequestBuilder) -> RequestBuilder);

async fn what_every_operation_of_a_shape_refuses(controller: &Controller, it: &mut Inspector) {
    let owner = controller.user("acme", "universe.owner").await;
    let (id, other) = (owner.add_node("gpu").await, owner.add_node("other").await);
    let (own, foreign) =
        (controller.bearer(&owner.token_of(&id).await), controller.bearer(&owner.token_of(&other).await));
    let service = controller.bearer(crate::harness::SERVICE_TOKEN);
    for operation in it.operations() {
        let path = operation.of(&id);
        let may = if operation.is_opened_by("service") {
            &service
        } else if operation.is_opened_by_nobody_but("node") {
            &own
        } else {
            &owner
        };
        let checks: [Check<'_>; 8] = [
            (
                ["user", "node", "service"].iter().any(|it| operation.is_opened_by(it)),
                401,
                &controller.nobody(),
                &path,
                &plain,
            ),
            (operation.is_opened_by_nobody_but("user"), 403, &own, &path, &plain),
            (
                operation.is_opened_by("node") && operation.path.contains("{id}"),
                403,
                &foreign,
                &path,
                &|it| it.json(&json!({"phase": "started"})),
            ),
            (operation.takes_query(), 400, may, &format!("{path}?nonsense=1"), &plain),
            (operation.takes_body(), 400, may, &path, &|it| {
                if operation.id == "receiveEvent" {
                    sign(it, "evt_x", "{}")
                } else {
                    it.json(&json!({"nonsense": 1}))
                }
            }),
            (operation.takes_body(), 413, may, &path, &|it| it.json(&"x".repeat(70_000))),
            (operation.takes_body(), 415, may, &path, &|it| it.body("x")),
            (true, 431, &controller.nobody(), &path, &|it| it.header("x-padding", "x".repeat(20_000))),
        ];
        for (applies, expected, client, path, shape) in checks {
            if applies {
                let (status, body) = it.ask(client, &operation, path, shape).await;
                assert_eq!(status, expected, "{}: {body}", operation.id);
            }
        }
        if operation.path.contains("{id}") {
            let nobodys = controller.bearer(&node_token(UNKNOWN_NODE));
            let client = if operation.is_opened_by_nobody_but("node") { &nobodys } else { &owner };
            let path = operation.of(UNKNOWN_NODE);
            let shape = |it: RequestBuilder| match operation.id.as_str() {
                "changeNode" => it.json(&json!({})),
                "pinNode" => it.json(&json!({"version": "v1.0.0"})),
                _ => it,
            };
            let (status, body) = it.ask(client, &operation, &path, shape).await;
            assert_eq!(status, 404, "{}: {body}", operation.id);
        }
    }
    keys_in_other_use(controller, it, &owner, &id).await;
    it.expect(&controller.bearer(&node_token(UNKNOWN_NODE)), "connectWorker", "", 404, as_worker).await;
    it.expect(&own, "connectWorker", "", 400, plain).await;
    let of_version_8 = |it: RequestBuilder| it.header("sec-websocket-version", "8");
    it.expect(&own, "connectWorker", "", 426, |it| upgrade_as(of_version_8(it), "aio.node.v1")).await;
    it.expect(&own, "watchEvents", "", 426, |it| upgrade_as(of_version_8(it), "aio.events.v1")).await;
    it.expect(&owner, "replayDeadLetter", "", 404, plain).await;
}

/// A key that stands for another request, one that is being answered, and one that cannot be one.
async fn keys_in_other_use(controller: &Controller, it: &mut Inspector, owner: &Client, id: &str) {
    for operation in it.operations().into_iter().filter(|operation| operation.documents(422)) {
        let path = operation.of(id);
        for (key, fingerprint) in [("reused", "another"), ("in-use", &idempotency::fingerprint("{}"))] {
            let id = idempotency::id("acme", &path, key);
            let taken = format!(
                "INSERT INTO idempotency (id, fingerprint, at) VALUES ('{id}', '{fingerprint}', 4000000000000)"
            );
            controller.sql(taken.leak()).await;
        }
        for (key, expected) in [("reused", 422), ("in-use", 409), ("", 400)] {
            let shape = |it: RequestBuilder| it.header("idempotency-key", key).json(&json!({}));
            let (status, body) = it.ask(owner, &operation, &path, shape).await;
            assert_eq!(status, expected, "{}: {body}", operation.id);
        }
    }
}

async fn what_a_release_answers(controller: &Controller, it: &mut Inspector) {
    let (anyone, id) = (controller.nobody(), "downloadRelease");
    it.expect(&anyone, id, "", 200, plain).await;
    it.expect(&anyone, id, "", 206, |it| it.header("range", "bytes=4-")).await;
    it.expect(&anyone, id, "", 416, |it| it.header("range", "bytes=99-")).await;
    it.expect(&anyone, id, "", 304, |it| it.header("if-modified-since", "Fri, 31 Dec 2100 00:00:00 GMT"))
        .await;
    it.expect(&anyone, id, "", 412, |it| it.header("if-unmodified-since", "Sat, 01 Jan 2000 00:00:00 GMT"))
        .await;
    let operation = it.operation(id);
    assert_eq!(it.ask(&anyone, &operation, "/releases/v9.9.9/linux-amd64", plain).await.0, 404);
    for id in ["downloadReleaseIndex", "downloadReleaseIndexSignature"] {
        it.expect(&anyone, id, "", 200, plain).await;
        let operation = it.operation(id);
        let whole = anyone.request(reqwest::Method::GET, &operation.of("")).send().await.unwrap();
        assert_eq!(whole.headers()["cache-control"], "no-cache");
        let etag = whole.headers()["etag"].clone();
        it.expect(&anyone, id, "", 304, move |it| it.header("if-none-match", etag)).await;
    }
    let controller = Controller::start_with(|config| config.answer_bytes = 32 * 1024).await;
    std::fs::write(controller.release("linux-amd64"), vec![0; 16 * 1024 * 1024]).unwrap();
    let unread = controller.nobody().request(reqwest::Method::GET, "/releases/v1.0.0/linux-amd64");
    let _unread = unread.send().await.unwrap();
    it.expect(&controller.nobody(), id, "", 503, plain).await;
}

async fn what_the_gateway_refuses(it: &mut Inspector) {
    let controller = Controller::start_with(|config| config.max_handshakes = 0).await;
    let owner = controller.owner_of("acme").await;
    let node = owner.add_node("gpu").await;
    let worker = controller.bearer(&owner.token_of(&node).await);
    it.expect(&worker, "connectWorker", "", 503, as_worker).await;
}

async fn what_dashboards_and_observers_are_refused(controller: &Controller, it: &mut Inspector) {
    let (nobody, owner) = (controller.nobody(), controller.owner_of("acme").await);
    it.expect(&nobody, "watchEvents", "", 101, as_dashboard).await;
    it.expect(&nobody, "watchEvents", "", 403, |it| {
        as_dashboard(it).header("origin", "https://evil.example")
    })
    .await;
    let mut seated = Vec::new();
    let status = loop {
        let answer = as_dashboard(nobody.request(reqwest::Method::GET, "/ws/events")).send().await.unwrap();
        if answer.status() != 101 || seated.len() > 5000 {
            break answer.status();
        }
        seated.push(answer);
    };
    assert_eq!(status, 503);
    it.expect(&nobody, "watchEvents", "", 503, as_dashboard).await;
    let operation = it.operation("listEvents");
    assert_eq!(it.ask(&owner, &operation, "/events?since=evt_forgotten", plain).await.0, 410);

    for figures in ["metrics", "fleetMetrics"] {
        it.expect(&nobody, figures, "", 403, |it| it.header("x-forwarded-for", "203.0.113.7")).await;
    }
    let closed =
        Controller::start_with(|config| config.metrics_token = Some("a token for the figures".into())).await;
    for figures in ["metrics", "fleetMetrics"] {
        it.expect(&closed.nobody(), figures, "", 401, plain).await;
    }
}

async fn what_a_verifying_replica_refuses(it: &mut Inspector) {
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("public.pem");
    std::fs::write(&file, key.public_key_pem()).unwrap();
    let controller = Controller::start_with(|config| config.jwt_public_key_file = Some(file)).await;
    let claims =
        json!({"sub": "u", "orgId": "acme", "roles": ["organization.owner"], "exp": 4_000_000_000_u64});
    let signing = EncodingKey::from_ed_pem(key.serialize_pem().as_bytes()).unwrap();
    let token = jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &signing).unwrap();
    let owner = controller.bearer(&token);
    let id = owner.add_node("gpu").await;
    it.expect(&owner, "issueToken", &id, 503, plain).await;
    it.expect(&owner, "regenerateCredentials", &id, 503, plain).await;
}

async fn too_many(it: &mut Inspector) {
    let controller =
        Controller::start_with(|config| config.api_requests_per_second = NonZeroU32::new(1)).await;
    let owner = controller.owner_of("acme").await;
    let node = controller.bearer(&node_token(UNKNOWN_NODE));
    for operation in it.operations() {
        if !operation.documents(429) {
            continue;
        }
        let client = if operation.is_opened_by_nobody_but("node") { &node } else { &owner };
        let path = operation.of(UNKNOWN_NODE);
        let mut refused = false;
        for _ in 0..100 {
            // A request that is no request otherwise changes nothing.
            refused = it.ask(client, &operation, &path, |it| it.header("x-again", "1")).await.0 == 429;
            if refused {
                break;
            }
        }
        assert!(refused, "{}", operation.id);
    }
}

async fn dead_letters(it: &mut Inspector) {
    // The first event is refused for good.
    let noti = FakeNoti::start(&[422]).await;
    let controller =
        Controller::start_with(|config| config.noti_service_url = Some(noti.url().parse().unwrap())).await;
    let owner = controller.owner_of("acme").await;
    owner.add_node("gpu").await;
    let letter = eventually("a dead letter", async || {
        let (_, list) = owner.get("/dead-letters").await;
        list["data"][0]["id"].as_str().map(str::to_owned).ok_or_else(|| list.to_string())
    })
    .await;
    it.expect(&owner, "listDeadLetters", "", 200, plain).await;
    let operation = it.operation("replayDeadLetter");
    assert_eq!(it.ask(&owner, &operation, &format!("/dead-letters/{letter}/replay"), plain).await.0, 200);
}

async fn broken(it: &mut Inspector) {
    let controller = Controller::start_with(|config| config.api_requests_per_second = None).await;
    let owner = controller.owner_of("acme").await;
    let operator = controller.user("acme", "universe.owner").await;
    let id = owner.add_node("gpu").await;
    let node = controller.bearer(&owner.token_of(&id).await);
    let service = controller.bearer(crate::harness::SERVICE_TOKEN);
    controller.write_index();
    let release = controller.release("linux-amd64");
    std::fs::remove_file(&release).unwrap();
    std::os::unix::fs::symlink(&release, &release).unwrap();
    for statement in [
        "DROP TABLE settings",
        "DROP TABLE nodes",
        "DROP TABLE inbox",
        "DROP TABLE outbox",
        "DROP TABLE dead_letters",
        "DROP TABLE audit",
        "DROP TABLE rollouts",
        "DROP TABLE node_groups",
        "DROP TABLE alarms",
        "DROP TABLE silences",
        "DROP TABLE webhooks",
        "DROP TABLE controllers",
    ] {
        controller.sql(statement).await;
    }
    for operation in it.operations() {
        // The others need the index to come as far as the database.
        if !operation.documents(500) || operation.id.starts_with("downloadReleaseIndex") {
            continue;
        }
        let client = if operation.id == "listControllers" {
            &operator
        } else if operation.is_opened_by_nobody_but("node") {
            &node
        } else if operation.is_opened_by("service") {
            &service
        } else {
            &owner
        };
        let path = operation.of(&id);
        let (status, body) = it
            .ask(client, &operation, &path, |it| match operation.id.as_str() {
                "receiveEvent" => sign(it, "evt_1", &event(&id)),
                "registerNode" => it.json(&json!({"name": "gpu"})),
                "reportInstallation" => it.json(&json!({"phase": "started"})),
                "changeNode" => it.json(&json!({"name": "other"})),
                "createRollout" | "pinNode" => it.json(&json!({"version": "v1.0.0"})),
                "changeGroup" => it.json(&json!({})),
                "addSilence" => it.json(&json!({"label": "rack", "seconds": 60, "reason": "a new disk"})),
                "addWebhook" => it.json(&json!({"url": "https://hooks.example.com/"})),
                "changeWebhook" => it.json(&json!({})),
                "connectWorker" => as_worker(it),
                _ => it,
            })
            .await;
        assert_eq!(status, 500, "{}: {body}", operation.id);
    }
    for (id, name) in
        [("downloadReleaseIndex", "index.json"), ("downloadReleaseIndexSignature", "index.json.minisig")]
    {
        let path = controller.config.releases.as_ref().unwrap().join(name);
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&path, &path).unwrap();
        it.expect(&controller.nobody(), id, "", 500, plain).await;
    }
    // What was seen counts for a second.
    eventually("unreadiness", async || {
        let (status, body) = controller.nobody().get("/readyz").await;
        if status == 503 { Ok(()) } else { Err(body.to_string()) }
    })
    .await;
    it.expect(&controller.nobody(), "readiness", "", 503, plain).await;
}

#[tokio::test]
async fn the_document_is_openapi_and_refers_to_nothing_that_is_not_there() {
    let controller = Controller::start_with(|config| config.api_requests_per_second = None).await;
    let (_, document) = controller.nobody().get("/openapi.json").await;
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = BTreeSet::new();
    let mut pending = vec![&document];
    while let Some(value) = pending.pop() {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(reference)) = fields.get("$ref") {
                    assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
                }
                if let Some(Value::String(id)) = fields.get("operationId") {
                    assert!(ids.insert(id), "{id} stands twice");
                }
                pending.extend(fields.values());
            }
            Value::Array(values) => pending.extend(values),
            _ => {}
        }
    }
}

#[tokio::test]
async fn every_event_fits_the_schema_that_is_published_for_its_type_and_no_other() {
    let controller = Controller::start_with(|config| config.api_requests_per_second = None).await;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../protocol/fixtures/events");
    let mut events = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let event: Value = serde_json::from_str(&text).unwrap();
        events.push((event["type"].as_str().unwrap().to_owned(), event));
    }
    let (_, document) = controller.nobody().get("/openapi.json").await;
    let types: BTreeSet<_> = events.iter().map(|(kind, _)| kind).collect();
    assert_eq!(document["webhooks"].as_object().unwrap().keys().collect::<BTreeSet<_>>(), types);
    for kind in types {
        let (status, schema) = controller.nobody().get(&format!("/schemas/events/{kind}.json")).await;
        assert_eq!(status, 200);
        let in_document =
            &document["webhooks"][kind]["post"]["requestBody"]["content"]["application/json"]["schema"];
        for (other, event) in &events {
            let fits = Schemas(&schema).check(&schema, event);
            assert_eq!(fits.is_ok(), kind == other, "{other} as {kind}: {fits:?}");
            assert_eq!(Schemas(&document).check(in_document, event).is_ok(), kind == other);
            for field in ["nodeId", "nodeName", "status", "owner"] {
                let mut less = event.clone();
                less["data"].as_object_mut().unwrap().remove(field);
                assert!(Schemas(&schema).check(&schema, &less).is_err(), "{kind} without {field}");
            }
        }
    }
    let (status, _) = controller.nobody().get("/schemas/events/node.unknown.json").await;
    assert_eq!(status, 404);
}
