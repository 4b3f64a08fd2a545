use std::{sync::Arc, time::Instant};

use aio_protocol::{
    inventory::Disk,
    telemetry::{
        EccErrors, GpuActivity, GpuDetail, GpuStatus, Health, HostUsage, NetworkTraffic, RemappedRows,
    },
};
use proptest::prelude::*;

use super::{
    packing::{pack, unpack},
    points::{Range, points},
    reading::Detail,
    window::MAX,
    *,
};
use crate::gateway::registry::Registry;

const MIB: u64 = 1024 * 1024;

fn node() -> NodeId {
    NodeId::from_bytes([5; 12])
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_765_454_400_000).plus(Duration::from_secs(seconds))
}

/// Epochs of two connections, the older first.
fn epochs() -> [Epoch; 2] {
    let registry = Registry::default();
    [(); 2].map(|()| registry.enter(&node(), Instant::now()).0)
}

fn gpu(device: &str, utilization: Option<u32>, memory: Option<u64>) -> GpuDetail {
    GpuDetail::of(GpuStatus {
        device_id: device.into(),
        utilization,
        memory_used: memory,
        temperature: utilization.map(|it| 30 + it / 2),
        power_draw: utilization.map(|it| 70 + 6 * it.min(100)),
        status: GpuActivity::Active,
        health: Health::Ok,
    })
}

fn metrics(cpu: f32, gpu: Vec<GpuDetail>) -> Metrics {
    let disk = |mount: &str| Disk {
        mount_point: mount.into(),
        file_system: "ext4".into(),
        total: 1 << 40,
        available: 1 << 39,
        device: None,
        inodes: None,
    };
    Metrics {
        node_id: node(),
        host: HostUsage { cpu_usage: cpu, ram_usage: 41.25, uptime_seconds: 86_400 },
        memory_used: 64 << 30,
        memory_cached: Some(16 << 30),
        disk: vec![disk("/"), disk("/var/lib/data")],
        network: NetworkTraffic { received_bytes: 1, sent_bytes: 2 },
        disk_traffic: Some(Default::default()),
        load_average: Some([3.25, 2.5, 1.75]),
        temperature: vec![],
        gpu,
        containers: None,
        problems: None,
        left_out: Default::default(),
    }
}

/// A busy machine with eight GPUs that say all that they can.
fn busy(second: u64) -> Metrics {
    let noise = |gpu: u64, kind: u64| (second * 7919 + gpu * 104_729 + kind * 1_299_709) % 101;
    let gpus = (0..8).map(|index| {
        let share = |kind| u32::try_from(noise(index, kind)).unwrap();
        let mut gpu = gpu(&index.to_string(), Some(share(0)), Some(noise(index, 1) * 1800 * MIB));
        gpu.memory_temperature = Some(70);
        gpu.temperature_margin = Some(24);
        gpu.power_limit = Some(700);
        gpu.clock_sm = Some(1980);
        gpu.clock_memory = Some(2619);
        gpu.nvlinks = Some(18);
        gpu.throttle = vec!["sw_power_cap".into()];
        gpu.ecc_errors = Some(EccErrors::default());
        gpu.remapped_rows = Some(RemappedRows::default());
        gpu
    });
    metrics(noise(9, 0) as f32, gpus.collect())
}

fn unpacked(closed: Vec<Closed>) -> Vec<(Slot, Vec<u8>)> {
    closed.into_iter().map(|it| (it.slot, it.data)).collect()
}

#[test]
fn the_newest_reading_is_what_was_told_and_goes_with_its_connection() {
    let telemetry = Telemetry::new(Duration::ZERO);
    let [older, newer] = epochs();
    telemetry.receive(older, &busy(1), at(0));
    assert_eq!(telemetry.newest(&node(), at(1)).unwrap().told(node()), busy(1));
    telemetry.receive(newer, &busy(2), at(60));
    telemetry.end(&node(), older);
    assert_eq!(telemetry.newest(&node(), at(61)).unwrap().told(node()), busy(2), "the newer one speaks");
    telemetry.end(&node(), newer);
    assert_eq!(telemetry.newest(&node(), at(62)), None);
    assert_eq!(telemetry.nodes().len(), 0);
}

#[test]
fn a_reading_says_nothing_of_now_once_two_are_missing() {
    let telemetry = Telemetry::new(Duration::ZERO);
    telemetry.receive(epochs()[0], &busy(1), at(0));
    assert!(telemetry.newest(&node(), at(150)).is_some());
    assert!(telemetry.newest(&node(), at(151)).is_none());
}

