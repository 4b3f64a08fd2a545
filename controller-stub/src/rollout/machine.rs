//! How a rollout goes on: by what its members add up to, by time, and by what somebody orders.

use aio_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;

use super::{
    criteria,
    model::{Pardoned, Pauser, Rollout, Stage, State},
};

/// So many times as many nodes may prepare as may switch.
const PREPARING: u32 = 4;

/// Shortest time between two looks at a rollout in which nothing happens.
const LOOK: Duration = Duration::from_secs(60);

/// Time between two looks at a brake.
const BRAKE_LOOK: Duration = Duration::from_secs(5);

/// What somebody orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Order {
    /// Begin.
    Start,
    /// Let no node go.
    Pause,
    /// Go on where it was, whatever has failed until now.
    Resume,
    /// Do not wait: for the canaries' time, or for the next wave's.
    Promote,
    /// End it. With `revert`, its nodes go back to the versions before.
    Abort,
}

impl Order {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Promote => "promote",
            Self::Abort => "abort",
        }
    }

    /// As the audit trail names it.
    pub(crate) fn action(self) -> &'static str {
        match self {
            Self::Start => "rollout.start",
            Self::Pause => "rollout.pause",
            Self::Resume => "rollout.resume",
            Self::Promote => "rollout.promote",
            Self::Abort => "rollout.abort",
        }
    }
}

/// Why an order is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a rollout that is {state} does not take `{order}`")]
pub(crate) struct Refusal {
    pub state: &'static str,
    pub order: &'static str,
}

/// How many nodes may go now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Room {
    /// Up to which wave.
    pub wave: u8,
    /// How many get the offer.
    pub offers: u32,
    /// How many may switch.
    pub permits: u32,
    /// How many of later waves take the place of canaries that are not there.
    pub recruits: u32,
}

impl Rollout {
    /// The last wave.
    fn last_wave(&self) -> u8 {
        u8::try_from(self.settings.waves.len()).unwrap_or(u8::MAX)
    }

    /// Up to which wave nodes are waited for.
    pub(super) fn open_until(&self) -> u8 {
        match self.state {
            State::Canary | State::Soaking { .. } => 0,
            State::Rolling { wave, .. } | State::Reverting { wave } => wave,
            _ => u8::MAX,
        }
    }

    /// When it has to be looked at although no node says anything.
    pub(crate) fn due(&self, now: Timestamp) -> Option<Timestamp> {
        let stalls = criteria::stall_at(self).max(now.plus(LOOK));
        match &self.state {
            State::Soaking { until } => Some(*until),
            State::Rolling { opens_at, .. } if *opens_at > now => Some(*opens_at),
            State::Canary | State::Rolling { .. } | State::Finishing | State::Reverting { .. } => {
                Some(stalls)
            }
            // Nothing tells that a brake lets go.
            State::Paused { by: Pauser::Brake, .. } => Some(now.plus(BRAKE_LOOK)),
            State::Draft
            | State::Completed
            | State::Paused { .. }
            | State::Halted { .. }
            | State::Aborted
            | State::Superseded => None,
        }
    }
}

/// Goes on as far as it can, and says whether that changed anything.
pub(crate) fn advance(rollout: &mut Rollout, brake_holds: bool, now: Timestamp) -> bool {
    let before = rollout.state.clone();
    // Each step leads to another state or is the last: there are not more states than this.
    for _ in 0..16 {
        let Some(next) = next(rollout, brake_holds, now) else { break };
        rollout.state = next;
        rollout.progressed_at = now;
    }
    rollout.state != before
}

fn next(rollout: &Rollout, brake_holds: bool, now: Timestamp) -> Option<State> {
    let state = &rollout.state;
    if let State::Paused { by: Pauser::Brake, from } = state {
        return (!brake_holds).then(|| (**from).clone());
    }
    if !state.is_live() {
        return None;
    }
    if let Some(criterion) = criteria::halt(rollout) {
        return Some(State::Halted { criterion, from: Box::new(state.clone()) });
    }
    let completed = matches!(state, State::Completed);
    if !completed && let Some(by) = criteria::pause(rollout, brake_holds, now) {
        return Some(State::Paused { by, from: Box::new(state.clone()) });
    }
    let tally = &rollout.tally;
    match *state {
        State::Canary => {
            if tally.members() == 0 {
                return Some(State::Completed);
            }
            let proven = tally.until(0, Stage::Succeeded) > 0 && tally.waited_for(0) == 0;
            let until = now.plus(Duration::from_secs(rollout.settings.soak_seconds.into()));
            proven.then_some(State::Soaking { until })
        }
        State::Soaking { until } => (until <= now).then_some(State::Rolling { wave: 1, opens_at: now }),
        State::Rolling { wave, opens_at } if opens_at <= now => {
            if wave >= rollout.last_wave() {
                return (tally.until(wave, Stage::Pending) == 0).then_some(State::Finishing);
            }
            let pause = Duration::from_secs(rollout.settings.wave_pause_seconds.into());
            (tally.waited_for(wave) == 0).then(|| {
                // A wave that nobody is left for is not rested after.
                let rest = tally.waited_for(rollout.last_wave()) > 0;
                State::Rolling { wave: wave + 1, opens_at: if rest { now.plus(pause) } else { now } }
            })
        }
        State::Finishing => (tally.waited_for(u8::MAX) == 0).then_some(State::Completed),
        State::Reverting { wave } if tally.waited_for(wave) == 0 => Some(match wave {
            last if last >= rollout.last_wave() => State::Aborted,
            _ => State::Reverting { wave: wave + 1 },
        }),
        _ => None,
    }
}

