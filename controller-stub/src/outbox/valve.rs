//! Whether events may be posted at this moment: not while the circuit breaker is open, NOTI has asked for a
//! pause, or NOTI is gone. Also what a person should look at: told once when it begins and once when it is
//! over, and a metric all the time between.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use metrics::gauge;
use serde::Serialize;
use tokio::sync::Notify;

use super::{
    breaker::{self, Breaker, Paused, Permit},
    verdict::{Alarm, Answer, Health},
};

pub(crate) struct Valve {
    receiver: String,
    /// Whether figures tell of it.
    measured: bool,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    breaker: Breaker,
    held_until: Option<Instant>,
    stopped: bool,
    alarms: Vec<Alarm>,
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

/// Why nothing may be posted now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shut {
    /// Until this moment.
    Until(Instant),
    /// Until a probe has an answer.
    Probing,
    /// Until an operator resumes it, or a restart.
    Stopped,
}

/// The right to post one event. Dropped without `done`, it says nothing of NOTI.
pub(super) struct Attempt {
    valve: Arc<Valve>,
    permit: Option<Permit>,
}

impl DeliveryState {
    pub(crate) const ALL: [Self; 4] = [Self::Running, Self::Paused, Self::Probing, Self::Stopped];

    /// The state that is written so.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// As answers write it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Probing => "probing",
            Self::Stopped => "stopped",
        }
    }
}

impl State {
    fn check(&self, now: Instant) -> Result<(), Shut> {
        if self.stopped {
            return Err(Shut::Stopped);
        }
        if let Some(until) = self.held_until.filter(|until| now < *until) {
            return Err(Shut::Until(until));
        }
        self.breaker.check(now).map_err(|paused| match paused {
            Paused::Until(until) => Shut::Until(until),
            Paused::Probing => Shut::Probing,
        })
    }

    /// Ends a stop, a pause that NOTI asked for and the breaker's pause; says whether there was any.
    fn resume(&mut self, now: Instant) -> bool {
        let shut = self.check(now).is_err();
        (self.stopped, self.held_until) = (false, None);
        self.breaker.end_pause(now);
        shut
    }

    fn delivery(&self, now: Instant) -> DeliveryState {
        match (self.check(now), self.breaker.state()) {
            (Err(Shut::Stopped), _) => DeliveryState::Stopped,
            (Err(Shut::Until(_)), _) => DeliveryState::Paused,
            (Ok(()) | Err(Shut::Probing), breaker::State::Closed { .. }) => DeliveryState::Running,
            (Ok(()) | Err(Shut::Probing), _) => DeliveryState::Probing,
        }
    }
}

impl Valve {
    /// Of NOTI. `first_pause` is how long the circuit breaker pauses delivery first.
    pub(crate) fn new(first_pause: Duration) -> Self {
        show(breaker::State::CLOSED);
        Alarm::ALL.into_iter().for_each(|alarm| show_alarm(alarm, 0.0));
        Self { measured: true, ..Self::of("NOTI".to_owned(), first_pause) }
    }

    /// Of another receiver, of which no figure tells.
    pub(crate) fn of(receiver: String, first_pause: Duration) -> Self {
        let state = State {
            breaker: Breaker::new(first_pause),
            held_until: None,
            stopped: false,
            alarms: Vec::new(),
        };
        Self { receiver, measured: false, state: Mutex::new(state), changed: Notify::new() }
    }

    /// Whether events are delivered now.
    pub(crate) fn delivery(&self) -> DeliveryState {
        self.state().delivery(Instant::now())
    }

    /// Ends whatever keeps events from being posted; says whether anything did.
    pub(super) fn resume(&self) -> bool {
        let resumed = self.change(|state| state.resume(Instant::now()));
        self.changed.notify_one();
        resumed
    }

    /// Admits an attempt.
    pub(super) fn admit(self: &Arc<Self>) -> Result<Attempt, Shut> {
        let permit = self.change(|state| {
            let now = Instant::now();
            state.check(now)?;
            state.held_until = None;
            state.breaker.admit(now).map_err(|_| Shut::Probing)
        })?;
        Ok(Attempt { valve: self.clone(), permit: Some(permit) })
    }

    /// Posts nothing for so long, or for as long as it was held already if that is longer.
    pub(super) fn hold(&self, pause: Duration) {
        let mut state = self.state();
        state.held_until = state.held_until.max(Some(Instant::now() + pause));
    }

    /// Posts nothing until it is resumed.
    pub(super) fn stop(&self) {
        self.state().stopped = true;
    }

    /// Raises an alarm, unless it is raised.
    pub(super) fn raise(&self, alarm: Alarm, answer: &Answer) {
        let mut state = self.state();
        if !state.alarms.contains(&alarm) {
            state.alarms.push(alarm);
            let answer = answer.in_words(&self.receiver);
            let advice =
                if self.measured { alarm.advice() } else { "correct the webhook's URL, or what serves it" };
            self.show_alarm(alarm, 1.0);
            tracing::warn!(
                alarm = self.name_of(alarm),
                answer,
                advice,
                "events cannot be delivered as things are"
            );
        }
    }

