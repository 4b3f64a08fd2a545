//! Runs lanes: gives each whose turn it is a task, as many beside each other as may post at once, and sleeps
//! while nothing is due. Whose turn it is, `lanes` says; whether anything may be posted, `valve`.

use std::{collections::HashMap, sync::Arc, time::Instant};

use aio_protocol::ids::NodeId;
use tokio::{
    task::{Id, JoinSet},
    time::sleep_until,
};
use tokio_util::sync::CancellationToken;

use super::{
    Outbox,
    lane::{Lane, Run, STORE_PAUSE},
    lanes::{Ended, Lanes},
    receiver::Receiver,
    valve::Shut,
};
pub(crate) struct Relay<R> {
    lane: Arc<Lane<R>>,
    /// Maximum number of posts under way at once.
    parallel: usize,
    outbox: Outbox,
    lanes: Lanes,
    runs: JoinSet<Run>,
    /// Whose task it is, for one that panics.
    nodes: HashMap<Id, NodeId>,
}

impl<R: Receiver> Relay<R> {
    /// Posts at most `parallel` events at once.
    pub(crate) fn new(receiver: R, outbox: Outbox, parallel: usize) -> Self {
        Self {
            lane: Arc::new(Lane { receiver, valve: outbox.valve.clone() }),
            parallel,
            outbox,
            lanes: Lanes::new(),
            runs: JoinSet::new(),
            nodes: HashMap::new(),
        }
    }

    /// Delivers until `stop`, with `beside` as a task. What an attempt that is under way then does is not
    /// known; its event is posted again after the next start, under the same id.
    pub(crate) async fn run(
        mut self,
        stop: CancellationToken,
        beside: impl Future<Output = ()> + Send + 'static,
    ) {
        let mut beside_it = JoinSet::new();
        beside_it.spawn(beside);
        loop {
            let wake = self.launch();
            tokio::select! {
                () = stop.cancelled() => break,
                // It never ends by itself. Without it this task is of no use, and its end is noticed.
                Some(_) = beside_it.join_next() => break,
                notices = self.outbox.notifier.notices_added() => {
                    let now = Instant::now();
                    if notices.retry_all {
                        self.lanes.retry_all();
                    }
                    for (node, notice) in notices.nodes {
                        if notice.retry {
                            self.lanes.retry(node, notice.organisation, now);
                        } else {
                            self.lanes.notify(node, notice.organisation, now);
                        }
                    }
                }
                Some(ended) = self.runs.join_next_with_id() => {
                    let (task, run) = match ended {
                        Ok((task, run)) => (task, Some(run)),
                        Err(panicked) => (panicked.id(), None),
                    };
                    let now = Instant::now();
                    match (self.nodes.remove(&task), run) {
                        (_, Some(Run { node, delivered, ended })) => self.lanes.ended(node, ended, delivered, now),
                        (Some(node), None) => self.lanes.ended(node, Ended::Later(now + STORE_PAUSE), 0, now),
                        (None, None) => {}
                    }
                }
                () = self.lane.valve.changed() => {}
                () = sleep_until(wake.unwrap_or(Instant::now()).into()), if wake.is_some() => {}
            }
        }
        self.runs.shutdown().await;
    }

    /// Starts every run that may start now, and says when the next may, as far as time alone decides.
    fn launch(&mut self) -> Option<Instant> {
        loop {
            let now = Instant::now();
            self.lanes.arrive(now);
            if self.runs.len() >= self.parallel {
                return None;
            }
            if !self.lanes.is_ready() {
                return self.lanes.due();
            }
            let attempt = match self.lane.valve.admit() {
                Ok(attempt) => attempt,
                Err(Shut::Until(until)) => return Some(until),
                Err(Shut::Probing | Shut::Stopped) => return None,
            };
            if let Some((node, due)) = self.lanes.next() {
                let task = self.runs.spawn(self.lane.clone().run(node.clone(), due, attempt));
                self.nodes.insert(task.id(), node);
            }
        }
    }
}
