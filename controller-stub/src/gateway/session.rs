//! What a worker's messages mean, in order: a pure machine. It knows which node is connected, whether it has
//! registered and which heartbeat was the last.
//!
//! ```text
//! Greeted ── node.register ──▶ Welcomed ── node.disconnecting ──▶ Left
//!    └─ register timeout: 4408        └─ malformed: 4400, foreign: 4403 (from both)   └─ stays open: 4408
//! ```

use std::time::Duration;

use aio_protocol::{
    ids::NodeId,
    installation::InstallationReport,
    telemetry::HealthSummary,
    text,
    update::EXPECTED_BACK_SECONDS,
    wire::{
        CommandAck, DisconnectReason, ErrorMessage, Metrics, Pulse, Register, StateRequest,
        UNKNOWN_TYPE_ERROR, Unreadable, WorkerMessage, close,
    },
};
use uuid::Uuid;

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It has been greeted and has not registered.
    Greeted,
    /// It has registered; `last` is the `seq` of its last heartbeat, 0 before the first, and
    /// `ailing` whether that one said that a GPU is not well.
    Welcomed { last: u64, ailing: bool },
    /// It has said goodbye; nothing that follows counts.
    Left,
}

/// What happened on the connection.
#[derive(Debug, Clone, Copy)]
pub(super) enum Input<'a> {
    /// A text frame came.
    Received(&'a str),
    /// A binary frame came; there are none.
    ReceivedBinary,
    /// The time to register, or to go after a goodbye, is over.
    PatienceEnded,
}

/// What is to be done, in order.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Effect {
    /// Tell the lifecycle that the worker registered, and answer with the pace.
    Welcome { register: Box<Register>, message_id: Uuid, first: bool },
    /// The worker lives: renew its lease.
    RenewLease,
    /// The worker says how its GPUs are, and it is news.
    NoteHealth(HealthSummary),
    /// Keep what the worker measured.
    KeepMetrics(Box<Metrics>),
    /// The worker takes a command or refuses it.
    Answer(CommandAck),
    /// Tell the lifecycle what an updating daemon reports.
    Report { report: InstallationReport, message_id: Uuid },
    /// Tell the lifecycle that the worker leaves.
    Leave(DisconnectReason),
    /// The worker makes room for another version, and is back within this time.
    Await(Duration),
    /// Ask for a full `node.register`.
    AskState(StateRequest),
    /// Say that something was not understood.
    Complain(ErrorMessage),
    /// Close the connection.
    Close { code: u16, reason: &'static str },
}

/// Goes one step. `node` is whom the connection's token speaks for.
pub(super) fn step(state: State, input: Input<'_>, node: &NodeId) -> (State, Vec<Effect>) {
    let closed = |code, reason| (State::Left, vec![Effect::Close { code, reason }]);
    match (state, input) {
        (State::Left, Input::PatienceEnded) => closed(close::SILENT, "it said goodbye and stayed"),
        (State::Left, _) | (State::Welcomed { .. }, Input::PatienceEnded) => (state, vec![]),
        (State::Greeted, Input::PatienceEnded) => closed(close::SILENT, "no node.register came in time"),
        (_, Input::ReceivedBinary) => closed(close::MALFORMED, "a binary frame came; there are none"),
        (State::Welcomed { last, ailing }, Input::Received(text))
            if let Some(pulse) = Pulse::read(text)
                && pulse.node_id == node.as_str() =>
        {
            heartbeat(last, ailing, pulse.seq, pulse.health)
        }
        (_, Input::Received(text)) => match WorkerMessage::decode(text) {
            Err(Unreadable::Malformed(_)) => closed(close::MALFORMED, "the frame is malformed"),
            Err(Unreadable::UnknownType { kind, message_id }) => {
                (state, vec![Effect::Complain(unknown_type(&kind, message_id))])
            }
            Ok(frame) if node_of(&frame.message) != node => {
                closed(close::FOREIGN, "the message speaks for another node than the token")
            }
            Ok(frame) => understood(state, frame.message, frame.message_id),
        },
    }
}

fn heartbeat(last: u64, was_ailing: bool, seq: u64, health: HealthSummary) -> (State, Vec<Effect>) {
    let mut effects = vec![Effect::RenewLease];
    let ailing = !health.is_ok();
    if ailing || was_ailing || last == 0 {
        effects.push(Effect::NoteHealth(health));
    }
    let expected = last.saturating_add(1);
    if seq != expected {
        let reason = Some(format!("heartbeat {seq} came where {expected} was due"));
        effects.push(Effect::AskState(StateRequest { reason }));
    }
    (State::Welcomed { last: seq, ailing }, effects)
}

