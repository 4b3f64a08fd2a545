//! A simulated fleet under a rollout: nodes that answer as workers do, and what must hold whatever they do.

use std::{collections::BTreeMap, time::Duration};

use aio_protocol::{
    ids::NodeId,
    release::{
        Checksum, ReleaseVersion,
        index::{IndexedRelease, ReleaseIndex},
    },
    time::Timestamp,
    update::{LastUpdate, ManagedBy, UpdateReport, UpdateState, Verdict},
};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::rollout::model::{Criterion, Pardoned, Pauser};

const LEASE: Duration = Duration::from_secs(120);

fn version(text: &str) -> ReleaseVersion {
    text.parse().unwrap()
}

fn index() -> ReleaseIndex {
    let release = |oldest: Option<&str>| IndexedRelease {
        manifest_sha256: Checksum::from_hex(&"a".repeat(64)).unwrap(),
        oldest_from: oldest.map(version),
        protocol: 1,
    };
    ReleaseIndex {
        serial: 7,
        issued_at: Timestamp::from_millis(0),
        expires_at: Timestamp::from_millis(i64::MAX / 2),
        floor: Some(version("v1.0.0")),
        revoked: [].into(),
        keys: vec![],
        releases: [
            (version("v1.0.0"), release(None)),
            (version("v1.1.0"), release(None)),
            (version("v2.0.0"), release(Some("v1.1.0"))),
        ]
        .into(),
    }
}

fn id(number: u32) -> NodeId {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    NodeId::from_bytes(bytes)
}

fn draft(target: &str) -> Rollout {
    let now = Timestamp::from_millis(0);
    Rollout {
        id: Uuid::nil(),
        org: "acme".parse().unwrap(),
        version: version(target),
        group: None,
        only: None,
        settings: Settings::default(),
        created_at: now,
        actor: "test".into(),
        started_at: None,
        state: State::Draft,
        canaries: 0,
        in_flight: 1,
        tally: Tally::default(),
        pardoned: Pardoned::default(),
        progressed_at: now,
        revision: 0,
    }
}

/// What a node is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Good,
    Faulty,
    /// Nobody can say how its update ends.
    Vague,
    /// Its new version never comes back.
    Dies,
    /// It is not there for the first five hours.
    Away,
    Pinned,
    Packaged,
    /// It waits for its window for three hours.
    Deferring,
}

struct Node {
    kind: Kind,
    sight: Sight,
    /// When it goes on by itself.
    at: Timestamp,
    offers: Vec<Uuid>,
    switches: u32,
}

struct Fleet {
    rollout: Rollout,
    members: BTreeMap<String, Member>,
    nodes: BTreeMap<String, Node>,
    index: ReleaseIndex,
    now: Timestamp,
    ids: u128,
    most_in_flight: u32,
}

impl Fleet {
    fn new(kinds: &[Kind], from: &str, target: &str) -> Self {
        let nodes = (0..).zip(kinds).map(|(number, kind)| {
            let report = UpdateReport {
                managed_by: match kind {
                    Kind::Packaged => ManagedBy::Package,
                    _ => ManagedBy::Controller,
                },
                pin: (*kind == Kind::Pinned).then(|| version("v1.0.0")),
                ..UpdateReport::default()
            };
            let online = *kind != Kind::Away;
            let sight = Sight {
                online,
                version: Some(version(from)),
                able: true,
                report,
                pin: None,
                decommissioned: false,
            };
            let at = Timestamp::from_millis(if online { 0 } else { 5 * 3600 * 1000 });
            (id(number).to_string(), Node { kind: *kind, sight, at, offers: vec![], switches: 0 })
        });
        Self {
            rollout: draft(target),
            members: BTreeMap::new(),
            nodes: nodes.collect(),
            index: index(),
            now: Timestamp::from_millis(1_000),
            ids: 1,
            most_in_flight: 0,
        }
    }

    fn start(&mut self) {
        let candidates: Vec<_> = (0..)
            .zip(self.nodes.values())
            .map(|(number, node)| Candidate {
                node: id(number),
                sight: node.sight.clone(),
                kinds: ["amd64".into(), format!("os {}", number % 3), "550".into(), "h100".into()],
            })
            .collect();
        let (canaries, members) = plan(&self.rollout, &candidates, &self.index);
        self.rollout.canaries = canaries;
        for member in &members {
            self.rollout.tally.add(member.wave, member.stage);
        }
        self.rollout.in_flight = self.rollout.settings.in_flight.in_flight(self.rollout.tally.members());
        self.members = members.into_iter().map(|member| (member.node.to_string(), member)).collect();
        assert!(obey(&mut self.rollout, Order::Start, false, self.now).unwrap());
    }

