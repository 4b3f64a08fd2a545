//! Drives the node status machine. `aio_protocol::transition` decides; this applies: under the node's turn it
//! reads the node, writes what happened to it, and saves the change, its audit rows and its events in one
//! transaction. `occurrence` says what happenings carry and what they write.

mod budget;
mod occurrence;
mod outcome;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, Instant},
};

use aio_protocol::{
    event::{EventBody, EventData, EventKind, NoDetail, NodeEvent},
    ids::NodeId,
    node::NodeStatus,
    time::Timestamp,
    transition::{Decision, Trigger},
};
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    clock,
    leases::Leases,
    node::Node,
    outbox::Notifier,
    store::{Membership, Newcomer, RecordedStep, Store, StoreError},
};

use budget::Budgets;

pub(crate) use occurrence::{Joined, Occurrence};

/// Nodes share this many turns; two that share one wait for each other, and no more comes of it.
const TURNS: usize = 256;

/// A save is refused when another controller saved the node first. So often in a row means that
/// something else is wrong.
const TRIES: usize = 16;

/// A welcome that takes longer gives way to one elsewhere: a worker waits 15 s, its way here included.
const MAX_WELCOME: Duration = Duration::from_secs(5);

pub(crate) struct Lifecycle {
    store: Store,
    notifier: Notifier,
    /// Which types of event NOTI is told of.
    posted: Vec<EventKind>,
    turns: Vec<Mutex<()>>,
    budgets: Budgets,
    /// This controller among those that serve together.
    membership: Membership,
    /// Of welcomed workers: renewed by what they say.
    pub workers: Leases,
    /// Of running installations: renewed by their reports.
    pub installations: Leases,
}

/// The right to change a node, for one at a time: between looking at its connection or lease and
/// saving what follows, nothing else happens to it.
pub(crate) struct Turn<'a> {
    lifecycle: &'a Lifecycle,
    id: &'a NodeId,
    /// When it was asked for, which is when its cause was noticed.
    noticed_at: Timestamp,
    store: Store,
    given_up: GivenUp,
    _held: Option<MutexGuard<'a, ()>>,
}

/// When nothing happens in a turn any more.
enum GivenUp {
    Never,
    /// Once another controller holds the node.
    Elsewhere,
    /// Once another controller has welcomed the node's worker later than `known`, from this moment on.
    WelcomedElsewhere {
        known: Option<Timestamp>,
        from: Instant,
    },
}

impl GivenUp {
    fn is_now(&self, node: &Node, us: i64) -> bool {
        node.held_by != us
            && match self {
                Self::Never => false,
                Self::Elsewhere => true,
                Self::WelcomedElsewhere { known, from } => {
                    node.websocket_connected
                        && node.connection_established_at != *known
                        && Instant::now() >= *from
                }
            }
    }
}

