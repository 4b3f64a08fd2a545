//! What we know of a machine in AIWM's words: the one place where our shapes and units become its.
//! Nothing is invented: what we do not know is left out. A status of our own is never told: only
//! `online` lets AIWM use a node, and what stands in its database is otherwise an operator's word.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    mona::{Push, PushCpu, PushDisk, PushGpu, PushMemory, PushNetwork, PushStatus},
    register::{
        Architecture, ContainerRuntime, Cpu, Disk, DiskDevice, Gpu, Hardware, Interface, Memory, Network,
        OperatingSystem, Register, SystemInfo, Virtualization,
    },
    telemetry::{Amount, CpuLoad, GpuLoad, GpuStatus, Heartbeat, Metrics, ONLINE, Traffic},
};
use crate::{inventory, telemetry, time::Timestamp, wire};

/// Bytes of a MB, as AIWM's numbers in MB have it.
const MB: u64 = 1024 * 1024;

/// `node.register`.
pub fn register(register: &wire::Register) -> Register {
    Register { system_info: system_info(&register.system_info) }
}

/// The machine.
pub fn system_info(info: &inventory::SystemInfo) -> SystemInfo {
    let inventory::Hardware { cpu, memory, disk, network, gpu, .. } = &info.hardware;
    SystemInfo {
        os: OperatingSystem {
            name: info.os.name.clone(),
            version: info.os.version.clone(),
            kernel: info.os.kernel.clone(),
            platform: "linux".to_owned(),
        },
        architecture: architecture(&info.architecture),
        hardware: Hardware {
            cpu: Cpu {
                model: cpu.model.clone(),
                vendor: vendor_of_cpu(&cpu.model),
                sockets: cpu.sockets,
                cores_per_socket: shared_out(cpu.cores, cpu.sockets),
                threads_per_core: shared_out(Some(cpu.threads), cpu.cores),
                total_cores: cpu.cores.or(Some(cpu.threads).filter(|threads| *threads > 0)),
                frequency: cpu.max_frequency_mhz,
                cache_size: cpu.cache_bytes.and_then(|bytes| u32::try_from(bytes / 1024).ok()),
                ..Cpu::default()
            },
            memory: Memory { total: memory.total },
            disk: Disk {
                total: disk.iter().fold(0, |sum: u64, disk| sum.saturating_add(disk.total)),
                devices: disk.iter().map(disk_device).collect(),
            },
            network: interfaces(network, &info.name_servers),
            gpu: gpu.iter().map(gpu_device).collect(),
        },
        container_runtime: info.container_runtime.as_ref().map(|runtime| ContainerRuntime {
            kind: runtime.name.clone(),
            version: runtime.version.clone(),
            ..ContainerRuntime::default()
        }),
        virtualization: info.virtualization.as_ref().map(|kind| Virtualization {
            kind: kind.clone(),
            role: if kind == "none" { "host" } else { "guest" }.to_owned(),
        }),
    }
}

/// What the kernel's name for a processor says of it.
fn architecture(name: &str) -> Architecture {
    let (bits, endianness) = match name {
        "x86_64" | "aarch64" | "riscv64" | "ppc64le" | "loongarch64" => (Some(64), Some("little")),
        "s390x" | "ppc64" => (Some(64), Some("big")),
        "i386" | "i586" | "i686" | "armv6l" | "armv7l" => (Some(32), Some("little")),
        _ => (None, None),
    };
    Architecture { cpu: name.to_owned(), bits, endianness: endianness.map(str::to_owned) }
}

/// The vendor, where the product's name begins with it.
fn vendor_of_cpu(model: &str) -> Option<String> {
    let first = model.split([' ', '(']).next().unwrap_or_default();
    ["Intel", "AMD", "ARM", "Ampere", "IBM"]
        .into_iter()
        .find(|vendor| vendor.eq_ignore_ascii_case(first))
        .map(str::to_owned)
}

