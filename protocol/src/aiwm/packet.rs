//! Engine.IO 4 and Socket.IO 5 as text frames: one packet per WebSocket message. Reads and writes
//! packets; decides neither when they are said nor what they mean. What is binary is refused: AIWM
//! sends none, and nothing here could read it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The longest name of a namespace or an event that is read.
const MAX_NAME_BYTES: usize = 255;

/// What is no packet of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The first character names no type.
    #[error("no packet begins like this")]
    Type,
    /// A binary packet.
    #[error("a binary packet")]
    Binary,
    /// A namespace without an end, or too long.
    #[error("a namespace that is none")]
    Namespace,
    /// An acknowledgement's number that is none.
    #[error("an acknowledgement's number that is none")]
    Id,
    /// A payload that is not the JSON which its type has.
    #[error("a payload that is not of its type's form")]
    Payload,
}

/// An Engine.IO packet.
#[derive(Debug, Clone, PartialEq)]
pub enum Packet<'a> {
    /// First of the server: how the connection is kept.
    Open(Opening),
    /// The other end closes.
    Close,
    /// Asks for a [`Packet::Pong`] with the same text.
    Ping(Cow<'a, str>),
    /// The answer.
    Pong(Cow<'a, str>),
    /// The transport is another now.
    Upgrade,
    /// Nothing.
    Noop,
    /// A Socket.IO packet.
    Message(Message<'a>),
}

/// How a server keeps a connection. Times are milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Opening {
    /// The connection's id.
    pub sid: String,
    /// Transports to change to.
    #[serde(default)]
    pub upgrades: Vec<String>,
    /// From one ping of the server to the next.
    pub ping_interval: u64,
    /// For so long the server waits for a pong.
    pub ping_timeout: u64,
    /// The largest message that the server takes, in bytes.
    #[serde(default = "default_max_payload")]
    pub max_payload: u64,
}

fn default_max_payload() -> u64 {
    super::MAX_MESSAGE_BYTES as u64
}

/// A Socket.IO packet.
#[derive(Debug, Clone, PartialEq)]
pub struct Message<'a> {
    /// Where it belongs; `/` is the main one.
    pub namespace: Cow<'a, str>,
    /// What it says.
    pub body: Body<'a>,
}

