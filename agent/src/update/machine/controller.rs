//! What the controller says: an offer, a permit, a cancellation. Each is acknowledged or rejected,
//! once for each message. Whether an offer that is taken may begin is decided in `waiting`.

use std::time::Duration;

use aio_protocol::{
    error_code::ErrorCode,
    event::ErrorReport,
    release::ReleaseVersion,
    update::{LastUpdate, Verdict},
    wire::{NodeUpdate, UpdateCancel, UpdatePermit},
};
use uuid::Uuid;

use super::{Effect, Machine, Moment, State};
use crate::update::{
    offer::Offer,
    policy::{Mode, Policy},
};

/// No permit holds longer than this.
const MAX_PERMIT: Duration = Duration::from_secs(3600);

impl Machine {
    pub(super) fn offered(&mut self, message: Uuid, update: NodeUpdate, at: Moment) -> Vec<Effect> {
        let version = update.version.clone();
        let Some(id) = update.update_id else {
            let words = format!("this worker is told that {version} is there, and not how to bring it here");
            return vec![Effect::Reject(message, ErrorReport::new(ErrorCode::CommandUnsupported, words))];
        };
        let offer = match Offer::of(update, at.wall) {
            Ok(offer) => offer,
            Err(lacking) => {
                let words = format!("the offer of {version} does not say its {lacking}");
                return self.refuse(
                    message,
                    (id, version),
                    ErrorReport::new(ErrorCode::UpdateInvalid, words),
                    at,
                );
            }
        };
        if let Some(taken) = self.offered_again(message, &offer, at) {
            return taken;
        }
        if offer.version == self.running && !self.is_root_at_work() {
            return self.runs_already(message, offer, at);
        }
        if let Some(error) = self.objection(&offer, at) {
            return self.refuse(message, (id, version), error, at);
        }
        let mut effects = vec![Effect::Acknowledge(message)];
        if matches!(self.state, State::Staging { .. }) {
            effects.push(Effect::StopDownload);
        }
        self.unwanted = None;
        effects.extend(self.wait_or_begin(offer, false, at));
        effects
    }

    /// The answer to an offer that is known already; none to a new one.
    pub(super) fn offered_again(&mut self, message: Uuid, offer: &Offer, at: Moment) -> Option<Vec<Effect>> {
        match &mut self.state {
            State::Deferred { offer: known, .. }
            | State::Staging { offer: known, .. }
            | State::Rehearsing { offer: known, .. }
            | State::Awaiting { offer: known, .. }
            | State::Switching { offer: known, .. }
                if known.id == offer.id =>
            {
                if !known.brings_the_same(offer) {
                    let words = format!("the same update was offered as {}", known.version);
                    return Some(vec![Effect::Reject(
                        message,
                        ErrorReport::new(ErrorCode::UpdateInvalid, words),
                    )]);
                }
                // Its times may be others by now.
                *known = Offer { hurried: known.hurried, ..offer.clone() };
                let mut effects = vec![Effect::Acknowledge(message)];
                effects.extend(self.look_again(at));
                Some(effects)
            }
            State::Watched { id, .. } if *id == offer.id => Some(vec![Effect::Acknowledge(message)]),
            State::Idle => {
                let last = self.last(offer.id)?;
                match last.verdict {
                    Verdict::Succeeded => Some(vec![Effect::Acknowledge(message)]),
                    Verdict::Faulty | Verdict::Reverted => {
                        let words = last.message.clone().unwrap_or_else(|| {
                            format!("{} was tried on this node and taken back", last.version)
                        });
                        let code = last.code.clone().unwrap_or_else(|| ErrorCode::UpdateFaulty.into());
                        let offered = (offer.id, offer.version.clone());
                        Some(self.refuse(message, offered, ErrorReport::new(code, words), at))
                    }
                    Verdict::Inconclusive | Verdict::Interrupted | Verdict::Refused => None,
                }
            }
            _ => None,
        }
    }

    /// Whether, and why, this offer is not taken.
    pub(super) fn objection(&self, offer: &Offer, at: Moment) -> Option<ErrorReport> {
        let version = &offer.version;
        let error = |code, words: String| Some(ErrorReport::new(code, words));
        if let Some(error) = self.unwilling(version) {
            return Some(error);
        }
        if self.is_root_at_work() {
            return error(ErrorCode::UpdateBusy, "root is at work on another update".to_owned());
        }
        if self.memory.reverted.as_ref() == Some(version) {
            let words =
                format!("an operator went back from {version}; `aio-worker update now` lets it come again");
            return error(ErrorCode::UpdatePinned, words);
        }
        if let Some(floor) = self.root.floor.as_ref().filter(|floor| version < *floor) {
            let words = format!("{version} is older than {floor}, the oldest that the index allows");
            return error(ErrorCode::UpdateBelowFloor, words);
        }
        if offer.deadline <= at.wall {
            return error(ErrorCode::UpdateExpired, format!("the deadline for {version} has passed"));
        }
        let last = self.last(offer.id)?;
        let before = ErrorReport::new(
            last.code.clone().unwrap_or_else(|| ErrorCode::UpdateInterrupted.into()),
            last.message.clone().unwrap_or_default(),
        );
        let is_lasting = before.known_code().is_some_and(ErrorCode::condemns_the_release);
        (is_lasting || self.is_exhausted(offer.id)).then_some(before)
    }

