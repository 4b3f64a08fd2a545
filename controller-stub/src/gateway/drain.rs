//! Empties the gateway before a stop: asks every connection to close with 1012, in slices, so that the fleet does not come back to the
//! next controller in one instant. Bounded, and ended early by `hurry`.

use std::time::Duration;

use aio_protocol::wire::close;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::mailbox::Order;
use crate::app::App;

/// Draining takes no longer, however large the fleet.
const LONGEST: Duration = Duration::from_secs(5);

/// A fleet that is small enough for this pace is drained sooner.
const PER_CONNECTION: Duration = Duration::from_millis(1);

const SLICES: u32 = 50;

/// Asks every connection to close. Whoever enters meanwhile is asked in the end.
pub(crate) async fn run(app: &App, hurry: &CancellationToken) {
    let mailboxes = app.registry.mailboxes();
    let count = u32::try_from(mailboxes.len()).unwrap_or(u32::MAX);
    let pause = LONGEST.min(PER_CONNECTION.saturating_mul(count)) / SLICES;
    let slice = mailboxes.len().div_ceil(SLICES as usize).max(1);
    let mut next = Instant::now();
    for mailboxes in mailboxes.chunks(slice) {
        mailboxes.iter().for_each(|mailbox| mailbox.post(Order::Close(close::RESTART)));
        next += pause;
        tokio::select! {
            () = sleep_until(next) => {}
            () = hurry.cancelled() => {}
        }
    }
    for mailbox in app.registry.mailboxes() {
        mailbox.post(Order::Close(close::RESTART));
    }
}
