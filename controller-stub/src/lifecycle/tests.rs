//! The driver on a real database: every trigger in every status, and what two writers do to one node.

use std::time::Duration;

use aio_protocol::{
    event::{ErrorReport, EventKind},
    node::{NodeRole, Owner},
    time::Timestamp,
};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::store::{Store, Undelivered, testing};

struct Bench {
    lifecycle: Lifecycle,
    store: Store,
    _data: TempDir,
}

const LEASE: Duration = Duration::from_secs(120);

async fn bench() -> Bench {
    let data = tempfile::tempdir().unwrap();
    let store = testing::store(data.path()).await;
    let lifecycle = Lifecycle::new(
        store.clone(),
        Notifier::default(),
        EventKind::ALL.to_vec(),
        (Leases::new(LEASE), Leases::new(LEASE)),
        Membership::alone(),
    );
    Bench { lifecycle, store, _data: data }
}

fn node(number: u8) -> Node {
    let owner = Owner { org_id: "o".parse().unwrap(), user_id: "u".parse().unwrap() };
    let id = NodeId::from_bytes([number; 12]);
    Node::registered(id, format!("gpu-{number}"), vec![NodeRole::Worker], owner, Timestamp::from_millis(1))
}

fn report(json: &str) -> Occurrence {
    Occurrence::Reported(serde_json::from_str(json).unwrap())
}

