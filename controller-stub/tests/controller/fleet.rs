//! What holds for many workers at once: who may connect, who is held online, who is sent away, and
//! two that are one.

use std::{net::Ipv4Addr, num::NonZeroU32, time::Duration};

use serde_json::json;
use tokio_tungstenite::tungstenite::Error;
use uuid::Uuid;

use crate::{
    harness::{Client, Controller, eventually},
    peers::{Worker, dial, dial_from},
};

const PROTOCOL: Option<&str> = Some("aio.node.v1");

struct Fleet {
    owner: Client,
    workers: Vec<Worker>,
    tokens: Vec<String>,
}

impl Fleet {
    async fn of(controller: &Controller, count: usize) -> Self {
        Self::of_organisation(controller, "acme", count).await
    }

    async fn of_organisation(controller: &Controller, organisation: &str, count: usize) -> Self {
        let owner = controller.owner_of(organisation).await;
        let (mut workers, mut tokens) = (Vec::new(), Vec::new());
        for number in 0..count {
            let id = owner.add_node(&format!("gpu-{number}")).await;
            let token = owner.token_of(&id).await;
            workers.push(Worker::welcomed(&controller.gateway(), &id, &token).await);
            tokens.push(token);
        }
        Self { owner, workers, tokens }
    }

    async fn count(&self, status: &str) -> u64 {
        let (_, list) = self.owner.get("/nodes?limit=1").await;
        list["statistics"]["byStatus"][status].as_u64().unwrap()
    }
}