    fn save(&mut self, changed: Vec<Member>) {
        for member in changed {
            self.members.insert(member.node.to_string(), member);
        }
        let mut counted = Tally::default();
        self.members.values().for_each(|member| counted.add(member.wave, member.stage));
        for stage in Stage::ALL {
            for wave in 0..4 {
                assert_eq!(self.rollout.tally.until(wave, stage), counted.until(wave, stage), "{stage:?}");
            }
        }
        let in_flight = self.rollout.tally.of(Stage::Permitted);
        self.most_in_flight = self.most_in_flight.max(in_flight);
        assert!(in_flight <= self.rollout.in_flight, "{in_flight} in flight");
    }

    fn of_stage(&self, stage: Stage) -> Vec<(Member, Sight)> {
        let of_stage = self.members.values().filter(|member| member.stage == stage);
        let mut members: Vec<_> =
            of_stage.map(|it| (it.clone(), self.nodes[it.node.as_str()].sight.clone())).collect();
        members.sort_by_key(|(member, _)| (member.wave, member.place));
        members
    }

    /// One look, as the task makes it.
    fn look(&mut self) {
        let all: Vec<_> = self
            .members
            .values()
            .map(|member| (member.clone(), self.nodes[member.node.as_str()].sight.clone()))
            .collect();
        let index = self.index.clone();
        let look = Look { index: Some(&index), lease: LEASE, brake_holds: false, now: self.now };
        let changed = take_in(&mut self.rollout, &all, look);
        self.save(changed);
        let staged: Vec<_> = self.of_stage(Stage::Staged).into_iter().map(|(member, _)| member).collect();
        let pending = self.of_stage(Stage::Pending);
        let wave = room(&self.rollout, self.now).wave;
        let (own, reserves): (Vec<_>, Vec<_>) =
            pending.into_iter().partition(|(member, _)| member.wave <= wave);
        let mut ids = self.ids;
        let changed = let_go(&mut self.rollout, &staged, &own, &reserves, look, || {
            ids += 1;
            Uuid::from_u128(ids)
        });
        self.ids = ids;
        self.save(changed);
    }

    /// What the workers are told, and what they do.
    fn work(&mut self) {
        for member in self.members.values() {
            let node = self.nodes.get_mut(member.node.as_str()).unwrap();
            if node.kind == Kind::Away && node.at <= self.now {
                node.sight.online = true;
            }
            if !node.sight.online {
                continue;
            }
            let group = Group::default();
            let told = owed(
                &self.rollout,
                member,
                &node.sight.report,
                Some(&self.index),
                "https://x/releases",
                &group,
                self.now,
            );
            node.hear(told, self.now);
            node.go_on(self.now);
        }
    }

    fn tick(&mut self, seconds: u64) {
        self.look();
        self.work();
        self.now = self.now.plus(Duration::from_secs(seconds));
    }

    /// Until the rollout rests, or a day has passed.
    fn run(&mut self) {
        for _ in 0..(26 * 120) {
            self.tick(30);
        }
    }

    fn switched(&self) -> u32 {
        self.nodes.values().map(|node| u32::from(node.switches > 0)).sum()
    }

    fn count(&self, stage: Stage) -> u32 {
        self.rollout.tally.of(stage)
    }
}

impl Node {
    fn hear(&mut self, told: Option<Told>, now: Timestamp) {
        let report = &mut self.sight.report;
        match told {
            Some(Told::Offer(offer)) => {
                self.offers.push(offer.update_id.unwrap());
                report.update_id = offer.update_id;
                report.target = Some(offer.version);
                report.state = UpdateState::Offered;
                if self.kind == Kind::Deferring {
                    report.state = UpdateState::Deferred;
                    self.at = now.plus(Duration::from_secs(3 * 3600));
                }
            }
            Some(Told::Permit(permit)) => {
                assert_eq!(report.update_id, Some(permit.update_id));
                report.state = UpdateState::Switching;
                self.switches += 1;
            }
            Some(Told::Cancel(cancel)) => {
                assert_eq!(report.update_id, Some(cancel.update_id));
                self.conclude(Verdict::Refused, Some("UPDATE_CANCELLED"), now);
            }
            None => {}
        }
    }

