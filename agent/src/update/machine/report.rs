//! How the update machine stands, in the words of the wire and in a sentence for people. Decides
//! nothing.

use aio_protocol::{
    release::ReleaseVersion,
    update::{UpdateReport, UpdateState},
};
use uuid::Uuid;

use super::{Machine, State, Wait, Watch};

impl Machine {
    /// What the controller and the CLI are told.
    pub fn report(&self) -> UpdateReport {
        let (state, update) = self.told();
        UpdateReport {
            managed_by: self.policy.managed_by(),
            state,
            update_id: update.map(|(id, _)| id),
            target: update.map(|(_, version)| version.clone()),
            reason: self.reason().map(|mut reason| {
                reason.truncate(reason.floor_char_boundary(512));
                reason
            }),
            last: self.memory.last.clone(),
            pin: self.policy.settings.pin.clone(),
            floor: self.root.floor.clone(),
            index_serial: self.root.index_serial,
        }
    }

    fn told(&self) -> (UpdateState, Option<(Uuid, &ReleaseVersion)>) {
        match &self.state {
            State::Idle => (UpdateState::Idle, None),
            State::Deferred { offer, .. } => (UpdateState::Deferred, Some((offer.id, &offer.version))),
            State::Staging { offer, .. } => (UpdateState::Staging, Some((offer.id, &offer.version))),
            State::Rehearsing { offer, verified, .. } => {
                let state = if *verified { UpdateState::Rehearsing } else { UpdateState::Staging };
                (state, Some((offer.id, &offer.version)))
            }
            State::Awaiting { offer, .. } => (UpdateState::Awaiting, Some((offer.id, &offer.version))),
            State::Switching { offer, .. } => (UpdateState::Switching, Some((offer.id, &offer.version))),
            State::Watched { id, version, phase } => {
                let state = match phase {
                    Watch::Switching => UpdateState::Switching,
                    Watch::Proving => UpdateState::Proving,
                    Watch::Probation => UpdateState::Probation,
                    Watch::Reverting => UpdateState::Reverting,
                };
                (state, Some((*id, version)))
            }
        }
    }

    /// Why it waits, or will not, in a sentence.
    pub(super) fn reason(&self) -> Option<String> {
        match &self.state {
            State::Deferred { why, offer, .. } => Some(match why {
                Wait::NotBefore(time) => format!("{} is not to begin before {time}", offer.version),
                Wait::Window => match &self.policy.settings.window {
                    Some(window) => format!("{} waits for the window {window}", offer.version),
                    None => format!("{} waits for the window", offer.version),
                },
                Wait::GpuBusy(percent) => {
                    format!("{} waits for the GPUs: one is busier than {percent} %", offer.version)
                }
                Wait::Operator(Some(until)) => {
                    format!("an operator has put {} off until {until}", offer.version)
                }
                Wait::Operator(None) => format!("{} waits for `aio-worker update now`", offer.version),
                Wait::Retry(time) => {
                    let before = self.memory.last.as_ref().and_then(|last| last.message.as_deref());
                    format!("{} is tried again at {time}; before: {}", offer.version, before.unwrap_or("-"))
                }
            }),
            State::Idle => {
                let unwanted = self.unwanted.as_ref();
                let until =
                    self.put_off_until.map(|until| format!("an operator has put updates off until {until}"));
                unwanted.map(|(_, error)| format!("{}: {}", error.code, error.message)).or(until)
            }
            _ => None,
        }
    }
}