/// How many nodes may get an offer and a permit now.
pub(crate) fn room(rollout: &Rollout, now: Timestamp) -> Room {
    let (tally, limit) = (&rollout.tally, rollout.in_flight.max(1));
    let preparing = tally.of(Stage::Offered) + tally.of(Stage::Staged);
    let offers = (limit * PREPARING).saturating_sub(preparing);
    let permits = limit.saturating_sub(tally.of(Stage::Permitted));
    match rollout.state {
        State::Canary => {
            // Who has switched, however that ended, is not replaced; who waits or is away is.
            let ended = [Stage::Succeeded, Stage::Faulty, Stage::Inconclusive, Stage::Lost];
            let ended: u32 = ended.into_iter().map(|stage| tally.until(0, stage)).sum();
            let switching = tally.until(0, Stage::Permitted) + tally.until(0, Stage::Probation);
            Room {
                wave: 0,
                offers,
                permits: permits.min(rollout.canaries.saturating_sub(ended + switching)),
                recruits: rollout.canaries.saturating_sub(ended + tally.waited_for(0)),
            }
        }
        State::Rolling { wave, opens_at } if opens_at <= now => Room { wave, offers, permits, recruits: 0 },
        // Its wave has not opened; whoever has its offer from the one before may go.
        State::Rolling { wave, .. } => Room { wave: wave.saturating_sub(1), offers, permits, recruits: 0 },
        State::Finishing | State::Completed => Room { wave: u8::MAX, offers, permits, recruits: 0 },
        State::Reverting { wave } => Room { wave, offers, permits, recruits: 0 },
        State::Soaking { .. } => Room { wave: 0, offers: 0, permits: 0, recruits: 0 },
        State::Draft | State::Paused { .. } | State::Halted { .. } | State::Aborted | State::Superseded => {
            Room::default()
        }
    }
}

/// Takes an order; an order that asks for what is so already changes nothing.
pub(crate) fn obey(
    rollout: &mut Rollout,
    order: Order,
    revert: bool,
    now: Timestamp,
) -> Result<bool, Refusal> {
    let state = rollout.state.clone();
    let refused = || Refusal { state: rollout.state.as_str(), order: order.as_str() };
    let going = matches!(
        state,
        State::Canary
            | State::Soaking { .. }
            | State::Rolling { .. }
            | State::Finishing
            | State::Reverting { .. }
    );
    let next = match (order, state) {
        (Order::Start, State::Draft) => State::Canary,
        (Order::Start, State::Canary) => return Ok(false),
        (Order::Pause, State::Paused { by: Pauser::Operator, .. }) => return Ok(false),
        (Order::Pause, State::Paused { from, .. }) => State::Paused { by: Pauser::Operator, from },
        (Order::Pause, from) if going => State::Paused { by: Pauser::Operator, from: Box::new(from) },
        (Order::Resume, State::Paused { from, .. } | State::Halted { from, .. }) => {
            rollout.pardoned = Pardoned {
                canaries: rollout.tally.until(0, Stage::Faulty),
                failed: criteria::failed(rollout),
                inconclusive: rollout.tally.of(Stage::Inconclusive),
            };
            *from
        }
        (Order::Resume, _) if going => return Ok(false),
        (Order::Promote, State::Canary | State::Soaking { .. }) => State::Rolling { wave: 1, opens_at: now },
        (Order::Promote, State::Rolling { wave, opens_at }) if opens_at > now => {
            State::Rolling { wave, opens_at: now }
        }
        (Order::Promote, State::Rolling { wave, .. }) if wave < rollout.last_wave() => {
            State::Rolling { wave: wave + 1, opens_at: now }
        }
        (Order::Abort, State::Aborted) => return Ok(false),
        (Order::Abort, State::Reverting { .. }) if revert => return Ok(false),
        (Order::Abort, State::Draft | State::Superseded) if revert => return Err(refused()),
        (Order::Abort, State::Superseded) => return Err(refused()),
        (Order::Abort, _) if revert => State::Reverting { wave: 0 },
        (Order::Abort, _) => State::Aborted,
        _ => return Err(refused()),
    };
    if order == Order::Start {
        rollout.started_at = Some(now);
    }
    rollout.state = next;
    rollout.progressed_at = now;
    Ok(true)
}
