//! Makes a message of any machine fit into a frame: every list and text is cut to the bound that the
//! reader has for it, and then lists are halved, the least important first, until the frame is below
//! its limit. What is cut is counted in [`LeftOut`].

use serde::{Serialize, de::DeserializeOwned};

use super::{MAX_FRAME_BYTES, Metrics, Register};
use crate::{inventory::Gpu, left_out::LeftOut, telemetry::GpuDetail};

/// Bytes of a frame that its data may take; the rest is for the envelope and [`LeftOut`].
const MAX_DATA_BYTES: usize = MAX_FRAME_BYTES - 1024;

/// Halves one list of a message; false when there is nothing left to cut.
type Cut<M> = fn(&mut M) -> bool;

impl Register {
    /// The same message, short enough for a frame.
    pub fn fitted(self) -> Self {
        let counted = Counts::of_register(&self);
        let mut fitted = cut(
            self,
            &[
                |message| {
                    halve_longest(
                        message.system_info.hardware.network.iter_mut().map(|link| &mut link.addresses),
                    )
                },
                |message| halve(&mut message.system_info.hardware.network),
                |message| halve(&mut message.system_info.hardware.disk),
                |message| halve_longest(message.system_info.hardware.gpu.iter_mut().filter_map(instances)),
                |message| halve(&mut message.system_info.hardware.missing_gpu),
                |message| halve(&mut message.system_info.hardware.silent_mount),
                |message| halve(&mut message.capabilities),
                |message| halve(&mut message.system_info.services),
                |message| halve(&mut message.system_info.hardware.gpu),
            ],
        );
        let left = counted.minus(Counts::of_register(&fitted));
        let known = &mut fitted.system_info.hardware.left_out;
        *known = left.added_to(*known);
        fitted
    }
}

impl Metrics {
    /// The same message, short enough for a frame.
    pub fn fitted(self) -> Self {
        let counted = Counts::of_metrics(&self);
        let mut fitted = cut(
            self,
            &[
                |message| halve_longest(message.gpu.iter_mut().map(|gpu| &mut gpu.processes)),
                |message| halve(&mut message.temperature),
                |message| halve(&mut message.disk),
                |message| message.containers.as_mut().is_some_and(halve),
                |message| halve_longest(message.gpu.iter_mut().map(|gpu| &mut gpu.findings)),
                |message| halve(&mut message.gpu),
            ],
        );
        fitted.left_out = counted.minus(Counts::of_metrics(&fitted)).added_to(fitted.left_out);
        fitted
    }
}

fn instances(gpu: &mut Gpu) -> Option<&mut Vec<crate::inventory::MigInstance>> {
    gpu.mig.as_mut().map(|mig| &mut mig.instances)
}

/// `message` within the reader's bounds, its lists halved in the order of `cuts` until it fits.
fn cut<M: Serialize + DeserializeOwned>(message: M, cuts: &[Cut<M>]) -> M {
    // Reading applies every bound, so that they stand in one place.
    let bounded = serde_json::to_string(&message).and_then(|text| serde_json::from_str(&text));
    let mut message = bounded.unwrap_or(message);
    for cut in cuts {
        while bytes(&message) > MAX_DATA_BYTES && cut(&mut message) {}
    }
    message
}

fn halve<T>(list: &mut Vec<T>) -> bool {
    list.truncate(list.len() / 2);
    !list.is_empty()
}

/// Cuts all lists to half of the longest one's length, so that the short ones stay whole.
fn halve_longest<'a, T: 'a>(lists: impl Iterator<Item = &'a mut Vec<T>>) -> bool {
    let mut lists: Vec<_> = lists.collect();
    let longest = lists.iter().map(|list| list.len()).max().unwrap_or_default();
    lists.iter_mut().for_each(|list| list.truncate(longest / 2));
    longest > 1
}

/// The length of the JSON, without making it.
fn bytes(message: &impl Serialize) -> usize {
    struct Counter(usize);
    impl std::io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.saturating_add(bytes.len());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    serde_json::to_writer(&mut counter, message).map_or(usize::MAX, |()| counter.0)
}

/// How many items each list of a message has.
struct Counts(LeftOut);

impl Counts {
    fn of_register(message: &Register) -> Self {
        let info = &message.system_info;
        let hardware = &info.hardware;
        let instances = |gpu: &Gpu| gpu.mig.as_ref().map_or(0, |mig| mig.instances.len());
        Self(LeftOut {
            disk: count(hardware.disk.len()),
            silent_mount: count(hardware.silent_mount.len()),
            network: count(hardware.network.len()),
            addresses: count(hardware.network.iter().map(|link| link.addresses.len()).sum()),
            gpu: count(hardware.gpu.len()),
            missing_gpu: count(hardware.missing_gpu.len()),
            mig_instances: count(hardware.gpu.iter().map(instances).sum()),
            services: count(info.services.len()),
            ..LeftOut::default()
        })
    }

    fn of_metrics(message: &Metrics) -> Self {
        let sum = |of: fn(&GpuDetail) -> usize| count(message.gpu.iter().map(of).sum());
        Self(LeftOut {
            disk: count(message.disk.len()),
            gpu: count(message.gpu.len()),
            temperature: count(message.temperature.len()),
            findings: sum(|gpu| gpu.findings.len()),
            processes: sum(|gpu| gpu.processes.len()),
            containers: count(message.containers.as_ref().map_or(0, Vec::len)),
            ..LeftOut::default()
        })
    }

    fn minus(self, rest: Self) -> Self {
        self.with(rest.0, u32::saturating_sub)
    }

    fn added_to(self, known: LeftOut) -> LeftOut {
        self.with(known, u32::saturating_add).0
    }

    fn with(self, other: LeftOut, combine: fn(u32, u32) -> u32) -> Self {
        let Self(own) = self;
        Self(LeftOut {
            disk: combine(own.disk, other.disk),
            silent_mount: combine(own.silent_mount, other.silent_mount),
            network: combine(own.network, other.network),
            addresses: combine(own.addresses, other.addresses),
            gpu: combine(own.gpu, other.gpu),
            missing_gpu: combine(own.missing_gpu, other.missing_gpu),
            mig_instances: combine(own.mig_instances, other.mig_instances),
            services: combine(own.services, other.services),
            temperature: combine(own.temperature, other.temperature),
            findings: combine(own.findings, other.findings),
            processes: combine(own.processes, other.processes),
            containers: combine(own.containers, other.containers),
        })
    }
}

fn count(items: usize) -> u32 {
    items.try_into().unwrap_or(u32::MAX)
}