    fn conclude(&mut self, verdict: Verdict, code: Option<&str>, now: Timestamp) {
        let report = &mut self.sight.report;
        report.last = Some(LastUpdate {
            update_id: report.update_id.take().unwrap(),
            from: version("v1.0.0"),
            version: report.target.take().unwrap(),
            verdict,
            code: code.map(str::to_owned),
            message: None,
            at: now,
        });
        report.state = UpdateState::Idle;
    }

    fn go_on(&mut self, now: Timestamp) {
        let report = &mut self.sight.report;
        match (report.state, self.kind) {
            (UpdateState::Deferred, _) if self.at > now => {}
            (UpdateState::Offered | UpdateState::Deferred, _) => report.state = UpdateState::Awaiting,
            (UpdateState::Switching, Kind::Faulty) => {
                self.conclude(Verdict::Faulty, Some("UPDATE_FAULTY"), now)
            }
            (UpdateState::Switching, Kind::Vague) => {
                self.conclude(Verdict::Inconclusive, Some("UPDATE_INCONCLUSIVE"), now);
            }
            (UpdateState::Switching, Kind::Dies) => self.sight.online = false,
            (UpdateState::Switching, _) => {
                self.sight.version.clone_from(&report.target);
                report.state = UpdateState::Probation;
                self.at = now.plus(Duration::from_secs(600));
            }
            (UpdateState::Probation, _) if self.at <= now => self.conclude(Verdict::Succeeded, None, now),
            _ => {}
        }
    }
}

#[test]
fn a_good_release_comes_to_every_node_that_may_have_it_and_late_ones_when_they_come() {
    let mut kinds = vec![Kind::Good; 60];
    kinds.extend([Kind::Away, Kind::Away, Kind::Pinned, Kind::Packaged, Kind::Deferring]);
    let mut fleet = Fleet::new(&kinds, "v1.0.0", "v1.1.0");
    fleet.start();
    assert_eq!((fleet.count(Stage::Late), fleet.count(Stage::Skipped)), (2, 2));
    let mut states = vec![];
    for _ in 0..(12 * 120) {
        fleet.tick(30);
        let state = fleet.rollout.state.as_str();
        if states.last() != Some(&state) {
            states.push(state);
        }
    }
    assert_eq!(states, ["canary", "soaking", "rolling", "finishing", "completed"]);
    assert_eq!(fleet.count(Stage::Succeeded), 63, "{:?}", fleet.rollout.tally);
    for node in fleet.nodes.values() {
        match node.kind {
            Kind::Pinned | Kind::Packaged => assert!(node.offers.is_empty() && node.switches == 0),
            _ => assert_eq!((node.offers.len(), node.switches), (1, 1), "{:?}", node.kind),
        }
    }
    assert!(fleet.most_in_flight > 1);
}

#[test]
fn waves_come_one_after_the_other_and_canaries_are_as_different_as_the_fleet() {
    let mut fleet = Fleet::new(&[Kind::Good; 200], "v1.0.0", "v1.1.0");
    fleet.rollout.settings.canaries = Share::Nodes(3);
    fleet.start();
    let of_wave = |wave| fleet.members.values().filter(|it| it.wave == wave).count();
    assert_eq!([0, 1, 2, 3].map(of_wave), [3, 17, 40, 140]);
    let canaries = (0..200).filter(|number| fleet.members[id(*number).as_str()].wave == 0);
    let systems: std::collections::BTreeSet<_> = canaries.map(|number| number % 3).collect();
    assert_eq!(systems.len(), 3);
    fleet.run();
    assert_eq!((fleet.rollout.state.clone(), fleet.switched()), (State::Completed, 200));
}

#[test]
fn a_fleet_goes_by_stepping_stones_and_a_node_without_a_way_is_left_out() {
    let mut fleet = Fleet::new(&[Kind::Good; 12], "v1.0.0", "v2.0.0");
    fleet.nodes.get_mut(id(0).as_str()).unwrap().sight.version = Some(version("v3.0.0"));
    fleet.start();
    assert_eq!(fleet.members[id(0).as_str()].note.skip, Some(Skip::Newer));
    fleet.run();
    assert_eq!((fleet.rollout.state.clone(), fleet.count(Stage::Succeeded)), (State::Completed, 11));
    assert!(fleet.nodes.values().all(|it| it.switches == 2 || it.switches == 0));
}

