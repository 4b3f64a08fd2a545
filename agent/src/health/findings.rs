//! What is wrong with one GPU, of all that is known of it. Pure: a table of rules, each with its
//! reason in words and what to do. How long it is told is decided elsewhere.

use aio_host::gpu::{Fabric, Gone, Reading};
use aio_protocol::{
    inventory::Gpu,
    telemetry::{
        Finding,
        Health::{self, Degraded, Unhealthy, Unknown},
        RecoveryAction::{self, *},
    },
};

use super::{Thresholds, memory::RememberedXid, slowdown::Slowdown, xid};

/// All that is known of one GPU.
pub(super) struct Evidence<'a> {
    pub(super) gpu: &'a Gpu,
    pub(super) reading: &'a Reading,
    pub(super) slowdown: &'a Slowdown,
    pub(super) xids: Vec<&'a RememberedXid>,
    pub(super) thresholds: &'a Thresholds,
}

/// What is wrong, the worst first; among equals what costs the most to put right.
pub(super) fn findings(evidence: &Evidence<'_>) -> Vec<Finding> {
    let mut findings: Vec<_> = errors(evidence)
        .into_iter()
        .chain(reachability(evidence))
        .chain(driver_verdict(evidence.reading))
        .chain(memory(evidence))
        .chain(slowdowns(evidence))
        .chain(links(evidence))
        .collect();
    findings.sort_by_key(|finding| std::cmp::Reverse((finding.health, finding.action)));
    findings
}

fn finding(health: Health, action: RecoveryAction, reason: impl Into<String>) -> Finding {
    Finding { health, reason: reason.into(), action }
}

fn reachability(evidence: &Evidence<'_>) -> Option<Finding> {
    let reading = evidence.reading;
    let Some(gone) = &reading.gone else {
        let silent = || finding(Unknown, Nothing, "the driver does not answer for it");
        return (!reading.answers()).then(silent);
    };
    let (health, action, reason) = match gone {
        Gone::Lost => (Unhealthy, Reboot, "it has fallen off the bus"),
        Gone::ResetRequired => (Unhealthy, ResetGpu, "it needs a reset before it can be used"),
        Gone::InsufficientPower => {
            (Unhealthy, CheckMechanicals, "its external power cables are not attached properly")
        }
        Gone::InterruptIssue => (Unhealthy, Reboot, "the kernel found a problem with its interrupts"),
        Gone::NoPermission => (Unknown, CheckPermissions, "the worker may not use its device"),
        Gone::Blocked => (Unknown, CheckPermissions, "the operating system keeps the worker from its device"),
        Gone::VersionMismatch => {
            (Unknown, Reboot, "the driver's library and kernel module have different versions")
        }
        Gone::CorruptedInfoRom => (Unhealthy, ContactSupport, "its infoROM is corrupted"),
        Gone::DriverError => (Unknown, ResetGpu, "the driver met an error of its own asking it"),
        Gone::Failed(words) => {
            let reason = format!("the driver does not answer for it: {words}");
            return Some(finding(Unknown, ResetGpu, reason));
        }
    };
    Some(finding(health, action, reason))
}

fn errors(evidence: &Evidence<'_>) -> Vec<Finding> {
    let told = |remembered: &&RememberedXid| {
        let meaning = xid::meaning(remembered.code)?;
        let health = meaning.health?;
        Some(finding(health, meaning.action, format!("Xid {}: {}", remembered.code, meaning.words)))
    };
    evidence.xids.iter().filter_map(told).collect()
}

fn driver_verdict(reading: &Reading) -> Option<Finding> {
    let action = reading.recovery_action?;
    let health = match action {
        Nothing => return None,
        DrainP2p | DrainAndReset => Degraded,
        _ => Unhealthy,
    };
    Some(finding(health, action, "the driver asks for it to be brought back"))
}

fn memory(evidence: &Evidence<'_>) -> Vec<Finding> {
    let mut findings = vec![];
    let detail = &evidence.reading.detail;
    if let Some(rows) = detail.remapped_rows {
        if rows.failed {
            findings.push(finding(
                Unhealthy,
                ContactSupport,
                "a bad row of its memory could not be remapped",
            ));
        }
        if rows.pending {
            findings.push(finding(
                Degraded,
                ResetGpu,
                "a bad row of its memory waits for a reset to be remapped",
            ));
        }
    }
    if detail.retired_pages.is_some_and(|pages| pages.pending) {
        findings.push(finding(
            Degraded,
            ResetGpu,
            "a bad page of its memory waits for a reset to be retired",
        ));
    }
    let uncorrected = detail.ecc_errors.map_or(0, |errors| errors.volatile_uncorrected);
    if uncorrected >= evidence.thresholds.uncorrected_errors {
        let reason = format!("{uncorrected} memory errors beyond correction since the driver was loaded");
        findings.push(finding(Degraded, ResetGpu, reason));
    }
    findings
}

fn slowdowns(evidence: &Evidence<'_>) -> Vec<Finding> {
    let mut findings = vec![];
    let thresholds = evidence.thresholds;
    let slowed = |why: &str| evidence.reading.detail.throttle.iter().any(|reason| reason == why);
    let too_hot = evidence.slowdown.thermal.filter(|&share| share > thresholds.thermal_slowdown_percent);
    // Shares change all the time, and would be news each time: the threshold says enough.
    if too_hot.is_some() {
        let percent = thresholds.thermal_slowdown_percent;
        findings.push(finding(
            Degraded,
            CheckCooling,
            format!("heat slows it down for more than {percent} % of the time"),
        ));
    } else if slowed("hw_thermal_slowdown") {
        findings.push(finding(Degraded, CheckCooling, "its hardware slows it down because of heat"));
    }
    if slowed("hw_power_brake_slowdown") {
        findings.push(finding(Degraded, CheckCooling, "the machine's power supply slows it down"));
    }
    if let Some(percent) = thresholds.power_slowdown_percent
        && evidence.slowdown.power.is_some_and(|share| share > percent)
    {
        let reason = format!("its power limit slows it down for more than {percent} % of the time");
        findings.push(finding(Degraded, CheckCooling, reason));
    }
    findings
}

fn links(evidence: &Evidence<'_>) -> Vec<Finding> {
    let mut findings = vec![];
    let (gpu, detail) = (evidence.gpu, &evidence.reading.detail);
    if let (Some(now), Some(best)) = (detail.pcie, gpu.pcie)
        && now.width < best.width
    {
        let reason = format!("its PCIe link is {} lanes wide, and could be {}", now.width, best.width);
        findings.push(finding(Degraded, CheckMechanicals, reason));
    }
    if let (Some(now), Some(most)) = (detail.nvlinks, gpu.nvlinks)
        && now < most
    {
        findings.push(finding(Degraded, ResetGpu, format!("{now} of {most} NVLinks are up")));
    }
    match evidence.reading.fabric {
        Some(Fabric::NotStarted) => {
            findings.push(finding(
                Unhealthy,
                RestartFabricManager,
                "nvidia-fabricmanager has not connected it",
            ));
        }
        Some(Fabric::InProgress) => {
            findings.push(finding(Unhealthy, Nothing, "nvidia-fabricmanager is connecting it"));
        }
        Some(Fabric::Failed(status)) => {
            let reason = format!("nvidia-fabricmanager could not connect it (NVML error {status})");
            findings.push(finding(Unhealthy, RestartFabricManager, reason));
        }
        Some(Fabric::Connected) | None => {}
    }
    findings
}
