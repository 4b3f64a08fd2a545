//! Several controllers on one PostgreSQL database, each of which serves: what one does the others know, a
//! worker may come to any of them, and whoever is killed, stands still or is cut off takes nothing with it.

#[path = "group/balanced.rs"]
mod balanced;
#[path = "group/clocks.rs"]
mod clocks;
#[path = "group/cut_off.rs"]
mod cut_off;
#[path = "group/reports.rs"]
mod reports;
#[path = "group/shown.rs"]
mod shown;
#[path = "group/upgrades.rs"]
mod upgrades;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use controller_stub::{
    commands::{self, For},
    config::Config,
    serve::Server,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    cluster::Cluster,
    harness::{self, Client, Controller, eventually},
    peers::Worker,
    program::{Served, run, serve_in},
};

/// What a node has told that was registered and whose worker was welcomed once.
const FIRST: [&str; 3] = ["node.registered", "node.installation_started", "node.connected"];

/// A controller in this process, one of several on `url`.
async fn member(url: &str, change: impl FnOnce(&mut Config)) -> Controller {
    Controller::start_with(|config| {
        config.database_url = Some(url.into());
        config.public_url = Some("http://127.0.0.1:9".parse().unwrap());
        config.shared = true;
        change(config);
    })
    .await
}

async fn operator(controller: &Controller) -> Client {
    controller.user("acme", "universe.owner").await
}

async fn controllers(operator: &Client) -> Vec<Value> {
    let (status, list) = operator.get("/controllers").await;
    assert_eq!(status, 200, "{list}");
    list["data"].as_array().unwrap().clone()
}

