//! What MONA takes of a node, as strictly as MONA does, and what AIWM says of itself. The figures are checked
//! and dropped: the double answers for MONA, and keeps no telemetry of its own.

use std::{collections::BTreeMap, sync::Arc};

use aio_protocol::{ids::NodeId, time::Timestamp};
use axum::{Json, extract::State, http::StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{credentials::AsNode, dialect::Dialect, fields::Fields};
use crate::{api::error::Rejection, clock, random};

/// How often MONA expects a node's figures.
const INTERVAL: &str = "1min";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Push {
    node_id: NodeId,
    timestamp: Timestamp,
    #[serde(rename = "status")]
    _status: Status,
    #[serde(rename = "websocketConnected")]
    _websocket_connected: bool,
    uptime: f64,
    cpu: Cpu,
    memory: Memory,
    disk: Disk,
    network: Network,
    #[serde(default)]
    gpu: Vec<Gpu>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Online,
    Offline,
    Maintenance,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Cpu {
    usage: f64,
    cores: f64,
    load_average: [f64; 3],
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    total: f64,
    used: f64,
    free: f64,
    cached: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Disk {
    total: f64,
    used: f64,
    free: f64,
    read_bytes_per_sec: f64,
    write_bytes_per_sec: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Network {
    rx_bytes_per_sec: f64,
    tx_bytes_per_sec: f64,
    #[serde(default, rename = "interfaces")]
    _interfaces: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Gpu {
    #[serde(rename = "deviceId")]
    _device_id: String,
    #[serde(rename = "model")]
    _model: String,
    utilization: f64,
    memory_used: f64,
    memory_total: f64,
    #[serde(rename = "temperature")]
    _temperature: f64,
    power_draw: Option<f64>,
    fan_speed: Option<f64>,
}

pub(super) async fn push(
    State(_): State<Arc<Dialect>>,
    AsNode(node): AsNode,
    Fields(push): Fields<Push>,
) -> Result<(StatusCode, Json<Value>), Rejection> {
    push.check()?;
    if push.node_id != node.id {
        return Err(Rejection::field("nodeId: is not the token's"));
    }
    let answer = json!({
        "success": true,
        "message": "the metrics were taken",
        "data": {
            "metricId": random::object_id(clock::now())?, "nodeId": push.node_id, "timestamp": push.timestamp,
            "interval": INTERVAL,
        },
    });
    Ok((StatusCode::CREATED, Json(answer)))
}

impl Push {
    fn check(&self) -> Result<(), Rejection> {
        let Self { cpu, memory, disk, network, gpu, .. } = self;
        let mut amounts: BTreeMap<String, f64> = BTreeMap::from_iter(
            [
                ("uptime", self.uptime),
                ("memory.total", memory.total),
                ("memory.used", memory.used),
                ("memory.free", memory.free),
                ("memory.cached", memory.cached),
                ("disk.total", disk.total),
                ("disk.used", disk.used),
                ("disk.free", disk.free),
                ("disk.readBytesPerSec", disk.read_bytes_per_sec),
                ("disk.writeBytesPerSec", disk.write_bytes_per_sec),
                ("network.rxBytesPerSec", network.rx_bytes_per_sec),
                ("network.txBytesPerSec", network.tx_bytes_per_sec),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        let mut shares = BTreeMap::from([("cpu.usage".to_owned(), cpu.usage)]);
        for (index, gpu) in gpu.iter().enumerate() {
            shares.insert(format!("gpu.{index}.utilization"), gpu.utilization);
            amounts.insert(format!("gpu.{index}.memoryUsed"), gpu.memory_used);
            amounts.insert(format!("gpu.{index}.memoryTotal"), gpu.memory_total);
            amounts.extend(gpu.power_draw.map(|watts| (format!("gpu.{index}.powerDraw"), watts)));
            shares.extend(gpu.fan_speed.map(|share| (format!("gpu.{index}.fanSpeed"), share)));
        }
        for (index, load) in cpu.load_average.iter().enumerate() {
            amounts.insert(format!("cpu.loadAverage.{index}"), *load);
        }
        if cpu.cores < 1.0 {
            return Err(Rejection::field("cpu.cores: must not be less than 1"));
        }
        if let Some((name, _)) = amounts.iter().find(|(_, value)| **value < 0.0) {
            return Err(Rejection::field(format!("{name}: must not be less than 0")));
        }
        match shares.iter().find(|(_, value)| !(0.0..=100.0).contains(*value)) {
            Some((name, _)) => Err(Rejection::field(format!("{name}: must be from 0 to 100"))),
            None => Ok(()),
        }
    }
}

pub(super) async fn health(State(dialect): State<Arc<Dialect>>) -> Json<Value> {
    let app = &dialect.app;
    Json(json!({
        "status": "ok",
        "timestamp": clock::now(),
        "version": aio_protocol::release::build::number(),
        "workers": app.registry.len(),
    }))
}

/// Names what the dialect serves; docs/aiwm.md describes it.
pub(super) async fn document() -> Json<Value> {
    let paths = [
        ("/nodes", &["get", "post"][..]),
        ("/nodes/{id}", &["get", "delete"]),
        ("/nodes/{id}/approve", &["post"]),
        ("/nodes/{id}/setup-guide", &["post"]),
        ("/nodes/{id}/regenerate-credentials", &["post"]),
        ("/nodes/{id}/maintenance", &["post"]),
        ("/nodes/auth/bootstrap", &["post"]),
        ("/nodes/auth/login", &["post"]),
        ("/nodes/auth/refresh", &["post"]),
        ("/metrics/push/node", &["post"]),
        ("/health", &["get"]),
    ];
    let operation = json!({ "responses": { "default": { "description": "As AIWM answers." } } });
    let paths = paths.map(|(path, methods)| {
        let operations: serde_json::Map<_, _> =
            methods.iter().map(|method| ((*method).to_owned(), operation.clone())).collect();
        (path.to_owned(), Value::Object(operations))
    });
    Json(json!({
        "openapi": "3.0.0",
        "info": { "title": "AIWM, as controller-stub serves it", "version": aio_protocol::release::build::number() },
        "paths": serde_json::Map::from_iter(paths),
    }))
}
