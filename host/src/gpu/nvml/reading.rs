//! What a GPU measures. It has answered if it told any of the four numbers that every GPU has, and
//! never said that it is gone: a handle to a lost one can still be had.

use aio_protocol::{
    inventory::PcieLink,
    telemetry::{EccErrors, GpuActivity, GpuDetail, GpuProcess, GpuStatus, Health, RetiredPages},
};
use nvml_wrapper::{
    Device,
    bitmasks::device::ThrottleReasons,
    enum_wrappers::device::{
        Clock, EccCounter, MemoryError, RetirementCause, TemperatureSensor, TemperatureThreshold,
    },
    enums::device::UsedGpuMemory,
    error::NvmlError,
};

use super::fields::Fields;
use crate::gpu::{Gone, Reading};

/// No message gets too long because of a GPU that hundreds of processes share.
const MOST_PROCESSES: usize = 16;

pub(super) fn reading(device: &Device<'_>, device_id: String) -> Reading {
    let utilization = device.utilization_rates().map(|rates| rates.gpu);
    let memory_used = device.memory_info().map(|memory| memory.used);
    let temperature = device.temperature(TemperatureSensor::Gpu);
    let milliwatts = device.power_usage();

    let answers = [
        utilization.as_ref().err(),
        memory_used.as_ref().err(),
        temperature.as_ref().err(),
        milliwatts.as_ref().err(),
    ];
    if let Some(error) = silence(answers) {
        return unreachable(error, device_id);
    }
    let fields = Fields::of(device);
    let status = GpuStatus {
        device_id,
        utilization: utilization.ok(),
        memory_used: memory_used.ok(),
        temperature: temperature.ok(),
        power_draw: milliwatts.ok().map(watts),
        status: GpuActivity::Active,
        health: Health::Unknown,
    };
    let detail = GpuDetail {
        temperature_margin: margin(device, status.temperature),
        memory_temperature: fields.memory_temperature(),
        power_limit: device.enforced_power_limit().ok().map(watts),
        clock_sm: device.clock_info(Clock::SM).ok(),
        clock_memory: device.clock_info(Clock::Memory).ok(),
        throttle: device.current_throttle_reasons().map(throttle).unwrap_or_default(),
        ecc_errors: ecc_errors(device),
        remapped_rows: fields.remapped_rows(),
        retired_pages: retired_pages(device),
        pcie: link(device),
        nvlinks: nvlinks(device, fields.nvlinks()),
        processes: processes(device),
        ..GpuDetail::of(status)
    };
    Reading {
        thermal_slowdown: fields.thermal_slowdown(),
        power_slowdown: fields.power_slowdown(),
        energy: device.total_energy_consumption().ok(),
        recovery_action: fields.recovery_action(),
        ..Reading::of(detail)
    }
}

/// The error for which a GPU counts as silent: that it is gone, or what it says in place of every
/// answer. What a GPU does not support (a Jetson, none of these) is an answer.
fn silence(answers: [Option<&NvmlError>; 4]) -> Option<&NvmlError> {
    let errors = || answers.into_iter().flatten();
    let mute = answers.iter().all(Option::is_some);
    errors().find(|error| is_gone(error)).or_else(|| errors().find(|error| mute && !is_unsupported(error)))
}

fn is_unsupported(error: &NvmlError) -> bool {
    matches!(error, NvmlError::NotSupported | NvmlError::FunctionNotFound | NvmlError::FailedToLoadSymbol(_))
}

