//! Findings: what each thing that is wrong with a node, an organisation or a controller says, and which alarm
//! it is. Pure: `survey` looks.

use aio_protocol::{
    container::{Container, ContainerProblem},
    ids::{NodeId, OwnerId},
    inventory::Gpu,
    telemetry::{Health, HealthSummary, MachineProblem, MachineProblemKind},
    time::Timestamp,
};
use serde::Deserialize;

use super::model::{Finding, Key, Kind, Level, Whose};
use crate::{store::FleetNode, telemetry::reading::Reading};

#[derive(Default, Deserialize)]
#[serde(default)]
struct Inventory {
    hardware: Hardware,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Hardware {
    missing_gpu: Vec<Gpu>,
}

/// One finding for each thing that is wrong with a GPU, and one for the whole where that is worse than each.
pub(super) fn gpu_findings(node: &FleetNode, summary: &HealthSummary, reading: &Reading) -> Vec<Finding> {
    let mut found = Vec::new();
    for gpu in &reading.gpus {
        for it in &gpu.detail.findings {
            let reason = format!("GPU {}: {}", gpu.device, it.reason);
            let what = (Kind::GpuHealth, format!("{}:{}", gpu.device, part_of(&it.reason)));
            found.push(of_node(&node.id, &node.org, what, level(it.health), reason, words(it.action), None));
        }
    }
    let told = node.system_info.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let Inventory { hardware } = told.unwrap_or_default();
    for gpu in hardware.missing_gpu {
        let called = gpu.uuid.clone().unwrap_or_else(|| gpu.device_id.clone());
        let reason = format!("GPU {} ({} {called}) is missing", gpu.device_id, gpu.model);
        let action = "look at the kernel's log and the slot; reboot the machine".to_owned();
        let what = (Kind::GpuMissing, called);
        found.push(of_node(&node.id, &node.org, what, Level::Critical, reason, action, None));
    }
    if found.iter().all(|finding| finding.level < level(summary.state)) {
        let reason =
            summary.worst.clone().unwrap_or_else(|| format!("its GPUs are {}", summary.state.as_str()));
        let what = (Kind::GpuHealth, String::new());
        found.push(of_node(
            &node.id,
            &node.org,
            what,
            level(summary.state),
            reason,
            words(summary.action),
            None,
        ));
    }
    found
}

/// What is wrong with a machine; nothing where this controller does not know what that is.
pub(super) fn machine_finding(node: &FleetNode, problem: &MachineProblem) -> Option<Finding> {
    let (kind, action) = match problem.kind {
        MachineProblemKind::DiskFull => (Kind::DiskFull, "make room on it"),
        MachineProblemKind::InodesFull => (Kind::InodesFull, "remove files that nobody needs"),
        MachineProblemKind::MemoryFull => {
            (Kind::MemoryFull, "look at what uses the memory, before the kernel ends something")
        }
        MachineProblemKind::Overheated => (Kind::Overheated, "look at fans, filters and the room's air"),
        MachineProblemKind::ServiceFailed => {
            (Kind::ServiceFailed, "look at its journal with `journalctl -u` on the node")
        }
        MachineProblemKind::Unknown => return None,
    };
    let reason = format!("{}: {}", node.name, problem.reason);
    let what = (kind, problem.part.clone());
    Some(of_node(&node.id, &node.org, what, Level::Warning, reason, action.to_owned(), None))
}

/// One finding for each thing that is wrong with a container.
pub(super) fn container_findings(node: &FleetNode, containers: &[Container]) -> Vec<Finding> {
    let finding = |container: &Container, problem: &ContainerProblem| {
        let title = container.title();
        let (kind, reason, action) = match problem {
            ContainerProblem::Restarting => (
                Kind::ContainerRestarting,
                format!("the container {title} is started again and again"),
                "look at its log; the engine or the kubelet on the node has it",
            ),
            ContainerProblem::OomKilled => (
                Kind::ContainerOomKilled,
                format!("processes of the container {title} were killed because its memory was full"),
                "give it a higher memory limit, or find out what it needs its memory for",
            ),
        };
        let what = (kind, container.place());
        of_node(&node.id, &node.org, what, Level::Warning, reason, action.to_owned(), None)
    };
    containers.iter().flat_map(|it| it.problems.iter().map(move |problem| finding(it, problem))).collect()
}

/// What tells a reason from others, its counts left out; numbers of Xids stay.
fn part_of(reason: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in reason.split(' ') {
        let stays = words.last().is_some_and(|before| before == "Xid")
            || !word.contains(|c: char| c.is_ascii_digit());
        words.push(if stays { word.to_owned() } else { "#".to_owned() });
    }
    words.join(" ")
}

fn level(health: Health) -> Level {
    if health == Health::Unhealthy { Level::Critical } else { Level::Warning }
}

fn words(action: aio_protocol::telemetry::RecoveryAction) -> String {
    action.in_words().unwrap_or("run `aio-worker doctor` on the node").to_owned()
}

pub(super) fn of_node(
    id: &NodeId,
    org: &OwnerId,
    (kind, part): (Kind, String),
    level: Level,
    reason: String,
    action: String,
    since: Option<Timestamp>,
) -> Finding {
    let key = Key { whose: Whose::Node(id.clone()), kind, part };
    Finding { key, org: Some(org.clone()), level, reason, action, since }
}

pub(super) fn of_organisation(
    org: OwnerId,
    (kind, part): (Kind, String),
    reason: String,
    action: String,
) -> Finding {
    let key = Key { whose: Whose::Organisation(org.clone()), kind, part };
    Finding { key, org: Some(org), level: Level::Warning, reason, action, since: None }
}

pub(super) fn of_controller((kind, part): (Kind, String), reason: String, action: &str) -> Finding {
    let key = Key { whose: Whose::Controller, kind, part };
    Finding { key, org: None, level: Level::Critical, reason, action: action.to_owned(), since: None }
}

#[cfg(test)]
mod tests {
    use aio_protocol::node::NodeStatus;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_machine_that_is_worse_than_each_of_its_gpus_is_an_alarm_beside_theirs() {
        let metrics = json!({"nodeId": NodeId::from_bytes([1; 12]), "cpuUsage": 1.0, "ramUsage": 1.0,
            "uptimeSeconds": 1, "gpu": [{"deviceId": "3", "health": "degraded",
            "findings": [{"health": "degraded", "reason": "12 memory errors"}]}]});
        let reading = Reading::of(&serde_json::from_value(metrics).unwrap(), Timestamp::from_millis(1));
        let node = FleetNode {
            id: NodeId::from_bytes([1; 12]),
            org: "acme".parse().unwrap(),
            name: "gpu".to_owned(),
            status: NodeStatus::Online,
            last_seen_at: None,
            daemon_version: None,
            update_report: None,
            system_info: None,
        };
        let reasons = |state: Health| -> Vec<_> {
            let worst = Some("5 of 8 expected GPUs are here".to_owned());
            let summary = HealthSummary { state, worst, ..HealthSummary::default() };
            gpu_findings(&node, &summary, &reading).into_iter().map(|it| it.reason).collect()
        };
        assert_eq!(reasons(Health::Degraded), ["GPU 3: 12 memory errors"]);
        assert_eq!(reasons(Health::Unhealthy), ["GPU 3: 12 memory errors", "5 of 8 expected GPUs are here"]);
    }

    #[test]
    fn a_reason_whose_count_grows_is_the_same_and_another_xid_is_another() {
        assert_eq!(part_of("12 memory errors in an hour"), part_of("13 memory errors in an hour"));
        assert_ne!(
            part_of("Xid 79: the GPU has fallen off the bus"),
            part_of("Xid 48: the GPU has fallen off the bus")
        );
    }
}
