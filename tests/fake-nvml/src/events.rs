//! The errors that the driver tells of by itself: what is added to the scenario's `xids`, to
//! whoever has registered for it.

use std::{
    collections::BTreeMap,
    ffi::{c_uint, c_ulonglong},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlEventData_t, nvmlEventSet_t, nvmlEventTypeXidCriticalError, nvmlReturn_t,
};

use crate::{answer, answer_for, handle, index_of, put, scenario::Code};

/// How often a waiting call looks at the scenario. A driver wakes nobody before it has something to
/// say, so looking must not cost much either.
const LOOK: Duration = Duration::from_secs(1);

/// A set: for which GPUs, and how many errors of the scenario were told.
#[derive(Debug)]
struct Set {
    gpus: Vec<usize>,
    told: usize,
}

/// The sets by their number, which is their handle.
static SETS: Mutex<BTreeMap<usize, Set>> = Mutex::new(BTreeMap::new());

fn with_sets<T>(work: impl FnOnce(&mut BTreeMap<usize, Set>) -> T) -> T {
    work(&mut SETS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// `nvmlEventSetCreate`.
///
/// # Safety
/// As NVML demands: the pointer to the result is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetCreate(set: *mut nvmlEventSet_t) -> nvmlReturn_t {
    answer("nvmlEventSetCreate", |scenario| {
        let number = with_sets(|sets| {
            let number = sets.last_key_value().map_or(1, |(last, _)| last + 1);
            sets.insert(number, Set { gpus: vec![], told: scenario.xids.len() });
            number
        });
        // SAFETY: the caller's.
        unsafe { put(set, std::ptr::without_provenance_mut(number)) }
    })
}

/// `nvmlEventSetFree`.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetFree(set: nvmlEventSet_t) -> nvmlReturn_t {
    answer("nvmlEventSetFree", |_| {
        with_sets(|sets| sets.remove(&(set as usize))).map(|_| ()).ok_or(Code::InvalidArgument)
    })
}

/// `nvmlDeviceGetSupportedEventTypes`.
///
/// # Safety
/// As NVML demands: the pointer to the result is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetSupportedEventTypes(
    device: nvmlDevice_t,
    types: *mut c_ulonglong,
) -> nvmlReturn_t {
    answer_for("nvmlDeviceGetSupportedEventTypes", index_of(device), |gpu| {
        let supported = if gpu.events { nvmlEventTypeXidCriticalError } else { 0 };
        // SAFETY: the caller's.
        unsafe { put(types, supported.into()) }
    })
}

/// `nvmlDeviceRegisterEvents`.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceRegisterEvents(
    device: nvmlDevice_t,
    types: c_ulonglong,
    set: nvmlEventSet_t,
) -> nvmlReturn_t {
    let index = index_of(device);
    answer_for("nvmlDeviceRegisterEvents", index, |gpu| {
        if !gpu.events || types != c_ulonglong::from(nvmlEventTypeXidCriticalError) {
            return Err(Code::NotSupported);
        }
        with_sets(|sets| {
            sets.get_mut(&(set as usize)).ok_or(Code::InvalidArgument)?.gpus.push(index);
            Ok(())
        })
    })
}

/// `nvmlEventSetWait_v2`.
///
/// # Safety
/// As NVML demands: the pointer to the result is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetWait_v2(
    set: nvmlEventSet_t,
    data: *mut nvmlEventData_t,
    timeout: c_uint,
) -> nvmlReturn_t {
    let deadline = Instant::now() + Duration::from_millis(timeout.into());
    loop {
        let waited = answer("nvmlEventSetWait_v2", |scenario| {
            let next = with_sets(|sets| {
                let set = sets.get_mut(&(set as usize)).ok_or(Code::InvalidArgument)?;
                while let Some(xid) = scenario.xids.get(set.told) {
                    set.told += 1;
                    if set.gpus.contains(&xid.gpu) {
                        return Ok(*xid);
                    }
                }
                // A scenario that was replaced may have told less.
                set.told = set.told.min(scenario.xids.len());
                Err(Code::Timeout)
            })?;
            let event = nvmlEventData_t {
                device: handle(next.gpu, None),
                eventType: nvmlEventTypeXidCriticalError.into(),
                eventData: next.code,
                gpuInstanceId: c_uint::MAX,
                computeInstanceId: c_uint::MAX,
            };
            // SAFETY: the caller's.
            unsafe { put(data, event) }
        });
        let now = Instant::now();
        if waited != Code::Timeout as nvmlReturn_t || now >= deadline {
            return waited;
        }
        thread::sleep(LOOK.min(deadline - now));
    }
}
