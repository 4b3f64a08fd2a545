//! What becomes of containers over time: how often each is started again, what its memory costs it, how busy
//! it is. Pure: what was seen and when is given. It knows a container by its place (its name in its pod, or
//! its id), and a start by the number of its control group. What happened before the first look is not known.

mod place;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use aio_host::cgroups::{Group, Groups};
use aio_protocol::{
    container::{Container, ContainerState},
    telemetry::GpuDetail,
    wire::MAX_CONTAINERS,
};

use place::Place;

/// How long a container that does not run is remembered: longer than the kubelet's longest pause before it
/// starts one again, which is five minutes.
const REMEMBERED: Duration = Duration::from_secs(10 * 60);

/// Places that are remembered.
const MAX_PLACES: usize = 2048;

/// The containers as they are told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Containers {
    /// Those with something wrong first, then those that use GPUs, then those with the most memory.
    pub told: Vec<Container>,
    /// How many others there are.
    pub left_out: u32,
    /// How many have processes.
    pub active: u32,
}

/// What was seen so far.
#[derive(Debug, Default)]
pub struct History {
    places: HashMap<String, Place>,
    pods: HashMap<String, PodKills>,
}

/// Processes of a pod that were killed for its memory.
#[derive(Debug, Clone, Copy)]
struct PodKills {
    counted: u64,
    /// How many the pod's containers do not account for: those of containers that are gone. Negative while
    /// the pod was read before its containers.
    unaccounted: i64,
}

impl History {
    /// The containers, when the machine looks so now and these are its GPUs.
    pub fn seen(&mut self, groups: &Groups, gpus: &[GpuDetail], now: Instant) -> Containers {
        let mut by_place = BTreeMap::<String, Vec<&Group>>::new();
        for group in &groups.containers {
            by_place.entry(described(group).place()).or_default().push(group);
        }
        let mut kills = HashMap::<String, i64>::new();
        for (name, place) in &mut self.places {
            if !by_place.contains_key(name) {
                place.stopped();
            }
        }
        for (name, groups) in &by_place {
            let place = self.places.entry(name.clone()).or_insert_with(|| Place::first(groups, now));
            let killed = place.seen(groups, now);
            if let Some(pod) = groups.first().and_then(|group| group.pod.as_ref()) {
                *kills.entry(pod.uid.clone()).or_default() += signed(killed);
            }
        }
        self.blame(groups, &kills, now);
        self.places.retain(|_, place| place.is_remembered(now));
        if self.places.len() > MAX_PLACES {
            self.places.retain(|name, _| by_place.contains_key(name));
        }
        let users = users(gpus);
        let mut told: Vec<_> = groups
            .containers
            .iter()
            .filter_map(|group| {
                let container = described(group);
                let place = self.places.get(&container.place())?;
                Some(Container { gpus: gpus_of(group, &users), ..place.told(container, group, now) })
            })
            .collect();
        let active = count(told.len());
        told.extend(self.places.values().filter_map(|place| place.missed(now)));
        self.places.values_mut().for_each(|place| place.measured(now));
        told.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.id.cmp(&b.id)));
        let left_out = count(told.len().saturating_sub(MAX_CONTAINERS));
        told.truncate(MAX_CONTAINERS);
        Containers { told, left_out, active }
    }

    /// Kills that the pod counts and none of its containers does were of one that is gone: of the one that
    /// was started again last.
    fn blame(&mut self, groups: &Groups, of_containers: &HashMap<String, i64>, now: Instant) {
        self.pods.retain(|uid, _| groups.pod_oom_kills.contains_key(uid));
        for (uid, counted) in &groups.pod_oom_kills {
            let pod = self.pods.entry(uid.clone()).or_insert(PodKills { counted: *counted, unaccounted: 0 });
            let known = of_containers.get(uid).copied().unwrap_or_default();
            pod.unaccounted += signed(counted.saturating_sub(pod.counted)) - known;
            pod.counted = *counted;
            if pod.unaccounted > 0 {
                let lost = u64::try_from(std::mem::take(&mut pod.unaccounted)).unwrap_or_default();
                let mut of_pod: Vec<_> =
                    self.places.iter_mut().filter(|(_, place)| place.pod() == Some(uid)).collect();
                of_pod.sort_by(|(a, one), (b, other)| {
                    other.changed_at().cmp(&one.changed_at()).then_with(|| a.cmp(b))
                });
                if let Some((_, place)) = of_pod.into_iter().next() {
                    place.killed(lost, now);
                }
            }
        }
    }
}

/// What the control group itself tells.
fn described(group: &Group) -> Container {
    Container {
        id: group.id.clone(),
        engine: group.engine,
        state: if group.paused { ContainerState::Paused } else { ContainerState::Running },
        name: group.known_as.as_ref().map(|(name, _)| name.clone()),
        pod: group.pod.clone().map(Box::new),
        // A thousandth of a second is more than anybody reads.
        cpu_seconds: group.cpu_micros.map(|micros| (micros / 1000) as f64 / 1000.0),
        memory_used: group.memory_used,
        memory_limit: group.memory_limit,
        oom_kills: group.oom_kills,
        ..Container::default()
    }
}

/// Which processes use which GPUs.
fn users(gpus: &[GpuDetail]) -> HashMap<u32, Vec<&str>> {
    let mut users = HashMap::<u32, Vec<&str>>::new();
    for gpu in gpus {
        for process in &gpu.processes {
            users.entry(process.pid).or_default().push(&gpu.status.device_id);
        }
    }
    users
}

fn gpus_of(group: &Group, users: &HashMap<u32, Vec<&str>>) -> Vec<String> {
    if users.is_empty() {
        return Vec::new();
    }
    let mut gpus: Vec<_> =
        group.pids.iter().filter_map(|pid| users.get(pid)).flatten().map(|id| (*id).to_owned()).collect();
    gpus.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    gpus.dedup();
    gpus
}

/// Smaller is told first.
fn rank(container: &Container) -> (bool, bool, std::cmp::Reverse<u64>) {
    let memory = std::cmp::Reverse(container.memory_used.unwrap_or_default());
    (container.problems.is_empty(), container.gpus.is_empty(), memory)
}

fn count(items: usize) -> u32 {
    items.try_into().unwrap_or(u32::MAX)
}

fn signed(number: u64) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}