/// How a changed node is kept with its audit rows and events.
pub(crate) trait Saving: Sync {
    /// Keeps all of it, if nobody else has saved the node since it was read; says whether it did.
    fn save(
        &self,
        store: &Store,
        node: &Node,
        steps: &[RecordedStep],
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;
}

/// Nothing is kept beside it.
struct NodeAlone;

impl Saving for NodeAlone {
    async fn save(&self, store: &Store, node: &Node, steps: &[RecordedStep]) -> Result<bool, StoreError> {
        store.save(node, steps).await
    }
}

/// Why something could not happen to a node.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LifecycleError {
    #[error("there is no node {0}")]
    NotFound(NodeId),
    #[error("a node that is {status} does not take `{}`", trigger.as_str())]
    Refused { status: NodeStatus, trigger: Trigger },
    #[error("another controller holds node {0} by now")]
    Superseded(NodeId),
    #[error("the tokens of node {0} were revoked while its worker connected")]
    Revoked(NodeId),
    #[error("node {node} reports more changes than any installation makes")]
    TooMany {
        node: NodeId,
        /// When it may come back.
        pause: Duration,
    },
    #[error("node {0} was saved by others again and again")]
    Contended(NodeId),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Lifecycle {
    pub(crate) fn new(
        store: Store,
        notifier: Notifier,
        posted: Vec<EventKind>,
        (workers, installations): (Leases, Leases),
        membership: Membership,
    ) -> Self {
        Self {
            store,
            notifier,
            posted,
            turns: (0..TURNS).map(|_| Mutex::default()).collect(),
            budgets: Budgets::new(),
            membership,
            workers,
            installations,
        }
    }

    /// Gives a whole lease to every node that is held here and online, or that is installing, and has none:
    /// after a start that is all of them, and later a node whose change was saved while whoever asked for it
    /// went away. Installations are the leader's; one that somebody else heard of since the last time has its
    /// whole time again.
    pub(crate) async fn adopt(&self) -> Result<(), StoreError> {
        for (id, organisation) in self.store.online_nodes(self.membership.number()).await? {
            self.workers.grant_amnesty(&id, organisation, Instant::now());
        }
        if self.membership.leads() {
            for (id, organisation, saves) in self.store.installing_nodes().await? {
                self.installations.grant_amnesty(&id, organisation, Instant::now());
                if self.membership.is_shared() {
                    self.installations.note_saves(&id, saves, Instant::now());
                }
            }
        }
        Ok(())
    }

    /// Lets go of a node that another controller holds; says whether one does.
    pub(crate) async fn let_go(&self, turn: &Turn<'_>) -> Result<bool, StoreError> {
        let held =
            self.store.node(turn.id).await?.is_some_and(|node| node.held_by == self.membership.number());
        if !held {
            self.workers.end(turn.id);
        }
        Ok(!held)
    }

    /// Waits until nobody else changes the node.
    pub(crate) async fn turn<'a>(&'a self, id: &'a NodeId) -> Turn<'a> {
        let noticed_at = clock::now();
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        let stripe = usize::try_from(hasher.finish() % TURNS as u64).unwrap_or(0);
        let held = match self.turns.get(stripe) {
            Some(turn) => Some(turn.lock().await),
            None => None,
        };
        Turn {
            lifecycle: self,
            id,
            noticed_at,
            store: self.store.clone(),
            given_up: GivenUp::Never,
            _held: held,
        }
    }

    /// Keeps a node that was just registered, unless another in service has its name; says whether
    /// it did. `store` acts for `actor`.
    pub(crate) async fn register(&self, store: &Store, node: &Node, actor: &str) -> Result<bool, StoreError> {
        let newcomer = Newcomer { node: node.clone(), step: registration(node, actor), token: None };
        if !store.enrol_nodes(&[newcomer]).await?.is_empty() {
            return Ok(false);
        }
        tracing::info!(node = %node.id, name = node.name, actor, "a node was registered");
        self.notifier.notify(&node.id, &node.owner.org_id);
        Ok(true)
    }
}

/// What a node begins with.
pub(crate) fn registration(node: &Node, actor: &str) -> RecordedStep {
    let data = EventData {
        node_id: node.id.clone(),
        node_name: node.name.clone(),
        status: node.status,
        detail: NoDetail {},
        owner: node.owner.clone(),
    };
    RecordedStep {
        from: None,
        to: node.status,
        cause: "registered",
        actor: actor.to_owned(),
        noticed_at: node.created_at,
        posted: true,
        event: NodeEvent { body: EventBody::Registered(data), timestamp: node.created_at },
    }
}

impl Turn<'_> {
    /// This turn, whose changes are saved in a store that acts for somebody.
    pub(crate) fn through(self, store: Store) -> Self {
        Self { store, ..self }
    }

    /// This turn, in which nothing happens once another controller holds the node.
    pub(crate) fn while_held(self) -> Self {
        Self { given_up: GivenUp::Elsewhere, ..self }
    }

    /// This turn of a worker that came at `since`, when its node's last welcome was `known`. A worker that was
    /// kept waiting may have gone to another controller: one that has welcomed it by then keeps it.
    pub(crate) fn of_arrival(self, since: Instant, known: Option<Timestamp>) -> Self {
        Self { given_up: GivenUp::WelcomedElsewhere { known, from: since + MAX_WELCOME }, ..self }
    }

    /// Lets `occurrence` happen to the node and says what the node is then.
    pub(crate) async fn apply(&self, occurrence: &Occurrence, actor: &str) -> Result<Node, LifecycleError> {
        self.apply_saving(occurrence, actor, &NodeAlone).await
    }

