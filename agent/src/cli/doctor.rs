//! `aio-worker doctor`: the installer's checks, and those of the configuration and the GPUs, with
//! what is wrong and what to do about it.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::ExitCode, time::Duration};

use aio_host::{
    facts::silent_mounts,
    gpu::{GpuWatcher, NvmlProbe},
    layout::Layout,
    systemd::Systemd,
};
use aio_installer::{
    cli::{DoctorArgs, Failure, Output, examine, print},
    doctor::{Finding, Verdict},
};
use aio_protocol::{
    inventory::{Gpu, GpuDriver, GpuDriverState, SilentMount},
    telemetry::{Health, HealthSummary},
};

use super::{
    answer::{Answer, ended, internal, print_json, runtime},
    config,
    paint::{Tone, paint},
};
use crate::{
    config::{GpuSettings, environment, runtime_dir},
    health::Thresholds,
    status_socket,
    telemetry::judged_once,
};

/// A driver without persistence mode wakes its GPUs for the first question, which takes seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// For one call to systemd: that one daemon of the driver runs is worth no more.
const BUS_PATIENCE: Duration = Duration::from_secs(5);

/// The kernel's part of the driver shows itself here.
const DRIVER: &str = "/proc/driver/nvidia";

/// The daemon's user opens them for reading and writing.
const READ_WRITE: u32 = 0o006;

/// The first branch whose NVML answers `nvmlDeviceGetMemoryInfo_v2`, which the worker asks for
/// memory (NVML's changelog).
const OLDEST_DRIVER: u32 = 510;

/// A worker whose loop turns answers at once.
const STATUS_PATIENCE: Duration = Duration::from_secs(5);

const SEE_THE_GPUS: &str = "aio-worker status --output json lists what was found on each.";

const PERSISTENCED: &str = "nvidia-persistenced.service";

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit status: 0 nothing has failed; otherwise that of the first failed check's code, as docs/troubleshooting.md lists them.")]
pub(super) struct Arguments {
    #[command(flatten)]
    doctor: DoctorArgs,
    #[command(flatten)]
    answer: Answer,
}

pub(super) fn run(arguments: Arguments) -> ExitCode {
    let output = arguments.answer.output;
    let shown = findings(arguments.doctor).and_then(|findings| show(&findings, output));
    ended(shown.map(ExitCode::from), output)
}

fn findings(doctor: DoctorArgs) -> Result<Vec<Finding>, Failure> {
    // What is wrong with a configuration is a finding, and no reason to look at nothing else.
    let GpuSettings { nvml_library, health } = GpuSettings::read(None, &environment).unwrap_or_default();
    let gpus = GpuWatcher::start(NvmlProbe::new(nvml_library))
        .map_err(|error| internal(format!("no thread for the GPU driver: {error}")))?;
    let status_folder = runtime_dir(None, &environment);
    let runtime = runtime()?;
    let findings = runtime.block_on(async {
        let (findings, gpus) = tokio::join!(examine(doctor), of_gpus(&gpus, &health, &status_folder));
        let mut findings = findings?;
        findings.push(config::diagnosis(&Layout::default(), &environment));
        findings.push(mounts(&silent_mounts()));
        findings.extend(gpus);
        Ok(findings)
    });
    // A driver that hangs must not keep the answer back.
    runtime.shutdown_background();
    findings
}

fn mounts(silent: &[SilentMount]) -> Finding {
    const CHECK: &str = "mounts";
    if silent.is_empty() {
        return Finding::ok(CHECK, "every file system on a device answers");
    }
    let names: Vec<_> =
        silent.iter().map(|mount| format!("{} ({})", mount.mount_point, mount.file_system)).collect();
    let cure = "Find out why its device or its program does not answer, or `umount --lazy` it; the worker runs without its size.";
    Finding::warning(CHECK, format!("no answer of {}", names.join(", ")), cure)
}

/// The checks of the driver, its devices and the GPUs.
pub(super) async fn of_gpus(gpus: &GpuWatcher, thresholds: &Thresholds, runtime_dir: &Path) -> Vec<Finding> {
    let worker = status_socket::read(runtime_dir, STATUS_PATIENCE);
    let (report, persistenced, worker) = tokio::join!(gpus.report(PATIENCE), persistenced(), worker);
    let mut findings = vec![driver(&report.driver, report.gpus.len())];
    if report.driver.state == GpuDriverState::Ok {
        // The worker has seen errors that the driver tells of only once.
        let health = worker.map(|worker| worker.health);
        findings
            .push(health_of(&health.unwrap_or_else(|_| judged_once(&report, thresholds.clone()).summary)));
    }
    if Path::new(DRIVER).exists() {
        findings.push(device_nodes(Path::new("/dev")));
        findings.push(persistence(&report.gpus, persistenced));
    }
    findings
}

