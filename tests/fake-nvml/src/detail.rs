//! What GPUs say of their links, memory, clocks and processes.

use std::ffi::{c_int, c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{
    field_id, nvmlClockType_t, nvmlDevice_t, nvmlEccCounterType_t, nvmlEnableState_t, nvmlFieldValue_t,
    nvmlGpuFabricInfo_t, nvmlMemoryErrorType_t, nvmlPageRetirementCause_t, nvmlProcessInfo_t, nvmlReturn_t,
    nvmlTemperatureThresholds_t, nvmlValue_t,
};

use crate::{
    answer_for, handle, index_of, put,
    scenario::{Code, Gpu},
};

/// Exports functions that write one number of a GPU.
macro_rules! numbers {
    ($($function:ident($type:ty) = $value:expr;)*) => {$(
        #[doc = concat!("`", stringify!($function), "`.\n\n# Safety\nAs NVML demands: the pointer to the result is null or valid for a write.")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $function(device: nvmlDevice_t, result: *mut $type) -> nvmlReturn_t {
            answer_for(stringify!($function), index_of(device), |gpu| {
                let value: fn(&Gpu) -> Option<$type> = $value;
                // SAFETY: the caller's.
                unsafe { put(result, value(gpu).ok_or(Code::NotSupported)?) }
            })
        }
    )*};
}

numbers! {
    nvmlDeviceGetPersistenceMode(nvmlEnableState_t) = |gpu| gpu.persistence.map(Into::into);
    nvmlDeviceGetMaxPcieLinkGeneration(c_uint) = |gpu| Some(gpu.max_pcie.as_ref()?.generation);
    nvmlDeviceGetMaxPcieLinkWidth(c_uint) = |gpu| Some(gpu.max_pcie.as_ref()?.width);
    nvmlDeviceGetCurrPcieLinkGeneration(c_uint) = |gpu| Some(gpu.pcie.as_ref()?.generation);
    nvmlDeviceGetCurrPcieLinkWidth(c_uint) = |gpu| Some(gpu.pcie.as_ref()?.width);
    nvmlDeviceGetCurrentClocksThrottleReasons(c_ulonglong) = |gpu| gpu.throttle_reasons;
    nvmlDeviceGetEnforcedPowerLimit(c_uint) = |gpu| gpu.power_limit;
    nvmlDeviceGetTotalEnergyConsumption(c_ulonglong) = |gpu| gpu.energy;
    nvmlDeviceGetRetiredPagesPendingStatus(nvmlEnableState_t) = |gpu| Some(gpu.retired_pages.as_ref()?.pending.into());
    nvmlDeviceGetMaxMigDeviceCount(c_uint) = |gpu| gpu.mig.as_ref().map(|_| 7);
}

/// Exports functions that write two settings of a GPU: the one of now and the one after a reboot.
macro_rules! modes {
    ($($function:ident = $value:expr;)*) => {$(
        #[doc = concat!("`", stringify!($function), "`.\n\n# Safety\nAs NVML demands: the pointers to the results are null or valid for a write.")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $function(device: nvmlDevice_t, now: *mut c_uint, pending: *mut c_uint) -> nvmlReturn_t {
            answer_for(stringify!($function), index_of(device), |gpu| {
                let value: fn(&Gpu) -> Option<bool> = $value;
                let value = value(gpu).ok_or(Code::NotSupported)?.into();
                // SAFETY: the caller's.
                unsafe { put(now, value).and_then(|()| put(pending, value)) }
            })
        }
    )*};
}

modes! {
    nvmlDeviceGetEccMode = |gpu| gpu.ecc;
    nvmlDeviceGetMigMode = |gpu| gpu.mig.as_ref().map(|instances| !instances.is_empty());
}

/// `nvmlDeviceGetMigDeviceHandleByIndex`.
///
/// # Safety
/// As NVML demands: the pointer to the result is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    device: nvmlDevice_t,
    instance: c_uint,
    result: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    let (index, instance) = (index_of(device), instance as usize);
    answer_for("nvmlDeviceGetMigDeviceHandleByIndex", index, |gpu| {
        gpu.instance(instance)?;
        // SAFETY: the caller's.
        unsafe { put(result, handle(index, Some(instance))) }
    })
}

/// `nvmlDeviceGetClockInfo`: 1 is SM, 2 is memory.
///
/// # Safety
/// As NVML demands: the pointer to the result is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetClockInfo(
    device: nvmlDevice_t,
    clock: nvmlClockType_t,
    megahertz: *mut c_uint,
) -> nvmlReturn_t {
    answer_for("nvmlDeviceGetClockInfo", index_of(device), |gpu| {
        let value = match clock {
            1 => gpu.clock_sm,
            2 => gpu.clock_memory,
            _ => None,
        };
        // SAFETY: the caller's.
        unsafe { put(megahertz, value.ok_or(Code::NotSupported)?) }
    })
}

