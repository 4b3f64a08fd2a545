//! Looks for what the relay is not told of: events of an earlier process or of a command, and a command to
//! try now what waits. Also measures the backlog, and says in the database how delivery stands.

use std::time::{Duration, Instant};

use aio_protocol::time::Timestamp;
use metrics::gauge;
use tokio::time::sleep;

use super::{DeliveryState, Outbox, RESUME_SETTING, STATE_SETTING};
use crate::{
    clock,
    store::{Store, StoreError},
};

/// Shortest interval between two looks.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// The same where other controllers write events, too.
pub(super) const SHARED_INTERVAL: Duration = Duration::from_millis(250);

/// After a look it rests so many times longer than the look took.
const REST: u32 = 20;

/// Looks for as long as it runs.
pub(crate) async fn run(store: Store, outbox: Outbox) {
    let interval = outbox.look_interval;
    let mut looker = Looker { store, outbox, age: OldestAge::default(), state: None, asked: None };
    loop {
        let began = Instant::now();
        if let Err(error) = looker.look().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot look for events");
        }
        sleep(interval.max(began.elapsed() * REST)).await;
    }
}

struct Looker {
    store: Store,
    outbox: Outbox,
    age: OldestAge,
    /// What the database says of how delivery stands.
    state: Option<DeliveryState>,
    /// What a command asked for last; nothing before the first look.
    asked: Option<Option<String>>,
}

impl Looker {
    async fn look(&mut self) -> Result<(), StoreError> {
        let nodes = self.store.nodes_with_undelivered().await?;
        if !nodes.is_empty() {
            self.outbox.notifier.notify_all(nodes);
        }
        let asked = self.store.setting(RESUME_SETTING).await?;
        if self.asked.replace(asked.clone()).is_some_and(|before| before != asked) {
            self.outbox.resume();
            tracing::info!("a command asked for it: every event that waits is delivered now");
        }
        let backlog = self.store.backlog().await?;
        #[expect(clippy::cast_precision_loss, reason = "nobody counts 2^52 events")]
        {
            gauge!("aio_outbox_events").set(backlog.events as f64);
            gauge!("aio_dead_letters").set(backlog.dead as f64);
        }
        let age = self.age.measure(backlog.oldest, clock::now(), Instant::now());
        gauge!("aio_outbox_oldest_age_seconds").set(age.as_secs_f64());
        let state = self.outbox.delivery();
        if self.state != Some(state) {
            self.store.put_setting(STATE_SETTING, state.as_str()).await?;
            self.state = Some(state);
        }
        Ok(())
    }
}

/// How old the oldest event is. The time of day is asked once for each event, and a clock that is
/// set makes nothing older: no event is older than what was the oldest at first, and the time
/// since. Pure.
#[derive(Default)]
struct OldestAge {
    /// The age of the oldest event when it was first looked at.
    first: Option<(Duration, Instant)>,
    /// The oldest event, its age, and when that was measured.
    oldest: Option<(String, Duration, Instant)>,
}

impl OldestAge {
    fn measure(&mut self, oldest: Option<(String, Timestamp)>, today: Timestamp, now: Instant) -> Duration {
        let noticed_at = oldest.as_ref().map(|(_, at)| *at);
        let by_date = noticed_at.map(|at| today.since(at)).unwrap_or_default();
        let (first, since) = *self.first.get_or_insert((by_date, now));
        let Some((id, _)) = oldest else {
            self.oldest = None;
            return Duration::ZERO;
        };
        let age = match self.oldest.take() {
            Some((known, age, at)) if known == id => age + (now - at),
            _ => by_date.min(first + (now - since)),
        };
        self.oldest = Some((id, age, now));
        age
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_makes_no_event_older_or_younger() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let (year, today) = (second * 365 * 86_400, Timestamp::from_millis(1_765_454_400_000));
        let oldest = |id: &str, at: Timestamp| Some((id.to_owned(), at));
        let mut age = OldestAge::default();
        let a = oldest("a", today.minus(second * 90));
        assert_eq!(age.measure(a.clone(), today, start), second * 90, "it is from before");
        assert_eq!(age.measure(a.clone(), today.plus(year), start + second), second * 91);
        assert_eq!(age.measure(a, today.minus(year), start + second * 2), second * 92);
        // The next was made before the clock was set ahead, and the one after it while it was.
        let b = oldest("b", today);
        assert_eq!(age.measure(b, today.plus(year), start + second * 3), second * 93);
        let c = oldest("c", today.plus(year));
        assert_eq!(age.measure(c.clone(), today, start + second * 4), Duration::ZERO);
        assert_eq!(
            age.measure(c, today, start + second * 9),
            second * 5,
            "it grows though it is from the future"
        );
        assert_eq!(age.measure(None, today, start + second * 10), Duration::ZERO);
    }
}