fn driver(driver: &GpuDriver, gpus: usize) -> Finding {
    const CHECK: &str = "gpu_driver";
    let reason = driver.reason.clone();
    match driver.state {
        GpuDriverState::Ok => {
            let version = driver.version.as_deref().unwrap_or("of a version that it does not say");
            let reason = format!("driver {version}, {gpus} GPUs");
            let branch = version.split('.').next().and_then(|branch| branch.parse::<u32>().ok());
            if branch.is_some_and(|branch| branch < OLDEST_DRIVER) {
                let cure = format!(
                    "Install a driver of branch {OLDEST_DRIVER} or newer; with an older one the GPUs' memory is not told."
                );
                return Finding::warning(CHECK, reason, cure);
            }
            Finding::ok(CHECK, reason)
        }
        GpuDriverState::Absent => {
            let cure =
                "Install the NVIDIA driver if this machine has GPUs; the worker sees it without a restart.";
            Finding::warning(CHECK, reason.unwrap_or_else(|| "no NVIDIA driver".to_owned()), cure)
        }
        GpuDriverState::Unknown => {
            let cure =
                "Try nvidia-smi, and look at dmesg for NVRM and Xid; the worker runs without its answer.";
            Finding::warning(CHECK, reason.unwrap_or_else(|| "the driver does not answer".to_owned()), cure)
        }
    }
}

fn health_of(summary: &HealthSummary) -> Finding {
    const CHECK: &str = "gpu_health";
    let word = summary.state.as_str();
    match &summary.worst {
        _ if summary.state == Health::Ok => Finding::ok(CHECK, "all GPUs are ok"),
        None => Finding::warning(CHECK, format!("the GPUs are {word}"), SEE_THE_GPUS),
        Some(worst) => {
            let cure = summary.action.in_words().map(|words| format!("To do: {words}. {SEE_THE_GPUS}"));
            Finding::warning(
                CHECK,
                format!("{word}: {worst}"),
                cure.unwrap_or_else(|| SEE_THE_GPUS.to_owned()),
            )
        }
    }
}

/// Whether the daemon's user, which is in no group of the driver's, may open the driver's devices.
fn device_nodes(dev: &Path) -> Finding {
    const CHECK: &str = "gpu_devices";
    let entries = fs::read_dir(dev).into_iter().flatten().flatten();
    let is_device = |name: &str| {
        let rest = name.strip_prefix("nvidia");
        rest.is_some_and(|rest| rest == "ctl" || !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
    };
    let mut devices: Vec<_> = entries
        .filter(|entry| entry.file_name().to_str().is_some_and(is_device))
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.permissions().mode())))
        .collect();
    devices.sort();
    if devices.is_empty() {
        let cure = "Load the driver's devices once, for instance with nvidia-modprobe or nvidia-smi as root.";
        return Finding::warning(CHECK, format!("there is no NVIDIA device in {}", dev.display()), cure);
    }
    match devices.iter().find(|(_, mode)| mode & READ_WRITE != READ_WRITE) {
        Some((path, mode)) => {
            let reason = format!(
                "{} has mode {:04o}: the user aio-worker cannot open it",
                path.display(),
                mode & 0o7777
            );
            let cure = "Leave NVreg_DeviceFileMode at its default (0666), or let the user aio-worker into the devices' group.";
            Finding::warning(CHECK, reason, cure)
        }
        None => Finding::ok(CHECK, format!("{} devices, which the worker may open", devices.len())),
    }
}

async fn persistenced() -> Option<String> {
    let systemd = Systemd::connect_within(BUS_PATIENCE).await.ok()?;
    Some(systemd.unit(PERSISTENCED).await.ok()?.active_state)
}

/// Whether the GPUs stay awake, by a service or by the driver's own older way.
fn persistence(gpus: &[Gpu], state: Option<String>) -> Finding {
    const CHECK: &str = "gpu_persistence";
    match state.as_deref() {
        Some("active") => Finding::ok(CHECK, format!("{PERSISTENCED} is active")),
        _ if !gpus.is_empty() && gpus.iter().all(|gpu| gpu.persistence == Some(true)) => {
            Finding::ok(CHECK, "the driver keeps all GPUs awake")
        }
        None => Finding::skipped(CHECK, "systemd was not reached"),
        Some(state) => {
            let cure = "sudo systemctl enable --now nvidia-persistenced, so that GPUs are not put to sleep and woken again.";
            Finding::warning(CHECK, format!("{PERSISTENCED} is {state}"), cure)
        }
    }
}

/// Prints all, and says with which status the command ends.
fn show(findings: &[Finding], output: Output) -> Result<u8, Failure> {
    match output {
        Output::Json => print_json(&serde_json::json!({ "checks": findings }))?,
        Output::Text => print(&screen(findings))?,
    }
    let failed = findings.iter().find(|finding| finding.result == Verdict::Failed);
    Ok(failed.map_or(0, |finding| finding.code.map_or(1, |code| code.exit_status())))
}

