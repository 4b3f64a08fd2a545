//! How often workers are asked to speak. Pure. The pace slows down as the fleet grows, and differs by up to a
//! tenth between workers, so that they do not keep step; three heartbeats always fit into a lease, the way to
//! the controller included.

use std::time::Duration;

use aio_protocol::wire::RegisterAck;

/// The pace of a small fleet.
const QUICK: Duration = Duration::from_secs(30);

/// Up to `SMALL` nodes the pace is the quick one; from `LARGE` on it is as slow as the lease allows.
const SMALL: usize = 1_000;
const LARGE: usize = 10_000;

const METRICS: Duration = Duration::from_secs(60);

/// Largest difference between a worker's pace and the fleet's, as a part of it.
const SPREAD: f64 = 0.1;

/// One part in this many of a lease is left for the third heartbeat's way over the network.
const WAY: u32 = 40;

/// The pace for one worker of a fleet of `fleet` nodes whose leases last `lease`. `chance` is
/// between 0 and 1.
pub(super) fn offer(fleet: usize, lease: Duration, chance: f64) -> RegisterAck {
    let factor = 1.0 + SPREAD * (2.0 * chance.clamp(0.0, 1.0) - 1.0);
    let millis = |pace: Duration| u64::try_from(pace.mul_f64(factor).as_millis()).unwrap_or(u64::MAX).max(1);
    RegisterAck {
        heartbeat_interval: millis(heartbeat(fleet, lease)),
        metrics_interval: millis(METRICS),
        pending_commands: Vec::new(),
    }
}

fn heartbeat(fleet: usize, lease: Duration) -> Duration {
    let slowest = ((lease - lease / WAY) / 3).div_f64(1.0 + SPREAD);
    let quick = QUICK.min(slowest);
    let grown = fleet.saturating_sub(SMALL).min(LARGE - SMALL);
    #[expect(clippy::cast_precision_loss, reason = "both are at most LARGE")]
    let part = grown as f64 / (LARGE - SMALL) as f64;
    quick + (slowest - quick).mul_f64(part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEASE: Duration = Duration::from_secs(120);

    #[test]
    fn a_small_fleet_speaks_every_half_minute_and_a_large_one_less_often() {
        let interval = |fleet| offer(fleet, LEASE, 0.5).heartbeat_interval;
        assert_eq!((interval(0), interval(1_000)), (30_000, 30_000));
        assert!((32_000..33_500).contains(&interval(5_500)), "{}", interval(5_500));
        assert_eq!((interval(10_000), interval(1_000_000)), (35_454, 35_454));
        assert_eq!(offer(10_000, LEASE, 1.0).heartbeat_interval, 39_000);
        assert_eq!(offer(1, LEASE, 0.0).heartbeat_interval, 27_000);
        assert_eq!(offer(1, LEASE, 0.5).metrics_interval, 60_000);
    }

    proptest! {
        #[test]
        fn three_chances_fit_into_every_lease(
            fleet in 0_usize..1_000_000,
            lease in 100_u64..86_400_000,
            chance in 0.0..=1.0_f64,
        ) {
            let interval = offer(fleet, Duration::from_millis(lease), chance).heartbeat_interval;
            prop_assert!(interval >= 1);
            prop_assert!(interval * 3 < lease, "3 x {interval} ms in {lease} ms");
            prop_assert!(interval <= 40_000 || lease > 120_000);
        }

        #[test]
        fn a_larger_fleet_never_speaks_more_often(fleet in 0_usize..20_000, more in 0_usize..20_000) {
            prop_assert!(heartbeat(fleet + more, LEASE) >= heartbeat(fleet, LEASE));
        }
    }
}
