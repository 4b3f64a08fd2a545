//! When a rollout stops by itself. What stands in no denominator: nodes that wait for their window, are not
//! there, or are left out.

use std::time::Duration;

use aio_protocol::time::Timestamp;

use super::model::{Criterion, Pauser, Rollout, Stage, State};

/// So many faulty and lost nodes halt a rollout at least.
const MIN_FAILED: u32 = 2;

/// This part of those that were tried does, in percent.
const FAILED_PERCENT: u32 = 5;

/// This part of those that were tried pauses it, where nobody can say how they ended, in percent.
const INCONCLUSIVE_PERCENT: u32 = 20;

/// Without any progress for so long it pauses.
pub(super) const STALL: Duration = Duration::from_secs(3600);

/// Why the rollout must halt, if it must.
pub(super) fn halt(rollout: &Rollout) -> Option<Criterion> {
    let (tally, pardoned) = (&rollout.tally, &rollout.pardoned);
    if matches!(rollout.state, State::Reverting { .. }) {
        return None;
    }
    if tally.until(0, Stage::Faulty) > pardoned.canaries {
        return Some(Criterion::FaultyCanary);
    }
    let failed = failed(rollout).saturating_sub(pardoned.failed);
    let bound = MIN_FAILED.max(tried(rollout).saturating_mul(FAILED_PERCENT).div_ceil(100));
    (failed >= bound).then_some(Criterion::TooManyFailed)
}

/// Who pauses the rollout, if anybody does.
pub(super) fn pause(rollout: &Rollout, brake_holds: bool, now: Timestamp) -> Option<Pauser> {
    let inconclusive = rollout.tally.of(Stage::Inconclusive).saturating_sub(rollout.pardoned.inconclusive);
    if brake_holds {
        Some(Pauser::Brake)
    } else if inconclusive > 0 && inconclusive * 100 >= tried(rollout).saturating_mul(INCONCLUSIVE_PERCENT) {
        Some(Pauser::Inconclusive)
    } else if rollout.tally.waited_for(rollout.open_until()) > 0 && stall_at(rollout) <= now {
        Some(Pauser::Stalled)
    } else {
        None
    }
}

/// When the rollout has stood still for too long.
pub(super) fn stall_at(rollout: &Rollout) -> Timestamp {
    let opens_at = match rollout.state {
        State::Rolling { opens_at, .. } => opens_at.max(rollout.progressed_at),
        _ => rollout.progressed_at,
    };
    opens_at.plus(STALL)
}

pub(super) fn failed(rollout: &Rollout) -> u32 {
    rollout.tally.of(Stage::Faulty) + rollout.tally.of(Stage::Lost)
}

fn tried(rollout: &Rollout) -> u32 {
    let tried = [Stage::Succeeded, Stage::Probation, Stage::Faulty, Stage::Inconclusive, Stage::Lost];
    tried.into_iter().map(|stage| rollout.tally.of(stage)).sum()
}
