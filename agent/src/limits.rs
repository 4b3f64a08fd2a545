//! When a machine is too full, too hot or lacks a service. Pure: what was measured and when is given.
//! Something is told once it has been so for a while, and until it is better by a margin, so that what swings
//! around a limit is one problem and not many.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use aio_host::facts::{HostFacts, HostSample};
use aio_protocol::{
    service::{Service, ServiceState},
    telemetry::{MachineProblem, MachineProblemKind as Kind},
};

use crate::health::Thresholds;

/// How long something is so before it is told.
const TOLD_AFTER: Duration = Duration::from_secs(60);

/// How far below its limit something is before it is over: percent, or °C.
const MARGIN: f64 = 5.0;

/// What was measured lately. What is not known stays as it was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured<'a> {
    pub facts: Option<&'a HostFacts>,
    pub load: Option<&'a HostSample>,
    /// Nothing where nobody could say.
    pub services: Option<&'a [Service]>,
}

/// What is over its limit, and since when.
#[derive(Debug, Default)]
pub(crate) struct Limits(BTreeMap<(Kind, String), (Instant, String)>);

/// A value beside its limit.
struct Candidate {
    kind: Kind,
    part: String,
    value: f64,
    limit: f64,
    reason: String,
}

impl Limits {
    /// What is wrong, when this is measured now.
    pub(crate) fn judge(
        &mut self,
        measured: Measured<'_>,
        thresholds: &Thresholds,
        now: Instant,
    ) -> Vec<MachineProblem> {
        let mut over = BTreeMap::new();
        for Candidate { kind, part, value, limit, reason } in candidates(measured, thresholds) {
            let key = (kind, part);
            let since = self.0.get(&key).map(|(since, _)| *since);
            if value >= limit || (since.is_some() && value > limit - MARGIN) {
                over.insert(key, (since.unwrap_or(now), reason));
            }
        }
        let is_known = |kind: Kind| match kind {
            Kind::DiskFull | Kind::InodesFull => measured.facts.is_some(),
            Kind::MemoryFull | Kind::Overheated => measured.load.is_some(),
            Kind::ServiceFailed => measured.services.is_some_and(|services| services.iter().any(is_told)),
            Kind::Unknown => true,
        };
        over.extend(std::mem::take(&mut self.0).into_iter().filter(|((kind, _), _)| !is_known(*kind)));
        self.0 = over;
        let told =
            self.0.iter().filter(|(_, (since, _))| now.saturating_duration_since(*since) >= TOLD_AFTER);
        told.map(|((kind, part), (_, reason))| MachineProblem {
            kind: *kind,
            part: part.clone(),
            reason: reason.clone(),
        })
        .collect()
    }
}

fn candidates(measured: Measured<'_>, thresholds: &Thresholds) -> Vec<Candidate> {
    let mut all = Vec::new();
    // A limit of 0 is none.
    let mut add = |kind, part: &str, value: f64, limit: u32, reason: String| {
        if limit > 0 {
            all.push(Candidate { kind, part: part.to_owned(), value, limit: limit.into(), reason });
        }
    };
    for disk in measured.facts.iter().flat_map(|facts| &facts.disk) {
        let point = &disk.mount_point;
        if let Some(used) = used(disk.total, disk.available) {
            add(Kind::DiskFull, point, used, thresholds.disk_percent, format!("{point} is {used:.0} % full"));
        }
        if let Some(used) = disk.inodes.and_then(|inodes| used(inodes.total, inodes.available)) {
            let reason = format!("{used:.0} % of the inodes of {point} are used");
            add(Kind::InodesFull, point, used, thresholds.inode_percent, reason);
        }
    }
    if let Some(load) = measured.load {
        let used = f64::from(load.usage.ram_usage);
        let reason = format!("{used:.0} % of the main memory is used");
        add(Kind::MemoryFull, "", used, thresholds.memory_percent, reason);
        for told in &load.temperatures {
            let (sensor, celsius) = (&told.sensor, f64::from(told.celsius));
            let reason = format!("{sensor} is at {celsius:.0} °C");
            add(Kind::Overheated, sensor, celsius, thresholds.temperature_celsius, reason);
        }
    }
    for service in measured.services.unwrap_or_default() {
        if !is_told(service) {
            continue;
        }
        let failed = f64::from(u8::from(service.state == ServiceState::Failed)) * 100.0;
        add(Kind::ServiceFailed, &service.name, failed, 100, format!("{} has failed", service.name));
    }
    all
}

/// Whether systemd says how it stands.
fn is_told(service: &Service) -> bool {
    service.state != ServiceState::Unknown
}

/// Percent that are used; nothing of what has none, as of a file system that makes inodes when it needs them.
#[expect(clippy::cast_precision_loss, reason = "a share")]
fn used(total: u64, available: u64) -> Option<f64> {
    (total > 0).then(|| total.saturating_sub(available) as f64 * 100.0 / total as f64)
}

