//! How a node of a rollout stands by what its worker says when it registers, which is the only truth: an
//! acknowledgement says that a message came, not what became of it.

use std::time::Duration;

use aio_protocol::{
    error_code::ErrorCode,
    release::{ReleaseVersion, index::ReleaseIndex},
    time::Timestamp,
    update::{LastUpdate, ManagedBy, UpdateReport, UpdateState, Verdict},
};
use uuid::Uuid;

use super::model::{Member, Note, Offered, Rollout, Skip, Stage, State};

/// A permit holds for so long.
pub(crate) const PERMIT: Duration = Duration::from_secs(300);

/// Within so long after its permit a node has switched and is heard of again: the permit, the new version's
/// way online, and its return.
const SWITCH_PATIENCE: Duration = Duration::from_secs(300 + 30 + 60);

/// After which time a node without a result is tried again.
const PAUSES: [Duration; 3] =
    [Duration::from_secs(600), Duration::from_secs(3600), Duration::from_secs(6 * 3600)];

/// What the database knows of a node.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sight {
    /// Whether it counts as there.
    pub online: bool,
    /// What it runs.
    pub version: Option<ReleaseVersion>,
    /// Whether its worker updates itself.
    pub able: bool,
    pub report: UpdateReport,
    /// The version that the controller keeps it at: its own pin, or its group's.
    pub pin: Option<ReleaseVersion>,
    pub decommissioned: bool,
}

/// The version to offer a node on its way to `target`, or why it is left out.
pub(crate) fn fit(
    target: &ReleaseVersion,
    sight: &Sight,
    index: &ReleaseIndex,
) -> Result<ReleaseVersion, Skip> {
    let present = eligible(target, sight)?;
    if *present > *target {
        return Err(Skip::Newer);
    }
    reach(present, target, index)
}

/// The version to offer a node on its way back to `target`, which it ran before.
fn fit_back(target: &ReleaseVersion, sight: &Sight, index: &ReleaseIndex) -> Result<ReleaseVersion, Skip> {
    reach(eligible(target, sight)?, target, index)
}

fn reach(
    present: &ReleaseVersion,
    target: &ReleaseVersion,
    index: &ReleaseIndex,
) -> Result<ReleaseVersion, Skip> {
    if index.is_below_floor(target) {
        return Err(Skip::Incompatible);
    }
    index.next_step(present, target).cloned().ok_or(Skip::Incompatible)
}

/// The version that a node runs which may get `target` at all.
fn eligible<'a>(target: &ReleaseVersion, sight: &'a Sight) -> Result<&'a ReleaseVersion, Skip> {
    if sight.decommissioned {
        return Err(Skip::Decommissioned);
    }
    if sight.report.managed_by == ManagedBy::Package {
        return Err(Skip::Packaged);
    }
    let (true, Some(present)) = (sight.able, &sight.version) else { return Err(Skip::Incapable) };
    if present == target {
        return Err(Skip::Current);
    }
    if sight.report.managed_by == ManagedBy::Operator {
        return Err(Skip::Unmanaged);
    }
    // The node's own pin comes before the controller's.
    if sight.report.pin.as_ref().or(sight.pin.as_ref()).is_some_and(|pin| pin != target) {
        return Err(Skip::Pinned);
    }
    Ok(present)
}

impl Member {
    /// Whether anything that its node says can change it.
    pub(crate) fn is_open(&self) -> bool {
        !self.stage.is_final() && !self.note.skip.is_some_and(Skip::is_final)
    }

    /// Where it is to come to.
    pub(crate) fn target<'a>(&'a self, rollout: &'a Rollout) -> &'a ReleaseVersion {
        match (&self.note.from, self.note.back) {
            (Some(from), true) => from,
            _ => &rollout.version,
        }
    }

    fn fit(&self, rollout: &Rollout, sight: &Sight, index: &ReleaseIndex) -> Result<ReleaseVersion, Skip> {
        let target = self.target(rollout);
        if self.note.back { fit_back(target, sight, index) } else { fit(target, sight, index) }
    }

    fn standing(&self) -> Option<&Offered> {
        self.note.offer.as_ref().filter(|offer| offer.stands)
    }

    fn at(self, stage: Stage, due: Option<Timestamp>) -> Self {
        Self { stage, due, ..self }
    }

    fn skipped(mut self, skip: Skip) -> Self {
        self.note.skip = Some(skip);
        self.withdrawn().at(Stage::Skipped, None)
    }

    fn withdrawn(mut self) -> Self {
        if let Some(offer) = &mut self.note.offer {
            offer.stands = false;
        }
        self
    }
}

