//! The product's own figures of nodes and GPUs, in base units.

use aio_protocol::{container::Container, telemetry::GpuActivity};

use super::{
    catalogue::{Family, Of, counter, gauge, number},
    machine::Machine,
    text::Series,
};
use crate::{app::App, telemetry::reading::Reading};

pub(super) const FAMILIES: &[Family] = &[
    gauge(
        "aio_node_info",
        &["version", "kernel", "driver"],
        "1, with the versions of the worker, the kernel and the GPU driver.",
        Of::Node(|_, machine, series| {
            let version = machine.version.as_deref().unwrap_or_default();
            let labels =
                [("version", version), ("kernel", &machine.kernel), ("driver", &machine.driver_version)];
            series.labelled(labels, 1.0);
        }),
    ),
    gauge(
        "aio_node_status",
        &["status"],
        "1, with the node's status.",
        Of::Node(|_, machine, series| series.labelled([("status", machine.status.as_str())], 1.0)),
    ),
    gauge(
        "aio_node_connected",
        &[],
        "1 while its worker is connected, 0 otherwise.",
        Of::Node(|app, machine, series| {
            series.value(f64::from(u8::from(app.registry.has_speaker(&machine.id))));
        }),
    ),
    gauge(
        "aio_node_last_seen_timestamp_seconds",
        &[],
        "When its worker was last heard of, since 1970.",
        Of::Node(|app, machine, series| {
            let seen =
                app.lifecycle.workers.last_seen_or(&machine.id, machine.last_seen_at, crate::clock::now());
            #[expect(clippy::cast_precision_loss, reason = "milliseconds of this millennium")]
            series.value(seen.map(|seen| seen.as_millis() as f64 / 1000.0));
        }),
    ),
    gauge(
        "aio_node_update_state",
        &["state"],
        "1, with where its worker is with an update; of workers that update themselves.",
        Of::Node(|_, machine, series| {
            if let Some(state) = &machine.update_state {
                series.labelled([("state", state)], 1.0);
            }
        }),
    ),
    gauge(
        "aio_node_gpu_health",
        &["health"],
        "1, with the health of the worst of its GPUs, while its worker is connected.",
        Of::Node(|app, machine, series| {
            if let Some(health) = app.registry.health(&machine.id) {
                series.labelled([("health", health.state.as_str())], 1.0);
            }
        }),
    ),
    gauge(
        "aio_node_gpu_driver_state",
        &["state"],
        "1, with whether the GPU driver answers: ok, absent or unknown; while its worker is connected.",
        Of::Node(|app, machine, series| {
            if let Some(driver) = machine.driver.filter(|_| app.registry.has_speaker(&machine.id)) {
                series.labelled([("state", driver_state(driver))], 1.0);
            }
        }),
    ),
    gauge(
        "aio_node_gpus",
        &[],
        "GPUs of its inventory, while its worker is connected.",
        Of::Node(|app, machine, series| connected(app, machine, series, machine.gpus.len())),
    ),
    gauge(
        "aio_node_missing_gpus",
        &[],
        "GPUs that it had before and has no more, while its worker is connected.",
        Of::Node(|app, machine, series| connected(app, machine, series, machine.missing_gpus)),
    ),
    gauge(
        "aio_node_memory_total_bytes",
        &[],
        "Main memory of its inventory.",
        Of::Node(|_, machine, series| series.value(machine.memory_total.map(number))),
    ),
    gauge(
        "aio_node_memory_used_bytes",
        &[],
        "Main memory that is not available.",
        Of::Reading(|reading, series| series.value(number(reading.memory_used))),
    ),
    gauge(
        "aio_node_cpu_usage_ratio",
        &[],
        "Of all processors, 0 to 1.",
        Of::Reading(|reading, series| series.value(share(f64::from(reading.host.cpu_usage)))),
    ),
    gauge(
        "aio_node_uptime_seconds",
        &[],
        "Since the machine booted.",
        Of::Reading(|reading, series| series.value(number(reading.host.uptime_seconds))),
    ),
    gauge(
        "aio_node_load1",
        &[],
        "Runnable and waiting tasks, averaged over a minute.",
        Of::Reading(|reading, series| series.value(reading.load_average.map(|[load, ..]| f64::from(load)))),
    ),
    counter(
        "aio_node_network_receive_bytes_total",
        &[],
        "Received since the machine booted, the loopback left out.",
        Of::Reading(|reading, series| series.value(number(reading.network.received_bytes))),
    ),
    counter(
        "aio_node_network_transmit_bytes_total",
        &[],
        "Sent since the machine booted, the loopback left out.",
        Of::Reading(|reading, series| series.value(number(reading.network.sent_bytes))),
    ),
    gauge(
        "aio_node_filesystem_size_bytes",
        &["mountpoint", "fstype"],
        "File systems on real devices.",
        Of::Reading(|reading, series| {
            for disk in &reading.disks {
                let labels = [("mountpoint", disk.mount_point.as_str()), ("fstype", &disk.file_system)];
                series.labelled(labels, number(disk.total));
            }
        }),
    ),
    gauge(
        "aio_node_filesystem_avail_bytes",
        &["mountpoint", "fstype"],
        "What of them is available.",
        Of::Reading(|reading, series| {
            for disk in &reading.disks {
                let labels = [("mountpoint", disk.mount_point.as_str()), ("fstype", &disk.file_system)];
                series.labelled(labels, number(disk.available));
            }
        }),
    ),
    gauge(
        "aio_node_containers",
        &[],
        "Containers that have processes.",
        Of::Reading(|reading, series| {
            let Some(containers) = &reading.containers else { return };
            let there = containers.iter().filter(|it| it.is_there()).count() as u64;
            series.value(number(there + u64::from(reading.containers_left_out)));
        }),
    ),
    gauge(
        "aio_container_state",
        &["container", "container_name", "pod", "namespace", "engine", "state"],
        "1, with how a container stands: running, paused or exited.",
        Of::Reading(|reading, series| {
            for it in reading.containers.iter().flatten() {
                let pod = it.pod.as_deref().cloned().unwrap_or_default();
                let [name, pod, namespace] =
                    [it.name.clone(), pod.name, pod.namespace].map(Option::unwrap_or_default);
                let labels = [
                    ("container", it.id.as_str()),
                    ("container_name", &name),
                    ("pod", &pod),
                    ("namespace", &namespace),
                    ("engine", it.engine.as_str()),
                    ("state", it.state.as_str()),
                ];
                series.labelled(labels, 1.0);
            }
        }),
    ),
    counter(
        "aio_container_cpu_seconds_total",
        &["container"],
        "Seconds of processors that it has used since it was started.",
        Of::Reading(|reading, series| each_container(reading, series, |it| it.cpu_seconds)),
    ),
    gauge(
        "aio_container_memory_used_bytes",
        &["container"],
        "Its main memory, copies of files among it.",
        Of::Reading(|reading, series| each_container(reading, series, |it| it.memory_used.map(number))),
    ),
    gauge(
        "aio_container_memory_limit_bytes",
        &["container"],
        "The main memory that it may have, where there is a limit.",
        Of::Reading(|reading, series| each_container(reading, series, |it| it.memory_limit.map(number))),
    ),
    counter(
        "aio_container_restarts_total",
        &["container"],
        "How often it was started again, as far as that can be seen.",
        Of::Reading(|reading, series| each_container(reading, series, |it| it.restarts.map(f64::from))),
    ),
    counter(
        "aio_container_oom_kills_total",
        &["container"],
        "Its processes that the kernel killed because its memory was full.",
        Of::Reading(|reading, series| each_container(reading, series, |it| it.oom_kills.map(number))),
    ),
    gauge(
        "aio_container_gpu",
        &["container", "gpu"],
        "1, with each GPU that its processes use.",
        Of::Reading(|reading, series| {
            for it in reading.containers.iter().flatten() {
                for gpu in &it.gpus {
                    series.labelled([("container", it.id.as_str()), ("gpu", gpu)], 1.0);
                }
            }
        }),
    ),
    gauge(
        "aio_gpu_up",
        &[],
        "1 if the driver answers for the GPU, 0 if it does not.",
        Of::Gpu(|_, told, series| {
            let answers = told.is_some_and(|told| told.activity == GpuActivity::Active);
            series.value(f64::from(u8::from(answers)));
        }),
    ),
    gauge(
        "aio_gpu_health",
        &["health"],
        "1, with the GPU's health: ok, degraded, unknown or unhealthy.",
        Of::Gpu(|_, told, series| {
            if let Some(told) = told {
                series.labelled([("health", told.health.as_str())], 1.0);
            }
        }),
    ),
    gauge(
        "aio_gpu_findings",
        &[],
        "How many things are wrong with it.",
        Of::Gpu(|_, told, series| series.value(told.map(|told| number(told.detail.findings.len() as u64)))),
    ),
    gauge(
        "aio_gpu_utilization_ratio",
        &[],
        "Of the last sampling period in which a kernel ran, 0 to 1.",
        Of::Gpu(|_, told, series| {
            series.value(told.and_then(|it| it.utilization).map(|it| share(it.into())))
        }),
    ),
    gauge(
        "aio_gpu_memory_used_bytes",
        &[],
        "Its memory that is used; what the driver reserves is left out.",
        Of::Gpu(|_, told, series| series.value(told.and_then(|it| it.memory_used).map(number))),
    ),
    gauge(
        "aio_gpu_memory_total_bytes",
        &[],
        "Its memory.",
        Of::Gpu(|gpu, _, series| series.value(gpu.memory_total.map(number))),
    ),
    gauge(
        "aio_gpu_temperature_celsius",
        &[],
        "Of the GPU.",
        Of::Gpu(|_, told, series| series.value(told.and_then(|it| it.temperature).map(f64::from))),
    ),
    gauge(
        "aio_gpu_memory_temperature_celsius",
        &[],
        "Of its memory.",
        Of::Gpu(|_, told, series| series.value(told.and_then(|it| it.memory_temperature).map(f64::from))),
    ),
    gauge(
        "aio_gpu_power_watts",
        &[],
        "What it draws.",
        Of::Gpu(|_, told, series| series.value(told.and_then(|it| it.power_draw).map(f64::from))),
    ),
    gauge(
        "aio_gpu_power_limit_watts",
        &[],
        "What it may draw.",
        Of::Gpu(|_, told, series| series.value(told.and_then(|it| it.power_limit).map(f64::from))),
    ),
    gauge(
        "aio_gpu_clock_hertz",
        &["clock"],
        "The clocks of its processors (sm) and its memory.",
        Of::Gpu(|_, told, series| {
            let Some(told) = told else { return };
            for (clock, megahertz) in [("sm", told.clock_sm), ("memory", told.clock_memory)] {
                series.labelled([("clock", clock)], megahertz.map(|it| f64::from(it) * 1e6));
            }
        }),
    ),
    gauge(
        "aio_gpu_throttled",
        &["reason"],
        "1, with each reason why its clocks are below the maximum.",
        Of::Gpu(|_, told, series| {
            for reason in told.iter().flat_map(|told| &told.detail.throttle) {
                series.labelled([("reason", reason)], 1.0);
            }
        }),
    ),
    counter(
        "aio_gpu_ecc_errors_total",
        &["kind"],
        "Memory errors since the driver was loaded: corrected or uncorrected.",
        Of::Gpu(|_, told, series| {
            let Some(errors) = told.and_then(|told| told.detail.ecc_errors.as_ref()) else { return };
            series.labelled([("kind", "corrected")], number(errors.volatile_corrected));
            series.labelled([("kind", "uncorrected")], number(errors.volatile_uncorrected));
        }),
    ),
];

fn driver_state(state: aio_protocol::inventory::GpuDriverState) -> &'static str {
    use aio_protocol::inventory::GpuDriverState as S;
    match state {
        S::Ok => "ok",
        S::Absent => "absent",
        S::Unknown => "unknown",
    }
}

fn share(percent: f64) -> f64 {
    // Percent have at most two digits that mean something.
    (percent * 100.0).round() / 10_000.0
}

fn connected(app: &App, machine: &Machine, series: &mut Series<'_>, count: usize) {
    // Of a node whose worker never said it, nothing is known.
    if machine.driver.is_some() && app.registry.has_speaker(&machine.id) {
        series.value(number(count as u64));
    }
}

/// Writes a figure of each container, unless it is not known.
fn each_container(reading: &Reading, series: &mut Series<'_>, of: fn(&Container) -> Option<f64>) {
    for it in reading.containers.iter().flatten() {
        series.labelled([("container", it.id.as_str())], of(it));
    }
}
