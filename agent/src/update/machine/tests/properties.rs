//! What holds for any sequence of inputs whatever.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Stimulus {
    Offer(u128, u64, bool),
    Permit(u128),
    Cancel(u128),
    Downloaded(u128, bool),
    Answered(u128, u8),
    Told(u8, Option<u8>),
    Acknowledged,
    Hurried,
    PutOff(Option<u64>),
    Mode(u8),
    Surroundings(bool, Option<u8>),
    Wait(u64),
}

fn stimulus() -> impl Strategy<Value = Stimulus> {
    let number = || 1..3_u128;
    prop_oneof![
        4 => (number(), 0..90_000_u64, any::<bool>()).prop_map(|(n, secs, urgent)| Stimulus::Offer(n, secs, urgent)),
        4 => number().prop_map(Stimulus::Permit),
        1 => number().prop_map(Stimulus::Cancel),
        4 => (number(), any::<bool>()).prop_map(|(n, well)| Stimulus::Downloaded(n, well)),
        4 => (number(), 0..4_u8).prop_map(|(n, answer)| Stimulus::Answered(n, answer)),
        2 => (0..8_u8, prop::option::of(0..6_u8)).prop_map(|(phase, last)| Stimulus::Told(phase, last)),
        4 => Just(Stimulus::Acknowledged),
        1 => Just(Stimulus::Hurried),
        1 => prop::option::of(0..90_000_u64).prop_map(Stimulus::PutOff),
        1 => (0..4_u8).prop_map(Stimulus::Mode),
        1 => (any::<bool>(), prop::option::of(0..=100_u8)).prop_map(|(open, gpu)| Stimulus::Surroundings(open, gpu)),
        3 => prop_oneof![0..400_u64, 0..40_000_u64].prop_map(Stimulus::Wait),
    ]
}

const PHASES: [RootPhase; 8] = [
    RootPhase::Idle,
    RootPhase::Staging,
    RootPhase::Rehearsing,
    RootPhase::Staged,
    RootPhase::Switching,
    RootPhase::Proving,
    RootPhase::Probation,
    RootPhase::Reverting,
];

const VERDICTS: [Verdict; 6] = [
    Verdict::Succeeded,
    Verdict::Faulty,
    Verdict::Inconclusive,
    Verdict::Interrupted,
    Verdict::Refused,
    Verdict::Reverted,
];

fn apply(world: &mut World, stimulus: Stimulus) -> Vec<Effect> {
    match stimulus {
        Stimulus::Offer(number, seconds, urgent) => {
            let mut offer = update(number, NEW);
            offer.deadline = Some(world.at.wall.plus(Duration::from_secs(seconds)));
            if urgent {
                offer.urgency = aio_protocol::wire::Urgency::Urgent;
            }
            offer.defer_while_gpu_above = Some(50);
            world.give(Input::Offered(id(100), offer))
        }
        Stimulus::Permit(number) => world.permit(number),
        Stimulus::Cancel(number) => {
            world.give(Input::Cancelled(id(102), UpdateCancel { update_id: id(number), reason: None }))
        }
        Stimulus::Downloaded(number, well) => {
            let outcome = if well { Ok(3) } else { Err(failure(ErrorCode::DownloadFailed)) };
            world.give(Input::Downloaded(id(number), outcome))
        }
        Stimulus::Answered(number, answer) => {
            let refused =
                |code: ErrorCode| RootAnswer::Refused { code: code.to_string(), message: "x".into() };
            let answer = match answer {
                0 => Ok(RootAnswer::Staged),
                1 => Ok(RootAnswer::Switching),
                2 => Ok(refused(ErrorCode::ChecksumMismatch)),
                _ => Err(failure(ErrorCode::UpdateInterrupted)),
            };
            world.give(Input::RootAnswered(id(number), answer))
        }
        Stimulus::Told(phase, last) => {
            let last = last.map(|last| world.ended(VERDICTS[usize::from(last)], None));
            world.give(told(PHASES[usize::from(phase)], last))
        }
        Stimulus::Acknowledged => world.give(Input::BeatAcknowledged),
        Stimulus::Hurried => world.give(Input::Hurried),
        Stimulus::PutOff(seconds) => {
            world.give(Input::PutOff(seconds.map(|secs| world.at.wall.plus(Duration::from_secs(secs)))))
        }
        Stimulus::Mode(mode) => {
            let mut policy = world.machine.policy().clone();
            policy.settings.mode = [Mode::Off, Mode::Notify, Mode::Auto, Mode::Auto][usize::from(mode)];
            world.give(Input::PolicyChanged(Box::new(policy)))
        }
        Stimulus::Surroundings(window_open, gpu_percent) => {
            world.at = Moment { window_open, gpu_percent, ..world.at };
            vec![]
        }
        Stimulus::Wait(seconds) => world.after(Duration::from_secs(seconds)),
    }
}

