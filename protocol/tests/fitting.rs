//! Whatever a machine is made of, what it says fits into a frame, and what was left out is counted.
#![allow(clippy::unwrap_used, reason = "the helpers of tests")]

use aio_protocol::{
    container::{Container, ContainerProblem, Pod},
    inventory::{
        DefaultRoute, Disk, Gpu, Inodes, Mig, MigInstance, NetworkInterface, OperatingSystem, SilentMount,
    },
    left_out::LeftOut,
    service::Service,
    telemetry::{
        DiskTraffic, Finding, GpuDetail, GpuProcess, Health, HostUsage, RecoveryAction, Temperature,
    },
    time::Timestamp,
    wire::{MAX_FRAME_BYTES, Metrics, Register, WorkerMessage, encode},
};
use proptest::{collection::vec, prelude::*};
use uuid::Uuid;

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9./:]{0,40}", "[\"\\\\\u{1}é ]{0,400}", Just("x".repeat(500))]
}

/// List lengths as machines have them, and as none should.
fn many() -> impl Strategy<Value = usize> {
    prop_oneof![0_usize..4, Just(65), Just(100)]
}

fn repeated<T: Clone + std::fmt::Debug>(item: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    (vec(item, 1..4), many()).prop_map(|(items, count)| items.into_iter().cycle().take(count).collect())
}

fn link() -> impl Strategy<Value = NetworkInterface> {
    let addresses = prop_oneof![0_usize..3, Just(40)];
    (text(), text(), text(), addresses).prop_map(|(name, mac_address, address, count)| NetworkInterface {
        kind: Some(name.clone()),
        parent: Some(name.clone()),
        route: Some(DefaultRoute { gateway: Some(address.clone()), metric: u32::MAX }),
        name,
        mac_address,
        addresses: vec![address; count],
        ..NetworkInterface::default()
    })
}

fn disk() -> impl Strategy<Value = Disk> {
    (text(), text(), any::<u64>()).prop_map(|(mount_point, file_system, total)| Disk {
        device: Some(mount_point.clone()),
        inodes: Some(Inodes { total, available: total }),
        mount_point,
        file_system,
        total,
        available: total,
    })
}

fn gpu() -> impl Strategy<Value = Gpu> {
    (text(), text(), 0_usize..40).prop_map(|(uuid, model, instances)| Gpu {
        device_id: "0".to_owned(),
        uuid: Some(uuid.clone()),
        model: model.clone(),
        pci_bus_id: Some(model.clone()),
        serial: Some(uuid.clone()),
        vbios: Some(model),
        memory_total: Some(u64::MAX),
        mig: Some(Mig {
            enabled: true,
            instances: vec![MigInstance { uuid, memory_total: Some(u64::MAX) }; instances],
        }),
        ..Gpu::default()
    })
}

prop_compose! {
    fn register()(
        name in text(), boot_id in text(), capabilities in repeated(text()), disk in repeated(disk()),
        network in repeated(link()), gpu in repeated(gpu()), missing_gpu in repeated(gpu()),
        silent in repeated(text()), services in repeated(text()),
    ) -> Register {
        let mut register = Register {
            node_id: "69396100cd71623c7bbfbfee".parse().unwrap(),
            instance_id: Uuid::max(),
            boot_id,
            daemon_version: name.clone(),
            capabilities,
            update: Default::default(),
            system_info: Default::default(),
        };
        let info = &mut register.system_info;
        info.os = OperatingSystem { name: name.clone(), version: name.clone(), kernel: name.clone(), hostname: name.clone() };
        info.architecture.clone_from(&name);
        info.virtualization = Some(name.clone());
        info.services = services.iter().map(|name| Service::unknown(name)).collect();
        let hardware = &mut info.hardware;
        (hardware.disk, hardware.network, hardware.gpu, hardware.missing_gpu) = (disk, network, gpu, missing_gpu);
        hardware.silent_mount = silent
            .into_iter()
            .map(|mount_point| SilentMount { mount_point, file_system: name.clone() })
            .collect();
        register
    }
}

prop_compose! {
    fn metrics()(
        disk in repeated(disk()), sensor in text(), sensors in many(), reason in text(), findings in prop_oneof![0_usize..4, Just(65)],
        processes in prop_oneof![0_usize..4, Just(300)],
        containers in prop_oneof![0_usize..4, Just(65), Just(200)], gpus in prop_oneof![0_usize..4, Just(16), Just(65)], model in text(),
    ) -> Metrics {
        let detail = GpuDetail {
            findings: vec![Finding { health: Health::Unhealthy, reason, action: RecoveryAction::ContactSupport }; findings],
            processes: vec![GpuProcess { pid: u32::MAX, memory_used: Some(u64::MAX) }; processes],
            throttle: vec![model.clone(); 40],
            ..GpuDetail::unknown(model.clone())
        };
        let container = Container {
            id: "f".repeat(64),
            name: Some(model.clone()),
            pod: Some(Box::new(Pod { uid: model.clone(), name: Some(model.clone()), namespace: Some(model.clone()) })),
            cpu_usage: Some(33.3),
            cpu_seconds: Some(123_456.789),
            memory_used: Some(u64::MAX),
            gpus: vec![model.clone(); 20],
            problems: vec![ContainerProblem::Restarting, ContainerProblem::OomKilled],
            ..Container::default()
        };
        Metrics {
            node_id: "69396100cd71623c7bbfbfee".parse().unwrap(),
            host: HostUsage { cpu_usage: 33.3, ram_usage: 99.9, uptime_seconds: u64::MAX },
            memory_used: u64::MAX,
            memory_cached: Some(u64::MAX),
            disk,
            disk_traffic: Some(DiskTraffic { read_bytes: u64::MAX, written_bytes: u64::MAX }),
            network: Default::default(),
            load_average: Some([33.3; 3]),
            temperature: vec![Temperature { sensor, celsius: 33.3 }; sensors],
            gpu: vec![detail; gpus],
            containers: Some(vec![container; containers]),
            problems: None,
            left_out: LeftOut::default(),
        }
    }
}

