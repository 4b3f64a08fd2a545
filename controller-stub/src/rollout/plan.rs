//! Who goes when: canaries that are as different as the fleet is, then waves in an order that mixes racks.
//! It decides once, at the start; who may get the offer is asked again when its turn comes.

use std::collections::BTreeSet;

use aio_protocol::{ids::NodeId, release::index::ReleaseIndex};

use super::{
    member::{Sight, fit},
    model::{Member, Note, Rollout, Stage},
};

/// A node that may belong to a rollout.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub node: NodeId,
    pub sight: Sight,
    /// What machines differ in: platform, operating system, driver, model of its GPUs.
    pub kinds: [String; 4],
}

/// The members in their order, and how many of them are canaries.
pub(crate) fn plan(rollout: &Rollout, candidates: &[Candidate], index: &ReleaseIndex) -> (u32, Vec<Member>) {
    let mut ordered: Vec<&Candidate> = candidates.iter().collect();
    ordered.sort_by_key(|candidate| (scattered(&candidate.node), candidate.node.to_string()));
    let fitting = |candidate: &Candidate| fit(&rollout.version, &candidate.sight, index);
    let (fit, unfit): (Vec<_>, Vec<_>) =
        ordered.into_iter().partition(|candidate| fitting(candidate).is_ok());
    let nodes = u32::try_from(fit.len()).unwrap_or(u32::MAX);
    let wanted = rollout.settings.canaries.canaries(nodes);
    let canaries = choose_canaries(&fit, wanted);
    let is_canary = |candidate: &Candidate| canaries.contains(&candidate.node);
    let mut members = Vec::with_capacity(candidates.len());
    let mut add = |candidate: &Candidate, wave: u8, stage: Stage, note: Note| {
        let place = u32::try_from(members.len()).unwrap_or(u32::MAX);
        members.push(Member { node: candidate.node.clone(), wave, place, stage, note, due: None });
    };
    let stage = |candidate: &Candidate| if candidate.sight.online { Stage::Pending } else { Stage::Late };
    for candidate in fit.iter().filter(|it| is_canary(it)) {
        add(candidate, 0, stage(candidate), Note::default());
    }
    let mut done = u32::try_from(canaries.len()).unwrap_or(0);
    for candidate in fit.iter().filter(|it| !is_canary(it)) {
        done = done.saturating_add(1);
        add(candidate, wave_of(done, nodes, &rollout.settings.waves), stage(candidate), Note::default());
    }
    let last = u8::try_from(rollout.settings.waves.len()).unwrap_or(u8::MAX);
    for candidate in unfit {
        let note = Note { skip: fitting(candidate).err(), ..Note::default() };
        add(candidate, last, Stage::Skipped, note);
    }
    (wanted, members)
}

/// The wave of the node that is the `number`th of `nodes`.
fn wave_of(number: u32, nodes: u32, waves: &[u8]) -> u8 {
    let reached = |percent: u8| nodes.saturating_mul(percent.into()).div_ceil(100);
    let wave = waves.iter().position(|percent| number <= reached(*percent)).unwrap_or(waves.len() - 1);
    u8::try_from(wave + 1).unwrap_or(u8::MAX)
}

/// Of the nodes that are there: each time the one that has most that no canary has yet.
fn choose_canaries(fit: &[&Candidate], wanted: u32) -> BTreeSet<NodeId> {
    let (mut chosen, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..wanted {
        let news = |candidate: &&&Candidate| {
            let kinds = candidate.kinds.iter().enumerate();
            kinds.filter(|kind| !seen.contains(&(kind.0, kind.1.clone()))).count()
        };
        let left = fit.iter().filter(|it| it.sight.online && !chosen.contains(&it.node));
        // The first of those with as much: `max_by_key` would take the last.
        let Some(next) = left.rev().max_by_key(news) else { break };
        seen.extend(next.kinds.iter().cloned().enumerate());
        chosen.insert(next.node.clone());
    }
    chosen
}

/// An order that is the same at every look and has nothing to do with names or racks (FNV-1a).
fn scattered(node: &NodeId) -> u64 {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    node.as_str().bytes().fold(0xcbf2_9ce4_8422_2325, mix)
}
