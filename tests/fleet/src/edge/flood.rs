//! Attacks that send as much as they can.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::time::sleep;

use super::target::Target;

/// A dashboard that does not say who it is.
pub(super) const DASHBOARD: &str = "GET /ws/events HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: aio.events.v1\r\n\r\n";

/// Asks for upgrades of workers, with a token or without.
pub(super) async fn upgrades(target: Arc<Target>, token: Option<String>) {
    let bearer = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let head = format!(
        "GET /ws/node HTTP/1.1\r\nhost: x\r\n{bearer}connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: aio.node.v1\r\n\r\n"
    );
    loop {
        let status = target.ask(&head).await;
        target.count(format!("answered {status}"));
        breathe(status == 0).await;
    }
}

/// Reports failures of an installation, each another one.
pub(super) async fn failed_reports(target: Arc<Target>, index: usize) {
    let Ok(http) = target.http() else { return };
    let Some(node) = target.enemy.others.get(4) else { return };
    let url = format!("http://{}/nodes/{}/installation", target.address, node.node_id);
    let started = http.post(&url).bearer_auth(&node.token).json(&json!({"phase": "started"}));
    let _ = started.send().await;
    for number in 0_u64.. {
        let report = json!({"phase": "failed", "step": "fetch_release",
            "error": {"code": format!("CODE_{index}_{number}"), "message": "x".repeat(200)}});
        let answer = http.post(&url).bearer_auth(&node.token).json(&report).send().await;
        let status = answer.map_or(0, |answer| answer.status().as_u16());
        target.count(format!("answered {status}"));
        breathe(status == 0).await;
    }
}

/// Lists the organisation's nodes.
pub(super) async fn lists(target: Arc<Target>) {
    let Ok(http) = target.http() else { return };
    let url = format!("http://{}/nodes?limit=100", target.address);
    loop {
        let asked = async {
            let answer = http.get(&url).bearer_auth(&target.enemy.user_token).send().await?;
            let status = answer.status().as_u16();
            answer.bytes().await.map(|_| status)
        };
        let status = asked.await.unwrap_or(0);
        target.count(format!("answered {status}"));
        breathe(status == 0).await;
    }
}

/// A flood that gets no answer does not become a loop that only costs this machine.
async fn breathe(unanswered: bool) {
    if unanswered {
        sleep(Duration::from_millis(10)).await;
    } else {
        tokio::task::yield_now().await;
    }
}
