//! When an update may go on: what stands in its way, and what changes that.

use aio_protocol::time::Timestamp;
use uuid::Uuid;

use super::{DOWNLOAD_TIMEOUT, Effect, LOOK_INTERVAL, Machine, Moment, RETRY_PAUSES, State, Wait};
use crate::update::{
    offer::Offer,
    policy::{Mode, Policy},
};

impl Machine {
    pub(super) fn policy_changed(&mut self, policy: Policy, at: Moment) -> Vec<Effect> {
        self.policy = policy;
        self.unwanted = None;
        let version = match &self.state {
            State::Deferred { offer, .. }
            | State::Staging { offer, .. }
            | State::Rehearsing { offer, .. }
            | State::Awaiting { offer, .. } => &offer.version,
            State::Idle | State::Switching { .. } | State::Watched { .. } => return vec![],
        };
        match self.unwilling(version) {
            Some(error) => self.give_up(error, at),
            None => self.look_again(at),
        }
    }

    pub(super) fn hurried(&mut self, at: Moment) -> Vec<Effect> {
        self.put_off_until = None;
        self.unwanted = None;
        let mut effects = vec![];
        let tried = self.memory.tried.take_if(|_| self.state == State::Idle).is_some();
        if self.memory.reverted.take().is_some() || tried {
            effects.push(Effect::Remember);
        }
        match &mut self.state {
            State::Deferred { offer, .. }
            | State::Staging { offer, .. }
            | State::Rehearsing { offer, .. } => {
                offer.hurried = true;
            }
            State::Awaiting { offer, .. } => offer.hurried = true,
            State::Idle | State::Switching { .. } | State::Watched { .. } => {}
        }
        effects.extend(self.look_again(at));
        effects
    }

    /// Whether what waits may go on, and what was prepared may still be begun.
    pub(super) fn look_again(&mut self, at: Moment) -> Vec<Effect> {
        match &self.state {
            State::Deferred { offer, .. } | State::Awaiting { offer, .. } if offer.deadline <= at.wall => {
                self.elapsed(at)
            }
            State::Deferred { offer, staged, .. } => {
                let (offer, staged) = (offer.clone(), *staged);
                self.wait_or_begin(offer, staged, at)
            }
            State::Awaiting { offer, permit, .. } => {
                let (offer, permitted) = (offer.clone(), *permit);
                let effects = self.wait_or_begin(offer, true, at);
                if let State::Awaiting { permit, .. } = &mut self.state {
                    *permit = permitted;
                }
                effects
            }
            _ => vec![],
        }
    }

    /// Goes on with an offer, as far as nothing stands in its way.
    pub(super) fn wait_or_begin(&mut self, offer: Offer, staged: bool, at: Moment) -> Vec<Effect> {
        if let Some(why) = self.obstacle(&offer, at) {
            self.defer(offer, why, staged, at);
            return vec![];
        }
        if staged {
            self.state = State::Awaiting { offer, permit: None, look: at.now + LOOK_INTERVAL };
            return vec![];
        }
        self.state = State::Staging { offer: offer.clone(), until: at.now + DOWNLOAD_TIMEOUT };
        vec![Effect::Download(Box::new(offer))]
    }

    pub(super) fn defer(&mut self, offer: Offer, why: Wait, staged: bool, at: Moment) {
        self.state = State::Deferred { offer, why, look: at.now + LOOK_INTERVAL, staged };
    }

    /// What this offer has to wait for now.
    pub(super) fn obstacle(&self, offer: &Offer, at: Moment) -> Option<Wait> {
        if let Some(time) = offer.not_before.filter(|time| *time > at.wall) {
            return Some(Wait::NotBefore(time));
        }
        if offer.hurried {
            return None;
        }
        if self.policy.settings.mode == Mode::Notify {
            return Some(Wait::Operator(None));
        }
        if let Some(until) = self.put_off_until.filter(|until| *until > at.wall) {
            return Some(Wait::Operator(Some(until)));
        }
        if let Some(time) = self.next_try(offer.id).filter(|time| *time > at.wall) {
            return Some(Wait::Retry(time));
        }
        if !offer.urgent && !at.window_open {
            return Some(Wait::Window);
        }
        let limit = [offer.gpu_above, self.policy.settings.gpu_above].into_iter().flatten().min()?;
        at.gpu_percent.filter(|percent| *percent > limit).map(|_| Wait::GpuBusy(limit))
    }

    /// When an offer that came to nothing may be tried again.
    pub(super) fn next_try(&self, id: Uuid) -> Option<Timestamp> {
        let times = usize::try_from(self.tries(id)).unwrap_or(usize::MAX);
        let pause = RETRY_PAUSES.get(times.checked_sub(1)?)?;
        let last = self.last(id)?;
        Some(last.at.plus(*pause))
    }
}
