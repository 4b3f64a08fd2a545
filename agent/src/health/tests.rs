//! What the driver says, and what is made of it.

use std::time::Duration;

use aio_host::gpu::{Fabric, Gone, XidEvent};
use aio_protocol::{
    inventory::PcieLink,
    telemetry::{EccErrors, GpuActivity, RecoveryAction, RemappedRows, RetiredPages},
};

use super::*;

/// A machine with one GPU, judged again and again.
struct Bench {
    judge: Judge,
    began: Instant,
    gpu: Gpu,
    reading: Reading,
    xids: Vec<XidEvent>,
    boot_id: &'static str,
}

impl Bench {
    fn new() -> Self {
        Self::remembering(Memory::default())
    }

    fn remembering(memory: Memory) -> Self {
        let mut detail = GpuDetail::unknown("0");
        detail.status.status = GpuActivity::Active;
        let gpu = Gpu {
            device_id: "0".into(),
            uuid: Some("GPU-1".into()),
            model: "H100".into(),
            pcie: Some(PcieLink { generation: 5, width: 16 }),
            ..Gpu::default()
        };
        Self {
            judge: Judge::new(Thresholds::default(), memory),
            began: Instant::now(),
            gpu,
            reading: Reading { energy: Some(1000), ..Reading::of(detail) },
            xids: vec![],
            boot_id: "boot-1",
        }
    }

    fn report(&self) -> GpuReport {
        let driver = GpuDriver { state: GpuDriverState::Ok, reason: None, version: None, cuda_version: None };
        GpuReport {
            driver,
            gpus: vec![self.gpu.clone()],
            readings: vec![self.reading.clone()],
            xids: self.xids.clone(),
        }
    }

    fn judge(&mut self, second: u64) -> (Judged, Vec<News>) {
        let now = self.began + Duration::from_secs(second);
        let wall = Timestamp::from_millis(i64::try_from(second * 1000).unwrap());
        let report = self.report();
        self.judge.judge(&report, Some(self.boot_id), Moment { now, wall })
    }

    fn health(&mut self, second: u64) -> Health {
        self.judge(second).0.details[0].status.health
    }

    fn xid(&mut self, code: u64, second: u64) {
        let sequence = self.xids.len() as u64 + 1;
        let at = Timestamp::from_millis(i64::try_from(second * 1000).unwrap());
        self.xids.push(XidEvent { sequence, at, uuid: self.gpu.uuid.clone(), code });
    }
}

type Change = fn(&mut Bench);

