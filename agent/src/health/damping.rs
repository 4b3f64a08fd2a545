//! What is told of a GPU does not flap: worse is told at once, better only when it has been better
//! for a while. That a silent driver answers again is told at once, too: it is knowledge, not
//! recovery. Pure.

use std::time::{Duration, Instant};

use aio_protocol::telemetry::{Finding, Health};

/// What is told of one GPU.
#[derive(Debug, Default)]
pub(super) struct Damped {
    told: Option<Vec<Finding>>,
    better_since: Option<Instant>,
}

impl Damped {
    /// The worst of what is told; nothing before the first.
    pub(super) fn health(&self) -> Option<Health> {
        self.told.as_deref().map(worst)
    }

    /// What is told.
    pub(super) fn findings(&self) -> &[Finding] {
        self.told.as_deref().unwrap_or_default()
    }

    /// Takes what is found now.
    pub(super) fn take(&mut self, found: Vec<Finding>, now: Instant, hold: Duration) {
        let held = match self.health() {
            Some(told) if told != Health::Unknown && worst(&found) < told => {
                let since = *self.better_since.get_or_insert(now);
                now.saturating_duration_since(since) < hold
            }
            _ => false,
        };
        if !held {
            self.told = Some(found);
            self.better_since = None;
        }
    }
}

/// The worst of some findings.
pub(super) fn worst(findings: &[Finding]) -> Health {
    findings.iter().map(|finding| finding.health).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use aio_protocol::telemetry::RecoveryAction;
    use proptest::prelude::*;

    use super::*;

    const HOLD: Duration = Duration::from_secs(60);

    fn found(health: Health) -> Vec<Finding> {
        match health {
            Health::Ok => vec![],
            health => vec![Finding { health, reason: "x".into(), action: RecoveryAction::Nothing }],
        }
    }

    #[test]
    fn worse_is_told_at_once_and_better_after_a_while() {
        use Health::{Degraded, Ok, Unhealthy};
        let began = Instant::now();
        let mut damped = Damped::default();
        for (second, now, told) in [
            (0, Ok, Ok),
            (1, Degraded, Degraded),
            (2, Ok, Degraded),
            (61, Ok, Degraded),
            (62, Ok, Ok),
            (63, Unhealthy, Unhealthy),
            (64, Degraded, Unhealthy),
            (100, Unhealthy, Unhealthy),
            (101, Degraded, Unhealthy),
            (160, Degraded, Unhealthy),
            (161, Degraded, Degraded),
        ] {
            damped.take(found(now), began + Duration::from_secs(second), HOLD);
            assert_eq!(damped.health(), Some(told), "after {second} s");
        }
    }

    #[test]
    fn an_answer_after_silence_is_told_at_once() {
        let began = Instant::now();
        let mut damped = Damped::default();
        for health in [Health::Unknown, Health::Ok, Health::Unknown, Health::Degraded] {
            damped.take(found(health), began, HOLD);
            assert_eq!(damped.health(), Some(health));
        }
    }

    proptest! {
        #[test]
        fn however_it_flaps_nothing_worse_stays_untold_and_better_is_told_once_in_a_hold(
            healths in prop::collection::vec(0..4_u8, 1..200),
        ) {
            let began = Instant::now();
            let (mut damped, mut better) = (Damped::default(), 0_usize);
            for (second, health) in (0..).zip(&healths) {
                let health = [Health::Ok, Health::Degraded, Health::Unhealthy, Health::Unhealthy][usize::from(*health)];
                let before = damped.health();
                damped.take(found(health), began + Duration::from_secs(second), HOLD);
                prop_assert!(damped.health() >= Some(health));
                better += usize::from(damped.health() < before);
            }
            prop_assert!(better <= healths.len() / 60 + 1, "{better} times better in {} s", healths.len());
        }
    }
}
