//! Whether silent nodes are let go offline. When more than half of a fleet would go within a minute, this controller's own network
//! is the likelier cause: then all of them are held back, one alarm is raised, and time is given. Pure; `watch` does what it says.
//!
//! ```text
//!         most of the fleet is silent: RaiseAlarm
//! Ready ──────────────────────────────────────────▶ Holding ──┐
//!   ▲ ▲                                              │        │ held long enough: GiveWay
//!   │ └── most are heard again: Pardon ──────────────┘        ▼
//!   └───────────────────── a window has passed ─────────── Yielding
//! ```

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Of fewer nodes, half going at once is an ordinary evening.
const SMALLEST_FLEET: usize = 10;

/// What goes within this time goes together; half a lease, if that is shorter. No worker that keeps its pace is silent for so long
/// that its lease comes this near to its end.
const WINDOW: Duration = Duration::from_secs(60);

/// How the fleet stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// Tell the operator; nobody goes offline.
    RaiseAlarm,
    /// Tell the operator that the wait is over; nodes whose lease has ended go offline.
    GiveWay,
    /// Tell the operator that most of the fleet is back, and give every silent node a new lease to come back in.
    Pardon,
}

#[derive(Debug)]
pub(crate) struct Brake {
    window: Duration,
    patience: Duration,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nodes go one by one; who went within the last window is remembered.
    Ready {
        gone: VecDeque<(Instant, usize)>,
    },
    Holding {
        until: Instant,
    },
    Yielding {
        until: Instant,
    },
}

impl Brake {
    /// For leases of this length. The fleet is held for up to two and a half of them: five minutes of two each.
    pub(crate) fn new(lease: Duration) -> Self {
        Self {
            window: WINDOW.min(lease / 2),
            patience: lease * 5 / 2,
            state: State::Ready { gone: VecDeque::new() },
        }
    }

    /// How near to its end a lease is that counts as silent.
    pub(crate) fn window(&self) -> Duration {
        self.window
    }

    /// Whether nodes are held back.
    pub(crate) fn is_holding(&self) -> bool {
        matches!(self.state, State::Holding { .. })
    }

    /// Goes one step.
    pub(crate) fn step(&mut self, fleet: Fleet, now: Instant) -> Option<Effect> {
        match &mut self.state {
            State::Ready { gone } => {
                while gone.front().is_some_and(|(at, _)| *at + self.window <= now) {
                    gone.pop_front();
                }
                if fleet.expired == 0 {
                    return None;
                }
                let before: usize = gone.iter().map(|(_, count)| count).sum();
                if too_many(fleet.silent + before, fleet.leased + before) {
                    self.state = State::Holding { until: now + self.patience };
                    return Some(Effect::RaiseAlarm);
                }
                gone.push_back((now, fleet.expired));
                Some(Effect::LetGo)
            }
            State::Holding { .. } if fleet.silent * 2 <= fleet.leased => {
                self.state = State::Ready { gone: VecDeque::new() };
                Some(Effect::Pardon)
            }
            State::Holding { until } if *until <= now => {
                self.state = State::Yielding { until: now + self.window };
                Some(Effect::GiveWay)
            }
            State::Holding { .. } => None,
            State::Yielding { until } => {
                if *until <= now {
                    self.state = State::Ready { gone: VecDeque::new() };
                }
                (fleet.expired > 0).then_some(Effect::LetGo)
            }
        }
    }
}