#[test]
fn five_minutes_become_a_point_once_they_are_over_also_of_a_node_that_has_gone() {
    let telemetry = Telemetry::new(Duration::from_secs(86_400));
    let [epoch, _] = epochs();
    for (second, cpu, share) in [(0, 10.0, 20), (60, 30.0, 80), (120, 50.0, 20)] {
        let gpu = gpu("0", Some(share), Some(100 * MIB));
        telemetry.receive(epoch, &metrics(cpu, vec![gpu]), at(second));
    }
    telemetry.end(&node(), epoch);
    assert_eq!(telemetry.take_closed(at(299)), []);
    let closed = telemetry.take_closed(at(300));
    assert_eq!(telemetry.nodes().len(), 0, "nothing is left of who has gone");
    let points = points(&unpacked(closed), WINDOW);
    let [point] = &points[..] else { panic!("{points:?}") };
    assert_eq!((point.at, point.samples), (at(0), 3));
    assert_eq!(point.cpu_usage.map(|it| (it.min, it.max)), Some((10.0, 50.0)));
    let gpu = &point.gpu[0];
    let Range { min, mean, max } = gpu.utilization.unwrap();
    assert_eq!((min, max, gpu.device_id.as_str()), (20.0, 80.0, "0"));
    assert!((mean - 40.0).abs() < 0.2, "{mean}");
    let memory = 96.0 * 1024.0 * 1024.0;
    assert_eq!(gpu.memory_used, Some(Range { min: memory, mean: memory, max: memory }), "to 16 MiB");
}

#[test]
fn a_silent_gpu_has_no_numbers_and_a_silent_time_no_point() {
    let telemetry = Telemetry::new(Duration::from_secs(86_400));
    let [epoch, _] = epochs();
    let hot = GpuDetail {
        status: GpuStatus { temperature: Some(90), ..gpu("2", None, None).status },
        ..gpu("2", None, None)
    };
    telemetry.receive(epoch, &metrics(0.0, vec![gpu("0", None, None), gpu("1", Some(0), None), hot]), at(0));
    let mut closed = telemetry.take_closed(at(300));
    telemetry.receive(epoch, &metrics(1.0, vec![]), at(900));
    closed.extend(telemetry.take_closed(at(1200)));
    let points = points(&unpacked(closed), WINDOW);
    assert_eq!(points.iter().map(|it| it.at).collect::<Vec<_>>(), [at(0), at(900)]);
    let [idle, hot] = &points[0].gpu[..] else { panic!("{points:?}") };
    assert_eq!(idle.utilization, Some(Range { min: 0.0, mean: 0.0, max: 0.0 }), "0 % was said");
    assert_eq!(idle.memory_used, None);
    assert_eq!((hot.utilization, hot.temperature.map(|it| it.max)), (None, Some(90.0)));
    assert!(points[1].gpu.is_empty());
}

#[test]
fn a_node_with_eight_gpus_costs_little_memory() {
    let (reading, mut window) = (Reading::of(&busy(1), at(0)), Window::new(Slot::of(at(0))));
    window.add(&reading);
    // What an allocation costs beyond its bytes.
    let boxed = |bytes: usize| bytes.next_multiple_of(16) + 8;
    let mut details: Vec<_> = reading.gpus.iter().map(|gpu| &gpu.detail).collect();
    details.dedup_by_key(|detail| Arc::as_ptr(detail));
    let details = details.into_iter().map(|detail| {
        let words: usize = detail.throttle.iter().map(|word| boxed(word.len())).sum();
        boxed(16 + size_of::<Detail>()) + boxed(size_of_val(&*detail.throttle)) + words
    });
    let disks =
        reading.disks.iter().map(|disk| boxed(disk.mount_point.len()) + boxed(disk.file_system.len()));
    let newest = boxed(size_of::<Reading>())
        + boxed(size_of_val(&*reading.gpus))
        + details.sum::<usize>()
        + boxed(size_of_val(&*reading.disks))
        + disks.sum::<usize>();
    let open = boxed(size_of::<Window>()) + boxed(size_of_val(&*window.gpus));
    // A hash table is at least seven eighths full before it grows, and half empty after.
    let entry = 2 * (size_of::<Kept>() + size_of::<NodeId>()) + boxed(24);
    println!(
        "a node with 8 GPUs: {newest} bytes of its newest reading, {open} of its open window, {entry} of its entry"
    );
    assert!(newest + open + entry <= 2_400, "{newest} + {open} + {entry}");
}

#[test]
fn a_windows_worst_case_fits() {
    let mut window = Window::new(Slot::of(at(0)));
    for second in 0..5 {
        let mut metrics = busy(second * 60);
        for gpu in &mut metrics.gpu {
            gpu.status.memory_used = Some(150_000 * MIB * (1 + second % 2));
            gpu.status.power_draw = Some(if second == 0 { 130 } else { 1200 });
        }
        window.add(&Reading::of(&metrics, at(second)));
    }
    let bytes = pack(&window).len();
    println!("a window of eight GPUs takes {bytes} bytes at the worst");
    assert!(bytes <= 148, "{bytes} bytes");
}

