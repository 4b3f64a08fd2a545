//! Where lanes ask whether they may post, and where an operator sees and changes it. The rules are `gate`'s.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::sync::Notify;

use super::{
    breaker::{Permit, State},
    gate::{Gate, Shut},
    verdict::Health,
};

pub(crate) struct Switch {
    gate: Mutex<Gate>,
    changed: Notify,
}

/// Whether events are delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DeliveryState {
    /// They are.
    Running,
    /// NOTI failed too often, or asked for a pause; it goes on by itself.
    Paused,
    /// One event at a time is tried.
    Probing,
    /// NOTI answered 410: until it is resumed.
    Stopped,
}

/// The right to post one event. Dropped without `done`, it says nothing of NOTI.
pub(super) struct Attempt {
    switch: Arc<Switch>,
    permit: Option<Permit>,
}

impl Switch {
    /// `first_pause` is how long the circuit breaker pauses delivery first.
    pub(crate) fn new(first_pause: Duration) -> Self {
        show(State::Closed { bad: 0, seen: 0 });
        Self { gate: Mutex::new(Gate::new(first_pause)), changed: Notify::new() }
    }

    /// Whether events are delivered now.
    pub(crate) fn state(&self) -> DeliveryState {
        let (check, breaker) = {
            let gate = self.gate();
            (gate.check(Instant::now()), gate.breaker())
        };
        match (check, breaker) {
            (Err(Shut::Stopped), _) => DeliveryState::Stopped,
            (Err(Shut::Until(_)), _) => DeliveryState::Paused,
            (Ok(()) | Err(Shut::Probing), State::Open { .. } | State::Probing { .. }) => {
                DeliveryState::Probing
            }
            (Ok(()) | Err(Shut::Probing), State::Closed { .. }) => DeliveryState::Running,
        }
    }

    /// Ends a stop; says whether there was one.
    pub(crate) fn resume(&self) -> bool {
        let resumed = self.gate().resume();
        self.changed.notify_one();
        resumed
    }

    /// Admits an attempt.
    pub(super) fn admit(self: &Arc<Self>) -> Result<Attempt, Shut> {
        let mut gate = self.gate();
        let before = gate.breaker();
        let permit = gate.admit(Instant::now())?;
        tell(before, gate.breaker());
        Ok(Attempt { switch: self.clone(), permit: Some(permit) })
    }

    /// Posts nothing for so long.
    pub(super) fn hold(&self, pause: Duration) {
        self.gate().hold(Instant::now() + pause);
    }

    /// Posts nothing until it is resumed.
    pub(super) fn stop(&self) {
        self.gate().stop();
    }

    /// Waits until it may be worth asking again.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn record(&self, permit: Permit, health: Health) {
        let mut gate = self.gate();
        let before = gate.breaker();
        gate.record(permit, health, Instant::now());
        let after = gate.breaker();
        drop(gate);
        tell(before, after);
        if !matches!(before, State::Closed { .. }) {
            self.changed.notify_one();
        }
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt {
    /// Says what the attempt told of NOTI.
    pub(super) fn done(mut self, health: Health) {
        if let Some(permit) = self.permit.take() {
            self.switch.record(permit, health);
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.switch.record(permit, Health::Unknown);
        }
    }
}

fn tell(before: State, after: State) {
    match (before, after) {
        (State::Closed { .. } | State::Probing { .. }, State::Open { pause, .. }) => {
            tracing::warn!(
                pause_secs = pause.as_secs_f64(),
                "NOTI fails too often: delivery of events pauses, and no event is lost"
            );
        }
        (State::Probing { .. }, State::Closed { .. }) => {
            tracing::info!("NOTI answers again: delivery goes on")
        }
        _ => {}
    }
    if before.as_str() != after.as_str() {
        show(after);
    }
}

fn show(state: State) {
    let value = match state {
        State::Closed { .. } => 0.0,
        State::Probing { .. } => 1.0,
        State::Open { .. } => 2.0,
    };
    metrics::gauge!("aio_event_breaker_state").set(value);
}
