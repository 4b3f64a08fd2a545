//! The node's way to another version, state by state; what holds for any way is in `properties`.

mod properties;

use aio_protocol::{
    error_code::ErrorCode,
    failure::Failure,
    update::{LastUpdate, ManagedBy, RootAnswer, RootPhase, RootRequest, UpdateState, Verdict},
    wire::{NodeUpdate, UpdateCancel, UpdatePermit},
};

use super::*;
use crate::update::{
    offer::tests::update,
    policy::{Mode, Settings},
};

const NEW: &str = "v1.1.0";

/// A machine and its surroundings.
pub(crate) struct World {
    pub(crate) machine: Machine,
    pub(crate) at: Moment,
}

pub(crate) fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

pub(crate) fn failure(code: ErrorCode) -> Failure {
    Failure::new(code, "in words")
}

pub(crate) fn told(phase: RootPhase, last: Option<LastUpdate>) -> Input {
    let busy = phase != RootPhase::Idle;
    Input::RootTold(Box::new(RootStatus {
        phase,
        update_id: busy.then(|| id(1)),
        version: busy.then(|| NEW.parse().unwrap()),
        last,
        ..RootStatus::default()
    }))
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Policy)) -> Self {
        let mut policy = Policy {
            settings: Settings { mode: Mode::Auto, ..Settings::default() },
            packaged: false,
            updater: true,
        };
        change(&mut policy);
        let now = Instant::now();
        let wall = Timestamp::from_millis(1_800_000_000_000);
        let at = Moment { now, wall, window_open: true, gpu_percent: Some(0) };
        let machine = Machine::new("v1.0.0".parse().unwrap(), Memory::default());
        let mut world = Self { machine, at };
        world.give(Input::PolicyChanged(Box::new(policy)));
        world
    }

    pub(crate) fn give(&mut self, input: Input) -> Vec<Effect> {
        let (machine, effects) = self.machine.clone().step(input, self.at);
        self.machine = machine;
        effects
    }

    pub(crate) fn after(&mut self, time: Duration) -> Vec<Effect> {
        self.at.now += time;
        self.at.wall = self.at.wall.plus(time);
        self.give(Input::Elapsed)
    }

    fn offer(&mut self, number: u128) -> Vec<Effect> {
        self.give(Input::Offered(id(100), update(number, NEW)))
    }

    pub(crate) fn permit(&mut self, number: u128) -> Vec<Effect> {
        self.give(Input::Permitted(id(101), UpdatePermit { update_id: id(number), seconds: 300 }))
    }

    fn cancel(&mut self) -> Vec<Effect> {
        self.give(Input::Cancelled(id(102), UpdateCancel { update_id: id(1), reason: None }))
    }

    fn state(&self) -> UpdateState {
        self.machine.report().state
    }

    fn last(&self) -> (Verdict, Option<String>) {
        let last = self.machine.report().last.expect("nothing has ended");
        (last.verdict, last.code)
    }

    fn ended(&self, verdict: Verdict, code: Option<ErrorCode>) -> LastUpdate {
        LastUpdate {
            update_id: id(1),
            from: "v1.0.0".parse().unwrap(),
            version: NEW.parse().unwrap(),
            verdict,
            code: code.map(|code| code.to_string()),
            message: code.map(|_| "in words".to_owned()),
            at: self.at.wall,
        }
    }

    /// Up to the state in which it awaits its permit.
    fn prepared() -> Self {
        let mut world = Self::new();
        world.offer(1);
        world.give(Input::Downloaded(id(1), Ok(3)));
        world.give(Input::RootAnswered(id(1), Ok(RootAnswer::Staged)));
        assert_eq!(world.state(), UpdateState::Awaiting);
        world
    }

    /// Up to the state in which root was asked to switch.
    fn switching() -> Self {
        let mut world = Self::prepared();
        world.permit(1);
        world.give(Input::BeatAcknowledged);
        assert_eq!(world.state(), UpdateState::Switching);
        world
    }

    /// As another process that remembers what this one does.
    fn restarted(&self) -> Self {
        let mut machine = Machine::new("v1.0.0".parse().unwrap(), self.machine.memory().clone());
        machine.policy = self.machine.policy.clone();
        Self { machine, ..*self }
    }
}

