//! AIWM's REST: each line of the contract's table, its tokens, its errors and its roles.

use controller_stub::config::Aiwm;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::peer::{Peer, controller, controller_with, login, node, post, registered, setup_token};
use crate::harness::{Client, Controller, answer};

const UNKNOWN: &str = "69396100cd71623c7bbfbfee";

async fn act(client: &Client, id: &str, action: &str) -> (StatusCode, Value) {
    post(client, &format!("/nodes/{id}/{action}"), json!({})).await
}

/// Asserts that an answer is an error in AIWM's form.
fn refused((status, body): (StatusCode, Value), expected: u16) -> Value {
    assert_eq!((status.as_u16(), &body["statusCode"]), (expected, &json!(expected)), "{body}");
    for field in ["message", "timestamp", "path", "correlationId"] {
        assert!(body[field].is_string(), "{field}: {body}");
    }
    assert!(body.get("code").is_none() && body.get("error").is_none(), "{body}");
    body
}

fn claims(token: &str) -> Value {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

#[tokio::test]
async fn a_machine_goes_the_whole_way_in_and_each_step_is_taken_once() {
    let controller = controller().await;
    let (owner, nobody) = (controller.owner_of("acme").await, controller.nobody());
    let id = registered(&owner, "gpu-01").await;
    let (status, guide) = post(&owner, &format!("/nodes/{id}/setup-guide"), json!({"os": "ubuntu"})).await;
    assert_eq!(status, 200, "{guide}");
    assert!(guide["os"] == "ubuntu" && guide["instructions"].is_array(), "{guide}");
    let superseded = guide["installCommand"].as_str().unwrap().rsplit(' ').next().unwrap().to_owned();
    let told = claims(&superseded);
    let (base, gateway) = (controller.url(), controller.gateway());
    for (claim, value) in [
        ("sub", json!(id)),
        ("type", json!("node-setup")),
        ("nodeId", json!(id)),
        ("bootstrapUrl", json!(format!("{base}/nodes/auth/bootstrap"))),
        ("apiBaseUrl", json!(base)),
        ("wsBaseUrl", json!(gateway)),
        ("wsPath", json!("/socket.io")),
        ("monaBaseUrl", json!(base)),
    ] {
        assert_eq!(told[claim], value, "{claim}: {told}");
    }
    assert_eq!(told["exp"].as_i64().unwrap() - told["iat"].as_i64().unwrap(), 86_400);
    // A token of the same second is the same token.
    let mut setup = superseded.clone();
    while setup == superseded {
        setup = setup_token(&owner, &id).await;
    }
    for wrong in [&superseded, "garbage", &format!("{setup}x")] {
        refused(post(&nobody, "/nodes/auth/bootstrap", json!({"setupToken": wrong})).await, 401);
    }
    let (status, opened) = post(&nobody, "/nodes/auth/bootstrap", json!({"setupToken": setup})).await;
    assert_eq!(status, 200, "{opened}");
    let secret = opened["secret"].as_str().unwrap();
    assert!(uuid::Uuid::parse_str(secret).is_ok() && opened["warning"].is_string(), "{opened}");
    assert_eq!(owner.node(&id).await["status"], "installing");
    refused(post(&nobody, "/nodes/auth/bootstrap", json!({"setupToken": setup})).await, 401);
    refused(post(&owner, &format!("/nodes/{id}/setup-guide"), json!({"os": "ubuntu"})).await, 400);
    let kept = controller.text_in_database("SELECT secret_sha256 FROM aiwm_nodes").await;
    assert!(kept.len() == 64 && kept != secret, "only the hash is kept: {kept}");

    for key in ["id", "apiKey"] {
        let (status, login) = post(&nobody, "/nodes/auth/login", json!({key: id, "secret": secret})).await;
        assert_eq!(status, 200, "{login}");
        assert_eq!((&login["expiresIn"], &login["tokenType"]), (&json!(3600), &json!("Bearer")), "{login}");
        let node = json!({"_id": id, "name": "gpu-01", "status": "installing", "roles": ["worker"], "orgId": "acme"});
        assert_eq!(login["node"], node, "{login}");
        let told = claims(login["accessToken"].as_str().unwrap());
        let names: Vec<_> = told.as_object().unwrap().keys().cloned().collect();
        assert_eq!(names, ["exp", "iat", "orgId", "roles", "status", "sub", "type", "username"]);
    }
    for (who, with) in [(id.as_str(), "wrong"), (UNKNOWN, secret), ("nobody", secret), (&id, "")] {
        refused(post(&nobody, "/nodes/auth/login", json!({"id": who, "secret": with})).await, 401);
    }
    refused(post(&nobody, "/nodes/auth/login", json!({"secret": secret})).await, 400);
    let token = login(&nobody, &id, secret).await;
    let (status, fresh) = post(&nobody, "/nodes/auth/refresh", json!({ "token": token })).await;
    assert_eq!(status, 200, "{fresh}");
    assert!(fresh.get("node").is_none() && fresh["accessToken"].is_string(), "{fresh}");
    for wrong in [&setup, "garbage", ""] {
        refused(post(&nobody, "/nodes/auth/refresh", json!({ "token": wrong })).await, 401);
    }
}

#[tokio::test]
async fn an_old_token_is_refreshed_for_five_minutes() {
    use jsonwebtoken::{EncodingKey, Header};
    let controller = controller().await;
    let owner = controller.owner_of("acme").await;
    let node = node(&controller, &owner, "gpu-01").await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let key = EncodingKey::from_secret(crate::harness::SECRET.as_bytes());
    for (ago, expected) in [(290, 200), (310, 401)] {
        let claims = json!({"sub": node.id, "type": "node", "username": "gpu-01", "status": "online", "roles": [],
            "orgId": "acme", "iat": now - ago - 3600, "exp": now - ago});
        let token = jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap();
        let (status, body) =
            post(&controller.nobody(), "/nodes/auth/refresh", json!({ "token": token })).await;
        assert_eq!(status.as_u16(), expected, "{ago} s: {body}");
    }
}

#[tokio::test]
async fn an_editor_registers_workers_that_an_owner_approves() {
    let controller = controller().await;
    let owner = controller.owner_of("acme").await;
    let editor = controller.user("acme", "organization.editor").await;
    let (status, node) =
        post(&editor, "/nodes", json!({"name": "gpu-01", "role": ["worker"], "more": 1})).await;
    assert_eq!((status.as_u16(), &node["status"]), (201, &json!("awaiting-approval")), "{node}");
    let id = node["_id"].as_str().unwrap();
    refused(post(&owner, &format!("/nodes/{id}/setup-guide"), json!({"os": "ubuntu"})).await, 400);
    refused(act(&editor, id, "approve").await, 403);
    let (_, list) = owner.get("/nodes?filter[status]=awaiting-approval").await;
    assert_eq!(list["pagination"], json!({"page": 1, "limit": 10, "total": 1}), "{list}");
    let statistics = json!({"total": 1, "byStatus": {"awaiting-approval": 1}, "byType": {"worker": 1}});
    assert_eq!(list["statistics"], statistics, "{list}");
    let (_, list) = owner.get("/nodes?filter[status]=pending").await;
    assert_eq!(list["data"], json!([]), "{list}");
    let (status, node) = act(&owner, id, "approve").await;
    assert_eq!((status.as_u16(), &node["status"]), (200, &json!("pending")), "{node}");
    refused(act(&owner, id, "approve").await, 400);
    // Its creator may go on.
    setup_token(&editor, id).await;

    refused(post(&editor, "/nodes", json!({"name": "c", "role": ["controller"]})).await, 403);
    for role in ["organization.viewer", "group.viewer"] {
        let viewer = controller.user("acme", role).await;
        refused(post(&viewer, "/nodes", json!({"name": "v", "role": ["worker"]})).await, 403);
        assert_eq!(viewer.node(id).await["name"], "gpu-01");
        refused(act(&viewer, id, "maintenance").await, 403);
    }
    for none in ["organization.admin", "nothing"] {
        let stranger = controller.user("acme", none).await;
        refused(stranger.get("/nodes").await, 403);
    }
    refused(controller.nobody().get("/nodes").await, 401);
}

#[tokio::test]
async fn a_wrong_body_is_refused_with_its_errors() {
    let controller = controller().await;
    let owner = controller.owner_of("acme").await;
    for wrong in [
        json!({"name": "x"}),
        json!({"role": ["worker"]}),
        json!({"name": "x", "role": []}),
        json!({"name": "x", "role": ["king"]}),
        json!({"name": 7, "role": ["worker"]}),
    ] {
        let body = refused(post(&owner, "/nodes", wrong.clone()).await, 400);
        assert!(body["errors"].as_array().is_some_and(|errors| !errors.is_empty()), "{wrong}: {body}");
        assert_eq!(body["path"], "/nodes");
    }
    let id = registered(&owner, "gpu-01").await;
    refused(post(&owner, &format!("/nodes/{id}/setup-guide"), json!({"os": "windows"})).await, 400);
    refused(owner.get("/nodes?limit=0").await, 400);
}

#[tokio::test]
async fn nodes_are_set_aside_from_every_status_and_removed_from_three() {
    let controller = controller().await;
    let owner = controller.owner_of("acme").await;
    let pending = registered(&owner, "pending").await;
    let delete = async |id: &str| answer(owner.request(Method::DELETE, &format!("/nodes/{id}"))).await;
    let (status, gone) = delete(&pending).await;
    assert_eq!((status.as_u16(), gone["message"].is_string()), (200, true), "{gone}");
    refused(delete(&pending).await, 404);
    refused(owner.get(&format!("/nodes/{pending}")).await, 404);

    let node = node(&controller, &owner, "gpu-01").await;
    refused(delete(&node.id).await, 400);
    refused(act(&owner, &node.id, "regenerate-credentials").await, 400);
    let (status, aside) = act(&owner, &node.id, "maintenance").await;
    assert_eq!((status.as_u16(), &aside["status"]), (200, &json!("maintenance")), "from installing: {aside}");
    refused(act(&owner, &node.id, "maintenance").await, 400);
    let (status, _) = delete(&node.id).await;
    assert_eq!(status, 200);
    let types =
        ["node.registered", "node.installation_started", "node.maintenance_mode", "node.decommissioned"];
    owner.await_events(&node.id, &types).await;
    refused(
        post(&controller.nobody(), "/nodes/auth/login", json!({"id": node.id, "secret": node.secret})).await,
        401,
    );
    let (_, list) = owner.get("/nodes").await;
    assert_eq!((&list["data"], &list["statistics"]["total"]), (&json!([]), &json!(0)), "{list}");
}

#[tokio::test]
async fn an_unknown_a_foreign_and_a_malformed_id_are_told_by_the_mode() {
    for (mode, unknown, malformed) in [(Aiwm::Lenient, 404, 400), (Aiwm::Strict, 403, 500)] {
        let controller = controller_with(|config| config.aiwm = Some(mode)).await;
        let owner = controller.owner_of("acme").await;
        let foreign = registered(&controller.owner_of("other").await, "theirs").await;
        for id in [UNKNOWN, &foreign] {
            refused(owner.get(&format!("/nodes/{id}")).await, unknown);
            refused(act(&owner, id, "maintenance").await, unknown);
        }
        refused(owner.get("/nodes/not-an-id").await, malformed);
    }
}

#[tokio::test]
async fn whoever_stands_above_all_organisations_acts_in_the_one_that_they_name() {
    let controller = controller().await;
    let id = registered(&controller.owner_of("acme").await, "gpu-01").await;
    let universe = controller.user("elsewhere", "universe.owner").await;
    refused(universe.get(&format!("/nodes/{id}")).await, 404);
    let within = |client: &Client, org: &str| {
        client.request(Method::GET, &format!("/nodes/{id}")).header("X-Organization-Id", org)
    };
    assert_eq!(answer(within(&universe, "acme")).await.0, 200);
    refused(answer(within(&universe, "not an id")).await, 400);
    let other = controller.owner_of("other").await;
    refused(answer(within(&other, "acme")).await, 404);
}

#[tokio::test]
async fn every_answer_has_a_correlation_id_its_own_or_the_one_that_was_sent() {
    let controller = controller().await;
    let owner = controller.owner_of("acme").await;
    for (method, path) in [
        (Method::GET, "/health"),
        (Method::GET, "/nodes"),
        (Method::GET, "/nowhere"),
        (Method::GET, "/healthz"),
        (Method::DELETE, "/nodes"),
        (Method::GET, "/socket.io/?EIO=4&transport=polling"),
    ] {
        let sent = owner.request(method.clone(), path).header("x-correlation-id", "abc-123");
        let answered = sent.send().await.unwrap();
        assert_eq!(answered.headers()["x-correlation-id"], "abc-123", "{method} {path}");
        if answered.status().is_client_error() {
            let body: Value = serde_json::from_str(&answered.text().await.unwrap()).unwrap();
            assert_eq!(body["correlationId"], "abc-123", "{method} {path}: {body}");
        }
        let made = owner.request(method, path).send().await.unwrap();
        let id = made.headers()["x-correlation-id"].to_str().unwrap().to_owned();
        assert!(uuid::Uuid::parse_str(&id).is_ok(), "{id}");
    }
}

#[tokio::test]
async fn the_list_has_pages_filters_and_statistics() {
    let controller = controller().await;
    let owner = controller.owner_of("acme").await;
    for number in 0..12 {
        registered(&owner, &format!("gpu-{number:02}")).await;
    }
    let (_, first) = owner.get("/nodes").await;
    assert_eq!((first["data"].as_array().unwrap().len(), &first["pagination"]["total"]), (10, &json!(12)));
    let (_, second) = owner.get("/nodes?page=2&limit=10").await;
    assert_eq!(second["data"].as_array().unwrap().len(), 2);
    let (_, named) = owner.get("/nodes?filter[name]=gpu-07").await;
    assert_eq!((&named["data"][0]["name"], &named["pagination"]["total"]), (&json!("gpu-07"), &json!(1)));
    let statistics = json!({"total": 12, "byStatus": {"pending": 12}, "byType": {"worker": 12}});
    assert_eq!(named["statistics"], statistics, "whatever the filter");
    let (_, online) = owner.get("/nodes?filter[status]=online").await;
    assert_eq!(online["data"], json!([]));
    let (_, none) = owner.get("/nodes?filter[status]=nonsense").await;
    assert_eq!(none["data"], json!([]));
    for field in ["_id", "name", "role", "status", "owner", "createdAt", "systemInfo"] {
        assert!(first["data"][0].get(field).is_some(), "{field}: {}", first["data"][0]);
    }
}

fn metrics(id: &str) -> Value {
    json!({
        "nodeId": id, "timestamp": "2025-12-11T12:00:00.000Z", "status": "online", "websocketConnected": true, "uptime": 10,
        "cpu": {"usage": 12.5, "cores": 8, "loadAverage": [0.1, 0.2, 0.3]},
        "memory": {"total": 4, "used": 2, "free": 1, "cached": 1},
        "disk": {"total": 4, "used": 2, "free": 2, "readBytesPerSec": 0, "writeBytesPerSec": 0},
        "network": {"rxBytesPerSec": 0, "txBytesPerSec": 0},
        "gpu": [{"deviceId": "0", "model": "L4", "utilization": 3, "memoryUsed": 1, "memoryTotal": 2, "temperature": 40}],
    })
}

#[tokio::test]
async fn mona_takes_a_nodes_metrics_and_nothing_beside_them() {
    let controller = controller().await;
    let owner = controller.owner_of("acme").await;
    let node = node(&controller, &owner, "gpu-01").await;
    let worker = controller.bearer(&node.token);
    let (status, taken) = post(&worker, "/metrics/push/node", metrics(&node.id)).await;
    assert_eq!(status, 201, "{taken}");
    assert_eq!((&taken["success"], &taken["data"]["nodeId"]), (&json!(true), &json!(node.id)), "{taken}");
    assert!(taken["data"]["metricId"].is_string() && taken["data"]["interval"].is_string(), "{taken}");
    for (place, value) in [
        ("/extra", json!(1)),
        ("/cpu/extra", json!(1)),
        ("/cpu/cores", json!(0)),
        ("/cpu/usage", json!(100.5)),
        ("/cpu/loadAverage", json!([1, 2])),
        ("/status", json!("draining")),
        ("/timestamp", json!("yesterday")),
        ("/nodeId", json!(UNKNOWN)),
        ("/memory/used", json!(-1)),
        ("/gpu/0/temperature", Value::Null),
        ("/gpu/0/health", json!("ok")),
    ] {
        let mut wrong = metrics(&node.id);
        let (parent, field) = place.rsplit_once('/').unwrap();
        wrong.pointer_mut(parent).unwrap()[field] = value;
        refused(post(&worker, "/metrics/push/node", wrong).await, 400);
    }
    for token in [&node.setup, "garbage"] {
        refused(post(&controller.bearer(token), "/metrics/push/node", metrics(&node.id)).await, 401);
    }
    refused(post(&owner, "/metrics/push/node", metrics(&node.id)).await, 401);
}

#[tokio::test]
async fn the_own_api_is_beside_it_and_alone_without_the_setting() {
    let controller = controller().await;
    let owner = controller.owner_of("acme").await;
    let id = registered(&owner, "gpu-01").await;
    let (status, _) = owner.get(&format!("/nodes/{id}/transitions")).await;
    assert_eq!(status, 200);
    let token = owner.token_of(&id).await;
    let _own = crate::peers::Worker::welcomed(&controller.gateway(), &id, &token).await;
    let (status, health) = controller.nobody().get("/health").await;
    assert_eq!((status.as_u16(), &health["status"]), (200, &json!("ok")));
    let (status, document) = controller.nobody().get("/api-docs-json").await;
    assert!(status == 200 && document["paths"]["/nodes/auth/login"]["post"].is_object(), "{document}");

    let plain = Controller::start().await;
    let owner = plain.owner_of("acme").await;
    for path in ["/health", "/api-docs-json", "/socket.io/?EIO=4&transport=polling", "/_double/faults"] {
        let answered = owner.request(Method::GET, path).send().await.unwrap();
        assert_eq!(answered.status(), 404, "{path}");
        assert!(!answered.headers().contains_key("x-correlation-id"), "{path}");
    }
    crate::harness::refusal(post(&plain.nobody(), "/nodes/auth/login", json!({})).await, 404, "NOT_FOUND");
}

#[tokio::test]
async fn a_secret_that_was_regenerated_takes_the_old_ones_place() {
    let controller = controller().await;
    let (owner, nobody) = (controller.owner_of("acme").await, controller.nobody());
    let node = node(&controller, &owner, "gpu-01").await;
    drop(Peer::welcomed(&controller, &node.token).await);
    owner.await_status(&node.id, "offline").await;
    let (status, new) = act(&owner, &node.id, "regenerate-credentials").await;
    assert_eq!(
        (status.as_u16(), &new["nodeId"], &new["affectedStatus"]),
        (200, &json!(node.id), &json!("offline"))
    );
    let secret = new["credentials"]["secret"].as_str().unwrap();
    refused(post(&nobody, "/nodes/auth/login", json!({"id": node.id, "secret": node.secret})).await, 401);
    refused(post(&nobody, "/nodes/auth/refresh", json!({"token": node.token})).await, 401);
    let token = login(&nobody, &node.id, secret).await;
    let (status, _) = post(&nobody, "/nodes/auth/refresh", json!({ "token": token })).await;
    assert_eq!(status, 200);
    let audit: Vec<_> = owner.get("/audit").await.1["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|record| (record["action"].as_str().unwrap().to_owned(), record["outcome"].clone()))
        .collect();
    for action in ["node.register", "aiwm.setup_guide", "aiwm.regenerate_credentials"] {
        assert!(audit.contains(&(action.to_owned(), json!("done"))), "{action}: {audit:?}");
    }
}
