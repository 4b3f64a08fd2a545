//! What a scrape of 10,000 nodes with 8 GPUs costs. Run with
//! `cargo test -p controller-stub --lib -- --ignored --nocapture a_scrape_of_ten_thousand_nodes`.

use std::time::Instant;

use aio_protocol::{
    node::{NodeRole, NodeStatus, Owner},
    telemetry::{GpuActivity, GpuDetail, GpuStatus, Health, HostUsage},
    wire::Metrics,
};
use procfs::WithCurrentSystemInfo;
use serde_json::json;

use super::*;
use crate::{config::Config, lifecycle::registration, node::Node, serve::Server, store::Newcomer};

const NODES: u32 = 10_000;

fn node(number: u32) -> Node {
    let owner = Owner { org_id: "acme".parse().unwrap(), user_id: "someone".parse().unwrap() };
    let [a, b, c, d] = number.to_be_bytes();
    let id = aio_protocol::ids::NodeId::from_bytes([1, 2, 3, 4, 5, 6, 7, 8, a, b, c, d]);
    let gpu = |index: u32| {
        json!({"deviceId": index.to_string(), "uuid": format!("GPU-{number:08x}-1111-2222-3333-{index:012x}"),
            "model": "NVIDIA H100 80GB HBM3", "memoryTotal": 85_899_345_920_u64, "pciBusId": "00000000:3B:00.0"})
    };
    let info = json!({"os": {"kernel": "6.8.0-45-generic", "hostname": format!("gpu-{number}")}, "hardware": {
        "memory": {"total": 1_099_511_627_776_u64}, "gpu": (0..8).map(gpu).collect::<Vec<_>>(),
        "gpuDriver": {"state": "ok", "version": "550.54.15"}}});
    Node {
        status: NodeStatus::Online,
        system_info: Some(info),
        ..Node::registered(id, format!("gpu-{number}"), vec![NodeRole::Worker], owner, clock::now())
    }
}

fn metrics(node: &Node) -> Metrics {
    let gpu = |index: u32| {
        let mut gpu = GpuDetail::of(GpuStatus {
            device_id: index.to_string(),
            utilization: Some(97),
            memory_used: Some(64_424_509_440),
            temperature: Some(61),
            power_draw: Some(388),
            status: GpuActivity::Active,
            health: Health::Ok,
        });
        (gpu.clock_sm, gpu.clock_memory, gpu.power_limit) = (Some(1980), Some(2619), Some(700));
        gpu.memory_temperature = Some(70);
        gpu.ecc_errors = Some(Default::default());
        gpu
    };
    Metrics {
        node_id: node.id.clone(),
        host: HostUsage { cpu_usage: 12.5, ram_usage: 41.0, uptime_seconds: 86_400 },
        memory_used: 445_954_235_392,
        memory_cached: None,
        disk: vec![],
        disk_traffic: None,
        network: Default::default(),
        load_average: Some([3.0, 2.0, 1.0]),
        temperature: vec![],
        gpu: (0..8).map(gpu).collect(),
        containers: None,
        problems: None,
        left_out: Default::default(),
    }
}

fn resident() -> u64 {
    procfs::process::Process::myself().unwrap().stat().unwrap().rss_bytes().get() / 1024 / 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures for a minute and prints what a scrape of 10,000 nodes of 8 GPUs takes; docs/monitoring.md has the figures"]
async fn a_scrape_of_ten_thousand_nodes() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let data = tempfile::tempdir().unwrap();
    let mut config = Config::new(data.path());
    config.listen = ([127, 0, 0, 1], 0).into();
    let server = Server::start(config).await.unwrap();
    let app = server.app().clone();
    let nodes: Vec<_> = (0..NODES).map(node).collect();
    for nodes in nodes.chunks(1000) {
        let newcomers = nodes.iter().map(|node| {
            let pending = Node { status: NodeStatus::Pending, system_info: None, ..node.clone() };
            Newcomer { step: registration(&pending, "test"), node: pending, token: None }
        });
        app.store.enrol_nodes(&newcomers.collect::<Vec<_>>()).await.unwrap();
        for node in nodes {
            let registered = Node { version: 1, ..node.clone() };
            assert!(app.store.save(&registered, &[]).await.unwrap());
        }
    }
    let before = resident();
    let mut lines = Vec::new();
    for node in &nodes {
        let (epoch, closed, nudge) = app.registry.enter(&node.id, Instant::now());
        app.registry.take_over(&node.id, epoch);
        app.telemetry.receive(epoch, &metrics(node), clock::now());
        lines.push((closed, nudge));
    }
    println!("telemetry and places of {NODES} nodes: {} MiB", resident() - before);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    for query in ["", "?shard=1/8", "?names=dcgm"] {
        let (began, mut bytes, mut series, mut peak) = (Instant::now(), 0, 0, 0);
        let mut answer = http.get(format!("{}/metrics/fleet{query}", server.url())).send().await.unwrap();
        let first = began.elapsed();
        while let Some(piece) = answer.chunk().await.unwrap() {
            bytes += piece.len();
            series += piece.iter().filter(|byte| **byte == b'\n').count();
            peak = peak.max(resident());
        }
        println!(
            "/metrics/fleet{query}: {series} lines, {} MiB, first byte after {first:?}, all after {:?}, {peak} MiB resident",
            bytes / 1024 / 1024,
            began.elapsed()
        );
        assert!(series > 50_000, "{series}");
    }
    server.shutdown().await;
}