/// `nvmlDeviceGetTemperatureThreshold`: 1 is where it slows down.
///
/// # Safety
/// As NVML demands: the pointer to the result is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperatureThreshold(
    device: nvmlDevice_t,
    threshold: nvmlTemperatureThresholds_t,
    celsius: *mut c_uint,
) -> nvmlReturn_t {
    answer_for("nvmlDeviceGetTemperatureThreshold", index_of(device), |gpu| {
        let value = gpu.slowdown_temperature.filter(|_| threshold == 1).ok_or(Code::NotSupported)?;
        // SAFETY: the caller's.
        unsafe { put(celsius, value) }
    })
}

/// `nvmlDeviceGetTotalEccErrors`: 0 is corrected, volatile; 1 is uncorrected, aggregate.
///
/// # Safety
/// As NVML demands: the pointer to the result is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
    device: nvmlDevice_t,
    kind: nvmlMemoryErrorType_t,
    counter: nvmlEccCounterType_t,
    count: *mut c_ulonglong,
) -> nvmlReturn_t {
    answer_for("nvmlDeviceGetTotalEccErrors", index_of(device), |gpu| {
        let errors = gpu.ecc_errors.as_ref().ok_or(Code::NotSupported)?;
        let value = match (kind, counter) {
            (0, 0) => errors.volatile_corrected,
            (1, 0) => errors.volatile_uncorrected,
            (0, 1) => errors.aggregate_corrected,
            (1, 1) => errors.aggregate_uncorrected,
            _ => return Err(Code::InvalidArgument),
        };
        // SAFETY: the caller's.
        unsafe { put(count, value) }
    })
}

/// Writes a count, or a list where there is room for it.
///
/// # Safety
/// `count` is null or valid for reads and writes; `write` may write as many as `count` says.
unsafe fn put_list(count: *mut c_uint, length: usize, write: impl FnOnce()) -> Result<(), Code> {
    let length = c_uint::try_from(length).map_err(|_| Code::Unknown)?;
    // SAFETY: by this function's contract.
    let room = *unsafe { count.as_ref() }.ok_or(Code::InvalidArgument)?;
    // SAFETY: by this function's contract.
    unsafe { put(count, length)? };
    if room < length {
        return Err(Code::InsufficientSize);
    }
    write();
    Ok(())
}

fn retired(gpu: &Gpu, cause: nvmlPageRetirementCause_t) -> Result<usize, Code> {
    let pages = gpu.retired_pages.as_ref().ok_or(Code::NotSupported)?;
    Ok(if cause == 0 { pages.corrected } else { pages.uncorrected } as usize)
}

/// `nvmlDeviceGetRetiredPages`.
///
/// # Safety
/// As NVML demands: `addresses` is valid for as many writes as `count` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetRetiredPages(
    device: nvmlDevice_t,
    cause: nvmlPageRetirementCause_t,
    count: *mut c_uint,
    addresses: *mut c_ulonglong,
) -> nvmlReturn_t {
    answer_for("nvmlDeviceGetRetiredPages", index_of(device), |gpu| {
        let pages = retired(gpu, cause)?;
        // SAFETY: the caller's.
        unsafe {
            put_list(count, pages, || (0..pages).for_each(|page| addresses.add(page).write(page as u64)))
        }
    })
}

/// `nvmlDeviceGetRetiredPages_v2`.
///
/// # Safety
/// As NVML demands: `addresses` and `times` are valid for as many writes as `count` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetRetiredPages_v2(
    device: nvmlDevice_t,
    cause: nvmlPageRetirementCause_t,
    count: *mut c_uint,
    addresses: *mut c_ulonglong,
    times: *mut c_ulonglong,
) -> nvmlReturn_t {
    answer_for("nvmlDeviceGetRetiredPages_v2", index_of(device), |gpu| {
        let pages = retired(gpu, cause)?;
        let write = || {
            for page in 0..pages {
                // SAFETY: the caller's.
                unsafe {
                    addresses.add(page).write(page as u64);
                    times.add(page).write(0);
                }
            }
        };
        // SAFETY: the caller's.
        unsafe { put_list(count, pages, write) }
    })
}

