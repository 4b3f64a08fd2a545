//! Who gets in where: every address with every kind of bearer, against one table. An address
//! without a row fails.

use std::collections::BTreeSet;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Method, RequestBuilder};
use serde_json::json;

use crate::{
    delivery::{event, now, signature},
    harness::{Client, Controller, SECRET, SERVICE_TOKEN},
    inspector::UNKNOWN_ROLLOUT,
};

/// The bearers, in the order of the table's columns.
const BEARERS: [&str; 10] = [
    "nobody",
    "garbage",
    "expired",
    "the owner of another organisation",
    "a viewer",
    "the owner",
    "the operator",
    "the node",
    "another node",
    "NOTI's service",
];

/// What each of them is answered. A pending node refuses maintenance and resume with 409 to those
/// who may ask for it.
#[rustfmt::skip]
const TABLE: &[(&str, &str, [u16; 10])] = &[
    ("GET",    "/healthz",                           [200, 200, 200, 200, 200, 200, 200, 200, 200, 200]),
    ("GET",    "/readyz",                            [200, 200, 200, 200, 200, 200, 200, 200, 200, 200]),
    // From this machine; from others with METRICS_TOKEN alone.
    ("GET",    "/metrics",                           [200, 200, 200, 200, 200, 200, 200, 200, 200, 200]),
    ("GET",    "/metrics/fleet",                     [200, 200, 200, 200, 200, 200, 200, 200, 200, 200]),
    ("GET",    "/nodes",                             [401, 401, 401, 200, 200, 200, 200, 403, 403, 401]),
    ("POST",   "/nodes",                             [401, 401, 401, 201, 403, 201, 201, 403, 403, 401]),
    ("GET",    "/nodes/{id}",                        [401, 401, 401, 404, 200, 200, 200, 403, 403, 401]),
    ("DELETE", "/nodes/{id}",                        [401, 401, 401, 404, 403, 200, 200, 403, 403, 401]),
    ("PATCH",  "/nodes/{id}",                        [401, 401, 401, 404, 403, 200, 200, 403, 403, 401]),
    ("GET",    "/nodes/{id}/tokens",                 [401, 401, 401, 404, 403, 200, 200, 403, 403, 401]),
    ("GET",    "/audit",                             [401, 401, 401, 200, 403, 200, 200, 403, 403, 401]),
    ("GET",    "/alarms",                            [401, 401, 401, 200, 200, 200, 200, 403, 403, 401]),
    ("GET",    "/alarms/{alarm}",                    [401, 401, 401, 404, 404, 404, 404, 403, 403, 401]),
    ("POST",   "/alarms/{alarm}/acknowledge",        [401, 401, 401, 404, 403, 404, 404, 403, 403, 401]),
    ("GET",    "/silences",                          [401, 401, 401, 200, 200, 200, 200, 403, 403, 401]),
    ("POST",   "/silences",                          [401, 401, 401, 404, 403, 201, 201, 403, 403, 401]),
    ("DELETE", "/silences/{silence}",                [401, 401, 401, 404, 403, 404, 404, 403, 403, 401]),
    ("POST",   "/nodes/{id}/maintenance",            [401, 401, 401, 404, 403, 409, 409, 403, 403, 401]),
    ("POST",   "/nodes/{id}/resume",                 [401, 401, 401, 404, 403, 409, 409, 403, 403, 401]),
    ("GET",    "/nodes/{id}/transitions",            [401, 401, 401, 404, 200, 200, 200, 403, 403, 401]),
    ("GET",    "/nodes/{id}/metrics",                [401, 401, 401, 404, 200, 200, 200, 403, 403, 401]),
    ("POST",   "/nodes/{id}/token",                  [401, 401, 401, 404, 403, 201, 201, 403, 403, 401]),
    ("POST",   "/nodes/{id}/regenerate-credentials", [401, 401, 401, 404, 403, 201, 201, 403, 403, 401]),
    ("GET",    "/nodes/{id}/installation",           [401, 401, 401, 404, 200, 200, 200, 200, 403, 401]),
    ("POST",   "/nodes/{id}/installation",           [401, 401, 401, 401, 401, 401, 401, 200, 403, 401]),
    ("PUT",    "/nodes/{id}/pin",                    [401, 401, 401, 404, 403, 200, 200, 403, 403, 401]),
    ("DELETE", "/nodes/{id}/pin",                    [401, 401, 401, 404, 403, 200, 200, 403, 403, 401]),
    ("POST",   "/nodes/{id}/update",                 [401, 401, 401, 404, 403, 200, 200, 403, 403, 401]),
    ("GET",    "/groups/{group}",                    [401, 401, 401, 200, 200, 200, 200, 403, 403, 401]),
    ("PUT",    "/groups/{group}",                    [401, 401, 401, 200, 403, 200, 200, 403, 403, 401]),
    ("GET",    "/rollouts",                          [401, 401, 401, 200, 200, 200, 200, 403, 403, 401]),
    ("POST",   "/rollouts",                          [401, 401, 401, 201, 403, 201, 201, 403, 403, 401]),
    ("GET",    "/rollouts/{rollout}",                [401, 401, 401, 404, 200, 200, 200, 403, 403, 401]),
    ("GET",    "/rollouts/{rollout}/nodes",          [401, 401, 401, 404, 200, 200, 200, 403, 403, 401]),
    ("POST",   "/rollouts/{rollout}/{order}",        [401, 401, 401, 404, 403, 200, 200, 403, 403, 401]),
    ("GET",    "/releases/{version}/{file}",         [200, 200, 200, 200, 200, 200, 200, 200, 200, 200]),
    ("GET",    "/releases/index.json",               [200, 200, 200, 200, 200, 200, 200, 200, 200, 200]),
    ("GET",    "/releases/index.json.minisig",       [200, 200, 200, 200, 200, 200, 200, 200, 200, 200]),
    ("GET",    "/events",                            [401, 401, 401, 200, 200, 200, 200, 403, 403, 401]),
    ("POST",   "/events",                            [401, 401, 401, 401, 401, 401, 401, 401, 401, 202]),
    ("GET",    "/dead-letters",                      [401, 401, 401, 200, 200, 200, 200, 403, 403, 401]),
    ("DELETE", "/dead-letters",                      [401, 401, 401, 200, 403, 200, 200, 403, 403, 401]),
    ("POST",   "/dead-letters/replay",               [401, 401, 401, 200, 403, 200, 200, 403, 403, 401]),
    ("POST",   "/dead-letters/{letter}/replay",      [401, 401, 401, 404, 403, 404, 404, 403, 403, 401]),
    ("GET",    "/webhooks",                          [401, 401, 401, 200, 403, 200, 200, 403, 403, 401]),
    ("POST",   "/webhooks",                          [401, 401, 401, 400, 403, 400, 400, 403, 403, 401]),
    ("GET",    "/webhooks/{webhook}",                [401, 401, 401, 404, 403, 404, 404, 403, 403, 401]),
    ("PATCH",  "/webhooks/{webhook}",                [401, 401, 401, 404, 403, 404, 404, 403, 403, 401]),
    ("DELETE", "/webhooks/{webhook}",                [401, 401, 401, 404, 403, 404, 404, 403, 403, 401]),
    ("POST",   "/webhooks/{webhook}/rotate",         [401, 401, 401, 404, 403, 404, 404, 403, 403, 401]),
    ("POST",   "/webhooks/{webhook}/test",           [401, 401, 401, 404, 403, 404, 404, 403, 403, 401]),
    ("GET",    "/webhooks/{webhook}/attempts",       [401, 401, 401, 404, 403, 404, 404, 403, 403, 401]),
    ("GET",    "/webhooks/{webhook}/dead-letters",   [401, 401, 401, 404, 403, 404, 404, 403, 403, 401]),
    ("DELETE", "/webhooks/{webhook}/dead-letters",   [401, 401, 401, 404, 403, 404, 404, 403, 403, 401]),
    ("POST",   "/webhooks/{webhook}/replay",         [401, 401, 401, 404, 403, 404, 404, 403, 403, 401]),
    ("GET",    "/delivery",                          [401, 401, 401, 200, 200, 200, 200, 403, 403, 401]),
    ("POST",   "/delivery/resume",                   [401, 401, 401, 403, 403, 403, 200, 403, 403, 401]),
    ("GET",    "/controllers",                       [401, 401, 401, 403, 403, 403, 200, 403, 403, 401]),
    // A browser cannot read the status of a refused upgrade: the connection itself asks for the token.
    ("GET",    "/ws/events",                         [101, 101, 101, 101, 101, 101, 101, 101, 101, 101]),
    // Each node's token opens that node's socket.
    ("GET",    "/ws/node",                           [401, 401, 401, 401, 401, 401, 401, 101, 101, 401]),
    ("GET",    "/openapi.json",                      [200, 200, 200, 200, 200, 200, 200, 200, 200, 200]),
    ("GET",    "/asyncapi.json",                     [200, 200, 200, 200, 200, 200, 200, 200, 200, 200]),
    ("GET",    "/docs",                              [200, 200, 200, 200, 200, 200, 200, 200, 200, 200]),
    ("GET",    "/docs/{*file}",                      [200, 200, 200, 200, 200, 200, 200, 200, 200, 200]),
    ("GET",    "/docs/",                             [200, 200, 200, 200, 200, 200, 200, 200, 200, 200]),
    ("GET",    "/schemas/events/{file}",             [200, 200, 200, 200, 200, 200, 200, 200, 200, 200]),
];

