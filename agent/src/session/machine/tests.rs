//! Tables and properties of the session machine. The socket of the outside world is modelled beside it.

use super::*;
use aio_protocol::{
    error_code::ErrorCode,
    time::Timestamp,
    wire::{
        ConnectionAck, ErrorMessage, NodeDrain, PendingCommand, StateRequest, UpdateCancel, UpdatePermit,
    },
};
use serde_json::json;

mod heartbeats;
mod properties;
mod standstill;

const SECOND: Duration = Duration::from_secs(1);

fn connection_ack() -> Input {
    let ack = ConnectionAck {
        status: "success".to_owned(),
        node_id: "69396100cd71623c7bbfbfee".parse().unwrap(),
        controller_id: String::new(),
        server_version: String::new(),
    };
    Input::FrameReceived(Uuid::nil(), ControllerMessage::ConnectionAck(ack))
}

fn register_ack(heartbeat: u64, metrics: u64) -> Input {
    let ack =
        RegisterAck { heartbeat_interval: heartbeat, metrics_interval: metrics, pending_commands: vec![] };
    Input::FrameReceived(Uuid::nil(), ControllerMessage::RegisterAck(ack))
}

fn state_request() -> Input {
    Input::FrameReceived(Uuid::nil(), ControllerMessage::StateRequest(StateRequest { reason: None }))
}

fn drain() -> Input {
    Input::FrameReceived(Uuid::nil(), ControllerMessage::Drain(NodeDrain { deadline_seconds: None }))
}

fn offer() -> TokenOffer {
    TokenOffer { token: "secret".into(), expires_at: Timestamp::from_millis(0), offer_id: "offer".into() }
}

fn error_frame() -> Input {
    let error = ErrorMessage { code: 2001, message: String::new(), original_message_id: None };
    Input::FrameReceived(Uuid::nil(), ControllerMessage::Error(error))
}

fn setback(patience: Patience) -> Setback {
    Setback { patience, ..Setback::new(ErrorCode::ControllerUnreachable, "gone") }
}

fn lost() -> Input {
    Input::SocketLost(setback(Patience::Backoff))
}

/// A machine with a clock and a socket beside it.
#[derive(Debug, Clone)]
struct World {
    session: Session,
    now: Instant,
    jitter: f64,
    socket: Socket,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Socket {
    None,
    Dialling,
    Open,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let session = Session::new(Timings::default(), now);
        Self { session, now, jitter: 0.5, socket: Socket::None }
    }

    /// Gives the input, and holds what must hold after any.
    fn give(&mut self, input: Input) -> Vec<Effect> {
        match (&input, self.socket) {
            (Input::SocketOpened, Socket::Dialling) => self.socket = Socket::Open,
            (Input::SocketLost(_), _) => self.socket = Socket::None,
            _ => {}
        }
        let at = Moment { now: self.now, jitter: Jitter::new(self.jitter) };
        let (session, effects) = self.session.clone().step(input, at);
        self.session = session;
        for effect in &effects {
            match effect {
                Effect::Dial => {
                    assert_eq!(self.socket, Socket::None, "a second socket");
                    self.socket = Socket::Dialling;
                }
                Effect::HangUp => self.socket = Socket::None,
                _ => assert_eq!(self.socket, Socket::Open, "{effect:?} without a socket"),
            }
        }
        let expected = match self.session.state() {
            State::Starting { .. } | State::Waiting { .. } | State::Stopped => Socket::None,
            State::Connecting { .. } => Socket::Dialling,
            State::Registering { .. } | State::Online(_) | State::Stopping { .. } => Socket::Open,
        };
        assert_eq!(self.socket, expected, "{:?}", self.session.state());
        effects
    }

    fn after(&mut self, time: Duration) -> Vec<Effect> {
        self.now += time;
        self.give(Input::Elapsed)
    }

    fn at_deadline(&mut self) -> Vec<Effect> {
        self.now = self.now.max(self.session.deadline().unwrap());
        self.give(Input::Elapsed)
    }