#[test]
fn every_source_is_judged_with_its_reason_and_its_cure() {
    use Health::{Degraded, Unhealthy, Unknown};
    use RecoveryAction as Do;
    let table: [(Change, Health, Do, &str); 23] = [
        (|bench| bench.reading.gone = Some(Gone::Lost), Unhealthy, Do::Reboot, "fallen off the bus"),
        (|bench| bench.reading.gone = Some(Gone::ResetRequired), Unhealthy, Do::ResetGpu, "needs a reset"),
        (
            |bench| bench.reading.gone = Some(Gone::InsufficientPower),
            Unhealthy,
            Do::CheckMechanicals,
            "power cables",
        ),
        (|bench| bench.reading.gone = Some(Gone::InterruptIssue), Unhealthy, Do::Reboot, "interrupts"),
        (|bench| bench.reading.gone = Some(Gone::NoPermission), Unknown, Do::CheckPermissions, "may not use"),
        (|bench| bench.reading.gone = Some(Gone::VersionMismatch), Unknown, Do::Reboot, "different versions"),
        (|bench| bench.reading.gone = Some(Gone::DriverError), Unknown, Do::ResetGpu, "error of its own"),
        (|bench| bench.reading.gone = Some(Gone::Failed("x".into())), Unknown, Do::ResetGpu, "for it: x"),
        (|bench| bench.reading = Reading::silent("0"), Unknown, Do::Nothing, "driver does not answer"),
        (|bench| bench.xid(79, 0), Unhealthy, Do::Reboot, "Xid 79: it has fallen off the bus"),
        (|bench| bench.xid(74, 0), Degraded, Do::CheckMechanicals, "Xid 74"),
        (|bench| bench.reading.recovery_action = Some(Do::ResetGpu), Unhealthy, Do::ResetGpu, "driver asks"),
        (|bench| bench.reading.recovery_action = Some(Do::DrainP2p), Degraded, Do::DrainP2p, "driver asks"),
        (
            |bench| {
                bench.reading.detail.remapped_rows =
                    Some(RemappedRows { failed: true, ..RemappedRows::default() })
            },
            Unhealthy,
            Do::ContactSupport,
            "could not be remapped",
        ),
        (
            |bench| {
                bench.reading.detail.remapped_rows =
                    Some(RemappedRows { pending: true, ..RemappedRows::default() })
            },
            Degraded,
            Do::ResetGpu,
            "waits for a reset to be remapped",
        ),
        (
            |bench| {
                bench.reading.detail.retired_pages =
                    Some(RetiredPages { pending: true, ..RetiredPages::default() })
            },
            Degraded,
            Do::ResetGpu,
            "to be retired",
        ),
        (
            |bench| {
                bench.reading.detail.ecc_errors =
                    Some(EccErrors { volatile_uncorrected: 1, ..EccErrors::default() });
            },
            Degraded,
            Do::ResetGpu,
            "1 memory errors beyond correction",
        ),
        (
            |bench| bench.reading.detail.throttle = vec!["hw_thermal_slowdown".into()],
            Degraded,
            Do::CheckCooling,
            "because of heat",
        ),
        (
            |bench| bench.reading.detail.throttle = vec!["hw_power_brake_slowdown".into()],
            Degraded,
            Do::CheckCooling,
            "power supply",
        ),
        (
            |bench| bench.reading.detail.pcie = Some(PcieLink { generation: 1, width: 8 }),
            Degraded,
            Do::CheckMechanicals,
            "8 lanes wide, and could be 16",
        ),
        (
            |bench| {
                bench.gpu.nvlinks = Some(18);
                bench.reading.detail.nvlinks = Some(18);
                bench.judge(0);
                bench.reading.detail.nvlinks = Some(17);
            },
            Degraded,
            Do::ResetGpu,
            "17 of 18 NVLinks are up",
        ),
        (
            |bench| bench.reading.fabric = Some(Fabric::NotStarted),
            Unhealthy,
            Do::RestartFabricManager,
            "has not connected it",
        ),
        (
            |bench| bench.reading.fabric = Some(Fabric::Failed(42)),
            Unhealthy,
            Do::RestartFabricManager,
            "error 42",
        ),
    ];
    for (change, health, action, reason) in table {
        let mut bench = Bench::new();
        change(&mut bench);
        let (judged, _) = bench.judge(1);
        let detail = &judged.details[0];
        let finding = detail.findings.first().unwrap_or_else(|| panic!("nothing found: {reason}"));
        assert_eq!((detail.status.health, finding.action), (health, action), "{finding:?}");
        assert!(finding.reason.contains(reason), "{finding:?} has no `{reason}`");
        assert_eq!((judged.summary.state, judged.summary.action), (health, action));
    }
}

#[test]
fn a_gpu_of_which_nothing_is_wrong_is_ok() {
    let mut bench = Bench::new();
    bench.reading.detail.throttle = vec!["sw_power_cap".into()];
    bench.reading.detail.pcie = Some(PcieLink { generation: 1, width: 16 });
    bench.reading.detail.remapped_rows =
        Some(RemappedRows { corrected: 2, uncorrected: 1, ..RemappedRows::default() });
    bench.reading.detail.nvlinks = Some(12);
    bench.reading.fabric = Some(Fabric::Connected);
    bench.reading.recovery_action = Some(RecoveryAction::Nothing);
    // A program's own errors are not the GPU's.
    for code in [13, 31, 43, 45, 94] {
        bench.xid(code, 0);
    }
    let (judged, news) = bench.judge(1);
    assert_eq!((judged.details[0].status.health, judged.summary), (Health::Ok, HealthSummary::default()));
    assert_eq!(news.len(), 5, "each is told: {news:?}");
}

