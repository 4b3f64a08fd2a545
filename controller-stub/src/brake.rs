//! Whether silent nodes go offline. When more than half of an organisation's nodes would go within a minute,
//! the network between them and this controller is the likelier cause: its nodes are then held, one alarm is
//! raised, and time is given. One more brake holds the nodes of all organisations, when most organisations
//! are silent at once. Pure; `watch` carries the effects out.
//!
//! ```text
//!         most nodes are silent: RaiseAlarm
//! Ready ──────────────────────────────────▶ Holding ──┐
//!   ▲ ▲                                        │        │ held long enough: GiveWay
//!   │ └── most are heard again: Pardon ────────┘        ▼
//!   └──────────────── a window has passed ───────── Yielding
//! ```

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use aio_protocol::ids::OwnerId;

/// Half of fewer nodes than these may go offline at once without an alarm.
const SMALLEST_FLEET: usize = 10;

/// Nodes that go offline within this time go together; half a lease, if that is shorter. No worker
/// that keeps its pace is silent for so long that its lease comes this near to its end.
const WINDOW: Duration = Duration::from_secs(60);

/// How the leases of an organisation's nodes stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Fleet {
    /// Nodes with a lease.
    pub leased: usize,
    /// Those of them whose lease ends within the window, or has ended.
    pub silent: usize,
    /// Those of them whose lease has ended.
    pub expired: usize,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nodes whose lease has ended go offline.
    LetGo,
    /// Tell the operator; no node goes offline.
    RaiseAlarm,
    /// Tell the operator that the wait is over; nodes whose lease has ended go offline.
    GiveWay,
    /// Tell the operator that most nodes are back, and give every silent node a new lease to come back in.
    Pardon,
}

/// Whose nodes an effect is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    All,
    Organisation(OwnerId),
}

/// The brakes of all organisations, and the one for all of them.
#[derive(Debug)]
pub(crate) struct Brakes {
    window: Duration,
    patience: Duration,
    all: State,
    organisations: HashMap<OwnerId, Brake>,
}

#[derive(Debug, Default)]
struct Brake {
    state: State,
    /// How many nodes went offline within the last window, and when.
    gone: VecDeque<(Instant, usize)>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Ready,
    Holding {
        until: Instant,
    },
    Yielding {
        until: Instant,
    },
}

impl Brakes {
    /// For leases of this length. Nodes are held for up to two and a half of them: five minutes of two each.
    pub(crate) fn new(lease: Duration) -> Self {
        Self {
            window: WINDOW.min(lease / 2),
            patience: lease * 5 / 2,
            all: State::Ready,
            organisations: HashMap::new(),
        }
    }

    /// How near to its end a lease is that counts as silent.
    pub(crate) fn window(&self) -> Duration {
        self.window
    }

    /// Whether an organisation's nodes are held.
    pub(crate) fn holds(&self, organisation: &OwnerId) -> bool {
        let holds = |state| matches!(state, State::Holding { .. });
        holds(self.all) || self.organisations.get(organisation).is_some_and(|brake| holds(brake.state))
    }

    /// Goes one step, and says what is to be done about whose nodes.
    pub(crate) fn step(&mut self, fleets: &HashMap<OwnerId, Fleet>, now: Instant) -> Vec<(Scope, Effect)> {
        self.organisations.retain(|organisation, _| fleets.contains_key(organisation));
        for organisation in fleets.keys() {
            let brake = self.organisations.entry(organisation.clone()).or_default();
            while brake.gone.pop_front_if(|(at, _)| *at + self.window <= now).is_some() {}
        }
        let mut effects = Vec::new();
        let expired =
            fleets.iter().any(|(organisation, fleet)| fleet.expired > 0 && !self.holds(organisation));
        let all = self.all.step(self.most_are_silent(fleets), expired, (self.window, self.patience), now);
        effects.extend(all.filter(|effect| *effect != Effect::LetGo).map(|effect| (Scope::All, effect)));
        match self.all {
            State::Holding { .. } => self.organisations.values_mut().for_each(|brake| brake.gone.clear()),
            _ if all == Some(Effect::Pardon) => {}
            State::Yielding { .. } => {
                let expired = fleets.iter().filter(|(_, fleet)| fleet.expired > 0);
                effects.extend(expired.map(|(whose, _)| (Scope::Organisation(whose.clone()), Effect::LetGo)));
            }
            State::Ready => {
                for (organisation, brake) in &mut self.organisations {
                    let fleet = fleets.get(organisation).copied().unwrap_or_default();
                    let effect = brake.step(fleet, (self.window, self.patience), now);
                    effects.extend(effect.map(|effect| (Scope::Organisation(organisation.clone()), effect)));
                }
            }
        }
        effects
    }

