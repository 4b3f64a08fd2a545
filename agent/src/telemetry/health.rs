//! The machine's health in a word and a sentence, made of its GPUs'. Pure. `unknown` is never `ok`: a driver that is absent, silent
//! or sees no GPU is told as such.

use aio_host::gpu::GpuReport;
use aio_protocol::{
    inventory::GpuDriverState,
    telemetry::{Health, HealthSummary},
};

/// The worst of all GPUs.
pub fn summary(report: Option<&GpuReport>) -> HealthSummary {
    let unknown = |why: &str| HealthSummary { state: Health::Unknown, worst: Some(why.to_owned()) };
    let Some(report) = report else { return unknown("the GPU driver has not been asked yet") };
    let reason = report.driver.reason.as_deref();
    match report.driver.state {
        GpuDriverState::Absent => unknown(reason.unwrap_or("no NVIDIA driver")),
        GpuDriverState::Unknown => unknown(reason.unwrap_or("driver not answering")),
        GpuDriverState::Ok => {
            // The first of the worst, so that the sentence does not jump between equals.
            let worst = report.status.iter().rev().max_by_key(|gpu| gpu.health);
            match worst {
                None => unknown("the driver sees no GPU"),
                Some(gpu) if gpu.health == Health::Ok => HealthSummary { state: Health::Ok, worst: None },
                Some(gpu) => HealthSummary {
                    state: gpu.health,
                    worst: Some(format!("GPU {} is {}", gpu.device_id, word(gpu.health))),
                },
            }
        }
    }
}

/// A health as people read it.
pub fn word(health: Health) -> &'static str {
    match health {
        Health::Ok => "ok",
        Health::Degraded => "degraded",
        Health::Unknown => "unknown",
        Health::Unhealthy => "unhealthy",
    }
}

#[cfg(test)]
mod tests {
    use aio_protocol::{
        inventory::GpuDriver,
        telemetry::{GpuActivity, GpuStatus},
    };

    use super::*;

    fn report(state: GpuDriverState, reason: Option<&str>, healths: &[Health]) -> GpuReport {
        let status = healths.iter().enumerate().map(|(index, &health)| GpuStatus {
            device_id: index.to_string(),
            utilization: None,
            memory_used: None,
            temperature: None,
            power_draw: None,
            status: GpuActivity::Active,
            health,
        });
        GpuReport {
            driver: GpuDriver { state, reason: reason.map(str::to_owned), version: None, cuda_version: None },
            gpus: vec![],
            status: status.collect(),
        }
    }

    #[test]
    fn the_first_of_the_worst_is_named() {
        use Health::{Degraded, Ok, Unhealthy, Unknown};
        for (healths, state, worst) in [
            (vec![Ok, Ok], Ok, None),
            (vec![Ok, Degraded, Degraded], Degraded, Some("GPU 1 is degraded")),
            (vec![Degraded, Unknown], Unknown, Some("GPU 1 is unknown")),
            (vec![Unhealthy, Unknown], Unhealthy, Some("GPU 0 is unhealthy")),
        ] {
            let summary = summary(Some(&report(GpuDriverState::Ok, None, &healths)));
            assert_eq!((summary.state, summary.worst.as_deref()), (state, worst), "{healths:?}");
        }
    }

    #[test]
    fn who_does_not_answer_is_unknown_and_says_why() {
        let absent = report(GpuDriverState::Absent, Some("no NVIDIA driver"), &[]);
        let silent = report(GpuDriverState::Unknown, Some("driver not answering"), &[Health::Ok]);
        let empty = report(GpuDriverState::Ok, None, &[]);
        for (report, why) in [
            (None, "the GPU driver has not been asked yet"),
            (Some(&absent), "no NVIDIA driver"),
            (Some(&silent), "driver not answering"),
            (Some(&empty), "the driver sees no GPU"),
        ] {
            let summary = summary(report);
            assert_eq!((summary.state, summary.worst.as_deref()), (Health::Unknown, Some(why)));
        }
    }
}
