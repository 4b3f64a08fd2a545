//! The WebSocket between worker and controller: one JSON object `{type, messageId, timestamp,
//! data}` per text frame. Unknown fields are ignored and unknown types are told apart from
//! malformed frames, so that both ends can grow.

pub mod close;
mod controller;
mod fitting;
mod worker;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::time::Timestamp;

pub use controller::{
    ConnectionAck, ControllerMessage, ErrorMessage, NodeDrain, NodeUpdate, PendingCommand, RegisterAck,
    StateRequest, TokenOffer, UpdateCancel, UpdatePermit, Urgency,
};
pub use worker::{
    CommandAck, CommandResult, CommandStatus, DisconnectReason, Disconnecting, Heartbeat, InstallationFailed,
    InstallationProgress, InstallationStarted, MAX_CONTAINERS, Metrics, Pulse, Register, WorkerMessage,
    WorkerState,
};

/// The WebSocket subprotocol.
pub const SUBPROTOCOL: &str = "aio.node.v1";

/// The path of the node gateway.
pub const GATEWAY_PATH: &str = "/ws/node";

/// The largest frame that either end accepts, in bytes.
pub const MAX_FRAME_BYTES: usize = 64 * 1024;

/// The numeric code in the `error` message that answers an unknown type.
pub const UNKNOWN_TYPE_ERROR: u32 = 2001;

/// The data of one type of message.
pub trait Body: Serialize + DeserializeOwned {
    /// The `type` on the wire.
    const TYPE: &'static str;
}

/// A message with what every frame carries.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame<M> {
    /// Its id, which answers refer to.
    pub message_id: Uuid,
    /// When it was written, by the writer's clock.
    pub timestamp: Timestamp,
    /// What it says.
    pub message: M,
}

