//! What an operator sees: figures, health and readiness.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde_json::json;

use crate::{
    delivery::{event, now, posted},
    gateway::signed,
    harness::{Controller, SECRET, answer, eventually, refusal},
    peers::{FakeNoti, Worker, dial},
    rollouts::update_one,
};

/// Name, kind and labels of every figure in the operators' table.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let page = include_str!("../../../docs/operations.md");
    // A table of what to be woken for has two columns only.
    let is_row = |line: &&str| {
        ["| `aio_", "| `http_", "| `process_"].iter().any(|start| line.starts_with(start))
            && line.matches('|').count() == 5
    };
    let rows = page.lines().filter(is_row);
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let labels = cells[2].split(", ").filter(|label| !label.is_empty()).map(str::to_owned).collect();
        (cells[0].trim_matches('`').to_owned(), (cells[1].to_owned(), labels))
    })
    .collect()
}

/// The same of a scrape's text.
fn exposed(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut figures = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            figures.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        } else if let Some((name, rest)) = line.split_once('{') {
            let base =
                figures.keys().find(|it| name.strip_prefix(it.as_str()).is_some_and(is_suffix)).cloned();
            let labels = rest.rsplit_once('}').unwrap().0.split("\",").filter_map(|it| it.split('=').next());
            let known = &mut figures.get_mut(&base.unwrap_or_else(|| panic!("{line}"))).unwrap().1;
            known.extend(labels.filter(|label| *label != "le").map(str::to_owned));
        }
    }
    figures
}

fn is_suffix(rest: &str) -> bool {
    matches!(rest, "" | "_bucket" | "_sum" | "_count")
}

async fn scrape(controller: &Controller) -> String {
    let answer = controller.nobody().request(Method::GET, "/metrics").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    answer.text().await.unwrap()
}

/// A figure's value; the figures are the process's, so other tests add to them.
fn value(text: &str, sample: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(sample));
    line.map_or(0.0, |value| value.trim().parse().unwrap())
}

#[tokio::test]
async fn the_operators_table_is_what_a_small_scenario_shows() {
    // A NOTI that fails once, and then does not understand.
    let noti = FakeNoti::start(&[500, 422]).await;
    let beside = Controller::start_with(|config| {
        config.noti_service_url = Some(noti.url().parse().unwrap());
    })
    .await;
    beside.owner_of("acme").await.add_node("gpu").await;

    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    update_one(&controller, &owner).await;
    let failing = owner.add_node("failing").await;
    let installer = controller.bearer(&owner.token_of(&failing).await);
    let path = format!("/nodes/{failing}/installation");
    installer.post(&path, json!({"phase": "started"})).await;
    for code in ["CHECKSUM_MISMATCH", "AN_INVENTION_OF_SOMEBODYS"] {
        let error = json!({"code": code, "message": "It failed.", "details": {}});
        installer.post(&path, json!({"phase": "started"})).await;
        assert_eq!(installer.post(&path, json!({"phase": "failed", "error": error})).await.0, 200);
    }
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    let path = format!("/nodes/{id}/installation");
    assert_eq!(controller.bearer(&token).post(&path, json!({"phase": "started"})).await.0, 200);
    let mut worker = Worker::welcomed(&controller.gateway(), &id, &token).await;
    worker.send("node.disconnecting", json!({"reason": "shutdown"})).await;
    owner.await_status(&id, "offline").await;
    // It ends so soon that the worker is offered another.
    let token = signed(SECRET, &id, 3);
    let mut worker = Worker::welcomed(&controller.gateway(), &id, &token).await;
    worker.receive("auth.rotate").await;
    let mut update = json!({"managedBy": "controller", "state": "idle"});
    worker.register_updating("1.0.0", update.clone()).await;
    update["last"] = json!({"updateId": uuid::Uuid::nil(), "from": "v1.0.0", "version": "v1.1.0", "verdict": "faulty",
        "code": "UPDATE_FAULTY", "at": "2025-12-11T12:00:00.000Z"});
    worker.register_updating("1.0.0", update).await;
    worker.ping().await;
    owner.request(Method::DELETE, &format!("/nodes/{id}")).send().await.unwrap();
    assert_eq!(worker.closed().await, 4401);
    assert!(dial(&controller.gateway(), Some("wrong"), Some("aio.node.v1")).await.is_err());
    // A webhook that may not be posted to.
    let (_, webhook) = owner.post("/webhooks", json!({"url": "https://localhost:1/"})).await;
    let test = format!("/webhooks/{}/test", webhook["id"].as_str().unwrap());
    assert_eq!(owner.post(&test, json!({})).await.0, 200);
    answer(posted(&controller, "evt_1", now(), &event("69396100cd71623c7bbfbfee"))).await;
    let watched = format!("ws://{}/ws/events", controller.address());
    let mut dashboard = dial(&watched, None, Some("aio.events.v1, bearer.wrong")).await.unwrap();
    while let Some(Ok(_)) = futures_util::StreamExt::next(&mut dashboard).await {}

    let text = eventually("every figure of the table", async || {
        let text = scrape(&controller).await;
        let (shown, table) = (exposed(&text), documented());
        if shown == table { Ok(text) } else { Err(format!("{:#?}", differences(&shown, &table))) }
    })
    .await;
    let figure = |sample: &str| value(&text, sample);
    let ended = "aio_installations_total";
    assert!(figure(&format!("{ended}{{outcome=\"failed\",code=\"CHECKSUM_MISMATCH\"}}")) >= 1.0, "{text}");
    assert!(figure(&format!("{ended}{{outcome=\"failed\",code=\"OTHER\"}}")) >= 1.0, "{text}");
    assert!(figure(&format!("{ended}{{outcome=\"succeeded\",code=\"\"}}")) >= 1.0, "{text}");
    assert!(figure("aio_installation_seconds_count") >= 1.0);
    assert!(text.contains("aio_event_delivery_seconds_bucket{le=\"0.01\"}"), "{text}");
    assert!(figure("aio_api_refusals_total{code=\"TOKEN_INVALID\"}") >= 1.0);
}

