//! How a try or an update ends, what is remembered of it, and how often an offer was tried.

use aio_protocol::{
    error_code::ErrorCode,
    event::ErrorReport,
    release::ReleaseVersion,
    update::{LastUpdate, Verdict},
};
use uuid::Uuid;

use super::{Effect, Machine, Moment, RETRY_PAUSES, State};
use crate::update::{memory::Tried, offer::Offer};

impl Machine {
    /// A try came to nothing; there may be another.
    pub(super) fn fail(&mut self, error: ErrorReport, at: Moment) -> Vec<Effect> {
        let (offer, counted) = match &self.state {
            State::Staging { offer, .. } | State::Rehearsing { offer, .. } => (offer.clone(), false),
            State::Switching { offer, .. } => (offer.clone(), true),
            _ => return vec![],
        };
        let times = self.tries(offer.id) + u32::from(!counted);
        self.memory.tried = Some(Tried { update_id: offer.id, times });
        if error.known_code().is_some_and(ErrorCode::condemns_the_release) || self.is_exhausted(offer.id) {
            return self.give_up(error, at);
        }
        let mut effects = self.remember(self.refused(offer.id, offer.version.clone(), error, at));
        // An operator's word is for one try.
        effects.extend(self.wait_or_begin(Offer { hurried: false, ..offer }, false, at));
        effects
    }

    /// Ends the update that has not been switched to.
    pub(super) fn give_up(&mut self, error: ErrorReport, at: Moment) -> Vec<Effect> {
        let offer = match &self.state {
            State::Deferred { offer, .. }
            | State::Staging { offer, .. }
            | State::Rehearsing { offer, .. }
            | State::Awaiting { offer, .. }
            | State::Switching { offer, .. } => offer.clone(),
            State::Idle | State::Watched { .. } => return vec![],
        };
        let mut effects = vec![];
        if matches!(self.state, State::Staging { .. }) {
            effects.push(Effect::StopDownload);
        }
        effects.extend(self.end(self.refused(offer.id, offer.version, error, at)));
        effects
    }

    pub(super) fn end(&mut self, ended: LastUpdate) -> Vec<Effect> {
        let mut effects = self.remember(ended);
        if !matches!(self.state, State::Watched { .. }) {
            if matches!(self.state, State::Staging { .. }) {
                effects.push(Effect::StopDownload);
            }
            self.state = State::Idle;
            effects.push(Effect::ClearInbox);
        }
        effects
    }

    pub(super) fn remember(&mut self, last: LastUpdate) -> Vec<Effect> {
        match last.verdict {
            // What runs is what was gone back to.
            Verdict::Reverted if last.version == self.running => {
                self.memory.reverted = Some(last.from.clone())
            }
            Verdict::Reverted => self.memory.reverted = Some(last.version.clone()),
            Verdict::Succeeded => self.memory.reverted = None,
            _ => {}
        }
        self.memory.last = Some(last);
        vec![Effect::Remember]
    }

    pub(super) fn refused(
        &self,
        update_id: Uuid,
        version: ReleaseVersion,
        error: ErrorReport,
        at: Moment,
    ) -> LastUpdate {
        LastUpdate {
            update_id,
            from: self.running.clone(),
            version,
            verdict: Verdict::Refused,
            code: Some(error.code),
            message: Some(error.message),
            at: at.wall,
        }
    }

    pub(super) fn is_exhausted(&self, id: Uuid) -> bool {
        usize::try_from(self.tries(id)).is_ok_and(|times| times > RETRY_PAUSES.len())
    }

    pub(super) fn tries(&self, id: Uuid) -> u32 {
        self.memory.tried.as_ref().filter(|tried| tried.update_id == id).map_or(0, |tried| tried.times)
    }

    /// The last update that ended, if it was this one.
    pub(super) fn last(&self, id: Uuid) -> Option<&LastUpdate> {
        self.memory.last.as_ref().filter(|last| last.update_id == id)
    }
}
