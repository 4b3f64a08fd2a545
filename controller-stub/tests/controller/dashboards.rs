//! Dashboards' WebSockets: who may watch, that nothing is missing or twice between what was and
//! what comes, and whom it gives up.

use std::time::Duration;

use aio_protocol::ids::NodeId;
use controller_stub::commands::{self, For};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message, client::IntoClientRequest},
};

use crate::{
    delivery::{event, now, posted},
    harness::{Controller, answer, refusal},
    hostile::{close_code, masked},
};

const PATIENCE: Duration = Duration::from_secs(10);

struct Dashboard(WebSocketStream<MaybeTlsStream<TcpStream>>);

async fn token_of(controller: &Controller, org: &str, lasts_secs: u64) -> String {
    let whose = For { org: Some(org.parse().unwrap()), user: Some("someone".parse().unwrap()) };
    commands::user_token(&controller.config, whose, vec!["organization.member".into()], lasts_secs)
        .await
        .unwrap()
}

/// Dials as a browser does; the answer's protocol is returned too.
async fn dial(
    controller: &Controller,
    query: &str,
    protocols: &str,
    origin: Option<&str>,
) -> Result<(Dashboard, String), u16> {
    let headers: Vec<_> = origin.map(|origin| ("origin", origin)).into_iter().collect();
    dial_with(controller, query, protocols, &headers).await
}