fn understood(state: State, message: WorkerMessage, message_id: Uuid) -> (State, Vec<Effect>) {
    use WorkerMessage as M;
    let (last, ailing, message) = match (state, message) {
        (State::Greeted, M::Register(register)) => {
            let welcome = Effect::Welcome { register: Box::new(register), message_id, first: true };
            return (State::Welcomed { last: 0, ailing: false }, vec![welcome]);
        }
        (State::Greeted, _) => {
            let reason = Some("node.register comes first".to_owned());
            return (state, vec![Effect::AskState(StateRequest { reason })]);
        }
        (State::Left, _) => return (state, vec![]),
        (State::Welcomed { last, ailing }, message) => (last, ailing, message),
    };
    let report = |report| vec![Effect::RenewLease, Effect::Report { report, message_id }];
    let effects = match message {
        M::Register(register) => {
            vec![Effect::Welcome { register: Box::new(register), message_id, first: false }]
        }
        M::Heartbeat(it) => return heartbeat(last, ailing, it.seq, it.health),
        M::CommandAck(ack) => vec![Effect::RenewLease, Effect::Answer(ack)],
        M::Metrics(metrics) => vec![Effect::RenewLease, Effect::KeepMetrics(Box::new(metrics))],
        M::CommandResult(_) => vec![Effect::RenewLease],
        M::Disconnecting(goodbye) => {
            let leave = match (goodbye.reason, goodbye.expected_back_seconds) {
                (DisconnectReason::Update, Some(seconds @ 1..)) => {
                    Effect::Await(Duration::from_secs(seconds.min(EXPECTED_BACK_SECONDS)))
                }
                (reason, _) => Effect::Leave(reason),
            };
            return (State::Left, vec![Effect::RenewLease, leave]);
        }
        M::InstallationStarted(it) => report(InstallationReport::Started { version: Some(it.version) }),
        M::InstallationProgress(it) => {
            report(InstallationReport::Progress { step: it.step, percent: it.percent })
        }
        M::InstallationFailed(it) => report(InstallationReport::Failed { step: it.step, error: it.error }),
    };
    (State::Welcomed { last, ailing }, effects)
}

fn node_of(message: &WorkerMessage) -> &NodeId {
    use WorkerMessage as M;
    match message {
        M::Register(it) => &it.node_id,
        M::Heartbeat(it) => &it.node_id,
        M::Metrics(it) => &it.node_id,
        M::Disconnecting(it) => &it.node_id,
        M::InstallationStarted(it) => &it.node_id,
        M::InstallationProgress(it) => &it.node_id,
        M::InstallationFailed(it) => &it.node_id,
        M::CommandAck(it) => &it.node_id,
        M::CommandResult(it) => &it.node_id,
    }
}

fn unknown_type(kind: &str, message_id: Uuid) -> ErrorMessage {
    let kind = text::clean(kind, 64);
    ErrorMessage {
        code: UNKNOWN_TYPE_ERROR,
        message: format!("unknown message type `{kind}`"),
        original_message_id: Some(message_id),
    }
}

#[cfg(test)]
mod tests {
    use aio_protocol::telemetry::Health;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn id() -> NodeId {
        NodeId::from_bytes([9; 12])
    }

    fn frame(kind: &str, mut data: Value) -> String {
        if data.get("nodeId").is_none() {
            data["nodeId"] = json!(id());
        }
        json!({"type": kind, "messageId": Uuid::nil(), "timestamp": "2025-12-11T12:00:00.000Z", "data": data})
            .to_string()
    }

    fn register() -> String {
        frame(
            "node.register",
            json!({"instanceId": Uuid::nil(), "bootId": "b", "daemonVersion": "1.0.0", "systemInfo": {
                "os": {"name": "Debian", "version": "12", "kernel": "6.1", "hostname": "h"}, "architecture": "x86_64",
                "hardware": {"cpu": {"model": "c", "threads": 2}, "memory": {"total": 1}, "disk": [], "network": [],
                    "gpu": [], "gpuDriver": {"state": "absent"}}}}),
        )
    }

    fn heartbeat(seq: u64) -> String {
        frame(
            "telemetry.heartbeat",
            json!({"seq": seq, "status": "online", "cpuUsage": 1.0, "ramUsage": 1.0, "uptimeSeconds": 1, "health": {"state": "ok"}}),
        )
    }

    fn received(state: State, text: &str) -> (State, Vec<Effect>) {
        step(state, Input::Received(text), &id())
    }

    const WELCOMED: State = State::Welcomed { last: 0, ailing: false };

    fn last(last: u64) -> State {
        State::Welcomed { last, ailing: false }
    }

    #[test]
    fn a_worker_registers_first_and_then_lives() {
        let (state, effects) = received(State::Greeted, &register());
        assert_eq!(state, WELCOMED);
        assert!(matches!(&effects[..], [Effect::Welcome { first: true, .. }]));
        let (state, effects) = received(state, &heartbeat(1));
        let first = vec![Effect::RenewLease, Effect::NoteHealth(HealthSummary::default())];
        assert_eq!((state, effects), (last(1), first));
        let (state, effects) = received(state, &register());
        assert_eq!(state, last(1));
        assert!(matches!(&effects[..], [Effect::Welcome { first: false, .. }]));
    }

