//! When something that is wrong becomes an alarm, and when the alarm is over. Pure: time is given.
//!
//! ```text
//!            found                 for `raise_after`            not found                for `resolve_after`
//! (nothing) ───────▶ Rising ───────────────────────▶ Raised ──────────────▶ Clearing ───────────────────────▶ (nothing)
//!     ▲                │ not found, or nobody knows    ▲  ▲                    │  │
//!     └────────────────┘                               │  └────────────────────┘  │ the node is in maintenance or gone:
//!                                              written down   found, or nobody    ▼ at once, from Raised, too
//!                                                             knows           (nothing)
//! ```
//!
//! An alarm that is found at a higher level than it was raised at is raised again.
//!
//! `evaluate` says what is due and goes on saying so until it is told that this was written down. Whether
//! somebody has acknowledged an alarm is no matter of this machine: it changes nothing of what is wrong.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use aio_protocol::time::Timestamp;

use super::model::{Finding, Key, Level, Resolution};

/// What can be known of something that was not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Knowledge {
    /// It is not so.
    Known,
    /// Nobody can say: the node is away.
    Unknown,
    /// The node has no alarms now.
    Stopped(Resolution),
}

/// What is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Due {
    Raise(Finding),
    Resolve(Key, Resolution),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Rising { since: Instant },
    Raised,
    Clearing { since: Instant },
}

/// All alarms, and what may become one.
pub(crate) struct Evaluator {
    offline_after: Duration,
    states: HashMap<Key, State>,
}

impl Evaluator {
    /// Goes on with alarms that are raised already.
    pub(crate) fn new(offline_after: Duration, raised: impl IntoIterator<Item = Key>) -> Self {
        Self { offline_after, states: raised.into_iter().map(|key| (key, State::Raised)).collect() }
    }

    /// Says what is due, in an order that is always the same, when this was found; `knowledge` is asked of
    /// everything else, and `level` says how bad a raised alarm was said to be. `now` is one moment on both
    /// clocks.
    pub(crate) fn evaluate(
        &mut self,
        found: Vec<Finding>,
        knowledge: impl Fn(&Key) -> Knowledge,
        level: impl Fn(&Key) -> Option<Level>,
        now: (Instant, Timestamp),
    ) -> Vec<Due> {
        let (now, wall) = now;
        let mut due = Vec::new();
        let found: HashMap<_, _> = found.into_iter().map(|finding| (finding.key.clone(), finding)).collect();
        for (key, finding) in &found {
            if let Knowledge::Stopped(_) = knowledge(key) {
                continue;
            }
            let so_far = finding.since.map_or(Duration::ZERO, |since| wall.since(since));
            let began = now.checked_sub(so_far).unwrap_or(now);
            let state = match self.states.get(key) {
                None => State::Rising { since: began },
                Some(State::Rising { since }) => State::Rising { since: began.min(*since) },
                Some(State::Raised | State::Clearing { .. }) => State::Raised,
            };
            let raised_now = match state {
                State::Rising { since } => {
                    now.saturating_duration_since(since) >= key.kind.damping(self.offline_after).raise_after
                }
                State::Raised | State::Clearing { .. } => level(key).is_some_and(|it| it < finding.level),
            };
            if raised_now {
                due.push(Due::Raise(finding.clone()));
            }
            self.states.insert(key.clone(), state);
        }
        let offline_after = self.offline_after;
        self.states.retain(|key, state| {
            let known = knowledge(key);
            if let Knowledge::Stopped(resolution) = known {
                if matches!(state, State::Raised | State::Clearing { .. }) {
                    due.push(Due::Resolve(key.clone(), resolution));
                    return true;
                }
                return false;
            }
            if found.contains_key(key) {
                return true;
            }
            *state = match (*state, known) {
                (State::Rising { .. }, _) => return false,
                (State::Raised | State::Clearing { .. }, Knowledge::Unknown) => State::Raised,
                (State::Raised, _) => State::Clearing { since: now },
                (clearing, _) => clearing,
            };
            if let State::Clearing { since } = *state
                && now.saturating_duration_since(since) >= key.kind.damping(offline_after).resolve_after
            {
                due.push(Due::Resolve(key.clone(), Resolution::Cured));
            }
            true
        });
        due.sort_by(|a, b| a.key().cmp(b.key()));
        due
    }

    /// Takes note of what is raised, where others raise and resolve, too.
    pub(crate) fn follow<'a>(&mut self, raised: impl Fn(&Key) -> bool, keys: impl Iterator<Item = &'a Key>) {
        self.states.retain(|key, state| matches!(state, State::Rising { .. }) || raised(key));
        for key in keys {
            let state = self.states.entry(key.clone()).or_insert(State::Raised);
            if matches!(state, State::Rising { .. }) {
                *state = State::Raised;
            }
        }
    }

    /// Notes that what was due is written down.
    pub(crate) fn done(&mut self, due: &Due) {
        match due {
            Due::Raise(finding) => self.states.insert(finding.key.clone(), State::Raised),
            Due::Resolve(key, _) => self.states.remove(key),
        };
    }
}

