//! A node: its GPUs and what they complain of, how its installation goes, its services, its history, and what
//! may be done with it. What its status does not take is shown, too, with the reason.

use std::{sync::Arc, time::Duration};

use aio_protocol::{
    error_code::ErrorCode,
    inventory::{GpuDriverState, SystemInfo},
    node::NodeStatus,
    service::ServiceState,
    telemetry::HealthSummary,
    time::Timestamp,
    transition::{self, Trigger},
    update::UpdateState,
};
use askama::Template;
use axum::{
    extract::{Path, State},
    response::Response,
};
use serde::Deserialize;

use super::{
    Pages, containers,
    frame::{Frame, Tab},
    gpus,
    nodes::{Listed, label},
    session::Visitor,
    words,
};
use crate::{api::error::Rejection, clock, node::Phase};

/// So much of its history is shown.
const SHOWN: usize = 40;

/// A list that the API answers with.
#[derive(Deserialize)]
pub(super) struct ListOf<T> {
    pub data: Vec<T>,
}

/// A move, as the API lists it.
#[derive(Deserialize)]
struct Moved {
    from: Option<NodeStatus>,
    to: NodeStatus,
    trigger: String,
    actor: String,
    at: Timestamp,
}

/// A record of the audit trail, as the API lists it.
#[derive(Deserialize)]
pub(super) struct Recorded {
    pub at: Timestamp,
    pub actor: String,
    pub action: String,
    pub outcome: String,
    pub address: Option<String>,
    pub target: Option<String>,
    pub detail: Option<serde_json::Value>,
    #[serde(rename = "nodeId")]
    pub node_id: Option<String>,
}

/// A token, as the API lists it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Token {
    issued_at: Timestamp,
    expires_at: Timestamp,
    revoked_at: Option<Timestamp>,
    minted_by: Option<String>,
}

