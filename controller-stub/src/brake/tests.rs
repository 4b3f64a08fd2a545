//! The brake on tables and on random fleets.

use proptest::prelude::*;

use super::*;

const LEASE: Duration = Duration::from_secs(120);
const SECOND: Duration = Duration::from_secs(1);

fn fleet(leased: usize, silent: usize, expired: usize) -> Fleet {
    Fleet { leased, silent, expired }
}

fn org(name: impl std::fmt::Display) -> OwnerId {
    format!("org{name}").parse().unwrap()
}

/// A step with one organisation.
fn step(brakes: &mut Brakes, fleet: Fleet, now: Instant) -> Option<Effect> {
    let effects = brakes.step(&HashMap::from([(org(1), fleet)]), now);
    assert!(
        effects.len() <= 1 && effects.iter().all(|(scope, _)| *scope == Scope::Organisation(org(1))),
        "{effects:?}"
    );
    effects.first().map(|(_, effect)| *effect)
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
        assert_eq!(step(&mut Brakes::new(LEASE), fleet, Instant::now()), effect, "{fleet:?}");
    }
}

#[test]
fn who_goes_in_small_parts_within_a_minute_is_counted_together() {
    let (mut brakes, start) = (Brakes::new(LEASE), Instant::now());
    assert_eq!(step(&mut brakes, fleet(100, 30, 30), start), Some(Effect::LetGo));
    assert_eq!(step(&mut brakes, fleet(70, 21, 21), start + SECOND * 59), Some(Effect::RaiseAlarm));

    let mut brakes = Brakes::new(LEASE);
    assert_eq!(step(&mut brakes, fleet(100, 30, 30), start), Some(Effect::LetGo));
    assert_eq!(step(&mut brakes, fleet(70, 21, 21), start + SECOND * 60), Some(Effect::LetGo));
}

#[test]
fn a_fleet_that_comes_back_is_pardoned_and_the_brake_is_ready_again() {
    let (mut brakes, start) = (Brakes::new(LEASE), Instant::now());
    assert_eq!(step(&mut brakes, fleet(100, 100, 1), start), Some(Effect::RaiseAlarm));
    assert_eq!(step(&mut brakes, fleet(100, 100, 60), start + SECOND), None, "one alarm");
    assert_eq!(step(&mut brakes, fleet(100, 51, 51), start + SECOND * 2), None);
    assert_eq!(step(&mut brakes, fleet(100, 50, 50), start + SECOND * 3), Some(Effect::Pardon));
    assert!(!brakes.holds(&org(1)));
    assert_eq!(step(&mut brakes, fleet(100, 10, 10), start + LEASE * 2), Some(Effect::LetGo));
}

#[test]
fn an_outage_that_lasts_becomes_visible_in_the_end_and_is_not_held_twice() {
    let (mut brakes, start) = (Brakes::new(LEASE), Instant::now());
    assert_eq!(step(&mut brakes, fleet(100, 80, 1), start), Some(Effect::RaiseAlarm));
    assert_eq!(step(&mut brakes, fleet(100, 80, 70), start + SECOND * 299), None);
    assert_eq!(step(&mut brakes, fleet(100, 80, 70), start + SECOND * 300), Some(Effect::GiveWay));
    assert_eq!(step(&mut brakes, fleet(30, 10, 10), start + SECOND * 310), Some(Effect::LetGo));
    assert_eq!(step(&mut brakes, fleet(20, 0, 0), start + SECOND * 360), None);
    assert_eq!(step(&mut brakes, fleet(20, 20, 1), start + SECOND * 361), Some(Effect::RaiseAlarm));
}

