//! The HTTP API: what every address has in common, users and their organisations, lists.

use reqwest::{Method, header};
use serde_json::json;

use crate::harness::{Controller, answer, refusal};

#[tokio::test]
async fn every_error_has_aiwms_form() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    refusal(owner.get("/nothing").await, 404, "NOT_FOUND");
    refusal(owner.get("/nodes/not-an-id").await, 404, "NODE_NOT_FOUND");
    refusal(owner.get("/nodes/69396100cd71623c7bbfbfee").await, 404, "NODE_NOT_FOUND");
    refusal(controller.nobody().get("/nodes").await, 401, "TOKEN_MISSING");
    refusal(controller.bearer("garbage").get("/nodes").await, 401, "TOKEN_INVALID");

    let not_allowed = owner.request(Method::DELETE, "/nodes").send().await.unwrap();
    let mut allow: Vec<_> = not_allowed.headers()[header::ALLOW].to_str().unwrap().split(',').collect();
    allow.sort_unstable();
    assert_eq!(allow, ["GET", "HEAD", "POST"]);
    refusal(answer(owner.request(Method::DELETE, "/nodes")).await, 405, "METHOD_NOT_ALLOWED");
    refusal(answer(owner.request(Method::PUT, "/nodes?page=1")).await, 405, "METHOD_NOT_ALLOWED");
    refusal(answer(owner.request(Method::POST, "/nodes?page=1")).await, 400, "VALIDATION_FAILED");

    let post = |path: &str| owner.request(Method::POST, path);
    refusal(answer(post("/nodes").body("{}")).await, 415, "MEDIA_TYPE_UNSUPPORTED");
    let json = |body: String| post("/nodes").header(header::CONTENT_TYPE, "application/json").body(body);
    refusal(answer(json("{".into())).await, 400, "VALIDATION_FAILED");
    refusal(answer(json(format!("\"{}\"", "x".repeat(70_000)))).await, 413, "BODY_TOO_LARGE");
    let token = format!("/nodes/{id}/token");
    refusal(answer(post(&token).body("x")).await, 415, "MEDIA_TYPE_UNSUPPORTED");
    refusal(answer(post(&token).json(&"x".repeat(70_000))).await, 413, "BODY_TOO_LARGE");
}

#[tokio::test]
async fn a_missing_token_is_asked_for() {
    let controller = Controller::start().await;
    let answer = controller.nobody().request(Method::GET, "/nodes").send().await.unwrap();
    assert_eq!(answer.headers()[header::WWW_AUTHENTICATE], "Bearer");
    assert_eq!(controller.nobody().get("/healthz").await.0, 200);
}

#[tokio::test]
async fn a_registration_is_validated_by_field() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    for (body, field) in [
        (json!({}), "name"),
        (json!({"name": ""}), "name"),
        (json!({"name": "a\nb"}), "name"),
        (json!({"name": "gpu\u{202e}1"}), "name"),
        (json!({"name": "gpu\u{200b}"}), "name"),
        (json!({"name": "gpu "}), "name"),
        (json!({"name": "x".repeat(129)}), "name"),
        (json!({"name": 7}), "name"),
        (json!({"name": "a", "role": []}), "role"),
        (json!({"name": "a", "role": "worker"}), "role"),
        (json!({"name": "a", "role": ["worker", "king"]}), "role"),
        (json!({"name": "a", "status": "online"}), "status"),
    ] {
        let message = refusal(owner.post("/nodes", body.clone()).await, 400, "VALIDATION_FAILED");
        assert!(message.contains(field), "{body}: {message}");
    }
    let (_, node) =
        owner.post("/nodes", json!({"name": "é 'x' $(y)", "role": ["storage", "proxy", "storage"]})).await;
    assert_eq!((&node["name"], &node["role"]), (&json!("é 'x' $(y)"), &json!(["storage", "proxy"])));
    let (_, node) = owner.post("/nodes", json!({"name": "plain"})).await;
    assert_eq!(node["role"], json!(["worker"]));
}

#[tokio::test]
async fn nobody_sees_or_changes_what_another_organisation_owns() {
    let controller = Controller::start().await;
    let (ours, theirs) = (controller.owner_of("acme").await, controller.owner_of("evil").await);
    let id = ours.add_node("gpu").await;
    ours.await_events(&id, &["node.registered"]).await;
    refusal(theirs.get(&format!("/nodes/{id}")).await, 404, "NODE_NOT_FOUND");
    refusal(theirs.post(&format!("/nodes/{id}/token"), json!({})).await, 404, "NODE_NOT_FOUND");
    refusal(theirs.get(&format!("/nodes/{id}/installation")).await, 404, "NODE_NOT_FOUND");
    let (_, list) = theirs.get("/nodes").await;
    assert_eq!((&list["data"], &list["statistics"]["total"]), (&json!([]), &json!(0)));
    for path in ["/events".to_owned(), format!("/events?nodeId={id}")] {
        assert_eq!(theirs.get(&path).await.1["data"], json!([]));
    }
    // Nor by naming an event that only we have.
    let event = ours.events(&id).await[0]["id"].as_str().unwrap().to_owned();
    refusal(theirs.get(&format!("/events?since={event}")).await, 410, "EVENT_GONE");
}

#[tokio::test]
async fn members_look_and_owners_and_admins_write() {
    let controller = Controller::start().await;
    let id = controller.owner_of("acme").await.add_node("gpu").await;
    let member = controller.user("acme", "organization.member").await;
    assert_eq!(member.node(&id).await["name"], "gpu");
    refusal(member.post("/nodes", json!({"name": "x"})).await, 403, "FORBIDDEN");
    refusal(member.post(&format!("/nodes/{id}/token"), json!({})).await, 403, "FORBIDDEN");
    controller.user("acme", "organization.admin").await.add_node("by an admin").await;
}