#[test]
fn heat_counts_by_the_share_of_time_that_it_costs() {
    let mut bench = Bench::new();
    for (second, slowed, health) in [
        (0, 100, Health::Ok),
        (20, 101, Health::Ok),
        (40, 104, Health::Degraded),
        (60, 104, Health::Degraded),
        (121, 104, Health::Ok),
    ] {
        bench.reading.thermal_slowdown = Some(Duration::from_secs(slowed));
        assert_eq!(bench.health(second), health, "after {second} s");
    }
}

#[test]
fn an_error_counts_until_a_reset_a_reboot_the_driver_or_time_ends_it() {
    let ends: [(&str, u64, Change); 4] = [
        ("reset", 119, |bench| bench.reading.energy = Some(3)),
        ("reboot", 119, |bench| bench.boot_id = "boot-2"),
        ("driver", 79, |bench| bench.reading.recovery_action = Some(RecoveryAction::Nothing)),
        ("time", 119, |_| {}),
    ];
    for (name, code, end) in ends {
        let mut bench = Bench::new();
        bench.xid(code, 1);
        assert_eq!(bench.health(1), Health::Unhealthy, "{name}");
        bench.reading.energy = Some(2000);
        assert_eq!(bench.health(3600), Health::Unhealthy, "{name}: an hour alone ends nothing");
        end(&mut bench);
        let later = if name == "time" { 24 * 3600 + 2 } else { 3601 };
        bench.judge(later);
        assert_eq!(bench.health(later + 60), Health::Ok, "{name}");
    }
}

#[test]
fn a_driver_that_asks_for_nothing_does_not_end_an_error_that_it_has_no_action_for() {
    let mut bench = Bench::new();
    bench.xid(119, 1);
    bench.reading.recovery_action = Some(RecoveryAction::Nothing);
    bench.judge(1);
    assert_eq!(bench.health(600), Health::Unhealthy);
}

#[test]
fn an_error_is_remembered_over_a_restart_and_not_over_a_reboot() {
    let mut before = Bench::new();
    before.xid(79, 1);
    before.judge(1);
    let mut after = Bench::remembering(before.judge.memory());
    assert_eq!(after.health(10), Health::Unhealthy);
    let mut rebooted = Bench::remembering(before.judge.memory());
    rebooted.boot_id = "boot-2";
    assert_eq!(rebooted.health(10), Health::Ok);
}

#[test]
fn an_error_that_a_person_ignores_is_told_and_does_not_count() {
    let mut bench = Bench::new();
    let thresholds = Thresholds { ignored_xids: vec![79], ..Thresholds::default() };
    bench.judge = Judge::new(thresholds, Memory::default());
    bench.xid(79, 1);
    let (judged, news) = bench.judge(1);
    assert_eq!(judged.summary.state, Health::Ok);
    assert!(matches!(&news[..], [News::Xid { code: 79, of_the_gpu: false, .. }]), "{news:?}");
}

#[test]
fn news_are_told_once() {
    let mut bench = Bench::new();
    assert_eq!(bench.judge(0).1, []);
    bench.xid(95, 1);
    let (_, news) = bench.judge(1);
    assert!(
        matches!(
            &news[..],
            [News::Xid { code: 95, .. }, News::Changed { from: Health::Ok, to: Health::Unhealthy, .. }]
        ),
        "{news:?}"
    );
    assert_eq!(bench.judge(2).1, []);
}

#[test]
fn the_same_health_with_other_numbers_is_no_news() {
    let mut bench = Bench::new();
    let (before, _) = bench.judge(0);
    bench.reading.detail.status.temperature = Some(70);
    let (after, _) = bench.judge(1);
    assert!(before.same_health(&after) && before != after);
    bench.reading.gone = Some(Gone::Lost);
    assert!(!after.same_health(&bench.judge(2).0));
}