/// A GPU that cannot be asked.
pub(super) fn unreachable(error: &NvmlError, device_id: String) -> Reading {
    let gone = match error {
        NvmlError::GpuLost => Gone::Lost,
        NvmlError::ResetRequired => Gone::ResetRequired,
        NvmlError::InsufficientPower => Gone::InsufficientPower,
        NvmlError::IrqIssue => Gone::InterruptIssue,
        NvmlError::NoPermission => Gone::NoPermission,
        NvmlError::OperatingSystem => Gone::Blocked,
        NvmlError::LibRmVersionMismatch => Gone::VersionMismatch,
        NvmlError::CorruptedInfoROM => Gone::CorruptedInfoRom,
        NvmlError::Unknown => Gone::DriverError,
        error => Gone::Failed(error.to_string()),
    };
    Reading { gone: Some(gone), ..Reading::silent(device_id) }
}

fn is_gone(error: &NvmlError) -> bool {
    matches!(
        error,
        NvmlError::GpuLost | NvmlError::ResetRequired | NvmlError::Uninitialized | NvmlError::DriverNotLoaded
    )
}

fn watts(milliwatts: u32) -> u32 {
    milliwatts.saturating_add(500) / 1000
}

fn margin(device: &Device<'_>, temperature: Option<u32>) -> Option<i32> {
    let slowdown = device.temperature_threshold(TemperatureThreshold::Slowdown).ok()?;
    Some(i32::try_from(slowdown).ok()?.saturating_sub(i32::try_from(temperature?).ok()?))
}

/// NVML's names for the reasons, in lower case. That a GPU is idle is none.
fn throttle(reasons: ThrottleReasons) -> Vec<String> {
    let reasons = reasons.difference(ThrottleReasons::GPU_IDLE);
    reasons.iter_names().map(|(name, _)| name.to_lowercase()).filter(|name| name != "none").collect()
}

/// Nothing where a GPU has no such memory: NVML then refuses each of the four.
fn ecc_errors(device: &Device<'_>) -> Option<EccErrors> {
    let count = |kind, counter| device.total_ecc_errors(kind, counter).ok();
    Some(EccErrors {
        volatile_corrected: count(MemoryError::Corrected, EccCounter::Volatile)?,
        volatile_uncorrected: count(MemoryError::Uncorrected, EccCounter::Volatile)?,
        aggregate_corrected: count(MemoryError::Corrected, EccCounter::Aggregate)?,
        aggregate_uncorrected: count(MemoryError::Uncorrected, EccCounter::Aggregate)?,
    })
}

fn retired_pages(device: &Device<'_>) -> Option<RetiredPages> {
    let pending = device.are_pages_pending_retired().ok()?;
    let count = |cause| device.retired_pages(cause).ok()?.len().try_into().ok();
    Some(RetiredPages {
        corrected: count(RetirementCause::MultipleSingleBitEccErrors)?,
        uncorrected: count(RetirementCause::DoubleBitEccError)?,
        pending,
    })
}

fn link(device: &Device<'_>) -> Option<PcieLink> {
    Some(PcieLink {
        generation: device.current_pcie_link_gen().ok()?,
        width: device.current_pcie_link_width().ok()?,
    })
}

/// How many of the board's links are up; nothing where it has none.
fn nvlinks(device: &Device<'_>, count: u32) -> Option<u32> {
    let mut states = (0..count).filter_map(|link| device.link_wrapper_for(link).is_active().ok()).peekable();
    states.peek()?;
    states.filter(|&up| up).count().try_into().ok()
}

fn processes(device: &Device<'_>) -> Vec<GpuProcess> {
    let computing = device.running_compute_processes().unwrap_or_default();
    let drawing = device.running_graphics_processes().unwrap_or_default();
    let mut processes: Vec<_> = computing
        .into_iter()
        .chain(drawing)
        .map(|process| GpuProcess {
            pid: process.pid,
            memory_used: match process.used_gpu_memory {
                UsedGpuMemory::Used(bytes) => Some(bytes),
                UsedGpuMemory::Unavailable => None,
            },
        })
        .collect();
    processes.sort_by_key(|process| (std::cmp::Reverse(process.memory_used), process.pid));
    processes.dedup_by_key(|process| process.pid);
    processes.truncate(MOST_PROCESSES);
    processes
}
