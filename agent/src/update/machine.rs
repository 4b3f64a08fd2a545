//! The update machine: whether to take an offer, when to begin, how long to wait for whom, when to
//! ask root for what, and what to tell the controller. Pure: inputs and the moment come in, effects
//! go out. No I/O, clock or logging; nothing that it says makes root do anything but look.
//!
//! `state` has its words. What an input does stands in `controller` (what the controller says),
//! `progress` (what becomes of an update that is under way), `waiting` (when it may go on) and
//! `ending`. What the controller and people are told stands in `report`.

mod controller;
mod ending;
mod progress;
mod report;
mod state;
mod waiting;

use std::time::{Duration, Instant};

use aio_protocol::{event::ErrorReport, release::ReleaseVersion, time::Timestamp, update::RootStatus};
use uuid::Uuid;

use super::{memory::Memory, offer::Offer, policy::Policy};

pub use state::{Effect, Input, Moment, State, Wait, Watch};

/// Between two looks at what an update waits for.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// For all of a download.
pub const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// For root to verify a release and to let it rehearse, on a slow disk.
pub const STAGE_TIMEOUT: Duration = Duration::from_secs(120);

/// From asking for the switch to being stopped for it.
pub const SWITCH_TIMEOUT: Duration = Duration::from_secs(60);

/// From one try that came to nothing to the next. After the last, the offer has failed.
pub const RETRY_PAUSES: [Duration; 3] =
    [Duration::from_secs(600), Duration::from_secs(3600), Duration::from_secs(6 * 3600)];

/// The machine: its state, and what outlives a state.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    running: ReleaseVersion,
    state: State,
    policy: Policy,
    root: RootStatus,
    memory: Memory,
    put_off_until: Option<Timestamp>,
    /// The offer that was not taken last, and why.
    unwanted: Option<(Uuid, ErrorReport)>,
}

impl Machine {
    /// A machine of a daemon of the version `running`, with what it remembers.
    pub fn new(running: ReleaseVersion, memory: Memory) -> Self {
        Self {
            running,
            memory,
            state: State::Idle,
            policy: Policy::default(),
            root: RootStatus::default(),
            put_off_until: None,
            unwanted: None,
        }
    }

    /// The state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What is to outlive this process.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// What it decides by.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Whether nothing is to be done.
    pub fn is_idle(&self) -> bool {
        self.state == State::Idle
    }

    /// Whether a daemon that is stopped now will be back in a moment, as another version.
    pub fn is_being_replaced(&self) -> bool {
        matches!(
            self.state,
            State::Switching { .. } | State::Watched { phase: Watch::Switching | Watch::Reverting, .. }
        )
    }

    /// When [`Input::Elapsed`] is due.
    pub fn deadline(&self, now: Instant, wall: Timestamp) -> Option<Instant> {
        let expiry = |offer: &Offer| now + offer.deadline.since(wall);
        match &self.state {
            State::Idle | State::Watched { .. } => None,
            State::Deferred { offer, look, .. } => Some((*look).min(expiry(offer))),
            State::Staging { offer, until } | State::Rehearsing { offer, until, .. } => {
                Some((*until).min(expiry(offer)))
            }
            State::Awaiting { offer, permit, look } => {
                Some(permit.unwrap_or(*look).min(*look).min(expiry(offer)))
            }
            State::Switching { until, .. } => Some(*until),
        }
    }

    /// Takes one input. What does not fit the state changes nothing.
    pub fn step(mut self, input: Input, at: Moment) -> (Self, Vec<Effect>) {
        let effects = match input {
            Input::Offered(message, update) => self.offered(message, update, at),
            Input::Permitted(message, permit) => self.permitted(message, &permit, at),
            Input::Cancelled(message, cancel) => self.cancelled(message, cancel, at),
            Input::Elapsed => self.elapsed(at),
            Input::BeatAcknowledged => self.acknowledged(at),
            Input::Downloaded(id, outcome) => self.downloaded(id, outcome, at),
            Input::RootAnswered(id, answer) => self.answered(id, answer, at),
            Input::RootTold(status) => self.root_told(*status, at),
            Input::PolicyChanged(policy) => self.policy_changed(*policy, at),
            Input::PutOff(until) => {
                self.put_off_until = until;
                self.look_again(at)
            }
            Input::Hurried => self.hurried(at),
        };
        (self, effects)
    }
}

#[cfg(test)]
mod tests;