/// The deadline of the offer that the machine has.
fn deadline(state: &State) -> Option<Timestamp> {
    match state {
        State::Deferred { offer, .. }
        | State::Staging { offer, .. }
        | State::Rehearsing { offer, .. }
        | State::Awaiting { offer, .. }
        | State::Switching { offer, .. } => Some(offer.deadline),
        State::Idle | State::Watched { .. } => None,
    }
}

proptest! {
    #[test]
    fn root_is_asked_to_switch_only_by_a_permit_that_holds_and_for_what_it_has_staged(
        stimuli in prop::collection::vec(stimulus(), 0..80),
    ) {
        let mut world = World::new();
        let mut permitted: Option<(Uuid, Instant)> = None;
        let mut staged: Option<Uuid> = None;
        for stimulus in stimuli {
            let before = world.machine.state().clone();
            let permit = if let Stimulus::Permit(number) = stimulus { Some(id(number)) } else { None };
            let effects = apply(&mut world, stimulus);
            if let Some(number) = permit && effects.contains(&Effect::Beat) {
                permitted = Some((number, world.at.now + Duration::from_secs(300)));
            }
            if let (State::Rehearsing { offer, .. }, State::Awaiting { .. } | State::Deferred { staged: true, .. }) =
                (&before, world.machine.state())
            {
                staged = Some(offer.id);
            }
            for effect in effects {
                if let Effect::AskRoot(RootRequest::Switch { update_id }) = effect {
                    let (allowed, until) = permitted.take().expect("nobody has permitted it");
                    prop_assert_eq!(allowed, update_id);
                    prop_assert!(world.at.now < until, "the permit is over");
                    prop_assert_eq!(staged.take(), Some(update_id));
                    prop_assert!(world.machine.memory().tried.is_some());
                }
            }
        }
    }

    #[test]
    fn nothing_is_begun_after_the_deadline_or_where_updates_are_off(
        stimuli in prop::collection::vec(stimulus(), 0..80),
    ) {
        let mut world = World::new();
        for stimulus in stimuli {
            for effect in apply(&mut world, stimulus) {
                if matches!(effect, Effect::Download(_) | Effect::AskRoot(_)) {
                    let deadline = deadline(world.machine.state()).expect("there is an offer");
                    prop_assert!(world.at.wall < deadline, "{:?}", effect);
                    prop_assert_ne!(world.machine.policy().settings.mode, Mode::Off);
                }
            }
        }
    }

    #[test]
    fn whatever_happened_all_is_idle_again_once_root_is_and_the_deadline_has_passed(
        stimuli in prop::collection::vec(stimulus(), 0..80),
    ) {
        let mut world = World::new();
        for stimulus in stimuli {
            apply(&mut world, stimulus);
        }
        world.give(told(RootPhase::Idle, None));
        // A switch that nobody answers fails first, and then its deadline comes.
        for _ in 0..3 {
            let Some(due) = world.machine.deadline(world.at.now, world.at.wall) else { break };
            let wait = due.saturating_duration_since(world.at.now);
            world.after(wait.max(Duration::from_secs(90_001)));
        }
        prop_assert!(world.machine.is_idle(), "{:?}", world.machine.state());
        prop_assert_eq!(world.machine.deadline(world.at.now, world.at.wall), None);
    }

    #[test]
    fn what_is_due_is_done_when_it_is_due(
        stimuli in prop::collection::vec(stimulus(), 0..80),
    ) {
        let mut world = World::new();
        for stimulus in stimuli {
            apply(&mut world, stimulus);
            let Some(due) = world.machine.deadline(world.at.now, world.at.wall) else { continue };
            if due <= world.at.now {
                world.give(Input::Elapsed);
                let next = world.machine.deadline(world.at.now, world.at.wall);
                prop_assert!(next.is_none_or(|next| next > world.at.now), "{:?}", world.machine.state());
            }
        }
    }
}