/// How a member stands after what the database knows of its node now. `lease` is how long a node that is
/// silent counts as there.
pub(crate) fn observe(
    rollout: &Rollout,
    member: &Member,
    sight: &Sight,
    index: Option<&ReleaseIndex>,
    lease: Duration,
    now: Timestamp,
) -> Member {
    if !member.is_open() {
        return member.clone();
    }
    if sight.decommissioned {
        return member.clone().skipped(Skip::Decommissioned);
    }
    let Some(offer) = &member.note.offer else { return waiting(rollout, member, sight, index, now) };
    if let Some(last) = sight.report.last.as_ref().filter(|last| last.update_id == offer.update_id) {
        // A result that was taken note of is followed by another offer, or by none.
        return match member.stage {
            Stage::Pending | Stage::Late | Stage::Skipped | Stage::Inconclusive if !offer.stands => {
                waiting(rollout, member, sight, index, now)
            }
            _ => concluded(rollout, member, last, sight, now),
        };
    }
    let switches = is_switching(sight.report.state);
    if sight.report.update_id == Some(offer.update_id) && (offer.stands || switches) {
        let is_pinned = |index| member.fit(rollout, sight, index) == Err(Skip::Pinned);
        if !switches && member.stage != Stage::Permitted && index.is_some_and(is_pinned) {
            return member.clone().skipped(Skip::Pinned);
        }
        return under_way(member, sight, lease, now);
    }
    match member.stage {
        Stage::Permitted | Stage::Probation | Stage::Lost => {
            gone_or_back(member, &offer.version, sight, lease, now)
        }
        _ => waiting(rollout, member, sight, index, now),
    }
}

/// Whether a node in this state goes on, whatever is taken back.
pub(super) fn is_switching(state: UpdateState) -> bool {
    match state {
        UpdateState::Switching | UpdateState::Proving | UpdateState::Probation | UpdateState::Reverting => {
            true
        }
        UpdateState::Idle
        | UpdateState::Offered
        | UpdateState::Deferred
        | UpdateState::Staging
        | UpdateState::Staged
        | UpdateState::Rehearsing
        | UpdateState::Awaiting => false,
    }
}

/// The update of the offer has ended.
fn concluded(rollout: &Rollout, member: &Member, last: &LastUpdate, sight: &Sight, now: Timestamp) -> Member {
    let mut next = member.clone().withdrawn();
    next.note.code.clone_from(&last.code);
    next.note.message.clone_from(&last.message);
    let rehearsed_badly = last.code.as_deref() == Some(ErrorCode::RehearsalFailed.as_str());
    match last.verdict {
        Verdict::Succeeded if last.version == *member.target(rollout) => {
            if matches!(rollout.state, State::Reverting { .. }) && !member.note.back {
                return revert(&next.at(Stage::Succeeded, None));
            }
            Member { note: Note { code: None, message: None, tries: 0, ..next.note }, ..next }
                .at(Stage::Succeeded, None)
        }
        // A stepping stone: the next offer leads on.
        Verdict::Succeeded => next.at(if sight.online { Stage::Pending } else { Stage::Late }, None),
        Verdict::Faulty => next.at(Stage::Faulty, None),
        Verdict::Refused if rehearsed_badly => next.at(Stage::Faulty, None),
        Verdict::Reverted => next.skipped(Skip::Reverted),
        Verdict::Refused => refused(next, last.code.as_deref(), now),
        Verdict::Inconclusive | Verdict::Interrupted => again(next, now),
    }
}

fn refused(next: Member, code: Option<&str>, now: Timestamp) -> Member {
    match code.and_then(ErrorCode::parse) {
        Some(ErrorCode::UpdatePinned) => next.skipped(Skip::Pinned),
        Some(ErrorCode::UpdatePackaged) => next.skipped(Skip::Packaged),
        Some(ErrorCode::UpdatesOff) => next.skipped(Skip::Unmanaged),
        Some(ErrorCode::UpdateUnreachable | ErrorCode::UpdateBelowFloor) => next.skipped(Skip::Incompatible),
        // Its window did not come, or the offer was taken back: nothing was wrong.
        Some(ErrorCode::UpdateExpired | ErrorCode::UpdateCancelled) => next.at(Stage::Pending, None),
        _ => again(next, now),
    }
}

/// It is tried again later, three times.
fn again(mut next: Member, now: Timestamp) -> Member {
    let due = PAUSES.get(usize::from(next.note.tries)).map(|pause| now.plus(*pause));
    next.note.tries = next.note.tries.saturating_add(1);
    next.withdrawn().at(Stage::Inconclusive, due)
}

/// The node is on the way that was offered.
fn under_way(member: &Member, sight: &Sight, lease: Duration, now: Timestamp) -> Member {
    let UpdateReport { state, reason, .. } = &sight.report;
    let mut next = member.clone();
    next.note.message.clone_from(reason);
    next.note.silent = member.note.silent && !sight.online;
    if !sight.online {
        return match member.stage {
            Stage::Permitted | Stage::Probation => silent(next, member, lease, now),
            Stage::Lost => next,
            _ if is_switching(*state) => silent(next.at(Stage::Permitted, member.due), member, lease, now),
            _ => next.at(Stage::Late, None),
        };
    }
    let permit_holds = member.stage == Stage::Permitted && member.due.is_some_and(|due| due > now);
    match state {
        UpdateState::Deferred => next.at(Stage::Deferred, None),
        UpdateState::Awaiting if permit_holds => next,
        UpdateState::Awaiting => next.at(Stage::Staged, None),
        UpdateState::Switching | UpdateState::Proving | UpdateState::Reverting => {
            next.at(Stage::Permitted, None)
        }
        UpdateState::Probation => next.at(Stage::Probation, None),
        UpdateState::Idle
        | UpdateState::Offered
        | UpdateState::Staging
        | UpdateState::Staged
        | UpdateState::Rehearsing => next.at(Stage::Offered, None),
    }
}