fn rejected(effects: &[Effect]) -> Option<&str> {
    effects.iter().find_map(|effect| match effect {
        Effect::Reject(_, error) => Some(error.code.as_str()),
        _ => None,
    })
}

#[test]
fn an_offer_goes_from_state_to_state_until_the_new_version_is_proven() {
    let mut world = World::new();
    assert_eq!(world.machine.report().managed_by, ManagedBy::Controller);
    let effects = world.offer(1);
    assert_eq!(effects[0], Effect::Acknowledge(id(100)));
    assert!(matches!(&effects[1..], [Effect::Download(offer)] if offer.id == id(1)), "{effects:?}");
    assert_eq!(world.state(), UpdateState::Staging);

    let effects = world.give(Input::Downloaded(id(1), Ok(3)));
    let asked = RootRequest::Stage {
        update_id: id(1),
        version: NEW.parse().unwrap(),
        manifest_sha256: update(1, NEW).manifest_sha256.unwrap(),
        index_serial: 3,
    };
    assert_eq!(effects, [Effect::AskRoot(asked)]);
    world.give(told(RootPhase::Staging, None));
    assert_eq!(world.state(), UpdateState::Staging);
    world.give(told(RootPhase::Rehearsing, None));
    assert_eq!(world.state(), UpdateState::Rehearsing);
    assert_eq!(world.give(Input::RootAnswered(id(1), Ok(RootAnswer::Staged))), []);
    assert_eq!(world.state(), UpdateState::Awaiting);

    assert_eq!(world.give(Input::BeatAcknowledged), [], "there is no permit");
    assert_eq!(world.permit(1), [Effect::Acknowledge(id(101)), Effect::Beat]);
    assert_eq!(
        world.give(Input::BeatAcknowledged),
        [Effect::AskRoot(RootRequest::Switch { update_id: id(1) })]
    );
    assert!(world.machine.is_being_replaced());
    world.give(Input::RootAnswered(id(1), Ok(RootAnswer::Switching)));
    assert_eq!(world.state(), UpdateState::Switching);

    let mut world = world.restarted();
    for (phase, state) in
        [(RootPhase::Proving, UpdateState::Proving), (RootPhase::Probation, UpdateState::Probation)]
    {
        world.give(told(phase, None));
        let report = world.machine.report();
        assert_eq!((report.state, report.update_id), (state, Some(id(1))));
        assert!(!world.machine.is_being_replaced());
    }
    let ended = world.ended(Verdict::Succeeded, None);
    assert_eq!(
        world.give(told(RootPhase::Idle, Some(ended.clone()))),
        [Effect::Remember, Effect::ClearInbox]
    );
    assert_eq!((world.state(), world.machine.report().last), (UpdateState::Idle, Some(ended)));
}

#[test]
fn what_is_not_wanted_is_refused_with_its_code_and_remembered_as_the_reason() {
    type Change = fn(&mut Policy);
    let cases: [(Change, ErrorCode); 5] = [
        (|policy| policy.settings.mode = Mode::Off, ErrorCode::UpdatesOff),
        (|policy| policy.updater = false, ErrorCode::UpdatesOff),
        (|policy| policy.packaged = true, ErrorCode::UpdatePackaged),
        (|policy| policy.settings.pin = Some("v1.0.0".parse().unwrap()), ErrorCode::UpdatePinned),
        (|policy| policy.settings.pin = Some("v1.2.0".parse().unwrap()), ErrorCode::UpdatePinned),
    ];
    for (change, code) in cases {
        let mut world = World::with(change);
        let effects = world.offer(1);
        assert_eq!(rejected(&effects), Some(code.as_str()), "{effects:?}");
        assert_eq!(effects[1..], [Effect::Remember]);
        assert_eq!(world.last(), (Verdict::Refused, Some(code.to_string())), "the controller reads it there");
        let report = world.machine.report();
        assert_eq!(report.state, UpdateState::Idle);
        assert!(report.reason.clone().unwrap().starts_with(&format!("{code}: ")), "{report:?}");
        assert_eq!(world.offer(1).len(), 1);
        assert_eq!(world.machine.report(), report, "the same offer again is no news");
    }
}