/// The status, the `Retry-After` and the code of a refused upgrade.
fn turned_away<S>(dialled: Result<S, Error>) -> (u16, Option<u64>, String) {
    match dialled {
        Err(Error::Http(answer)) => {
            let wait = answer.headers().get("retry-after").map(|it| it.to_str().unwrap().parse().unwrap());
            let body: serde_json::Value = serde_json::from_slice(answer.body().as_deref().unwrap()).unwrap();
            (answer.status().as_u16(), wait, body["code"].as_str().unwrap().to_owned())
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was let in"),
    }
}

#[tokio::test]
async fn more_handshakes_than_there_is_room_for_are_told_when_to_come_back() {
    let controller = Controller::start_with(|config| config.max_handshakes = 2).await;
    let owner = controller.owner_of("acme").await;
    let mut tokens = Vec::new();
    for name in ["a", "b", "c"] {
        let id = owner.add_node(name).await;
        tokens.push((owner.token_of(&id).await, id));
    }
    let url = controller.gateway();
    let (token, id) = &tokens[0];
    let mut first = Worker::connect(&url, id, token).await;
    let (token, id) = &tokens[1];
    let _second = Worker::connect(&url, id, token).await;
    let (token, id) = &tokens[2];
    let (status, wait, code) = turned_away(dial(&url, Some(token), PROTOCOL).await);
    assert_eq!((status, code.as_str()), (503, "RATE_LIMITED"));
    assert!((1..=10).contains(&wait.unwrap()), "{wait:?}");
    // Who shows no good token is refused for that, however many connect.
    assert_eq!(turned_away(dial(&url, Some("garbage"), PROTOCOL).await).0, 401);

    // Who is welcomed is no handshake any more.
    first.register().await;
    first.receive("register.ack").await;
    let _third = Worker::welcomed(&url, id, token).await;
}

#[tokio::test]
async fn who_gives_up_in_the_middle_of_a_handshake_makes_room() {
    let controller = Controller::start_with(|config| config.max_handshakes = 1).await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    let url = controller.gateway();
    for _ in 0..3 {
        drop(
            eventually("room", async || {
                dial(&url, Some(&token), PROTOCOL).await.map_err(|it| it.to_string())
            })
            .await,
        );
        eventually("an ordinary refusal", async || match dial(&url, Some("garbage"), PROTOCOL).await {
            Err(Error::Http(answer)) if answer.status() == 401 => Ok(()),
            other => Err(format!("{:?}", other.map(drop))),
        })
        .await;
    }
}

#[tokio::test]
async fn more_upgrades_in_a_second_than_are_allowed_are_told_when_to_come_back() {
    let controller =
        Controller::start_with(|config| config.upgrades_per_second = NonZeroU32::new(3).unwrap()).await;
    let fleet = Fleet::of(&controller, 1).await;
    let mut refused = 0;
    for _ in 0..10 {
        match dial(&controller.gateway(), Some(&fleet.tokens[0]), PROTOCOL).await {
            Err(Error::Http(answer)) if answer.status() == 503 => refused += 1,
            Err(error) => panic!("{error}"),
            Ok(_) => {}
        }
    }
    assert!((5..=9).contains(&refused), "{refused}");
}

#[tokio::test]
async fn when_most_of_a_fleet_falls_silent_nobody_goes_offline_until_it_has_lasted() {
    let lease = Duration::from_millis(4000);
    let controller = Controller::start_with(|config| config.heartbeat_timeout = lease).await;
    let fleet = Fleet::of(&controller, 12).await;
    let silent_since = tokio::time::Instant::now();
    // Two and a half leases of patience behind the one that has to end first.
    eventually("offline", async || match fleet.count("offline").await {
        0 => Err("nobody yet".to_owned()),
        some => Ok(some),
    })
    .await;
    assert!(silent_since.elapsed() > lease * 2, "{:?}", silent_since.elapsed());
    eventually("all of them offline", async || match fleet.count("offline").await {
        12 => Ok(()),
        some => Err(some.to_string()),
    })
    .await;
}

#[tokio::test]
async fn one_organisation_s_silent_fleet_keeps_no_other_organisation_s_node_online() {
    let lease = Duration::from_millis(4000);
    let controller = Controller::start_with(|config| config.heartbeat_timeout = lease).await;
    let large = Fleet::of(&controller, 12).await;
    let small = Fleet::of_organisation(&controller, "other", 1).await;
    let silent_since = tokio::time::Instant::now();
    small.owner.await_status(&small.workers[0].node, "offline").await;
    assert!(silent_since.elapsed() < lease * 2, "{:?}", silent_since.elapsed());
    assert_eq!(large.count("offline").await, 0, "these are held");
}

#[tokio::test]
async fn a_fleet_that_is_heard_again_was_never_offline_and_who_stays_away_then_goes_alone() {
    let lease = Duration::from_millis(4000);
    let controller = Controller::start_with(|config| config.heartbeat_timeout = lease).await;
    let mut fleet = Fleet::of(&controller, 12).await;
    let welcomed = tokio::time::Instant::now();
    tokio::time::sleep_until(welcomed + lease * 3 / 2).await;
    assert_eq!(fleet.count("offline").await, 0, "all are held");
    let gone = fleet.workers.pop().unwrap().node;
    let mut seq = 0;
    while fleet.owner.node(&gone).await["status"] != "offline" {
        assert!(welcomed.elapsed() < lease * 6, "the one that stays away goes");
        seq += 1;
        for worker in &mut fleet.workers {
            worker.heartbeat(seq).await;
        }
        tokio::time::sleep(lease / 8).await;
    }
    assert_eq!((fleet.count("offline").await, fleet.count("online").await), (1, 11));
    for worker in &fleet.workers {
        let types = ["node.registered", "node.installation_started", "node.connected"];
        fleet.owner.await_events(&worker.node, &types).await;
    }
}

#[tokio::test]
async fn of_two_machines_with_one_identity_the_one_that_holds_the_node_keeps_it() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    let url = controller.gateway();
    let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));

    let mut holder = Worker::registering(&url, &id, &token, a).await;
    holder.receive("register.ack").await;
    for instance in [b, a] {
        let mut next = Worker::registering(&url, &id, &token, instance).await;
        next.receive("register.ack").await;
        assert_eq!(holder.closed().await, 4409);
        holder = next;
    }
    for _ in 0..3 {
        let mut clone = Worker::registering(&url, &id, &token, b).await;
        assert_eq!(clone.closed().await, 4409);
        assert!(holder.ping().await.is_empty(), "the holder does not notice");
        let conflict = &owner.node(&id).await["identityConflict"];
        assert_eq!(conflict["address"], "127.0.0.1", "{conflict}");
    }
    // The holder may reconnect, and a new process is no clone.
    let mut back = Worker::registering(&url, &id, &token, a).await;
    back.receive("register.ack").await;
    let mut restarted = Worker::registering(&url, &id, &token, Uuid::from_u128(3)).await;
    restarted.receive("register.ack").await;
    owner.await_events(&id, &["node.registered", "node.installation_started", "node.connected"]).await;
}

#[tokio::test]
async fn a_refused_clone_elsewhere_is_told_to_stay_away_before_it_is_heard() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    let url = controller.gateway();
    let (here, there) = (Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2));
    let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
    for (source, instance) in [(here, a), (there, b), (here, a)] {
        let mut worker = Worker::registering_from(source, &url, &id, &token, instance).await;
        worker.receive("register.ack").await;
    }
    let mut holder = Worker::registering(&url, &id, &token, a).await;
    holder.receive("register.ack").await;
    let mut clone = Worker::registering_from(there, &url, &id, &token, b).await;
    assert_eq!(clone.closed().await, 4409);
    let knock = async || dial_from(there, &url, Some(&token), PROTOCOL).await;
    let (status, wait, code) = turned_away(knock().await);
    assert_eq!((status, code.as_str()), (429, "NODE_SUPERSEDED"));
    assert!((30..=61).contains(&wait.unwrap()), "{wait:?}");

    // Whoever holds the node does not wait, and once it is gone the other may have it.
    let mut back = Worker::registering(&url, &id, &token, a).await;
    back.receive("register.ack").await;
    back.send("node.disconnecting", json!({"reason": "shutdown"})).await;
    drop(back);
    eventually("room for the other", async || knock().await.map(drop).map_err(|it| it.to_string())).await;
    let mut other = Worker::registering_from(there, &url, &id, &token, b).await;
    other.receive("register.ack").await;
}

