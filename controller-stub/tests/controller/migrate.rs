//! A deployment that moves from SQLite to PostgreSQL: everything goes along, and nothing is said twice.

use controller_stub::{commands, config::Config, serve::Server};
use serde_json::json;

use crate::{
    cluster::Cluster,
    harness::{Client, Controller},
    peers::{FakeNoti, Worker},
};

async fn everything(owner: &Client, nodes: &[String]) -> Vec<serde_json::Value> {
    let mut all = Vec::new();
    for path in ["/nodes?sort=name", "/audit", "/events", "/alarms", "/dead-letters"] {
        let (status, mut answer) = owner.get(path).await;
        assert_eq!(status, 200, "{path}: {answer}");
        // Whoever was connected is not, after any restart.
        for node in answer["data"].as_array_mut().unwrap() {
            if let Some(node) = node.as_object_mut() {
                node.retain(|key, _| {
                    !["websocketConnected", "lastSeenAt", "gpuHealth"].contains(&key.as_str())
                });
            }
        }
        all.push(answer);
    }
    for id in nodes {
        all.push(owner.get(&format!("/nodes/{id}/transitions")).await.1);
        all.push(owner.get(&format!("/nodes/{id}/tokens")).await.1);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_moves_with_all_that_it_has_and_its_workers_come_back_with_their_tokens() {
    let cluster = Cluster::start("password").unwrap();
    let mut controller = Controller::start_with(|config| config.database_url = None).await;
    let owner = controller.owner_of("acme").await;
    let mut nodes = Vec::new();
    for number in 0..5 {
        let id = owner.add_node(&format!("gpu \u{1f600} é {number}")).await;
        owner.token_of(&id).await;
        nodes.push(id);
    }
    let token = owner.token_of(&nodes[0]).await;
    let mut worker = Worker::welcomed(&controller.gateway(), &nodes[0], &token).await;
    worker.heartbeat(1).await;
    worker.ping().await;
    let mut types = vec!["node.registered", "node.installation_started", "node.connected"];
    owner.await_events(&nodes[0], &types).await;
    for id in &nodes[1..] {
        owner.await_events(id, &["node.registered"]).await;
    }
    let there = Config { database_url: Some(cluster.url().into()), ..controller.config.clone() };
    let refused = commands::migrate(&controller.config, &there).await.unwrap_err();
    assert_eq!(refused.code().as_str(), "DATABASE_IN_USE", "it is served");
    let before = everything(&owner, &nodes).await;
    controller.stop().await;

    // An event waits that was not delivered.
    let noti = FakeNoti::start(&[500; 1000]).await;
    let mut config = controller.config.clone();
    config.noti_service_url = Some(noti.url().parse().unwrap());
    let server = Server::start(config).await.unwrap();
    let late = Client::at(server.url(), owner.bearer_token());
    assert_eq!(late.post(&format!("/nodes/{}/maintenance", nodes[0]), json!({})).await.0, 200);
    let (_, of_last) = late.get(&format!("/nodes/{}", nodes[0])).await;
    server.shutdown().await;

    let carried = commands::migrate(&controller.config, &there).await.unwrap();
    let rows = |table: &str| carried.iter().find(|it| it.table == table).unwrap().rows;
    assert_eq!((rows("nodes"), rows("outbox"), rows("inbox")), (5, 1, 7), "{carried:?}");
    let again = commands::migrate(&controller.config, &there).await.unwrap_err();
    assert_eq!(again.code().as_str(), "CONFIG_INVALID", "it is not empty: {again}");
    let back = commands::migrate(&there, &controller.config).await.unwrap_err();
    assert_eq!(back.code().as_str(), "CONFIG_INVALID", "{back}");
    let nowhere =
        Config { data_dir: controller.config.data_dir.join("nowhere"), ..controller.config.clone() };
    assert_eq!(commands::migrate(&nowhere, &there).await.unwrap_err().code().as_str(), "FILE_FAILED");

    let server = Server::start(there).await.unwrap();
    let moved = Client::at(server.url(), owner.bearer_token());
    assert_eq!(moved.node(&nodes[0]).await["status"], of_last["status"]);
    types.push("node.maintenance_mode");
    moved.await_events(&nodes[0], &types).await;
    assert_eq!(moved.post(&format!("/nodes/{}/resume", nodes[0]), json!({})).await.0, 200);
    let gateway = format!("ws://{}/ws/node", server.address());
    let mut worker = Worker::welcomed(&gateway, &nodes[0], &token).await;
    worker.heartbeat(1).await;
    // What was there is there, in the same order and under the same ids.
    let after = everything(&moved, &nodes).await;
    let ids = |all: &serde_json::Value| -> Vec<String> {
        all["data"].as_array().unwrap().iter().map(|it| it["id"].to_string()).collect()
    };
    assert!(ids(&after[2]).starts_with(&ids(&before[2])));
    assert_eq!(before[7..], after[7..], "transitions and tokens of nodes that nothing happened to");
    server.shutdown().await;
}
