//! Which events are posted when: one lane per node that has any, in order within a lane, lanes beside each other. A lane posts
//! the oldest event until NOTI acknowledges it, then the next, and ends when there is none. Everything it needs to go on after a
//! restart stands in the event's row.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use aio_protocol::ids::NodeId;
use tokio::{
    sync::{Semaphore, mpsc},
    task::{Id, JoinSet},
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{delivery::Delivery, retry};
use crate::{
    clock,
    store::{Store, StoreError},
};

/// Rows may also come from another process, which rings no bell here.
const LOOK: Duration = Duration::from_secs(1);

/// So many posts are under way at once.
const PARALLEL_POSTS: usize = 64;

pub(crate) struct Relay {
    lane: Arc<Lane>,
    rings: mpsc::Receiver<NodeId>,
}

/// A lane that runs.
struct OpenLane {
    task: Id,
    /// Whether its node's bell rang since it began, so that it must look once more.
    rung: bool,
}

struct Lane {
    store: Arc<dyn Store>,
    delivery: Delivery,
    posts: Semaphore,
}

impl Relay {
    pub(crate) fn new(store: Arc<dyn Store>, delivery: Delivery, rings: mpsc::Receiver<NodeId>) -> Self {
        Self { lane: Arc::new(Lane { store, delivery, posts: Semaphore::new(PARALLEL_POSTS) }), rings }
    }

    /// Delivers until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut lanes = JoinSet::new();
        let mut open: HashMap<NodeId, OpenLane> = HashMap::new();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut due = Vec::new();
            tokio::select! {
                () = stop.cancelled() => break,
                Some(id) = self.rings.recv() => due.push(id),
                _ = look.tick() => match self.lane.store.nodes_with_undelivered().await {
                    Ok(ids) => due = ids,
                    Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "cannot look for events"),
                },
                Some(ended) = lanes.join_next_with_id() => {
                    let task = match ended {
                        Ok((task, ())) => task,
                        Err(panicked) => panicked.id(),
                    };
                    due.extend(open.extract_if(|_, lane| lane.task == task).filter(|(_, lane)| lane.rung).map(|(id, _)| id));
                }
            }
            for id in due {
                match open.entry(id) {
                    Entry::Occupied(mut lane) => lane.get_mut().rung = true,
                    Entry::Vacant(vacant) => {
                        let task = lanes.spawn(self.lane.clone().run(vacant.key().clone())).id();
                        vacant.insert(OpenLane { task, rung: false });
                    }
                }
            }
        }
        // What an aborted attempt did is not known; the event is posted again after the next start, under the same id.
        lanes.shutdown().await;
    }
}

impl Lane {
    /// Delivers what there is of one node.
    async fn run(self: Arc<Self>, id: NodeId) {
        if let Err(error) = self.drain(&id).await {
            // The relay's next look opens the lane again.
            tracing::warn!(node = %id, error = &error as &dyn std::error::Error, "cannot read or note a delivery");
        }
    }

    async fn drain(&self, id: &NodeId) -> Result<(), StoreError> {
        while let Some(event) = self.store.oldest_undelivered(id).await? {
            // Never longer than a pause can be, though the clock was set back.
            sleep(event.due.since(clock::now()).min(retry::LONGEST)).await;
            let outcome = match self.posts.acquire().await {
                Ok(_one_of_many) => self.delivery.post(&event.id, event.body, clock::now()).await,
                Err(_closed) => return Ok(()),
            };
            match outcome {
                Ok(()) => {
                    self.store.delivered(&event.id).await?;
                    if event.attempts > 0 {
                        tracing::info!(node = %id, event = event.id, failures = event.attempts, "an event was delivered at last");
                    }
                }
                Err(error) => {
                    let failures = event.attempts.saturating_add(1);
                    let pause = retry::pause(failures, fastrand::f64());
                    // The first and then every doubling: what goes on for hours is not told a thousand times.
                    if failures.is_power_of_two() {
                        tracing::warn!(node = %id, event = event.id, failures, %error, "an event was not delivered and is tried again");
                    }
                    self.store.postpone(&event.id, clock::now().plus(pause), &error.to_string()).await?;
                }
            }
        }
        Ok(())
    }
}