#[tokio::test]
async fn every_address_answers_every_bearer_as_the_table_says() {
    // Hundreds of requests of one user follow each other here; how many may is another test's.
    let controller = Controller::start_with(|config| config.api_requests_per_second = None).await;
    let served: BTreeSet<_> = controller_stub::addresses().into_iter().collect();
    let rows: BTreeSet<_> =
        TABLE.iter().map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned())).collect();
    assert_eq!(served, rows, "every address has a row, and every row an address");

    controller.write_index();
    let owner = controller.owner_of("acme").await;
    let (_, rollout) = owner.post("/rollouts", json!({"version": "v1.1.0"})).await;
    let (mut wrong, mut nodes) = (Vec::new(), 1..);
    for (method, path, expected) in TABLE {
        for (bearer, expected) in BEARERS.into_iter().zip(expected) {
            // A node of its own, because some of these change it.
            let number = nodes.next().unwrap();
            let id = owner.add_node(&format!("asked for {number}")).await;
            let other = owner.add_node(&format!("another {number}")).await;
            let client = bearing(&controller, &owner, bearer, &id, &other).await;
            let concrete = path
                .replace("{id}", &id)
                .replace("{version}", "v1.0.0")
                .replace(
                    "{file}",
                    if path.starts_with("/schemas") { "node.resumed.json" } else { "linux-amd64" },
                )
                .replace("{letter}", "evt_unknown")
                .replace("{alarm}", UNKNOWN_ROLLOUT)
                .replace("{webhook}", UNKNOWN_ROLLOUT)
                .replace("{silence}", UNKNOWN_ROLLOUT)
                .replace("{rollout}", rollout["id"].as_str().unwrap())
                .replace("{order}", "abort")
                .replace("{group}", "gpu")
                .replace("{*file}", "swagger-ui.css");
            let request = client.request(method.parse().unwrap(), &concrete);
            let status = complete(request, method, path, &id).send().await.unwrap().status();
            if status != *expected {
                wrong.push(format!("{method} {path} as {bearer}: {status} instead of {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn bearing(controller: &Controller, owner: &Client, bearer: &str, id: &str, other: &str) -> Client {
    match bearer {
        "nobody" => controller.nobody(),
        "garbage" => controller.bearer("eyJhbGciOiJIUzI1NiJ9.garbage.garbage"),
        "expired" => {
            let claims = json!({"sub": "someone", "orgId": "acme", "roles": ["organization.owner"], "exp": 1_700_000_000});
            let key = EncodingKey::from_secret(SECRET.as_bytes());
            controller.bearer(&jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap())
        }
        "the owner of another organisation" => controller.owner_of("evil").await,
        "a viewer" => controller.user("acme", "organization.viewer").await,
        "the owner" => controller.owner_of("acme").await,
        "the operator" => controller.user("acme", "universe.owner").await,
        "the node" => controller.bearer(&owner.token_of(id).await),
        "another node" => controller.bearer(&owner.token_of(other).await),
        "NOTI's service" => controller.bearer(SERVICE_TOKEN),
        unknown => panic!("{unknown}"),
    }
}

/// With everything that the request needs to succeed.
fn complete(request: RequestBuilder, method: &str, path: &str, id: &str) -> RequestBuilder {
    match (method, path) {
        ("POST", "/nodes") => request.json(&json!({"name": format!("new beside {id}")})),
        ("PATCH", "/nodes/{id}") => request.json(&json!({"labels": {"rack": "r7"}})),
        ("PUT", "/nodes/{id}/pin") => request.json(&json!({"version": "v1.0.0"})),
        ("PUT", "/groups/{group}") => request.json(&json!({"deferWhileGpuAbove": 50})),
        ("POST", "/silences") => request.json(&json!({"nodeId": id, "seconds": 60, "reason": "a new disk"})),
        ("POST", "/webhooks") => request.json(&json!({"url": "https://127.0.0.1/"})),
        ("PATCH", "/webhooks/{webhook}") => request.json(&json!({})),
        ("POST", "/rollouts") => request.json(&json!({"version": "v1.1.0"})),
        ("POST", "/nodes/{id}/installation") => request.json(&json!({"phase": "started"})),
        ("POST", "/events") => sign(request, &format!("evt_of_{id}"), &event(id)),
        ("GET", "/ws/node") => upgrade(request, "aio.node.v1"),
        ("GET", "/ws/events") => upgrade(request, "aio.events.v1"),
        _ => request,
    }
}

/// As a proper emitter posts it.
pub(crate) fn sign(request: RequestBuilder, id: &str, body: &str) -> RequestBuilder {
    let timestamp = now().to_string();
    let signature = signature(id, &timestamp, body.as_bytes());
    request
        .header("content-type", "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", timestamp)
        .header("webhook-signature", signature)
        .body(body.to_owned())
}

/// As whoever wants a WebSocket asks for it.
pub(crate) fn upgrade(request: RequestBuilder, protocol: &str) -> RequestBuilder {
    upgrade_as(request.header("sec-websocket-version", "13"), protocol)
}

/// An upgrade whose version was said.
pub(crate) fn upgrade_as(request: RequestBuilder, protocol: &str) -> RequestBuilder {
    request
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-protocol", protocol)
}

#[tokio::test]
async fn a_page_of_the_document_can_be_browsed_and_loads_nothing_from_elsewhere() {
    // Hundreds of requests of one user follow each other here; how many may is another test's.
    let controller = Controller::start_with(|config| config.api_requests_per_second = None).await;
    let fetch = async |path: &str| {
        let answer = controller.nobody().request(Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.text().await.unwrap()
    };
    // The client follows the redirect to the page.
    let page = fetch("/docs").await;
    let sources: Vec<_> =
        page.split(['"', '\'']).filter(|it| it.ends_with(".js") || it.ends_with(".css")).collect();
    assert!(!sources.is_empty(), "{page}");
    for source in sources {
        assert!(!source.contains("//"), "{source}");
        fetch(&format!("/docs/{source}")).await;
    }
    let initializer = fetch("/docs/swagger-initializer.js").await;
    assert!(initializer.contains("\"../openapi.json\""), "{initializer}");
    // A client that follows no redirect sees where it leads: to a place beside it, whatever stands before.
    let still =
        reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let answer = still.get(format!("{}/docs", controller.url())).send().await.unwrap();
    assert_eq!(answer.headers()["location"], "docs/");
}

#[tokio::test]
async fn the_documents_name_the_public_address_and_without_one_none_of_their_own() {
    let behind = Controller::start_with(|config| {
        config.public_url = Some("https://gw.example:8443/aiwm".parse().unwrap());
    });
    let behind = behind.await;
    let (_, document) = behind.nobody().get("/openapi.json").await;
    assert_eq!(document["servers"], json!([{"url": "https://gw.example:8443/aiwm"}]));
    let (_, document) = behind.nobody().get("/asyncapi.json").await;
    let server = json!({"host": "gw.example:8443", "protocol": "wss", "pathname": "/aiwm"});
    assert_eq!(document["servers"]["controller"], server);

    let alone = Controller::start().await;
    assert_eq!(alone.nobody().get("/openapi.json").await.1["servers"], json!([{"url": "."}]));
    assert_eq!(alone.nobody().get("/asyncapi.json").await.1["servers"], json!({}));
}
