//! The fleet's figures, as Prometheus reads them.

use std::{
    collections::BTreeSet,
    io::Write,
    process::{Command, Stdio},
};

use reqwest::Method;
use serde_json::json;

use crate::{
    harness::{Client, Controller, eventually, refusal},
    peers::Worker,
    telemetry::{containers, metrics, metrics_with},
};

/// Of a figure that has no series.
const NONE: [f64; 0] = [];

async fn scrape(controller: &Controller, query: &str) -> String {
    let request = controller.nobody().request(Method::GET, &format!("/metrics/fleet{query}"));
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200, "{query}");
    assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    answer.text().await.unwrap()
}

/// The values of a figure's series whose labels have all of these texts.
fn values(text: &str, figure: &str, labels: &[&str]) -> Vec<f64> {
    let series = text.lines().filter_map(|line| line.strip_prefix(figure)?.strip_prefix('{'));
    let series = series.filter(|rest| labels.iter().all(|label| rest.contains(label)));
    series.map(|rest| rest.rsplit(' ').next().unwrap().parse().unwrap()).collect()
}

/// What promtool says of a scrape's text, and its exit status: 0, or 3 where names are not what it advises.
fn promtool(text: &str) -> (i32, String) {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool, of Debian's package prometheus");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// A worker whose machine has these GPUs, and whose driver has this state.
pub(crate) async fn worker(
    controller: &Controller,
    owner: &Client,
    name: &str,
    gpus: usize,
    driver: &str,
) -> Worker {
    let id = owner.add_node(name).await;
    let mut worker = Worker::connect(&controller.gateway(), &id, &owner.token_of(&id).await).await;
    let gpu = |index| {
        json!({"deviceId": format!("{index}"), "uuid": format!("GPU-{name}-{index}"), "model": "NVIDIA \"H100\" 80GB",
            "memoryTotal": 85_899_345_920_u64, "pciBusId": "00000000:3B:00.0"})
    };
    let info = json!({
        "os": {"name": "Ubuntu", "version": "22.04", "kernel": "5.15.0", "hostname": format!("{name}.example")},
        "architecture": "x86_64",
        "hardware": {"cpu": {"model": "EPYC", "threads": 128}, "memory": {"total": 1_099_511_627_776_u64},
            "disk": [], "network": [], "gpu": (0..gpus).map(gpu).collect::<Vec<_>>(),
            "gpuDriver": {"state": driver, "version": "550.54"}}});
    let data = json!({"instanceId": worker.instance, "bootId": "boot", "daemonVersion": "1.0.0", "capabilities": [],
        "systemInfo": info});
    worker.send("node.register", data).await;
    worker.receive("register.ack").await;
    worker
}

#[tokio::test]
async fn a_silent_gpu_a_driver_that_is_gone_and_a_node_that_is_away_are_three_things() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    owner.add_node("never seen").await;
    let gone = owner.add_node("decommissioned").await;
    owner.request(Method::DELETE, &format!("/nodes/{gone}")).send().await.unwrap();
    let mut well = worker(&controller, &owner, "well", 2, "ok").await;
    let mut hung = worker(&controller, &owner, "hung", 1, "unknown").await;
    let busy = json!({"deviceId": "0", "utilization": 97, "memoryUsed": 64_424_509_440_u64, "temperature": 61,
        "powerDraw": 388, "clockSm": 1410, "throttle": ["sw_power_cap"],
        "eccErrors": {"volatileCorrected": 2, "volatileUncorrected": 1}});
    let silent = json!({"deviceId": "1", "status": "unknown", "health": "unhealthy",
        "findings": [{"health": "unhealthy", "reason": "Xid 79", "action": "reboot"}]});
    let health = json!({"state": "unhealthy", "worst": "GPU 1: Xid 79", "action": "reboot"});
    well.send("telemetry.heartbeat", json!({"seq": 1, "health": health})).await;
    well.send("telemetry.metrics", metrics(json!([busy, silent]))).await;
    well.ping().await;
    let unknown = json!({"deviceId": "0", "status": "unknown", "health": "unknown"});
    hung.send("telemetry.metrics", metrics(json!([unknown]))).await;
    hung.ping().await;

    let text = scrape(&controller, "").await;
    let of = |figure: &str, labels: &[&str]| values(&text, figure, labels);
    let (first, second) =
        (["name=\"well\"", "uuid=\"GPU-well-0\""], ["name=\"well\"", "uuid=\"GPU-well-1\""]);
    assert_eq!(of("aio_gpu_up", &first), [1.0]);
    assert_eq!(of("aio_gpu_utilization_ratio", &first), [0.97]);
    assert_eq!(of("aio_gpu_memory_used_bytes", &first), [64_424_509_440.0]);
    assert_eq!(of("aio_gpu_clock_hertz", &[first[1], "clock=\"sm\""]), [1.41e9]);
    assert_eq!(of("aio_gpu_clock_hertz", &[first[1], "clock=\"memory\""]), NONE, "it was not said");
    assert_eq!(of("aio_gpu_ecc_errors_total", &[first[1], "kind=\"corrected\""]), [2.0]);
    assert_eq!(of("aio_gpu_throttled", &[first[1], "reason=\"sw_power_cap\""]), [1.0]);
    assert_eq!((of("aio_gpu_up", &second), of("aio_gpu_findings", &second)), (vec![0.0], vec![1.0]));
    assert_eq!(of("aio_gpu_health", &[second[1], "health=\"unhealthy\""]), [1.0]);
    for figure in ["aio_gpu_utilization_ratio", "aio_gpu_temperature_celsius", "aio_gpu_power_watts"] {
        assert_eq!(of(figure, &second), NONE, "{figure}: a silent GPU has no numbers");
    }
    assert_eq!(of("aio_node_gpu_health", &["name=\"well\"", "health=\"unhealthy\""]), [1.0]);
    assert_eq!(of("aio_node_gpu_driver_state", &["name=\"well\"", "state=\"ok\""]), [1.0]);
    assert_eq!(of("aio_node_gpu_driver_state", &["name=\"hung\"", "state=\"unknown\""]), [1.0]);
    assert_eq!(
        (of("aio_gpu_up", &["name=\"hung\""]), of("aio_node_connected", &["name=\"hung\""])),
        (vec![0.0], vec![1.0])
    );
    assert_eq!(of("aio_node_cpu_usage_ratio", &["name=\"well\""]), [0.125]);
    assert_eq!(of("aio_node_filesystem_avail_bytes", &["mountpoint=\"/\"", "name=\"well\""]), [400.0]);
    assert_eq!(of("aio_node_info", &["name=\"well\"", "version=\"1.0.0\"", "driver=\"550.54\""]), [1.0]);
    assert_eq!(of("aio_node_status", &["name=\"never seen\"", "status=\"pending\""]), [1.0]);
    assert_eq!(
        (of("aio_node_connected", &["name=\"never seen\""]), of("aio_node_gpus", &["name=\"never seen\""])),
        (vec![0.0], vec![])
    );
    assert!(!text.contains("decommissioned"), "{text}");

    // The node is away: nothing of its GPUs is left at the next scrape.
    well.send("node.disconnecting", json!({"reason": "shutdown"})).await;
    drop(well);
    let text = eventually("the node to be away", async || {
        let text = scrape(&controller, "").await;
        if values(&text, "aio_node_connected", &["name=\"well\""]) == [0.0] { Ok(text) } else { Err(text) }
    })
    .await;
    let left: BTreeSet<_> = text
        .lines()
        .filter(|line| line.contains("name=\"well\""))
        .map(|line| line.split('{').next().unwrap())
        .collect();
    let known = [
        "aio_node_connected",
        "aio_node_info",
        "aio_node_last_seen_timestamp_seconds",
        "aio_node_memory_total_bytes",
        "aio_node_status",
    ];
    assert_eq!(left, BTreeSet::from(known));
}