/// Waits until exactly one of `count` controllers leads, and says its number.
async fn leader(operator: &Client, count: usize) -> i64 {
    eventually(&format!("one of {count} controllers leads"), async || {
        let all = controllers(operator).await;
        let leading: Vec<_> = all.iter().filter(|it| it["leads"] == true).collect();
        match leading[..] {
            [one] if all.len() == count => Ok(one["number"].as_i64().unwrap()),
            _ => Err(format!("{all:?}")),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_controller_does_the_others_know_and_each_event_is_told_once_and_in_order() {
    let cluster = Cluster::start("password").unwrap();
    let url = cluster.url();
    let (one, two) = (member(&url, |_| {}).await, member(&url, |_| {}).await);
    let (at_one, at_two) = (one.owner_of("acme").await, two.owner_of("acme").await);
    leader(&operator(&two).await, 2).await;
    let id = at_one.add_node("gpu").await;
    assert_eq!(at_two.node(&id).await["status"], "pending");
    let token = at_two.token_of(&id).await;
    // Each in turn, so the one that delivers hears of half of it by itself.
    let mut worker = Worker::welcomed(&two.gateway(), &id, &token).await;
    at_one.await_connected(&id, true).await;
    let mut types = FIRST.to_vec();
    for round in 0..4 {
        let (first, second) = if round % 2 == 0 { (&at_one, &at_two) } else { (&at_two, &at_one) };
        assert_eq!(first.post(&format!("/nodes/{id}/maintenance"), json!({})).await.0, 200);
        assert_eq!(second.post(&format!("/nodes/{id}/resume"), json!({})).await.0, 200);
        types.extend(["node.maintenance_mode", "node.resumed"]);
    }
    at_one.await_events(&id, &types).await;
    at_two.await_events(&id, &types).await;
    let workers: Vec<_> =
        controllers(&operator(&one).await).await.iter().map(|it| it["workers"].clone()).collect();
    assert_eq!(workers, [0, 1]);
    // A revocation reaches the socket wherever it is.
    assert_eq!(at_one.post(&format!("/nodes/{id}/regenerate-credentials"), json!({})).await.0, 201);
    assert_eq!(worker.closed().await, 4401);
    at_one.await_connected(&id, false).await;
    let token = at_one.token_of(&id).await;
    let mut worker = Worker::welcomed(&two.gateway(), &id, &token).await;
    assert_eq!(
        at_one.request(reqwest::Method::DELETE, &format!("/nodes/{id}")).send().await.unwrap().status(),
        200
    );
    assert_eq!(worker.closed().await, 4401);
    types.push("node.decommissioned");
    at_two.await_events(&id, &types).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_comes_to_another_controller_is_closed_at_the_one_before_and_changes_nothing_there() {
    let cluster = Cluster::start("password").unwrap();
    let url = cluster.url();
    let lease = Duration::from_secs(4);
    let short = |config: &mut Config| config.heartbeat_timeout = lease;
    let places = [member(&url, short).await, member(&url, short).await];
    let owner = places[0].owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    let instance = uuid::Uuid::new_v4();
    let come = async |place: usize| {
        let gateway = places[place].gateway();
        let mut worker = Worker::registering(&gateway, &id, &token, instance).await;
        worker.receive("register.ack").await;
        worker
    };
    let mut before = come(0).await;
    for round in 1..8 {
        let place = round % 2;
        let mut next = come(place).await;
        // What the one before says now is nobody's word any more.
        if round == 3 {
            before.send("node.disconnecting", json!({"reason": "shutdown"})).await;
        }
        assert_eq!(before.closed().await, 4409, "round {round}");
        next.heartbeat(1).await;
        next.ping().await;
        before = next;
    }
    // The leases of the places before end with them.
    let began = Instant::now();
    let mut seq = 2;
    while began.elapsed() < lease * 2 {
        before.heartbeat(seq).await;
        before.ping().await;
        seq += 1;
        tokio::time::sleep(lease / 8).await;
    }
    let node = owner.node(&id).await;
    assert_eq!((&node["status"], &node["websocketConnected"]), (&json!("online"), &json!(true)), "{node}");
    owner.await_events(&id, &FIRST).await;
    drop(before);
    owner.await_status(&id, "offline").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_welcomes_at_once_on_two_controllers_one_socket_stays_open() {
    let cluster = Cluster::start("password").unwrap();
    let url = cluster.url();
    let places = [member(&url, |_| {}).await, member(&url, |_| {}).await];
    let owner = places[0].owner_of("acme").await;
    let gateways = [places[0].gateway(), places[1].gateway()];
    for seed in 0..6_u64 {
        let mut random = fastrand::Rng::with_seed(seed);
        let id = owner.add_node(&format!("gpu-{seed}")).await;
        let token = owner.token_of(&id).await;
        let instance = uuid::Uuid::new_v4();
        let comers = (0..6).map(|number| {
            let (gateway, id, token) = (gateways[number % 2].clone(), id.clone(), token.clone());
            let pause = Duration::from_millis(random.u64(0..20));
            async move {
                tokio::time::sleep(pause).await;
                let mut worker = Worker::attempt(&gateway, &id, &token).await?;
                worker.instance = instance;
                worker.register().await;
                // Until nothing comes any more, or it is closed.
                let mut is_welcome = false;
                while let Some(message) = worker.receive_within(Duration::from_secs(2)).await {
                    is_welcome |= message["type"] == "register.ack";
                }
                is_welcome.then_some(worker)
            }
        });
        let welcomed: Vec<Worker> =
            futures_util::future::join_all(comers).await.into_iter().flatten().collect();
        assert!(!welcomed.is_empty(), "seed {seed}");
        let node = owner.await_connected(&id, true).await;
        assert_eq!(node["status"], "online", "seed {seed}: {node}");
        let mut open = 0;
        for mut worker in welcomed {
            open += usize::from(worker.is_open().await);
        }
        assert_eq!(open, 1, "seed {seed}");
        owner.await_events(&id, &FIRST).await;
    }
}

/// A program that serves together with others, and the folder of its data.
type Program = (Served, tempfile::TempDir);

async fn start(url: &str, more: &str) -> Program {
    start_in(Vec::new(), "127.0.0.1:0", url, more).await
}

async fn start_in(
    environment: Vec<(&'static str, &'static str)>,
    listen: &str,
    url: &str,
    more: &str,
) -> Program {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    let text = format!(
        "database_url = \"{url}\"\nshared = true\npublic_url = \"http://127.0.0.1:9\"\njwt_secret = \"{}\"\n\
         noti_webhook_secret = \"{}\"\nnoti_service_token = \"{}\"\n{more}",
        harness::SECRET,
        harness::WEBHOOK_SECRET,
        harness::SERVICE_TOKEN
    );
    fs::write(&config, text).unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
    let listen = listen.to_owned();
    tokio::task::spawn_blocking(move || {
        let flags = ["--listen", &listen, "--config", config.to_str().unwrap()];
        (serve_in(&environment, &flags, &folder.path().join("data")), folder)
    })
    .await
    .unwrap()
}

async fn user_at(served: &Served, folder: &Path, url: &str, role: &str) -> Client {
    let mut config = Config::new(folder.join("data"));
    config.database_url = Some(url.into());
    config.jwt_secret = Some(harness::SECRET.into());
    let whose = For { org: Some("acme".parse().unwrap()), user: Some("someone".parse().unwrap()) };
    let token = commands::user_token(&config, whose, vec![role.into()], 3600).await.unwrap();
    Client::at(&served.url, &token)
}

fn gateway(served: &Served) -> String {
    format!("{}/ws/node", served.url.replace("http:", "ws:"))
}

fn signal(served: &Served, signal: Signal) {
    kill_process(Pid::from_child(&served.child), signal).unwrap();
}

/// Waits for a condition that takes as long as it takes to be taken for dead.
async fn after_a_death<T, F: Future<Output = Result<T, String>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if Instant::now() > deadline => panic!("{what} did not come about; last: {seen}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_controller_loses_no_node_no_event_and_no_time_whether_it_led_or_not() {
    let cluster = Cluster::start("password").unwrap();
    let url = cluster.url();
    let mut running = vec![start(&url, "").await, start(&url, "").await, start(&url, "").await];
    let survivor = running.pop().unwrap();
    let owner = user_at(&survivor.0, survivor.1.path(), &url, "organization.owner").await;
    let operator = user_at(&survivor.0, survivor.1.path(), &url, "universe.owner").await;
    let mut nodes = Vec::new();
    for number in 0..4 {
        let id = owner.add_node(&format!("gpu-{number}")).await;
        let token = owner.token_of(&id).await;
        let worker = Worker::welcomed(&gateway(&running[number % 2].0), &id, &token).await;
        nodes.push((id, token, Some(worker)));
    }
    let mut types = FIRST.to_vec();
    for (id, ..) in &nodes {
        owner.await_events(id, &types).await;
    }
    // The first leads; then, perhaps, the second.
    for round in 0..2 {
        leader(&operator, 3 - round).await;
        let (killed, _folder) = running.remove(0);
        let began = Instant::now();
        signal(&killed, Signal::KILL);
        // Whoever is back before the death is known is at once another's.
        for (number, (id, token, worker)) in
            nodes.iter_mut().enumerate().filter(|(number, _)| number % 2 == round)
        {
            drop(worker.take());
            if number < 2 {
                let mut next = Worker::welcomed(&gateway(&survivor.0), id, token).await;
                next.heartbeat(1).await;
                *worker = Some(next);
            }
        }
        println!("round {round}: workers are back {:?} after the kill", began.elapsed());
        let (id, ..) = &nodes[round];
        assert_eq!(owner.post(&format!("/nodes/{id}/maintenance"), json!({})).await.0, 200);
        assert_eq!(owner.post(&format!("/nodes/{id}/resume"), json!({})).await.0, 200);
        let told: Vec<_> = types.iter().copied().chain(["node.maintenance_mode", "node.resumed"]).collect();
        after_a_death("one that is left leads and delivers", async || {
            let all = controllers(&operator).await;
            let is_led = all.len() == 2 - round && all.iter().any(|it| it["leads"] == true);
            let seen: Vec<_> =
                owner.events(id).await.iter().map(|it| it["type"].as_str().unwrap().to_owned()).collect();
            if is_led && seen == told { Ok(()) } else { Err(format!("{all:?} {seen:?}")) }
        })
        .await;
        println!(
            "round {round}: the death is known and all is delivered {:?} after the kill",
            began.elapsed()
        );
        // Who is not back yet has a whole lease: it is online, and nobody holds its socket.
        let (late, token, worker) = &mut nodes[round + 2];
        after_a_death("the late node is the leader's", async || {
            let node = owner.node(late).await;
            if node["websocketConnected"] == false { Ok(()) } else { Err(node.to_string()) }
        })
        .await;
        assert_eq!(owner.node(late).await["status"], "online");
        *worker = Some(Worker::welcomed(&gateway(&survivor.0), late, token).await);
    }
    types.extend(["node.maintenance_mode", "node.resumed"]);
    for (number, (id, ..)) in nodes.iter().enumerate() {
        let node = owner.node(id).await;
        assert_eq!(
            (&node["status"], &node["websocketConnected"]),
            (&json!("online"), &json!(true)),
            "{node}"
        );
        owner.await_events(id, if number < 2 { &types } else { &FIRST }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_stood_still_for_too_long_changes_nothing_and_ends() {
    let cluster = Cluster::start("password").unwrap();
    let url = cluster.url();
    let (mut still, _still_folder) = start(&url, "").await;
    let (other, folder) = start(&url, "").await;
    let owner = user_at(&other, folder.path(), &url, "organization.owner").await;
    let operator = user_at(&other, folder.path(), &url, "universe.owner").await;
    let at_still = owner.through_address(&still.url);
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    let mut stale = Worker::welcomed(&gateway(&still), &id, &token).await;
    owner.await_events(&id, &FIRST).await;
    signal(&still, Signal::STOP);
    // Said before the node was another's, and heard afterwards.
    stale.send("node.disconnecting", json!({"reason": "shutdown"})).await;
    let mut worker = Worker::welcomed(&gateway(&other), &id, &token).await;
    after_a_death("the other is alone, and leads", async || {
        let all = controllers(&operator).await;
        if all.len() == 1 && all[0]["leads"] == true { Ok(()) } else { Err(format!("{all:?}")) }
    })
    .await;
    signal(&still, Signal::CONT);
    let late = at_still.request(reqwest::Method::POST, "/nodes").json(&json!({"name": "late"})).send().await;
    if let Ok(late) = late {
        let (status, text) = (late.status(), late.text().await.unwrap_or_default());
        assert!(status == 503 && text.contains("DATABASE_IN_USE"), "{status} {text}");
    }
    let ended = tokio::task::spawn_blocking(move || still.child.wait().unwrap()).await.unwrap();
    assert!(!ended.success(), "{ended:?}");
    worker.heartbeat(1).await;
    worker.ping().await;
    let node = owner.node(&id).await;
    assert_eq!((&node["status"], &node["websocketConnected"]), (&json!("online"), &json!(true)), "{node}");
    assert_eq!(owner.get("/nodes").await.1["pagination"]["total"], 1);
    owner.await_events(&id, &FIRST).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_stopped_hands_its_nodes_over_at_once_and_the_last_one_starts_as_any_start_does() {
    let cluster = Cluster::start("password").unwrap();
    let url = cluster.url();
    let lease = Duration::from_secs(4);
    let short = |config: &mut Config| config.heartbeat_timeout = lease;
    let (mut one, two) = (member(&url, short).await, member(&url, short).await);
    let owner = two.owner_of("acme").await;
    let operator = operator(&two).await;
    let led = leader(&operator, 2).await;
    let (back, gone) = (owner.add_node("back").await, owner.add_node("gone").await);
    let (back_token, gone_token) = (owner.token_of(&back).await, owner.token_of(&gone).await);
    let mut staying = Worker::welcomed(&one.gateway(), &back, &back_token).await;
    let _silent = Worker::welcomed(&one.gateway(), &gone, &gone_token).await;
    one.stop().await;
    assert_eq!(staying.closed().await, 1012);
    let began = Instant::now();
    assert_ne!(leader(&operator, 1).await, led);
    owner.await_connected(&gone, false).await;
    println!("the other leads and has the nodes {:?} after the stop", began.elapsed());
    let mut worker = Worker::welcomed(&two.gateway(), &back, &back_token).await;
    let beats = async {
        let mut pace = tokio::time::interval(lease / 4);
        for seq in 1.. {
            pace.tick().await;
            worker.heartbeat(seq).await;
        }
    };
    tokio::select! {
        () = beats => {}
        _ = owner.await_status(&gone, "offline") => {}
    }
    assert!(began.elapsed() + Duration::from_millis(500) >= lease, "{:?}", began.elapsed());
    assert_eq!(owner.node(&back).await["status"], "online");
    owner.await_events(&back, &FIRST).await;
}

#[tokio::test]
async fn who_serves_alone_and_those_that_serve_together_keep_each_other_out_and_secrets_must_agree() {
    let cluster = Cluster::start("password").unwrap();
    let url = cluster.url();
    let mut one = member(&url, |_| {}).await;
    let data = tempfile::tempdir().unwrap();
    let mut config = Config { data_dir: data.path().join("other"), ..one.config.clone() };
    config.listen = ([127, 0, 0, 1], 0).into();
    let alone = Config { shared: false, ..config.clone() };
    let code = async |config: &Config| Server::start(config.clone()).await.map(drop).unwrap_err().code();
    assert_eq!(code(&alone).await.as_str(), "DATABASE_IN_USE");
    let other = Config {
        jwt_secret: Some("another secret that signs tokens in tests, long enough".into()),
        ..config.clone()
    };
    assert_eq!(code(&other).await.as_str(), "CONFIG_INVALID");
    let file = Config { database_url: None, ..config.clone() };
    assert_eq!(code(&file).await.as_str(), "CONFIG_INVALID");
    assert_eq!(controllers(&operator(&one).await).await.len(), 1, "who was refused has left");
    let flags = ["controller", "list", "--output", "json", "--config"];
    let file = data.path().join("config.toml");
    fs::write(&file, format!("database_url = \"{url}\"\n")).unwrap();
    let listed = run(&[&flags[..], &[file.to_str().unwrap()]].concat(), &data.path().join("none"));
    let line: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(line["leads"], true, "{line}");
    one.stop().await;
    let serving = Server::start(alone.clone()).await.unwrap();
    assert_eq!(
        code(&Config { data_dir: data.path().join("third"), ..config }).await.as_str(),
        "DATABASE_IN_USE"
    );
    serving.shutdown().await;
}