/// `nvmlDeviceGetNvLinkState`.
///
/// # Safety
/// As NVML demands: the pointer to the result is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNvLinkState(
    device: nvmlDevice_t,
    link: c_uint,
    state: *mut nvmlEnableState_t,
) -> nvmlReturn_t {
    answer_for("nvmlDeviceGetNvLinkState", index_of(device), |gpu| {
        let links = gpu.nvlinks.as_ref().ok_or(Code::NotSupported)?;
        let up = *links.get(link as usize).ok_or(Code::InvalidArgument)?;
        // SAFETY: the caller's.
        unsafe { put(state, up.into()) }
    })
}

/// Exports functions that list processes: all of the scenario's compute.
macro_rules! processes {
    ($($function:ident = $share:expr;)*) => {$(
        #[doc = concat!("`", stringify!($function), "`.\n\n# Safety\nAs NVML demands: `infos` is valid for as many writes as `count` says.")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $function(device: nvmlDevice_t, count: *mut c_uint, infos: *mut nvmlProcessInfo_t) -> nvmlReturn_t {
            answer_for(stringify!($function), index_of(device), |gpu| {
                let processes = gpu.processes.as_ref().ok_or(Code::NotSupported)?;
                let processes = processes.get(..$share(processes.len())).unwrap_or_default();
                let write = || for (place, process) in processes.iter().enumerate() {
                    let info = nvmlProcessInfo_t {
                        pid: process.pid,
                        usedGpuMemory: process.memory_used,
                        gpuInstanceId: c_uint::MAX,
                        computeInstanceId: c_uint::MAX,
                    };
                    // SAFETY: the caller's.
                    unsafe { infos.add(place).write(info) };
                };
                // SAFETY: the caller's.
                unsafe { put_list(count, processes.len(), write) }
            })
        }
    )*};
}

processes! {
    nvmlDeviceGetComputeRunningProcesses_v3 = |all| all;
    nvmlDeviceGetGraphicsRunningProcesses_v3 = |_| 0;
}

/// `nvmlDeviceGetFieldValues`.
///
/// # Safety
/// As NVML demands: `values` points to `count` structures whose `fieldId` is set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetFieldValues(
    device: nvmlDevice_t,
    count: c_int,
    values: *mut nvmlFieldValue_t,
) -> nvmlReturn_t {
    answer_for("nvmlDeviceGetFieldValues", index_of(device), |gpu| {
        for place in 0..usize::try_from(count).map_err(|_| Code::InvalidArgument)? {
            // SAFETY: the caller's.
            let value = unsafe { values.add(place).as_mut() }.ok_or(Code::InvalidArgument)?;
            match field(gpu, value.fieldId) {
                Some(number) => {
                    // NVML_VALUE_TYPE_UNSIGNED_LONG_LONG of nvml.h.
                    value.valueType = 3;
                    value.value = nvmlValue_t { ullVal: number };
                    value.nvmlReturn = Code::Success as nvmlReturn_t;
                }
                None => value.nvmlReturn = Code::NotSupported as nvmlReturn_t,
            }
        }
        Ok(())
    })
}

fn field(gpu: &Gpu, id: c_uint) -> Option<u64> {
    let rows = gpu.remapped_rows.as_ref();
    match id {
        field_id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION => gpu.recovery_action.map(Into::into),
        field_id::NVML_FI_DEV_MEMORY_TEMP => gpu.memory_temperature.map(Into::into),
        field_id::NVML_FI_DEV_NVLINK_LINK_COUNT => gpu.nvlinks.as_ref()?.len().try_into().ok(),
        field_id::NVML_FI_DEV_PERF_POLICY_POWER => gpu.power_slowdown,
        field_id::NVML_FI_DEV_PERF_POLICY_THERMAL => gpu.thermal_slowdown,
        field_id::NVML_FI_DEV_REMAPPED_COR => Some(rows?.corrected.into()),
        field_id::NVML_FI_DEV_REMAPPED_UNC => Some(rows?.uncorrected.into()),
        field_id::NVML_FI_DEV_REMAPPED_PENDING => Some(rows?.pending.into()),
        field_id::NVML_FI_DEV_REMAPPED_FAILURE => Some(rows?.failed.into()),
        _ => None,
    }
}

/// `nvmlDeviceGetGpuFabricInfo`.
///
/// # Safety
/// As NVML demands: the pointer to the result is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuFabricInfo(
    device: nvmlDevice_t,
    info: *mut nvmlGpuFabricInfo_t,
) -> nvmlReturn_t {
    answer_for("nvmlDeviceGetGpuFabricInfo", index_of(device), |gpu| {
        let fabric = gpu.fabric.as_ref().ok_or(Code::NotSupported)?;
        let value = nvmlGpuFabricInfo_t {
            clusterUuid: [0; 16],
            status: fabric.status,
            cliqueId: 0,
            state: fabric.state,
        };
        // SAFETY: the caller's.
        unsafe { put(info, value) }
    })
}