    fn given(inputs: impl IntoIterator<Item = Input>) -> Self {
        let mut world = Self::new();
        for input in inputs {
            world.give(input);
        }
        world
    }

    fn connecting() -> Self {
        Self::given([Input::FactsRead])
    }

    fn opened() -> Self {
        Self::given([Input::FactsRead, Input::SocketOpened])
    }

    fn registered() -> Self {
        Self::given([Input::FactsRead, Input::SocketOpened, connection_ack()])
    }

    fn online() -> Self {
        let mut world = Self::registered();
        world.give(register_ack(30_000, 60_000));
        world
    }

    fn waiting() -> Self {
        Self::given([Input::FactsRead, lost()])
    }

    fn stopping() -> Self {
        let mut world = Self::online();
        world.give(Input::StopRequested);
        world
    }

    fn stopped() -> Self {
        Self::given([Input::StopRequested])
    }

    fn state(&self) -> &'static str {
        match self.session.state() {
            State::Starting { .. } => "starting",
            State::Waiting { .. } => "waiting",
            State::Connecting { .. } => "connecting",
            State::Registering { registered: false, .. } => "opened",
            State::Registering { registered: true, .. } => "registered",
            State::Online(_) => "online",
            State::Stopping { .. } => "stopping",
            State::Stopped => "stopped",
        }
    }

    fn wait(&self) -> Duration {
        let State::Waiting { until, .. } = self.session.state() else { panic!("{:?}", self.session.state()) };
        until.saturating_duration_since(self.now)
    }

    fn seq(&self) -> u64 {
        let State::Online(online) = self.session.state() else { panic!("{:?}", self.session.state()) };
        online.seq
    }
}