impl Due {
    pub(crate) fn key(&self) -> &Key {
        match self {
            Self::Raise(finding) => &finding.key,
            Self::Resolve(key, _) => key,
        }
    }
}

#[cfg(test)]
mod tests {
    use aio_protocol::ids::NodeId;
    use proptest::prelude::*;

    use super::{
        super::model::{Kind, Whose},
        *,
    };

    const OFFLINE_AFTER: Duration = Duration::from_secs(300);

    /// Every alarm was raised as bad as it is found.
    const AS_BAD: fn(&Key) -> Option<Level> = |_| Some(Level::Warning);

    fn finding(kind: Kind, part: &str) -> Finding {
        Finding {
            key: Key { whose: Whose::Node(NodeId::from_bytes([1; 12])), kind, part: part.into() },
            org: None,
            level: Level::Warning,
            reason: "it is wrong".into(),
            action: "cure it".into(),
            since: None,
        }
    }

    struct Bench {
        evaluator: Evaluator,
        start: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self { evaluator: Evaluator::new(OFFLINE_AFTER, []), start: Instant::now() }
        }

        fn moment(&self, second: u64) -> (Instant, Timestamp) {
            let passed = Duration::from_secs(second);
            (self.start + passed, Timestamp::from_millis(1_000_000_000_000).plus(passed))
        }