    #[test]
    fn who_leaves_for_an_update_is_awaited_and_never_for_long() {
        for (back, effect) in [
            (json!(5), Effect::Await(Duration::from_secs(5))),
            (json!(86_400), Effect::Await(Duration::from_secs(30))),
            (json!(0), Effect::Leave(DisconnectReason::Update)),
            (json!(null), Effect::Leave(DisconnectReason::Update)),
        ] {
            let goodbye =
                frame("node.disconnecting", json!({"reason": "update", "expectedBackSeconds": back}));
            assert_eq!(
                received(WELCOMED, &goodbye),
                (State::Left, vec![Effect::RenewLease, effect]),
                "{back}"
            );
        }
    }

    #[test]
    fn who_does_not_register_is_asked_to_and_closed_in_the_end() {
        let (state, effects) = received(State::Greeted, &heartbeat(1));
        assert_eq!(state, State::Greeted);
        assert!(matches!(&effects[..], [Effect::AskState(_)]), "and no lease is renewed: {effects:?}");
        let (_, effects) = step(state, Input::PatienceEnded, &id());
        assert!(matches!(&effects[..], [Effect::Close { code: close::SILENT, .. }]));
        assert_eq!(step(WELCOMED, Input::PatienceEnded, &id()), (WELCOMED, vec![]));
    }

    #[test]
    fn a_gap_in_the_heartbeats_asks_for_the_whole_state() {
        let (state, effects) = received(last(3), &heartbeat(5));
        assert_eq!(state, last(5));
        assert!(matches!(&effects[..], [Effect::RenewLease, Effect::AskState(_)]), "{effects:?}");
        assert_eq!(received(state, &heartbeat(6)).1, [Effect::RenewLease]);
    }

    #[test]
    fn health_is_noted_when_it_is_news_and_a_heartbeat_of_the_well_is_cheap() {
        let ill = |seq: u64| {
            let data = json!({"seq": seq, "cpuUsage": 1.0, "ramUsage": 1.0, "uptimeSeconds": 1,
                "health": {"state": "unhealthy", "worst": "GPU 3: lost", "action": "reboot"}});
            frame("telemetry.heartbeat", data)
        };
        let noted = |effects: &[Effect]| -> Option<Health> {
            effects.iter().find_map(|effect| match effect {
                Effect::NoteHealth(summary) => Some(summary.state),
                _ => None,
            })
        };
        let (state, effects) = received(last(1), &heartbeat(2));
        assert_eq!(noted(&effects), None);
        let (state, effects) = received(state, &ill(3));
        assert_eq!(noted(&effects), Some(Health::Unhealthy));
        let (state, effects) = received(state, &heartbeat(4));
        assert_eq!(noted(&effects), Some(Health::Ok));
        assert_eq!(received(state, &heartbeat(5)), (last(5), vec![Effect::RenewLease]));
    }

    #[test]
    fn an_unknown_type_is_answered_and_the_connection_stays() {
        let (state, effects) = received(WELCOMED, &frame("node.dance", json!({})));
        assert_eq!(state, WELCOMED);
        assert!(matches!(&effects[..], [Effect::Complain(error)] if error.code == 2001), "{effects:?}");
    }

    #[test]
    fn malformed_and_foreign_frames_close_from_every_state() {
        let foreign =
            frame("node.disconnecting", json!({"nodeId": "69396100cd71623c7bbfbfee", "reason": "shutdown"}));
        for state in [State::Greeted, WELCOMED] {
            for (input, expected) in [
                (Input::Received("{"), close::MALFORMED),
                (Input::ReceivedBinary, close::MALFORMED),
                (Input::Received(&foreign), close::FOREIGN),
            ] {
                let (after, effects) = step(state, input, &id());
                assert_eq!(after, State::Left);
                assert!(
                    matches!(&effects[..], [Effect::Close { code, .. }] if *code == expected),
                    "{input:?}: {effects:?}"
                );
            }
        }
    }

    #[test]
    fn nothing_counts_after_a_goodbye() {
        let goodbye = frame("node.disconnecting", json!({"reason": "reboot"}));
        let (state, effects) = received(WELCOMED, &goodbye);
        assert_eq!(effects, [Effect::RenewLease, Effect::Leave(DisconnectReason::Reboot)]);
        for text in [register(), heartbeat(1), "{".to_owned()] {
            assert_eq!(received(state, &text), (State::Left, vec![]));
        }
    }

    #[test]
    fn an_updating_daemon_reports_as_an_installer_does() {
        let text = frame("node.installation_progress", json!({"step": "fetch_release", "percent": 10}));
        let report = InstallationReport::Progress { step: "fetch_release".into(), percent: Some(10) };
        let (_, effects) = received(WELCOMED, &text);
        assert_eq!(effects, [Effect::RenewLease, Effect::Report { report, message_id: Uuid::nil() }]);
    }

    proptest! {
        #[test]
        fn no_frame_panics_and_a_left_session_stays_left(text in ".{0,200}") {
            received(State::Greeted, &text);
            prop_assert_eq!(received(State::Left, &text).0, State::Left);
        }
    }
}
