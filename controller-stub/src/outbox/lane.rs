//! One run of a lane: posts a node's oldest events one after the other, and writes down what came of each
//! before the next. Everything that is needed to go on after a restart stands in the event's row.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aio_protocol::ids::NodeId;

use super::{
    delivery::Delivery,
    lanes::Ended,
    retry,
    valve::{Attempt, Valve},
    verdict::{self, Alarm, Answer, Retry, Verdict},
};
use crate::{
    clock,
    store::{Store, StoreError, Undelivered},
};

/// Number of events that are read at once. Then it is another lane's turn.
const PAGE: u64 = 16;

/// When the store fails, the lane comes back after this.
pub(super) const STORE_PAUSE: Duration = Duration::from_secs(1);

/// The histogram of deliveries is told of shorter ones only: what seems longer is a clock that was set.
const LONGEST_DELIVERY: Duration = Duration::from_secs(24 * 3600);

/// What every lane needs.
pub(super) struct Lane {
    pub store: Store,
    pub delivery: Delivery,
    pub valve: Arc<Valve>,
}

/// What a run came to.
pub(super) struct Run {
    pub node: NodeId,
    pub delivered: u32,
    pub ended: Ended,
}

/// What becomes of the lane after an event.
enum After {
    /// On to the next event.
    Delivered,
    Buried,
    /// The event stays the first.
    Stays(Ended),
}

impl Lane {
    /// Runs once; `due` says that the first event is, and `attempt` is the right to post it.
    pub(super) async fn run(self: Arc<Self>, node: NodeId, due: bool, attempt: Attempt) -> Run {
        let mut delivered = 0;
        let ended = match self.deliver(&node, due, attempt, &mut delivered).await {
            Ok(ended) => ended,
            Err(error) => {
                tracing::warn!(%node, error = &error as &dyn std::error::Error, "cannot read or note a delivery");
                Ended::Later(Instant::now() + STORE_PAUSE)
            }
        };
        Run { node, delivered, ended }
    }

    async fn deliver(
        &self,
        node: &NodeId,
        mut due: bool,
        attempt: Attempt,
        delivered: &mut u32,
    ) -> Result<Ended, StoreError> {
        let page = self.store.undelivered(node, PAGE).await?;
        let more = u64::try_from(page.len()).is_ok_and(|read| read == PAGE);
        let mut attempt = Some(attempt);
        for event in page {
            let wait = retry::wait(&event, clock::now());
            if !std::mem::take(&mut due) && !wait.is_zero() {
                return Ok(Ended::Due(Instant::now() + wait));
            }
            let attempt = match attempt.take() {
                Some(attempt) => attempt,
                None => match self.valve.admit() {
                    Ok(attempt) => attempt,
                    Err(_shut) => return Ok(Ended::More),
                },
            };
            match self.attempt(node, event, attempt).await? {
                After::Delivered => *delivered += 1,
                After::Buried => {}
                After::Stays(ended) => return Ok(ended),
            }
        }
        Ok(if more { Ended::More } else { Ended::Drained })
    }

    /// Posts an event and writes down what came of it.
    async fn attempt(
        &self,
        node: &NodeId,
        event: Undelivered,
        attempt: Attempt,
    ) -> Result<After, StoreError> {
        let began = Instant::now();
        let tried_for = retry::tried_for(&event, clock::now());
        let answer = self.delivery.post(&event.id, event.body, clock::now()).await;
        let now = clock::now();
        let verdict = verdict::judge(&answer, now);
        attempt.done(verdict::health(verdict, began.elapsed()));
        if verdict != Verdict::Delivered {
            metrics::counter!("aio_event_attempts_failed_total", "reason" => answer.reason()).increment(1);
        }
        let failures = event.attempts.saturating_add(1);
        match verdict {
            Verdict::Delivered => {
                let elapsed = now.since(event.noticed_at);
                if elapsed < LONGEST_DELIVERY {
                    metrics::histogram!("aio_event_delivery_seconds").record(elapsed);
                }
                metrics::counter!("aio_events_delivered_total").increment(1);
                self.store.delivered(&event.id).await?;
                self.valve.clear_alarms();
                if event.attempts > 0 {
                    tracing::info!(%node, event = event.id, failures = event.attempts, "an event was delivered at last");
                }
                Ok(After::Delivered)
            }
            Verdict::Dead => self.bury(node, &event.id, "rejected", &answer).await,
            Verdict::Gone => {
                self.valve.stop();
                self.valve.raise(Alarm::Gone, &answer);
                self.store.postpone(&event.id, tried_for, now, now, &answer.to_string()).await?;
                Ok(After::Stays(Ended::More))
            }
            Verdict::Retry(retry) => {
                self.warn(node, &event.id, failures, &answer, retry);
                match retry::pause(retry, failures, tried_for, fastrand::f64()) {
                    Some(pause) => {
                        let due = now.plus(pause);
                        self.store.postpone(&event.id, tried_for, now, due, &answer.to_string()).await?;
                        Ok(After::Stays(Ended::Due(Instant::now() + pause)))
                    }
                    None => self.bury(node, &event.id, "expired", &answer).await,
                }
            }
        }
    }

    fn warn(&self, node: &NodeId, event: &str, failures: u32, answer: &Answer, retry: Retry) {
        if let Some(hold) = retry.hold {
            self.valve.hold(hold);
        }
        if let Some(alarm) = retry.alarm {
            self.valve.raise(alarm, answer);
        }
        // The first and then every doubling: what goes on for hours is not told a thousand times.
        if failures.is_power_of_two() {
            tracing::warn!(%node, event, failures, %answer, "an event was not delivered and is tried again");
        }
    }

    async fn bury(
        &self,
        node: &NodeId,
        event: &str,
        why: &'static str,
        answer: &Answer,
    ) -> Result<After, StoreError> {
        metrics::counter!("aio_events_dead_total", "reason" => why).increment(1);
        tracing::warn!(%node, event, %answer, why, "an event was given up and is now a dead letter: look at GET /dead-letters");
        self.store.bury(event, clock::now(), &format!("{why}: {answer}")).await?;
        Ok(After::Buried)
    }
}
