//! `aio-worker inventory`: what this machine is made of, asked directly and with a deadline; root,
//! daemon and driver are not needed.

use std::{path::PathBuf, time::Duration};

use aio_host::{
    cgroups::Cgroups,
    gpu::{GpuWatcher, NvmlProbe},
};
use aio_installer::cli::{Failure, Output, print};
use aio_protocol::{
    container::Container,
    inventory::{ContainerRuntime, NetworkInterface, SystemInfo},
    telemetry::{GpuDetail, HealthSummary},
};
use serde::Serialize;

use super::{
    answer::{Answer, internal, print_json, runtime},
    containers, gpus, services,
    start::host,
};
use crate::{
    config::{GpuSettings, environment},
    containers::Containers,
    health::Judged,
    telemetry::{self, Readings, messages::system_info},
};

/// A driver without persistence mode wakes its GPUs for the first question, which takes seconds.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration, for the GPU driver's library and from when on a GPU is not well [default:
    /// /etc/aio-worker/config.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) answer: Answer,
}

/// The answer for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Inventory {
    boot_id: String,
    system_info: SystemInfo,
    gpu_status: Vec<GpuDetail>,
    health: HealthSummary,
    #[serde(skip_serializing_if = "Option::is_none")]
    containers: Option<Vec<Container>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    containers_left_out: Option<u32>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let GpuSettings { nvml_library, health } = GpuSettings::read(arguments.config.as_deref(), &environment)?;
    let gpus = GpuWatcher::start(NvmlProbe::new(nvml_library))
        .map_err(|error| internal(format!("no thread for the GPU driver: {error}")))?;
    let (facts, containers) = (host()?, Box::new(Cgroups::of_this_machine()));
    let runtime = runtime()?;
    let readings = runtime.block_on(telemetry::look(facts, containers, &gpus, health, PATIENCE));
    // A driver or a mount that hangs must not keep the answer back.
    runtime.shutdown_background();
    let inventory = inventory(&readings)?;
    match arguments.answer.output {
        Output::Json => print_json(&inventory),
        Output::Text => print(&screen(&inventory)),
    }
}

pub(super) fn inventory(readings: &Readings) -> Result<Inventory, Failure> {
    let facts = readings.facts.as_ref().ok_or_else(|| {
        internal(format!("the machine did not answer within {} s; a dead mount?", PATIENCE.as_secs()))
    })?;
    let judged = readings.gpu.as_deref().cloned().unwrap_or_else(Judged::not_asked);
    let (containers, containers_left_out) = match readings.containers.as_deref().cloned() {
        Some(Containers { told, left_out, .. }) => (Some(told), Some(left_out).filter(|count| *count > 0)),
        None => (None, None),
    };
    Ok(Inventory {
        boot_id: facts.boot_id.clone(),
        system_info: system_info(facts, readings),
        gpu_status: judged.details,
        health: judged.summary,
        containers,
        containers_left_out,
    })
}