/// A node that was let go is not there: lost when it is not back within a lease.
fn silent(mut next: Member, member: &Member, lease: Duration, now: Timestamp) -> Member {
    if !member.note.silent {
        // What was due until now is the permit's end, or nothing.
        next.note.silent = true;
        return Member { due: Some(now.plus(lease)), ..next };
    }
    match member.due {
        Some(due) if due <= now => {
            next.note.message = Some("it did not come back".to_owned());
            next.at(Stage::Lost, None)
        }
        due => Member { due, ..next },
    }
}

/// A node was let go and says nothing of it.
fn gone_or_back(
    member: &Member,
    version: &ReleaseVersion,
    sight: &Sight,
    lease: Duration,
    now: Timestamp,
) -> Member {
    let back = || Member { note: Note { silent: false, ..member.note.clone() }, ..member.clone() };
    match (sight.online, member.stage) {
        (false, Stage::Lost) => member.clone(),
        (false, _) => silent(member.clone(), member, lease, now),
        // It may still be on its way: between its goodbye and its return it counts as there.
        (true, Stage::Permitted) if member.due.is_some_and(|due| due > now) => back(),
        (true, _) if sight.version.as_ref() == Some(version) => back().withdrawn().at(Stage::Succeeded, None),
        (true, _) => {
            let mut next = back();
            next.note.message =
                Some("it is back at the version before and says nothing of the update".to_owned());
            again(next, now)
        }
    }
}

/// A node that has not been let go.
fn waiting(
    rollout: &Rollout,
    member: &Member,
    sight: &Sight,
    index: Option<&ReleaseIndex>,
    now: Timestamp,
) -> Member {
    let mut next = member.clone();
    if let Some(index) = index {
        match member.fit(rollout, sight, index) {
            Err(skip) if member.stage == Stage::Skipped && member.note.skip == Some(skip) => return next,
            Err(skip) => return next.skipped(skip),
            Ok(_) => next.note.skip = None,
        }
    } else if member.stage == Stage::Skipped {
        return next;
    }
    match member.stage {
        Stage::Inconclusive if member.due.is_none_or(|due| due > now) => next,
        _ if !sight.online => next.at(Stage::Late, None),
        // The offer has not come to it yet, or it forgot it: it is told again.
        Stage::Offered | Stage::Deferred | Stage::Staged | Stage::Late if member.standing().is_some() => {
            let due = member.standing().map(|offer| offer.at.plus(rollout.settings.patience()));
            if due.is_some_and(|due| due <= now) {
                return next.withdrawn().at(Stage::Pending, None);
            }
            next.at(Stage::Offered, None)
        }
        _ => next.at(Stage::Pending, None),
    }
}

/// Offers a member the next version, or says why it is left out.
pub(crate) fn offer(
    rollout: &Rollout,
    member: &Member,
    sight: &Sight,
    index: &ReleaseIndex,
    update_id: Uuid,
    now: Timestamp,
) -> Member {
    let mut next = member.clone();
    if !sight.online {
        return next.at(Stage::Late, None);
    }
    match member.fit(rollout, sight, index) {
        Err(skip) => next.skipped(skip),
        Ok(version) => {
            next.note.offer = Some(Offered { update_id, version, at: now, stands: true });
            next.note.code = None;
            next.note.message = None;
            // Root goes back to the version before alone, which may be a stepping stone.
            if !next.note.back {
                next.note.from.clone_from(&sight.version);
            }
            next.at(Stage::Offered, None)
        }
    }
}

/// Lets a member switch.
pub(crate) fn permit(member: &Member, now: Timestamp) -> Member {
    member.clone().at(Stage::Permitted, Some(now.plus(SWITCH_PATIENCE)))
}

/// Sends a member back, or ends it, where its rollout goes back.
pub(crate) fn revert(member: &Member) -> Member {
    match member.stage {
        Stage::Succeeded => {
            let mut next = member.clone();
            next.note.back = true;
            next.note.tries = 0;
            next.withdrawn().at(Stage::Pending, None)
        }
        // Those that are on their way go back from there.
        _ => end(member),
    }
}

/// Ends a member that has not been let go, where its rollout is aborted.
pub(crate) fn end(member: &Member) -> Member {
    match member.stage {
        Stage::Permitted
        | Stage::Probation
        | Stage::Lost
        | Stage::Faulty
        | Stage::Succeeded
        | Stage::Skipped => member.clone(),
        Stage::Pending
        | Stage::Offered
        | Stage::Deferred
        | Stage::Staged
        | Stage::Inconclusive
        | Stage::Late => member.clone().skipped(Skip::Aborted),
    }
}