#[test]
fn an_offer_that_cannot_be_taken_says_why() {
    let mut world = World::new();
    let code = |world: &mut World, change: &dyn Fn(&mut NodeUpdate)| {
        let mut offer = update(1, NEW);
        change(&mut offer);
        rejected(&world.give(Input::Offered(id(100), offer))).map(str::to_owned)
    };
    let refused = |code: ErrorCode| Some(code.to_string());
    assert_eq!(code(&mut world, &|it| it.update_id = None), refused(ErrorCode::CommandUnsupported));
    assert_eq!(code(&mut world, &|it| it.releases_url = None), refused(ErrorCode::UpdateInvalid));
    let past = world.at.wall;
    assert_eq!(code(&mut world, &|it| it.deadline = Some(past)), refused(ErrorCode::UpdateExpired));
    let floor = RootStatus { floor: Some("v1.2.0".parse().unwrap()), ..RootStatus::default() };
    world.give(Input::RootTold(Box::new(floor)));
    assert_eq!(code(&mut world, &|_| {}), refused(ErrorCode::UpdateBelowFloor));
    assert_eq!(world.state(), UpdateState::Idle);
}

#[test]
fn an_offer_of_the_version_that_runs_has_succeeded() {
    let mut world = World::new();
    let offer = || Input::Offered(id(100), update(1, "v1.0.0"));
    let effects = world.give(offer());
    assert_eq!(effects, [Effect::Acknowledge(id(100)), Effect::Remember, Effect::ClearInbox]);
    assert_eq!((world.state(), world.last()), (UpdateState::Idle, (Verdict::Succeeded, None)));
    assert_eq!(world.give(offer()), [Effect::Acknowledge(id(100))], "and stays so");
}

#[test]
fn the_same_offer_again_changes_nothing_but_its_times() {
    let mut world = World::prepared();
    assert_eq!(world.offer(1), [Effect::Acknowledge(id(100))]);
    let mut other = update(1, "v1.2.0");
    assert_eq!(
        rejected(&world.give(Input::Offered(id(100), other.clone()))),
        Some("UPDATE_INVALID"),
        "an id is of one release"
    );
    other = update(1, NEW);
    other.deadline = Some(world.at.wall.plus(Duration::from_secs(60)));
    world.give(Input::Offered(id(100), other));
    world.after(Duration::from_secs(61));
    assert_eq!(world.last(), (Verdict::Refused, Some("UPDATE_EXPIRED".into())));
}

#[test]
fn another_offer_takes_the_place_of_one_that_root_is_not_at_work_on() {
    let mut world = World::new();
    world.offer(1);
    let effects = world.offer(2);
    assert!(effects.contains(&Effect::StopDownload), "{effects:?}");
    assert_eq!(world.machine.report().update_id, Some(id(2)));
    assert_eq!(world.give(Input::Downloaded(id(1), Ok(3))), [], "the one before is no more");
    world.give(Input::Downloaded(id(2), Ok(3)));
    assert_eq!(rejected(&world.offer(3)), Some("UPDATE_BUSY"));
    for mut busy in [World::switching(), {
        let mut world = World::new();
        world.give(told(RootPhase::Probation, None));
        world
    }] {
        assert_eq!(rejected(&busy.offer(2)), Some("UPDATE_BUSY"));
        assert_eq!(busy.machine.report().last, None, "what is only put off has not ended");
        assert_eq!(rejected(&busy.cancel()), Some("UPDATE_BUSY"), "and it goes on");
    }
}

