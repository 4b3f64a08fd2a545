//! What holds for any sequence of inputs whatever.

use proptest::prelude::*;

use super::*;
use crate::session::backoff::LONGEST;

#[derive(Debug, Clone)]
enum Stimulus {
    Give(Input),
    Wait(u64),
    Deadline,
}

fn stimulus() -> impl Strategy<Value = Stimulus> {
    let patience = prop_oneof![
        Just(Patience::Backoff),
        Just(Patience::Long),
        (0..60_u64).prop_map(|seconds| Patience::Told(Duration::from_secs(seconds))),
    ];
    prop_oneof![
        Just(Stimulus::Deadline),
        (0..100_000_u64).prop_map(Stimulus::Wait),
        prop_oneof![
            Just(Input::FactsRead),
            Just(Input::Elapsed),
            Just(Input::SocketOpened),
            Just(connection_ack()),
            (any::<u64>(), any::<u64>()).prop_map(|(beat, metrics)| register_ack(beat, metrics)),
            Just(register_ack(30_000, 60_000)),
            Just(state_request()),
            Just(drain()),
            Just(error_frame()),
            (0..20_u64).prop_map(Input::PongReceived),
            patience.prop_map(|patience| Input::SocketLost(setback(patience))),
            Just(Input::InventoryChanged),
            Just(Input::HealthChanged),
            Just(Input::TokenReplaced),
            (0..100_u64).prop_map(|seconds| Input::Woke(Duration::from_secs(seconds))),
        ]
        .prop_map(Stimulus::Give),
    ]
}

fn apply(world: &mut World, stimulus: Stimulus) -> Vec<Effect> {
    match stimulus {
        Stimulus::Give(input) => world.give(input),
        Stimulus::Wait(millis) => world.after(Duration::from_millis(millis)),
        Stimulus::Deadline if world.session.deadline().is_some() => world.at_deadline(),
        Stimulus::Deadline => vec![],
    }
}

proptest! {
    /// `World::give` asserts that there is never a second socket and nothing is sent without one.
    #[test]
    fn any_sequence_ends_online_within_the_cap_once_the_world_is_well(
        stimuli in prop::collection::vec((stimulus(), 0.0..1.0_f64), 0..60),
    ) {
        let mut world = World::new();
        for (stimulus, jitter) in stimuli {
            world.jitter = jitter;
            apply(&mut world, stimulus);
        }
        let well_since = world.now;
        for _ in 0..10 {
            match world.session.state() {
                State::Starting { .. } => { world.give(Input::FactsRead); }
                State::Waiting { .. } => { world.at_deadline(); }
                State::Connecting { .. } => { world.give(Input::SocketOpened); }
                State::Registering { registered: false, .. } => { world.give(connection_ack()); }
                State::Registering { registered: true, .. } => { world.give(register_ack(30_000, 60_000)); }
                State::Online(_) => break,
                state => prop_assert!(false, "left without being asked: {:?}", state),
            }
        }
        prop_assert_eq!(world.state(), "online");
        prop_assert!(world.now - well_since <= LONGEST + LONGEST / 10, "{:?}", world.now - well_since);
    }

    #[test]
    fn a_refusal_is_never_dialled_against_within_half_a_minute(
        before in prop::collection::vec((stimulus(), 0.0..1.0_f64), 0..30),
        after in prop::collection::vec((stimulus(), 0.0..1.0_f64), 0..30),
    ) {
        let mut world = World::new();
        for (stimulus, jitter) in before {
            world.jitter = jitter;
            apply(&mut world, stimulus);
        }
        if matches!(world.session.state(), State::Connecting { .. } | State::Registering { .. } | State::Online(_)) {
            world.give(Input::SocketLost(setback(Patience::Long)));
            let (refused, mut slept) = (world.now, Duration::ZERO);
            for (stimulus, jitter) in after {
                if matches!(stimulus, Stimulus::Give(Input::TokenReplaced)) {
                    continue;
                }
                if let Stimulus::Give(Input::Woke(for_so_long)) = stimulus {
                    slept += for_so_long;
                }
                world.jitter = jitter;
                if apply(&mut world, stimulus).contains(&Effect::Dial) {
                    prop_assert!(world.now + slept - refused >= LONGEST / 2);
                    break;
                }
            }
        }
    }

    #[test]
    fn who_is_asked_to_stop_has_stopped_within_the_goodbye(
        stimuli in prop::collection::vec((stimulus(), 0.0..1.0_f64), 0..60),
        after in prop::collection::vec(stimulus(), 0..10),
    ) {
        let mut world = World::new();
        for (stimulus, jitter) in stimuli {
            world.jitter = jitter;
            apply(&mut world, stimulus);
        }
        let asked = world.now;
        world.give(Input::StopRequested);
        for stimulus in after {
            if let Stimulus::Give(input) = stimulus {
                world.give(input);
            }
        }
        if world.session.deadline().is_some() {
            world.at_deadline();
        }
        prop_assert_eq!(world.state(), "stopped");
        prop_assert!(world.now - asked <= Timings::default().goodbye);
    }
}