#[test]
fn one_organisation_s_outage_holds_its_own_nodes_and_no_others() {
    for others in [1, 2, 5, 40] {
        let (mut brakes, start) = (Brakes::new(LEASE), Instant::now());
        let mut fleets = HashMap::from([(org(0), fleet(20, 20, 20))]);
        fleets.extend(
            (1..=others)
                .map(|number| (org(number), fleet(1, usize::from(number == 1), usize::from(number == 1)))),
        );
        let effects = brakes.step(&fleets, start);
        let expected =
            [(Scope::Organisation(org(0)), Effect::RaiseAlarm), (Scope::Organisation(org(1)), Effect::LetGo)];
        assert!(
            effects.len() == 2 && expected.iter().all(|it| effects.contains(it)),
            "{others}: {effects:?}"
        );
        assert!(brakes.holds(&org(0)) && !brakes.holds(&org(1)));
        assert_eq!(brakes.step(&fleets, start + SECOND * 299), [expected[1].clone()]);
    }
}

#[test]
fn a_network_that_is_lost_to_many_small_organisations_holds_all_of_them() {
    let (mut brakes, start) = (Brakes::new(LEASE), Instant::now());
    let mut fleets: HashMap<_, _> =
        (0..10).map(|number| (org(number), fleet(3, 3, usize::from(number == 0)))).collect();
    assert_eq!(brakes.step(&fleets, start), [(Scope::All, Effect::RaiseAlarm)]);
    fleets.values_mut().for_each(|fleet| fleet.expired = 3);
    assert_eq!(brakes.step(&fleets, start + SECOND * 299), []);
    assert!((0..10).all(|number| brakes.holds(&org(number))));
    let effects = brakes.step(&fleets, start + SECOND * 300);
    assert_eq!(
        (effects.len(), &effects[0]),
        (11, &(Scope::All, Effect::GiveWay)),
        "and then each goes: {effects:?}"
    );

    let mut brakes = Brakes::new(LEASE);
    brakes.step(&fleets, start);
    fleets.extend((0..5).map(|number| (org(number), fleet(3, 0, 0))));
    assert_eq!(brakes.step(&fleets, start + SECOND), [(Scope::All, Effect::Pardon)]);
}

#[test]
fn a_silent_minority_of_organisations_holds_nobody_else() {
    let (mut brakes, start) = (Brakes::new(LEASE), Instant::now());
    let mut fleets: HashMap<_, _> = (0..4).map(|number| (org(number), fleet(500, 500, 500))).collect();
    fleets.extend((4..9).map(|number| (org(number), fleet(9, 2, 2))));
    let effects = brakes.step(&fleets, start);
    assert_eq!(effects.len(), 9);
    for (scope, effect) in effects {
        let large = (0..4).any(|number| scope == Scope::Organisation(org(number)));
        assert_eq!(effect, if large { Effect::RaiseAlarm } else { Effect::LetGo }, "{scope:?}");
    }
}

proptest! {
    #[test]
    fn most_of_a_fleet_never_goes_without_having_been_held(
        looks in prop::collection::vec((1_u64..30, 10_usize..200, 0_usize..200, 0_usize..200), 1..200),
    ) {
        let start = Instant::now();
        let (mut brakes, mut now) = (Brakes::new(LEASE), start);
        let (mut held_since, mut yielded_at) = (None, None);
        for (secs, leased, silent, expired) in looks {
            now += SECOND * u32::try_from(secs).unwrap();
            let silent = silent.min(leased);
            let fleet = fleet(leased, silent, expired.min(silent));
            let effect = step(&mut brakes, fleet, now);
            match effect {
                Some(Effect::RaiseAlarm) => {
                    prop_assert!(held_since.is_none(), "one alarm for one hold");
                    held_since = Some(now);
                }
                Some(Effect::GiveWay) => {
                    prop_assert!(now - held_since.take().unwrap() >= brakes.patience);
                    yielded_at = Some(now);
                }
                Some(Effect::Pardon) => {
                    prop_assert!(held_since.take().is_some() && silent * 2 <= leased);
                }
                Some(Effect::LetGo) => {
                    prop_assert!(held_since.is_none());
                    let yields = yielded_at.is_some_and(|at| now - at <= brakes.window + SECOND * 30);
                    prop_assert!(yields || silent * 2 <= leased, "{fleet:?} went");
                }
                None => prop_assert!(held_since.is_some() || fleet.expired == 0),
            }
            prop_assert_eq!(brakes.holds(&org(1)), held_since.is_some());
        }
    }
}