async fn dial_with(
    controller: &Controller,
    query: &str,
    protocols: &str,
    headers: &[(&'static str, &str)],
) -> Result<(Dashboard, String), u16> {
    let url = format!("ws://{}/ws/events{query}", controller.address());
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocols.parse().unwrap());
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    match connect_async(request).await {
        Ok((socket, answer)) => {
            let headers = format!("{:?}", answer.headers());
            assert!(!headers.contains("bearer."), "{headers}");
            let protocol = answer.headers()["sec-websocket-protocol"].to_str().unwrap().to_owned();
            Ok((Dashboard(socket), protocol))
        }
        Err(Error::Http(answer)) => Err(answer.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

/// A dashboard of an organisation.
async fn watch(controller: &Controller, org: &str, query: &str) -> Dashboard {
    let token = token_of(controller, org, 3600).await;
    dial(controller, query, &format!("aio.events.v1, bearer.{token}"), None).await.unwrap().0
}

impl Dashboard {
    async fn next(&mut self) -> Message {
        timeout(PATIENCE, self.0.next()).await.expect("a frame in time").expect("a frame").unwrap()
    }

    async fn message(&mut self) -> Value {
        loop {
            match self.next().await {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) => {}
                other => panic!("{other:?} instead of a message"),
            }
        }
    }

    /// Takes the next message, which must be of this type.
    async fn expect(&mut self, kind: &str) -> Value {
        let message = self.message().await;
        assert_eq!(message["type"], kind, "{message}");
        message
    }

    /// The ids of so many events.
    async fn ids(&mut self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        while ids.len() < count {
            if let Some(id) = self.message().await["id"].as_str() {
                ids.push(id.to_owned());
            }
        }
        ids
    }

    /// Close code and reason; what comes before does not count.
    async fn closed(&mut self) -> (u16, String) {
        loop {
            if let Message::Close(frame) = self.next().await {
                let frame = frame.expect("a code");
                while let Ok(Some(Ok(_))) = timeout(PATIENCE, self.0.next()).await {}
                return (frame.code.into(), frame.reason.to_string());
            }
        }
    }

    async fn say(&mut self, text: impl Into<String>) {
        self.0.send(Message::text(text.into())).await.unwrap();
    }
}

fn body(org: &str, number: u8) -> String {
    let node = NodeId::from_bytes([number; 12]);
    event(node.as_str()).replace("\"acme\"", &format!("\"{org}\""))
}

async fn post(controller: &Controller, id: &str, org: &str) {
    assert_eq!(answer(posted(controller, id, now(), &body(org, 1))).await.0, 202);
}

#[tokio::test]
async fn a_browser_watches_its_organisations_events_and_no_others() {
    let controller = Controller::start().await;
    let token = token_of(&controller, "acme", 3600).await;
    let (mut ours, protocol) =
        dial(&controller, "", &format!("aio.events.v1, bearer.{token}"), None).await.unwrap();
    assert_eq!(protocol, "aio.events.v1");
    let mut theirs = watch(&controller, "other", "").await;
    for dashboard in [&mut ours, &mut theirs] {
        dashboard.expect("events.welcome").await;
        dashboard.expect("events.live").await;
    }
    for (id, org) in [("evt_1", "acme"), ("evt_2", "other"), ("evt_3", "acme")] {
        post(&controller, id, org).await;
    }
    let first = ours.expect("node.registered").await;
    assert_eq!((&first["id"], &first["data"]["owner"]["orgId"]), (&json!("evt_1"), &json!("acme")));
    assert_eq!(first["timestamp"], "2025-12-11T12:00:00.000Z");
    assert_eq!(ours.ids(1).await, ["evt_3"]);
    assert_eq!(theirs.ids(1).await, ["evt_2"]);
}

#[tokio::test]
async fn a_token_in_the_first_message_is_as_good() {
    let controller = Controller::start().await;
    post(&controller, "evt_1", "acme").await;
    post(&controller, "evt_2", "acme").await;
    let (mut dashboard, _) = dial(&controller, "", "aio.events.v1", None).await.unwrap();
    let token = token_of(&controller, "acme", 3600).await;
    dashboard
        .say(json!({"type": "authenticate", "data": {"token": token, "since": "evt_1"}}).to_string())
        .await;
    let welcome = dashboard.expect("events.welcome").await;
    assert_eq!(welcome["data"]["orgId"], "acme");
    assert_eq!(dashboard.ids(1).await, ["evt_2"]);
    dashboard.expect("events.live").await;
    dashboard.say("hello?").await;
    assert_eq!(dashboard.closed().await.0, 4400);
}

#[tokio::test]
async fn between_what_was_and_what_comes_nothing_is_missing_and_nothing_twice() {
    let controller = Controller::start().await;
    let ids: Vec<_> = (0..200).map(|number| format!("evt_{number:03}")).collect();
    for id in &ids[..100] {
        post(&controller, id, "acme").await;
    }
    let come = async {
        for id in &ids[100..] {
            post(&controller, id, "acme").await;
            post(&controller, &format!("other_{id}"), "other").await;
        }
    };
    let watched = async {
        let mut seen = Vec::new();
        // From the beginning, from the middle of the past, and while the rest arrives.
        for since in ["2020-01-01T00:00:00Z", "evt_049", "evt_099"] {
            let mut dashboard = watch(&controller, "acme", &format!("?since={since}")).await;
            seen.push(
                dashboard
                    .ids(match since {
                        "evt_049" => 150,
                        "evt_099" => 100,
                        _ => 200,
                    })
                    .await,
            );
        }
        seen
    };
    let ((), seen) = tokio::join!(come, watched);
    assert_eq!(seen, [&ids[..], &ids[50..], &ids[100..]]);
}

#[tokio::test]
async fn only_pages_of_known_origins_may_watch() {
    let controller = Controller::start_with(|config| {
        config.public_url = Some("https://aiwm.example/base".parse().unwrap());
        config.dashboard_origins = vec!["https://dash.example".into()];
    })
    .await;
    let protocols = format!("aio.events.v1, bearer.{}", token_of(&controller, "acme", 3600).await);
    for origin in [None, Some("https://dash.example"), Some("https://aiwm.example")] {
        dial(&controller, "", &protocols, origin).await.map(drop).unwrap();
    }
    let own = format!("http://localhost:{}", controller.address().port());
    dial(&controller, "", &protocols, Some(&own)).await.map(drop).unwrap();
    for origin in [
        "https://evil.example",
        "null",
        "http://dash.example",
        "https://dash.example.evil.example",
        "http://localhost",
    ] {
        assert_eq!(dial(&controller, "", &protocols, Some(origin)).await.map(drop), Err(403), "{origin}");
    }
    assert_eq!(dial(&controller, "", "chat", None).await.map(drop), Err(400));
    assert_eq!(dial(&controller, "?sice=x", &protocols, None).await.map(drop), Err(400));
}

#[tokio::test]
async fn who_has_no_token_or_another_one_is_told_by_the_close() {
    let controller =
        Controller::start_with(|config| config.register_timeout = Duration::from_millis(200)).await;
    let (mut silent, _) = dial(&controller, "", "aio.events.v1", None).await.unwrap();
    assert_eq!(silent.closed().await.0, 4408);
    let (mut wrong, _) = dial(&controller, "", "aio.events.v1, bearer.wrong", None).await.unwrap();
    let (code, reason) = wrong.closed().await;
    assert!(
        code == 4401 && reason.starts_with("TOKEN_INVALID: ") && !reason.contains("wrong"),
        "{code} {reason}"
    );
    for first in ["{", "{\"type\":\"authenticate\"}", "{\"type\":\"subscribe\",\"data\":{}}"] {
        let (mut muddled, _) = dial(&controller, "", "aio.events.v1", None).await.unwrap();
        muddled.say(first).await;
        assert_eq!(muddled.closed().await.0, 4400, "{first}");
    }
    let owner = controller.owner_of("acme").await;
    let node_token = owner.token_of(&owner.add_node("gpu").await).await;
    let (mut node, _) =
        dial(&controller, "", &format!("aio.events.v1, bearer.{node_token}"), None).await.unwrap();
    assert_eq!(node.closed().await.0, 4403);
}

#[tokio::test]
async fn a_program_s_token_comes_in_the_authorization_header() {
    let controller = Controller::start().await;
    let bearer = format!("Bearer {}", token_of(&controller, "acme", 3600).await);
    let (mut program, _) =
        dial_with(&controller, "", "aio.events.v1", &[("authorization", &bearer)]).await.unwrap();
    assert_eq!(program.expect("events.welcome").await["data"]["orgId"], "acme");
    let (mut wrong, _) =
        dial_with(&controller, "", "aio.events.v1", &[("authorization", "Bearer wrong")]).await.unwrap();
    assert_eq!(wrong.closed().await.0, 4401);
    let basic = dial_with(&controller, "", "aio.events.v1", &[("authorization", "Basic YTpi")]).await;
    assert_eq!(basic.map(drop), Err(401));
}

#[tokio::test]
async fn who_shows_no_token_keeps_no_dashboard_out() {
    let controller = Controller::start().await;
    let mut silent = Vec::new();
    let refused = loop {
        match dial(&controller, "", "aio.events.v1", None).await {
            Ok((dashboard, _)) => silent.push(dashboard),
            Err(status) => break status,
        }
        assert!(silent.len() < 20, "an address has few seats without a token");
    };
    assert_eq!(refused, 503);
    assert_eq!(dial(&controller, "", "aio.events.v1, bearer.wrong", None).await.map(drop), Err(503));
    watch(&controller, "acme", "").await.expect("events.welcome").await;
    // Who says a token makes room for the next.
    let token = token_of(&controller, "acme", 3600).await;
    let mut late = silent.pop().unwrap();
    late.say(json!({"type": "authenticate", "data": {"token": token}}).to_string()).await;
    late.expect("events.welcome").await;
    dial(&controller, "", "aio.events.v1", None).await.map(drop).unwrap();
}

#[tokio::test]
async fn a_dashboard_s_frames_are_counted_and_its_close_is_answered() {
    let controller = Controller::start().await;
    let watch = async || {
        let mut dashboard = watch(&controller, "acme", "").await;
        dashboard.expect("events.welcome").await;
        dashboard.expect("events.live").await;
        match dashboard.0.into_inner() {
            MaybeTlsStream::Plain(stream) => stream,
            _ => panic!("it is encrypted"),
        }
    };
    let mut empty = masked(0x0, b"");
    empty[0] = 0x00;
    let mut begun = masked(0x1, b"{");
    begun[0] = 0x01;
    let pieces = [begun, empty.repeat(20_000)].concat();
    for (bytes, code) in [
        (pieces, 4429),
        (masked(0x9, b"ping").repeat(20_000), 4429),
        (masked(0xa, b"pong").repeat(20_000), 4429),
        (masked(0x8, &1000_u16.to_be_bytes()), 1000),
        (masked(0x3, b"reserved"), 1002),
        (masked(0x1, &[0xff]), 1007),
        (masked(0x1, &[b' '; 20_000]), 1009),
    ] {
        let mut raw = watch().await;
        let (mut reader, mut writer) = raw.split();
        let (_, closed) = tokio::join!(writer.write_all(&bytes), close_code(&mut reader));
        assert_eq!(closed, Some(code), "{:?}", &bytes[..6]);
    }
}

#[tokio::test]
async fn a_dashboard_ends_with_its_token_and_with_the_controller() {
    let mut controller = Controller::start().await;
    let token = token_of(&controller, "acme", 1).await;
    let (mut short, _) =
        dial(&controller, "", &format!("aio.events.v1, bearer.{token}"), None).await.unwrap();
    let (code, reason) = short.closed().await;
    assert!(code == 4401 && reason.starts_with("TOKEN_EXPIRED"), "{code} {reason}");
    let mut long = watch(&controller, "acme", "").await;
    long.expect("events.welcome").await;
    let ((), (code, _)) = tokio::join!(controller.stop(), long.closed());
    assert_eq!(code, 1012);
}

#[tokio::test]
async fn what_is_not_kept_any_more_is_told_and_not_skipped() {
    let controller = Controller::start().await;
    post(&controller, "evt_1", "acme").await;
    post(&controller, "evt_2", "other").await;
    for since in ["evt_0", "evt_2"] {
        let mut dashboard = watch(&controller, "acme", &format!("?since={since}")).await;
        let (code, reason) = dashboard.closed().await;
        assert!(code == 4410 && reason.starts_with("EVENT_GONE: "), "{code} {reason}");
        let owner = controller.owner_of("acme").await;
        refusal(owner.get(&format!("/events?since={since}")).await, 410, "EVENT_GONE");
    }
    for since in ["2020-01-01", "yesterday", "1577836800"] {
        let (code, reason) = watch(&controller, "acme", &format!("?since={since}")).await.closed().await;
        assert!(code == 4400 && reason.starts_with("since: "), "{code} {reason}");
    }
}

#[tokio::test]
async fn a_dashboard_that_does_not_read_is_given_up() {
    let patience = Duration::from_millis(300);
    let controller = Controller::start_with(|config| config.dashboard_patience = patience).await;
    let mut slow = watch(&controller, "acme", "").await;
    let mut quick = watch(&controller, "acme", "").await;
    slow.expect("events.welcome").await;
    let reader = tokio::spawn(async move { quick.ids(51).await });
    for number in 0..50 {
        post(&controller, &format!("evt_{number}"), "acme").await;
    }
    tokio::time::sleep(patience * 2).await;
    let (code, reason) = slow.closed().await;
    assert!(code == 4429 && reason.starts_with("RATE_LIMITED"), "{code} {reason}");
    post(&controller, "evt_last", "acme").await;
    assert_eq!(reader.await.unwrap().last().unwrap(), "evt_last");
}