/// How many each of `among` has, where all have as many.
fn shared_out(all: Option<u32>, among: Option<u32>) -> Option<u32> {
    let (all, among) = (all?, among.filter(|among| *among > 0)?);
    (all >= among && all.is_multiple_of(among)).then(|| all / among)
}

fn disk_device(disk: &inventory::Disk) -> DiskDevice {
    DiskDevice {
        name: disk.device.as_ref().unwrap_or(&disk.mount_point).clone(),
        mount_point: disk.mount_point.clone(),
        total: disk.total,
        filesystem: disk.file_system.clone(),
    }
}

fn gpu_device(gpu: &inventory::Gpu) -> Gpu {
    let capability = |holds: bool, word: &str| holds.then(|| word.to_owned());
    let capabilities = [
        capability(gpu.mig.is_some(), "mig"),
        capability(gpu.ecc == Some(true), "ecc"),
        capability(gpu.nvlinks.is_some_and(|links| links > 0), "nvlink"),
    ];
    Gpu {
        device_id: gpu.device_id.clone(),
        model: gpu.model.clone(),
        // They are all read through NVIDIA's driver.
        vendor: Some("NVIDIA".to_owned()),
        memory_total: gpu.memory_total,
        capabilities: capabilities.into_iter().flatten().collect(),
    }
}

fn interfaces(links: &[inventory::NetworkInterface], name_servers: &[String]) -> Network {
    let metric = |link: &inventory::NetworkInterface| Some(link.route.as_ref()?.metric);
    let way_out = links.iter().filter(|link| link.route.is_some()).min_by_key(|link| metric(link));
    let mut interfaces: Vec<_> = links.iter().map(interface).collect();
    if let Some(way_out) = way_out {
        for interface in &mut interfaces {
            interface.is_primary = Some(interface.name == way_out.name);
        }
    }
    let is_primary = |it: &&mut Interface| it.is_primary == Some(true);
    if let Some(primary) = interfaces.iter_mut().find(is_primary) {
        primary.dns = name_servers.to_vec();
    }
    // Our inventory has devices with addresses first.
    let address = |it: &Interface| it.ip_address.clone().or(it.ipv6_address.clone());
    let primary = interfaces.iter().filter(|it| it.is_primary == Some(true)).find_map(address);
    let cluster_ip = primary.or_else(|| interfaces.iter().find_map(address));
    let public_ip = links.iter().flat_map(|link| &link.addresses).find_map(|address| {
        let address: Ipv4Addr = bare(address).parse().ok()?;
        is_public(address).then(|| address.to_string())
    });
    Network { public_ip, cluster_ip, interfaces, ..Network::default() }
}

fn interface(link: &inventory::NetworkInterface) -> Interface {
    let v4 = link.addresses.iter().find_map(|address| {
        let ip: Ipv4Addr = bare(address).parse().ok()?;
        Some((ip, netmask(address)))
    });
    let v6 = link.addresses.iter().find_map(|address| bare(address).parse::<Ipv6Addr>().ok());
    Interface {
        name: link.name.clone(),
        mac_address: Some(link.mac_address.clone()).filter(|address| !address.is_empty()),
        ip_address: v4.as_ref().map(|(ip, _)| ip.to_string()),
        netmask: v4.and_then(|(_, mask)| mask),
        ipv6_address: v6.map(|ip| ip.to_string()),
        kind: link.kind.clone(),
        gateway: link.route.as_ref().and_then(|route| route.gateway.clone()),
        metric: link.route.as_ref().map(|route| route.metric),
        mtu: link.mtu,
        speed: link.speed_mbps,
        duplex: link.duplex.clone(),
        state: link.state.clone(),
        is_virtual: link.is_virtual,
        parent_interface: link.parent.clone(),
        vlan_id: link.vlan_id,
        ..Interface::default()
    }
}