#[tokio::test]
async fn a_socket_ends_soon_after_its_token() {
    let controller = Controller::start_with(|config| config.token_grace = Duration::from_millis(500)).await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let token = crate::gateway::signed(crate::harness::SECRET, &id, 2);
    let mut worker = Worker::welcomed(&controller.gateway(), &id, &token).await;
    worker.heartbeat(1).await;
    assert!(worker.ping().await.is_empty());
    assert_eq!(worker.closed().await, 4401);
    assert_eq!(owner.node(&id).await["status"], "online", "the lease decides");
}

#[tokio::test]
async fn heartbeats_never_write_to_the_disk() {
    let controller = Controller::start_with(|config| config.last_seen_lag = Duration::from_secs(3600)).await;
    let mut fleet = Fleet::of(&controller, 3).await;
    let types = ["node.registered", "node.installation_started", "node.connected"];
    for worker in &fleet.workers {
        fleet.owner.await_events(&worker.node, &types).await;
    }
    // Every commit is appended to the log, or, when the log is begun anew, written over it.
    let log = || std::fs::read(controller.config.data_dir.join("controller.db-wal")).unwrap();
    let before = eventually("quiet", async || {
        let before = log();
        tokio::time::sleep(Duration::from_millis(300)).await;
        if log() == before { Ok(before) } else { Err("the events are still being delivered".to_owned()) }
    })
    .await;
    let seen = fleet.owner.node(&fleet.workers[0].node).await["lastSeenAt"].clone();
    for seq in 1..=30 {
        for worker in &mut fleet.workers {
            worker.heartbeat(seq).await;
            assert!(worker.ping().await.is_empty());
        }
    }
    let seen_since = fleet.owner.node(&fleet.workers[0].node).await["lastSeenAt"].clone();
    assert!(seen_since.as_str() > seen.as_str(), "the API knows of them at once");
    assert!(log() == before, "heartbeats were written to the disk");
}

#[tokio::test]
async fn what_was_seen_last_is_written_down_in_batches_and_survives_a_kill() {
    let controller = Controller::start_with(|config| config.last_seen_lag = Duration::from_millis(100)).await;
    let mut fleet = Fleet::of(&controller, 2).await;
    for worker in &mut fleet.workers {
        worker.heartbeat(1).await;
        worker.ping().await;
    }
    for worker in &fleet.workers {
        let seen = fleet.owner.node(&worker.node).await["lastSeenAt"].as_str().unwrap().to_owned();
        let seen: aio_protocol::time::Timestamp = seen.parse().unwrap();
        eventually("lastSeenAt in the database", async || {
            match controller.last_seen_in_database(&worker.node).await {
                stored if stored == seen.as_millis() => Ok(()),
                stored => Err(format!("{stored} is not {}", seen.as_millis())),
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_time_in_the_future_is_overwritten_by_the_next_sign_of_life() {
    let controller = Controller::start_with(|config| config.last_seen_lag = Duration::from_millis(100)).await;
    let mut fleet = Fleet::of(&controller, 1).await;
    let worker = &mut fleet.workers[0];
    let ahead =
        aio_protocol::time::Timestamp::from(std::time::SystemTime::now() + Duration::from_secs(86_400 * 365));
    controller.sql("UPDATE nodes SET last_seen_at = 2 * last_seen_at").await;
    let seen: aio_protocol::time::Timestamp =
        fleet.owner.node(&worker.node).await["lastSeenAt"].as_str().unwrap().parse().unwrap();
    assert!(seen < ahead, "{seen}");
    worker.heartbeat(1).await;
    worker.ping().await;
    eventually("lastSeenAt in the database", async || {
        match controller.last_seen_in_database(&worker.node).await {
            stored if stored < ahead.as_millis() => Ok(()),
            stored => Err(stored.to_string()),
        }
    })
    .await;
}

#[tokio::test]
async fn a_fleet_is_sent_away_in_slices_and_nobody_goes_offline() {
    let mut controller = Controller::start().await;
    let fleet = Fleet::of(&controller, 40).await;
    let address = controller.address();
    let started = tokio::time::Instant::now();
    let closings = fleet.workers.into_iter().map(|mut worker| {
        tokio::spawn(async move {
            assert_eq!(worker.closed().await, 1012);
            tokio::time::Instant::now()
        })
    });
    let closings: Vec<_> = closings.collect();
    controller.stop().await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    for closing in closings {
        closing.await.unwrap();
    }
    controller.start_again(address).await;
    let owner = controller.owner_of("acme").await;
    let (_, list) = owner.get("/nodes?limit=1").await;
    assert_eq!(list["statistics"]["byStatus"]["online"], 40);
}