#[cfg(test)]
mod tests {
    use aio_protocol::{
        inventory::{Disk, Inodes},
        telemetry::{HostUsage, Temperature},
    };

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn facts(available: u64, inodes: u64) -> HostFacts {
        let disk = Disk {
            mount_point: "/data".into(),
            file_system: "ext4".into(),
            total: 100,
            available,
            device: None,
            inodes: Some(Inodes { total: 100, available: inodes }),
        };
        HostFacts { disk: vec![disk], ..HostFacts::default() }
    }

    fn load(ram_usage: f32, celsius: f32) -> HostSample {
        HostSample {
            usage: HostUsage { ram_usage, ..HostUsage::default() },
            memory_used: 0,
            memory_cached: None,
            network: Default::default(),
            disk_traffic: None,
            load_average: [0.0; 3],
            temperatures: vec![Temperature { sensor: "k10temp Tctl".into(), celsius }],
        }
    }

    fn reasons(problems: Vec<MachineProblem>) -> Vec<String> {
        problems.into_iter().map(|problem| problem.reason).collect()
    }

    #[test]
    fn what_has_been_too_much_for_a_while_is_told_until_it_is_better_by_a_margin() {
        let (mut limits, thresholds, mut now) = (Limits::default(), Thresholds::default(), Instant::now());
        let mut judge = |available| {
            now += MINUTE / 2;
            let facts = facts(available, 50);
            let measured = Measured { facts: Some(&facts), load: None, services: None };
            reasons(limits.judge(measured, &thresholds, now))
        };
        for (available, told) in [
            (11, None),
            (10, None),
            (10, None),
            (9, Some("/data is 91 % full")),
            // It swings around the limit.
            (14, Some("/data is 86 % full")),
            (9, Some("/data is 91 % full")),
            (15, None),
            (14, None),
            (14, None),
            (14, None),
        ] {
            assert_eq!(
                judge(available),
                told.map(str::to_owned).into_iter().collect::<Vec<_>>(),
                "{available}"
            );
        }
    }

    #[test]
    fn each_part_of_a_machine_has_its_limit_and_none_of_zero() {
        let (facts, load) = (facts(1, 2), load(97.0, 101.0));
        let failed = Service { state: ServiceState::Failed, ..Service::unknown("docker.service") };
        let services = [failed, Service { state: ServiceState::Active, ..Service::unknown("x.service") }];
        let measured = Measured { facts: Some(&facts), load: Some(&load), services: Some(&services) };
        let judged = |thresholds: &Thresholds| {
            let mut limits = Limits::default();
            let now = Instant::now();
            assert!(limits.judge(measured, thresholds, now).is_empty());
            reasons(limits.judge(measured, thresholds, now + MINUTE))
        };
        assert_eq!(
            judged(&Thresholds::default()),
            [
                "/data is 99 % full",
                "98 % of the inodes of /data are used",
                "97 % of the main memory is used",
                "k10temp Tctl is at 101 °C",
                "docker.service has failed"
            ]
        );
        let none = Thresholds {
            disk_percent: 0,
            inode_percent: 0,
            memory_percent: 0,
            temperature_celsius: 0,
            ..Thresholds::default()
        };
        assert_eq!(judged(&none), ["docker.service has failed"]);
    }

    #[test]
    fn what_nobody_says_any_more_stays_as_it_was_and_what_is_gone_is_over() {
        let (mut limits, thresholds, now) = (Limits::default(), Thresholds::default(), Instant::now());
        let full = facts(1, 50);
        let nothing = Measured { facts: None, load: None, services: None };
        limits.judge(Measured { facts: Some(&full), ..nothing }, &thresholds, now);
        assert_eq!(reasons(limits.judge(nothing, &thresholds, now + MINUTE)), ["/data is 99 % full"]);
        // A manager that does not answer says of no service that it is well.
        let failed = [Service { state: ServiceState::Failed, ..Service::unknown("docker.service") }];
        let silent = [Service::unknown("docker.service")];
        for services in [&failed, &silent] {
            limits.judge(Measured { services: Some(services), ..nothing }, &thresholds, now);
        }
        let both = reasons(limits.judge(nothing, &thresholds, now + MINUTE));
        assert_eq!(both, ["/data is 99 % full", "docker.service has failed"]);
        let well = [Service { state: ServiceState::Active, ..Service::unknown("docker.service") }];
        let told = limits.judge(Measured { services: Some(&well), ..nothing }, &thresholds, now + MINUTE);
        assert_eq!(reasons(told), ["/data is 99 % full"]);
        let unmounted = HostFacts::default();
        let measured = Measured { facts: Some(&unmounted), ..nothing };
        assert!(limits.judge(measured, &thresholds, now + MINUTE).is_empty());
    }
}
