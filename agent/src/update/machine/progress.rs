//! What becomes of an update that is under way: its deadlines, the download, root's answers, and what
//! root says of itself, which overrules what this machine thinks.

use aio_protocol::{
    error_code::ErrorCode,
    event::ErrorReport,
    failure::Failure,
    update::{LastUpdate, RootAnswer, RootPhase, RootRequest, RootStatus, Verdict},
};
use uuid::Uuid;

use super::{DOWNLOAD_TIMEOUT, Effect, Machine, Moment, STAGE_TIMEOUT, SWITCH_TIMEOUT, State, Watch};
use crate::update::{memory::Tried, offer::Offer};

impl Machine {
    pub(super) fn elapsed(&mut self, at: Moment) -> Vec<Effect> {
        let expired = |offer: &Offer| offer.deadline <= at.wall;
        match &self.state {
            State::Idle | State::Watched { .. } => vec![],
            State::Deferred { offer, .. }
            | State::Staging { offer, .. }
            | State::Rehearsing { offer, .. }
            | State::Awaiting { offer, .. }
                if expired(offer) =>
            {
                let words = format!("the deadline for {} came before the switch", offer.version);
                self.give_up(ErrorReport::new(ErrorCode::UpdateExpired, words), at)
            }
            State::Staging { until, .. } if *until <= at.now => {
                let words = format!("the download took more than {} min", DOWNLOAD_TIMEOUT.as_secs() / 60);
                let mut effects = vec![Effect::StopDownload];
                effects.extend(self.fail(ErrorReport::new(ErrorCode::DownloadFailed, words), at));
                effects
            }
            State::Rehearsing { until, .. } | State::Switching { until, .. } if *until <= at.now => {
                let words = "root does not answer: journalctl -u aio-worker-update.service says why";
                self.fail(ErrorReport::new(ErrorCode::UpdateInterrupted, words), at)
            }
            State::Deferred { look, .. } if *look <= at.now => self.look_again(at),
            State::Awaiting { .. } => {
                if let State::Awaiting { permit, .. } = &mut self.state {
                    *permit = permit.filter(|until| *until > at.now);
                }
                self.look_again(at)
            }
            _ => vec![],
        }
    }

    pub(super) fn acknowledged(&mut self, at: Moment) -> Vec<Effect> {
        let State::Awaiting { offer, permit: Some(until), .. } = &self.state else { return vec![] };
        if *until <= at.now || offer.deadline <= at.wall || self.obstacle(offer, at).is_some() {
            return vec![];
        }
        let offer = offer.clone();
        // Should it end without anybody's word, it was a try.
        let times = self.tries(offer.id) + 1;
        self.memory.tried = Some(Tried { update_id: offer.id, times });
        let request = RootRequest::Switch { update_id: offer.id };
        self.state = State::Switching { offer, until: at.now + SWITCH_TIMEOUT };
        vec![Effect::AskRoot(request)]
    }

    pub(super) fn downloaded(&mut self, id: Uuid, outcome: Result<u64, Failure>, at: Moment) -> Vec<Effect> {
        let State::Staging { offer, .. } = &self.state else { return vec![] };
        if offer.id != id {
            return vec![];
        }
        // The newest index counts, which may be newer than the offer.
        let index_serial = match outcome {
            Ok(serial) => serial,
            Err(failure) => return self.fail(failure.into(), at),
        };
        if offer.deadline <= at.wall {
            return self.elapsed(at);
        }
        let offer = offer.clone();
        let request = RootRequest::Stage {
            update_id: id,
            version: offer.version.clone(),
            manifest_sha256: offer.manifest_sha256.clone(),
            index_serial,
        };
        self.state = State::Rehearsing { offer, until: at.now + STAGE_TIMEOUT, verified: false };
        vec![Effect::AskRoot(request)]
    }

    pub(super) fn answered(
        &mut self,
        id: Uuid,
        answer: Result<RootAnswer, Failure>,
        at: Moment,
    ) -> Vec<Effect> {
        let (offer, switching) = match &self.state {
            State::Rehearsing { offer, .. } if offer.id == id => (offer.clone(), false),
            State::Switching { offer, .. } if offer.id == id => (offer.clone(), true),
            _ => return vec![],
        };
        match answer {
            Ok(RootAnswer::Staged) if !switching => self.wait_or_begin(offer, true, at),
            Ok(RootAnswer::Staged | RootAnswer::Switching) => vec![],
            Ok(RootAnswer::Refused { code, message }) => self.fail(ErrorReport::new(code, message), at),
            Err(failure) => self.fail(failure.into(), at),
        }
    }

    pub(super) fn root_told(&mut self, status: RootStatus, at: Moment) -> Vec<Effect> {
        let ended = status.last.clone().filter(|last| self.root.last.as_ref() != Some(last));
        self.root = status;
        let mut effects = vec![];
        // What root said before this process began is remembered already.
        let is_news = |last: &LastUpdate| self.memory.last.as_ref().is_none_or(|known| known.at < last.at);
        if let Some(last) = ended.clone().filter(is_news) {
            let is_over = matches!(last.verdict, Verdict::Succeeded | Verdict::Faulty | Verdict::Reverted);
            effects.extend(self.remember(last));
            if is_over && self.is_idle() {
                effects.push(Effect::ClearInbox);
            }
        }
        let watch = match self.root.phase {
            RootPhase::Switching => Some(Watch::Switching),
            RootPhase::Proving => Some(Watch::Proving),
            RootPhase::Probation => Some(Watch::Probation),
            RootPhase::Reverting => Some(Watch::Reverting),
            RootPhase::Idle | RootPhase::Staging | RootPhase::Rehearsing | RootPhase::Staged => None,
        };
        if let (Some(phase), Some(id)) = (watch, self.root.update_id) {
            if matches!(self.state, State::Staging { .. }) {
                effects.push(Effect::StopDownload);
            }
            let version = self.root.version.clone().unwrap_or_else(|| self.running.clone());
            self.state = State::Watched { id, version, phase };
            return effects;
        }
        match &mut self.state {
            State::Watched { .. } => {
                self.state = State::Idle;
                effects.push(Effect::ClearInbox);
            }
            State::Switching { offer, .. }
                if ended.as_ref().is_some_and(|last| last.update_id == offer.id) =>
            {
                let offer = offer.clone();
                effects.extend(self.undone(offer, ended, at));
            }
            State::Rehearsing { offer, verified, .. } if self.root.update_id == Some(offer.id) => {
                *verified |= self.root.phase != RootPhase::Staging;
            }
            _ => {}
        }
        effects
    }

    /// Root has ended the switch, and this process still runs.
    pub(super) fn undone(&mut self, offer: Offer, ended: Option<LastUpdate>, at: Moment) -> Vec<Effect> {
        let passes = ended.is_some_and(|last| {
            let code = last.code.as_deref().and_then(ErrorCode::parse);
            matches!(last.verdict, Verdict::Refused | Verdict::Interrupted | Verdict::Inconclusive)
                && !code.is_some_and(ErrorCode::condemns_the_release)
        });
        if passes && !self.is_exhausted(offer.id) {
            return self.wait_or_begin(Offer { hurried: false, ..offer }, false, at);
        }
        self.state = State::Idle;
        vec![Effect::ClearInbox]
    }
}
