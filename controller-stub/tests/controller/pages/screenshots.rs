//! Pictures of the pages for the documentation: `cargo xtask screenshots` writes them to `docs/images`.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{link, webdriver::Chromium};
use crate::{
    harness::{Client, Controller, eventually},
    peers::Worker,
};

/// How a node of the picture is.
enum Mood {
    Well,
    Sick(&'static str, &'static str, &'static str),
}

const GPUS: u32 = 4;

fn system(name: &str) -> Value {
    let gpu = |index: u32| {
        json!({"deviceId": index.to_string(), "model": "NVIDIA H100 80GB HBM3", "memoryTotal": 85_520_809_984_u64,
            "ecc": true, "pcie": {"generation": 5, "width": 16}, "nvlinks": 18})
    };
    json!({
        "os": {"name": "Ubuntu", "version": "22.04", "kernel": "5.15.0-122-generic", "hostname": name},
        "architecture": "x86_64",
        "hardware": {"cpu": {"model": "AMD EPYC 9654", "cores": 96, "threads": 192}, "memory": {"total": 1_621_970_370_560_u64},
            "disk": [{"mountPoint": "/", "fileSystem": "ext4", "total": 1_920_383_410_176_u64, "available": 1_120_383_410_176_u64}],
            "network": [], "gpu": (0..GPUS).map(gpu).collect::<Vec<_>>(),
            "gpuDriver": {"state": "ok", "version": "550.54.15", "cudaVersion": "12.4"}},
        "containerRuntime": {"name": "docker", "active": true, "version": "24.0.7"},
        "services": [{"name": "docker.service", "state": "active", "version": "24.0.7"},
            {"name": "nvidia-fabricmanager.service", "state": "active", "version": "550.54.15"},
            {"name": "nvidia-persistenced.service", "state": "failed", "restarts": 3}]})
}

async fn connect(controller: &Controller, owner: &Client, name: &str, version: &str, mood: &Mood) -> Worker {
    let node =
        owner.get(&format!("/nodes?name={name}")).await.1["data"][0]["_id"].as_str().unwrap().to_owned();
    let token = owner.token_of(&node).await;
    let mut worker = Worker::connect(&controller.gateway(), &node, &token).await;
    let data = json!({"instanceId": worker.instance, "bootId": "boot", "daemonVersion": version, "capabilities": ["update.v1"],
        "update": {"managedBy": "controller"}, "systemInfo": system(name)});
    worker.send("node.register", data).await;
    worker.receive("register.ack").await;
    let health = match mood {
        Mood::Well => json!({"state": "ok"}),
        Mood::Sick(state, worst, action) => json!({"state": state, "worst": worst, "action": action}),
    };
    let gpu = |index: u32| {
        let mut gpu = json!({"deviceId": index.to_string(), "utilization": 97 - index * 13, "memoryUsed": 81_234_567_168_u64 - u64::from(index) * 6_000_000_000,
            "temperature": 71 - index * 2, "powerDraw": 689 - index * 40, "powerLimit": 700});
        if let (0, Mood::Sick(state, worst, action)) = (index, mood) {
            gpu["health"] = json!(state);
            gpu["findings"] =
                json!([{"health": state, "reason": worst.split_once(": ").unwrap().1, "action": action}]);
        }
        gpu
    };
    let gpus: Vec<_> = (0..GPUS).map(gpu).collect();
    worker
        .send(
            "telemetry.metrics",
            json!({"cpuUsage": 41.5, "ramUsage": 56.25, "uptimeSeconds": 1_234_567,
            "memoryUsed": 917_123_456_000_u64, "disk": [], "network": {}, "gpu": gpus}),
        )
        .await;
    let beat = json!({"seq": 1, "status": "online", "uptimeSeconds": 1_234_567, "cpuUsage": 41.5, "ramUsage": 56.25,
        "activeDeployments": 8, "gpuStatus": [], "health": health});
    worker.send("telemetry.heartbeat", beat).await;
    worker.ping().await;
    worker
}

/// A fleet with most things that pages show.
async fn fleet(controller: &Controller, owner: &Client) -> Vec<Worker> {
    for number in 1..=24 {
        let labels = json!({"rack": format!("r{}", 1 + number / 9), "group": if number % 3 == 0 { "inference" } else { "training" }});
        let body = json!({ "name": format!("gpu-{number:03}"), "role": ["worker"], "labels": labels });
        assert_eq!(owner.post("/nodes", body).await.0, 201);
    }
    let mut workers = Vec::new();
    for number in 1..=20 {
        let mood = match number {
            3 => Mood::Sick("unhealthy", "GPU 0: Xid 79: the GPU has fallen off the bus", "reboot"),
            11 => Mood::Sick("degraded", "GPU 0: it slows down because it is 92 °C hot", "check_cooling"),
            _ => Mood::Well,
        };
        let version = if number % 5 == 0 { "1.0.0" } else { "1.1.0" };
        workers.push(connect(controller, owner, &format!("gpu-{number:03}"), version, &mood).await);
    }
    let id = async |name: &str| {
        owner.get(&format!("/nodes?name={name}")).await.1["data"][0]["_id"].as_str().unwrap().to_owned()
    };
    owner.post(&format!("/nodes/{}/maintenance", id("gpu-007").await), json!({})).await;
    for (name, report) in [
        ("gpu-021", json!({"phase": "started", "version": "v1.1.0"})),
        ("gpu-022", json!({"phase": "started", "version": "v1.1.0"})),
        (
            "gpu-022",
            json!({"phase": "failed", "step": "start_service", "error":
            {"code": "SERVICE_FAILED", "message": "aio-worker.service did not stay up: exit status 78"}}),
        ),
        ("gpu-021", json!({"phase": "progress", "step": "switch_release", "percent": 64})),
    ] {
        let node = id(name).await;
        let token = controller.bearer(&owner.token_of(&node).await);
        let (status, answer) = token.post(&format!("/nodes/{node}/installation"), report).await;
        assert!(status.is_success(), "{answer}");
    }
    // One says goodbye.
    let mut gone = workers.remove(16);
    gone.send("node.disconnecting", json!({"reason": "shutdown"})).await;
    drop(gone);
    eventually("one is offline", async || {
        let listed = owner.get("/nodes?status=offline").await.1;
        if listed["pagination"]["total"] == 1 { Ok(()) } else { Err(listed.to_string()) }
    })
    .await;
    workers
}

#[tokio::test]
#[ignore = "writes docs/images: cargo xtask screenshots"]
async fn pictures_of_each_page_light_dark_and_on_a_phone() {
    let folder = PathBuf::from(std::env::var("AIO_IMAGES").expect("AIO_IMAGES names the folder"));
    std::fs::create_dir_all(&folder).unwrap();
    let controller = Controller::start_with(|config| {
        config.api_requests_per_second = None;
        config.alarm_interval = std::time::Duration::from_millis(200);
    })
    .await;
    controller.write_index();
    let owner = controller.owner_of("acme").await;
    let mut workers = fleet(&controller, &owner).await;
    let (_, draft) = owner.post("/rollouts", json!({ "version": "v1.1.0", "canaries": "2" })).await;
    let rollout = draft["id"].as_str().unwrap().to_owned();
    owner.post(&format!("/rollouts/{rollout}/start"), json!({})).await;
    eventually("the canaries have their offer", async || {
        let now = owner.get(&format!("/rollouts/{rollout}")).await.1;
        if now["nodes"]["offered"].as_u64() > Some(0) { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
    let sick = owner.get("/nodes?name=gpu-003").await.1["data"][0]["_id"].as_str().unwrap().to_owned();
    eventually("alarms", async || {
        let listed = owner.get("/alarms").await.1;
        if listed["pagination"]["total"].as_u64() >= Some(2) { Ok(()) } else { Err(listed.to_string()) }
    })
    .await;
    let browser = Chromium::start().await;
    browser.look(1280, 900, false).await;
    let pictures = [
        ("login", "/ui/login".to_owned()),
        ("overview", "/".to_owned()),
        ("nodes", "/ui/nodes".to_owned()),
        ("node", format!("/ui/nodes/{sick}")),
        ("add", "/ui/add?watch=gpu-02%2A".to_owned()),
        ("alarms", "/ui/alarms".to_owned()),
        ("updates", format!("/ui/updates/{rollout}")),
        ("events", "/ui/events".to_owned()),
        ("delivery", "/ui/delivery".to_owned()),
        ("audit", "/ui/audit".to_owned()),
        ("access", "/ui/access".to_owned()),
    ];
    for (name, page) in &pictures {
        if *name == "overview" {
            browser.open(&link(&controller, "acme", "universe.owner").await).await;
            browser.press("button.main").await;
        }
        for (look, width, height, dark) in
            [("light", 1000, 520, false), ("dark", 1000, 520, true), ("phone", 390, 560, false)]
        {
            browser.look(width, height, dark).await;
            browser.open(&format!("{}{page}", controller.url())).await;
            if *name != "login" {
                browser.until("return document.documentElement.dataset.live === 'on'").await;
            }
            std::fs::write(folder.join(format!("{name}-{look}.png")), browser.picture().await).unwrap();
        }
    }
    for worker in &mut workers {
        worker.ping().await;
    }
}