#[test]
fn lost_nodes_halt_it_and_vague_ones_pause_it() {
    let mut kinds = vec![Kind::Good; 100];
    kinds.extend([Kind::Dies; 40]);
    let mut fleet = Fleet::new(&kinds, "v1.0.0", "v1.1.0");
    fleet.start();
    // The canaries happen to be good.
    for member in fleet.members.values().filter(|it| it.wave == 0) {
        fleet.nodes.get_mut(member.node.as_str()).unwrap().kind = Kind::Good;
    }
    fleet.run();
    assert!(
        matches!(fleet.rollout.state, State::Halted { criterion: Criterion::TooManyFailed, .. }),
        "{:?}",
        fleet.rollout.state
    );
    let mut fleet = Fleet::new(&[Kind::Vague; 100], "v1.0.0", "v1.1.0");
    fleet.start();
    fleet.run();
    assert!(matches!(fleet.rollout.state, State::Paused { by: Pauser::Inconclusive, .. }));
    assert!(fleet.switched() <= fleet.rollout.canaries);
}

#[test]
fn a_node_without_a_result_is_tried_three_times_more_and_not_for_ever() {
    let mut fleet = Fleet::new(&[Kind::Vague], "v1.0.0", "v1.1.0");
    fleet.start();
    for _ in 0..(26 * 120) {
        fleet.tick(30);
        let _ = obey(&mut fleet.rollout, Order::Resume, false, fleet.now);
    }
    let node = &fleet.nodes[id(0).as_str()];
    assert_eq!((node.switches, fleet.count(Stage::Inconclusive)), (4, 1));
}

#[test]
fn what_is_aborted_with_revert_goes_back_and_nothing_else_is_touched() {
    let mut fleet = Fleet::new(&[Kind::Good; 100], "v1.0.0", "v1.1.0");
    fleet.start();
    while fleet.count(Stage::Succeeded) < 20 {
        fleet.tick(30);
    }
    assert!(obey(&mut fleet.rollout, Order::Abort, true, fleet.now).unwrap());
    let changed: Vec<_> = fleet.members.values().map(revert).collect();
    for member in &changed {
        let before = &fleet.members[member.node.as_str()];
        fleet.rollout.tally.remove(before.wave, before.stage);
        fleet.rollout.tally.add(member.wave, member.stage);
    }
    fleet.save(changed);
    fleet.run();
    assert_eq!(fleet.rollout.state, State::Aborted);
    for node in fleet.nodes.values() {
        assert_eq!(node.sight.version, Some(version("v1.0.0")), "{:?}", node.sight.report);
    }
}

#[test]
fn orders_are_taken_where_they_make_sense() {
    let now = Timestamp::from_millis(5);
    let mut rollout = draft("v1.1.0");
    for order in [Order::Pause, Order::Resume, Order::Promote] {
        let refusal = obey(&mut rollout, order, false, now).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            format!("a rollout that is draft does not take `{}`", order.as_str())
        );
    }
    assert_eq!(obey(&mut rollout, Order::Start, false, now), Ok(true));
    assert_eq!(obey(&mut rollout, Order::Start, false, now), Ok(false));
    assert_eq!(obey(&mut rollout, Order::Pause, false, now), Ok(true));
    assert_eq!(room(&rollout, now), Default::default());
    assert_eq!(obey(&mut rollout, Order::Resume, false, now), Ok(true));
    assert_eq!(rollout.state, State::Canary);
    assert_eq!(obey(&mut rollout, Order::Promote, false, now), Ok(true));
    assert_eq!(rollout.state, State::Rolling { wave: 1, opens_at: now });
    assert_eq!(obey(&mut rollout, Order::Abort, false, now), Ok(true));
    assert_eq!(obey(&mut rollout, Order::Abort, false, now), Ok(false));
    assert!(obey(&mut rollout, Order::Start, false, now).is_err());
}

#[test]
fn the_brake_pauses_a_rollout_until_it_lets_go() {
    let mut fleet = Fleet::new(&[Kind::Good; 20], "v1.0.0", "v1.1.0");
    fleet.start();
    fleet.tick(30);
    let mut look = Look { index: None, lease: LEASE, brake_holds: true, now: fleet.now };
    take_in(&mut fleet.rollout, &[], look);
    assert!(matches!(fleet.rollout.state, State::Paused { by: Pauser::Brake, .. }));
    assert!(fleet.rollout.due(fleet.now).is_some());
    look.brake_holds = false;
    take_in(&mut fleet.rollout, &[], look);
    assert_eq!(fleet.rollout.state, State::Canary);
}