#[tokio::test]
async fn a_nodes_token_opens_its_own_node_and_nothing_else() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let (mine, other) = (owner.add_node("mine").await, owner.add_node("other").await);
    let node = controller.bearer(&owner.token_of(&mine).await);
    assert_eq!(node.get(&format!("/nodes/{mine}/installation")).await.0, 200);
    let foreign = format!("/nodes/{other}/installation");
    refusal(node.get(&foreign).await, 403, "TOKEN_FOREIGN");
    refusal(node.post(&foreign, json!({"phase": "started"})).await, 403, "TOKEN_FOREIGN");
    refusal(node.get("/nodes").await, 403, "FORBIDDEN");
    refusal(node.get(&format!("/nodes/{mine}")).await, 403, "FORBIDDEN");
    refusal(node.get("/events").await, 403, "FORBIDDEN");
    refusal(node.post("/nodes", json!({"name": "x"})).await, 403, "FORBIDDEN");
    let as_a_user = owner.post(&format!("/nodes/{mine}/installation"), json!({"phase": "started"})).await;
    refusal(as_a_user, 401, "TOKEN_INVALID");
    assert_eq!(owner.node(&other).await["status"], "pending");
}

#[tokio::test]
async fn nodes_are_listed_in_pages_newest_first_with_statistics_of_all() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(owner.add_node(&format!("gpu-{number}")).await);
    }
    let installer = controller.bearer(&owner.token_of(&ids[1]).await);
    installer.post(&format!("/nodes/{}/installation", ids[1]), json!({"phase": "started"})).await;

    let mut seen = Vec::new();
    for page in 1..=3 {
        let (_, list) = owner.get(&format!("/nodes?page={page}&limit=2")).await;
        let mut pagination = list["pagination"].clone();
        assert_eq!(pagination.as_object_mut().unwrap().remove("nextCursor").is_some(), page < 3);
        assert_eq!(pagination, json!({"page": page, "limit": 2, "total": 5, "totalPages": 3}));
        assert_eq!(list["statistics"]["total"], 5);
        assert_eq!(
            list["statistics"]["byStatus"],
            json!({"pending": 4, "installing": 1, "online": 0, "offline": 0, "maintenance": 0, "error": 0, "inactive": 0})
        );
        seen.extend(
            list["data"].as_array().unwrap().iter().map(|node| node["_id"].as_str().unwrap().to_owned()),
        );
    }
    seen.sort_unstable();
    ids.sort_unstable();
    assert_eq!(seen, ids, "each node stands on one page");
    let (_, list) = owner.get("/nodes?status=installing").await;
    assert_eq!((&list["pagination"]["total"], &list["data"][0]["name"]), (&json!(1), &json!("gpu-1")));
    assert_eq!(owner.get("/nodes?page=99").await.1["data"], json!([]));
    for query in ["page=0", "limit=0", "limit=101", "page=x", "status=ONLINE", "stauts=online", "limit=-1"] {
        let message = refusal(owner.get(&format!("/nodes?{query}")).await, 400, "VALIDATION_FAILED");
        assert!(message.contains(query.split_once('=').unwrap().0), "{query}: {message}");
    }
}

#[tokio::test]
async fn pages_of_the_listed_origins_may_call_the_api_and_no_others() {
    const PAGE: &str = "https://dashboard.example";
    let controller = Controller::start_with(|config| config.dashboard_origins = vec![PAGE.to_owned()]).await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let ask = async |method: Method, path: &str, origin: &str| {
        let request = owner.request(method, path).header("origin", origin);
        request.header("access-control-request-method", "PATCH").send().await.unwrap()
    };
    let value = |answer: &reqwest::Response, name: &str| {
        answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
    };
    for path in ["/nodes", "/events", &format!("/nodes/{id}/token"), "/openapi.json"] {
        let preflight = ask(Method::OPTIONS, path, PAGE).await;
        assert_eq!(preflight.status(), 204, "{path}");
        assert_eq!(value(&preflight, "access-control-allow-origin").as_deref(), Some(PAGE));
        assert!(value(&preflight, "vary").unwrap().contains("Origin"));
        assert!(value(&preflight, "access-control-allow-headers").unwrap().contains("authorization"));
        assert_eq!(value(&preflight, "access-control-allow-credentials"), None);
    }
    let methods = value(&ask(Method::OPTIONS, "/nodes", PAGE).await, "access-control-allow-methods").unwrap();
    assert!(["GET", "POST", "PATCH", "DELETE"].iter().all(|method| methods.contains(method)), "{methods}");
    assert_eq!(ask(Method::OPTIONS, "/nothing", PAGE).await.status(), 404);

    for path in ["/nodes", "/nodes/69396100cd71623c7bbfbfee"] {
        let answer = ask(Method::GET, path, PAGE).await;
        assert_eq!(value(&answer, "access-control-allow-origin").as_deref(), Some(PAGE), "{path}");
    }
    for foreign in ["https://evil.example", "null", "https://dashboard.example.evil", "*"] {
        for method in [Method::OPTIONS, Method::GET] {
            let answer = ask(method.clone(), "/nodes", foreign).await;
            assert_eq!(value(&answer, "access-control-allow-origin"), None, "{foreign}");
            assert!(value(&answer, "vary").unwrap().contains("Origin"));
            assert_eq!(answer.status(), if method == Method::GET { 200 } else { 405 });
        }
    }
    for path in [&format!("/nodes/{id}/installation"), "/ws/node", "/metrics"] {
        for method in [Method::OPTIONS, Method::GET] {
            let answer = ask(method, path, PAGE).await;
            assert_eq!(value(&answer, "access-control-allow-origin"), None, "{path}");
        }
    }
}
