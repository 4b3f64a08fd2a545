//! What one of several controllers that serve a database together does for that alone: hears what the others
//! have to tell it, takes over the nodes of those that are gone where it leads, and sends its workers away
//! while it cannot reach the database.

use std::{sync::Arc, time::Duration};

use aio_protocol::ids::NodeId;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    clock,
    gateway::drain,
    store::{Signal, StoreError},
    tasks::Pulse,
};

/// Interval between two looks at what the others have to tell.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Interval between two looks for nodes that nobody holds, beside those when a controller has gone.
const ORPHANS_INTERVAL: Duration = Duration::from_secs(60);

/// Nodes that are taken over in one change, so that nobody who writes waits for long.
const ORPHANS: u64 = 2000;

/// Longest interval between two looks for installations that others have heard of.
const ADOPT_INTERVAL: Duration = Duration::from_secs(15);

/// Interval between two looks at how the others' nodes are.
const HEALTHS_INTERVAL: Duration = Duration::from_secs(5);

/// Interval between two looks at whether the database is reached.
const FENCE_INTERVAL: Duration = Duration::from_millis(500);

/// Does its part in the group until `stop`; nothing where this controller serves alone.
pub(crate) async fn run(app: Arc<App>, pulse: Pulse, stop: CancellationToken) {
    if !app.membership.is_shared() {
        return stop.cancelled().await;
    }
    let mut look = ticking(LOOK_INTERVAL);
    let mut orphans = ticking(ORPHANS_INTERVAL);
    let mut adopt = ticking(ADOPT_INTERVAL.min(app.lifecycle.installations.length() / 4));
    let mut healths = ticking(HEALTHS_INTERVAL);
    let mut member = Member { app, departures: 0, newest: None };
    let mut failures = 0_u32;
    loop {
        let done = tokio::select! {
            () = stop.cancelled() => break,
            _ = look.tick() => {
                let _turn = pulse.turn();
                member.look().await
            }
            _ = orphans.tick() => {
                let _turn = pulse.turn();
                member.take_orphans().await
            }
            _ = healths.tick() => {
                let _turn = pulse.turn();
                member.hear_of_healths().await
            }
            _ = adopt.tick() => {
                let _turn = pulse.turn();
                member.app.lifecycle.adopt().await
            }
        };
        match done {
            Ok(()) => failures = 0,
            Err(error) => {
                failures += 1;
                if failures.is_power_of_two() {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, failures, "what the other controllers tell could not be read");
                }
            }
        }
    }
}

fn ticking(every: Duration) -> tokio::time::Interval {
    let every = every.max(Duration::from_millis(50));
    let mut ticking = interval_at(Instant::now() + every, every);
    ticking.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticking
}

struct Member {
    app: Arc<App>,
    /// Those after which nodes were looked for that nobody holds.
    departures: u64,
    /// The place of the newest event of the built-in NOTI.
    newest: Option<i64>,
}

impl Member {
    async fn look(&mut self) -> Result<(), StoreError> {
        for (node, signal) in self.app.store.take_signals(self.app.membership.number()).await? {
            match signal {
                Signal::Moved => self.let_go(&node).await?,
                Signal::Told => self.app.registry.nudge(&node),
                Signal::Cloned(address) => {
                    self.app.clones().hear(&node, address, (Instant::now().into_std(), clock::now()));
                }
            }
        }
        let newest = self.app.store.newest_place().await?;
        if self.newest.replace(newest) != Some(newest) {
            self.app.noti.tell_all();
            #[cfg(feature = "pages")]
            self.app.store.note_commit();
        }
        if self.departures != self.app.membership.departures() {
            self.take_orphans().await?;
        }
        Ok(())
    }

    async fn hear_of_healths(&self) -> Result<(), StoreError> {
        self.app.elsewhere.set(self.app.store.told_healths().await?);
        Ok(())
    }

    /// Closes the socket of a node that another controller has taken.
    async fn let_go(&self, node: &NodeId) -> Result<(), StoreError> {
        let turn = self.app.lifecycle.turn(node).await;
        if self.app.lifecycle.let_go(&turn).await? {
            tracing::debug!(%node, "another controller holds the node");
            self.app.registry.displace(node);
        }
        Ok(())
    }

    /// Takes over the nodes that nobody holds, each with a whole lease, where this controller leads.
    async fn take_orphans(&mut self) -> Result<(), StoreError> {
        let departures = self.app.membership.departures();
        if self.app.membership.leads() {
            let mut nodes = 0;
            loop {
                let taken = self.app.store.take_orphans(self.app.membership.number(), ORPHANS).await?;
                nodes += taken;
                if taken == 0 {
                    break;
                }
            }
            if nodes > 0 {
                tracing::info!(
                    nodes,
                    "nodes of controllers that are gone have a whole lease to come back in"
                );
                self.app.lifecycle.adopt().await?;
            }
        }
        self.departures = departures;
        Ok(())
    }
}

/// Sends the workers to the other controllers while this one does not reach the database: the others are
/// about to take their nodes.
pub(crate) async fn fence(app: Arc<App>, stop: CancellationToken) {
    let mut look = interval(FENCE_INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_cut_off = false;
    while stop.run_until_cancelled(look.tick()).await.is_some() {
        let is_cut_off = app.membership.is_cut_off();
        if is_cut_off && !was_cut_off {
            tracing::warn!(
                "the database has not been reached for 10 s: the workers go to the other controllers"
            );
        }
        if is_cut_off && app.registry.len() > 0 {
            drain::run(&app.registry, &stop).await;
        }
        was_cut_off = is_cut_off;
    }
}
