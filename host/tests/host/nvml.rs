//! The real probe and the real watcher, with the fake `libnvidia-ml.so.1`.

use std::{
    env, fs,
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use aio_host::gpu::{Fabric, Gone, GpuReport, GpuWatcher, NvmlProbe, RELEASED, Reading, Release};
use aio_protocol::{
    inventory::{Gpu, GpuDriverState, Mig, MigInstance, PcieLink},
    telemetry::{
        EccErrors, GpuActivity, GpuDetail, GpuProcess, GpuStatus, Health, RecoveryAction, RemappedRows,
        RetiredPages,
    },
    time::Timestamp,
};

const EIGHT: &str = include_str!("../../../tests/fake-nvml/scenarios/eight-h100.json");
const HUNG: &str = include_str!("../../../tests/fake-nvml/scenarios/hung.json");
const LOST: &str = include_str!("../../../tests/fake-nvml/scenarios/lost-gpu.json");
const NO_DRIVER: &str = include_str!("../../../tests/fake-nvml/scenarios/no-driver.json");

const PROMPT: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(200);

/// A library of its own per test: the process loads each copy anew, with its own scenario beside it.
struct Driver {
    dir: tempfile::TempDir,
}

impl Driver {
    fn absent() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn with(scenario: &str) -> Self {
        let driver = Self::absent();
        driver.install();
        driver.play(scenario);
        driver
    }

    fn library(&self) -> PathBuf {
        self.dir.path().join("libnvidia-ml.so.1")
    }

    /// Cargo has put the library beside this test's program, of which it is a dependency.
    fn install(&self) {
        let built = env::current_exe().unwrap().with_file_name("libfake_nvml.so");
        fs::copy(&built, self.library()).unwrap_or_else(|error| panic!("{}: {error}", built.display()));
    }

    fn play(&self, scenario: &str) {
        let path = self.dir.path().join("libnvidia-ml.so.1.json");
        aio_host::files::replace_file(&path, scenario.as_bytes(), 0o644).unwrap();
    }

    fn probe(&self) -> Probe {
        Probe::of(self.library())
    }

    fn watcher(&self) -> GpuWatcher {
        GpuWatcher::start(NvmlProbe::new(self.library())).unwrap()
    }
}

/// A probe on its thread, asked as by somebody who has time.
struct Probe(GpuWatcher, tokio::runtime::Runtime);

impl Probe {
    fn of(library: impl Into<PathBuf>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self(GpuWatcher::start(NvmlProbe::new(library)).unwrap(), runtime)
    }

    fn probe(&mut self) -> GpuReport {
        self.1.block_on(self.0.report(PROMPT))
    }
}

/// The scenario of eight GPUs, changed.
fn eight(change: impl FnOnce(&mut serde_json::Value)) -> String {
    let mut scenario = serde_json::from_str(EIGHT).unwrap();
    change(&mut scenario);
    scenario.to_string()
}

fn active(report: &GpuReport) -> Vec<usize> {
    (0..report.readings.len()).filter(|index| report.readings[*index].answers()).collect()
}

#[test]
fn eight_gpus_are_told_with_all_that_they_are() {
    let report = Driver::with(EIGHT).probe().probe();
    assert_eq!(report.driver.state, GpuDriverState::Ok);
    assert_eq!(report.driver.reason, None);
    assert_eq!(report.driver.version.as_deref(), Some("550.127.05"));
    assert_eq!(report.driver.cuda_version.as_deref(), Some("12.4"));
    assert_eq!((report.gpus.len(), active(&report).len()), (8, 8));
    let expected = Gpu {
        device_id: "1".into(),
        uuid: Some("GPU-5a3f1c1e-7b90-4d21-9c41-0e6d2f8a1b17".into()),
        model: "NVIDIA H100 80GB HBM3".into(),
        memory_total: Some(85_520_809_984),
        pci_bus_id: Some("00000000:43:00.0".into()),
        serial: Some("1654923012357".into()),
        vbios: Some("96.00.89.00.01".into()),
        mig: Some(Mig::default()),
        ecc: Some(true),
        persistence: Some(true),
        pcie: Some(PcieLink { generation: 5, width: 16 }),
        nvlinks: None,
    };
    assert_eq!(report.gpus[1], expected);
    let status = GpuStatus {
        device_id: "1".into(),
        utilization: Some(97),
        memory_used: Some(77_309_411_328),
        temperature: Some(33),
        power_draw: Some(649),
        status: GpuActivity::Active,
        health: Health::Unknown,
    };
    let detail = GpuDetail {
        memory_temperature: Some(41),
        temperature_margin: Some(56),
        power_limit: Some(700),
        clock_sm: Some(1980),
        clock_memory: Some(2619),
        throttle: vec!["sw_power_cap".into()],
        ecc_errors: Some(EccErrors::default()),
        remapped_rows: Some(RemappedRows::default()),
        pcie: Some(PcieLink { generation: 5, width: 16 }),
        nvlinks: Some(18),
        processes: vec![GpuProcess { pid: 4242, memory_used: Some(76_772_540_416) }],
        ..GpuDetail::of(status)
    };
    let expected = Reading {
        gone: None,
        thermal_slowdown: Some(Duration::ZERO),
        power_slowdown: Some(Duration::ZERO),
        energy: Some(1_000_001),
        recovery_action: Some(RecoveryAction::Nothing),
        fabric: Some(Fabric::Connected),
        detail,
    };
    assert_eq!(report.readings[1], expected);
}

#[test]
fn what_is_wrong_with_a_gpu_is_read_as_the_driver_says_it() {
    let scenario = eight(|it| {
        let gpu = &mut it["gpus"][0];
        gpu["mig"] = serde_json::json!([{ "uuid": "MIG-1", "memoryTotal": 10_468_982_784_u64 }]);
        gpu["nvlinks"][17] = false.into();
        gpu["pcie"] = serde_json::json!({ "generation": 1, "width": 8 });
        gpu["eccErrors"] = serde_json::json!({ "volatileUncorrected": 2, "aggregateCorrected": 7 });
        gpu["remappedRows"] = serde_json::json!({ "uncorrected": 1, "pending": true, "failed": true });
        gpu["retiredPages"] = serde_json::json!({ "corrected": 3, "uncorrected": 1, "pending": true });
        gpu["recoveryAction"] = 2.into();
        gpu["fabric"] = serde_json::json!({ "state": 3, "status": 999 });
        // Heat, by software and by hardware, and the power brake.
        gpu["throttleReasons"] = (0x20 | 0x40 | 0x80).into();
        gpu["thermalSlowdown"] = 1_500_000_000.into();
    });
    let report = Driver::with(&scenario).probe().probe();
    let instances = vec![MigInstance { uuid: "MIG-1".into(), memory_total: Some(10_468_982_784) }];
    assert_eq!(report.gpus[0].mig, Some(Mig { enabled: true, instances }));
    let Reading { detail, recovery_action, fabric, thermal_slowdown, .. } = &report.readings[0];
    assert_eq!((detail.nvlinks, detail.pcie), (Some(17), Some(PcieLink { generation: 1, width: 8 })));
    let errors = EccErrors { volatile_uncorrected: 2, aggregate_corrected: 7, ..EccErrors::default() };
    assert_eq!(detail.ecc_errors, Some(errors));
    let rows = RemappedRows { corrected: 0, uncorrected: 1, pending: true, failed: true };
    assert_eq!(detail.remapped_rows, Some(rows));
    assert_eq!(detail.retired_pages, Some(RetiredPages { corrected: 3, uncorrected: 1, pending: true }));
    assert_eq!(detail.throttle, ["sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown"]);
    assert_eq!(*recovery_action, Some(RecoveryAction::Reboot));
    assert_eq!((*fabric, *thermal_slowdown), (Some(Fabric::Failed(999)), Some(Duration::from_millis(1500))));
}

#[tokio::test]
async fn an_error_of_the_driver_is_told_at_once_and_without_being_asked() {
    let driver = Driver::with(EIGHT);
    let watcher = driver.watcher();
    watcher.report(PROMPT).await;
    let mut reports = watcher.reports();
    reports.mark_unchanged();
    let with = |xids: &[(u64, u64)]| {
        eight(|it| {
            it["xids"] =
                xids.iter().map(|(gpu, code)| serde_json::json!({ "gpu": gpu, "code": code })).collect();
        })
    };
    let codes = |report: &Option<GpuReport>| -> Vec<(u64, Option<String>, u64)> {
        let xids = &report.as_ref().unwrap().xids;
        xids.iter().map(|event| (event.sequence, event.uuid.clone(), event.code)).collect()
    };
    let uuid = |index: usize| watcher.latest().unwrap().gpus[index].uuid.clone();

    driver.play(&with(&[(3, 79)]));
    tokio::time::timeout(PROMPT, reports.changed()).await.unwrap().unwrap();
    assert_eq!(codes(&reports.borrow_and_update()), [(1, uuid(3), 79)]);

    // A report that nobody read takes nothing with it.
    driver.play(&with(&[(3, 79), (5, 48), (5, 63)]));
    tokio::time::timeout(PROMPT, reports.changed()).await.unwrap().unwrap();
    watcher.report(PROMPT).await;
    let told = codes(&reports.borrow_and_update());
    assert_eq!(told, [(1, uuid(3), 79), (2, uuid(5), 48), (3, uuid(5), 63)]);
}

#[test]
fn a_gpu_that_can_tell_no_errors_does_not_keep_the_others_from_it() {
    let mute = eight(|it| it["gpus"][0]["events"] = false.into());
    let driver = Driver::with(&mute);
    let mut probe = driver.probe();
    assert_eq!(active(&probe.probe()).len(), 8);
    driver.play(&eight(|it| {
        it["gpus"][0]["events"] = false.into();
        it["xids"] = serde_json::json!([{ "gpu": 0, "code": 13 }, { "gpu": 1, "code": 31 }]);
    }));
    let deadline = Instant::now() + PROMPT;
    let xids = loop {
        let xids = probe.probe().xids;
        if !xids.is_empty() {
            break xids;
        }
        assert!(Instant::now() < deadline, "nothing was told");
    };
    assert_eq!(xids.iter().map(|event| event.code).collect::<Vec<_>>(), [31]);
}

#[test]
fn a_lost_gpu_is_unknown_keeps_its_identity_and_leaves_the_others_alone() {
    let driver = Driver::with(EIGHT);
    let mut probe = driver.probe();
    let before = probe.probe();
    driver.play(LOST);
    for _ in 0..3 {
        let report = probe.probe();
        assert_eq!(report.driver.state, GpuDriverState::Ok);
        assert_eq!(report.gpus, before.gpus);
        assert_eq!(active(&report), [0, 1, 2, 4, 5, 6, 7]);
        assert_eq!(report.readings[3].gone, Some(Gone::Lost));
        assert_eq!(report.readings[3].detail.status.temperature, None);
    }
    driver.play(EIGHT);
    assert_eq!(active(&probe.probe()).len(), 8);
}

#[test]
fn a_gpu_that_was_lost_before_it_was_ever_seen_is_listed_without_a_name() {
    let report = Driver::with(LOST).probe().probe();
    assert_eq!(report.gpus.len(), 8);
    assert_eq!((report.gpus[3].device_id.as_str(), report.gpus[3].uuid.as_deref()), ("3", None));
    assert_eq!(active(&report).len(), 7);
}

#[test]
fn a_gpu_inherits_nothing_of_a_dead_one_whose_index_it_now_has() {
    let driver = Driver::with(EIGHT);
    let mut probe = driver.probe();
    let before = probe.probe();
    // GPU 0 is gone from the list, and the one behind it tells nothing but its name.
    let moved = eight(|it| {
        let gpus = it["gpus"].as_array_mut().unwrap();
        gpus.remove(0);
        gpus.truncate(1);
        for function in ["nvmlDeviceGetSerial", "nvmlDeviceGetVbiosVersion", "nvmlDeviceGetEccMode"] {
            gpus[0]["faults"][function] = "NOT_SUPPORTED".into();
        }
    });
    driver.play(&moved);
    let gpu = probe.probe().gpus.remove(0);
    assert_eq!((&gpu.uuid, &gpu.serial), (&before.gpus[1].uuid, &before.gpus[1].serial));
    driver.play(&eight(|it| {
        it["gpus"] = serde_json::json!([{ "name": "NVIDIA T4", "uuid": "GPU-new", "temperature": 40 }]);
    }));
    let stranger = probe.probe().gpus.remove(0);
    assert_eq!((stranger.device_id.as_str(), stranger.uuid.as_deref()), ("0", Some("GPU-new")));
    assert_eq!((stranger.serial, stranger.vbios, stranger.mig, stranger.ecc), (None, None, None, None));
}

#[test]
fn a_gpu_that_cannot_be_asked_says_why_in_nvmls_words() {
    for (code, gone) in [
        ("INSUFFICIENT_POWER", Gone::InsufficientPower),
        ("IRQ_ISSUE", Gone::InterruptIssue),
        ("NO_PERMISSION", Gone::NoPermission),
        ("OPERATING_SYSTEM", Gone::Blocked),
        ("LIB_RM_VERSION_MISMATCH", Gone::VersionMismatch),
        ("CORRUPTED_INFOROM", Gone::CorruptedInfoRom),
        ("UNKNOWN", Gone::DriverError),
    ] {
        let behind_a_handle =
            eight(|it| it["gpus"][2] = serde_json::json!({ "uuid": "GPU-2", "fault": code }));
        let report = Driver::with(&behind_a_handle).probe().probe();
        assert_eq!(report.readings[2].gone, Some(gone), "{code}");
        assert_eq!(active(&report).len(), 7, "{code}");
    }
    let busy = eight(|it| it["gpus"][2]["fault"] = "IN_USE".into());
    let report = Driver::with(&busy).probe().probe();
    assert!(matches!(report.readings[2].gone, Some(Gone::Failed(_))), "{:?}", report.readings[2].gone);
}

#[test]
fn a_gpu_that_supports_no_measurement_at_all_answers_all_the_same() {
    // As the integrated GPU of a Jetson.
    let jetson = eight(|it| it["gpus"] = serde_json::json!([{ "name": "Orin (nvgpu)", "uuid": "GPU-0" }]));
    let driver = Driver::with(&jetson);
    let mut probe = driver.probe();
    for _ in 0..3 {
        let report = probe.probe();
        assert_eq!((active(&report), report.readings[0].gone.clone()), (vec![0], None));
        assert_eq!(report.readings[0].detail.status.temperature, None);
    }
}

#[test]
fn a_gpu_that_is_lost_behind_a_good_handle_is_unknown() {
    let scenario = eight(|it| {
        it["gpus"][2]["faults"] = serde_json::json!({ "nvmlDeviceGetUtilizationRates": "GPU_IS_LOST" });
    });
    assert_eq!(active(&Driver::with(&scenario).probe().probe()), [0, 1, 3, 4, 5, 6, 7]);
}

#[test]
fn what_a_gpu_does_not_support_is_absent_and_it_is_well() {
    let scenario = eight(|it| {
        it["gpus"][0] = serde_json::json!({ "name": "NVIDIA T4", "uuid": "GPU-0", "temperature": 50 });
        it.as_object_mut().unwrap().remove("cudaVersion");
    });
    let report = Driver::with(&scenario).probe().probe();
    assert_eq!(report.driver.cuda_version, None);
    let detail = GpuDetail { status: report.readings[0].detail.status.clone(), ..GpuDetail::unknown("0") };
    assert_eq!(report.readings[0], Reading::of(detail));
    assert_eq!((report.gpus[0].memory_total, report.gpus[0].serial.clone()), (None, None));
    assert_eq!(
        (report.readings[0].detail.status.power_draw, report.readings[0].detail.status.temperature),
        (None, Some(50))
    );
    assert_eq!(active(&report).len(), 8);
}

#[test]
fn for_the_drivers_versions_an_open_library_is_asked_once() {
    let driver = Driver::with(EIGHT);
    let mut probe = driver.probe();
    probe.probe();
    driver.play(&eight(|it| {
        it["cudaVersion"] = "13.0".into();
        it["gpus"][0]["temperature"] = 71.into();
    }));
    let report = probe.probe();
    assert_eq!(report.readings[0].detail.status.temperature, Some(71));
    assert_eq!(report.driver.cuda_version.as_deref(), Some("12.4"));
}

/// How often this process has the driver's device open.
fn handles(driver: &Driver) -> usize {
    let device = driver.dir.path().join("libnvidia-ml.so.1.device");
    let open =
        fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    open.filter(|path| *path == device).count()
}

#[test]
fn gpus_are_let_go_of_for_as_long_as_somebody_asks_and_come_back() {
    for events in [true, false] {
        let driver = Driver::with(&eight(|it| {
            it["gpus"].as_array_mut().unwrap().iter_mut().for_each(|gpu| gpu["events"] = events.into());
        }));
        fs::write(driver.dir.path().join("libnvidia-ml.so.1.device"), "").unwrap();
        let release = Release::in_folder(driver.dir.path());
        let probe = NvmlProbe::new(driver.library()).releasable(release.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut probe = Probe(GpuWatcher::start(probe).unwrap(), runtime);
        assert_eq!(active(&probe.probe()).len(), 8);
        assert_eq!(handles(&driver), 1);

        let until = Timestamp::from(SystemTime::now()).plus(Duration::from_secs(300));
        release.ask(until).unwrap();
        let report = probe.probe();
        assert_eq!(handles(&driver), 0, "whoever is told may unload the driver");
        assert_eq!(report.driver.state, GpuDriverState::Unknown);
        let reason = report.driver.reason.unwrap();
        assert_eq!(reason, format!("{RELEASED} until {until}, as an administrator asked"));
        assert_eq!((report.gpus.len(), report.readings.iter().filter(|gpu| gpu.answers()).count()), (8, 0));
        assert_eq!((probe.probe().gpus.len(), handles(&driver)), (8, 0));

        release.end().unwrap();
        assert_eq!(active(&probe.probe()).len(), 8);
        assert_eq!(handles(&driver), 1);
    }
}

#[test]
fn a_machine_without_a_driver_says_so() {
    let driver = Driver::absent();
    let report = driver.probe().probe();
    assert_eq!(report.driver.state, GpuDriverState::Absent);
    let reason = format!("no NVIDIA driver: {} not found", driver.library().display());
    assert_eq!(report.driver.reason, Some(reason));
    assert!(report.gpus.is_empty() && report.readings.is_empty());

    let by_name = Probe::of("libnvidia-ml-of-nobody.so.1").probe();
    assert_eq!(by_name.driver.state, GpuDriverState::Absent);
    let reason = "no NVIDIA driver: libnvidia-ml-of-nobody.so.1 not found";
    assert_eq!(by_name.driver.reason.as_deref(), Some(reason));
}

#[test]
fn a_driver_that_cannot_be_used_is_unknown_and_says_why() {
    let reason = |driver: &Driver| {
        let report = driver.probe().probe();
        assert_eq!((report.driver.state, report.gpus.len()), (GpuDriverState::Unknown, 0));
        report.driver.reason.unwrap()
    };
    for (init, word) in [
        ("DRIVER_NOT_LOADED", "not loaded"),
        ("LIB_RM_VERSION_MISMATCH", "different versions"),
        ("NO_PERMISSION", "no permission"),
        ("UNKNOWN", "failed"),
    ] {
        let driver = Driver::with(&format!("{{\"init\": \"{init}\"}}"));
        assert!(reason(&driver).contains(word), "{init}: {}", reason(&driver));
    }
    let garbage = Driver::absent();
    fs::write(garbage.library(), "no library").unwrap();
    assert!(
        reason(&garbage).starts_with("cannot load the NVIDIA driver's library: "),
        "{}",
        reason(&garbage)
    );
}

#[test]
fn a_driver_that_appears_later_is_seen_without_a_restart() {
    let driver = Driver::absent();
    let mut probe = driver.probe();
    assert_eq!(probe.probe().driver.state, GpuDriverState::Absent);
    driver.play(NO_DRIVER);
    driver.install();
    assert_eq!(probe.probe().driver.state, GpuDriverState::Unknown);
    driver.play(EIGHT);
    assert_eq!(active(&probe.probe()).len(), 8);
}

#[test]
fn a_driver_that_is_unloaded_and_loaded_again_is_followed() {
    let driver = Driver::with(EIGHT);
    let mut probe = driver.probe();
    assert_eq!(active(&probe.probe()).len(), 8);
    driver.play(&eight(|it| {
        it["faults"] = serde_json::json!({ "nvmlDeviceGetCount_v2": "DRIVER_NOT_LOADED" })
    }));
    assert_eq!(probe.probe().driver.state, GpuDriverState::Unknown);
    driver.play(EIGHT);
    assert_eq!(active(&probe.probe()).len(), 8);
}

#[tokio::test]
async fn a_driver_that_hangs_makes_its_gpus_unknown_within_the_deadline_and_comes_back() {
    let driver = Driver::with(EIGHT);
    let watcher = driver.watcher();
    assert_eq!(active(&watcher.report(PROMPT).await).len(), 8);

    driver.play(HUNG);
    let asked = Instant::now();
    let report = watcher.report(SHORT).await;
    assert!(asked.elapsed() < SHORT * 10, "{:?}", asked.elapsed());
    assert_eq!(report.driver.state, GpuDriverState::Unknown);
    assert!(report.driver.reason.unwrap().starts_with("driver not answering"));
    assert_eq!(report.gpus.len(), 8);
    assert!(
        report
            .readings
            .iter()
            .all(|gpu| gpu.detail == GpuDetail::unknown(gpu.detail.status.device_id.clone()))
    );

    driver.play(EIGHT);
    assert_eq!(active(&watcher.report(PROMPT).await).len(), 8);
}

#[tokio::test]
async fn one_gpu_that_hangs_is_as_bad_as_a_hung_driver() {
    let driver = Driver::with(EIGHT);
    let watcher = driver.watcher();
    watcher.report(PROMPT).await;
    driver.play(&eight(|it| it["gpus"][5]["hang"] = serde_json::json!(["nvmlDeviceGetTemperature"])));
    let report = watcher.report(SHORT).await;
    assert_eq!((report.driver.state, report.gpus.len()), (GpuDriverState::Unknown, 8));
    // The thread is let go, so that the process can unload the library.
    driver.play(EIGHT);
    assert_eq!(active(&watcher.report(PROMPT).await).len(), 8);
}
