//! Two controllers behind each of the load balancers that there is a sample for.

use super::*;
use crate::balancer::{Balancer, free_port};

/// Workers are spread over both; whose controller is killed is back by the same address, and an owner is
/// answered all the time.
async fn a_kill_is_nobodys_trouble_behind(balancer: fn([u16; 2]) -> Balancer) {
    const NODES: usize = 6;
    let cluster = Cluster::start("password").unwrap();
    let url = cluster.url();
    let ports = [free_port(), free_port()];
    let mut running = Vec::new();
    for port in ports {
        running.push(start_in(Vec::new(), &format!("127.0.0.1:{port}"), &url, "").await);
    }
    let direct = user_at(&running[1].0, running[1].1.path(), &url, "organization.owner").await;
    let operator = user_at(&running[1].0, running[1].1.path(), &url, "universe.owner").await;
    leader(&operator, 2).await;
    // Both are there when it begins, so that it sends nobody to the first alone.
    let balancer = balancer(ports);
    let owner = direct.through_address(&balancer.url);
    eventually("the balancer serves", async || {
        match owner.request(reqwest::Method::GET, "/nodes").send().await {
            Ok(answer) if answer.status() == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let gateway = format!("{}/ws/node", balancer.url.replace("http:", "ws:"));
    let mut nodes = Vec::new();
    for number in 0..NODES {
        let id = owner.add_node(&format!("gpu-{number}")).await;
        let token = owner.token_of(&id).await;
        let worker = Worker::welcomed(&gateway, &id, &token).await;
        nodes.push((id, token, worker));
    }
    let spread = |all: &[Value]| all.iter().map(|it| it["workers"].as_u64().unwrap()).collect::<Vec<_>>();
    let counts = spread(&controllers(&operator).await);
    println!("workers of each: {counts:?}");
    assert_eq!(counts.iter().sum::<u64>(), 6);
    assert!(counts.iter().all(|count| (1..=5).contains(count)), "{counts:?}");

    signal(&running[0].0, Signal::KILL);
    let began = Instant::now();
    let mut moved = 0;
    for (id, token, worker) in &mut nodes {
        if worker.is_open().await {
            worker.heartbeat(1).await;
            worker.ping().await;
            continue;
        }
        *worker = eventually("the worker is back", async || {
            let mut worker =
                Worker::attempt(&gateway, id, token).await.ok_or_else(|| "refused".to_owned())?;
            worker.register().await;
            match worker.receive_within(Duration::from_secs(5)).await {
                Some(message) if message["type"] == "register.ack" => Ok(worker),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        moved += 1;
    }
    println!("{moved} workers are back {:?} after the kill", began.elapsed());
    assert_eq!(u64::try_from(moved).unwrap(), counts[0]);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    for (id, ..) in &nodes {
        let (status, node) = owner.get(&format!("/nodes/{id}")).await;
        assert_eq!((status.as_u16(), &node["status"]), (200, &json!("online")), "{node}");
    }
    for (id, ..) in &nodes {
        after_a_death("each is told of once", async || {
            let seen: Vec<_> =
                direct.events(id).await.iter().map(|it| it["type"].as_str().unwrap().to_owned()).collect();
            if seen == FIRST { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_haproxy_workers_are_spread_over_both_and_go_to_the_other_when_one_is_killed() {
    a_kill_is_nobodys_trouble_behind(Balancer::haproxy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_nginx_workers_are_spread_over_both_and_go_to_the_other_when_one_is_killed() {
    a_kill_is_nobodys_trouble_behind(Balancer::nginx).await;
}
