//! A `libnvidia-ml.so.1` for machines without GPUs: it exports the functions that the worker calls, and its
//! GPUs, their readings and their faults come from a JSON file. To use it, name its path as `nvml_library`
//! (or `AIO_NVML_LIBRARY`).
//!
//! The scenario is the file beside the library whose name is the library's with `.json` added, if there is
//! one, else the file that `FAKE_NVML_SCENARIO` names. It is read again when it changes, so faults come and
//! go while a process runs; replace it by rename. Every key may be left out:
//!
//! ```json
//! {
//!   "driverVersion": "550.127.05",
//!   "cudaVersion": "12.4",
//!   "init": "DRIVER_NOT_LOADED",
//!   "hang": true,
//!   "faults": { "nvmlDeviceGetCount_v2": "UNKNOWN" },
//!   "gpus": [
//!     {
//!       "name": "NVIDIA H100 80GB HBM3",
//!       "uuid": "GPU-…", "serial": "165…", "pciBusId": "00000000:1B:00.0",
//!       "memoryTotal": 85520809984, "memoryUsed": 536870912,
//!       "utilization": 0, "temperature": 31, "power": 71250, "powerLimit": 700000,
//!       "vbios": "96.00…", "ecc": true, "persistence": true, "events": true,
//!       "maxPcie": { "generation": 5, "width": 16 }, "pcie": { "generation": 5, "width": 16 },
//!       "mig": [ { "uuid": "MIG-…", "memoryTotal": 10468982784 } ], "nvlinks": [true, true],
//!       "slowdownTemperature": 87, "memoryTemperature": 40, "clockSm": 1980, "clockMemory": 2619, "throttleReasons": 4,
//!       "eccErrors": { "volatileUncorrected": 0 }, "remappedRows": { "pending": false }, "retiredPages": { "pending": false },
//!       "thermalSlowdown": 0, "powerSlowdown": 0, "energy": 1000, "recoveryAction": 0, "fabric": { "state": 3, "status": 0 },
//!       "processes": [ { "pid": 4711, "memoryUsed": 1073741824 } ],
//!       "fault": "GPU_IS_LOST",
//!       "hang": ["nvmlDeviceGetTemperature"],
//!       "faults": { "nvmlDeviceGetSerial": "NO_PERMISSION" }
//!     }
//!   ],
//!   "xids": [ { "gpu": 0, "code": 79 } ]
//! }
//! ```
//!
//! - Errors are NVML's names without `NVML_ERROR_`. `init` is what initialisation answers, `fault` what every
//!   call about a GPU answers (finding it by index included), `faults` what single functions answer, for all
//!   GPUs or for one.
//! - `hang` is `true` for every function or a list of functions, for all GPUs or for one. A hung call returns
//!   when the scenario no longer says so.
//! - Memory is bytes, temperature °C, power milliwatts, energy millijoules, slowdowns nanoseconds;
//!   the rest are NVML's own numbers. A GPU does not support what it leaves out.
//! - A GPU with `events` tells whoever has registered for them of each error that is added to `xids`.
//!   Those that stood there before are history.
//!
//! A file beside the library whose name is the library's with `.device` added stands for the driver's device:
//! it is held open from initialisation to shutdown.
//!
//! Without a scenario, initialisation fails with `DRIVER_NOT_LOADED`.

mod detail;
mod events;
mod scenario;

use std::{
    ffi::{CStr, c_char, c_int, c_uint},
    sync::atomic::{AtomicU32, Ordering},
};

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlMemory_t, nvmlMemory_v2_t, nvmlPciInfo_t, nvmlReturn_t, nvmlTemperatureSensors_t,
    nvmlUtilization_t,
};

use crate::scenario::{Code, Gpu, Scenario};

/// Initialisations that were not yet followed by a shutdown.
static SESSIONS: AtomicU32 = AtomicU32::new(0);