fn started() -> Occurrence {
    report(r#"{"phase": "started", "version": "v1.0.0"}"#)
}

fn welcomed() -> Occurrence {
    let register = serde_json::json!({
        "nodeId": NodeId::from_bytes([1; 12]), "instanceId": uuid::Uuid::nil(), "bootId": "b", "daemonVersion": "1.0.0",
        "systemInfo": {"os": {"name": "Debian", "version": "12", "kernel": "6.1", "hostname": "h"}, "architecture": "x86_64",
            "hardware": {"cpu": {"model": "c", "threads": 2}, "memory": {"total": 1}, "disk": [], "network": [],
                "gpu": [], "gpuDriver": {"state": "absent"}}}});
    Occurrence::Welcomed {
        register: Box::new(serde_json::from_value(register).unwrap()),
        address: "::ffff:192.168.1.100".parse().unwrap(),
        not_before: Some(Timestamp::from_millis(0)),
    }
}

/// As a worker of AIWM's dialect.
fn joined() -> Occurrence {
    Occurrence::Joined(Box::new(Joined {
        system_info: serde_json::json!({"os": {"name": "Ubuntu"}}),
        gpu_devices: Vec::new(),
        daemon_version: None,
        address: [192, 0, 2, 7].into(),
        not_before: None,
    }))
}

fn every_occurrence() -> Vec<Occurrence> {
    vec![
        started(),
        report(r#"{"phase": "progress", "step": "fetch_release", "percent": 40}"#),
        report(r#"{"phase": "failed", "error": {"code": "DISK_FULL", "message": "There is no room"}}"#),
        report(r#"{"phase": "succeeded", "seconds": 2.5}"#),
        Occurrence::Stalled(LEASE),
        welcomed(),
        Occurrence::LeaseExpired,
        Occurrence::Left { reason: "shutdown" },
        Occurrence::MaintenanceRequested,
        Occurrence::ResumeRequested,
        joined(),
        Occurrence::SetAside,
        // Rarely: it ends every history.
        Occurrence::DecommissionRequested,
    ]
}

impl Bench {
    async fn add(&self, number: u8) -> NodeId {
        let node = node(number);
        assert!(self.lifecycle.register(&self.store, &node, "test").await.unwrap());
        node.id
    }

    async fn apply(&self, id: &NodeId, occurrence: &Occurrence) -> Result<Node, LifecycleError> {
        self.lifecycle.turn(id).await.apply(occurrence, "test").await
    }

    /// Takes every event of the node out of the outbox, as NOTI would get them.
    async fn events(&self, id: &NodeId) -> Vec<NodeEvent> {
        let mut events = Vec::new();
        for Undelivered { id: event, body, .. } in self.store.undelivered(id, 1000).await.unwrap() {
            events.push(serde_json::from_str(&body).unwrap());
            self.store.delivered(&event).await.unwrap();
        }
        events
    }
}

#[tokio::test]
async fn a_direct_arrival_from_pending_owes_both_events_and_knows_the_worker() {
    let bench = bench().await;
    let id = bench.add(1).await;
    let node = bench.apply(&id, &welcomed()).await.unwrap();
    assert_eq!((node.status, node.websocket_connected), (NodeStatus::Online, true));
    assert_eq!(node.ip_address.unwrap().to_string(), "192.168.1.100");
    let statuses: Vec<_> = bench
        .events(&id)
        .await
        .iter()
        .map(|event| serde_json::to_value(event).unwrap())
        .map(|event| format!("{} {}", event["type"], event["data"]["status"]))
        .collect();
    assert_eq!(
        statuses,
        [
            r#""node.registered" "pending""#,
            r#""node.installation_started" "installing""#,
            r#""node.connected" "online""#
        ]
    );
}

#[tokio::test]
async fn a_stalled_installation_says_what_was_heard_last() {
    let bench = bench().await;
    let id = bench.add(1).await;
    bench.apply(&id, &started()).await.unwrap();
    bench.apply(&id, &report(r#"{"phase": "progress", "step": "fetch_release"}"#)).await.unwrap();
    let node = bench.apply(&id, &Occurrence::Stalled(Duration::from_secs(900))).await.unwrap();
    assert_eq!(node.status, NodeStatus::Error);
    let ErrorReport { code, message, details } = node.installation.unwrap().error.unwrap();
    assert_eq!(code, "INSTALL_STALLED");
    assert!(message.contains("15 min") && message.contains("fetch_release"), "{message}");
    assert_eq!(details["lastStep"], "fetch_release");
}

#[tokio::test]
async fn what_is_refused_leaves_no_trace() {
    let bench = bench().await;
    let id = bench.add(1).await;
    let before = bench.store.node(&id).await.unwrap();
    let refusal = bench.apply(&id, &report(r#"{"phase": "progress", "step": "x"}"#)).await.unwrap_err();
    assert!(matches!(refusal, LifecycleError::Refused { status: NodeStatus::Pending, .. }));
    assert_eq!(bench.store.node(&id).await.unwrap(), before);
    assert_eq!(bench.events(&id).await.len(), 1, "its registration alone");
    let unknown = NodeId::from_bytes([0; 12]);
    assert!(matches!(bench.apply(&unknown, &started()).await, Err(LifecycleError::NotFound(_))));
}

#[tokio::test]
async fn of_two_saves_of_one_reading_the_second_is_refused() {
    let bench = bench().await;
    let id = bench.add(1).await;
    let mut read = bench.store.node(&id).await.unwrap().unwrap();
    bench.apply(&id, &started()).await.unwrap();
    read.status = NodeStatus::Inactive;
    assert!(!bench.store.save(&read, &[]).await.unwrap());
    assert_eq!(bench.store.node(&id).await.unwrap().unwrap().status, NodeStatus::Installing);
}

#[tokio::test]
async fn installations_hold_a_lease_for_as_long_as_they_report() {
    let bench = bench().await;
    let id = bench.add(1).await;
    let leases = &bench.lifecycle.installations;
    let long_after = Instant::now() + LEASE * 2;
    assert!(!leases.has_expired(&id, long_after));
    bench.apply(&id, &started()).await.unwrap();
    assert!(leases.has_expired(&id, long_after));
    bench.apply(&id, &welcomed()).await.unwrap();
    assert!(!leases.has_expired(&id, long_after), "an online node does not install");
    assert!(bench.lifecycle.workers.has_expired(&id, long_after));
    bench.apply(&id, &Occurrence::Left { reason: "shutdown" }).await.unwrap();
    assert!(!bench.lifecycle.workers.has_expired(&id, long_after), "who left owes no sign of life");
}

#[tokio::test]
async fn who_is_put_back_into_service_is_online_if_connected_and_offline_if_not() {
    let bench = bench().await;
    for (number, connected, status) in [(1, true, NodeStatus::Online), (2, false, NodeStatus::Offline)] {
        let id = bench.add(number).await;
        bench.apply(&id, &welcomed()).await.unwrap();
        let node = bench.apply(&id, &Occurrence::MaintenanceRequested).await.unwrap();
        assert_eq!((node.status, node.websocket_connected), (NodeStatus::Maintenance, true));
        if !connected {
            let silent = bench.apply(&id, &Occurrence::LeaseExpired).await.unwrap();
            assert_eq!((silent.status, silent.websocket_connected), (NodeStatus::Maintenance, false));
        }
        assert_eq!(bench.apply(&id, &Occurrence::ResumeRequested).await.unwrap().status, status);
        let leased = bench.lifecycle.workers.has_expired(&id, Instant::now() + LEASE);
        assert_eq!(leased, connected, "who is online owes signs of life");
    }
}

#[tokio::test]
async fn a_worker_whose_tokens_were_revoked_while_it_connected_is_not_welcomed() {
    let bench = bench().await;
    let id = bench.add(1).await;
    bench.store.revoke_tokens(&id, Timestamp::from_millis(2), None).await.unwrap();
    assert!(matches!(bench.apply(&id, &welcomed()).await, Err(LifecycleError::Revoked(_))));
    assert_eq!(bench.store.node(&id).await.unwrap().unwrap().status, NodeStatus::Pending);
}

#[tokio::test]
async fn a_decommissioned_node_owes_no_sign_of_life_and_one_event() {
    let bench = bench().await;
    let id = bench.add(1).await;
    bench.apply(&id, &welcomed()).await.unwrap();
    for _ in 0..2 {
        let node = bench.apply(&id, &Occurrence::DecommissionRequested).await.unwrap();
        assert_eq!((node.status, node.websocket_connected), (NodeStatus::Inactive, true));
    }
    let connected = bench.store.connected_without_token(0).await.unwrap();
    assert!(connected.contains(&id), "until its socket is closed");
    let node = bench.lifecycle.turn(&id).await.disconnect().await.unwrap();
    assert!(!node.websocket_connected);
    assert!(!bench.lifecycle.workers.has_expired(&id, Instant::now() + LEASE * 2));
    let told = bench.events(&id).await;
    assert_eq!(told.iter().filter(|event| event.kind() == EventKind::Decommissioned).count(), 1);
}

#[tokio::test]
async fn a_node_that_lost_its_lease_is_adopted() {
    let bench = bench().await;
    let id = bench.add(1).await;
    bench.apply(&id, &welcomed()).await.unwrap();
    bench.lifecycle.workers.end(&id);
    bench.lifecycle.adopt().await.unwrap();
    assert!(bench.lifecycle.workers.has_expired(&id, Instant::now() + LEASE));
}

#[tokio::test]
async fn a_welcome_that_took_long_takes_no_node_that_another_controller_has_welcomed_meanwhile() {
    let bench = bench().await;
    let id = bench.add(1).await;
    let elsewhere = Some(Timestamp::from_millis(7));
    let mut node = bench.store.node(&id).await.unwrap().unwrap();
    (node.status, node.websocket_connected, node.held_by) = (NodeStatus::Online, true, 9);
    node.connection_established_at = elsewhere;
    assert!(bench.store.save(&node, &[]).await.unwrap());
    let arrive = async |since: Instant, known: Option<Timestamp>| {
        let turn = bench.lifecycle.turn(&id).await.of_arrival(since, known);
        turn.apply(&welcomed(), "test").await.map(|node| node.held_by)
    };
    let long_ago = Instant::now().checked_sub(MAX_WELCOME).unwrap();
    assert!(matches!(arrive(long_ago, None).await, Err(LifecycleError::Superseded(_))));
    assert_eq!(bench.store.node(&id).await.unwrap().unwrap().held_by, 9);
    // Whoever knew of that welcome comes from there, and who has just come is the newest.
    assert_eq!(arrive(long_ago, elsewhere).await.unwrap(), 0);
    assert!(
        bench
            .store
            .save(&Node { version: bench.store.node(&id).await.unwrap().unwrap().version, ..node }, &[])
            .await
            .unwrap()
    );
    assert_eq!(arrive(Instant::now(), None).await.unwrap(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_history_is_stored_as_decided_and_told_in_order(indices in prop::collection::vec(0_usize..61, 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bench = bench().await;
            let id = bench.add(1).await;
            let (mut status, mut owed) = (NodeStatus::Pending, vec!["node.registered"]);
            for index in indices {
                let occurrence = &every_occurrence()[index / 5];
                let before = bench.store.node(&id).await.unwrap().unwrap();
                let outcome = bench.apply(&id, occurrence).await;
                match occurrence.decide(&before) {
                    Decision::Refused => assert!(matches!(outcome, Err(LifecycleError::Refused { .. }))),
                    Decision::Unchanged => assert_eq!(outcome.unwrap().status, status),
                    Decision::Moved(_) if occurrence.was_told_of(&before) => assert!(outcome.is_ok()),
                    Decision::Moved(steps) => {
                        owed.extend(steps.iter().map(|step| step.event.as_str()));
                        status = steps.last().unwrap().to;
                        assert_eq!(outcome.unwrap().status, status);
                    }
                }
                assert_eq!(bench.store.node(&id).await.unwrap().unwrap().status, status);
            }
            let told: Vec<_> = bench.events(&id).await.iter().map(|event| event.kind().as_str()).collect();
            assert_eq!(told, owed);
        });
    }
}

#[test]
fn every_report_has_its_trigger() {
    let triggers: Vec<_> = every_occurrence().iter().map(|it| it.trigger(&node(1)).as_str()).collect();
    assert_eq!(
        triggers,
        [
            "installation_started",
            "installation_progressed",
            "installation_failed",
            "installation_succeeded",
            "installation_stalled",
            "worker_welcomed",
            "lease_expired",
            "worker_left",
            "maintenance",
            "resume",
            "worker_welcomed",
            "maintenance",
            "decommission"
        ]
    );
}

#[test]
fn a_node_is_set_aside_from_every_status_but_the_last() {
    for before in NodeStatus::ALL {
        let node = Node { status: before, ..node(1) };
        let decided = Occurrence::SetAside.decide(&node);
        match before {
            NodeStatus::Inactive => assert_eq!(decided, Decision::Refused),
            NodeStatus::Maintenance => assert_eq!(decided, Decision::Unchanged),
            _ => {
                let Decision::Moved(steps) = decided else { panic!("{before}: {decided:?}") };
                let step = steps.last().unwrap();
                assert_eq!(
                    (step.from, step.to, step.event),
                    (before, NodeStatus::Maintenance, EventKind::MaintenanceMode)
                );
            }
        }
    }
}