#[test]
fn every_state_meets_every_input_as_written() {
    use Effect::{Dial, HangUp, KeepToken, SayGoodbye, SendBeat, SendRegister};
    type Start = (&'static str, fn() -> World);
    let starts: [Start; 8] = [
        ("starting", World::new),
        ("waiting", World::waiting),
        ("connecting", World::connecting),
        ("opened", World::opened),
        ("registered", World::registered),
        ("online", World::online),
        ("stopping", World::stopping),
        ("stopped", World::stopped),
    ];
    let refuse = || Effect::RefuseCommand { message_id: Uuid::nil(), kind: "node.drain".to_owned() };
    // Per input: the states in which it does something, what it becomes, and the effects. All other
    // states stay and do nothing.
    type Row = (&'static str, &'static str, Vec<Effect>);
    type Given = (&'static str, fn() -> Input, Vec<Row>);
    let table: Vec<Given> = vec![
        ("facts read", || Input::FactsRead, vec![("starting", "connecting", vec![Dial])]),
        ("socket opened", || Input::SocketOpened, vec![("connecting", "opened", vec![])]),
        ("connection_ack", connection_ack, vec![("opened", "registered", vec![SendRegister])]),
        ("register.ack", || register_ack(30_000, 60_000), vec![("registered", "online", vec![KeepToken])]),
        (
            "state.request",
            state_request,
            vec![("registered", "registered", vec![SendRegister]), ("online", "online", vec![SendRegister])],
        ),
        (
            "node.drain",
            drain,
            vec![
                ("opened", "opened", vec![refuse()]),
                ("registered", "registered", vec![refuse()]),
                ("online", "online", vec![refuse()]),
            ],
        ),
        ("error", error_frame, vec![]),
        ("pong of nothing", || Input::PongReceived(7), vec![]),
        (
            "socket lost",
            lost,
            vec![
                ("connecting", "waiting", vec![]),
                ("opened", "waiting", vec![]),
                ("registered", "waiting", vec![]),
                ("online", "waiting", vec![]),
                ("stopping", "stopped", vec![]),
            ],
        ),
        // Before the first heartbeat, that one will tell.
        ("health changed", || Input::HealthChanged, vec![]),
        ("inventory changed", || Input::InventoryChanged, vec![("online", "online", vec![SendRegister])]),
        (
            "auth.rotate",
            || Input::FrameReceived(Uuid::nil(), ControllerMessage::TokenOffer(offer())),
            ["opened", "registered", "online"]
                .map(|state| (state, state, vec![Effect::WeighOffer(Uuid::nil(), offer())]))
                .to_vec(),
        ),
        (
            "token replaced",
            || Input::TokenReplaced,
            vec![
                ("waiting", "connecting", vec![Dial]),
                ("connecting", "connecting", vec![HangUp, Dial]),
                ("opened", "connecting", vec![HangUp, Dial]),
                ("registered", "connecting", vec![HangUp, Dial]),
                ("online", "connecting", vec![HangUp, Dial]),
            ],
        ),
        (
            "woke",
            || Input::Woke(60 * SECOND),
            vec![
                ("waiting", "connecting", vec![Dial]),
                ("connecting", "connecting", vec![HangUp, Dial]),
                ("opened", "connecting", vec![HangUp, Dial]),
                ("registered", "connecting", vec![HangUp, Dial]),
                ("online", "online", vec![SendBeat(1)]),
            ],
        ),
        (
            "stop requested",
            || Input::StopRequested,
            vec![
                ("starting", "stopped", vec![]),
                ("waiting", "stopped", vec![]),
                ("connecting", "stopped", vec![HangUp]),
                ("opened", "stopped", vec![HangUp]),
                ("registered", "stopping", vec![SayGoodbye]),
                ("online", "stopping", vec![SayGoodbye]),
            ],
        ),
        // A session's first heartbeat of all is due at once; nothing else is.
        ("elapsed at once", || Input::Elapsed, vec![("online", "online", vec![SendBeat(1)])]),
    ];
    for (name, input, rows) in &table {
        for (from, start) in &starts {
            let mut world = start();
            assert_eq!(world.state(), *from);
            let before = world.session.clone();
            let effects = world.give(input());
            match rows.iter().find(|(state, ..)| state == from) {
                Some((_, to, expected)) => {
                    assert_eq!((world.state(), &effects), (*to, expected), "{from}: {name}");
                }
                None => assert_eq!((world.session, effects), (before, vec![]), "{from}: {name}"),
            }
        }
    }
}

#[test]
fn every_deadline_leads_on() {
    for (start, to, effect) in [
        (World::waiting(), "connecting", Effect::Dial),
        (World::connecting(), "waiting", Effect::HangUp),
        (World::opened(), "waiting", Effect::HangUp),
        (World::registered(), "waiting", Effect::HangUp),
        (World::stopping(), "stopped", Effect::HangUp),
    ] {
        let mut world = start;
        let effects = world.at_deadline();
        assert_eq!((world.state(), effects), (to, vec![effect]));
    }
}

#[test]
fn a_try_knows_why_there_was_no_session_until_there_is_one_or_another_token() {
    let after = |world: &World| match world.session.state() {
        State::Connecting { after, .. } | State::Registering { after, .. } => after.clone(),
        state => panic!("{state:?}"),
    };
    let known = Some(setback(Patience::Backoff));
    let mut world = World::waiting();
    world.at_deadline();
    assert_eq!(after(&world), known);
    world.give(Input::Woke(60 * SECOND));
    for input in [Input::SocketOpened, connection_ack()] {
        assert_eq!(after(&world), known, "{input:?}");
        world.give(input);
    }
    assert_eq!(after(&world), known);
    let mut replaced = world.clone();
    replaced.give(Input::TokenReplaced);
    assert_eq!(after(&replaced), None);
    world.give(register_ack(30_000, 60_000));
    world.give(Input::TokenReplaced);
    assert_eq!(after(&world), None);
    let mut waiting = World::waiting();
    waiting.give(Input::TokenReplaced);
    assert_eq!(after(&waiting), None);
}

#[test]
fn a_command_that_waited_is_obeyed_or_refused_like_one_that_comes_by_itself() {
    let update_id = Uuid::from_u128(7);
    let permit = UpdatePermit { update_id, seconds: 300 };
    let cancel = UpdateCancel { update_id, reason: Some("not today".to_owned()) };
    let known = [
        ControllerMessage::of("node.update", json!({"version": "v1.1.0"})).unwrap(),
        ControllerMessage::Permit(permit),
        ControllerMessage::CancelUpdate(cancel),
        ControllerMessage::TokenOffer(offer()),
        ControllerMessage::Drain(NodeDrain { deadline_seconds: None }),
    ];
    for message in known {
        let mut alone = World::online();
        let expected = alone.give(Input::FrameReceived(Uuid::max(), message.clone()));
        assert_eq!(waited(message.kind(), data(&message)), expected, "{}", message.kind());
    }
    let refused = |kind: &str| [Effect::RefuseCommand { message_id: Uuid::max(), kind: kind.to_owned() }];
    assert_eq!(waited("node.dance", json!({})), refused("node.dance"), "unknown");
    assert_eq!(waited("update.permit", json!({"seconds": -1})), refused("update.permit"), "malformed");
    assert_eq!(waited("register.ack", json!({"pendingCommands": []})), refused("register.ack"), "no command");
}

/// What a command comes to that stands in `register.ack`.
fn waited(kind: &str, data: serde_json::Value) -> Vec<Effect> {
    let command = PendingCommand { message_id: Uuid::max(), kind: kind.to_owned(), data };
    let ack =
        RegisterAck { heartbeat_interval: 30_000, metrics_interval: 60_000, pending_commands: vec![command] };
    let mut world = World::registered();
    world.give(Input::FrameReceived(Uuid::nil(), ControllerMessage::RegisterAck(ack))).split_off(1)
}

fn data(message: &ControllerMessage) -> serde_json::Value {
    let text = message.encode(Uuid::nil(), Timestamp::from_millis(0)).unwrap();
    serde_json::from_str::<serde_json::Value>(&text).unwrap()["data"].take()
}

#[test]
fn patience_decides_the_wait() {
    for (patience, jitter, wait) in [
        (Patience::Backoff, 0.5, SECOND / 2),
        (Patience::Long, 0.0, 30 * SECOND),
        (Patience::Told(7 * SECOND), 0.0, 7 * SECOND),
        (Patience::Told(100 * SECOND), 0.5, 105 * SECOND),
    ] {
        let mut world = World::connecting();
        world.jitter = jitter;
        world.give(Input::SocketLost(setback(patience)));
        assert_eq!(world.wait(), wait, "{patience:?}");
    }
}

#[test]
fn failures_lengthen_the_wait_until_a_session_lasted_a_minute() {
    let mut world = World::connecting();
    let mut waits = vec![];
    for _ in 0..4 {
        world.give(lost());
        waits.push(world.wait());
        world.at_deadline();
    }
    assert_eq!(waits, [SECOND / 2, SECOND, 2 * SECOND, 4 * SECOND]);
    for input in [Input::SocketOpened, connection_ack(), register_ack(30_000, 60_000)] {
        world.give(input);
    }
    world.now += 60 * SECOND;
    world.give(lost());
    assert_eq!(world.wait(), SECOND / 2);
}

#[test]
fn a_machine_whose_facts_cannot_be_read_connects_all_the_same_after_a_while() {
    let mut world = World::new();
    assert_eq!(world.after(Timings::default().facts - SECOND), []);
    assert_eq!(world.after(SECOND), [Effect::Dial]);
    assert_eq!(world.give(Input::FactsRead), [], "facts that come later change no connection");
}

#[test]
fn another_token_ends_an_attempt_that_is_under_way() {
    let mut world = World::connecting();
    let effects = world.give(Input::TokenReplaced);
    assert_eq!(effects, [Effect::HangUp, Effect::Dial]);
    assert!(world.session.state().after().is_none());
}
