//! What reads the inputs of others: each target takes bytes, says whether they were good, and holds what must
//! hold of good ones.

use std::{fs, path::Path};

use aio_protocol::{
    aiwm::{
        command::Command,
        controller::{ConnectionAck, RegisterAck},
        credentials::Credentials,
        packet::Packet,
        rest::Hidden,
        setup::{NodeTokenClaims, SetupClaims},
    },
    claims::NodeClaims,
    dashboard::DashboardRequest,
    event::NodeEvent,
    ids::NodeId,
    installation::{InstallationPlan, InstallationReport},
    time::Timestamp,
    wire::{ControllerMessage, WorkerMessage},
};
use secrecy::SecretString;
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::{
    aiwm::register,
    api::inputs::{BODIES, Input, QUERIES},
    config::Config,
    noti::signature::{Headers, WebhookKeys},
    tokens::{
        self, Tokens,
        keys::{KeyError, TokenKeys},
    },
};

/// Says whether its input was good.
type Read = Box<dyn FnMut(&[u8]) -> bool>;

pub(super) struct Target {
    pub name: &'static str,
    pub seeds: Vec<Vec<u8>>,
    pub read: Read,
}

pub(super) fn all() -> Vec<Target> {
    [
        target("worker", fixtures("worker"), as_text(worker)),
        target("controller", fixtures("controller"), as_text(controller)),
        target("event", fixtures("events"), Box::new(event)),
        target("installation", fixtures("installation"), Box::new(installation)),
        target(
            "dashboard",
            fixtures("dashboard"),
            as_text(|text| read_again::<DashboardRequest>(text.as_bytes())),
        ),
        webhook(),
        token(),
        target("packet", packets(), as_text(packet)),
        target("aiwm_worker", fixtures("aiwm/worker"), Box::new(aiwm_worker)),
        target("aiwm", fixtures("aiwm/controller"), Box::new(aiwm)),
        target("aiwm_setup", setups(), as_text(aiwm_setup)),
    ]
    .into_iter()
    .chain(BODIES.into_iter().chain(QUERIES).map(|Input { name, seeds, read }| {
        target(name, words(seeds), Box::new(move |bytes| read(bytes).is_ok()))
    }))
    .collect()
}

fn target(name: &'static str, seeds: Vec<Vec<u8>>, read: Read) -> Target {
    assert!(!seeds.is_empty(), "{name} has no seeds");
    Target { name, seeds, read }
}

fn fixtures(folder: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/fixtures").join(folder);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |path| serde_json::from_slice::<serde_json::Value>(&fs::read(path).unwrap()).unwrap();
    // As they stand on the wire: without the spaces that are there for people.
    files.into_iter().map(|path| read(path).to_string().into_bytes()).collect()
}

fn words(lines: &[&str]) -> Vec<Vec<u8>> {
    lines.iter().map(|line| line.as_bytes().to_vec()).collect()
}

/// Frames and addresses are text before anything reads them.
fn as_text(mut read: impl FnMut(&str) -> bool + 'static) -> Read {
    Box::new(move |bytes| read(&String::from_utf8_lossy(bytes)))
}

fn worker(text: &str) -> bool {
    let Ok(frame) = WorkerMessage::decode(text) else { return false };
    let written = frame.message.encode(frame.message_id, frame.timestamp).unwrap();
    assert_eq!(WorkerMessage::decode(&written).unwrap().message.kind(), frame.message.kind());
    true
}

fn controller(text: &str) -> bool {
    let Ok(frame) = ControllerMessage::decode(text) else { return false };
    let written = frame.message.encode(Uuid::nil(), Timestamp::from_millis(0)).unwrap();
    assert_eq!(ControllerMessage::decode(&written).unwrap().message.kind(), frame.message.kind());
    true
}

fn event(bytes: &[u8]) -> bool {
    let Ok(event) = serde_json::from_slice::<NodeEvent>(bytes) else { return false };
    let written = serde_json::to_vec(&event).unwrap();
    assert_eq!(serde_json::from_slice::<NodeEvent>(&written).unwrap().kind(), event.kind());
    true
}

fn installation(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    read_again::<InstallationReport>(text.as_bytes()) | read_again::<InstallationPlan>(text.as_bytes())
}

/// What can be read can be written and read again.
fn read_again<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else { return false };
    let written = serde_json::to_vec(&value).unwrap();
    serde_json::from_slice::<T>(&written).unwrap();
    true
}