#[test]
fn gpus_are_told_apart_whatever_they_are_called() {
    let names = ["0", "1", "5", "6", "07", "GPU-1a2b", "255", "256"];
    let mut window = Window::new(Slot(1));
    let gpus = names.iter().zip(1..).map(|(name, share)| gpu(name, Some(share), None)).collect();
    window.add(&Reading::of(&metrics(0.0, gpus), at(0)));
    let read = unpack(&pack(&window)).unwrap();
    let told: Vec<_> =
        read.gpus.iter().map(|(device, series)| (device.to_string(), series[0].unwrap().max)).collect();
    let expected: Vec<_> =
        names.iter().zip(1..).map(|(name, share)| ((*name).to_owned(), f64::from(share))).collect();
    assert_eq!(told, expected);
}

fn series() -> impl Strategy<Value = Vec<Option<u32>>> {
    prop::collection::vec(prop::option::of(0..2000_u32), 1..40)
}

proptest! {
    #[test]
    fn what_is_packed_is_what_was_measured(values in prop::collection::vec(series(), 1..9)) {
        let mut window = Window::new(Slot(1));
        let length = values.iter().map(Vec::len).min().unwrap_or(0);
        for index in 0..length {
            let gpus = values.iter().enumerate().map(|(device, values)| {
                let mut gpu = gpu(&device.to_string(), None, None);
                gpu.status.power_draw = values[index];
                gpu
            });
            window.add(&Reading::of(&metrics(0.0, gpus.collect()), at(0)));
        }
        let read = unpack(&pack(&window)).unwrap();
        prop_assert_eq!(read.samples as usize, length);
        for (device, values) in values.iter().enumerate() {
            let told: Vec<f64> = values[..length].iter().flatten().map(|it| f64::from(*it)).collect();
            let found = read.gpus.iter().find(|(known, _)| known.to_string() == device.to_string());
            let Some(power) = found.and_then(|(_, series)| series[3]) else {
                prop_assert!(told.is_empty());
                continue;
            };
            let mean = told.iter().sum::<f64>() / told.len() as f64;
            let (min, max) = told.iter().fold((f64::MAX, 0.0), |(a, b): (f64, f64), it| (a.min(*it), b.max(*it)));
            prop_assert_eq!((power.min, power.max), (min, max));
            prop_assert!((power.mean - mean).abs() <= (max - min) / 510.0 + 1e-9, "{} is not {}", power.mean, mean);
        }
    }

    #[test]
    fn no_bytes_and_no_numbers_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), huge in any::<u64>(), cpu in any::<f32>()) {
        let _ = unpack(&bytes);
        points(&[(Slot(0), bytes)], WINDOW);
        let mut window = Window::new(Slot(1));
        let number = Some(u32::try_from(huge & 0xffff_ffff).unwrap());
        let mut gpu = gpu(&"x".repeat(64), number, Some(huge));
        gpu.temperature_margin = Some(i32::MIN);
        let mut metrics = metrics(cpu, vec![gpu]);
        metrics.memory_used = huge;
        window.add(&Reading::of(&metrics, at(0)));
        let read = unpack(&pack(&window)).unwrap();
        prop_assert!(read.gpus[0].1.iter().flatten().all(|it| it.max <= f64::from(MAX)));
    }

    #[test]
    fn a_point_of_several_windows_is_as_if_it_had_been_one(shares in prop::collection::vec(0..=100_u32, 1..36)) {
        let telemetry = Telemetry::new(WINDOW);
        let [epoch, _] = epochs();
        let mut closed = Vec::new();
        for (index, share) in shares.iter().enumerate() {
            let now = at(index as u64 * 100);
            telemetry.receive(epoch, &metrics(0.0, vec![gpu("0", Some(*share), None)]), now);
            closed.extend(telemetry.take_closed(now));
        }
        closed.extend(telemetry.take_closed(at(36_000)));
        let points = points(&unpacked(closed), Duration::from_secs(3600));
        prop_assert_eq!(points.len(), 1);
        let range = points[0].gpu[0].utilization.unwrap();
        let mean = shares.iter().sum::<u32>() as f64 / shares.len() as f64;
        prop_assert_eq!(points[0].samples as usize, shares.len());
        prop_assert_eq!(range.min, f64::from(*shares.iter().min().unwrap()));
        prop_assert_eq!(range.max, f64::from(*shares.iter().max().unwrap()));
        prop_assert!((range.mean - mean).abs() <= 0.25, "{} is not {}", range.mean, mean);
    }

    #[test]
    fn whatever_the_clock_does_no_window_is_told_twice_at_once(seconds in prop::collection::vec(0..3000_u64, 1..50)) {
        let telemetry = Telemetry::new(WINDOW);
        let [epoch, _] = epochs();
        for second in seconds {
            telemetry.receive(epoch, &metrics(1.0, vec![]), at(second));
            prop_assert!(telemetry.take_closed(at(second)).len() <= 2);
        }
    }
}
