//! Empties the gateway before a stop: asks every connection to close with 1012, in slices, so that the fleet
//! does not come back to the next controller in one instant. Bounded, and ended early by `hurry`.

use std::time::Duration;

use aio_protocol::wire::close;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::registry::Registry;

/// Longest drain, however large the fleet.
const LONGEST: Duration = Duration::from_secs(5);

/// Time per node in a fleet that is small enough.
const PER_NODE: Duration = Duration::from_millis(1);

const SLICES: u32 = 50;

/// Asks every connection to close. Whoever enters meanwhile is asked in the end.
pub(crate) async fn run(registry: &Registry, hurry: &CancellationToken) {
    let nodes = registry.len();
    let pause = LONGEST.min(PER_NODE.saturating_mul(u32::try_from(nodes).unwrap_or(u32::MAX))) / SLICES;
    let slice = nodes.div_ceil(SLICES as usize);
    let mut next = Instant::now();
    for _ in 1..SLICES {
        registry.send_away(slice, close::RESTART);
        next += pause;
        tokio::select! {
            () = sleep_until(next) => {}
            () = hurry.cancelled() => break,
        }
    }
    registry.send_away(usize::MAX, close::RESTART);
}

#[cfg(test)]
mod tests {
    use aio_protocol::ids::NodeId;
    use tokio::sync::oneshot;

    use super::*;

    const NODES: u16 = 400;

    fn full() -> (Registry, Vec<oneshot::Receiver<u16>>) {
        let registry = Registry::default();
        let closed = (0..NODES).map(|number| {
            let [high, low] = number.to_be_bytes();
            let id = NodeId::from_bytes([high, low, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            registry.enter(&id, std::time::Instant::now()).1
        });
        let closed = closed.collect();
        (registry, closed)
    }

    #[tokio::test]
    async fn a_fleet_is_sent_away_in_the_time_that_it_takes_and_all_of_it() {
        let (registry, closed) = full();
        let started = Instant::now();
        run(&registry, &CancellationToken::new()).await;
        assert!(started.elapsed() > PER_NODE * u32::from(NODES) / 2, "{:?}", started.elapsed());
        for mut closed in closed {
            assert_eq!(closed.try_recv(), Ok(close::RESTART));
        }
    }

    #[tokio::test]
    async fn who_is_in_a_hurry_sends_all_away_at_once() {
        let (registry, closed) = full();
        let (started, hurry) = (Instant::now(), CancellationToken::new());
        hurry.cancel();
        run(&registry, &hurry).await;
        assert!(started.elapsed() < PER_NODE * u32::from(NODES) / 2, "{:?}", started.elapsed());
        for mut closed in closed {
            assert_eq!(closed.try_recv(), Ok(close::RESTART));
        }
    }
}