/// AIWM's messages as Socket.IO carries them, and the packets around them.
fn packets() -> Vec<Vec<u8>> {
    let around = words(&[
        r#"0{"sid":"abcdefghijklmnopqrst","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#,
        r#"40/ws/node,{"token":"a.b.c"}"#,
        r#"44/ws/node,{"message":"TOKEN_INVALID"}"#,
        "41/ws/node,",
        "2probe",
        "3",
    ]);
    let said = ["aiwm/worker", "aiwm/controller"].into_iter().flat_map(fixtures);
    let said = said.map(|message| [br#"42/ws/node,7["node.register","#, message.as_slice(), b"]"].concat());
    around.into_iter().chain(said).collect()
}

fn packet(text: &str) -> bool {
    let Ok(packet) = Packet::decode(text) else { return false };
    let written = packet.encode();
    assert_eq!(Packet::decode(&written).unwrap(), packet, "{text}");
    true
}

/// What the double reads of a worker: kept as it came, or refused.
fn aiwm_worker(bytes: &[u8]) -> bool {
    let Ok(envelope) = serde_json::from_slice::<serde_json::Value>(bytes) else { return false };
    envelope
        .get("data")
        .and_then(serde_json::Value::as_object)
        .is_some_and(|data| register::read(data).is_ok())
}

/// What a worker reads of AIWM.
fn aiwm(bytes: &[u8]) -> bool {
    read_again::<ConnectionAck>(bytes) & (read_again::<RegisterAck>(bytes) | read_again::<Command>(bytes))
}

/// What an installation reads: a setup token, and the document that it keeps.
fn aiwm_setup(text: &str) -> bool {
    if let Ok(credentials) = Credentials::read(text) {
        assert_eq!(Credentials::read(&credentials.write()).unwrap(), credentials);
        return true;
    }
    let _ = (SetupClaims::are_in(text), NodeTokenClaims::read_unverified(text));
    let Ok(claims) = SetupClaims::read_unverified(text) else { return false };
    Credentials::bootstrapped(&claims, Hidden("a secret".into())).is_ok()
}

fn setups() -> Vec<Vec<u8>> {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
    let claims = fixtures("aiwm/tokens").into_iter();
    let tokens = claims.map(|claims| format!("e30.{}.c2ln", BASE64.encode(claims)).into_bytes());
    let kept = fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/fixtures/aiwm/rest/credentials.json"),
    );
    tokens.chain([kept.unwrap()]).collect()
}

/// Three headers and a body, with line feeds between them.
fn webhook() -> Target {
    const SENT: i64 = 1_765_454_400;
    let key = WebhookKeys::new(&SecretString::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).unwrap();
    let seeds = fixtures("events").into_iter().enumerate().map(|(number, body)| {
        let id = format!("evt_{number}");
        let signature = key.sign(&id, SENT, &body);
        [format!("{id}\n{SENT}\nv1,AAAA {signature}\n").into_bytes(), body].concat()
    });
    let seeds = seeds.collect();
    let read = move |bytes: &[u8]| {
        let mut parts = bytes.splitn(4, |byte| *byte == b'\n');
        let mut header = || parts.next().and_then(|part| str::from_utf8(part).ok());
        let headers = Headers { id: header(), timestamp: header(), signature: header() };
        let body = parts.next().unwrap_or_default();
        let Ok(id) = key.verify(headers, body, Timestamp::from_millis(SENT * 1000)) else { return false };
        // Whatever else was changed: what passes is signed, as it is, by our key.
        let timestamp = headers.timestamp.unwrap().parse().unwrap();
        let genuine = key.sign(id, timestamp, body);
        assert!(headers.signature.unwrap().split(' ').any(|it| it == genuine), "{headers:?}");
        true
    };
    target("webhook", seeds, Box::new(read))
}

fn token() -> Target {
    let mut config = Config::new("nowhere");
    config.jwt_secret = Some(SecretString::from("a secret of more than 32 bytes, at least"));
    let keys = TokenKeys::load::<KeyError>(&config, || unreachable!("the secret is given")).unwrap();
    let tokens = Tokens::new(keys);
    let now = crate::clock::now();
    let claims = tokens::node_claims(
        &NodeId::from_bytes([7; 12]),
        "http://a",
        "ws://a/ws/node",
        None,
        None,
        now,
        86_400,
    );
    let node = tokens.sign_node(&claims).unwrap();
    let user =
        tokens.sign_user("u".parse().unwrap(), "o".parse().unwrap(), vec!["r".into()], now, 86_400).unwrap();
    let genuine = [node, user];
    let seeds = words(&[&genuine[0], &genuine[1]]);
    let read = move |text: &str| {
        let _ = NodeClaims::read_unverified(text);
        let passes = tokens.verify(text).is_ok();
        assert!(!passes || genuine.iter().any(|it| it == text), "{text}");
        passes
    };
    target("token", seeds, as_text(read))
}