    /// The same, where something else is kept with the node or not at all.
    pub(crate) async fn apply_saving(
        &self,
        occurrence: &Occurrence,
        actor: &str,
        saving: &impl Saving,
    ) -> Result<Node, LifecycleError> {
        let node = self
            .change(saving, |node| {
                let trigger = occurrence.trigger(node);
                let steps = match occurrence.decide(node) {
                    Decision::Refused => {
                        return Err(LifecycleError::Refused { status: node.status, trigger });
                    }
                    Decision::Unchanged => Vec::new(),
                    // A report whose answer was lost comes again.
                    Decision::Moved(_) if occurrence.was_told_of(node) => Vec::new(),
                    Decision::Moved(steps) => steps,
                };
                if let Some(not_before) = occurrence.admitted_not_before()
                    && node.tokens_not_before != not_before
                {
                    return Err(LifecycleError::Revoked(node.id.clone()));
                }
                if matches!(occurrence, Occurrence::Reported(_)) {
                    let cost = if steps.is_empty() { budget::SAVE } else { budget::MOVE };
                    let spent = self.lifecycle.budgets.spend(self.id, cost);
                    spent.map_err(|pause| LifecycleError::TooMany { node: node.id.clone(), pause })?;
                }
                let now = clock::now();
                let before = node.clone();
                occurrence.write_to(node, now);
                if occurrence.admitted_not_before().is_some() {
                    node.held_by = self.lifecycle.membership.number();
                }
                let mut recorded = Vec::new();
                for step in steps {
                    node.status = step.to;
                    recorded.extend(occurrence.event(step.event, node, now).map(|event| RecordedStep {
                        from: Some(step.from),
                        to: step.to,
                        cause: trigger.as_str(),
                        actor: actor.to_owned(),
                        noticed_at: self.noticed_at,
                        posted: true,
                        event,
                    }));
                }
                if let Some(event) = occurrence::update_event(&before, node, now) {
                    let kind = event.kind();
                    recorded.push(RecordedStep {
                        from: Some(node.status),
                        to: node.status,
                        cause: if kind == EventKind::Updated { "updated" } else { "update_failed" },
                        actor: actor.to_owned(),
                        noticed_at: self.noticed_at,
                        posted: self.lifecycle.posted.contains(&kind),
                        event,
                    });
                }
                Ok(recorded)
            })
            .await?;
        let Lifecycle { workers, installations, .. } = self.lifecycle;
        let (now, seen) = (Instant::now(), clock::now());
        match occurrence {
            Occurrence::Welcomed { .. } | Occurrence::Joined(_) => {
                workers.grant(self.id, &node.owner.org_id, now, seen)
            }
            Occurrence::LeaseExpired | Occurrence::Left { .. } | Occurrence::DecommissionRequested => {
                workers.end(self.id);
            }
            Occurrence::Reported(_)
            | Occurrence::Stalled(_)
            | Occurrence::MaintenanceRequested
            | Occurrence::SetAside
            | Occurrence::ResumeRequested => {}
        }
        match (node.status, occurrence) {
            (NodeStatus::Installing, Occurrence::Reported(_)) => {
                installations.grant(self.id, &node.owner.org_id, now, seen);
            }
            (NodeStatus::Installing, _) => {}
            _ => installations.end(self.id),
        }
        Ok(node)
    }

    /// Tells of something that moves nothing, with what else is kept with it. Nobody is told of a node that
    /// is not in service: there is none.
    pub(crate) async fn note(
        &self,
        event: impl Fn(&Node, Timestamp) -> NodeEvent,
        cause: &'static str,
        actor: &str,
        saving: &impl Saving,
    ) -> Result<Node, LifecycleError> {
        let change = |node: &mut Node| {
            if node.status == NodeStatus::Inactive {
                return Err(LifecycleError::NotFound(node.id.clone()));
            }
            let event = event(node, clock::now());
            Ok(vec![RecordedStep {
                from: Some(node.status),
                to: node.status,
                cause,
                actor: actor.to_owned(),
                noticed_at: self.noticed_at,
                posted: self.lifecycle.posted.contains(&event.kind()),
                event,
            }])
        };
        self.change(saving, change).await
    }

    /// Notes that the worker's socket is gone. Its status waits for the lease. Another controller's socket is
    /// that one's to close.
    pub(crate) async fn disconnect(&self) -> Result<Node, LifecycleError> {
        let change = |node: &mut Node| {
            node.websocket_connected &= node.held_by != self.lifecycle.membership.number();
            Ok(Vec::new())
        };
        self.change(&NodeAlone, change).await
    }

    /// Reads the node, lets `change` change it, and saves it with the steps that the change owes.
    async fn change(
        &self,
        saving: &impl Saving,
        change: impl Fn(&mut Node) -> Result<Vec<RecordedStep>, LifecycleError>,
    ) -> Result<Node, LifecycleError> {
        let Self { store, .. } = self;
        let Lifecycle { notifier, workers, .. } = self.lifecycle;
        for _ in 0..TRIES {
            let Some(mut node) = store.node(self.id).await? else {
                return Err(LifecycleError::NotFound(self.id.clone()));
            };
            if self.given_up.is_now(&node, self.lifecycle.membership.number()) {
                return Err(LifecycleError::Superseded(self.id.clone()));
            }
            let before = node.clone();
            node.last_seen_at = workers.last_seen_or(self.id, node.last_seen_at, clock::now());
            let steps = change(&mut node)?;
            if node == before && steps.is_empty() {
                return Ok(node);
            }
            if !saving.save(store, &node, &steps).await? {
                continue;
            }
            for step in &steps {
                tracing::info!(node = %node.id, name = node.name, from = step.from.map(NodeStatus::as_str),
                    to = step.to.as_str(), cause = step.cause, actor = step.actor, "a node's status changed");
            }
            outcome::count(&steps, &node);
            if !steps.is_empty() {
                notifier.notify(self.id, &node.owner.org_id);
            }
            return Ok(node);
        }
        Err(LifecycleError::Contended(self.id.clone()))
    }
}

#[cfg(test)]
mod tests;