#[test]
fn what_is_taken_back_before_the_switch_is_over() {
    let mut world = World::prepared();
    let effects = world.cancel();
    assert_eq!(effects, [Effect::Acknowledge(id(102)), Effect::Remember, Effect::ClearInbox]);
    assert_eq!(world.last(), (Verdict::Refused, Some("UPDATE_CANCELLED".into())));
    assert_eq!(world.cancel(), [Effect::Acknowledge(id(102))], "there is nothing left to take back");
    let mut world = World::new();
    world.offer(1);
    assert!(world.cancel().contains(&Effect::StopDownload));

    // What a try came to is not forgotten with it.
    let mut world = World::new();
    world.offer(1);
    world.give(Input::Downloaded(id(1), Ok(3)));
    let refused = RootAnswer::Refused { code: "REHEARSAL_FAILED".into(), message: "in words".into() };
    world.give(Input::RootAnswered(id(1), Ok(refused)));
    assert_eq!(world.state(), UpdateState::Deferred);
    assert_eq!(world.cancel(), [Effect::Acknowledge(id(102)), Effect::ClearInbox]);
    assert_eq!(world.state(), UpdateState::Idle);
    assert_eq!(world.last(), (Verdict::Refused, Some("REHEARSAL_FAILED".into())));
}

#[test]
fn an_offer_waits_for_its_time_its_window_its_gpus_and_its_operator() {
    let mut world = World::new();
    world.give(Input::PutOff(Some(world.at.wall.plus(Duration::from_secs(7200)))));
    assert!(world.machine.report().reason.unwrap().starts_with("an operator has put updates off until"));
    world.at.window_open = false;
    world.at.gpu_percent = Some(81);
    let mut offer = update(1, NEW);
    offer.not_before = Some(world.at.wall.plus(Duration::from_secs(3600)));
    offer.defer_while_gpu_above = Some(80);
    world.give(Input::Offered(id(100), offer));
    let reason = |world: &World| world.machine.report().reason.unwrap_or_default();
    assert_eq!(world.state(), UpdateState::Deferred);
    assert!(reason(&world).contains("not to begin before"), "{}", reason(&world));
    assert_eq!(world.after(Duration::from_secs(3600)), []);
    assert!(reason(&world).contains("an operator has put"), "{}", reason(&world));
    world.after(Duration::from_secs(3600));
    assert!(reason(&world).contains("the window"), "{}", reason(&world));
    world.at.window_open = true;
    world.after(LOOK_INTERVAL);
    assert!(reason(&world).contains("one is busier than 80 %"), "{}", reason(&world));
    let report = world.machine.report();
    world.at.gpu_percent = Some(99);
    world.after(LOOK_INTERVAL);
    assert_eq!(world.machine.report(), report, "by how much is no news");
    world.at.gpu_percent = Some(80);
    assert_eq!(world.after(LOOK_INTERVAL / 2), [], "nobody looks yet");
    let effects = world.after(LOOK_INTERVAL / 2);
    assert!(matches!(effects[..], [Effect::Download(_)]), "{effects:?}");
}

#[test]
fn an_urgent_offer_waits_for_no_window_and_no_offer_waits_for_a_gpu_that_nobody_knows() {
    let mut world = World::with(|policy| policy.settings.gpu_above = Some(10));
    world.at = Moment { window_open: false, gpu_percent: None, ..world.at };
    world.give(Input::Offered(
        id(100),
        NodeUpdate { urgency: aio_protocol::wire::Urgency::Urgent, ..update(1, NEW) },
    ));
    assert_eq!(world.state(), UpdateState::Staging);
}

#[test]
fn where_the_mode_is_notify_the_operator_s_word_begins() {
    let mut world = World::with(|policy| policy.settings.mode = Mode::Notify);
    world.offer(1);
    let report = world.machine.report();
    assert_eq!((report.managed_by, report.state), (ManagedBy::Controller, UpdateState::Deferred));
    assert!(report.reason.unwrap().contains("`aio-worker update now`"));
    world.at.window_open = false;
    assert!(matches!(world.give(Input::Hurried)[..], [Effect::Download(_)]));
}

#[test]
fn a_window_that_closes_over_a_prepared_update_keeps_it_prepared() {
    let mut world = World::prepared();
    world.at.window_open = false;
    assert_eq!(rejected(&world.permit(1)), Some("UPDATE_BUSY"));
    assert_eq!(world.state(), UpdateState::Deferred);
    assert_eq!(world.give(Input::BeatAcknowledged), []);
    assert_eq!(rejected(&world.permit(1)), Some("UPDATE_BUSY"), "still");
    world.at.window_open = true;
    assert_eq!(world.after(LOOK_INTERVAL), [], "there is nothing to download again");
    assert_eq!(world.state(), UpdateState::Awaiting);
}