/// Answers a call: `body` runs unless the scenario has the function hang or fail.
fn answer(function: &str, body: impl FnOnce(&Scenario) -> Result<(), Code>) -> nvmlReturn_t {
    answer_of(&scenario::current_unless_hung(function, None), function, body)
}

fn answer_of(
    scenario: &Scenario,
    function: &str,
    body: impl FnOnce(&Scenario) -> Result<(), Code>,
) -> nvmlReturn_t {
    let body = || {
        if SESSIONS.load(Ordering::SeqCst) == 0 {
            return Err(Code::Uninitialized);
        }
        scenario.fault(function)?;
        body(scenario)
    };
    body().err().unwrap_or(Code::Success) as nvmlReturn_t
}

/// The same for a call about the GPU with this index.
fn answer_for(function: &str, index: usize, body: impl FnOnce(&Gpu) -> Result<(), Code>) -> nvmlReturn_t {
    let scenario = scenario::current_unless_hung(function, Some(index));
    answer_of(&scenario, function, |scenario| {
        let gpu = scenario.gpus.get(index).ok_or(Code::InvalidArgument)?;
        gpu.fault(function)?;
        body(gpu)
    })
}

/// A handle is the GPU's index and one, so that no handle is null.
fn index_of(device: nvmlDevice_t) -> usize {
    (device as usize & GPU_BITS).wrapping_sub(1)
}

/// The part of a GPU (MIG) that the handle is of, if it is of one.
fn instance_of(device: nvmlDevice_t) -> Option<usize> {
    (device as usize >> GPU_BITS.count_ones()).checked_sub(1)
}

/// The handle of a GPU, or of a part of it.
fn handle(index: usize, instance: Option<usize>) -> nvmlDevice_t {
    let instance = instance.map_or(0, |instance| instance.wrapping_add(1));
    std::ptr::without_provenance_mut(index.wrapping_add(1) | instance << GPU_BITS.count_ones())
}

/// The bits of a handle that count GPUs.
const GPU_BITS: usize = 0xffff;

/// Writes to where the caller wants a value.
///
/// # Safety
/// `target` is null or valid for a write, as NVML demands of its callers.
unsafe fn put<T>(target: *mut T, value: T) -> Result<(), Code> {
    if target.is_null() {
        return Err(Code::InvalidArgument);
    }
    // SAFETY: by this function's contract.
    unsafe { target.write(value) };
    Ok(())
}

/// Writes a text and its end to the caller's buffer.
///
/// # Safety
/// `buffer` is null or valid for writes of `length` bytes, as NVML demands of its callers.
unsafe fn put_text(buffer: *mut c_char, length: c_uint, text: Option<&str>) -> Result<(), Code> {
    let text = text.ok_or(Code::NotSupported)?;
    if buffer.is_null() {
        return Err(Code::InvalidArgument);
    }
    if text.len() >= length as usize {
        return Err(Code::InsufficientSize);
    }
    // SAFETY: by this function's contract, and the text with its end is no longer than `length`.
    unsafe {
        buffer.copy_from_nonoverlapping(text.as_ptr().cast(), text.len());
        buffer.add(text.len()).write(0);
    }
    Ok(())
}

fn initialise(function: &str) -> nvmlReturn_t {
    let scenario = scenario::current_unless_hung(function, None);
    if let Some(code) = scenario.init {
        return code as nvmlReturn_t;
    }
    SESSIONS.fetch_add(1, Ordering::SeqCst);
    scenario::open_device();
    Code::Success as nvmlReturn_t
}

/// `nvmlInit_v2`.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    initialise("nvmlInit_v2")
}

/// `nvmlInitWithFlags`.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> nvmlReturn_t {
    initialise("nvmlInitWithFlags")
}

/// `nvmlShutdown`.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    answer("nvmlShutdown", |_| {
        SESSIONS.fetch_sub(1, Ordering::SeqCst);
        scenario::close_device();
        Ok(())
    })
}

