//! One look at a rollout, in two halves, each of which is saved whole: what its nodes said since, and then
//! who may go. Between the two, and after a crash, the second half finds by what was saved what is to be
//! done.

use std::time::Duration;

use aio_protocol::{release::index::ReleaseIndex, time::Timestamp};
use uuid::Uuid;

use super::{
    machine::{advance, room},
    member::{Sight, observe, offer, permit},
    model::{Member, Rollout, Stage},
};

/// What a look goes by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look<'a> {
    /// The newest index of releases; nothing is offered without one.
    pub index: Option<&'a ReleaseIndex>,
    /// For how long a silent node counts as there.
    pub lease: Duration,
    /// Whether most of the fleet is silent.
    pub brake_holds: bool,
    pub now: Timestamp,
}

/// Takes in what the database knows of these members' nodes, and goes on. Says which members changed.
pub(crate) fn take_in(rollout: &mut Rollout, members: &[(Member, Sight)], look: Look<'_>) -> Vec<Member> {
    let mut changed = Vec::new();
    for (member, sight) in members {
        let next = observe(rollout, member, sight, look.index, look.lease, look.now);
        if next != *member {
            if next.stage != member.stage && next.stage != Stage::Late {
                rollout.progressed_at = look.now;
            }
            count(rollout, member, &next);
            changed.push(next);
        }
    }
    advance(rollout, look.brake_holds, look.now);
    changed
}

/// Lets nodes go, as many as may: `staged` get their permit, `pending` the offer, in this order, and
/// `reserves` take the place of canaries that are not there.
pub(crate) fn let_go(
    rollout: &mut Rollout,
    staged: &[Member],
    pending: &[(Member, Sight)],
    reserves: &[(Member, Sight)],
    look: Look<'_>,
    mut new_id: impl FnMut() -> Uuid,
) -> Vec<Member> {
    let room = room(rollout, look.now);
    let mut changed = Vec::new();
    let wave = |member: &Member| member.wave <= room.wave && member.stage == Stage::Staged;
    for member in staged.iter().filter(|it| wave(it)).take(count_of(room.permits)) {
        let next = permit(member, look.now);
        count(rollout, member, &next);
        changed.push(next);
    }
    let Some(index) = look.index else { return changed };
    let (mut offers, mut recruits) = (room.offers, room.recruits);
    let own = pending.iter().filter(|(member, _)| member.wave <= room.wave).map(|it| (it, false));
    for ((member, sight), recruit) in own.chain(reserves.iter().map(|it| (it, true))) {
        if offers == 0 || member.stage != Stage::Pending || (recruit && recruits == 0) {
            continue;
        }
        let mut next = offer(rollout, member, sight, index, new_id(), look.now);
        if next.stage == Stage::Offered {
            offers -= 1;
            if recruit {
                recruits -= 1;
                next.wave = 0;
            }
        }
        count(rollout, member, &next);
        changed.push(next);
    }
    advance(rollout, look.brake_holds, look.now);
    changed
}

fn count_of(room: u32) -> usize {
    usize::try_from(room).unwrap_or(usize::MAX)
}

fn count(rollout: &mut Rollout, before: &Member, after: &Member) {
    rollout.tally.remove(before.wave, before.stage);
    rollout.tally.add(after.wave, after.stage);
}
