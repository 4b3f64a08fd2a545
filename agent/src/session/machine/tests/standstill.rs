//! Time that passed without this process: the machine slept, or the process was stopped.

use super::*;

#[test]
fn a_machine_that_wakes_up_asks_at_once_whether_its_connection_is_still_there() {
    let mut world = World::online();
    world.at_deadline();
    world.give(Input::PongReceived(1));
    world.now += 3 * SECOND;
    assert_eq!(world.give(Input::Woke(3600 * SECOND)), [Effect::SendBeat(2)]);
    // The heartbeats keep the new time.
    assert_eq!(world.after(20 * SECOND - Duration::from_millis(1)), []);
    assert_eq!(world.after(Duration::from_millis(1)), [Effect::HangUp]);
    assert_eq!(world.state(), "waiting");
}

#[test]
fn a_connection_that_outlived_the_sleep_goes_on_with_a_whole_pace() {
    let mut world = World::online();
    world.at_deadline();
    world.give(Input::PongReceived(1));
    world.now += 3 * SECOND;
    world.give(Input::Woke(60 * SECOND));
    world.give(Input::PongReceived(2));
    assert_eq!(world.after(30 * SECOND - Duration::from_millis(1)), []);
    assert_eq!(world.after(Duration::from_millis(1)), [Effect::SendBeat(3)]);
}

#[test]
fn a_wait_that_was_slept_through_is_over_and_one_that_was_asked_for_goes_on_for_its_rest() {
    for (patience, slept, left) in [
        (Patience::Backoff, 2, None),
        (Patience::Long, 10, Some(20)),
        (Patience::Long, 30, None),
        (Patience::Told(600 * SECOND), 599, Some(1)),
        (Patience::Told(600 * SECOND), 86_400, None),
    ] {
        let mut world = World::connecting();
        world.jitter = 0.0;
        world.give(Input::SocketLost(setback(patience)));
        let effects = world.give(Input::Woke(slept * SECOND));
        match left {
            Some(left) => assert_eq!((world.wait(), effects), (left * SECOND, vec![]), "{patience:?}"),
            None => assert_eq!((world.state(), effects), ("connecting", vec![Effect::Dial]), "{patience:?}"),
        }
    }
}

#[test]
fn a_process_that_stood_still_does_not_blame_the_controller_for_it() {
    let mut world = World::online();
    world.at_deadline();
    // Stopped for a minute: the pong lies unread in the socket, and the clock is looked at first.
    assert_eq!(world.after(60 * SECOND), [Effect::SendBeat(2), Effect::SendMetrics]);
    world.give(Input::PongReceived(1));
    world.give(Input::PongReceived(2));
    assert_eq!(world.after(29 * SECOND), []);
    assert_eq!(world.state(), "online");
}

#[test]
fn a_process_that_stood_still_finds_a_dead_connection_all_the_same() {
    let mut world = World::online();
    world.at_deadline();
    world.after(60 * SECOND);
    assert_eq!(world.state(), "online");
    assert_eq!(world.after(20 * SECOND), [Effect::HangUp]);
}
