//! What takes rights away is done whole, whatever becomes of who asked for it; and who reports too
//! much is slowed down.

use std::{
    io::Write,
    net::TcpStream,
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::json;

use crate::{
    harness::{Client, Controller, answer},
    peers::Worker,
};

/// Asks, and cuts the connection off without a goodbye.
fn ask_and_hang_up(controller: &Controller, owner: &Client, method: Method, path: &str, after: Duration) {
    let request = owner.request(method, path).build().unwrap();
    let bearer = request.headers()["authorization"].to_str().unwrap();
    let mut stream = TcpStream::connect(controller.address()).unwrap();
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    write!(
        stream,
        "{} {path} HTTP/1.1\r\nhost: x\r\nauthorization: {bearer}\r\ncontent-length: 0\r\n\r\n",
        request.method()
    )
    .unwrap();
    std::thread::sleep(after);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hangs_up_in_the_middle_of_a_revocation_stops_nothing_half_way() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let mut begun = 0;
    for number in 0..24_u64 {
        let id = owner.add_node(&format!("gpu-{number}")).await;
        let token = owner.token_of(&id).await;
        let mut worker = Worker::welcomed(&controller.gateway(), &id, &token).await;
        let decommission = number % 2 == 0;
        let after = Duration::from_micros(500 * number);
        if decommission {
            ask_and_hang_up(&controller, &owner, Method::DELETE, &format!("/nodes/{id}"), after);
        } else {
            let path = format!("/nodes/{id}/regenerate-credentials");
            ask_and_hang_up(&controller, &owner, Method::POST, &path, after);
        }
        // Whether it is carried out at all depends on how much of it had arrived.
        let revoked =
            async || owner.bearer_of(&token).get(&format!("/nodes/{id}/installation")).await.0 == 401;
        let deadline = Instant::now() + Duration::from_millis(200);
        while !revoked().await && Instant::now() < deadline {}
        if revoked().await {
            begun += 1;
            assert_eq!(worker.closed().await, 4401, "number {number}");
            owner.await_connected(&id, false).await;
        }
    }
    assert!(begun >= 6, "only {begun} of 24 were carried out");
}

#[tokio::test]
async fn a_decommissioned_node_that_somebody_else_wrote_is_closed_too() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    let mut worker = Worker::welcomed(&controller.gateway(), &id, &token).await;
    controller.sql("UPDATE nodes SET status = 'inactive', tokens_not_before = tokens_not_before + 1, version = version + 1").await;
    assert_eq!(worker.closed().await, 4401);
}

#[tokio::test]
async fn reports_that_turn_a_node_round_and_round_are_slowed_down() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let (id, other) = (owner.add_node("gpu").await, owner.add_node("other").await);
    let (token, others) = (owner.token_of(&id).await, owner.token_of(&other).await);
    let (node, other_node) = (controller.bearer(&token), controller.bearer(&others));
    let path = format!("/nodes/{id}/installation");
    let failed = json!({"phase": "failed", "error": {"code": "DISK_FULL", "message": "no room"}});
    let report =
        async |body: &serde_json::Value| node.request(Method::POST, &path).json(body).send().await.unwrap();
    let refused = 'refused: {
        for _ in 0..100 {
            for body in [&json!({"phase": "started"}), &failed] {
                let response = report(body).await;
                if response.status() == 429 {
                    break 'refused response;
                }
            }
        }
        panic!("200 reports were taken");
    };
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(refused.json::<serde_json::Value>().await.unwrap()["code"], "RATE_LIMITED");
    let moves = controller.number("SELECT COUNT(*) FROM transitions").await;
    assert!((90..120).contains(&moves), "{moves}");
    // Nobody else waits.
    let started = answer(
        other_node
            .request(Method::POST, &format!("/nodes/{other}/installation"))
            .json(&json!({"phase": "started"})),
    );
    assert_eq!(started.await.0, 200);
}