#[tokio::test]
async fn containers_are_figures_where_the_worker_looks_for_them() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let mut worker = worker(&controller, &owner, "gpu", 1, "ok").await;
    worker.send("telemetry.metrics", metrics(json!([]))).await;
    worker.ping().await;
    let text = scrape(&controller, "").await;
    assert_eq!(values(&text, "aio_node_containers", &[]), NONE, "nobody looked");
    worker.send("telemetry.metrics", metrics_with(containers())).await;
    worker.ping().await;
    let text = scrape(&controller, "").await;
    let web = format!("container=\"{}\"", "4c".repeat(32));
    for (figure, labels, value) in [
        ("aio_node_containers", vec!["name=\"gpu\""], 2.0),
        (
            "aio_container_state",
            vec![
                "name=\"gpu\"",
                &web,
                "container_name=\"web\"",
                "pod=\"cart-0\"",
                "namespace=\"shop\"",
                "engine=\"containerd\"",
                "state=\"running\"",
            ],
            1.0,
        ),
        ("aio_container_state", vec!["engine=\"docker\"", "state=\"paused\""], 1.0),
        ("aio_container_cpu_seconds_total", vec![&web], 86_400.125),
        ("aio_container_memory_used_bytes", vec![&web], 4_294_967_296.0),
        ("aio_container_memory_limit_bytes", vec![&web], 8_589_934_592.0),
        ("aio_container_restarts_total", vec![&web], 7.0),
        ("aio_container_oom_kills_total", vec![&web], 2.0),
        ("aio_container_gpu", vec![&web, "gpu=\"0\""], 1.0),
    ] {
        assert_eq!(values(&text, figure, &labels), [value], "{figure} {labels:?}");
    }
    assert_eq!(
        values(&text, "aio_container_cpu_seconds_total", &[]).len(),
        1,
        "what was not said is not there"
    );
}

