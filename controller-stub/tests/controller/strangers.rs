//! What strangers, and whoever does not read, may take from others: nothing. And the manners of
//! HTTP that they are told.

use std::{collections::BTreeSet, num::NonZeroU32};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    access::upgrade,
    harness::{Controller, eventually, refusal},
    peers::Worker,
};

async fn upgraded(controller: &Controller, token: Option<&str>) -> u16 {
    let client = token.map_or_else(|| controller.nobody(), |token| controller.bearer(token));
    let request = upgrade(client.request(Method::GET, "/ws/node"), "aio.node.v1");
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn who_shows_no_good_token_takes_no_workers_place() {
    let controller =
        Controller::start_with(|config| config.upgrades_per_second = NonZeroU32::new(3).unwrap()).await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    for _ in 0..50 {
        assert_eq!(upgraded(&controller, None).await, 401);
        assert_eq!(upgraded(&controller, Some("garbage")).await, 401);
    }
    Worker::welcomed(&controller.gateway(), &id, &token).await;
}

#[tokio::test]
async fn a_token_that_is_not_accepted_counts_for_its_address_and_never_for_its_node() {
    let controller = Controller::start_with(|config| {
        config.api_requests_per_second = NonZeroU32::new(2);
        config.upgrades_per_second = NonZeroU32::new(2).unwrap();
    })
    .await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let old = owner.token_of(&id).await;
    let path = format!("/nodes/{id}/installation");
    let new = eventually("another token", async || {
        let (status, body) = owner.post(&format!("/nodes/{id}/regenerate-credentials"), json!({})).await;
        if status.is_success() {
            Ok(body["token"].as_str().unwrap().to_owned())
        } else {
            Err(body.to_string())
        }
    })
    .await;
    let flood = (0..150).map(async |number| match number % 2 {
        0 => controller.bearer(&old).get(&path).await.0.as_u16(),
        _ => upgraded(&controller, Some(&old)).await,
    });
    let seen: BTreeSet<_> = join_all(flood).await.into_iter().collect();
    assert_eq!(seen, BTreeSet::from([401, 429]), "an address has ten times as many");
    assert_eq!(controller.bearer(&new).get(&path).await.0, 200);
    Worker::welcomed(&controller.gateway(), &id, &new).await;
}

/// Writes to a new connection, and reads until it is closed.
async fn said(controller: &Controller, words: &str) -> String {
    let mut stream = TcpStream::connect(controller.address()).await.unwrap();
    stream.write_all(words.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn a_request_names_its_host_once_and_may_end_with_its_last_byte() {
    let controller = Controller::start().await;
    for (hosts, status) in [("host: a\r\n", "200"), ("", "400"), ("host: a\r\nhost: a\r\n", "400")] {
        let answer = said(&controller, &format!("GET /healthz HTTP/1.1\r\n{hosts}\r\n")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{hosts:?}: {answer}");
    }
    let answer = said(&controller, "GET /healthz HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
}

#[tokio::test]
async fn another_version_of_the_websocket_is_told_which_one_there_is() {
    let controller = Controller::start().await;
    let request = controller.nobody().request(Method::GET, "/ws/events");
    let request = crate::access::upgrade_as(request.header("sec-websocket-version", "8"), "aio.events.v1");
    let answer = request.send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["sec-websocket-version"]),
        (426, &"13".parse().unwrap())
    );
}

#[tokio::test]
async fn an_encoded_body_is_refused_as_one() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    for coding in ["gzip", "br", "GZIP, identity"] {
        let request = owner.request(Method::POST, "/nodes").header("content-encoding", coding);
        let answer = request.json(&json!({"name": "gpu"})).send().await.unwrap();
        assert_eq!(answer.headers()["accept-encoding"], "identity");
        let (status, body) = (answer.status(), answer.json().await.unwrap());
        refusal((status, body), 415, "MEDIA_TYPE_UNSUPPORTED");
    }
    let request = owner.request(Method::POST, "/nodes").header("content-encoding", "identity");
    assert_eq!(request.json(&json!({"name": "gpu"})).send().await.unwrap().status(), 201);
}

/// HTTP/2 whose streams may be sent nothing, and `GET /openapi.json` of `x`.
const UNREAD: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0\
    \0\0\x14\x01\x05\0\0\0\x01\x82\x86\x04\x0d/openapi.json\x41\x01x";

#[tokio::test]
async fn whoever_does_not_read_gets_no_more_and_others_do() {
    let controller = Controller::start_with(|config| config.answer_bytes = 16 * 1024).await;
    let ask =
        async || controller.nobody().request(Method::GET, "/openapi.json").send().await.unwrap().status();
    assert_eq!(ask().await, 200);
    let mut unread = TcpStream::connect(controller.address()).await.unwrap();
    unread.write_all(UNREAD).await.unwrap();
    eventually("a refusal", async || match ask().await.as_u16() {
        429 => Ok(()),
        status => Err(status.to_string()),
    })
    .await;
    assert_eq!(controller.nobody().get("/healthz").await.0, 200);
    drop(unread);
    eventually("an answer", async || match ask().await.as_u16() {
        200 => Ok(()),
        status => Err(status.to_string()),
    })
    .await;
}
