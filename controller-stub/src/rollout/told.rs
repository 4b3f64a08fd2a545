//! What a node's worker is to be told of its rollout, given what it says: asked when it registers and when
//! something changed here. It depends on nothing that only this process remembers, and telling it twice does
//! no harm.

use aio_protocol::{
    release::{ReleaseVersion, index::ReleaseIndex},
    time::Timestamp,
    update::{UpdateReport, UpdateState},
    wire::{NodeUpdate, UpdateCancel, UpdatePermit, Urgency},
};

use super::{
    member::{PERMIT, is_switching},
    model::{Group, Member, Rollout, Stage},
};

/// A message to a worker.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Told {
    Offer(NodeUpdate),
    Permit(UpdatePermit),
    Cancel(UpdateCancel),
}

/// What the worker of `member` is to be told that says `report`.
pub(crate) fn owed(
    rollout: &Rollout,
    member: &Member,
    report: &UpdateReport,
    index: Option<&ReleaseIndex>,
    releases_url: &str,
    group: &Group,
    now: Timestamp,
) -> Option<Told> {
    let offer = member.note.offer.as_ref()?;
    let knows = report.update_id == Some(offer.update_id);
    let stands = offer.stands && !rollout.state.has_ended();
    if knows && is_switching(report.state) {
        return None;
    }
    if knows && (!stands || matches!(rollout.state, super::model::State::Halted { .. })) {
        let reason = match member.note.skip {
            Some(skip) if !rollout.state.has_ended() => skip.reason().to_owned(),
            _ => format!("the rollout of {} is {}", rollout.version, rollout.state.as_str()),
        };
        return Some(Told::Cancel(UpdateCancel { update_id: offer.update_id, reason: Some(reason) }));
    }
    if !stands || !rollout.state.is_live() {
        return None;
    }
    let ended = report.last.as_ref().is_some_and(|last| last.update_id == offer.update_id);
    match member.stage {
        Stage::Permitted if knows && report.state == UpdateState::Awaiting => {
            let until = member.due.unwrap_or(now);
            (until > now)
                .then(|| Told::Permit(UpdatePermit { update_id: offer.update_id, seconds: PERMIT.as_secs() }))
        }
        Stage::Offered | Stage::Deferred | Stage::Staged | Stage::Late if !knows && !ended => {
            offered(rollout, member, index?, releases_url, group).map(Told::Offer)
        }
        _ => None,
    }
}

fn offered(
    rollout: &Rollout,
    member: &Member,
    index: &ReleaseIndex,
    releases_url: &str,
    group: &Group,
) -> Option<NodeUpdate> {
    let offer = member.note.offer.as_ref()?;
    let release = index.releases.get::<ReleaseVersion>(&offer.version)?;
    let urgent = rollout.settings.urgent;
    Some(NodeUpdate {
        version: offer.version.clone(),
        update_id: Some(offer.update_id),
        manifest_sha256: Some(release.manifest_sha256.clone()),
        index_serial: Some(index.serial),
        releases_url: Some(releases_url.to_owned()),
        not_before: None,
        deadline: Some(offer.at.plus(rollout.settings.patience())),
        urgency: if urgent { Urgency::Urgent } else { Urgency::Normal },
        defer_while_gpu_above: group.defer_while_gpu_above.filter(|_| !urgent),
    })
}
