//! When heartbeats are sent, at which pace, and what becomes of a connection that does not answer them.

use super::{super::online::PACE, *};

#[test]
fn a_change_of_health_is_told_beside_the_heartbeats_that_are_due() {
    let mut world = World::online();
    world.at_deadline();
    let (seq, due) = (world.seq(), world.session.next_beat());
    assert_eq!(world.give(Input::HealthChanged), [Effect::SendBeat(seq + 1), Effect::SendMetrics]);
    assert_eq!((world.seq(), world.session.next_beat()), (seq + 1, due));
    world.give(Input::PongReceived(seq + 1));
    assert_eq!(world.at_deadline(), [Effect::SendBeat(seq + 2)]);
}

#[test]
fn the_first_heartbeat_of_the_process_is_immediate_and_the_pace_is_obeyed() {
    let mut world = World::online();
    assert_eq!(world.at_deadline(), [Effect::SendBeat(1)]);
    world.give(Input::PongReceived(1));
    assert_eq!(world.after(29 * SECOND), []);
    assert_eq!(world.after(SECOND), [Effect::SendBeat(2)]);
    world.give(Input::PongReceived(2));
    assert_eq!(world.after(30 * SECOND), [Effect::SendBeat(3), Effect::SendMetrics]);
}

#[test]
fn later_sessions_begin_at_a_random_phase_and_count_from_one() {
    let mut world = World::online();
    world.at_deadline();
    world.give(Input::PongReceived(1));
    world.give(lost());
    world.at_deadline();
    world.jitter = 0.25;
    for input in [Input::SocketOpened, connection_ack(), register_ack(30_000, 60_000)] {
        world.give(input);
    }
    assert_eq!(world.after(7 * SECOND), []);
    assert_eq!(world.after(SECOND / 2), [Effect::SendBeat(1)]);
}

#[test]
fn a_first_heartbeat_that_nobody_acknowledged_is_immediate_again() {
    let mut world = World::online();
    world.at_deadline();
    world.give(lost());
    world.at_deadline();
    for input in [Input::SocketOpened, connection_ack(), register_ack(30_000, 60_000)] {
        world.give(input);
    }
    assert_eq!(world.after(Duration::ZERO), [Effect::SendBeat(1)]);
}

#[test]
fn a_connection_that_answers_no_ping_is_given_up_after_twenty_seconds() {
    let mut world = World::online();
    world.at_deadline();
    assert_eq!(world.after(20 * SECOND - Duration::from_millis(1)), []);
    assert_eq!(world.after(Duration::from_millis(1)), [Effect::HangUp]);
    assert_eq!(world.state(), "waiting");
}

#[test]
fn a_pong_of_an_older_heartbeat_gives_the_younger_ones_time() {
    let mut world = World::registered();
    world.give(register_ack(10_000, 600_000));
    world.at_deadline();
    world.after(10 * SECOND);
    assert_eq!(world.seq(), 2);
    world.now += 9 * SECOND;
    world.give(Input::PongReceived(1));
    world.after(SECOND);
    world.after(10 * SECOND);
    assert_eq!((world.state(), world.seq()), ("online", 4));
    assert_eq!(world.after(9 * SECOND), [Effect::HangUp]);
}

#[test]
fn another_pace_is_obeyed_at_once() {
    let mut world = World::online();
    world.at_deadline();
    world.give(Input::PongReceived(1));
    world.give(register_ack(5_000, 600_000));
    assert_eq!(world.after(5 * SECOND), [Effect::SendBeat(2)]);
}

#[test]
fn no_pace_becomes_a_hot_loop_or_for_ever() {
    for millis in [0, 1, u64::MAX] {
        let mut world = World::registered();
        world.give(register_ack(millis, millis));
        world.at_deadline();
        world.give(Input::PongReceived(1));
        let wait = world.session.deadline().unwrap() - world.now;
        assert!(wait >= PACE.0 && wait <= PACE.1, "{millis}: {wait:?}");
    }
}

#[test]
fn beats_missed_while_the_machine_slept_are_not_made_up_for() {
    let mut world = World::online();
    world.at_deadline();
    world.give(Input::PongReceived(1));
    assert_eq!(world.after(3600 * SECOND), [Effect::SendBeat(2), Effect::SendMetrics]);
    world.give(Input::PongReceived(2));
    assert_eq!(world.after(29 * SECOND), []);
    assert_eq!(world.after(SECOND), [Effect::SendBeat(3)]);
}