    /// Whether, and why, the operator does not want this version from the controller.
    pub(super) fn unwilling(&self, version: &ReleaseVersion) -> Option<ErrorReport> {
        let Policy { settings, packaged, updater } = &self.policy;
        if *packaged {
            let words = "the version of this worker is the package manager's".to_owned();
            return Some(ErrorReport::new(ErrorCode::UpdatePackaged, words));
        }
        if settings.mode == Mode::Off {
            let words = "`updates.mode` is off on this node".to_owned();
            return Some(ErrorReport::new(ErrorCode::UpdatesOff, words));
        }
        if !updater {
            let words =
                "this node was installed without --auto-update: root listens to no request".to_owned();
            return Some(ErrorReport::new(ErrorCode::UpdatesOff, words));
        }
        let pin = settings.pin.as_ref().filter(|pin| *pin != version)?;
        Some(ErrorReport::new(ErrorCode::UpdatePinned, format!("this node is pinned to {pin}")))
    }

    fn is_root_at_work(&self) -> bool {
        matches!(self.state, State::Rehearsing { .. } | State::Switching { .. } | State::Watched { .. })
    }

    /// Does not take an offer. The controller goes by what is registered, so it stands there, too; the
    /// same refusal again is no news.
    pub(super) fn refuse(
        &mut self,
        message: Uuid,
        (id, version): (Uuid, ReleaseVersion),
        error: ErrorReport,
        at: Moment,
    ) -> Vec<Effect> {
        let mut effects = vec![Effect::Reject(message, error.clone())];
        if self.is_idle() {
            self.unwanted = Some((id, error.clone()));
        }
        let said = self
            .last(id)
            .is_some_and(|last| last.verdict != Verdict::Refused || last.code.as_ref() == Some(&error.code));
        // An update that is under way is registered as such. When it has ended, the offer comes again.
        let said = said || error.code == ErrorCode::UpdateBusy.as_str();
        // What waits, or is prepared, needs to know how its own last try ended.
        if !said && (self.is_idle() || self.is_root_at_work()) {
            effects.extend(self.remember(self.refused(id, version, error, at)));
        }
        effects
    }

    pub(super) fn runs_already(&mut self, message: Uuid, offer: Offer, at: Moment) -> Vec<Effect> {
        let ended = LastUpdate {
            update_id: offer.id,
            from: self.running.clone(),
            version: offer.version,
            verdict: Verdict::Succeeded,
            code: None,
            message: None,
            at: at.wall,
        };
        let mut effects = vec![Effect::Acknowledge(message)];
        effects.extend(self.end(ended));
        effects
    }

    pub(super) fn permitted(&mut self, message: Uuid, permit: &UpdatePermit, at: Moment) -> Vec<Effect> {
        let words =
            |words: String| vec![Effect::Reject(message, ErrorReport::new(ErrorCode::UpdateBusy, words))];
        match &self.state {
            State::Awaiting { offer, .. } if offer.id == permit.update_id => {
                if let Some(why) = self.obstacle(offer, at) {
                    let offer = offer.clone();
                    self.defer(offer, why, true, at);
                    return words(self.reason().unwrap_or_default());
                }
                let until = at.now + Duration::from_secs(permit.seconds).min(MAX_PERMIT);
                if let State::Awaiting { permit, .. } = &mut self.state {
                    *permit = Some(until);
                }
                vec![Effect::Acknowledge(message), Effect::Beat]
            }
            State::Switching { offer, .. } if offer.id == permit.update_id => {
                vec![Effect::Acknowledge(message)]
            }
            State::Watched { id, .. } if *id == permit.update_id => vec![Effect::Acknowledge(message)],
            State::Deferred { offer, .. } if offer.id == permit.update_id => {
                words(self.reason().unwrap_or_default())
            }
            _ => words("no update of this id is prepared".to_owned()),
        }
    }

    pub(super) fn cancelled(&mut self, message: Uuid, cancel: UpdateCancel, at: Moment) -> Vec<Effect> {
        match &self.state {
            State::Switching { offer: Offer { id, .. }, .. } | State::Watched { id, .. }
                if *id == cancel.update_id =>
            {
                let words = "the node is switching already".to_owned();
                vec![Effect::Reject(message, ErrorReport::new(ErrorCode::UpdateBusy, words))]
            }
            // A try of it has ended, and what that came to says more than that there will be no other.
            State::Deferred { offer, .. }
                if offer.id == cancel.update_id && self.last(offer.id).is_some() =>
            {
                self.state = State::Idle;
                vec![Effect::Acknowledge(message), Effect::ClearInbox]
            }
            State::Deferred { offer, .. }
            | State::Staging { offer, .. }
            | State::Rehearsing { offer, .. }
            | State::Awaiting { offer, .. }
                if offer.id == cancel.update_id =>
            {
                let why = cancel.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
                let words = format!("the controller took {} back{why}", offer.version);
                let mut effects = vec![Effect::Acknowledge(message)];
                effects.extend(self.give_up(ErrorReport::new(ErrorCode::UpdateCancelled, words), at));
                effects
            }
            // What is not here is taken back already.
            _ => vec![Effect::Acknowledge(message)],
        }
    }
}
