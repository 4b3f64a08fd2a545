//! Which share of the time a GPU was slowed down, of the counters that its driver keeps. Pure.

use std::time::{Duration, Instant};

use aio_host::gpu::Reading;

/// A share of less time than this says nothing.
const SHORTEST: Duration = Duration::from_secs(5);

/// A GPU's slowdowns, measured from one reading to the next.
#[derive(Debug, Default)]
pub(super) struct Slowdown {
    since: Option<(Instant, Counters)>,
    /// Percent of the time, because of heat.
    pub(super) thermal: Option<u32>,
    /// Percent of the time, because of its power limit.
    pub(super) power: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Counters {
    thermal: Option<Duration>,
    power: Option<Duration>,
}

impl Slowdown {
    /// Takes the next reading.
    pub(super) fn measure(&mut self, reading: &Reading, now: Instant) {
        let counters = Counters { thermal: reading.thermal_slowdown, power: reading.power_slowdown };
        let Some((then, before)) = self.since else {
            self.since = Some((now, counters));
            return;
        };
        let elapsed = now.saturating_duration_since(then);
        if elapsed < SHORTEST {
            return;
        }
        self.thermal = share(before.thermal, counters.thermal, elapsed);
        self.power = share(before.power, counters.power, elapsed);
        self.since = Some((now, counters));
    }
}

/// Percent; nothing when either is missing, or when the driver has begun to count anew.
fn share(before: Option<Duration>, after: Option<Duration>, elapsed: Duration) -> Option<u32> {
    let slowed = after?.checked_sub(before?)?.min(elapsed);
    u32::try_from(slowed.as_millis() * 100 / elapsed.as_millis().max(1)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(thermal: Option<u64>) -> Reading {
        Reading { thermal_slowdown: thermal.map(Duration::from_secs), ..Reading::silent("0") }
    }

    #[test]
    fn a_share_is_of_the_time_between_two_readings() {
        let began = Instant::now();
        let mut slowdown = Slowdown::default();
        for (second, counter, share) in [
            (0, Some(1000), None),
            (20, Some(1005), Some(25)),
            // Too soon: the last share stands.
            (21, Some(1006), Some(25)),
            (40, Some(1005), Some(0)),
            // The driver was loaded again.
            (60, Some(0), None),
            (80, Some(40), Some(100)),
            (100, None, None),
        ] {
            slowdown.measure(&reading(counter), began + Duration::from_secs(second));
            assert_eq!(slowdown.thermal, share, "after {second} s");
        }
        assert_eq!(slowdown.power, None);
    }
}