/// `nvmlErrorString`.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(code: nvmlReturn_t) -> *const c_char {
    let text: &'static CStr = if code == 0 { c"Success" } else { c"An error of the scenario" };
    text.as_ptr()
}

/// `nvmlSystemGetDriverVersion`.
///
/// # Safety
/// As NVML demands: `version` is null or valid for writes of `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) -> nvmlReturn_t {
    answer("nvmlSystemGetDriverVersion", |scenario| {
        // SAFETY: the caller's.
        unsafe { put_text(version, length, scenario.driver_version.as_deref()) }
    })
}

/// `nvmlSystemGetCudaDriverVersion_v2`.
///
/// # Safety
/// As NVML demands: the pointer to the result is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> nvmlReturn_t {
    answer("nvmlSystemGetCudaDriverVersion_v2", |scenario| {
        // SAFETY: the caller's.
        unsafe { put(version, scenario.cuda_version_number().ok_or(Code::LibraryNotFound)?) }
    })
}

/// `nvmlDeviceGetCount_v2`.
///
/// # Safety
/// As NVML demands: the pointer to the result is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> nvmlReturn_t {
    answer("nvmlDeviceGetCount_v2", |scenario| {
        // SAFETY: the caller's.
        unsafe { put(count, c_uint::try_from(scenario.gpus.len()).unwrap_or(c_uint::MAX)) }
    })
}

/// `nvmlDeviceGetHandleByIndex_v2`.
///
/// # Safety
/// As NVML demands: the pointer to the result is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(
    index: c_uint,
    device: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    let index = index as usize;
    answer_for("nvmlDeviceGetHandleByIndex_v2", index, |_| {
        // SAFETY: the caller's.
        unsafe { put(device, handle(index, None)) }
    })
}

/// Exports functions that write one text of a GPU.
macro_rules! texts {
    ($($function:ident = $field:ident;)*) => {$(
        #[doc = concat!("`", stringify!($function), "`.\n\n# Safety\nAs NVML demands: `buffer` is null or valid for writes of `length` bytes.")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $function(device: nvmlDevice_t, buffer: *mut c_char, length: c_uint) -> nvmlReturn_t {
            answer_for(stringify!($function), index_of(device), |gpu| {
                // SAFETY: the caller's.
                unsafe { put_text(buffer, length, gpu.$field.as_deref()) }
            })
        }
    )*};
}

texts! {
    nvmlDeviceGetName = name;
    nvmlDeviceGetSerial = serial;
    nvmlDeviceGetVbiosVersion = vbios;
}

/// `nvmlDeviceGetUUID`, of a GPU or of a part of one.
///
/// # Safety
/// As NVML demands: `buffer` is null or valid for writes of `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(
    device: nvmlDevice_t,
    buffer: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    answer_for("nvmlDeviceGetUUID", index_of(device), |gpu| {
        let uuid = match instance_of(device) {
            Some(instance) => Some(gpu.instance(instance)?.uuid.as_str()),
            None => gpu.uuid.as_deref(),
        };
        // SAFETY: the caller's.
        unsafe { put_text(buffer, length, uuid) }
    })
}

/// `nvmlDeviceGetPciInfo_v3`.
///
/// # Safety
/// As NVML demands: the pointer to the result is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(
    device: nvmlDevice_t,
    pci: *mut nvmlPciInfo_t,
) -> nvmlReturn_t {
    answer_for("nvmlDeviceGetPciInfo_v3", index_of(device), |gpu| {
        let text = gpu.pci_bus_id.as_deref().ok_or(Code::NotSupported)?;
        let mut info = nvmlPciInfo_t {
            busIdLegacy: [0; 16],
            domain: 0,
            bus: 0,
            device: 0,
            pciDeviceId: 0x2330_10de,
            pciSubSystemId: 0x16c1_10de,
            busId: [0; 32],
        };
        // The older form of the address has a domain of four digits.
        let legacy = text.get(4..).unwrap_or(text);
        for (field, text) in [(&mut info.busIdLegacy[..], legacy), (&mut info.busId[..], text)] {
            if text.len() >= field.len() {
                return Err(Code::InsufficientSize);
            }
            for (to, from) in field.iter_mut().zip(text.bytes()) {
                *to = from.cast_signed();
            }
        }
        // SAFETY: the caller's.
        unsafe { put(pci, info) }
    })
}