fn too_many(silent: usize, fleet: usize) -> bool {
    fleet >= SMALLEST_FLEET && silent * 2 > fleet
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEASE: Duration = Duration::from_secs(120);
    const SECOND: Duration = Duration::from_secs(1);

    fn fleet(leased: usize, silent: usize, expired: usize) -> Fleet {
        Fleet { leased, silent, expired }
    }

    #[test]
    fn a_part_of_the_fleet_goes_at_once_and_most_of_it_is_held() {
        for (fleet, effect) in [
            (fleet(100, 0, 0), None),
            (fleet(100, 99, 0), None),
            (fleet(100, 1, 1), Some(Effect::LetGo)),
            (fleet(100, 50, 50), Some(Effect::LetGo)),
            (fleet(100, 51, 1), Some(Effect::RaiseAlarm)),
            (fleet(10, 6, 1), Some(Effect::RaiseAlarm)),
            (fleet(9, 9, 9), Some(Effect::LetGo)),
            (fleet(1, 1, 1), Some(Effect::LetGo)),
        ] {
            assert_eq!(Brake::new(LEASE).step(fleet, Instant::now()), effect, "{fleet:?}");
        }
    }

    #[test]
    fn who_goes_in_small_parts_within_a_minute_is_counted_together() {
        let (mut brake, start) = (Brake::new(LEASE), Instant::now());
        assert_eq!(brake.step(fleet(100, 30, 30), start), Some(Effect::LetGo));
        assert_eq!(brake.step(fleet(70, 21, 21), start + SECOND * 59), Some(Effect::RaiseAlarm));

        let mut brake = Brake::new(LEASE);
        assert_eq!(brake.step(fleet(100, 30, 30), start), Some(Effect::LetGo));
        assert_eq!(brake.step(fleet(70, 21, 21), start + SECOND * 60), Some(Effect::LetGo));
    }

    #[test]
    fn a_fleet_that_comes_back_is_pardoned_and_the_brake_is_ready_again() {
        let (mut brake, start) = (Brake::new(LEASE), Instant::now());
        assert_eq!(brake.step(fleet(100, 100, 1), start), Some(Effect::RaiseAlarm));
        assert_eq!(brake.step(fleet(100, 100, 60), start + SECOND), None, "one alarm");
        assert_eq!(brake.step(fleet(100, 51, 51), start + SECOND * 2), None);
        assert_eq!(brake.step(fleet(100, 50, 50), start + SECOND * 3), Some(Effect::Pardon));
        assert!(!brake.is_holding());
        assert_eq!(brake.step(fleet(100, 10, 10), start + LEASE * 2), Some(Effect::LetGo));
    }

    #[test]
    fn an_outage_that_lasts_becomes_visible_in_the_end_and_is_not_held_twice() {
        let (mut brake, start) = (Brake::new(LEASE), Instant::now());
        assert_eq!(brake.step(fleet(100, 80, 1), start), Some(Effect::RaiseAlarm));
        assert_eq!(brake.step(fleet(100, 80, 70), start + SECOND * 299), None);
        assert_eq!(brake.step(fleet(100, 80, 70), start + SECOND * 300), Some(Effect::GiveWay));
        assert_eq!(brake.step(fleet(30, 10, 10), start + SECOND * 310), Some(Effect::LetGo));
        assert_eq!(brake.step(fleet(20, 0, 0), start + SECOND * 360), None);
        assert_eq!(brake.step(fleet(20, 20, 1), start + SECOND * 361), Some(Effect::RaiseAlarm));
    }

    proptest! {
        #[test]
        fn most_of_a_fleet_never_goes_without_having_been_held(
            looks in prop::collection::vec((1_u64..30, 10_usize..200, 0_usize..200, 0_usize..200), 1..200),
        ) {
            let start = Instant::now();
            let (mut brake, mut now) = (Brake::new(LEASE), start);
            let (mut held_since, mut yielded_at) = (None, None);
            for (secs, leased, silent, expired) in looks {
                now += SECOND * u32::try_from(secs).unwrap();
                let silent = silent.min(leased);
                let fleet = fleet(leased, silent, expired.min(silent));
                let effect = brake.step(fleet, now);
                match effect {
                    Some(Effect::RaiseAlarm) => {
                        prop_assert!(held_since.is_none(), "one alarm for one hold");
                        held_since = Some(now);
                    }
                    Some(Effect::GiveWay) => {
                        prop_assert!(now - held_since.take().unwrap() >= brake.patience);
                        yielded_at = Some(now);
                    }
                    Some(Effect::Pardon) => {
                        prop_assert!(held_since.take().is_some() && silent * 2 <= leased);
                    }
                    Some(Effect::LetGo) => {
                        prop_assert!(held_since.is_none());
                        let yields = yielded_at.is_some_and(|at| now - at <= brake.window + SECOND * 30);
                        prop_assert!(yields || silent * 2 <= leased, "{fleet:?} went");
                    }
                    None => prop_assert!(held_since.is_some() || fleet.expired == 0),
                }
                prop_assert_eq!(brake.is_holding(), held_since.is_some());
            }
        }
    }
}
