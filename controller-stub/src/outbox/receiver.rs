//! Who a relay delivers to: where what it is owed stands, how an event is posted, and what is written down
//! and counted of an attempt. `Noti` is one; each webhook is another.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use aio_protocol::{ids::NodeId, time::Timestamp};
use metrics::{counter, histogram};

use super::{Delivery, verdict::Answer};
use crate::store::{Store, StoreError, Undelivered};

/// The histogram of deliveries is told of shorter ones only: what seems longer is a clock that was set.
const LONGEST_DELIVERY: Duration = Duration::from_secs(24 * 3600);

/// Who events are delivered to.
pub(crate) trait Receiver: Send + Sync + 'static {
    /// Its name in logs and reasons.
    fn name(&self) -> &str;

    /// The oldest events of a node that it has not acknowledged, in their order.
    fn undelivered(
        &self,
        node: &NodeId,
        limit: u64,
    ) -> impl Future<Output = Result<Vec<Undelivered>, StoreError>> + Send;

    /// Makes one attempt.
    fn post(&self, id: &str, body: String, now: Timestamp) -> impl Future<Output = Answer> + Send;

    /// Writes down what came of an attempt.
    fn note(&self, attempted: Attempted<'_>) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// An attempt that was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempted<'a> {
    pub event: &'a str,
    pub noticed_at: Timestamp,
    pub began: Instant,
    /// When it ended.
    pub at: Timestamp,
    /// How long the event had been tried when this attempt began.
    pub tried_for: Duration,
    pub answer: &'a Answer,
    pub came: Came,
}

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    Delivered,
    /// The next attempt is due then.
    Postponed(Timestamp),
    /// The event is given up: `rejected` or `expired`.
    Dead(&'static str),
}

/// The one NOTI.
pub(crate) struct Noti {
    pub store: Store,
    pub delivery: Delivery,
}

impl Receiver for Noti {
    fn name(&self) -> &str {
        "NOTI"
    }

    async fn undelivered(&self, node: &NodeId, limit: u64) -> Result<Vec<Undelivered>, StoreError> {
        self.store.undelivered(node, limit).await
    }

    async fn post(&self, id: &str, body: String, now: Timestamp) -> Answer {
        self.delivery.post(id, body, now).await
    }

    async fn note(&self, attempted: Attempted<'_>) -> Result<(), StoreError> {
        let Attempted { event, noticed_at, at, tried_for, answer, came, .. } = attempted;
        if came != Came::Delivered {
            counter!("aio_event_attempts_failed_total", "reason" => answer.reason()).increment(1);
        }
        let answer = answer.in_words(self.name());
        match came {
            Came::Delivered => {
                let elapsed = at.since(noticed_at);
                if elapsed < LONGEST_DELIVERY {
                    histogram!("aio_event_delivery_seconds").record(elapsed);
                }
                counter!("aio_events_delivered_total").increment(1);
                self.store.delivered(event).await
            }
            Came::Postponed(due) => self.store.postpone(event, tried_for, at, due, &answer).await,
            Came::Dead(why) => {
                counter!("aio_events_dead_total", "reason" => why).increment(1);
                self.store.bury(event, at, &format!("{why}: {answer}")).await
            }
        }
    }
}