/// The address without its prefix length.
fn bare(address: &str) -> &str {
    address.split('/').next().unwrap_or(address)
}

fn netmask(address: &str) -> Option<String> {
    let length: u32 = address.split_once('/')?.1.parse().ok().filter(|length| *length <= 32)?;
    let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
    Some(Ipv4Addr::from(mask).to_string())
}

/// Whether the world can reach it: neither private nor special.
fn is_public(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    let is_shared = first == 100 && (64..128).contains(&second);
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || is_shared
        || first == 0
        || first >= 240)
}

/// `telemetry.heartbeat`. The status is told where `telling` says so, and left out otherwise.
pub fn heartbeat(beat: &wire::Heartbeat, telling: bool) -> Heartbeat {
    Heartbeat {
        node_id: beat.node_id.as_str().to_owned(),
        status: telling.then(|| ONLINE.to_owned()),
        uptime_seconds: beat.host.uptime_seconds,
        active_deployments: beat.active_deployments,
        cpu_usage: percent(beat.host.cpu_usage),
        ram_usage: percent(beat.host.ram_usage),
        gpu_status: beat.gpu_status.iter().map(gpu_status).collect(),
    }
}

fn gpu_status(gpu: &telemetry::GpuStatus) -> GpuStatus {
    let status = match (gpu.status, gpu.health) {
        (telemetry::GpuActivity::Unknown, _) => "unknown",
        (_, telemetry::Health::Unhealthy) => "error",
        (telemetry::GpuActivity::Active, _) => "active",
    };
    GpuStatus {
        device_id: gpu.device_id.clone(),
        utilization: gpu.utilization.map(|percent| percent.min(100)),
        status: status.to_owned(),
    }
}

/// `telemetry.metrics`.
pub fn metrics(metrics: &wire::Metrics, machine: &inventory::Hardware) -> Metrics {
    let (total, available) = space(&metrics.disk);
    let memory = machine.memory.total;
    Metrics {
        node_id: metrics.node_id.as_str().to_owned(),
        cpu: CpuLoad {
            usage: percent(metrics.host.cpu_usage),
            cores: machine.cpu.threads.max(1),
            load_average: load_average(metrics.load_average),
        },
        memory: amount(memory, memory.saturating_sub(metrics.memory_used)),
        disk: amount(total, available),
        network: Traffic { rx_bytes: metrics.network.received_bytes, tx_bytes: metrics.network.sent_bytes },
        gpu_devices: metrics
            .gpu
            .iter()
            .map(|gpu| GpuLoad {
                device_id: gpu.status.device_id.clone(),
                utilization: gpu.status.utilization.map(|percent| percent.min(100)),
                memory_used: gpu.status.memory_used.map(|bytes| bytes / MB),
                temperature: gpu.status.temperature,
                power_draw: gpu.status.power_draw,
            })
            .collect(),
    }
}

fn amount(total: u64, free: u64) -> Amount {
    let free = free.min(total);
    Amount { total: total / MB, used: (total - free) / MB, free: free / MB }
}

/// Bytes of all file systems: how many there are, and how many are free.
fn space(disks: &[inventory::Disk]) -> (u64, u64) {
    disks.iter().fold((0, 0), |(total, available): (u64, u64), disk| {
        (total.saturating_add(disk.total), available.saturating_add(disk.available.min(disk.total)))
    })
}

/// What flowed in a second, on the average since the last push: bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// From the network.
    pub received: u64,
    /// To the network.
    pub sent: u64,
    /// From the disks.
    pub read: u64,
    /// To the disks.
    pub written: u64,
}

