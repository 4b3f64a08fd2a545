//! The session machine: when to dial, register, send a heartbeat, give up a silent connection, come
//! back, and leave. Pure: inputs and the moment come in, effects go out. No I/O, clock, chance or
//! logging; the driver does those, and the words are elsewhere.

use std::time::{Duration, Instant};

use aio_protocol::wire::{ControllerMessage, PendingCommand, RegisterAck, TokenOffer};
use uuid::Uuid;

mod online;

pub use self::online::Online;
use super::{
    backoff::{self, Backoff, Jitter},
    setback::{Patience, Setback},
};

/// How long the machine waits for others. The defaults are the product's; tests shorten them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// From the start to a first try without the machine's facts: reading them may hang.
    pub facts: Duration,
    /// From dialling to an open WebSocket.
    pub connect: Duration,
    /// From an open WebSocket to `register.ack`. The controller itself waits 10 s for `node.register`.
    pub welcome: Duration,
    /// Without any pong for as long as this, a connection is only half there.
    pub pong: Duration,
    /// From goodbye to the end of the connection.
    pub goodbye: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            facts: Duration::from_secs(15),
            connect: Duration::from_secs(15),
            welcome: Duration::from_secs(15),
            pong: Duration::from_secs(20),
            goodbye: Duration::from_secs(2),
        }
    }
}

/// When something happened, and the chance that came with it.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// When.
    pub now: Instant,
    /// The chance.
    pub jitter: Jitter,
}

/// Where the worker stands with its controller.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// The machine is being read.
    Starting {
        /// When to go on without its facts.
        until: Instant,
    },
    /// Waiting before the next try.
    Waiting {
        /// When to try.
        until: Instant,
        /// Why there is no session.
        after: Setback,
    },
    /// Dialling.
    Connecting {
        /// When to give up.
        until: Instant,
        /// Why there was no session before; none at the first try, and at the first with another token.
        after: Option<Setback>,
    },
    /// The WebSocket is open, the worker not yet welcomed.
    Registering {
        /// When to give up.
        until: Instant,
        /// Whether the controller has acknowledged the connection, and so `node.register` was sent.
        registered: bool,
        /// As in [`State::Connecting`].
        after: Option<Setback>,
    },
    /// Welcomed.
    Online(Online),
    /// Goodbye is said; the connection is closing.
    Stopping {
        /// When to stop waiting for the other end.
        until: Instant,
    },
    /// Nothing is left to do.
    Stopped,
}

impl State {
    /// Why there is no session, where that is known.
    pub fn after(&self) -> Option<&Setback> {
        match self {
            Self::Waiting { after, .. } => Some(after),
            Self::Connecting { after, .. } | Self::Registering { after, .. } => after.as_ref(),
            Self::Starting { .. } | Self::Online(_) | Self::Stopping { .. } | Self::Stopped => None,
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The machine's facts are there.
    FactsRead,
    /// The deadline has come.
    Elapsed,
    /// The WebSocket is open.
    SocketOpened,
    /// The controller said something.
    FrameReceived(Uuid, ControllerMessage),
    /// The controller has read the heartbeat of this number.
    PongReceived(u64),
    /// Dialling failed, or the socket ended.
    SocketLost(Setback),
    /// What was registered is no longer what the machine is.
    InventoryChanged,
    /// What heartbeats say of the GPUs' health is not true any more.
    HealthChanged,
    /// There is another token than the one that was dialled with.
    TokenReplaced,
    /// The machine slept for so long, in which no wait went on and no connection was heard.
    Woke(Duration),
    /// The service shall stop.
    StopRequested,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Open a WebSocket.
    Dial,
    /// Send `node.register`.
    SendRegister,
    /// Send this heartbeat, and the ping behind it.
    SendBeat(u64),
    /// Send `telemetry.metrics`.
    SendMetrics,
    /// The controller has welcomed the worker with the token in use: it is the one from now on.
    KeepToken,
    /// The controller offers another token in the message of this id.
    WeighOffer(Uuid, TokenOffer),
    /// Answer a command that this worker cannot do.
    RefuseCommand {
        /// The command's id.
        message_id: Uuid,
        /// The command's type.
        kind: String,
    },
    /// The controller says something of updates in the message of this id.
    HearOfUpdate(Uuid, Box<ControllerMessage>),
    /// Send `node.disconnecting` and close.
    SayGoodbye,
    /// Drop the socket, or the attempt to open one.
    HangUp,
}

/// The machine: its state, and what outlives a state.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    timings: Timings,
    state: State,
    backoff: Backoff,
    /// Whether a heartbeat of this process has ever been acknowledged. Until then the first one
    /// goes out at once: an installer waits for it. Later it takes its place at random, so that a
    /// restarted controller is not met by all at the same time.
    acknowledged: bool,
}

impl Session {
    /// A machine that is started now.
    pub fn new(timings: Timings, now: Instant) -> Self {
        let state = State::Starting { until: now + timings.facts };
        Self { timings, state, backoff: Backoff::default(), acknowledged: false }
    }

