//! The machine's GPU health in a word and a sentence. Pure.

use aio_protocol::{
    inventory::{Gpu, GpuDriver, GpuDriverState},
    telemetry::{GpuDetail, Health, HealthSummary, RecoveryAction},
};

use super::called;

/// Characters of the sentence, and an ellipsis where it was longer: a heartbeat carries it, and is
/// to fit into one segment.
pub const LONGEST: usize = 120;

/// The worst of all. `expected` is how many GPUs there are to be, where that is more than all that are known.
pub fn summary(
    driver: &GpuDriver,
    details: &[GpuDetail],
    missing: &[Gpu],
    expected: Option<u32>,
) -> HealthSummary {
    let unknown = |why: &str| told(Health::Unknown, why, RecoveryAction::Nothing);
    let reason = driver.reason.as_deref();
    match driver.state {
        GpuDriverState::Absent if missing.is_empty() => {
            return unknown(reason.unwrap_or("no NVIDIA driver"));
        }
        GpuDriverState::Unknown => return unknown(reason.unwrap_or("driver not answering")),
        GpuDriverState::Ok | GpuDriverState::Absent => {}
    }
    let here = details.len();
    if let Some(gpu) = missing.first() {
        let others = if missing.len() > 1 { " and others" } else { "" };
        let all = here.saturating_add(missing.len());
        let words = format!("{} of {all} GPUs missing: {}{others}", missing.len(), called(gpu));
        return match reason.filter(|_| driver.state == GpuDriverState::Absent) {
            Some(reason) => told(Health::Unhealthy, &format!("{reason}; {words}"), RecoveryAction::Nothing),
            None => told(Health::Unhealthy, &words, RecoveryAction::Reboot),
        };
    }
    if let Some(expected) = expected {
        let words = format!("{here} of {expected} expected GPUs are here");
        return told(Health::Unhealthy, &words, RecoveryAction::CheckMechanicals);
    }
    // The first of the worst, so that the sentence does not jump between equals.
    let worst = details.iter().rev().max_by_key(|detail| detail.status.health);
    match worst {
        None => unknown("the driver sees no GPU"),
        Some(detail) if detail.status.health == Health::Ok => HealthSummary::default(),
        Some(detail) => {
            let status = &detail.status;
            match detail.findings.first() {
                Some(finding) => {
                    let words = format!("GPU {}: {}", status.device_id, finding.reason);
                    told(status.health, &words, finding.action)
                }
                None => {
                    let words = format!("GPU {} is {}", status.device_id, status.health.as_str());
                    told(status.health, &words, RecoveryAction::Nothing)
                }
            }
        }
    }
}

fn told(state: Health, words: &str, action: RecoveryAction) -> HealthSummary {
    let worst = match words.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", words.get(..end).unwrap_or(words)),
        None => words.to_owned(),
    };
    HealthSummary { state, worst: Some(worst), action }
}

#[cfg(test)]
mod tests {
    use aio_protocol::telemetry::Finding;

    use super::*;

    fn driver(state: GpuDriverState, reason: Option<&str>) -> GpuDriver {
        GpuDriver { state, reason: reason.map(str::to_owned), version: None, cuda_version: None }
    }

    fn detail(index: usize, health: Health) -> GpuDetail {
        let mut detail = GpuDetail::unknown(index.to_string());
        detail.status.health = health;
        if health != Health::Ok {
            let reason = format!("it is {}", health.as_str());
            detail.findings = vec![Finding { health, reason, action: RecoveryAction::ResetGpu }];
        }
        detail
    }

    #[test]
    fn the_first_of_the_worst_is_named_with_its_reason_and_cure() {
        use Health::{Degraded, Ok, Unhealthy, Unknown};
        for (healths, state, worst) in [
            (vec![Ok, Ok], Ok, None),
            (vec![Ok, Degraded, Degraded], Degraded, Some("GPU 1: it is degraded")),
            (vec![Degraded, Unknown], Unknown, Some("GPU 1: it is unknown")),
            (vec![Unhealthy, Unknown], Unhealthy, Some("GPU 0: it is unhealthy")),
        ] {
            let details: Vec<_> =
                healths.iter().enumerate().map(|(index, &health)| detail(index, health)).collect();
            let summary = summary(&driver(GpuDriverState::Ok, None), &details, &[], None);
            assert_eq!((summary.state, summary.worst.as_deref()), (state, worst), "{healths:?}");
            assert_eq!(summary.action.is_nothing(), state == Ok, "{healths:?}");
        }
    }

    #[test]
    fn who_does_not_answer_is_unknown_and_says_why() {
        for (driver, why) in [
            (driver(GpuDriverState::Absent, Some("no NVIDIA driver")), "no NVIDIA driver"),
            (driver(GpuDriverState::Unknown, Some("driver not answering")), "driver not answering"),
            (driver(GpuDriverState::Ok, None), "the driver sees no GPU"),
        ] {
            let details =
                if driver.state == GpuDriverState::Ok { vec![] } else { vec![detail(0, Health::Ok)] };
            let summary = summary(&driver, &details, &[], None);
            assert_eq!((summary.state, summary.worst.as_deref()), (Health::Unknown, Some(why)));
        }
    }

    #[test]
    fn a_gpu_that_is_gone_is_worse_than_any_that_is_here() {
        let gone =
            Gpu { device_id: "1".into(), model: "H100".into(), uuid: Some("GPU-1".into()), ..Gpu::default() };
        let here = [detail(0, Health::Ok)];
        let well = driver(GpuDriverState::Ok, None);
        let summary_of = |missing: &[Gpu], expected| summary(&well, &here, missing, expected);
        let lost = summary_of(&[gone], None);
        assert_eq!(lost.state, Health::Unhealthy);
        assert_eq!(lost.worst.as_deref(), Some("1 of 2 GPUs missing: GPU 1 (H100 GPU-1)"));
        let absent = driver(GpuDriverState::Absent, Some("no NVIDIA driver: x not found"));
        let gone = Gpu { device_id: "1".into(), model: "H100".into(), ..Gpu::default() };
        let removed = summary(&absent, &[], &[gone], None);
        assert_eq!(removed.state, Health::Unhealthy);
        assert_eq!(
            removed.worst.as_deref(),
            Some("no NVIDIA driver: x not found; 1 of 1 GPUs missing: GPU 1 (H100)")
        );
        let short = summary_of(&[], Some(8));
        assert_eq!(short.worst.as_deref(), Some("1 of 8 expected GPUs are here"));
    }

    #[test]
    fn a_long_reason_is_cut_between_letters() {
        let words = "ä".repeat(1000);
        let summary = told(Health::Unknown, &words, RecoveryAction::Nothing);
        assert_eq!(summary.worst.unwrap().chars().count(), LONGEST + 1);
    }
}