fn screen(inventory: &Inventory) -> String {
    let SystemInfo { os, architecture, hardware, virtualization, container_runtime, name_servers, services } =
        &inventory.system_info;
    let cores = hardware.cpu.cores.map(|cores| format!("{cores} cores, ")).unwrap_or_default();
    let runtime = match container_runtime {
        Some(ContainerRuntime { name, active: true, version }) => match version {
            Some(version) => format!("{name} {version}"),
            None => name.clone(),
        },
        Some(runtime) => format!("{}, not running", runtime.name),
        None => "none".to_owned(),
    };
    let mut rows = vec![
        ("host", os.hostname.clone()),
        ("system", format!("{} {}, kernel {}, {architecture}", os.name, os.version, os.kernel)),
        ("virtualized", virtualization.as_deref().unwrap_or("unknown").to_owned()),
        ("processor", format!("{} ({cores}{} threads)", hardware.cpu.model, hardware.cpu.threads)),
        ("memory", gpus::gibibytes(hardware.memory.total)),
    ];
    rows.extend(hardware.disk.iter().map(|disk| {
        let (available, total) = (gpus::gibibytes(disk.available), gpus::gibibytes(disk.total));
        ("disk", format!("{} ({}), {available} of {total} free", disk.mount_point, disk.file_system))
    }));
    rows.extend(
        hardware
            .silent_mount
            .iter()
            .map(|mount| ("disk", format!("{} ({}) does not answer", mount.mount_point, mount.file_system))),
    );
    rows.extend(hardware.network.iter().map(|link| ("network", network(link))));
    if hardware.left_out.network > 0 {
        rows.push(("network", format!("and {} links of containers", hardware.left_out.network)));
    }
    if !name_servers.is_empty() {
        rows.push(("names by", name_servers.join(" ")));
    }
    rows.push(("containers", runtime));
    rows.extend(services::line(services).map(|line| ("services", line)));
    rows.push(("GPUs", gpus::headline(Some(&hardware.gpu_driver), &hardware.gpu, &inventory.health)));
    let mut text: String =
        rows.iter().map(|(name, value)| format!("{name:<11} {}\n", value.trim_end())).collect();
    text.push_str(&gpus::table(&hardware.gpu, &inventory.gpu_status));
    let (containers, left_out) =
        (inventory.containers.as_deref(), inventory.containers_left_out.unwrap_or_default());
    if let Some(line) = containers::headline(containers, left_out) {
        text.push_str(&format!("{:<11} {line}\n", "running"));
        text.push_str(&containers::table(containers, left_out));
    }
    text
}

/// `eth0 52:54:00:12:34:56 10.0.0.7/16, up, 100 Gbit/s, out by 10.0.0.1`.
fn network(link: &NetworkInterface) -> String {
    let speed = link.speed_mbps.map(|mbps| match (mbps / 1000, mbps % 1000) {
        (gbps @ 1.., 0) => format!("{gbps} Gbit/s"),
        _ => format!("{mbps} Mbit/s"),
    });
    let out = link.route.as_ref().map(|route| match &route.gateway {
        Some(gateway) => format!("out by {gateway}"),
        None => "out".to_owned(),
    });
    let names = [&link.name, &link.mac_address].into_iter().chain(&link.addresses);
    let names: Vec<_> = names.map(String::as_str).filter(|name| !name.is_empty()).collect();
    let known = [link.state.clone(), speed, out].into_iter().flatten();
    std::iter::once(names.join(" ")).chain(known).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use aio_protocol::inventory::DefaultRoute;

    use crate::telemetry::messages::tests::full;

    #[test]
    fn a_link_is_told_in_a_line() {
        let link = NetworkInterface {
            name: "eth0".into(),
            mac_address: "52:54:00:12:34:56".into(),
            addresses: vec!["10.0.0.7/16".into()],
            ..NetworkInterface::default()
        };
        assert_eq!(network(&link), "eth0 52:54:00:12:34:56 10.0.0.7/16");
        let route = Some(DefaultRoute { gateway: Some("10.0.0.1".into()), metric: 100 });
        let link = NetworkInterface { state: Some("up".into()), speed_mbps: Some(100_000), route, ..link };
        assert_eq!(network(&link), "eth0 52:54:00:12:34:56 10.0.0.7/16, up, 100 Gbit/s, out by 10.0.0.1");
        let link = NetworkInterface { speed_mbps: Some(2500), route: Some(DefaultRoute::default()), ..link };
        assert_eq!(network(&link), "eth0 52:54:00:12:34:56 10.0.0.7/16, up, 2500 Mbit/s, out");
    }

    #[test]
    fn a_machine_fits_on_a_screen() {
        assert_eq!(
            screen(&inventory(&full(1)).unwrap()),
            "\
host        gpu-1
system      Ubuntu 22.04, kernel 5.15, x86_64
virtualized unknown
processor   EPYC (64 cores, 128 threads)
memory      1024.0 GiB
disk        / (ext4), 512.0 GiB of 1024.0 GiB free
containers  none
GPUs        1, driver 550, ok
  0  NVIDIA H100  80.0 GiB of 80.0 GiB  100 %  88 °C  700 W  ok
"
        );
    }
}
