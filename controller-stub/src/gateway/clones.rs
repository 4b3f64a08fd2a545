//! Detects two machines with one identity (a cloned disk, a copied token). Pure. A worker has another
//! instance id after every start, so an instance that was displaced and comes back proves that both are
//! alive. One return may be a late frame; the second is a conflict. From then on the connected worker keeps
//! the node, and the other is refused. Of several controllers each judges by what it sees itself; that the one
//! that was displaced here has been welcomed since, elsewhere, is a return, too. Whoever refuses one tells
//! the holder.
//!
//! ```text
//! (nothing) ── another instance ──▶ Watched ── second return ──▶ Conflict ── quiet for a while ──▶ (nothing)
//! ```

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use aio_protocol::{ids::NodeId, time::Timestamp};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// How long a change of instance is remembered. Displaced workers come back within a minute.
const MEMORY: Duration = Duration::from_secs(15 * 60);

/// Number of returns that make a conflict.
const RETURNS: u32 = 2;

/// Maximum number of displaced instances that are remembered.
const KEPT: usize = 4;

/// How long a refused worker has to stay away: the first time, and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

/// Nodes whose instance changed lately.
#[derive(Debug, Default)]
pub(crate) struct Clones {
    contests: HashMap<NodeId, Contest>,
}

#[derive(Debug)]
struct Contest {
    /// Instances that were displaced by another, the latest last.
    displaced: Vec<Uuid>,
    returns: u32,
    /// When something last happened that keeps the contest alive.
    at: Instant,
    conflict: Option<Conflict>,
    refusals: u32,
    /// Until when the peer at this address is to stay away.
    refused: Option<(IpAddr, Instant)>,
}

/// Two workers with one identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Conflict {
    /// When it was found.
    pub since: Timestamp,
    /// Where the other one is that wants the node's place.
    #[schema(value_type = String)]
    pub address: IpAddr,
}

/// A worker that registers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub instance: Uuid,
    pub address: IpAddr,
    /// Who was welcomed last.
    pub before: Option<Uuid>,
    /// Whether that one is still connected.
    pub connected: bool,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Welcome,
    /// It has to stay away. `times` counts the refusals of this conflict; at the first, tell the operator.
    Refuse {
        times: u32,
    },
}

impl Clones {
    /// Judges a worker that registers on a new connection.
    pub(crate) fn arrive(&mut self, id: &NodeId, arrival: Arrival, now: (Instant, Timestamp)) -> Verdict {
        let Arrival { instance, address, before, connected } = arrival;
        let Some(before) = before.filter(|before| *before != instance) else { return Verdict::Welcome };
        let (now, wall) = now;
        self.contests.retain(|other, contest| other != id || now - contest.at < MEMORY);
        let contest = self.contest(id, now);
        if contest.displaced.contains(&instance) || contest.displaced.contains(&before) {
            contest.returns = contest.returns.saturating_add(1);
            if contest.returns >= RETURNS && connected {
                contest.conflict.get_or_insert(Conflict { since: wall, address }).address = address;
                contest.refused = Some((address, now + pause(contest.refusals)));
                contest.refusals = contest.refusals.saturating_add(1);
                return Verdict::Refuse { times: contest.refusals };
            }
        }
        contest.displaced.retain(|it| *it != instance && *it != before);
        contest.displaced.push(before);
        if contest.displaced.len() > KEPT {
            contest.displaced.remove(0);
        }
        Verdict::Welcome
    }

    /// Notes that another controller refuses a worker at this address that wants the place of a node of ours.
    pub(crate) fn hear(&mut self, id: &NodeId, address: IpAddr, (now, wall): (Instant, Timestamp)) {
        self.contest(id, now).conflict.get_or_insert(Conflict { since: wall, address }).address = address;
    }

    fn contest(&mut self, id: &NodeId, now: Instant) -> &mut Contest {
        let contest = self.contests.entry(id.clone()).or_insert_with(|| Contest {
            displaced: Vec::new(),
            returns: 0,
            at: now,
            conflict: None,
            refusals: 0,
            refused: None,
        });
        contest.at = now;
        contest
    }

    /// How long a peer at this address still has to stay away, asked before anything is known of it
    /// but its token.
    pub(crate) fn pause(&self, id: &NodeId, address: IpAddr, now: Instant) -> Option<Duration> {
        let (refused, until) = self.contests.get(id)?.refused?;
        (refused == address).then(|| until.checked_duration_since(now)).flatten()
    }

    /// The conflict about a node.
    pub(crate) fn conflict(&self, id: &NodeId) -> Option<Conflict> {
        self.contests.get(id)?.conflict
    }