/// An installation, live.
struct Install {
    title: &'static str,
    class: &'static str,
    version: String,
    step: String,
    percent: Option<u8>,
    started_at: Option<Timestamp>,
    at: Timestamp,
    error: Option<(String, String, &'static str)>,
}

struct Service {
    name: String,
    state: &'static str,
    class: &'static str,
    version: String,
    restarts: String,
}

/// What may be asked for with a button.
struct Order {
    name: &'static str,
    action: &'static str,
    /// Why it cannot be now.
    why_not: Option<String>,
}

#[derive(Template)]
#[template(path = "pages/node.html")]
struct NodeView {
    frame: Frame,
    node: Listed,
    status: &'static str,
    about: &'static str,
    labels: Vec<String>,
    label_text: String,
    health: &'static str,
    findings: Vec<(String, String)>,
    problems: Vec<String>,
    conflict: bool,
    gpus: Vec<gpus::Gpu>,
    width: u64,
    host: Vec<(&'static str, String)>,
    driver: String,
    machine: Vec<(&'static str, String)>,
    install: Option<Install>,
    services: Vec<Service>,
    /// Nothing while nobody says.
    containers: Option<Vec<containers::Row>>,
    update: Vec<(&'static str, String)>,
    moves: Vec<Moved>,
    records: Vec<Recorded>,
    tokens: Vec<Token>,
    orders: Vec<Order>,
    inactive: bool,
}

pub(super) async fn show(State(_): State<Arc<Pages>>, Path(id): Path<String>, visitor: Visitor) -> Response {
    match build(&visitor, &id).await {
        Ok(page) => visitor.scene.page(&page),
        Err(rejection) => visitor.scene.refuse(rejection),
    }
}

async fn build(visitor: &Visitor, id: &str) -> Result<NodeView, Rejection> {
    let id = words::escaped(id);
    let frame = Frame::new(&visitor.scene, Tab::Nodes);
    let mut node: Listed = visitor.api.get(&format!("/nodes/{id}")).await?;
    let moves: ListOf<Moved> = visitor.api.get(&format!("/nodes/{id}/transitions?limit={SHOWN}")).await?;
    // Nothing is known of a node that measures nothing.
    let step = gpus::STEP.as_secs();
    let measured: Option<gpus::Measured> =
        visitor.api.get(&format!("/nodes/{id}/metrics?step={step}")).await.ok();
    let (mut tokens, mut records) = (Vec::new(), Vec::new());
    if frame.manages {
        tokens = visitor.api.get::<ListOf<Token>>(&format!("/nodes/{id}/tokens?limit=5")).await?.data;
        let trail: ListOf<Recorded> = visitor.api.get(&format!("/audit?nodeId={id}&limit={SHOWN}")).await?;
        records = trail.data;
    }
    let info: Option<SystemInfo> = node.system_info.take().and_then(|info| serde_json::from_value(info).ok());
    let health = node.gpu_health.as_ref();
    Ok(NodeView {
        status: node.status.as_str(),
        about: words::about_status(&node.status),
        labels: node.labels.iter().map(|(key, value)| label(key, value)).collect(),
        label_text: node.labels.iter().map(|(key, value)| label(key, value)).collect::<Vec<_>>().join(" "),
        health: words::health(health),
        findings: findings(health),
        problems: gpus::problems(measured.as_ref()),
        conflict: node.identity_conflict.is_some(),
        gpus: info
            .as_ref()
            .map(|info| gpus::cards(info, health, measured.as_ref(), clock::now()))
            .unwrap_or_default(),
        width: gpus::width(),
        host: gpus::host(measured.as_ref()),
        driver: info.as_ref().map(driver).unwrap_or_default(),
        machine: info.as_ref().map(machine).unwrap_or_default(),
        services: info.as_ref().map(services).unwrap_or_default(),
        containers: node.containers.as_deref().map(containers::rows),
        install: install(&node),
        update: update(&node),
        orders: orders(node.status),
        inactive: node.status == NodeStatus::Inactive,
        moves: moves.data,
        records,
        tokens,
        frame,
        node,
    })
}

/// What is wrong, and what to do.
fn findings(health: Option<&HealthSummary>) -> Vec<(String, String)> {
    let Some(health) = health.filter(|health| !health.is_ok()) else { return Vec::new() };
    let what = health.worst.clone().unwrap_or_else(|| format!("the GPUs are {}", health.state.as_str()));
    vec![(what, health.action.in_words().unwrap_or_default().to_owned())]
}

fn driver(info: &SystemInfo) -> String {
    let driver = &info.hardware.gpu_driver;
    match driver.state {
        GpuDriverState::Absent => "no NVIDIA driver on this machine".to_owned(),
        GpuDriverState::Unknown => {
            driver.reason.clone().unwrap_or_else(|| "the driver does not answer".to_owned())
        }
        GpuDriverState::Ok => {
            let part =
                |name: &str, version: &Option<String>| version.as_ref().map(|it| format!("{name} {it}"));
            let parts = [part("driver", &driver.version), part("CUDA", &driver.cuda_version)];
            parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
        }
    }
}

fn machine(info: &SystemInfo) -> Vec<(&'static str, String)> {
    let (os, hardware) = (&info.os, &info.hardware);
    let mut facts = vec![
        ("host", os.hostname.clone()),
        ("system", format!("{} {}", os.name, os.version)),
        ("kernel", format!("{} {}", os.kernel, info.architecture)),
        ("processor", format!("{}, {} threads", hardware.cpu.model, hardware.cpu.threads)),
        ("memory", words::bytes(hardware.memory.total)),
    ];
    for disk in &hardware.disk {
        let free = format!(
            "{}: {} free of {}",
            disk.mount_point,
            words::bytes(disk.available),
            words::bytes(disk.total)
        );
        facts.push(("disk", free));
    }
    if let Some(runtime) = &info.container_runtime {
        let version = runtime.version.as_deref().unwrap_or_default();
        let state = if runtime.active { "" } else { " (not running)" };
        facts.push(("containers", format!("{} {version}{state}", runtime.name)));
    }
    if let Some(kind) = info.virtualization.as_ref().filter(|kind| *kind != "none") {
        facts.push(("runs in", kind.clone()));
    }
    facts
}

fn services(info: &SystemInfo) -> Vec<Service> {
    let service = |it: &aio_protocol::service::Service| {
        let (state, class) = match it.state {
            ServiceState::Active => ("active", "good"),
            ServiceState::Activating => ("activating", "busy"),
            ServiceState::Inactive => ("inactive", ""),
            ServiceState::Failed => ("failed", "bad"),
            ServiceState::Masked => ("masked", ""),
            ServiceState::Absent => ("absent", ""),
            ServiceState::Unknown => ("unknown", ""),
        };
        Service {
            name: it.name.clone(),
            state,
            class,
            version: it.version.clone().unwrap_or_default(),
            restarts: it.restarts.filter(|count| *count > 0).map_or_else(String::new, |it| it.to_string()),
        }
    };
    info.services.iter().map(service).collect()
}

fn install(node: &Listed) -> Option<Install> {
    let it = node.installation.as_ref()?;
    let (title, class) = match it.phase {
        Phase::Started | Phase::Progress if node.status == NodeStatus::Installing => ("installing", "busy"),
        // It stopped to report, and the node went on from there.
        Phase::Started | Phase::Progress => ("not finished", "warn"),
        Phase::Failed => ("failed", "bad"),
        Phase::Succeeded => ("succeeded", "good"),
    };
    Some(Install {
        title,
        class,
        version: it.version.as_ref().map(ToString::to_string).unwrap_or_default(),
        step: it.step.clone().unwrap_or_default(),
        percent: it.percent.filter(|_| class == "busy"),
        started_at: it.started_at,
        at: it.at,
        error: it.error.as_ref().map(|error| {
            let cure = ErrorCode::parse(&error.code).map_or("", ErrorCode::cure);
            (error.code.clone(), error.message.clone(), cure)
        }),
    })
}

fn update(node: &Listed) -> Vec<(&'static str, String)> {
    let Some(report) = &node.update else { return Vec::new() };
    let word = |value: serde_json::Result<serde_json::Value>| {
        value.ok().and_then(|it| it.as_str().map(str::to_owned)).unwrap_or_default()
    };
    let mut facts = vec![("changed by", word(serde_json::to_value(report.managed_by)))];
    if report.state != UpdateState::Idle {
        let target = report.target.as_ref().map(|it| format!(" to {it}")).unwrap_or_default();
        facts.push(("now", format!("{}{target}", word(serde_json::to_value(report.state)))));
    }
    if let Some(reason) = &report.reason {
        facts.push(("because", reason.clone()));
    }
    if let Some(pin) = node.pin.clone().or_else(|| report.pin.as_ref().map(ToString::to_string)) {
        facts.push(("kept at", pin));
    }
    if let Some(last) = &report.last {
        let why = last.message.as_deref().map(|it| format!(": {it}")).unwrap_or_default();
        let verdict = word(serde_json::to_value(last.verdict));
        facts.push(("last", format!("{} to {}, {verdict}{why}", last.from, last.version)));
    }
    facts
}

fn orders(status: NodeStatus) -> Vec<Order> {
    let allowed = transition::allowed(status);
    let order = |name, action: &'static str, trigger: Trigger| {
        let trigger = trigger.as_str();
        let why_not = match status {
            NodeStatus::Inactive => Some("it was decommissioned, for good".to_owned()),
            NodeStatus::Maintenance if action == "maintenance" => Some("it is in maintenance".to_owned()),
            _ if allowed.contains(&trigger) && !(action == "resume" && status != NodeStatus::Maintenance) => {
                None
            }
            _ if action == "resume" => Some("it is not in maintenance".to_owned()),
            status => Some(format!("not while it is {}", status.as_str())),
        };
        Order { name, action, why_not }
    };
    vec![
        order("Begin maintenance", "maintenance", Trigger::MaintenanceRequested),
        order("End maintenance", "resume", Trigger::ResumeRequested { connected: true }),
    ]
}

/// How long an installation has taken.
fn took(install: &Install) -> String {
    let Some(started) = install.started_at else { return String::new() };
    let length: Duration = install.at.since(started);
    words::duration(length)
}