        /// What is due and written down.
        fn at(&mut self, second: u64, found: Vec<Finding>, knowledge: Knowledge) -> Vec<Due> {
            let due = self.evaluator.evaluate(found, |_| knowledge, AS_BAD, self.moment(second));
            due.iter().for_each(|due| self.evaluator.done(due));
            due
        }
    }

    #[test]
    fn what_another_raises_is_raised_and_what_it_resolves_is_over() {
        let mut bench = Bench::new();
        let (ours, theirs) = (finding(Kind::GpuHealth, "ours"), finding(Kind::GpuHealth, "theirs"));
        bench.evaluator.done(&Due::Raise(ours.clone()));
        bench.evaluator.follow(|key| *key == theirs.key, [&theirs.key].into_iter());
        let everything = bench.evaluator.states.clone();
        assert_eq!(everything, HashMap::from([(theirs.key.clone(), State::Raised)]));
        // Nobody raises it once more.
        let due = bench.evaluator.evaluate(vec![theirs], |_| Knowledge::Known, AS_BAD, bench.moment(9_000));
        assert_eq!(due, []);
    }

    #[test]
    fn a_node_that_is_back_in_time_raises_nothing_and_one_that_flaps_is_one_alarm() {
        let offline = || vec![finding(Kind::NodeOffline, "")];
        let mut bench = Bench::new();
        assert_eq!(bench.at(0, offline(), Knowledge::Known), []);
        assert_eq!(bench.at(299, offline(), Knowledge::Known), []);
        assert_eq!(bench.at(300, vec![], Knowledge::Known), []);
        assert_eq!(bench.at(301, offline(), Knowledge::Known), [], "it begins anew");
        assert_eq!(bench.at(601, offline(), Knowledge::Known), [Due::Raise(offline().remove(0))]);
        assert_eq!(bench.at(602, vec![], Knowledge::Known), []);
        assert_eq!(bench.at(661, vec![], Knowledge::Known), []);
        assert_eq!(bench.at(661, offline(), Knowledge::Known), [], "the same alarm");
        assert_eq!(bench.at(700, vec![], Knowledge::Known), []);
        let cured = Due::Resolve(offline().remove(0).key, Resolution::Cured);
        assert_eq!(bench.at(760, vec![], Knowledge::Known), [cured]);
        assert_eq!(bench.at(761, vec![], Knowledge::Known), []);
    }

    #[test]
    fn what_has_been_so_for_long_is_an_alarm_at_once_also_after_a_restart() {
        let mut bench = Bench::new();
        let since = Some(bench.moment(0).1.minus(OFFLINE_AFTER));
        let offline = Finding { since, ..finding(Kind::NodeOffline, "") };
        assert_eq!(bench.at(0, vec![offline.clone()], Knowledge::Known), [Due::Raise(offline)]);
    }

    #[test]
    fn of_a_node_that_is_away_nothing_is_over_and_nothing_new_is_found() {
        let ill = finding(Kind::GpuHealth, "0:Xid 79");
        let mut bench = Bench::new();
        assert_eq!(bench.at(0, vec![ill.clone()], Knowledge::Known).len(), 1);
        assert_eq!(bench.at(10, vec![], Knowledge::Known), []);
        for second in [20, 100_000] {
            assert_eq!(bench.at(second, vec![], Knowledge::Unknown), [], "nobody knows");
        }
        assert_eq!(bench.at(100_001, vec![], Knowledge::Known), []);
        assert_eq!(bench.at(100_121, vec![], Knowledge::Known), [Due::Resolve(ill.key, Resolution::Cured)]);
    }

    #[test]
    fn several_findings_are_several_alarms_and_maintenance_ends_all_of_them_at_once() {
        let ill = || {
            vec![
                finding(Kind::GpuHealth, "0:a"),
                finding(Kind::GpuHealth, "0:b"),
                finding(Kind::GpuMissing, "1"),
            ]
        };
        let mut bench = Bench::new();
        assert_eq!(bench.at(0, ill(), Knowledge::Known).len(), 3);
        let stopped = Knowledge::Stopped(Resolution::Maintenance);
        let ended = bench.at(1, ill(), stopped);
        assert_eq!(ended.len(), 3);
        assert!(ended.iter().all(|due| matches!(due, Due::Resolve(_, Resolution::Maintenance))), "{ended:?}");
        assert_eq!(bench.at(2, ill(), stopped), [], "none is raised");
        assert_eq!(bench.at(3, ill(), Knowledge::Known).len(), 3, "all are new after it");
    }

    #[test]
    fn what_was_not_written_down_is_due_again() {
        let mut bench = Bench::new();
        let ill = finding(Kind::GpuHealth, "");
        for second in [0, 1] {
            let now = bench.moment(second);
            let due = bench.evaluator.evaluate(vec![ill.clone()], |_| Knowledge::Known, AS_BAD, now);
            assert_eq!(due, [Due::Raise(ill.clone())]);
        }
        assert_eq!(bench.at(2, vec![ill], Knowledge::Known).len(), 1);
        bench.at(3, vec![], Knowledge::Known);
        for second in [200, 201] {
            let due = bench.evaluator.evaluate(vec![], |_| Knowledge::Known, AS_BAD, bench.moment(second));
            assert!(matches!(due[..], [Due::Resolve(_, Resolution::Cured)]), "{due:?}");
        }
    }

    #[test]
    fn what_gets_worse_is_raised_again_until_that_is_written_down_and_what_gets_better_is_not() {
        let mut bench = Bench::new();
        let ill = finding(Kind::GpuHealth, "");
        let worse = Finding { level: Level::Critical, ..ill.clone() };
        assert_eq!(bench.at(0, vec![ill.clone()], Knowledge::Known).len(), 1);
        let mut raised = |found: &Finding, level: Level, second| {
            let (found, now) = (vec![found.clone()], bench.moment(second));
            bench.evaluator.evaluate(found, |_| Knowledge::Known, |_| Some(level), now)
        };
        for second in [1, 2] {
            assert_eq!(raised(&worse, Level::Warning, second), [Due::Raise(worse.clone())]);
        }
        assert_eq!(raised(&worse, Level::Critical, 3), []);
        assert_eq!(raised(&ill, Level::Critical, 4), []);
        assert_eq!(bench.at(5, vec![worse], Knowledge::Stopped(Resolution::Maintenance)).len(), 1);
    }

    #[derive(Debug, Clone, Copy)]
    enum Look {
        Found,
        Not(Knowledge),
    }

    fn look() -> impl Strategy<Value = Look> {
        prop_oneof![
            4 => Just(Look::Found),
            4 => Just(Look::Not(Knowledge::Known)),
            2 => Just(Look::Not(Knowledge::Unknown)),
            1 => Just(Look::Not(Knowledge::Stopped(Resolution::Maintenance))),
        ]
    }

    proptest! {
        #[test]
        fn alarms_are_raised_and_resolved_in_turn_and_never_too_early(looks in prop::collection::vec((look(), 1..90_u64), 1..80)) {
            let kind = Kind::NodeOffline;
            let damping = kind.damping(OFFLINE_AFTER);
            let mut bench = Bench::new();
            let (mut second, mut raised) = (0, false);
            // Since when it was found at every look, and since when it was known not to be so at every look.
            let (mut wrong, mut right) = (None, None);
            for (look, passed) in looks {
                second += passed;
                let (found, knowledge) = match look {
                    Look::Found => (vec![finding(kind, "")], Knowledge::Known),
                    Look::Not(knowledge) => (vec![], knowledge),
                };
                match look {
                    Look::Found => (wrong, right) = (wrong.or(Some(second)), None),
                    Look::Not(Knowledge::Known) => (wrong, right) = (None, right.or(Some(second))),
                    Look::Not(_) => (wrong, right) = (None, None),
                }
                let lasts = |since: Option<u64>| since.map(|since| Duration::from_secs(second - since));
                match &bench.at(second, found, knowledge)[..] {
                    [] => {
                        prop_assert!(raised || lasts(wrong).is_none_or(|time| time < damping.raise_after));
                        prop_assert!(!raised || lasts(right).is_none_or(|time| time < damping.resolve_after));
                    }
                    [Due::Raise(_)] => {
                        prop_assert!(!raised);
                        prop_assert!(lasts(wrong).is_some_and(|time| time >= damping.raise_after));
                        raised = true;
                    }
                    [Due::Resolve(_, Resolution::Cured)] => {
                        prop_assert!(raised);
                        prop_assert!(lasts(right).is_some_and(|time| time >= damping.resolve_after));
                        raised = false;
                    }
                    [Due::Resolve(..)] => {
                        prop_assert!(raised && matches!(knowledge, Knowledge::Stopped(_)));
                        raised = false;
                    }
                    several => prop_assert!(false, "{several:?}"),
                }
            }
        }
    }
}