#[test]
fn a_permit_that_was_not_used_in_time_is_none() {
    let mut world = World::prepared();
    world.permit(1);
    world.after(Duration::from_secs(301));
    assert_eq!((world.state(), world.give(Input::BeatAcknowledged)), (UpdateState::Awaiting, vec![]));
    assert_eq!(rejected(&world.permit(2)), Some("UPDATE_BUSY"), "it is of another update");
}

#[test]
fn what_comes_to_nothing_is_tried_three_times_more_and_then_no_longer() {
    let mut world = World::new();
    world.offer(1);
    for pause in RETRY_PAUSES {
        let outcome = Err(failure(ErrorCode::DownloadFailed));
        assert_eq!(world.give(Input::Downloaded(id(1), outcome)), [Effect::Remember]);
        assert_eq!(world.state(), UpdateState::Deferred);
        assert!(
            !world.after(pause - Duration::from_secs(1)).iter().any(|it| matches!(it, Effect::Download(_)))
        );
        // The look that is due next may be up to a minute away.
        assert!(matches!(world.after(LOOK_INTERVAL)[..], [Effect::Download(_)]), "{pause:?}");
    }
    world.give(Input::Downloaded(id(1), Err(failure(ErrorCode::DownloadFailed))));
    assert_eq!(
        (world.state(), world.last()),
        (UpdateState::Idle, (Verdict::Refused, Some("DOWNLOAD_FAILED".into())))
    );
    assert_eq!(rejected(&world.offer(1)), Some("DOWNLOAD_FAILED"), "the same offer is over");
    assert_eq!(rejected(&world.restarted().offer(1)), Some("DOWNLOAD_FAILED"), "for good");
    assert_eq!(rejected(&world.offer(2)), None, "another is not");
    world.give(Input::Cancelled(id(102), UpdateCancel { update_id: id(2), reason: None }));
}

#[test]
fn what_is_the_release_s_fault_is_not_tried_again() {
    for code in [ErrorCode::UpdateUnreachable, ErrorCode::KeyRevoked] {
        let mut world = World::new();
        world.offer(1);
        world.give(Input::Downloaded(id(1), Ok(3)));
        let refused = RootAnswer::Refused { code: code.to_string(), message: "in words".into() };
        world.give(Input::RootAnswered(id(1), Ok(refused)));
        assert_eq!(
            (world.state(), world.last()),
            (UpdateState::Idle, (Verdict::Refused, Some(code.to_string())))
        );
        assert_eq!(rejected(&world.offer(1)), Some(code.as_str()));
    }
    let mut world = World::new();
    let faulty = world.ended(Verdict::Faulty, Some(ErrorCode::UpdateFaulty));
    let effects = world.give(told(RootPhase::Idle, Some(faulty)));
    assert_eq!(effects, [Effect::Remember, Effect::ClearInbox], "the version before finds what is left");
    assert_eq!(rejected(&world.offer(1)), Some("UPDATE_FAULTY"));
    assert_eq!(world.state(), UpdateState::Idle);
}

#[test]
fn what_was_interrupted_is_tried_again_after_a_pause_whatever_process_it_is() {
    let mut world = World::switching().restarted();
    let interrupted = world.ended(Verdict::Interrupted, Some(ErrorCode::UpdateInterrupted));
    world.give(told(RootPhase::Idle, Some(interrupted)));
    assert_eq!(world.offer(1), [Effect::Acknowledge(id(100))]);
    assert_eq!(world.state(), UpdateState::Deferred);
    assert!(world.after(RETRY_PAUSES[0]).iter().any(|effect| matches!(effect, Effect::Download(_))));
}

#[test]
fn a_version_that_an_operator_went_back_from_comes_only_when_one_says_so() {
    let mut world = World::new();
    let reverted = world.ended(Verdict::Reverted, None);
    world.give(told(RootPhase::Idle, Some(reverted.clone())));
    assert_eq!(rejected(&world.offer(2)), Some("UPDATE_PINNED"));
    assert_eq!(world.give(Input::Hurried), [Effect::Remember]);
    let mut world = world.restarted();
    world.give(told(RootPhase::Idle, Some(reverted)));
    assert_eq!(rejected(&world.offer(2)), None, "root's word of before is no news");
    assert_eq!(world.state(), UpdateState::Staging);
}

