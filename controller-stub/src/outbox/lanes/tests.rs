//! Lanes: order, turns, rests, and that nothing is left behind.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 12])
}

fn org(name: &str) -> OwnerId {
    name.parse().unwrap()
}

fn next(lanes: &mut Lanes, now: Instant) -> Option<NodeId> {
    lanes.arrive(now);
    lanes.next().map(|(node, _)| node)
}

#[test]
fn an_event_whose_wait_is_over_is_due_whatever_the_time_of_day_says() {
    let (mut lanes, now) = (Lanes::new(), Instant::now());
    let later = now + Duration::from_secs(30);
    for (ended, due) in [(Ended::Due(later), true), (Ended::Later(later), false), (Ended::More, false)] {
        lanes.notify(node(1), org("a"), now);
        lanes.next();
        lanes.ended(node(1), ended, 0, now);
        lanes.arrive(later);
        assert_eq!(lanes.next(), Some((node(1), due)), "{ended:?}");
        lanes.ended(node(1), Ended::Drained, 0, now);
    }
    for number in 1..=2 {
        lanes.notify(node(number), org("a"), now);
        lanes.next();
        lanes.ended(node(number), Ended::Due(later), 0, now);
    }
    lanes.retry_all();
    let next: HashSet<_> = [lanes.next(), lanes.next()].into_iter().flatten().collect();
    assert_eq!(next, HashSet::from([(node(1), true), (node(2), true)]));
}

#[test]
fn a_lane_runs_once_at_a_time_and_looks_again_when_it_was_notified_meanwhile() {
    let (mut lanes, now) = (Lanes::new(), Instant::now());
    lanes.notify(node(1), org("a"), now);
    assert_eq!(next(&mut lanes, now), Some(node(1)));
    lanes.notify(node(1), org("a"), now);
    assert_eq!(next(&mut lanes, now), None);
    lanes.ended(node(1), Ended::Drained, 1, now);
    assert_eq!(next(&mut lanes, now), Some(node(1)));
    lanes.ended(node(1), Ended::Drained, 1, now);
    assert_eq!((next(&mut lanes, now), lanes.open.len()), (None, 0), "an idle node has no lane");
}

#[test]
fn a_lane_that_waits_is_not_woken_by_its_next_event_but_by_a_changed_first_one() {
    let (mut lanes, now) = (Lanes::new(), Instant::now());
    let later = now + Duration::from_secs(30);
    lanes.notify(node(1), org("a"), now);
    next(&mut lanes, now);
    lanes.ended(node(1), Ended::Due(later), 0, now);
    lanes.notify(node(1), org("a"), now);
    assert_eq!((next(&mut lanes, now), lanes.due()), (None, Some(later)));
    lanes.retry(node(1), org("a"), now);
    assert_eq!(next(&mut lanes, now), Some(node(1)));
    lanes.ended(node(1), Ended::Drained, 1, now);
    assert_eq!(next(&mut lanes, later), None, "and the old appointment means nothing");
}

#[test]
fn organisations_take_turns_however_many_nodes_one_has() {
    let (mut lanes, now) = (Lanes::new(), Instant::now());
    for number in 0..100 {
        lanes.notify(node(number), org("large"), now);
    }
    lanes.notify(node(200), org("small"), now);
    let first: Vec<_> = (0..2).filter_map(|_| next(&mut lanes, now)).collect();
    assert!(first.contains(&node(200)), "{first:?}");
}

#[test]
fn a_node_that_flaps_has_its_events_gathered_and_no_other_waits_for_it() {
    let (mut lanes, now) = (Lanes::new(), Instant::now());
    lanes.notify(node(1), org("a"), now);
    next(&mut lanes, now);
    lanes.ended(node(1), Ended::More, 16, now);
    assert_eq!(next(&mut lanes, now), Some(node(1)), "what has gathered is delivered to its end");
    lanes.ended(node(1), Ended::Drained, 16, now);
    lanes.notify(node(1), org("a"), now);
    lanes.notify(node(2), org("a"), now);
    assert_eq!(next(&mut lanes, now), Some(node(2)));
    assert_eq!(next(&mut lanes, now), None);
    let rest = lanes.due().unwrap() - now;
    assert!(rest > Duration::ZERO && rest <= OF_A_NODE.longest_rest, "{rest:?}");
    assert_eq!(next(&mut lanes, now + rest), Some(node(1)));
}

#[test]
fn whoever_has_calmed_down_is_forgotten() {
    let (mut rests, now) = (Rests::new(OF_A_NODE), Instant::now());
    (0..SMALLEST_SWEEP - 1).for_each(|key| rests.count(key, 1, now));
    rests.count(usize::MAX, 1, now + OF_A_NODE.rate.interval * 2);
    assert_eq!(rests.delivered.len(), 1);
}

proptest! {
    #[test]
    fn every_event_is_run_for_and_no_two_runs_of_a_node_overlap(
        steps in proptest::collection::vec((0_u8..4, 0_u8..6, 0_u64..2000), 1..200),
    ) {
        let (mut lanes, mut now) = (Lanes::new(), Instant::now());
        let mut owed = HashSet::new();
        let mut running: Vec<NodeId> = Vec::new();
        for (kind, number, millis) in steps {
            now += Duration::from_millis(millis);
            match kind {
                0 => {
                    owed.insert(node(number));
                    lanes.notify(node(number), org(if number < 3 { "a" } else { "b" }), now);
                }
                1 => if let Some(next) = next(&mut lanes, now) {
                    prop_assert!(!running.contains(&next));
                    owed.remove(&next);
                    running.push(next);
                },
                2 => if let Some(done) = running.pop() { lanes.ended(done, Ended::Drained, 3, now) },
                _ => if let Some(failed) = running.pop() {
                    owed.insert(failed.clone());
                    lanes.ended(failed, Ended::Due(now + Duration::from_millis(millis)), 0, now);
                },
            }
        }
        while let Some(done) = running.pop() {
            lanes.ended(done, Ended::Drained, 0, now);
        }
        now += Duration::from_secs(3600);
        while let Some(next) = next(&mut lanes, now) {
            owed.remove(&next);
            lanes.ended(next, Ended::Drained, 0, now);
        }
        prop_assert!(owed.is_empty(), "{owed:?} was never looked at");
        prop_assert!(lanes.open.is_empty());
    }
}
