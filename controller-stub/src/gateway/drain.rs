//! Empties the gateway before a stop: asks every connection to close with 1012, in slices, so that the fleet does not come back to the
//! next controller in one instant. Bounded, and ended early by `hurry`.

use std::time::Duration;

use aio_protocol::wire::close;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::app::App;

/// Draining takes no longer, however large the fleet.
const LONGEST: Duration = Duration::from_secs(5);

/// A fleet that is small enough for this pace is drained sooner.
const PER_NODE: Duration = Duration::from_millis(1);

const SLICES: u32 = 50;

/// Asks every connection to close. Whoever enters meanwhile is asked in the end.
pub(crate) async fn run(app: &App, hurry: &CancellationToken) {
    let nodes = app.registry.len();
    let pause = LONGEST.min(PER_NODE.saturating_mul(u32::try_from(nodes).unwrap_or(u32::MAX))) / SLICES;
    let slice = nodes.div_ceil(SLICES as usize);
    let mut next = Instant::now();
    for _ in 1..SLICES {
        app.registry.send_away(slice, close::RESTART);
        next += pause;
        tokio::select! {
            () = sleep_until(next) => {}
            () = hurry.cancelled() => break,
        }
    }
    app.registry.send_away(usize::MAX, close::RESTART);
}