fn screen(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { check, result, reason, code, cure } in findings {
        let (word, tone) = match result {
            Verdict::Ok => ("ok", Tone::Good),
            Verdict::Warning => ("warning", Tone::Doubtful),
            Verdict::Failed => ("FAILED", Tone::Bad),
            Verdict::Skipped => ("skipped", Tone::Faint),
        };
        let word = paint(tone, &format!("{word:<8}"));
        let code = code.map(|code| format!(" [{code}]")).unwrap_or_default();
        text.push_str(&format!("{word} {check:<16} {reason}{code}\n"));
        if let Some(cure) = cure {
            text.push_str(&format!("{:<26}{cure}\n", ""));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use aio_protocol::{error_code::ErrorCode, telemetry::RecoveryAction};

    use super::*;

    #[test]
    fn each_check_is_a_line_and_its_cure_another() {
        let findings =
            [Finding::ok("root", "running as root"), Finding::failed("disk", ErrorCode::DiskFull, "full")];
        let expected = format!(
            "ok       root             running as root\nFAILED   disk             full [DISK_FULL]\n{:<26}{}\n",
            "",
            ErrorCode::DiskFull.cure()
        );
        assert_eq!(screen(&findings), expected);
        assert_eq!(show(&findings, Output::Text).unwrap(), ErrorCode::DiskFull.exit_status());
    }

    #[test]
    fn a_mount_that_does_not_answer_is_named() {
        assert_eq!(mounts(&[]).result, Verdict::Ok);
        let silent = SilentMount { mount_point: "/mnt/x".into(), file_system: "fuse.x".into() };
        let finding = mounts(&[silent]);
        assert_eq!(
            (finding.result, finding.reason.as_str()),
            (Verdict::Warning, "no answer of /mnt/x (fuse.x)")
        );
    }

    #[test]
    fn a_driver_that_is_too_old_is_told_of() {
        let of = |version: &str| {
            let driver = GpuDriver {
                state: GpuDriverState::Ok,
                reason: None,
                version: Some(version.to_owned()),
                cuda_version: None,
            };
            super::driver(&driver, 8).result
        };
        assert_eq!(of("550.54.15"), Verdict::Ok);
        assert_eq!(of("510.47.03"), Verdict::Ok);
        assert_eq!(of("470.256.02"), Verdict::Warning);
    }

    #[test]
    fn a_gpu_that_is_not_well_is_told_with_what_to_do() {
        let mut summary = HealthSummary { state: Health::Ok, ..HealthSummary::default() };
        assert_eq!(health_of(&summary).result, Verdict::Ok);
        summary.state = Health::Unhealthy;
        summary.worst = Some("GPU 1: Xid 79: it has fallen off the bus".to_owned());
        summary.action = RecoveryAction::Reboot;
        let finding = health_of(&summary);
        assert_eq!(finding.result, Verdict::Warning);
        assert_eq!(finding.reason, "unhealthy: GPU 1: Xid 79: it has fallen off the bus");
        assert!(finding.cure.as_ref().is_some_and(|cure| cure.starts_with("To do: reboot the machine. ")));
    }

    #[test]
    fn gpus_that_nothing_keeps_awake_are_told_of() {
        let gpu = |persistence| Gpu { persistence, ..Gpu::default() };
        let of = |gpus: &[Gpu], state: Option<&str>| persistence(gpus, state.map(str::to_owned)).result;
        assert_eq!(of(&[gpu(Some(false))], Some("active")), Verdict::Ok);
        assert_eq!(of(&[gpu(Some(true))], Some("inactive")), Verdict::Ok);
        assert_eq!(of(&[gpu(Some(true)), gpu(Some(false))], Some("inactive")), Verdict::Warning);
        assert_eq!(of(&[gpu(Some(true)), gpu(None)], Some("inactive")), Verdict::Warning);
        assert_eq!(of(&[], None), Verdict::Skipped);
    }

    #[test]
    fn devices_that_the_daemon_cannot_open_are_told_of() {
        let dev = tempfile::tempdir().unwrap();
        assert_eq!(device_nodes(dev.path()).result, Verdict::Warning, "there are none");
        for (name, mode, expected) in [
            ("nvidiactl", 0o666, Verdict::Ok),
            ("nvidia0", 0o666, Verdict::Ok),
            ("nvidia-uvm", 0o600, Verdict::Ok),
            ("nvidia1", 0o660, Verdict::Warning),
        ] {
            let path = dev.path().join(name);
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(device_nodes(dev.path()).result, expected, "{name}");
        }
    }
}