/// `nvmlDeviceGetMemoryInfo`.
///
/// # Safety
/// As NVML demands: the pointer to the result is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo(
    device: nvmlDevice_t,
    memory: *mut nvmlMemory_t,
) -> nvmlReturn_t {
    answer_for("nvmlDeviceGetMemoryInfo", index_of(device), |gpu| {
        let (total, used) = gpu.memory().ok_or(Code::NotSupported)?;
        // SAFETY: the caller's.
        unsafe { put(memory, nvmlMemory_t { total, free: total.saturating_sub(used), used }) }
    })
}

/// `nvmlDeviceGetMemoryInfo_v2`.
///
/// # Safety
/// `memory` is null or points to a structure whose `version` is set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(
    device: nvmlDevice_t,
    memory: *mut nvmlMemory_v2_t,
) -> nvmlReturn_t {
    answer_for("nvmlDeviceGetMemoryInfo_v2", index_of(device), |gpu| {
        let (total, used) = match instance_of(device) {
            Some(instance) => (gpu.instance(instance)?.memory_total, 0),
            None => gpu.memory().ok_or(Code::NotSupported)?,
        };
        // SAFETY: the caller's.
        let asked = unsafe { memory.as_ref() }.ok_or(Code::InvalidArgument)?;
        let version = asked.version;
        // NVML_STRUCT_VERSION(Memory, 2) of nvml.h.
        if version as usize != (size_of::<nvmlMemory_v2_t>() | 2 << 24) {
            return Err(Code::ArgumentVersionMismatch);
        }
        let free = total.saturating_sub(used);
        // SAFETY: the caller's.
        unsafe { put(memory, nvmlMemory_v2_t { version, total, reserved: 0, free, used }) }
    })
}

/// `nvmlDeviceGetUtilizationRates`.
///
/// # Safety
/// As NVML demands: the pointer to the result is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUtilizationRates(
    device: nvmlDevice_t,
    rates: *mut nvmlUtilization_t,
) -> nvmlReturn_t {
    answer_for("nvmlDeviceGetUtilizationRates", index_of(device), |gpu| {
        let percent = gpu.utilization.ok_or(Code::NotSupported)?;
        // SAFETY: the caller's.
        unsafe { put(rates, nvmlUtilization_t { gpu: percent, memory: percent / 2 }) }
    })
}

/// `nvmlDeviceGetTemperature`.
///
/// # Safety
/// As NVML demands: the pointer to the result is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperature(
    device: nvmlDevice_t,
    _sensor: nvmlTemperatureSensors_t,
    temperature: *mut c_uint,
) -> nvmlReturn_t {
    answer_for("nvmlDeviceGetTemperature", index_of(device), |gpu| {
        // SAFETY: the caller's.
        unsafe { put(temperature, gpu.temperature.ok_or(Code::NotSupported)?) }
    })
}

/// `nvmlDeviceGetPowerUsage`.
///
/// # Safety
/// As NVML demands: the pointer to the result is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPowerUsage(
    device: nvmlDevice_t,
    milliwatts: *mut c_uint,
) -> nvmlReturn_t {
    answer_for("nvmlDeviceGetPowerUsage", index_of(device), |gpu| {
        // SAFETY: the caller's.
        unsafe { put(milliwatts, gpu.power.ok_or(Code::NotSupported)?) }
    })
}