#[test]
fn a_rollout_in_which_nothing_happens_for_an_hour_pauses() {
    let mut fleet = Fleet::new(&[Kind::Good; 20], "v1.0.0", "v1.1.0");
    fleet.start();
    fleet.look();
    fleet.now = fleet.now.plus(Duration::from_secs(3600));
    fleet.look();
    assert!(matches!(fleet.rollout.state, State::Paused { by: Pauser::Stalled, .. }));
}

#[test]
fn shares_are_numbers_or_percent_and_never_more_than_there_is() {
    let of = |text: &str, nodes| text.parse::<Share>().unwrap().canaries(nodes);
    assert_eq!((of("1%", 5000), of("1%", 10), of("1%", 0), of("7", 3), of("7", 100)), (5, 1, 0, 3, 7));
    assert_eq!("5%".parse::<Share>().unwrap().in_flight(5000), 50);
    for text in ["", "0", "0%", "101%", "-1", "5 %", "10001"] {
        assert!(text.parse::<Share>().is_err(), "{text}");
    }
}

fn kinds() -> impl Strategy<Value = Vec<Kind>> {
    let kind = prop_oneof![
        6 => Just(Kind::Good), 2 => Just(Kind::Faulty), 1 => Just(Kind::Vague), 1 => Just(Kind::Dies),
        1 => Just(Kind::Away), 1 => Just(Kind::Pinned), 1 => Just(Kind::Packaged), 1 => Just(Kind::Deferring)
    ];
    proptest::collection::vec(kind, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_the_fleet_is_like_the_limits_hold(kinds in kinds(), canaries in 1_u32..6) {
        let mut fleet = Fleet::new(&kinds, "v1.0.0", "v1.1.0");
        fleet.rollout.settings.canaries = Share::Nodes(canaries);
        fleet.start();
        for _ in 0..600 {
            fleet.tick(60);
            if matches!(fleet.rollout.state, State::Canary | State::Soaking { .. }
                | State::Halted { criterion: Criterion::FaultyCanary, .. })
                && fleet.rollout.started_at.is_some()
                && !matches!(&fleet.rollout.state, State::Halted { from, .. } if !matches!(**from, State::Canary | State::Soaking { .. }))
            {
                prop_assert!(fleet.switched() <= fleet.rollout.canaries);
            }
        }
        for node in fleet.nodes.values() {
            if matches!(node.kind, Kind::Pinned | Kind::Packaged) {
                prop_assert!(node.offers.is_empty());
            }
            prop_assert!(node.switches <= 4);
            if matches!(node.kind, Kind::Faulty | Kind::Good | Kind::Dies) {
                prop_assert!(node.switches <= 1, "{:?} switched {} times", node.kind, node.switches);
            }
        }
        // A halted rollout offers nothing, whatever comes.
        if matches!(fleet.rollout.state, State::Halted { .. }) {
            let offers = |fleet: &Fleet| fleet.nodes.values().map(|it| it.offers.len()).sum::<usize>();
            let before = (offers(&fleet), fleet.switched());
            for _ in 0..600 {
                fleet.tick(60);
            }
            prop_assert_eq!((offers(&fleet), fleet.switched()), before);
        }
    }

    #[test]
    fn what_was_saved_goes_on_the_same(kinds in kinds(), cut in 1_usize..300) {
        let mut fleet = Fleet::new(&kinds, "v1.0.0", "v1.1.0");
        fleet.start();
        let mut other = Fleet::new(&kinds, "v1.0.0", "v1.1.0");
        other.start();
        for tick in 0..300 {
            fleet.tick(60);
            other.tick(60);
            if tick == cut {
                // As the database would give it back.
                let state = serde_json::to_string(&other.rollout.state).unwrap();
                other.rollout.state = serde_json::from_str(&state).unwrap();
                let tally = serde_json::to_string(&other.rollout.tally).unwrap();
                other.rollout.tally = serde_json::from_str(&tally).unwrap();
                for member in other.members.values_mut() {
                    let note = serde_json::to_string(&member.note).unwrap();
                    member.note = serde_json::from_str(&note).unwrap();
                    member.stage = Stage::parse(member.stage.as_str()).unwrap();
                }
            }
        }
        prop_assert_eq!(&fleet.rollout, &other.rollout);
        prop_assert_eq!(&fleet.members, &other.members);
    }
}