#[test]
fn each_wait_for_somebody_else_has_an_end() {
    let mut world = World::new();
    world.offer(1);
    let effects = world.after(DOWNLOAD_TIMEOUT);
    assert_eq!(effects, [Effect::StopDownload, Effect::Remember]);
    assert_eq!(world.last(), (Verdict::Refused, Some("DOWNLOAD_FAILED".into())));

    let mut world = World::new();
    world.offer(1);
    world.give(Input::Downloaded(id(1), Ok(3)));
    world.after(STAGE_TIMEOUT);
    assert_eq!(world.last(), (Verdict::Refused, Some("UPDATE_INTERRUPTED".into())));

    let mut world = World::switching();
    world.after(SWITCH_TIMEOUT);
    assert_eq!(world.last(), (Verdict::Refused, Some("UPDATE_INTERRUPTED".into())));
    assert_eq!(world.state(), UpdateState::Deferred);

    let mut world = World::prepared();
    world.after(crate::update::offer::LIFE);
    assert_eq!((world.state(), world.last().1), (UpdateState::Idle, Some("UPDATE_EXPIRED".into())));
}

#[test]
fn a_switch_that_root_has_undone_in_the_same_process_is_over() {
    let mut world = World::switching();
    world.give(told(RootPhase::Idle, None));
    assert_eq!(world.state(), UpdateState::Switching, "root has not begun yet");
    world.at.wall = world.at.wall.plus(Duration::from_secs(1));
    let interrupted = world.ended(Verdict::Interrupted, Some(ErrorCode::UpdateInterrupted));
    world.give(told(RootPhase::Idle, Some(interrupted)));
    assert_eq!(world.state(), UpdateState::Deferred, "it is tried again");
    assert_eq!(world.last().0, Verdict::Interrupted);
    let mut world = World::switching();
    let faulty = world.ended(Verdict::Faulty, Some(ErrorCode::UpdateFaulty));
    assert!(world.give(told(RootPhase::Idle, Some(faulty))).contains(&Effect::ClearInbox));
    assert_eq!((world.state(), world.last().0), (UpdateState::Idle, Verdict::Faulty));
}

#[test]
fn the_index_that_was_brought_is_the_one_that_root_is_asked_to_use() {
    let mut world = World::new();
    world.offer(1);
    let effects = world.give(Input::Downloaded(id(1), Ok(9)));
    assert!(
        matches!(effects[..], [Effect::AskRoot(RootRequest::Stage { index_serial: 9, .. })]),
        "{effects:?}"
    );
}

#[test]
fn of_a_way_back_the_version_that_was_left_is_refused_whichever_way_it_is_told() {
    for (from, version) in [("v1.0.0", NEW), (NEW, "v1.0.0")] {
        let mut world = World::new();
        let mut reverted = world.ended(Verdict::Reverted, None);
        (reverted.from, reverted.version) = (from.parse().unwrap(), version.parse().unwrap());
        world.give(told(RootPhase::Idle, Some(reverted)));
        assert_eq!(rejected(&world.offer(2)), Some("UPDATE_PINNED"), "{from} to {version}");
    }
}

#[test]
fn a_policy_that_no_longer_wants_the_version_ends_its_update() {
    for (code, change) in [
        (
            "UPDATES_OFF",
            Box::new(|policy: &mut Policy| policy.settings.mode = Mode::Off) as Box<dyn Fn(&mut Policy)>,
        ),
        ("UPDATE_PINNED", Box::new(|policy| policy.settings.pin = Some("v1.0.0".parse().unwrap()))),
    ] {
        let mut world = World::prepared();
        let mut policy = world.machine.policy().clone();
        change(&mut policy);
        world.give(Input::PolicyChanged(Box::new(policy)));
        assert_eq!((world.state(), world.last().1.as_deref()), (UpdateState::Idle, Some(code)));
    }
}
