//! GPUs' figures under the names, units and labels of NVIDIA's dcgm-exporter, so that dashboards which were
//! made for it work. Only where NVML, which the worker asks, means the same as DCGM. Left out therefore: what
//! only DCGM measures (`PROF`), and `FB_FREE`, because what the driver reserves is not known.

use super::catalogue::{Family, Of, counter, gauge, number};
use crate::telemetry::reading::GpuReading;

const MIB: u64 = 1024 * 1024;

pub(super) const FAMILIES: &[Family] = &[
    gauge(
        "DCGM_FI_DEV_SM_CLOCK",
        &[],
        "SM clock, in MHz.",
        Of::Gpu(|_, told, series| {
            series.value(told.and_then(|it| it.clock_sm).map(f64::from));
        }),
    ),
    gauge(
        "DCGM_FI_DEV_MEM_CLOCK",
        &[],
        "Memory clock, in MHz.",
        Of::Gpu(|_, told, series| {
            series.value(told.and_then(|it| it.clock_memory).map(f64::from));
        }),
    ),
    gauge(
        "DCGM_FI_DEV_MEMORY_TEMP",
        &[],
        "Memory temperature, in °C.",
        Of::Gpu(|_, told, series| {
            series.value(told.and_then(|it| it.memory_temperature).map(f64::from));
        }),
    ),
    gauge(
        "DCGM_FI_DEV_GPU_TEMP",
        &[],
        "GPU temperature, in °C.",
        Of::Gpu(|_, told, series| {
            series.value(told.and_then(|it| it.temperature).map(f64::from));
        }),
    ),
    gauge(
        "DCGM_FI_DEV_POWER_USAGE",
        &[],
        "Power draw, in W, rounded.",
        Of::Gpu(|_, told, series| {
            series.value(told.and_then(|it| it.power_draw).map(f64::from));
        }),
    ),
    gauge(
        "DCGM_FI_DEV_GPU_UTIL",
        &[],
        "GPU utilization, in %.",
        Of::Gpu(|_, told, series| {
            series.value(told.and_then(|it| it.utilization).map(f64::from));
        }),
    ),
    gauge(
        "DCGM_FI_DEV_FB_USED",
        &[],
        "Memory used, in MiB.",
        Of::Gpu(|_, told, series| {
            series.value(told.and_then(|it| it.memory_used).map(|bytes| number(bytes / MIB)));
        }),
    ),
    counter(
        "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL",
        &[],
        "Corrected memory errors since the driver was loaded.",
        Of::Gpu(|_, told, series| {
            series.value(errors(told).map(|it| number(it.volatile_corrected)));
        }),
    ),
    counter(
        "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL",
        &[],
        "Uncorrected memory errors since the driver was loaded.",
        Of::Gpu(|_, told, series| {
            series.value(errors(told).map(|it| number(it.volatile_uncorrected)));
        }),
    ),
    counter(
        "DCGM_FI_DEV_ECC_SBE_AGG_TOTAL",
        &[],
        "Corrected memory errors, ever.",
        Of::Gpu(|_, told, series| {
            series.value(errors(told).map(|it| number(it.aggregate_corrected)));
        }),
    ),
    counter(
        "DCGM_FI_DEV_ECC_DBE_AGG_TOTAL",
        &[],
        "Uncorrected memory errors, ever.",
        Of::Gpu(|_, told, series| {
            series.value(errors(told).map(|it| number(it.aggregate_uncorrected)));
        }),
    ),
    counter(
        "DCGM_FI_DEV_RETIRED_SBE",
        &[],
        "Pages retired for several corrected errors.",
        Of::Gpu(|_, told, series| {
            series.value(
                told.and_then(|it| it.detail.retired_pages.as_ref()).map(|it| f64::from(it.corrected)),
            );
        }),
    ),
    counter(
        "DCGM_FI_DEV_RETIRED_DBE",
        &[],
        "Pages retired for an uncorrected error.",
        Of::Gpu(|_, told, series| {
            series.value(
                told.and_then(|it| it.detail.retired_pages.as_ref()).map(|it| f64::from(it.uncorrected)),
            );
        }),
    ),
    counter(
        "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS",
        &[],
        "Rows remapped for uncorrected errors.",
        Of::Gpu(|_, told, series| {
            series.value(
                told.and_then(|it| it.detail.remapped_rows.as_ref()).map(|it| f64::from(it.uncorrected)),
            );
        }),
    ),
    counter(
        "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS",
        &[],
        "Rows remapped for corrected errors.",
        Of::Gpu(|_, told, series| {
            series.value(
                told.and_then(|it| it.detail.remapped_rows.as_ref()).map(|it| f64::from(it.corrected)),
            );
        }),
    ),
    gauge(
        "DCGM_FI_DEV_ROW_REMAP_FAILURE",
        &[],
        "1 if a row could not be remapped.",
        Of::Gpu(|_, told, series| {
            series.value(
                told.and_then(|it| it.detail.remapped_rows.as_ref()).map(|it| f64::from(u8::from(it.failed))),
            );
        }),
    ),
];

fn errors(told: Option<&GpuReading>) -> Option<&aio_protocol::telemetry::EccErrors> {
    told?.detail.ecc_errors.as_ref()
}