/// A push for MONA. What is not available of the memory is used, and the rest is free; what holds
/// copies of files is part of the latter.
pub fn push(
    metrics: &wire::Metrics,
    machine: &inventory::Hardware,
    connected: bool,
    rates: Rates,
    timestamp: Timestamp,
) -> Push {
    let (total, available) = space(&metrics.disk);
    let memory = machine.memory.total.max(metrics.memory_used);
    Push {
        node_id: metrics.node_id.as_str().to_owned(),
        timestamp,
        status: if connected { PushStatus::Online } else { PushStatus::Offline },
        websocket_connected: connected,
        uptime: metrics.host.uptime_seconds,
        cpu: PushCpu {
            usage: percent(metrics.host.cpu_usage),
            cores: machine.cpu.threads.max(1),
            load_average: load_average(metrics.load_average),
        },
        memory: PushMemory {
            total: memory,
            used: metrics.memory_used,
            free: memory - metrics.memory_used,
            cached: metrics.memory_cached.unwrap_or_default().min(memory),
        },
        disk: PushDisk {
            total,
            used: total - available,
            free: available,
            read_bytes_per_sec: rates.read,
            write_bytes_per_sec: rates.written,
        },
        network: PushNetwork { rx_bytes_per_sec: rates.received, tx_bytes_per_sec: rates.sent },
        gpu: metrics.gpu.iter().filter_map(|gpu| push_gpu(&gpu.status, machine)).collect(),
    }
}

/// A GPU, unless a number is missing that MONA demands.
fn push_gpu(gpu: &telemetry::GpuStatus, machine: &inventory::Hardware) -> Option<PushGpu> {
    let card = machine.gpu.iter().find(|card| card.device_id == gpu.device_id)?;
    Some(PushGpu {
        device_id: gpu.device_id.clone(),
        model: card.model.clone(),
        utilization: gpu.utilization?.min(100),
        memory_used: gpu.memory_used?,
        memory_total: card.memory_total?,
        temperature: gpu.temperature?,
        power_draw: gpu.power_draw,
        fan_speed: None,
    })
}

/// To a hundredth.
fn load_average(told: Option<[f32; 3]>) -> [f64; 3] {
    told.unwrap_or_default().map(|load| rounded(load.max(0.0), 100.0))
}

/// A share of the whole, to a hundredth.
fn percent(share: f32) -> f64 {
    rounded(share.clamp(0.0, 100.0), 100.0)
}

