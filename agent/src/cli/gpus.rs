//! GPUs as a screen shows them: one line of the driver, then one line each. Pure.

use aio_protocol::{
    inventory::{Gpu, GpuDriver, GpuDriverState},
    telemetry::{GpuDetail, HealthSummary},
};

/// What is shown where the driver did not say.
const NOTHING: &str = "-";

/// The driver and the GPUs' health in one line.
pub(super) fn headline(driver: Option<&GpuDriver>, gpus: &[Gpu], health: &HealthSummary) -> String {
    let Some(driver) = driver else { return "not asked yet".to_owned() };
    let reason = driver.reason.as_deref();
    match driver.state {
        GpuDriverState::Absent => reason.unwrap_or("no NVIDIA driver").to_owned(),
        GpuDriverState::Unknown => format!("unknown: {}", reason.unwrap_or("driver not answering")),
        GpuDriverState::Ok => {
            let mut line = gpus.len().to_string();
            for (name, version) in [("driver", &driver.version), ("CUDA", &driver.cuda_version)] {
                if let Some(version) = version {
                    line.push_str(&format!(", {name} {version}"));
                }
            }
            line.push_str(&format!(", {}", health.state.as_str()));
            if let Some(worst) = &health.worst {
                line.push_str(&format!(" ({worst})"));
            }
            line
        }
    }
}

/// One line per GPU, in columns.
pub(super) fn table(gpus: &[Gpu], details: &[GpuDetail]) -> String {
    columns(&gpus.iter().map(|gpu| row(gpu, details)).collect::<Vec<_>>())
}

/// Rows whose cells stand below each other.
pub(super) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(&format!("  {}\n", cells.join("  ").trim_end()));
    }
    text
}

fn row(gpu: &Gpu, details: &[GpuDetail]) -> [String; 7] {
    let detail = details.iter().find(|detail| detail.status.device_id == gpu.device_id);
    let status = detail.map(|detail| &detail.status);
    let number = |value: Option<u32>, unit: &str| {
        value.map_or_else(|| NOTHING.to_owned(), |value| format!("{value} {unit}"))
    };
    let total = gpu.memory_total.map_or_else(|| NOTHING.to_owned(), gibibytes);
    let memory = match status.and_then(|status| status.memory_used) {
        Some(used) => format!("{} of {total}", gibibytes(used)),
        None => total,
    };
    [
        gpu.device_id.clone(),
        gpu.model.clone(),
        memory,
        number(status.and_then(|status| status.utilization), "%"),
        number(status.and_then(|status| status.temperature), "°C"),
        number(status.and_then(|status| status.power_draw), "W"),
        super::paint::health(status.map_or(NOTHING, |status| status.health.as_str())),
    ]
}

/// Bytes as people read memory.
pub(super) fn gibibytes(bytes: u64) -> String {
    let tenths = u128::from(bytes) * 10 / (1 << 30);
    format!("{}.{} GiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{health::Judged, telemetry::messages::tests::full};

    #[test]
    fn gpus_stand_in_columns() {
        let mut judged = Judged::clone(&full(2).gpu.unwrap());
        judged.details[1].status.temperature = None;
        assert_eq!(headline(Some(&judged.driver), &judged.gpus, &judged.summary), "2, driver 550, ok");
        assert_eq!(
            table(&judged.gpus, &judged.details),
            "  0  NVIDIA H100  80.0 GiB of 80.0 GiB  100 %  88 °C  700 W  ok\n  \
               1  NVIDIA H100  80.0 GiB of 80.0 GiB  100 %  -      700 W  ok\n"
        );
    }

    #[test]
    fn a_machine_without_a_driver_says_so_in_words() {
        let driver = GpuDriver {
            state: GpuDriverState::Absent,
            reason: Some("no NVIDIA driver".into()),
            version: None,
            cuda_version: None,
        };
        assert_eq!(headline(Some(&driver), &[], &HealthSummary::default()), "no NVIDIA driver");
        assert_eq!(table(&[], &[]), "");
    }
}
