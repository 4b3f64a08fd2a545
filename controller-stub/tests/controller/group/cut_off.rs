//! A database that a controller does not reach, or that nobody does.

use super::*;

/// A way to a server that can be interrupted: nothing comes through, and nobody is told.
struct Way {
    port: u16,
    open: tokio::sync::watch::Sender<bool>,
}

impl Way {
    async fn to(port: u16) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let here = listener.local_addr().unwrap().port();
        let open = tokio::sync::watch::Sender::new(true);
        let is_open = open.subscribe();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let ((near_reads, near_writes), (far_reads, far_writes)) =
                    (near.into_split(), far.into_split());
                tokio::spawn(pass(near_reads, far_writes, is_open.clone()));
                tokio::spawn(pass(far_reads, near_writes, is_open.clone()));
            }
        });
        Self { port: here, open }
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut is_open: tokio::sync::watch::Receiver<bool>,
) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut buffer = vec![0; 65_536];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let sent =
            is_open.wait_for(|open| *open).await.is_ok() && to.write_all(&buffer[..length]).await.is_ok();
        if !sent {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_is_cut_off_from_the_database_sends_its_workers_to_the_others_and_writes_no_more() {
    let cluster = Cluster::start("password").unwrap();
    let direct: reqwest::Url = cluster.tcp_url("postgres").parse().unwrap();
    let way = Way::to(direct.port().unwrap()).await;
    let through = |port: u16| {
        let mut url = direct.clone();
        url.set_port(Some(port)).unwrap();
        url.set_password(Some("password")).unwrap();
        url.to_string()
    };
    let one = member(&through(way.port), |_| {}).await;
    let two = member(&through(direct.port().unwrap()), |_| {}).await;
    let owner = two.owner_of("acme").await;
    let operator = operator(&two).await;
    leader(&operator, 2).await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    let mut stale = Worker::welcomed(&one.gateway(), &id, &token).await;
    owner.await_events(&id, &FIRST).await;
    let at_one = one.owner_of("acme").await;

    way.open.send_replace(false);
    let began = Instant::now();
    let code = stale.close_within(Duration::from_secs(60)).await;
    println!("the worker is sent away {:?} after the cut", began.elapsed());
    assert_eq!(code, Some(1012));
    assert!(Worker::attempt(&one.gateway(), &id, &token).await.is_none(), "and is not taken in again");
    let mut worker = Worker::welcomed(&two.gateway(), &id, &token).await;
    after_a_death("the other is alone, and leads", async || {
        let all = controllers(&operator).await;
        if all.len() == 1 && all[0]["leads"] == true { Ok(()) } else { Err(format!("{all:?}")) }
    })
    .await;
    way.open.send_replace(true);
    eventually("its changes are refused", async || {
        let (status, answer) = at_one.post("/nodes", json!({"name": "late"})).await;
        if status == 503 && answer["code"] == "DATABASE_IN_USE" { Ok(()) } else { Err(answer.to_string()) }
    })
    .await;
    worker.heartbeat(1).await;
    worker.ping().await;
    let node = owner.node(&id).await;
    assert_eq!((&node["status"], &node["websocketConnected"]), (&json!("online"), &json!(true)), "{node}");
    owner.await_events(&id, &FIRST).await;
    assert_eq!(owner.get("/nodes").await.1["pagination"]["total"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_of_the_server_makes_no_controller_dead_and_no_node_offline() {
    let mut cluster = Cluster::start("password").unwrap();
    let url = cluster.url();
    let (one, two) = (member(&url, |_| {}).await, member(&url, |_| {}).await);
    let owner = one.owner_of("acme").await;
    let operator = operator(&two).await;
    leader(&operator, 2).await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    let mut worker = Worker::welcomed(&two.gateway(), &id, &token).await;
    owner.await_events(&id, &FIRST).await;
    let numbers = async || -> Vec<Value> {
        controllers(&operator).await.iter().map(|it| it["number"].clone()).collect()
    };
    let before = numbers().await;
    for _ in 0..2 {
        cluster.stop("immediate").unwrap();
        worker.heartbeat(1).await;
        cluster.run().unwrap();
        eventually("changes are taken again, by both", async || {
            for path in ["maintenance", "resume"] {
                let at = if path == "resume" { &operator } else { &owner };
                let (status, answer) = at.post(&format!("/nodes/{id}/{path}"), json!({})).await;
                if status != 200 {
                    return Err(answer.to_string());
                }
            }
            Ok(())
        })
        .await;
    }
    assert_eq!(numbers().await, before);
    leader(&operator, 2).await;
    worker.heartbeat(2).await;
    worker.ping().await;
    let node = owner.node(&id).await;
    assert_eq!((&node["status"], &node["websocketConnected"]), (&json!("online"), &json!(true)), "{node}");
}