/// Without the digits that a longer number would have of a shorter one; what is no number becomes 0.
fn rounded(number: f32, parts: f64) -> f64 {
    if number.is_finite() { (f64::from(number) * parts).round() / parts } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fixture(name: &str) -> wire::WorkerMessage {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/worker").join(name);
        wire::WorkerMessage::decode(&std::fs::read_to_string(path).unwrap()).unwrap().message
    }

    fn golden(name: &str) -> serde_json::Value {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/aiwm").join(name);
        let value: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        value.get("data").unwrap_or(&value).clone()
    }

    fn registered() -> wire::Register {
        let wire::WorkerMessage::Register(register) = fixture("node.register-machine-detail.json") else {
            panic!()
        };
        register
    }

    fn measured() -> wire::Metrics {
        let wire::WorkerMessage::Metrics(metrics) = fixture("telemetry.metrics-machine-detail.json") else {
            panic!()
        };
        metrics
    }

    #[test]
    fn our_register_becomes_theirs_as_its_golden_file_has_it() {
        let translated = serde_json::to_value(register(&registered())).unwrap();
        assert_eq!(translated, golden("worker/node.register.json"));
    }

    #[test]
    fn our_heartbeat_becomes_theirs_and_tells_its_status_only_when_it_shall() {
        let wire::WorkerMessage::Heartbeat(beat) = fixture("telemetry.heartbeat.json") else { panic!() };
        let told = |telling| serde_json::to_value(heartbeat(&beat, telling)).unwrap();
        assert_eq!(told(true), golden("worker/telemetry.heartbeat-first.json"));
        assert_eq!(told(false), golden("worker/telemetry.heartbeat.json"));
    }

    #[test]
    fn no_state_of_our_own_ever_makes_a_node_unusable() {
        let wire::WorkerMessage::Heartbeat(beat) = fixture("telemetry.heartbeat.json") else { panic!() };
        let draining = wire::Heartbeat { status: wire::WorkerState::Draining, ..beat };
        assert_eq!(heartbeat(&draining, true).status.as_deref(), Some("online"));
        assert_eq!(heartbeat(&draining, false).status, None);
    }

    #[test]
    fn our_metrics_become_theirs_in_mb_and_monas_in_bytes() {
        let machine = registered().system_info.hardware;
        let translated = serde_json::to_value(metrics(&measured(), &machine)).unwrap();
        assert_eq!(translated, golden("worker/telemetry.metrics.json"));
        let rates = Rates { received: 1200, sent: 3400, read: 5600, written: 7800 };
        let at = Timestamp::from_millis(1_765_454_700_000);
        let pushed = serde_json::to_value(push(&measured(), &machine, true, rates, at)).unwrap();
        assert_eq!(pushed, golden("mona/push.json"));
    }

    #[test]
    fn a_gpu_without_a_temperature_is_left_out_of_a_push() {
        let machine = registered().system_info.hardware;
        let mut metrics = measured();
        metrics.gpu[0].status.temperature = None;
        let rates = Rates::default();
        assert!(push(&metrics, &machine, true, rates, Timestamp::from_millis(0)).gpu.is_empty());
    }

    #[test]
    fn what_an_address_says_is_told_in_theirs() {
        for (address, mask) in [
            ("192.168.1.100/24", Some("255.255.255.0")),
            ("10.0.0.1/32", Some("255.255.255.255")),
            ("10.0.0.1/0", Some("0.0.0.0")),
            ("10.0.0.1/33", None),
            ("10.0.0.1", None),
        ] {
            assert_eq!(netmask(address).as_deref(), mask, "{address}");
        }
        for (address, public) in [
            ("192.168.1.100", false),
            ("100.64.0.1", false),
            ("169.254.1.1", false),
            ("8.8.8.8", true),
            ("100.128.0.1", true),
        ] {
            assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
        }
        assert_eq!(vendor_of_cpu("Intel(R) Xeon(R)").as_deref(), Some("Intel"));
        assert_eq!(vendor_of_cpu("Neoverse-N1"), None);
    }

    proptest! {
        #[test]
        fn no_machine_panics_and_all_is_json(
            disks in prop::collection::vec((any::<u64>(), any::<u64>()), 0..4),
            memory in any::<(u64, u64)>(), cpu in (any::<Option<u32>>(), any::<u32>()), usage in any::<f32>(),
            addresses in prop::collection::vec("[0-9a-f:./]{0,20}", 0..4),
        ) {
            let mut info = registered().system_info;
            info.hardware.disk = disks.into_iter().map(|(total, available)| inventory::Disk {
                mount_point: "/".into(), file_system: "ext4".into(), total, available, device: None,
                                                                                       inodes: None,
            }).collect();
            info.hardware.memory.total = memory.0;
            (info.hardware.cpu.cores, info.hardware.cpu.threads) = cpu;
            info.hardware.network = vec![inventory::NetworkInterface {
                name: "eth0".into(), addresses, ..Default::default()
            }];
            let theirs = system_info(&info);
            let text = serde_json::to_string(&theirs).unwrap();
            prop_assert_eq!(serde_json::from_str::<SystemInfo>(&text).unwrap(), theirs);
            let mut measured = measured();
            measured.disk = info.hardware.disk.clone();
            measured.memory_used = memory.1;
            measured.host.cpu_usage = usage;
            let _ = metrics(&measured, &info.hardware);
            let push = push(&measured, &info.hardware, false, Rates::default(), Timestamp::from_millis(0));
            let text = serde_json::to_string(&push).unwrap();
            prop_assert_eq!(serde_json::from_str::<Push>(&text).unwrap(), push);
        }
    }
}