/// What a Socket.IO packet says. Payloads are JSON texts.
#[derive(Debug, Clone, PartialEq)]
pub enum Body<'a> {
    /// Joins a namespace, or confirms that.
    Connect(Option<Cow<'a, str>>),
    /// Leaves it, or sends the other end away.
    Disconnect,
    /// An event with its name and what follows the name in the list; a number asks for an answer.
    Event {
        /// Asks for an acknowledgement of this number.
        id: Option<u64>,
        /// The name.
        name: Cow<'a, str>,
        /// The first argument, and the only one that AIWM's events have.
        argument: Option<Cow<'a, str>>,
    },
    /// The answer to the event of this number: a list.
    Ack(u64, Cow<'a, str>),
    /// The join is refused.
    ConnectError(Option<Cow<'a, str>>),
}

impl<'a> Packet<'a> {
    /// An event with one argument, in a namespace.
    pub fn event(namespace: &'a str, name: &'a str, argument: String) -> Self {
        let body = Body::Event { id: None, name: Cow::Borrowed(name), argument: Some(Cow::Owned(argument)) };
        Self::of(namespace, body)
    }

    /// A Socket.IO packet in a namespace.
    pub fn of(namespace: &'a str, body: Body<'a>) -> Self {
        Self::Message(Message { namespace: Cow::Borrowed(namespace), body })
    }

    /// Reads the text of a frame.
    pub fn decode(text: &'a str) -> Result<Self, Malformed> {
        let (kind, rest) = text.split_at_checked(1).ok_or(Malformed::Type)?;
        match kind {
            "0" => serde_json::from_str(rest).map(Self::Open).map_err(|_| Malformed::Payload),
            "1" => Ok(Self::Close),
            "2" => Ok(Self::Ping(Cow::Borrowed(rest))),
            "3" => Ok(Self::Pong(Cow::Borrowed(rest))),
            "4" => Message::decode(rest).map(Self::Message),
            "5" => Ok(Self::Upgrade),
            "6" => Ok(Self::Noop),
            "b" => Err(Malformed::Binary),
            _ => Err(Malformed::Type),
        }
    }

    /// Writes the text of a frame.
    pub fn encode(&self) -> String {
        match self {
            Self::Open(opening) => {
                format!("0{}", serde_json::to_string(opening).unwrap_or_default())
            }
            Self::Close => "1".to_owned(),
            Self::Ping(text) => format!("2{text}"),
            Self::Pong(text) => format!("3{text}"),
            Self::Message(message) => format!("4{}", message.encode()),
            Self::Upgrade => "5".to_owned(),
            Self::Noop => "6".to_owned(),
        }
    }
}

impl<'a> Message<'a> {
    fn decode(text: &'a str) -> Result<Self, Malformed> {
        let (kind, rest) = text.split_at_checked(1).ok_or(Malformed::Type)?;
        if matches!(kind, "5" | "6") {
            return Err(Malformed::Binary);
        }
        let (namespace, rest) = namespace(rest)?;
        let (id, payload) = acknowledgement(rest)?;
        let body = match (kind, id) {
            ("0", None) => Body::Connect(object(payload)?),
            ("1", None) => Body::Disconnect,
            ("2", id) => {
                let (name, argument) = event(payload)?;
                Body::Event { id, name, argument }
            }
            ("3", Some(id)) => {
                let list: &RawValue = serde_json::from_str(payload).map_err(|_| Malformed::Payload)?;
                if !list.get().starts_with('[') {
                    return Err(Malformed::Payload);
                }
                Body::Ack(id, Cow::Borrowed(list.get()))
            }
            ("4", None) => Body::ConnectError(object(payload)?),
            ("0" | "1" | "3" | "4", _) => return Err(Malformed::Id),
            _ => return Err(Malformed::Type),
        };
        Ok(Self { namespace, body })
    }

    fn encode(&self) -> String {
        let namespace = match &*self.namespace {
            "/" => String::new(),
            other => format!("{other},"),
        };
        match &self.body {
            Body::Connect(payload) => format!("0{namespace}{}", payload.as_deref().unwrap_or_default()),
            Body::Disconnect => format!("1{namespace}"),
            Body::Event { id, name, argument } => {
                let id = id.map(|id| id.to_string()).unwrap_or_default();
                let name = serde_json::Value::from(&**name);
                match argument {
                    Some(argument) => format!("2{namespace}{id}[{name},{argument}]"),
                    None => format!("2{namespace}{id}[{name}]"),
                }
            }
            Body::Ack(id, list) => format!("3{namespace}{id}{list}"),
            Body::ConnectError(payload) => {
                format!("4{namespace}{}", payload.as_deref().unwrap_or_default())
            }
        }
    }
}

/// The namespace, and what follows it. One that ends with the packet needs no comma.
fn namespace(text: &str) -> Result<(Cow<'_, str>, &str), Malformed> {
    if !text.starts_with('/') {
        return Ok((Cow::Borrowed("/"), text));
    }
    let (namespace, rest) = text.split_once(',').unwrap_or((text, ""));
    // A query is no part of the name.
    let namespace = namespace.split('?').next().unwrap_or(namespace);
    if namespace.len() > MAX_NAME_BYTES {
        return Err(Malformed::Namespace);
    }
    Ok((Cow::Borrowed(namespace), rest))
}

/// The number of an acknowledgement, and what follows it.
fn acknowledgement(text: &str) -> Result<(Option<u64>, &str), Malformed> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    if number.is_empty() {
        return Ok((None, rest));
    }
    number.parse().map(|id| (Some(id), rest)).map_err(|_| Malformed::Id)
}

/// An object, or nothing.
fn object(payload: &str) -> Result<Option<Cow<'_, str>>, Malformed> {
    if payload.is_empty() {
        return Ok(None);
    }
    let object: &RawValue = serde_json::from_str(payload).map_err(|_| Malformed::Payload)?;
    if object.get().starts_with('{') {
        Ok(Some(Cow::Borrowed(object.get())))
    } else {
        Err(Malformed::Payload)
    }
}

type Event<'a> = (Cow<'a, str>, Option<Cow<'a, str>>);