#[tokio::test]
async fn promtool_accepts_the_figures_by_either_names() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let mut worker = worker(&controller, &owner, "gpu \\ 1", 1, "ok").await;
    let gpu = json!({"deviceId": "0", "utilization": 97, "memoryUsed": 64_424_509_440_u64, "temperature": 61,
        "powerDraw": 388, "memoryTemperature": 70, "powerLimit": 400, "clockSm": 1410, "clockMemory": 1593,
        "throttle": ["sw_power_cap"], "eccErrors": {"volatileCorrected": 2, "aggregateUncorrected": 1},
        "remappedRows": {"uncorrected": 1, "failed": true}, "retiredPages": {"corrected": 3}});
    let mut told = metrics_with(containers());
    told["gpu"] = json!([gpu]);
    worker.send("telemetry.metrics", told).await;
    worker.ping().await;

    let own = scrape(&controller, "").await;
    assert_eq!(promtool(&own), (0, String::new()), "{own}");
    let dcgm = scrape(&controller, "?names=dcgm").await;
    let (status, said) = promtool(&dcgm);
    // NVIDIA's names are not what it advises; everything else is.
    assert!(matches!(status, 0 | 3), "{status} {said}");
    let labels = "{gpu=\"0\",UUID=\"GPU-gpu \\\\ 1-0\",pci_bus_id=\"00000000:3B:00.0\",device=\"nvidia0\",\
        modelName=\"NVIDIA \\\"H100\\\" 80GB\",Hostname=\"gpu \\\\ 1.example\"}";
    for (figure, value) in [
        ("DCGM_FI_DEV_GPU_UTIL", 97),
        ("DCGM_FI_DEV_FB_USED", 61_440),
        ("DCGM_FI_DEV_GPU_TEMP", 61),
        ("DCGM_FI_DEV_MEMORY_TEMP", 70),
        ("DCGM_FI_DEV_POWER_USAGE", 388),
        ("DCGM_FI_DEV_SM_CLOCK", 1410),
        ("DCGM_FI_DEV_MEM_CLOCK", 1593),
        ("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", 2),
        ("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", 0),
        ("DCGM_FI_DEV_ECC_SBE_AGG_TOTAL", 0),
        ("DCGM_FI_DEV_ECC_DBE_AGG_TOTAL", 1),
        ("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", 1),
        ("DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", 0),
        ("DCGM_FI_DEV_ROW_REMAP_FAILURE", 1),
        ("DCGM_FI_DEV_RETIRED_SBE", 3),
        ("DCGM_FI_DEV_RETIRED_DBE", 0),
    ] {
        assert!(dcgm.lines().any(|line| line == format!("{figure}{labels} {value}")), "{figure}: {dcgm}");
    }
    assert!(!dcgm.contains("PROF") && !dcgm.contains("aio_"), "{dcgm}");
}

#[tokio::test]
async fn the_parts_of_the_fleet_are_together_the_fleet() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    for number in 0..40 {
        owner.add_node(&format!("gpu-{number}")).await;
    }
    let nodes = |text: &str| -> Vec<String> {
        let series = text.lines().filter_map(|line| line.strip_prefix("aio_node_status{"));
        series.map(str::to_owned).collect()
    };
    let mut parts = Vec::new();
    for part in 1..=4 {
        let found = nodes(&scrape(&controller, &format!("?shard={part}/4")).await);
        assert!((1..=30).contains(&found.len()), "{}", found.len());
        parts.extend(found);
    }
    parts.sort();
    let mut whole = nodes(&scrape(&controller, "").await);
    whole.sort();
    assert_eq!((whole.len(), parts), (40, whole));
    for query in ["shard=0/8", "shard=9/8", "names=nvml", "part=1"] {
        refusal(controller.nobody().get(&format!("/metrics/fleet?{query}")).await, 400, "VALIDATION_FAILED");
    }
}
