//! The contract's table of the socket, line by line on the worker's side, and what no frame does.

use aio_protocol::wire::ControllerMessage;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const NODE: &str = "69396100cd71623c7bbfbfee";

const OPEN: &str =
    r#"0{"sid":"x","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#;

/// A session with a clock.
struct World {
    conversation: Conversation,
    began: Instant,
    seconds: u64,
}

impl World {
    fn begin(token_is_fresh: bool) -> Self {
        let began = Instant::now();
        let conversation = Conversation::new(NODE.parse().unwrap(), "a.b.c".into(), token_is_fresh, began);
        Self { conversation, began, seconds: 0 }
    }

    fn joined() -> Self {
        let mut world = Self::begin(false);
        world.hear(OPEN);
        world.hear(r#"40/ws/node,{"sid":"y"}"#);
        world
    }

    fn online() -> Self {
        let mut world = Self::joined();
        world.hear_event("connection.ack", json!({"status": "success", "nodeId": NODE}));
        world.hear_event("register.ack", json!({"data": {"status": "success"}}));
        world
    }

    fn now(&self) -> Instant {
        self.began + Duration::from_secs(self.seconds)
    }

    fn hear(&mut self, text: &str) -> Vec<Step> {
        let wall = Timestamp::from_millis(1_765_454_400_000);
        self.conversation.heard(text, Moment { now: self.now(), wall, id: Uuid::max() })
    }

    fn hear_event(&mut self, name: &str, payload: Value) -> Vec<Step> {
        self.hear(&format!("42/ws/node,[\"{name}\",{payload}]"))
    }

    fn say(&mut self, fixture: &str) -> Option<(String, Value)> {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../protocol/fixtures/worker")
            .join(fixture);
        let packet = self.conversation.say(&std::fs::read_to_string(path).unwrap(), self.now())?;
        let list: Vec<Value> = serde_json::from_str(packet.strip_prefix("42/ws/node,").unwrap()).unwrap();
        Some((list[0].as_str().unwrap().to_owned(), list[1].clone()))
    }
}

fn ended(steps: Vec<Step>) -> Setback {
    match <[Step; 1]>::try_from(steps) {
        Ok([Step::End(setback)]) => setback,
        other => panic!("{other:?}"),
    }
}

fn told(steps: &[Step]) -> ControllerMessage {
    match steps {
        [Step::Heard(text), ..] => ControllerMessage::decode(text).unwrap().message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_token_goes_into_the_join_and_a_ping_is_answered_with_its_own_text() {
    let mut world = World::begin(false);
    assert_eq!(world.hear(OPEN), [Step::Say(r#"40/ws/node,{"token":"a.b.c"}"#.into())]);
    assert_eq!(world.hear(r#"40/ws/node,{"sid":"y"}"#), []);
    assert_eq!(world.hear("2"), [Step::Say("3".into())]);
    assert_eq!(world.hear("2probe"), [Step::Say("3probe".into())]);
    assert_eq!(world.hear(OPEN), [], "a second one changes nothing");
}

#[test]
fn a_register_follows_every_acknowledgement_by_the_machine_and_its_pace_is_obeyed() {
    let mut world = World::joined();
    let ack = world.hear_event(
        "connection.ack",
        json!({"type": "connection.ack", "status": "success", "nodeId": NODE, "controllerId": "controller-main"}),
    );
    assert!(
        matches!(told(&ack), ControllerMessage::ConnectionAck(ack) if ack.controller_id == "controller-main")
    );
    let (name, register) = world.say("node.register.json").unwrap();
    assert_eq!((name.as_str(), register["type"].as_str()), ("node.register", Some("node.register")));
    assert_eq!(register["data"].as_object().unwrap().len(), 1, "nothing stands beside it");
    assert_eq!(register["data"]["systemInfo"]["hardware"]["memory"]["total"], 1_081_101_176_832_u64);
    let info = json!({"heartbeatInterval": 15000, "metricsInterval": 20000, "timezone": "UTC"});
    let ack =
        world.hear_event("register.ack", json!({"data": {"status": "success", "controllerInfo": info}}));
    let ControllerMessage::RegisterAck(ack) = told(&ack) else { panic!() };
    assert_eq!((ack.heartbeat_interval, ack.metrics_interval), (15_000, 20_000));
    // One without a pace, and one without data, still welcome.
    for odd in [json!({"data": {}}), json!({}), json!(null), json!([1])] {
        let ack = World::joined().hear_event("register.ack", odd);
        let ControllerMessage::RegisterAck(ack) = told(&ack) else { panic!() };
        assert_eq!((ack.heartbeat_interval, ack.metrics_interval), (30_000, 60_000));
    }
}

#[test]
fn a_status_is_told_for_two_minutes_of_a_session_and_then_left_out() {
    let mut world = World::online();
    for (seconds, status) in [(0, Some("online")), (119, Some("online")), (120, None), (100_000, None)] {
        world.seconds = seconds;
        let (name, beat) = world.say("telemetry.heartbeat.json").unwrap();
        assert_eq!((name.as_str(), beat["data"]["status"].as_str()), ("telemetry.heartbeat", status));
    }
    // A registration within the session, for another inventory, does not begin it anew.
    world.hear_event("register.ack", json!({"data": {}}));
    assert_eq!(world.say("telemetry.heartbeat.json").unwrap().1["data"]["status"], Value::Null);
}

#[test]
fn metrics_know_the_machine_that_was_registered_and_what_aiwm_has_no_word_for_is_not_said() {
    let mut world = World::online();
    world.say("node.register.json").unwrap();
    let (_, metrics) = world.say("telemetry.metrics.json").unwrap();
    assert_eq!(metrics["data"]["cpu"]["cores"], 128);
    for silent in ["node.disconnecting.json", "node.installation_started.json", "command.ack.json"] {
        assert_eq!(world.say(silent), None, "{silent}");
    }
    assert_eq!(Conversation::goodbye(), "41/ws/node,");
}

#[test]
fn a_driver_that_falls_silent_takes_no_gpu_out_of_what_aiwm_has_stored() {
    let mut world = World::online();
    world.say("node.register.json").unwrap();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/fixtures/worker");
    let text = std::fs::read_to_string(path.join("node.register-without-gpu.json")).unwrap();
    let gpus = |world: &mut World, state: &str| {
        let mut register: Value = serde_json::from_str(&text).unwrap();
        register["data"]["systemInfo"]["hardware"]["gpuDriver"]["state"] = json!(state);
        let packet = world.conversation.say(&register.to_string(), world.now()).unwrap();
        packet.contains("NVIDIA A100-SXM4-80GB")
    };
    assert!(gpus(&mut world, "unknown"));
    assert!(!gpus(&mut world, "absent"));
}

#[test]
fn a_refused_join_is_a_setback_and_a_token_that_was_not_fresh_asks_for_a_login() {
    for (message, code) in [
        ("TOKEN_MISSING", ErrorCode::TokenMissing),
        ("TOKEN_INVALID", ErrorCode::TokenInvalid),
        ("TOKEN_EXPIRED", ErrorCode::TokenExpired),
    ] {
        let packet = format!("44/ws/node,{{\"message\":\"{message}\"}}");
        for (fresh, code, patience) in [(false, None, Patience::Backoff), (true, Some(code), Patience::Long)]
        {
            let mut world = World::begin(fresh);
            world.hear(OPEN);
            let setback = ended(world.hear(&packet));
            assert_eq!((setback.code(), setback.patience), (code, patience), "{message}");
            assert!(world.conversation.was_refused());
        }
    }
    for (packet, word) in [
        (r#"44/ws/node/,{"message":"Invalid namespace"}"#, "Invalid namespace"),
        ("44/ws/node,", "refused"),
        ("44", "refused"),
    ] {
        let mut world = World::begin(false);
        world.hear(OPEN);
        let setback = ended(world.hear(packet));
        assert_eq!((setback.code(), setback.patience), (Some(ErrorCode::ControllerInvalid), Patience::Long));
        assert!(
            setback.message().contains(word) && !world.conversation.was_refused(),
            "{}",
            setback.message()
        );
    }
}

#[test]
fn an_acknowledgement_with_an_error_says_what_a_person_must_do_or_what_time_cures() {
    for (error, code, patience) in [
        (json!({"code": "1004", "message": "gone"}), ErrorCode::NodeNotFound, Patience::Long),
        (json!({"code": "1005", "message": "inactive"}), ErrorCode::NodeSuspended, Patience::Long),
        (json!({"code": 1005}), ErrorCode::NodeSuspended, Patience::Long),
        (json!({"code": "INTERNAL_ERROR"}), ErrorCode::ControllerError, Patience::Backoff),
        (json!({}), ErrorCode::ControllerError, Patience::Backoff),
        (Value::Null, ErrorCode::ControllerError, Patience::Backoff),
    ] {
        let payload = json!({"status": "error", "error": error});
        let setback = ended(World::joined().hear_event("connection.ack", payload));
        assert_eq!((setback.code(), setback.patience), (Some(code), patience), "{error}");
    }
    let foreign = json!({"status": "success", "nodeId": "79396100cd71623c7bbfbfee"});
    assert_eq!(
        ended(World::joined().hear_event("connection.ack", foreign)).code(),
        Some(ErrorCode::TokenForeign)
    );
}

#[test]
fn whoever_is_sent_away_comes_back_and_two_workers_of_one_node_do_not_fight() {
    let setback = ended(World::online().hear("41/ws/node,"));
    assert_eq!((setback.code(), setback.patience), (Some(ErrorCode::NodeSuperseded), Patience::Long));
    let setback = ended(World::joined().hear("41/ws/node,"));
    assert_eq!(
        (setback.code(), setback.patience),
        (Some(ErrorCode::ControllerUnreachable), Patience::Backoff)
    );
    assert_eq!(ended(World::online().hear("1")).code(), Some(ErrorCode::ControllerUnreachable));
    assert_eq!(World::online().hear("41/notifications,"), []);
}

#[test]
fn a_register_that_is_not_stored_ends_the_session_and_a_later_complaint_is_told() {
    let failed = json!({"type": "error", "error": {"code": "REGISTRATION_FAILED", "message": "Cast failed"}});
    let crashed = json!({"status": "error", "message": "Internal server error",
        "cause": {"pattern": "node.register", "data": {"secret": "s"}}});
    for (name, payload) in [("error", &failed), ("exception", &crashed)] {
        let setback = ended(World::joined().hear_event(name, payload.clone()));
        assert_eq!((setback.code(), setback.patience), (Some(ErrorCode::ControllerError), Patience::Backoff));
        let steps = World::online().hear_event(name, payload.clone());
        assert!(matches!(told(&steps), ControllerMessage::Error(_)), "{steps:?}");
    }
}

#[test]
fn a_command_is_answered_with_an_error_and_its_metadata_and_nothing_of_it_is_shown() {
    let command = json!({"type": "agent.start", "messageId": "c-1", "metadata": {"trace": 7},
        "data": {"deploymentId": "d-1", "secret": "in-the-clear", "name": "summariser"}});
    let mut world = World::online();
    let steps = world.hear_event("agent.start", command.clone());
    let [Step::Say(packet), Step::Declined { kind, message_id }] = &steps[..] else { panic!("{steps:?}") };
    assert_eq!((kind.as_str(), message_id.as_str()), ("agent.start", "c-1"));
    let list: Vec<Value> = serde_json::from_str(packet.strip_prefix("42/ws/node,").unwrap()).unwrap();
    assert_eq!((&list[0], &list[1]["metadata"]["trace"]), (&json!("command.result"), &json!(7)));
    let data = &list[1]["data"];
    assert_eq!((&data["originalMessageId"], &data["deploymentId"]), (&json!("c-1"), &json!("d-1")));
    assert_eq!((&data["status"], &data["error"]["retryable"]), (&json!("error"), &json!(false)));
    assert_eq!(data["error"]["code"], "COMMAND_UNSUPPORTED");
    assert!(!format!("{steps:?}").contains("in-the-clear") && !packet.contains("summariser"));
    // Those that waited are answered, too, each by a message of its own.
    let waiting = json!({"data": {"pendingCommands": [command.clone(), command]}});
    let said: Vec<_> = world
        .hear_event("register.ack", waiting)
        .into_iter()
        .filter_map(|step| match step {
            Step::Say(packet) => Some(packet),
            _ => None,
        })
        .collect();
    assert_eq!(said.len(), 2);
    assert_ne!(said[0], said[1]);
}

#[test]
fn an_event_that_asks_for_an_answer_gets_one_and_an_unknown_one_changes_nothing() {
    let mut world = World::online();
    assert_eq!(world.hear(r#"42/ws/node,["of.the.future",{}]"#), []);
    assert_eq!(world.hear(r#"42/ws/node,7["of.the.future"]"#), [Step::Say("43/ws/node,7[]".into())]);
    assert_eq!(world.hear("6"), []);
}

#[test]
fn without_a_ping_the_connection_is_lost_after_what_the_server_announced() {
    let mut world = World::joined();
    assert_eq!(world.conversation.deadline(), world.began + Duration::from_secs(45));
    world.seconds = 25;
    world.hear("2");
    world.hear_event("of.the.future", json!(null));
    assert_eq!(world.conversation.deadline(), world.began + Duration::from_secs(70));
    assert_eq!(world.conversation.silent().code(), Some(ErrorCode::ControllerUnreachable));
    for (interval, seconds) in [(0_u64, 2), (u64::MAX, 300), (5000, 6)] {
        let mut world = World::begin(false);
        let open = json!({"sid": "x", "pingInterval": interval, "pingTimeout": 1000});
        world.hear(&format!("0{open}"));
        assert_eq!(world.conversation.deadline(), world.began + Duration::from_secs(seconds));
    }
}

#[test]
fn what_is_no_packet_ends_the_session() {
    for text in ["", "x", "b4AQID", r#"451-["x"]"#, "42/ws/node,{}", "4"] {
        let setback = ended(World::joined().hear(text));
        assert_eq!(setback.code(), Some(ErrorCode::ControllerInvalid), "{text}");
    }
}

proptest! {
    #[test]
    fn no_frame_panics_and_no_secret_is_in_what_is_told(
        heads in prop::collection::vec(
            prop::sample::select(vec!["0", "2", "40", "41", "42", "44", "42/ws/node,", "40/ws/node,"]), 1..6),
        name in prop::sample::select(vec!["connection.ack", "register.ack", "error", "exception", "agent.start", "x"]),
        payload in "[\\[\\]{}\":,a-z0-9]{0,60}",
    ) {
        let mut world = World::online();
        for head in heads {
            for text in [format!("{head}{payload}"), format!("{head}[\"{name}\",{payload}]")] {
                let steps = world.hear(&text);
                let shown = format!("{steps:?}");
                prop_assert!(!shown.contains("a.b.c"), "{}", shown);
            }
        }
        let shown = format!("{:?}", world.conversation);
        prop_assert!(!shown.contains("a.b.c"), "{}", shown);
    }
}