fn frame<B: aio_protocol::wire::Body>(body: &B) -> String {
    encode(body, Uuid::max(), Timestamp::from_millis(1_765_454_400_123)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_a_machine_is_made_of_fits_into_a_frame_and_what_is_left_out_is_counted(register in register()) {
        let told = register.clone().fitted();
        let text = frame(&told);
        prop_assert!(text.len() <= MAX_FRAME_BYTES, "{} bytes", text.len());
        let (before, after) = (&register.system_info.hardware, &told.system_info.hardware);
        let left = after.left_out;
        prop_assert_eq!(before.network.len(), after.network.len() + left.network as usize);
        prop_assert_eq!(before.disk.len(), after.disk.len() + left.disk as usize);
        prop_assert_eq!(before.gpu.len(), after.gpu.len() + left.gpu as usize);
        prop_assert_eq!(before.missing_gpu.len(), after.missing_gpu.len() + left.missing_gpu as usize);
        prop_assert_eq!(before.silent_mount.len(), after.silent_mount.len() + left.silent_mount as usize);
        // The other end reads it as it was written.
        let WorkerMessage::Register(read) = WorkerMessage::decode(&text).unwrap().message else { panic!() };
        prop_assert!(read == told, "read otherwise than written");
    }

    #[test]
    fn whatever_a_machine_measures_fits_into_a_frame(metrics in metrics()) {
        let told = metrics.clone().fitted();
        let text = frame(&told);
        prop_assert!(text.len() <= MAX_FRAME_BYTES, "{} bytes", text.len());
        prop_assert_eq!(metrics.gpu.len(), told.gpu.len() + told.left_out.gpu as usize);
        prop_assert_eq!(metrics.temperature.len(), told.temperature.len() + told.left_out.temperature as usize);
        prop_assert_eq!(metrics.containers.unwrap().len(), told.containers.as_ref().unwrap().len() + told.left_out.containers as usize);
        prop_assert_eq!(told.host, metrics.host);
        let WorkerMessage::Metrics(read) = WorkerMessage::decode(&text).unwrap().message else { panic!() };
        prop_assert!(read == told, "read otherwise than written");
    }
}

#[test]
fn an_ordinary_machine_is_told_whole_and_a_large_one_keeps_its_gpus() {
    let link = |name: &str, count| NetworkInterface {
        name: name.to_owned(),
        mac_address: "00:00:00:00:00:00".to_owned(),
        addresses: (0..count).map(|number| format!("10.0.{}.{}/24", number / 250, number % 250)).collect(),
        ..NetworkInterface::default()
    };
    let mut register = Register {
        node_id: "69396100cd71623c7bbfbfee".parse().unwrap(),
        instance_id: Uuid::max(),
        boot_id: "b".to_owned(),
        daemon_version: "1.0.0".to_owned(),
        capabilities: vec![],
        update: Default::default(),
        system_info: Default::default(),
    };
    let gpu = Gpu { device_id: "0".into(), model: "NVIDIA H100".into(), ..Gpu::default() };
    register.system_info.hardware.gpu = vec![gpu; 8];
    register.system_info.hardware.network = vec![link("eth0", 2), link("kube-ipvs0", 20)];
    assert_eq!(register.clone().fitted(), register);

    register.system_info.hardware.network = vec![link("eth0", 2), link("kube-ipvs0", 4500)];
    let told = register.clone().fitted().system_info.hardware;
    assert_eq!((told.network.len(), told.left_out.network), (2, 0));
    assert_eq!(told.left_out.addresses as usize, 4502 - 2 - told.network[1].addresses.len());

    register.system_info.hardware.network =
        (0..700).map(|number| link(&format!("veth{number}"), 100)).collect();
    let told = register.fitted().system_info.hardware;
    assert_eq!((told.gpu.len(), told.left_out.gpu), (8, 0));
    assert!(told.network.len() >= 32, "{}", told.network.len());
    assert_eq!(told.left_out.network as usize, 700 - told.network.len());
    let addresses: usize = told.network.iter().map(|link| link.addresses.len()).sum();
    assert_eq!(told.left_out.addresses as usize, 70_000 - addresses);
}