    /// The state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// When [`Input::Elapsed`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Stopped => None,
            State::Starting { until }
            | State::Waiting { until, .. }
            | State::Connecting { until, .. }
            | State::Registering { until, .. }
            | State::Stopping { until } => Some(*until),
            State::Online(online) => Some(online.deadline(self.timings.pong)),
        }
    }

    /// When the next heartbeat is due, so that its numbers can be fresh.
    pub fn next_beat(&self) -> Option<Instant> {
        match &self.state {
            State::Online(online) => Some(online.next_beat()),
            _ => None,
        }
    }

    /// Takes one input. What does not fit the state changes nothing.
    pub fn step(self, input: Input, at: Moment) -> (Self, Vec<Effect>) {
        match (&self.state, input) {
            (State::Stopped, _) => (self, vec![]),
            (_, Input::StopRequested) => self.leave(at),
            (_, Input::SocketLost(setback)) => self.lost(setback, at),
            (State::Starting { .. }, Input::FactsRead) => self.dial(None, at),
            (State::Waiting { .. }, Input::TokenReplaced) => {
                Self { backoff: Backoff::default(), ..self }.dial(None, at)
            }
            (State::Connecting { .. }, Input::TokenReplaced) => {
                Self { backoff: Backoff::default(), ..self }.redial(None, at)
            }
            (State::Registering { .. } | State::Online(_), Input::TokenReplaced) => self.redial(None, at),
            (State::Connecting { .. }, Input::SocketOpened) => {
                let until = at.now + self.timings.welcome;
                (self.registering(until, false), vec![])
            }
            (State::Registering { .. } | State::Online(_), Input::FrameReceived(id, message)) => {
                self.heard(id, message, at)
            }
            (State::Online(_), Input::InventoryChanged) => (self, vec![Effect::SendRegister]),
            (&State::Online(online), Input::HealthChanged) => {
                let (online, effects) = online.send_now(at.now);
                (self.with(State::Online(online)), effects)
            }
            (&State::Online(online), Input::PongReceived(seq)) => match online.answered(seq, at.now) {
                Some(online) => (Self { acknowledged: true, ..self.with(State::Online(online)) }, vec![]),
                None => (self, vec![]),
            },
            (_, Input::Woke(slept)) => self.woke(slept, at),
            (_, Input::Elapsed) if self.deadline().is_some_and(|deadline| deadline <= at.now) => {
                self.elapsed(at)
            }
            _ => (self, vec![]),
        }
    }

    fn with(self, state: State) -> Self {
        Self { state, ..self }
    }

    fn registering(self, until: Instant, registered: bool) -> Self {
        let after = self.state.after().cloned();
        self.with(State::Registering { until, registered, after })
    }

    fn dial(self, after: Option<Setback>, at: Moment) -> (Self, Vec<Effect>) {
        let until = at.now + self.timings.connect;
        (self.with(State::Connecting { until, after }), vec![Effect::Dial])
    }

    fn redial(self, after: Option<Setback>, at: Moment) -> (Self, Vec<Effect>) {
        let (session, effects) = self.dial(after, at);
        (session, [vec![Effect::HangUp], effects].concat())
    }

    fn elapsed(self, at: Moment) -> (Self, Vec<Effect>) {
        use aio_protocol::error_code::ErrorCode::ControllerUnreachable;
        let silent = |what: &str, waited: Duration| {
            Setback::new(ControllerUnreachable, format!("{what} within {} s", waited.as_secs_f64()))
        };
        let after = self.state.after().cloned();
        match self.state {
            State::Stopped => (self, vec![]),
            State::Starting { .. } | State::Waiting { .. } => self.dial(after, at),
            State::Connecting { .. } => {
                let setback = silent("the controller did not take the connection", self.timings.connect);
                self.hang_up(setback, at)
            }
            State::Registering { .. } => {
                let setback = silent("the controller did not welcome this worker", self.timings.welcome);
                self.hang_up(setback, at)
            }
            State::Stopping { .. } => (self.with(State::Stopped), vec![Effect::HangUp]),
            State::Online(online) => match online.unless_silent(self.timings.pong, at.now) {
                Some(online) => {
                    let (online, effects) = online.send_due(at.now);
                    (self.with(State::Online(online)), effects)
                }
                None => {
                    let setback = silent("the controller answered no ping", self.timings.pong);
                    self.hang_up(setback, at)
                }
            },
        }
    }

    /// What was waited for is old, and a connection that was open may be open on this side alone.
    fn woke(self, slept: Duration, at: Moment) -> (Self, Vec<Effect>) {
        match self.state.clone() {
            State::Waiting { until, after } => {
                // What the other end asked for is measured in everybody's time; the backoff is for
                // a network that is another now.
                let until = match after.patience {
                    Patience::Backoff => at.now,
                    Patience::Long | Patience::Told(_) => until.checked_sub(slept).unwrap_or(at.now),
                };
                if until <= at.now {
                    self.dial(Some(after), at)
                } else {
                    (self.with(State::Waiting { until, after }), vec![])
                }
            }
            State::Connecting { after, .. } | State::Registering { after, .. } => self.redial(after, at),
            State::Online(online) => {
                let (online, effects) = online.woken(at.now).send_due(at.now);
                (self.with(State::Online(online)), effects)
            }
            State::Starting { .. } | State::Stopping { .. } | State::Stopped => (self, vec![]),
        }
    }

    fn heard(self, message_id: Uuid, message: ControllerMessage, at: Moment) -> (Self, Vec<Effect>) {
        match (&self.state, message) {
            (&State::Registering { until, registered: false, .. }, ControllerMessage::ConnectionAck(_)) => {
                (self.registering(until, true), vec![Effect::SendRegister])
            }
            (State::Registering { registered: true, .. }, ControllerMessage::RegisterAck(ack)) => {
                let phase = if self.acknowledged { at.jitter } else { Jitter::new(0.0) };
                let online = Online::welcomed(&ack, phase, at.now);
                let effects = [vec![Effect::KeepToken], pending(ack)].concat();
                (self.with(State::Online(online)), effects)
            }
            (&State::Online(online), ControllerMessage::RegisterAck(ack)) => {
                (self.with(State::Online(online.paced(&ack, at.now))), pending(ack))
            }
            (
                State::Online(_) | State::Registering { registered: true, .. },
                ControllerMessage::StateRequest(_),
            ) => (self, vec![Effect::SendRegister]),
            (_, message) => (self, asked(message_id, message).into_iter().collect()),
        }
    }

    fn leave(self, at: Moment) -> (Self, Vec<Effect>) {
        match self.state {
            State::Stopping { .. } => (self, vec![]),
            State::Online(_) | State::Registering { registered: true, .. } => {
                let until = at.now + self.timings.goodbye;
                (self.with(State::Stopping { until }), vec![Effect::SayGoodbye])
            }
            State::Connecting { .. } | State::Registering { .. } => {
                (self.with(State::Stopped), vec![Effect::HangUp])
            }
            State::Starting { .. } | State::Waiting { .. } | State::Stopped => {
                (self.with(State::Stopped), vec![])
            }
        }
    }

    fn lost(self, setback: Setback, at: Moment) -> (Self, Vec<Effect>) {
        match self.state {
            State::Connecting { .. } | State::Registering { .. } | State::Online(_) => {
                (self.wait(setback, at), vec![])
            }
            State::Stopping { .. } => (self.with(State::Stopped), vec![]),
            State::Starting { .. } | State::Waiting { .. } | State::Stopped => (self, vec![]),
        }
    }

    fn hang_up(self, setback: Setback, at: Moment) -> (Self, Vec<Effect>) {
        (self.wait(setback, at), vec![Effect::HangUp])
    }

    fn wait(self, after: Setback, at: Moment) -> Self {
        let backoff = match &self.state {
            State::Online(online) => self.backoff.lived(at.now.saturating_duration_since(online.since)),
            _ => self.backoff,
        };
        let delay = match after.patience {
            Patience::Backoff => backoff.delay(at.jitter),
            Patience::Long => backoff::long_delay(at.jitter),
            Patience::Told(told) => backoff::told_delay(told, at.jitter),
        };
        Self { backoff: backoff.failed(), ..self.with(State::Waiting { until: at.now + delay, after }) }
    }
}

/// What the controller asks for, be it in a message of its own or in a `register.ack`.
fn asked(message_id: Uuid, message: ControllerMessage) -> Option<Effect> {
    match message {
        ControllerMessage::TokenOffer(offer) => Some(Effect::WeighOffer(message_id, offer)),
        ControllerMessage::Update(_) | ControllerMessage::Permit(_) | ControllerMessage::CancelUpdate(_) => {
            Some(Effect::HearOfUpdate(message_id, Box::new(message)))
        }
        ControllerMessage::Drain(_) => {
            Some(Effect::RefuseCommand { message_id, kind: message.kind().to_owned() })
        }
        _ => None,
    }
}

/// What becomes of the commands that waited for this worker.
fn pending(ack: RegisterAck) -> Vec<Effect> {
    let of = |PendingCommand { message_id, kind, data }| {
        let known = ControllerMessage::of(&kind, data).and_then(|message| asked(message_id, message));
        known.unwrap_or(Effect::RefuseCommand { message_id, kind })
    };
    ack.pending_commands.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests;
