//! The real machine, read through sysinfo where that asks no more than what is needed. Absence is
//! not an error: what cannot be read is empty or zero.

use std::{fs, path::Path};

use aio_protocol::{
    inventory::{Cpu, Memory, NetworkInterface, OperatingSystem},
    telemetry::{HostUsage, NetworkTraffic, Temperature},
};
use sysinfo::{Components, MemoryRefreshKind, Networks, System};

use super::{
    HostFacts, HostProbe, HostSample, containers, links, mounts::Mounts, processors, routes, traffic,
};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const LOOPBACK: &str = "lo";

/// A board with more sensors than this tells of the hottest.
const MOST_SENSORS: usize = 16;

/// A probe that asks the kernel.
#[derive(Debug)]
pub struct SysinfoProbe {
    system: System,
    networks: Networks,
    sensors: Components,
    mounts: Mounts,
}

impl SysinfoProbe {
    /// A probe whose first sample measures from now on.
    pub fn new() -> Result<Self, sysinfo::Error> {
        let mut system = System::new()?;
        system.refresh_cpu_usage();
        Ok(Self {
            system,
            networks: Networks::new()?,
            sensors: Components::new()?,
            mounts: Mounts::default(),
        })
    }

    fn refresh_memory(&mut self) {
        self.system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    }

    /// The links to tell, and how many are not.
    fn interfaces(&mut self) -> (Vec<NetworkInterface>, u32) {
        self.networks.refresh(true);
        let interfaces = self
            .networks
            .iter()
            .filter(|(name, _)| *name != LOOPBACK)
            .map(|(name, data)| {
                let addresses = data.ip_networks().iter().map(ToString::to_string).collect();
                let name = name.to_string_lossy().into_owned();
                let mac_address = data.mac_address().to_string();
                NetworkInterface { name, mac_address, addresses, ..NetworkInterface::default() }
            })
            .collect();
        links::told(Path::new("/"), interfaces)
    }
}

/// The hottest first; a sensor that says nothing, or something impossible, is left out.
fn hottest(sensors: &Components) -> Vec<Temperature> {
    let celsius = |celsius: f32| (celsius * 10.0).round() / 10.0;
    let mut told: Vec<_> = sensors
        .iter()
        .filter_map(|sensor| {
            let temperature = sensor.temperature().filter(|told| (-50.0..=200.0).contains(told))?;
            Some(Temperature { sensor: sensor.label().to_owned(), celsius: celsius(temperature) })
        })
        .collect();
    told.sort_by(|one, other| other.celsius.total_cmp(&one.celsius));
    told.truncate(MOST_SENSORS);
    told
}

impl HostProbe for SysinfoProbe {
    fn facts(&mut self) -> HostFacts {
        self.refresh_memory();
        let (disk, silent_mounts) = self.mounts.survey();
        let (network, links_left_out) = self.interfaces();
        let processors = self.system.cpus();
        HostFacts {
            os: OperatingSystem {
                name: System::name().unwrap_or_else(|_| "Linux".to_owned()),
                version: System::os_version().unwrap_or_default(),
                kernel: System::kernel_version().unwrap_or_default(),
                hostname: System::host_name().unwrap_or_default(),
            },
            architecture: System::cpu_arch(),
            cpu: processors::described(
                Path::new("/"),
                Cpu {
                    model: processors.first().map(|cpu| cpu.brand().trim().to_owned()).unwrap_or_default(),
                    cores: System::physical_core_count().ok().and_then(|count| count.try_into().ok()),
                    threads: processors.len().try_into().unwrap_or(u32::MAX),
                    ..Cpu::default()
                },
            ),
            memory: Memory { total: self.system.total_memory() },
            disk,
            silent_mounts,
            network,
            links_left_out,
            name_servers: routes::name_servers(Path::new("/")),
            container_runtime: containers::runtime(Path::new("/")),
            boot_id: fs::read_to_string(BOOT_ID).map(|id| id.trim().to_owned()).unwrap_or_default(),
        }
    }

    fn sample(&mut self) -> HostSample {
        self.refresh_memory();
        self.system.refresh_cpu_usage();
        self.networks.refresh(true);
        self.sensors.refresh(true);
        let load = System::load_average().unwrap_or_default();
        let total = self.system.total_memory();
        let memory_used = total.saturating_sub(self.system.available_memory());
        let traffic = self.networks.iter().filter(|(name, _)| *name != LOOPBACK);
        let network = traffic.fold(NetworkTraffic::default(), |sum, (_, data)| NetworkTraffic {
            received_bytes: sum.received_bytes.saturating_add(data.total_received()),
            sent_bytes: sum.sent_bytes.saturating_add(data.total_transmitted()),
        });
        HostSample {
            usage: HostUsage {
                cpu_usage: self.system.global_cpu_usage().clamp(0.0, 100.0),
                ram_usage: percent(memory_used, total),
                uptime_seconds: System::uptime().unwrap_or_default(),
            },
            memory_used,
            memory_cached: traffic::cached(Path::new("/")),
            network,
            disk_traffic: traffic::disks(Path::new("/")),
            load_average: [load.one, load.five, load.fifteen]
                .map(|load| (load * 100.0).round() as f32 / 100.0),
            temperatures: hottest(&self.sensors),
        }
    }
}

fn percent(part: u64, whole: u64) -> f32 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64 * 100.0) as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_tells_its_facts() {
        let facts = SysinfoProbe::new().unwrap().facts();
        assert!(!facts.os.name.is_empty() && !facts.os.kernel.is_empty() && !facts.os.hostname.is_empty());
        assert_eq!(facts.architecture, std::env::consts::ARCH);
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap();
        let threads = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
        assert_eq!(facts.cpu.threads as usize, threads);
        assert!(!facts.cpu.model.is_empty());
        assert!(facts.memory.total > 1 << 26, "{:?}", facts.memory);
        assert_eq!(facts.boot_id.len(), 36, "{}", facts.boot_id);
        assert!(facts.network.iter().all(|interface| interface.name != LOOPBACK));
    }

    #[test]
    fn a_sample_is_within_bounds_and_uptime_is_the_kernels() {
        let mut probe = SysinfoProbe::new().unwrap();
        let sample = probe.sample();
        assert!((0.0..=100.0).contains(&sample.usage.cpu_usage), "{sample:?}");
        assert!(sample.usage.ram_usage > 0.0 && sample.usage.ram_usage <= 100.0, "{sample:?}");
        assert!(sample.memory_used < probe.facts().memory.total);
        let uptime = fs::read_to_string("/proc/uptime").unwrap();
        let uptime: u64 = uptime.split('.').next().unwrap().parse().unwrap();
        assert!(uptime.abs_diff(sample.usage.uptime_seconds) <= 2, "{sample:?}");
    }

    #[test]
    fn a_share_of_nothing_is_nothing() {
        assert_eq!((percent(1, 0), percent(1, 4)), (0.0, 25.0));
    }
}
