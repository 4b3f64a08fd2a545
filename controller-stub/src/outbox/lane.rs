//! One run of a lane: posts a node's oldest events one after the other, and writes down what came of each
//! before the next. Everything that is needed to go on after a restart stands in the event's row.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aio_protocol::ids::NodeId;

use super::{
    lanes::Ended,
    receiver::{Attempted, Came, Receiver},
    retry,
    valve::{Attempt, Valve},
    verdict::{self, Alarm, Answer, Retry, Verdict},
};
use crate::{
    clock,
    store::{StoreError, Undelivered},
};

/// Number of events that are read at once. Then it is another lane's turn.
const PAGE: u64 = 16;

/// When the store fails, the lane comes back after this.
pub(super) const STORE_PAUSE: Duration = Duration::from_secs(1);

/// What every lane needs.
pub(super) struct Lane<R> {
    pub receiver: R,
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

impl<R: Receiver> Lane<R> {
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
        let page = self.receiver.undelivered(node, PAGE).await?;
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
        let Self { receiver, valve } = self;
        let began = Instant::now();
        let tried_for = retry::tried_for(&event, clock::now());
        let Undelivered { id, body, noticed_at, attempts, .. } = event;
        let answer = receiver.post(&id, body, clock::now()).await;
        let at = clock::now();
        let verdict = verdict::judge(&answer, at);
        attempt.done(verdict::health(verdict, began.elapsed()));
        let failures = attempts.saturating_add(1);
        let (came, after) = match verdict {
            Verdict::Delivered => (Came::Delivered, After::Delivered),
            Verdict::Dead => (Came::Dead("rejected"), After::Buried),
            Verdict::Gone => {
                valve.stop();
                valve.raise(Alarm::Gone, &answer);
                (Came::Postponed(at), After::Stays(Ended::More))
            }
            Verdict::Retry(retry) => {
                self.warn(node, &id, failures, &answer, retry);
                match retry::pause(retry, failures, tried_for, fastrand::f64()) {
                    Some(pause) => {
                        (Came::Postponed(at.plus(pause)), After::Stays(Ended::Due(Instant::now() + pause)))
                    }
                    None => (Came::Dead("expired"), After::Buried),
                }
            }
        };
        if let Came::Dead(why) = came {
            let answer = answer.in_words(receiver.name());
            tracing::warn!(%node, event = id, answer, why, "an event was given up and is now a dead letter");
        }
        let event = id.as_str();
        let attempted = Attempted { event, noticed_at, began, at, tried_for, answer: &answer, came };
        receiver.note(attempted).await?;
        if came == Came::Delivered {
            valve.clear_alarms();
            if attempts > 0 {
                tracing::info!(%node, event, failures = attempts, "an event was delivered at last");
            }
        }
        Ok(after)
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
            let answer = answer.in_words(self.receiver.name());
            tracing::warn!(%node, event, failures, answer, "an event was not delivered and is tried again");
        }
    }
}