    /// NOTI took an event: whatever was wrong is right again.
    pub(super) fn clear_alarms(&self) {
        for alarm in std::mem::take(&mut self.state().alarms) {
            self.show_alarm(alarm, 0.0);
            tracing::info!(alarm = self.name_of(alarm), "{} takes events again", self.receiver);
        }
    }

    /// Waits until it may be worth asking again.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn record(&self, permit: Permit, health: Health) {
        let was_closed = self.change(|state| {
            let before = state.breaker.state();
            state.breaker.record(permit, health, Instant::now());
            matches!(before, breaker::State::Closed { .. })
        });
        if !was_closed {
            self.changed.notify_one();
        }
    }

    /// Changes the state, and tells what that did to the breaker.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let before = state.breaker.state();
        let changed = change(&mut state);
        let after = state.breaker.state();
        drop(state);
        self.tell(before, after);
        changed
    }

    fn tell(&self, before: breaker::State, after: breaker::State) {
        use breaker::State::{Closed, Open, Probing};
        let receiver = &self.receiver;
        match (before, after) {
            (Closed { .. } | Probing { .. }, Open { pause, .. }) => {
                tracing::warn!(
                    pause_secs = pause.as_secs_f64(),
                    "{receiver} fails too often: delivery of events pauses, and no event is lost"
                );
            }
            (Probing { .. }, Closed { .. }) => tracing::info!("{receiver} answers again: delivery goes on"),
            _ => {}
        }
        if self.measured && before.as_str() != after.as_str() {
            show(after);
        }
    }

    /// What an alarm of NOTI's delivery is called; others have no name.
    fn name_of(&self, alarm: Alarm) -> Option<&'static str> {
        self.measured.then(|| alarm.as_str())
    }

    fn show_alarm(&self, alarm: Alarm, value: f64) {
        if self.measured {
            show_alarm(alarm, value);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt {
    /// Says what the attempt told of NOTI.
    pub(super) fn done(mut self, health: Health) {
        if let Some(permit) = self.permit.take() {
            self.valve.record(permit, health);
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.valve.record(permit, Health::Unknown);
        }
    }
}

fn show(state: breaker::State) {
    let value = match state {
        breaker::State::Closed { .. } => 0.0,
        breaker::State::Probing { .. } => 1.0,
        breaker::State::Open { .. } => 2.0,
    };
    gauge!("aio_event_breaker_state").set(value);
}

fn show_alarm(alarm: Alarm, value: f64) {
    gauge!("aio_event_delivery_alarm", "alarm" => alarm.as_str()).set(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_hold_lasts_as_long_as_the_longest_that_was_asked_for() {
        let valve = Arc::new(Valve::new(Duration::from_secs(5)));
        let start = Instant::now();
        valve.hold(MINUTE * 7);
        valve.hold(MINUTE * 3);
        let Err(Shut::Until(until)) = valve.admit().map(drop) else { panic!("it is held") };
        assert!(until >= start + MINUTE * 7);
        assert_eq!(valve.state().check(until), Ok(()));
        assert!(valve.resume() && valve.admit().is_ok(), "an operator ends it");
    }

    #[test]
    fn no_log_line_of_another_receiver_names_an_alarm_of_noti_s() {
        let another = Valve::of("the webhook 7".to_owned(), MINUTE);
        assert_eq!(another.name_of(Alarm::Refused), None);
        assert_eq!(Valve::new(MINUTE).name_of(Alarm::Refused), Some("noti_refuses"));
    }

    #[test]
    fn a_stop_lasts_until_it_is_resumed_and_is_resumed_once() {
        let valve = Arc::new(Valve::new(Duration::from_secs(5)));
        valve.stop();
        assert_eq!(valve.state().check(Instant::now() + MINUTE * 1_000_000), Err(Shut::Stopped));
        assert_eq!(valve.delivery(), DeliveryState::Stopped);
        assert!(valve.resume());
        assert!(!valve.resume());
        assert_eq!(valve.delivery(), DeliveryState::Running);
    }

    #[test]
    fn a_pause_of_the_breaker_ends_with_a_probe_when_an_operator_says_so() {
        let valve = Arc::new(Valve::new(MINUTE));
        while let Ok(attempt) = valve.admit() {
            attempt.done(Health::Bad);
        }
        assert_eq!(valve.delivery(), DeliveryState::Paused);
        assert!(valve.resume());
        let probe = valve.admit().unwrap();
        assert_eq!(valve.admit().map(drop), Err(Shut::Probing));
        probe.done(Health::Bad);
        assert_eq!(valve.delivery(), DeliveryState::Paused);
    }
}
