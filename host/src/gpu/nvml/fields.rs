//! NVML's numbered fields, asked for together: one call of the driver answers many of them.

use std::time::Duration;

use aio_protocol::telemetry::{RecoveryAction, RemappedRows};
use nvml_wrapper::{
    Device,
    enums::device::SampleValue,
    structs::device::FieldId,
    sys_exports::field_id::{
        NVML_FI_DEV_GET_GPU_RECOVERY_ACTION, NVML_FI_DEV_MEMORY_TEMP, NVML_FI_DEV_NVLINK_LINK_COUNT,
        NVML_FI_DEV_PERF_POLICY_POWER, NVML_FI_DEV_PERF_POLICY_THERMAL, NVML_FI_DEV_REMAPPED_COR,
        NVML_FI_DEV_REMAPPED_FAILURE, NVML_FI_DEV_REMAPPED_PENDING, NVML_FI_DEV_REMAPPED_UNC,
    },
};

const ASKED: [u32; 9] = [
    NVML_FI_DEV_GET_GPU_RECOVERY_ACTION,
    NVML_FI_DEV_MEMORY_TEMP,
    NVML_FI_DEV_NVLINK_LINK_COUNT,
    NVML_FI_DEV_PERF_POLICY_POWER,
    NVML_FI_DEV_PERF_POLICY_THERMAL,
    NVML_FI_DEV_REMAPPED_COR,
    NVML_FI_DEV_REMAPPED_UNC,
    NVML_FI_DEV_REMAPPED_PENDING,
    NVML_FI_DEV_REMAPPED_FAILURE,
];

/// The fields that the driver answered.
pub(super) struct Fields(Vec<(u32, u64)>);

impl Fields {
    pub(super) fn of(device: &Device<'_>) -> Self {
        let answers = device.field_values_for(&ASKED.map(FieldId)).unwrap_or_default();
        // Answers come in the order of the questions; the number in them may be the one of another
        // generation of drivers.
        let values = ASKED.into_iter().zip(answers).filter_map(|(field, answer)| {
            let number = match answer.ok()?.value.ok()? {
                SampleValue::U32(number) => u64::from(number),
                SampleValue::U64(number) => number,
                SampleValue::I64(number) => number.try_into().ok()?,
                SampleValue::F64(_) => return None,
            };
            Some((field, number))
        });
        Self(values.collect())
    }

    fn number(&self, field: u32) -> Option<u64> {
        self.0.iter().find(|(answered, _)| *answered == field).map(|(_, number)| *number)
    }

    fn small(&self, field: u32) -> Option<u32> {
        self.number(field)?.try_into().ok()
    }

    /// °C; a GPU whose memory has no sensor says 0.
    pub(super) fn memory_temperature(&self) -> Option<u32> {
        self.small(NVML_FI_DEV_MEMORY_TEMP).filter(|&celsius| celsius > 0)
    }

    /// NVLinks that the board has.
    pub(super) fn nvlinks(&self) -> u32 {
        self.small(NVML_FI_DEV_NVLINK_LINK_COUNT).unwrap_or_default()
    }

    pub(super) fn power_slowdown(&self) -> Option<Duration> {
        self.number(NVML_FI_DEV_PERF_POLICY_POWER).map(Duration::from_nanos)
    }

    pub(super) fn thermal_slowdown(&self) -> Option<Duration> {
        self.number(NVML_FI_DEV_PERF_POLICY_THERMAL).map(Duration::from_nanos)
    }

    pub(super) fn remapped_rows(&self) -> Option<RemappedRows> {
        Some(RemappedRows {
            corrected: self.small(NVML_FI_DEV_REMAPPED_COR)?,
            uncorrected: self.small(NVML_FI_DEV_REMAPPED_UNC)?,
            pending: self.number(NVML_FI_DEV_REMAPPED_PENDING)? != 0,
            failed: self.number(NVML_FI_DEV_REMAPPED_FAILURE)? != 0,
        })
    }

    /// `nvmlDeviceGpuRecoveryAction_t` of nvml.h. What it does not know yet is a reason to have
    /// somebody look.
    pub(super) fn recovery_action(&self) -> Option<RecoveryAction> {
        Some(match self.number(NVML_FI_DEV_GET_GPU_RECOVERY_ACTION)? {
            0 => RecoveryAction::Nothing,
            1 => RecoveryAction::ResetGpu,
            2 => RecoveryAction::Reboot,
            3 => RecoveryAction::DrainP2p,
            4 => RecoveryAction::DrainAndReset,
            _ => RecoveryAction::ContactSupport,
        })
    }
}