    /// Whether most organisations are silent, and most nodes of all but the one with the most
    /// silent nodes: no organisation alone holds the nodes of another.
    fn most_are_silent(&self, fleets: &HashMap<OwnerId, Fleet>) -> bool {
        let counted = |(organisation, fleet): (&OwnerId, &Fleet)| {
            self.organisations.get(organisation).map_or(*fleet, |brake| brake.with_gone(*fleet))
        };
        let (mut sum, mut largest, mut silent_organisations) = (Fleet::default(), Fleet::default(), 0);
        for fleet in fleets.iter().map(counted) {
            sum = Fleet { leased: sum.leased + fleet.leased, silent: sum.silent + fleet.silent, ..sum };
            silent_organisations += usize::from(fleet.silent * 2 > fleet.leased);
            if fleet.silent > largest.silent {
                largest = fleet;
            }
        }
        silent_organisations * 2 > fleets.len()
            && mostly_silent(Fleet {
                leased: sum.leased - largest.leased,
                silent: sum.silent - largest.silent,
                ..sum
            })
    }
}

impl Brake {
    fn step(&mut self, fleet: Fleet, times: (Duration, Duration), now: Instant) -> Option<Effect> {
        let was_ready = self.state == State::Ready;
        // What is held is measured as it is; who went before it was held does not come back by it.
        let most =
            if was_ready { mostly_silent(self.with_gone(fleet)) } else { fleet.silent * 2 > fleet.leased };
        let effect = self.state.step(most, fleet.expired > 0, times, now);
        if self.state != State::Ready {
            self.gone.clear();
        } else if was_ready && effect == Some(Effect::LetGo) {
            self.gone.push_back((now, fleet.expired));
        }
        effect
    }

    /// The fleet, with those that went offline within the last window counted as silent.
    fn with_gone(&self, fleet: Fleet) -> Fleet {
        let gone: usize = self.gone.iter().map(|(_, count)| count).sum();
        Fleet { leased: fleet.leased + gone, silent: fleet.silent + gone, ..fleet }
    }
}

impl State {
    fn step(
        &mut self,
        most_are_silent: bool,
        some_expired: bool,
        (window, patience): (Duration, Duration),
        now: Instant,
    ) -> Option<Effect> {
        let (state, effect) = match *self {
            Self::Ready if some_expired && most_are_silent => {
                (Self::Holding { until: now + patience }, Some(Effect::RaiseAlarm))
            }
            Self::Holding { .. } if !most_are_silent => (Self::Ready, Some(Effect::Pardon)),
            Self::Holding { until } if until <= now => {
                (Self::Yielding { until: now + window }, Some(Effect::GiveWay))
            }
            Self::Holding { .. } => (*self, None),
            Self::Yielding { until } if until <= now => (Self::Ready, some_expired.then_some(Effect::LetGo)),
            Self::Ready | Self::Yielding { .. } => (*self, some_expired.then_some(Effect::LetGo)),
        };
        *self = state;
        effect
    }
}

fn mostly_silent(fleet: Fleet) -> bool {
    fleet.leased >= SMALLEST_FLEET && fleet.silent * 2 > fleet.leased
}

#[cfg(test)]
mod tests;