fn differences<'a, T: PartialEq>(
    shown: &'a BTreeMap<String, T>,
    table: &'a BTreeMap<String, T>,
) -> Vec<&'a String> {
    let names: BTreeSet<_> = shown.keys().chain(table.keys()).collect();
    names.into_iter().filter(|name| shown.get(*name) != table.get(*name)).collect()
}

#[tokio::test]
async fn figures_are_shown_to_this_machine_or_to_whoever_has_the_token() {
    let controller = Controller::start().await;
    let forwarded =
        controller.nobody().request(Method::GET, "/metrics").header("x-forwarded-for", "127.0.0.1");
    refusal(answer(forwarded).await, 403, "FORBIDDEN");

    let secret = "a token for those who observe";
    let controller = Controller::start_with(|config| config.metrics_token = Some(secret.into())).await;
    refusal(controller.nobody().get("/metrics").await, 401, "TOKEN_MISSING");
    refusal(controller.bearer("another token").get("/metrics").await, 401, "TOKEN_INVALID");
    refusal(controller.owner_of("acme").await.get("/metrics").await, 401, "TOKEN_INVALID");
    let answer = controller.bearer(secret).request(Method::GET, "/metrics").send().await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_controller_whose_database_takes_no_changes_lives_and_is_not_ready() {
    let controller = Controller::start().await;
    let anyone = controller.nobody();
    assert_eq!(
        anyone.get("/readyz").await,
        (reqwest::StatusCode::OK, json!({"status": "ready", "version": "1.0.0"}))
    );
    let url = format!("sqlite://{}/controller.db", controller.config.data_dir.display());
    let pool = sqlx::AnyPool::connect(&url).await.unwrap();
    let lock = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    eventually("not ready", async || {
        let (status, body) = anyone.get("/readyz").await;
        let told = body["message"]
            .as_str()
            .is_some_and(|it| it.starts_with("not ready: the database takes no change"));
        if status == 503 && told { Ok(()) } else { Err(format!("{status} {body}")) }
    })
    .await;
    assert_eq!(anyone.get("/healthz").await.0, 200);
    lock.rollback().await.unwrap();
    eventually("ready again", async || match anyone.get("/readyz").await {
        (status, _) if status == 200 => Ok(()),
        (status, body) => Err(format!("{status} {body}")),
    })
    .await;
}

#[tokio::test]
async fn a_controller_that_will_stop_says_so_and_goes_on_until_then() {
    let long = std::time::Duration::from_secs(300);
    let mut controller = Controller::start_with(|config| config.shutdown_lame_duck = long).await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    let (nobody, gateway) = (controller.nobody(), controller.gateway());
    let hurry = controller.begin_to_stop();
    eventually("unreadiness", async || {
        let (status, body) = nobody.get("/readyz").await;
        if status == 503 { Ok(()) } else { Err(body.to_string()) }
    })
    .await;
    let mut worker = Worker::welcomed(&gateway, &id, &token).await;
    assert_eq!(owner.get("/nodes").await.0, 200);
    tokio::join!(hurry(), async { assert_eq!(worker.closed().await, 1012) });
}

#[tokio::test]
async fn a_restart_drops_events_that_were_kept_for_long_enough() {
    let mut controller = Controller::start().await;
    for id in ["evt_old", "evt_new"] {
        assert_eq!(answer(posted(&controller, id, now(), &event("69396100cd71623c7bbfbfee"))).await.0, 202);
    }
    controller.sql("UPDATE inbox SET received_at = 0 WHERE id = 'evt_old'").await;
    let address = controller.address();
    controller.stop().await;
    controller.start_again(address).await;
    let owner = controller.owner_of("acme").await;
    eventually("only the new event", async || {
        let events = owner.events("69396100cd71623c7bbfbfee").await;
        if events.len() == 1 && events[0]["id"] == "evt_new" { Ok(()) } else { Err(format!("{events:?}")) }
    })
    .await;
}

#[tokio::test]
async fn figures_are_not_shown_behind_a_proxy_that_says_nothing_of_itself() {
    let ask = async |controller: &Controller, name: &str, value: &str| {
        let request = controller.nobody().request(Method::GET, "/metrics").header(name, value);
        request.send().await.unwrap().status().as_u16()
    };
    let here = Controller::start().await;
    for (name, value, status) in [
        ("x-nothing", "", 200),
        ("host", "localhost:9", 200),
        ("host", "[::1]:9", 200),
        ("host", "aiwm.example", 403),
        ("host", "127.0.0.1.evil.example", 403),
        ("via", "1.1 proxy", 403),
        ("x-real-ip", "203.0.113.7", 403),
    ] {
        assert_eq!(ask(&here, name, value).await, status, "{name}: {value}");
    }
    let proxied = Controller::start_with(|config| {
        config.public_url = Some("https://aiwm.example".parse().unwrap());
    });
    assert_eq!(
        ask(&proxied.await, "x-nothing", "").await,
        403,
        "it cannot tell a silent proxy from this machine"
    );
}

#[tokio::test]
async fn the_health_of_gpus_is_true_at_the_moment_of_the_scrape() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let mut worker = Worker::welcomed(&controller.gateway(), &id, &owner.token_of(&id).await).await;
    let ill = "aio_nodes_gpu_health{health=\"unhealthy\"}";
    for (seq, state, nodes) in [(1, "ok", 0.0), (2, "unhealthy", 1.0), (3, "ok", 0.0)] {
        worker.send("telemetry.heartbeat", json!({"seq": seq, "health": {"state": state}})).await;
        worker.ping().await;
        assert_eq!(value(&scrape(&controller).await, ill).to_bits(), f64::to_bits(nodes), "{seq}");
    }
}

#[tokio::test]
async fn requests_are_counted_by_route_and_the_process_tells_of_itself() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    owner.node(&id).await;
    owner.get("/nodes/69396100cd71623c7bbfbfee").await;
    owner.get("/nothing/of/the/kind").await;
    let figures =
        controller.nobody().request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    for figure in [
        r#"http_requests_total{route="/nodes/{id}",method="GET",status="2xx"}"#,
        r#"http_requests_total{route="/nodes/{id}",method="GET",status="4xx"}"#,
        r#"http_requests_total{route="/nodes",method="POST",status="2xx"}"#,
        r#"http_requests_total{route="none",method="GET",status="4xx"}"#,
        r#"http_request_duration_seconds_count{route="/nodes/{id}",method="GET"}"#,
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_cpu_seconds_total",
    ] {
        let value = figures.lines().find_map(|line| line.strip_prefix(figure)?.trim().parse::<f64>().ok());
        assert!(value.is_some_and(|value| value > 0.0), "{figure}: {value:?}");
    }
    assert!(figures.contains("# TYPE process_cpu_seconds_total counter"), "{figures}");
    assert!(!figures.contains(&id) && !figures.contains("/nothing"), "nobody makes figures by asking");
}