    /// How many nodes have one.
    pub(crate) fn conflicts(&self, now: Instant) -> usize {
        let lasts = |contest: &&Contest| contest.conflict.is_some() && now - contest.at < MEMORY;
        self.contests.values().filter(lasts).count()
    }

    /// The nodes that have one.
    pub(crate) fn conflicting(&self, now: Instant) -> Vec<NodeId> {
        let lasts = |contest: &Contest| contest.conflict.is_some() && now - contest.at < MEMORY;
        self.contests.iter().filter(|(_, contest)| lasts(contest)).map(|(id, _)| id.clone()).collect()
    }

    /// Forgets what is over. Says whose conflicts are.
    pub(crate) fn forget(&mut self, now: Instant) -> Vec<NodeId> {
        let over = self.contests.extract_if(|_, contest| now - contest.at >= MEMORY);
        over.filter(|(_, contest)| contest.conflict.is_some()).map(|(id, _)| id).collect()
    }
}

fn pause(refusals: u32) -> Duration {
    LONGEST_PAUSE.min(FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(refusals)))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const A: Uuid = Uuid::from_u128(1);
    const B: Uuid = Uuid::from_u128(2);

    fn id() -> NodeId {
        NodeId::from_bytes([5; 12])
    }

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    /// A node whose workers come one after another, as the gateway knows it.
    struct Node {
        clones: Clones,
        start: Instant,
        holder: Option<Uuid>,
    }

    impl Node {
        fn new() -> Self {
            Self { clones: Clones::default(), start: Instant::now(), holder: None }
        }

        fn arrive(&mut self, instance: Uuid, connected: bool, secs: u32) -> Verdict {
            let from = address(if instance == A { 1 } else { 2 });
            let arrival = Arrival { instance, address: from, before: self.holder, connected };
            let now = (self.start + SECOND * secs, Timestamp::from_millis(i64::from(secs) * 1000));
            let verdict = self.clones.arrive(&id(), arrival, now);
            if verdict == Verdict::Welcome {
                self.holder = Some(instance);
            }
            verdict
        }
    }

    #[test]
    fn two_that_take_each_others_place_are_told_apart_at_the_second_return() {
        let mut node = Node::new();
        for (instance, secs) in [(A, 0), (B, 10), (A, 55)] {
            assert_eq!(node.arrive(instance, true, secs), Verdict::Welcome, "{secs}");
            assert_eq!(node.clones.conflict(&id()), None);
        }
        assert_eq!(node.arrive(B, true, 100), Verdict::Refuse { times: 1 });
        let conflict = Conflict { since: Timestamp::from_millis(100_000), address: address(2) };
        assert_eq!(
            (node.clones.conflict(&id()), node.clones.conflicts(node.start + SECOND * 100)),
            (Some(conflict), 1)
        );
        assert_eq!(node.arrive(A, true, 101), Verdict::Welcome, "whoever holds the node may reconnect");
        assert_eq!(node.arrive(B, true, 160), Verdict::Refuse { times: 2 });
        assert_eq!(node.clones.conflict(&id()).map(|it| it.since), Some(conflict.since));
    }

    #[test]
    fn who_was_refused_stays_away_for_longer_each_time() {
        let mut node = Node::new();
        for (instance, secs) in [(A, 0), (B, 1), (A, 2)] {
            node.arrive(instance, true, secs);
        }
        for (secs, pause) in [(100, 60), (200, 120), (400, 240), (700, 300), (1100, 300)] {
            assert!(matches!(node.arrive(B, true, secs), Verdict::Refuse { .. }));
            let at = |secs| node.start + SECOND * secs;
            let left = |address, secs| node.clones.pause(&id(), address, at(secs));
            assert_eq!(left(address(2), secs), Some(SECOND * pause));
            assert_eq!(left(address(2), secs + pause + 1), None);
            assert_eq!(left(address(1), secs), None, "whoever holds the node does not wait");
        }
    }

    #[test]
    fn the_other_may_have_the_node_once_its_holder_is_gone() {
        let mut node = Node::new();
        for (instance, secs) in [(A, 0), (B, 1), (A, 2), (B, 3)] {
            node.arrive(instance, true, secs);
        }
        assert_eq!(node.arrive(B, false, 120), Verdict::Welcome);
        assert_eq!(node.arrive(A, true, 130), Verdict::Refuse { times: 2 }, "and then keeps it");
    }

    #[test]
    fn a_restart_of_either_is_a_new_instance_and_always_let_in() {
        let mut node = Node::new();
        for (instance, secs) in [(A, 0), (B, 1), (A, 2), (B, 3)] {
            node.arrive(instance, true, secs);
        }
        assert_eq!(node.arrive(Uuid::from_u128(3), true, 4), Verdict::Welcome);
    }

    /// Two controllers, as the database shows the holder to both.
    struct Two {
        controllers: [Clones; 2],
        start: Instant,
        holder: Option<Uuid>,
    }

    impl Two {
        fn new() -> Self {
            Self { controllers: Default::default(), start: Instant::now(), holder: None }
        }

        fn arrive(&mut self, at: bool, instance: Uuid, secs: u32) -> Verdict {
            let arrival = Arrival { instance, address: address(1), before: self.holder, connected: true };
            let now = (self.start + SECOND * secs, Timestamp::from_millis(0));
            let verdict = self.controllers[usize::from(at)].arrive(&id(), arrival, now);
            if verdict == Verdict::Welcome {
                self.holder = Some(instance);
            }
            verdict
        }
    }

    #[test]
    fn two_that_each_come_to_a_controller_of_their_own_are_told_apart() {
        let mut two = Two::new();
        for secs in [0, 20] {
            assert_eq!(two.arrive(false, A, secs), Verdict::Welcome);
            assert_eq!(two.arrive(true, B, secs + 10), Verdict::Welcome);
        }
        assert_eq!(two.arrive(false, A, 40), Verdict::Welcome);
        assert_eq!(two.arrive(true, B, 50), Verdict::Refuse { times: 1 });
        let (holder, now) = (&mut two.controllers[0], two.start + SECOND * 50);
        assert_eq!(holder.conflict(&id()), None);
        holder.hear(&id(), address(1), (now, Timestamp::from_millis(50_000)));
        assert_eq!(
            holder.conflict(&id()),
            Some(Conflict { since: Timestamp::from_millis(50_000), address: address(1) })
        );
        assert_eq!(holder.forget(now + MEMORY), [id()]);
    }

    #[test]
    fn a_conflict_is_over_when_nobody_came_back_for_a_while() {
        let mut node = Node::new();
        for (instance, secs) in [(A, 0), (B, 1), (A, 2), (B, 3)] {
            node.arrive(instance, true, secs);
        }
        assert_eq!(node.clones.forget(node.start + SECOND * 3 + MEMORY - SECOND), []);
        let over = node.start + SECOND * 3 + MEMORY;
        assert_eq!((node.clones.conflicts(over - SECOND), node.clones.conflicts(over)), (1, 0));
        assert_eq!(node.clones.forget(over), [id()]);
        assert_eq!(node.clones.conflict(&id()), None);
    }

    proptest! {
        #[test]
        fn a_worker_that_only_restarts_and_reconnects_is_never_refused(
            steps in prop::collection::vec((any::<bool>(), any::<bool>(), 0_u32..120), 1..200),
        ) {
            let (mut node, mut instance, mut now) = (Node::new(), 1_u128, 0);
            for (restarts, connected, secs) in steps {
                now += secs;
                instance += u128::from(restarts);
                prop_assert_eq!(node.arrive(Uuid::from_u128(instance), connected, now), Verdict::Welcome);
                prop_assert_eq!(node.clones.conflicts(node.start), 0);
            }
        }

        #[test]
        fn at_several_controllers_a_worker_that_restarts_and_reconnects_is_never_refused(
            steps in prop::collection::vec((any::<bool>(), any::<bool>(), 0_u32..120), 1..200),
        ) {
            let (mut two, mut instance, mut now) = (Two::new(), 1_u128, 0);
            for (restarts, at, secs) in steps {
                now += secs;
                instance += u128::from(restarts);
                prop_assert_eq!(two.arrive(at, Uuid::from_u128(instance), now), Verdict::Welcome);
            }
        }

        #[test]
        fn two_machines_cannot_flap_wherever_they_come(
            // All of it within the time that a controller remembers.
            steps in prop::collection::vec((any::<bool>(), 1_u32..15), 8..60),
        ) {
            let (mut two, mut now, mut takeovers) = (Two::new(), 0, 0);
            two.arrive(false, A, 0);
            for (at, gap) in steps {
                now += gap;
                let other = if two.holder == Some(A) { B } else { A };
                takeovers += u32::from(two.arrive(at, other, now) == Verdict::Welcome);
            }
            prop_assert!(takeovers <= 4, "{} takeovers", takeovers);
        }

        #[test]
        fn two_machines_cannot_flap(gaps in prop::collection::vec(1_u32..120, 4..60)) {
            let (mut node, mut now, mut takeovers) = (Node::new(), 0, 0);
            node.arrive(A, false, 0);
            for gap in gaps {
                now += gap;
                let other = if node.holder == Some(A) { B } else { A };
                takeovers += u32::from(node.arrive(other, true, now) == Verdict::Welcome);
            }
            prop_assert_eq!(takeovers, 2);
        }
    }
}
