//! What each of several controllers shows and judges by itself.

use super::*;

/// The nodes that have a series of this name, each with its value.
async fn series(controller: &Controller, name: &str) -> Vec<(String, String)> {
    let url = format!("{}/metrics/fleet", controller.url());
    let text = harness::http().get(url).send().await.unwrap().text().await.unwrap();
    let of_name = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    let node = |line: &str| line.split("node=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    of_name.map(|line| (node(line), line.rsplit(' ').next().unwrap().to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_node_has_its_series_at_one_controller_and_those_that_nobody_holds_at_the_leader() {
    let cluster = Cluster::start("password").unwrap();
    let url = cluster.url();
    let places = [member(&url, |_| {}).await, member(&url, |_| {}).await];
    let owner = places[0].owner_of("acme").await;
    let led = leader(&operator(&places[1]).await, 2).await;
    let all = controllers(&operator(&places[0]).await).await;
    let leading = usize::from(all[1]["number"] == led);
    let mut nodes = Vec::new();
    let mut workers = Vec::new();
    for place in [0, 0, 1] {
        let id = owner.add_node(&format!("gpu-{}", nodes.len())).await;
        let token = owner.token_of(&id).await;
        workers.push(Worker::welcomed(&places[place].gateway(), &id, &token).await);
        nodes.push((place, id));
    }
    let unheld = owner.add_node("never-seen").await;
    let mut expected = [Vec::new(), Vec::new()];
    for (place, id) in &nodes {
        expected[*place].push((id.clone(), "1".to_owned()));
    }
    expected[leading].push((unheld, "0".to_owned()));
    for (place, mut expected) in expected.into_iter().enumerate() {
        expected.sort();
        // Who leads knows it by its next beat.
        eventually("it shows its nodes and no others", async || {
            let mut seen = series(&places[place], "aio_node_connected").await;
            seen.sort();
            if seen == expected { Ok(()) } else { Err(format!("at {place}: {seen:?}, not {expected:?}")) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_machines_with_one_identity_are_told_apart_though_each_comes_to_a_controller_of_its_own() {
    let cluster = Cluster::start("password").unwrap();
    let url = cluster.url();
    let places = [member(&url, |_| {}).await, member(&url, |_| {}).await];
    let owner = places[0].owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    let machines = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()];
    let mut before: Option<Worker> = None;
    for round in 0..5 {
        let place = round % 2;
        let gateway = places[place].gateway();
        let mut worker = Worker::registering(&gateway, &id, &token, machines[place]).await;
        worker.receive("register.ack").await;
        if let Some(mut before) = before.replace(worker) {
            assert_eq!(before.closed().await, 4409, "round {round}");
        }
    }
    let mut refused = Worker::registering(&places[1].gateway(), &id, &token, machines[1]).await;
    assert_eq!(refused.closed().await, 4409);
    let mut holder = before.unwrap();
    assert!(holder.is_open().await, "whoever has the node keeps it");
    eventually("an alarm says so at either", async || {
        let (_, alarms) = owner.get("/alarms").await;
        let told = alarms["data"].as_array().unwrap().iter().any(|it| it["kind"] == "identity_conflict");
        if told { Ok(()) } else { Err(alarms.to_string()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sick_node_is_shown_and_found_at_every_controller() {
    let cluster = Cluster::start("password").unwrap();
    let url = cluster.url();
    let soon = |config: &mut Config| config.alarm_interval = crate::alarms::SOON;
    let places = [member(&url, soon).await, member(&url, soon).await];
    let owner = places[0].owner_of("acme").await;
    leader(&operator(&places[1]).await, 2).await;
    let mut workers = Vec::new();
    let mut ids = Vec::new();
    for (name, state) in [("sick", "unhealthy"), ("well", "ok")] {
        let id = owner.add_node(name).await;
        let token = owner.token_of(&id).await;
        let mut worker = Worker::welcomed(&places[1].gateway(), &id, &token).await;
        let beat = json!({"seq": 1, "status": "online", "uptimeSeconds": 5, "cpuUsage": 1.5, "ramUsage": 2.5,
            "activeDeployments": 0, "gpuStatus": [], "health": {"state": state, "worst": "GPU 0: Xid 79"}});
        worker.send("telemetry.heartbeat", beat).await;
        worker.ping().await;
        workers.push(worker);
        ids.push(id);
    }
    for place in &places {
        let owner = place.owner_of("acme").await;
        for (id, state) in ids.iter().zip(["unhealthy", "ok"]) {
            eventually("its health is shown, and finds it", async || {
                let shown = owner.node(id).await["gpuHealth"]["state"].clone();
                let (_, found) = owner.get(&format!("/nodes?health={state}")).await;
                let found: Vec<_> = found["data"].as_array().unwrap().iter().map(|it| &it["_id"]).collect();
                if shown == state && found == [id.as_str()] {
                    Ok(())
                } else {
                    Err(format!("{shown} {found:?}"))
                }
            })
            .await;
        }
    }
}