fn event(payload: &str) -> Result<Event<'_>, Malformed> {
    let list: Vec<&RawValue> = serde_json::from_str(payload).map_err(|_| Malformed::Payload)?;
    let mut items = list.into_iter();
    let name = items.next().ok_or(Malformed::Payload)?;
    let name: String = serde_json::from_str(name.get()).map_err(|_| Malformed::Payload)?;
    if name.len() > MAX_NAME_BYTES {
        return Err(Malformed::Payload);
    }
    Ok((Cow::Owned(name), items.next().map(|argument| Cow::Borrowed(argument.get()))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Packet<'_> {
        Packet::decode(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// The exchange that the contract shows, line by line.
    #[test]
    fn every_line_of_a_session_is_read_and_written_as_it_stands() {
        for text in [
            r#"0{"sid":"0123456789abcdefghij","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#,
            r#"40/ws/node,{"token":"a.b.c"}"#,
            r#"40/ws/node,{"sid":"0123456789abcdefghij"}"#,
            r#"42/ws/node,["connection.ack",{"type":"connection.ack","status":"success"}]"#,
            r#"42/ws/node,17["node.register",{"data":{}}]"#,
            r#"42["main"]"#,
            "43/ws/node,17[]",
            "2",
            "3",
            "2probe",
            "41/ws/node,",
            "41",
            r#"44/ws/node,{"message":"TOKEN_EXPIRED"}"#,
            "1",
            "5",
            "6",
        ] {
            assert_eq!(read(text).encode(), text);
        }
    }

    #[test]
    fn a_namespace_ends_at_a_comma_a_query_or_the_packet() {
        for (text, namespace) in [
            (r#"44/ws/node/,{"message":"Invalid namespace"}"#, "/ws/node/"),
            ("41/ws/node", "/ws/node"),
            (r#"40/ws/node?token=x,{}"#, "/ws/node"),
            ("40", "/"),
        ] {
            let Packet::Message(message) = read(text) else { panic!("{text}") };
            assert_eq!(message.namespace, namespace, "{text}");
        }
    }

    #[test]
    fn what_is_no_packet_is_told_apart() {
        use Malformed::{Binary, Id, Namespace, Payload, Type};
        for (text, error) in [
            ("", Type),
            ("7", Type),
            ("é", Type),
            ("4", Type),
            ("47", Type),
            ("b4AQID", Binary),
            (r#"451-["x",{"_placeholder":true,"num":0}]"#, Binary),
            ("461-/a,1[]", Binary),
            ("0", Payload),
            (r#"0{"sid":"x"}"#, Payload),
            ("42", Payload),
            ("42[]", Payload),
            ("42[7]", Payload),
            (r#"42/ws/node,["x""#, Payload),
            (r#"42["x"]]"#, Payload),
            (r#"40"x""#, Payload),
            ("43[]", Id),
            ("43/a,1{}", Payload),
            ("411", Id),
            (r#"42/ws/node,99999999999999999999["x"]"#, Id),
        ] {
            assert_eq!(Packet::decode(text), Err(error), "{text}");
        }
        let long = format!("40/{},", "x".repeat(300));
        assert_eq!(Packet::decode(&long), Err(Namespace));
    }

    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(serde_json::Value::from),
            "\\PC{0,20}".prop_map(serde_json::Value::from),
            Just(serde_json::Value::Null),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(serde_json::Value::from),
                prop::collection::btree_map("\\PC{0,8}", inner, 0..3)
                    .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
            ]
        })
        .prop_map(|value| value.to_string())
    }

    fn packet() -> impl Strategy<Value = Packet<'static>> {
        let body = prop_oneof![
            prop::option::of(Just("{\"sid\":\"x\"}")).prop_map(|it| Body::Connect(it.map(Cow::from))),
            Just(Body::Disconnect),
            (prop::option::of(any::<u64>()), "\\PC{0,40}", prop::option::of(json())).prop_map(
                |(id, name, argument)| Body::Event {
                    id,
                    name: name.into(),
                    argument: argument.map(Cow::from)
                }
            ),
            (any::<u64>(), prop::collection::vec(json(), 0..3))
                .prop_map(|(id, list)| Body::Ack(id, format!("[{}]", list.join(",")).into())),
            Just(Body::ConnectError(Some("{\"message\":\"no\"}".into()))),
        ];
        let message = (prop::sample::select(vec!["/", "/ws/node", "/notifications"]), body)
            .prop_map(|(namespace, body)| Packet::of(namespace, body));
        prop_oneof![
            8 => message,
            1 => "\\PC{0,10}".prop_map(|text| Packet::Ping(text.into())),
            1 => "\\PC{0,10}".prop_map(|text| Packet::Pong(text.into())),
            1 => prop::sample::select(vec![Packet::Close, Packet::Upgrade, Packet::Noop]),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(packet in packet()) {
            let text = packet.encode();
            prop_assert_eq!(Packet::decode(&text), Ok(packet), "{}", text);
        }

        #[test]
        fn no_text_panics_and_what_is_read_is_written_as_it_means(text in ".{0,120}") {
            if let Ok(packet) = Packet::decode(&text) {
                let written = packet.encode();
                prop_assert_eq!(Packet::decode(&written), Ok(packet), "{}", written);
            }
        }

        #[test]
        fn no_near_packet_panics(head in "[0-9b]{1,3}", rest in "(/[a-z/,?]{0,8})?,?[0-9]{0,22}[\\[\\]{}\":,a-z0-9]{0,40}") {
            let text = head + &rest;
            if let Ok(packet) = Packet::decode(&text) {
                let written = packet.encode();
                prop_assert_eq!(Packet::decode(&written), Ok(packet));
            }
        }
    }
}