/// Why a text is no message.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The frame is in order and of a type that this end does not know.
    #[error("unknown message type `{kind}`")]
    UnknownType {
        /// The type.
        kind: String,
        /// The frame's id, for the answer.
        message_id: Uuid,
    },
    /// The frame is not JSON, or not of the form of its type.
    #[error("malformed message")]
    Malformed(#[from] serde_json::Error),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    message_id: Uuid,
    timestamp: Option<Timestamp>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

impl Envelope<'_> {
    /// Reads the data. The older generation wrote no `data`: there the fields stand at the top
    /// level of `text`.
    fn data<B: Body>(&self, text: &str) -> Result<B, serde_json::Error> {
        serde_json::from_str(self.data.map_or(text, RawValue::get))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Outgoing<'a, B> {
    #[serde(rename = "type")]
    kind: &'static str,
    message_id: Uuid,
    timestamp: Timestamp,
    data: &'a B,
}

/// Writes one message as the text of a frame.
pub fn encode<B: Body>(
    body: &B,
    message_id: Uuid,
    timestamp: Timestamp,
) -> Result<String, serde_json::Error> {
    serde_json::to_string(&Outgoing { kind: B::TYPE, message_id, timestamp, data: body })
}

/// Declares the messages of one direction: the enum, how a frame is read into it and how it is written.
macro_rules! messages {
    ($(#[$doc:meta])* $name:ident { $($(#[doc = $about:literal])+ $variant:ident($body:ty) = $kind:literal $(| $alias:literal)*,)* }) => {
        $(impl $crate::wire::Body for $body {
            const TYPE: &'static str = $kind;
        })*

        $(#[$doc])*
        #[allow(clippy::large_enum_variant, reason = "a message lives for one step and is never kept in numbers")]
        #[derive(Debug, Clone, PartialEq)]
        pub enum $name {
            $($(#[doc = $about])+ $variant($body),)*
        }

        impl $name {
            /// Every type on the wire, aliases left out.
            pub const TYPES: &'static [&'static str] = &[$($kind,)*];

            /// What each type is about and what its data is, for a document of the interface.
            #[cfg(feature = "openapi")]
            pub fn described() -> Vec<$crate::schema::Described> {
                vec![$($crate::schema::Described::of::<$body>($kind, concat!($($about),+)),)*]
            }

            /// The `type` on the wire.
            pub fn kind(&self) -> &'static str {
                match self { $(Self::$variant(_) => $kind,)* }
            }

            /// Reads the text of a frame.
            pub fn decode(text: &str) -> Result<$crate::wire::Frame<Self>, $crate::wire::Unreadable> {
                let envelope: $crate::wire::Envelope<'_> = serde_json::from_str(text)?;
                let message = match envelope.kind.as_str() {
                    $($kind $(| $alias)* => Self::$variant(envelope.data(text)?),)*
                    _ => {
                        return Err($crate::wire::Unreadable::UnknownType {
                            kind: envelope.kind,
                            message_id: envelope.message_id,
                        });
                    }
                };
                let timestamp = envelope.timestamp.unwrap_or($crate::time::Timestamp::from_millis(0));
                Ok($crate::wire::Frame { message_id: envelope.message_id, timestamp, message })
            }

            /// Reads a message that stands in another one, such as a command that waited for its worker.
            pub fn of(kind: &str, data: serde_json::Value) -> Option<Self> {
                match kind {
                    $($kind $(| $alias)* => serde_json::from_value(data).ok().map(Self::$variant),)*
                    _ => None,
                }
            }

            /// Writes the text of a frame.
            pub fn encode(
                &self,
                message_id: uuid::Uuid,
                timestamp: $crate::time::Timestamp,
            ) -> Result<String, serde_json::Error> {
                match self { $(Self::$variant(body) => $crate::wire::encode(body, message_id, timestamp),)* }
            }
        }
    };
}
use messages;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_unknown_type_is_told_apart_from_a_malformed_frame() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        let text = format!(
            r#"{{"type":"node.dance","messageId":"{id}","timestamp":"2025-12-11T12:00:00.000Z","data":{{}}}}"#
        );
        match WorkerMessage::decode(&text) {
            Err(Unreadable::UnknownType { kind, message_id }) => {
                assert_eq!((kind.as_str(), message_id.to_string().as_str()), ("node.dance", id));
            }
            other => panic!("{other:?}"),
        }
        for text in ["", "{}", "[]", "\u{0}", r#"{"type":"telemetry.heartbeat","data":{}}"#, r#"{"type":7}"#]
        {
            assert!(matches!(WorkerMessage::decode(text), Err(Unreadable::Malformed(_))), "{text}");
        }
    }

    #[test]
    fn a_pulse_is_the_heartbeat_in_short_and_nothing_else_is_one() {
        for name in ["telemetry.heartbeat.json", "telemetry.heartbeat-driver-silent.json"] {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/worker").join(name);
            let text = std::fs::read_to_string(path).unwrap();
            let WorkerMessage::Heartbeat(whole) = WorkerMessage::decode(&text).unwrap().message else {
                panic!("{text}")
            };
            let pulse = Pulse::read(&text).unwrap();
            assert_eq!((pulse.node_id, pulse.seq), (whole.node_id.as_str(), whole.seq));
        }
        for text in [
            "",
            "{}",
            r#"{"type":"telemetry.metrics","data":{"nodeId":"69396100cd71623c7bbfbfee","seq":1}}"#,
            r#"{"type":"telemetry.heartbeat","data":{"nodeId":"69396100cd71623c7bbfbfee"}}"#,
            r#"{"type":"telemetry.heartbeat","data":{"nodeId":"69396100cd71623c7bbfbfee","seq":-1}}"#,
            r#"{"type":"telemetry.heartbeat","data":{"nodeId":"69396100cd71623c7bbfbfee","seq":1e3}}"#,
            r#"{"type":"telemetry.heartbeat","data":{"nodeId":"69396100cd71623c7bbfbfee","seq":1}} {}"#,
        ] {
            assert_eq!(Pulse::read(text), None, "{text}");
        }
    }

    #[test]
    fn an_inventory_in_another_form_keeps_nobody_from_registering() {
        let text = r#"{"type":"node.register","data":{"nodeId":"69396100cd71623c7bbfbfee",
            "instanceId":"01890a5d-ac96-774b-bcce-b302099a8057","bootId":"b","daemonVersion":"2.0.0",
            "systemInfo":{"os":"linux","hardware":{"disk":{"total":1},"memory":{"total":7},
            "gpu":[{"model":"NVIDIA A100","memoryTotal":8,"cores":108}]},"containerRuntime":"docker"}}}"#;
        let WorkerMessage::Register(register) = WorkerMessage::decode(text).unwrap().message else {
            panic!("{text}")
        };
        let hardware = register.system_info.hardware;
        assert_eq!((hardware.memory.total, hardware.disk.len()), (7, 0));
        assert_eq!(hardware.gpu_devices()[0].memory_total, Some(8));
        assert_eq!(hardware.gpu_driver.state, crate::inventory::GpuDriverState::Unknown);
    }

    #[test]
    fn what_a_worker_says_is_cleaned_and_cut_where_it_is_read() {
        let long = "x".repeat(3000);
        let gpus = vec![
            serde_json::json!({"model": long, "deviceId": "0", "mig": {"instances": [{"uuid": long}]}});
            70
        ];
        let text = serde_json::json!({"type": "node.register", "data": {"nodeId": "69396100cd71623c7bbfbfee",
            "instanceId": Uuid::nil(), "bootId": long, "daemonVersion": "1.0.0\nroot\u{202e}",
            "capabilities": vec![&long; 100],
            "systemInfo": {"os": {"hostname": "h".repeat(62_000), "name": "Debian\u{200b}"}, "architecture": long,
                "hardware": {"gpu": gpus, "disk": [{"mountPoint": long, "fileSystem": "ext4", "total": 1, "available": 1}, 7],
                    "network": vec![serde_json::json!({"name": "e", "macAddress": "m", "addresses": vec![&long; 50]}); 100]}}}})
        .to_string();
        let WorkerMessage::Register(register) = WorkerMessage::decode(&text).unwrap().message else {
            panic!("no register")
        };
        assert_eq!((register.boot_id.len(), register.daemon_version.as_str()), (64, "1.0.0 root"));
        assert_eq!((register.capabilities.len(), register.capabilities[0].len()), (64, 64));
        let info = register.system_info;
        assert_eq!(
            (info.os.hostname.len(), info.os.name.as_str(), info.architecture.len()),
            (255, "Debian", 32)
        );
        let hardware = info.hardware;
        assert_eq!((hardware.gpu.len(), hardware.network.len(), hardware.disk.len()), (64, 64, 1));
        assert_eq!(hardware.gpu[0].model.len(), 128);
        assert_eq!(hardware.gpu[0].mig.as_ref().unwrap().instances[0].uuid.len(), 96);
        assert_eq!((hardware.disk[0].mount_point.len(), hardware.network[0].addresses.len()), (255, 32));
        let ill = r#"{"state": "unhealthy", "worst": "GPU 3\u202e\nlost"}"#;
        let pulse = format!(
            r#"{{"type":"telemetry.heartbeat","data":{{"nodeId":"69396100cd71623c7bbfbfee","seq":1,"health":{ill}}}}}"#
        );
        assert_eq!(Pulse::read(&pulse).unwrap().health.worst.as_deref(), Some("GPU 3 lost"));
    }

    #[test]
    fn an_acknowledgement_of_either_generation_is_understood() {
        for kind in ["connection_ack", "connection.ack", "CONNECTION_ACK"] {
            let text = format!(
                r#"{{"type":"{kind}","status":"success","nodeId":"69396100cd71623c7bbfbfee","controllerId":"main"}}"#
            );
            assert!(
                matches!(
                    ControllerMessage::decode(&text).unwrap().message,
                    ControllerMessage::ConnectionAck(_)
                ),
                "{kind}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,300}") {
            let _ = WorkerMessage::decode(&text);
            let _ = ControllerMessage::decode(&text);
        }

        #[test]
        fn no_json_of_a_known_type_panics(kind in prop::sample::select(WorkerMessage::TYPES), data in "[\\[\\]{}\":,a-z0-9]{0,80}") {
            let _ = WorkerMessage::decode(&format!(r#"{{"type":"{kind}","data":{data}}}"#));
        }
    }
}
