//! Runs a relay for each webhook: begins and ends them as webhooks come, change and go, tells each which
//! nodes it waits for, and counts.

use std::{
    collections::HashMap,
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};

use metrics::gauge;
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::endpoint::{Endpoint, name_of};
use crate::{
    app::App,
    clock,
    outbox::{DeliveryState, Outbox, Relay},
    store::{Store, StoreError, Webhook},
    tasks::Pulse,
};

/// Shortest interval between looks for what nobody told of: webhooks and events of a command.
const INTERVAL: Duration = Duration::from_secs(1);

/// After a look it rests so many times longer than the look took.
const REST: u32 = 20;

/// Maximum number of events that wait for one webhook. The oldest beyond it become dead letters.
const MAX_WAITING: u64 = 100_000;

/// Events that are given up in one transaction.
const GIVEN_UP_AT_ONCE: u64 = 1_000;

/// Looks from one count of what is owed to the next.
const LOOKS_A_COUNT: u64 = 10;

/// Maximum number of events that are posted to one webhook at once.
const PARALLEL_POSTS: usize = 8;

/// A relay that runs.
struct Running {
    revision: i64,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

struct Keeper {
    app: Arc<App>,
    running: HashMap<Uuid, Running>,
    looks: u64,
}

/// Keeps relays until `stop`.
pub(crate) async fn run(app: Arc<App>, pulse: Pulse, stop: CancellationToken) {
    let mut keeper = Keeper { app: app.clone(), running: HashMap::new(), looks: 0 };
    let mut failures = 0_u32;
    loop {
        let began = Instant::now();
        {
            let _turn = pulse.turn();
            match keeper.look().await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    if failures.is_power_of_two() {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, failures, "webhooks could not be looked for");
                    }
                }
            }
        }
        // A change, or the next look.
        let rest = timeout(INTERVAL.max(began.elapsed() * REST), app.webhooks.changed.notified());
        if stop.run_until_cancelled(rest).await.is_none() {
            break;
        }
    }
    for id in keeper.running.keys().copied().collect::<Vec<_>>() {
        keeper.end(id).await;
    }
}

impl Keeper {
    async fn look(&mut self) -> Result<(), StoreError> {
        let webhooks = self.app.store.webhooks(None).await?;
        let known: HashMap<_, _> = webhooks.iter().map(|it| (it.id, it.revision)).collect();
        let outdated: Vec<_> = self
            .running
            .iter()
            .filter(|(id, running)| known.get(id) != Some(&running.revision) || running.task.is_finished())
            .map(|(id, _)| *id)
            .collect();
        let mut changed = !outdated.is_empty();
        for id in outdated {
            self.end(id).await;
        }
        for webhook in &webhooks {
            if !self.running.contains_key(&webhook.id) {
                self.begin(webhook);
                changed = true;
            }
        }
        if changed {
            let outboxes = self.app.webhooks.running();
            let followers = webhooks.iter().filter_map(|webhook| {
                Some((webhook.org.clone(), outboxes.get(&webhook.id)?.notifier.clone()))
            });
            self.app.outbox.notifier.set_followers(followers.collect());
        }
        self.notify(&webhooks).await?;
        self.count().await
    }

    /// Tells the relays of webhooks that are posted to which nodes they wait for.
    async fn notify(&self, webhooks: &[Webhook]) -> Result<(), StoreError> {
        let running = self.app.webhooks.running().clone();
        let taking: HashMap<_, _> = webhooks
            .iter()
            .filter_map(|webhook| Some((webhook.id, (&webhook.org, running.get(&webhook.id)?))))
            .filter(|(_, (_, outbox))| outbox.delivery() != DeliveryState::Stopped)
            .collect();
        let mut waiting: HashMap<Uuid, Vec<_>> = HashMap::new();
        let ids: Vec<_> = taking.keys().copied().collect();
        for (id, node) in self.app.store.webhooks_waiting(&ids).await? {
            if let Some((org, _)) = taking.get(&id) {
                waiting.entry(id).or_default().push((node, (*org).clone()));
            }
        }
        for (id, nodes) in waiting {
            if let Some((_, outbox)) = taking.get(&id) {
                outbox.notifier.notify_all(nodes);
            }
        }
        Ok(())
    }

    fn begin(&mut self, webhook: &Webhook) {
        let app = &self.app;
        let outbox = Outbox::of(name_of(webhook), app.webhooks.first_pause);
        let stop = CancellationToken::new();
        let task = match Endpoint::new(webhook, &app.webhooks.guard, app.store.clone()) {
            Ok(endpoint) => {
                let relay = Relay::new(endpoint, outbox.clone(), PARALLEL_POSTS);
                tokio::spawn(relay.run(stop.clone(), pending()))
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(webhook = %webhook.id, error, "a webhook cannot be posted to; its events wait");
                outbox.stop();
                let stopped = stop.clone();
                tokio::spawn(async move { stopped.cancelled().await })
            }
        };
        app.webhooks.running().insert(webhook.id, outbox);
        self.running.insert(webhook.id, Running { revision: webhook.revision, stop, task });
    }

    async fn end(&mut self, id: Uuid) {
        self.app.webhooks.running().remove(&id);
        if let Some(running) = self.running.remove(&id) {
            running.stop.cancel();
            // A relay that panicked has ended, too.
            let _ = running.task.await;
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "gauges; nobody has 2^52 events")]
    async fn count(&mut self) -> Result<(), StoreError> {
        for state in DeliveryState::ALL {
            let webhooks = self.app.webhooks.running();
            let so = webhooks.values().filter(|outbox| outbox.delivery() == state).count();
            gauge!("aio_webhooks", "state" => state.as_str()).set(so as f64);
        }
        let due = self.looks.is_multiple_of(LOOKS_A_COUNT);
        self.looks += 1;
        if due {
            let owed = self.app.store.owed_to_webhooks(None).await?;
            let sum =
                |of: fn(&crate::store::Owed) -> u64| owed.iter().map(|(.., owed)| of(owed)).sum::<u64>();
            gauge!("aio_webhook_events", "state" => "waiting").set(sum(|owed| owed.waiting) as f64);
            gauge!("aio_webhook_events", "state" => "dead").set(sum(|owed| owed.dead) as f64);
            for (id, _, owed) in owed {
                give_up(&self.app.store, id, owed.waiting.saturating_sub(MAX_WAITING)).await?;
            }
        }
        Ok(())
    }
}

/// Gives the oldest events of a webhook up.
async fn give_up(store: &Store, webhook: Uuid, mut excess: u64) -> Result<(), StoreError> {
    while excess > 0 {
        let reason = format!("expired: more than {MAX_WAITING} events waited");
        let limit = excess.min(GIVEN_UP_AT_ONCE);
        let given_up = store.give_oldest_up(webhook, limit, clock::now(), reason).await?;
        tracing::warn!(%webhook, given_up, "too many events wait for a webhook: the oldest are dead letters");
        excess = if given_up < limit { 0 } else { excess - given_up };
    }
    Ok(())
}
