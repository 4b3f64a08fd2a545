//! Installing with a setup token of AIWM: the secret that is given once is never lost, whatever ends
//! the process, and what is installed is what an operator named, or the running program.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::{Arc, Mutex},
};

use aio_host::token::NodeToken;
use aio_installer::{
    Checkpoint, Failure, Goal, Point, Uneventful,
    bootstrap::{BOOTSTRAP, Way, bootstrap, is_setup_token, set_secret},
    install::OutcomeKind,
    uninstall::{Removal, uninstall},
};
use aio_protocol::error_code::ErrorCode;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    bad_input::fails,
    crash::{At, Mishap},
    server::program,
    world::{NODE, World},
};

const SECRET: &str = "7d1b0f52-0c64-4f9b-9a35-5d8e1c2b3a49";

/// What AIWM does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    /// As always: once.
    Usual,
    /// It gives the secret and its answer is cut off.
    CutAnswer,
    /// It takes no secret.
    Refusing,
    Failing,
}

/// AIWM's part: the setup token works once.
struct Aiwm {
    base: String,
    state: Arc<Mutex<(Mood, usize)>>,
}

impl Aiwm {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new((Mood::Usual, 0)));
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => break,
                    }
                }
                let head = String::from_utf8(head).unwrap().to_lowercase();
                let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
                let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
                stream.read_exact(&mut body).await.unwrap();
                let (status, answer, cut) = answer(&head, &shared);
                let text = answer.to_string();
                let sent = if cut { &text[..text.len() / 2] } else { &text };
                let answer = format!(
                    "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{sent}",
                    text.len()
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Self { base, state }
    }

    fn is(&self, mood: Mood) {
        self.state.lock().unwrap().0 = mood;
    }

    fn bootstraps(&self) -> usize {
        self.state.lock().unwrap().1
    }

    fn setup_token(&self, changes: &Value) -> secrecy::SecretString {
        let Self { base, .. } = self;
        let mut claims = json!({"sub": NODE, "type": "node-setup", "nodeId": NODE, "apiBaseUrl": base,
            "bootstrapUrl": format!("{base}/nodes/auth/bootstrap"),
            "wsBaseUrl": format!("{}/ws/node", base.replace("http", "ws")), "wsPath": "/socket.io",
            "monaBaseUrl": base, "iat": 1, "exp": 4_000_000_000_i64});
        for (key, value) in changes.as_object().unwrap() {
            claims[key] = value.clone();
        }
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.{}", part("{}"), part(&claims.to_string()), part("s")).into()
    }
}

fn answer(head: &str, state: &Mutex<(Mood, usize)>) -> (u16, Value, bool) {
    let mut state = state.lock().unwrap();
    let refused = |status: u16| {
        (status, json!({"statusCode": status, "message": "no", "path": "/", "timestamp": "x"}), false)
    };
    if head.starts_with("post /nodes/auth/login") {
        return match state.0 {
            Mood::Refusing => refused(401),
            Mood::Failing => refused(503),
            _ => (200, json!({"accessToken": "a.b.c", "expiresIn": 3600, "node": {"_id": NODE}}), false),
        };
    }
    match state.0 {
        Mood::Failing => refused(500),
        _ if state.1 > 0 => refused(401),
        mood => {
            state.1 += 1;
            (200, json!({"nodeId": NODE, "secret": SECRET, "warning": "once"}), mood == Mood::CutAnswer)
        }
    }
}

async fn begin(world: &World, aiwm: &Aiwm, checkpoint: &dyn Checkpoint) -> Result<NodeToken, Failure> {
    let setup_token = aiwm.setup_token(&json!({}));
    bootstrap(&world.host.layout, &setup_token, &Way::default(), checkpoint).await
}

fn secret(token: &NodeToken) -> &str {
    &token.aiwm().unwrap().secret.0
}

/// A world whose request is what the command line makes of a setup token.
async fn prepared(aiwm: &Aiwm) -> World {
    let mut world = World::new().await;
    world.request.token = begin(&world, aiwm, &Uneventful).await.unwrap();
    let running = world.dir.path().join("run/the-program");
    fs::write(&running, program(b"the running worker")).unwrap();
    world.request.program = Some(running);
    world
}

#[tokio::test]
async fn a_setup_token_becomes_credentials_and_the_running_program_is_installed() {
    let aiwm = Aiwm::start().await;
    assert!(is_setup_token(&aiwm.setup_token(&json!({}))));
    let world = prepared(&aiwm).await;
    let outcome = world.install().await.unwrap();
    assert!(matches!(outcome.kind, OutcomeKind::Installed { .. }), "{outcome:?}");
    let layout = &world.host.layout;
    let installed = fs::read_to_string(layout.token()).unwrap();
    let token = NodeToken::parse(&installed.as_str().into()).unwrap();
    assert_eq!((secret(&token), token.claims().sub.as_str()), (SECRET, NODE));
    assert!(token.claims().ctl.ends_with("/socket.io/?EIO=4&transport=websocket"), "{}", token.claims().ctl);
    for path in [layout.token(), layout.secret_of(&NODE.parse().unwrap())] {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
    assert_eq!(fs::read(layout.command()).unwrap(), program(b"the running worker"));
    assert!(world.reports().is_empty(), "nobody was asked for a plan");
    // A second run plans nothing, and asks for no second secret.
    let again = begin(&world, &aiwm, &Uneventful).await.unwrap();
    assert_eq!((secret(&again), aiwm.bootstraps()), (SECRET, 1));
    assert!(world.planned().await.is_empty());
}

#[tokio::test]
async fn a_cut_at_any_moment_of_a_bootstrap_loses_no_secret() {
    for (point, bootstraps) in [(Point::Intended(BOOTSTRAP), 0), (Point::Done(BOOTSTRAP), 1)] {
        let (aiwm, world) = (Aiwm::start().await, World::new().await);
        let at = At::new(&format!("{point:?}"), Mishap::Kill);
        tokio::select! {
            outcome = begin(&world, &aiwm, &at) => panic!("{point:?}: {outcome:?}"),
            () = at.killed.notified() => {}
        }
        assert_eq!(aiwm.bootstraps(), bootstraps, "{point:?}");
        let token = begin(&world, &aiwm, &Uneventful).await.unwrap();
        assert_eq!((secret(&token), aiwm.bootstraps()), (SECRET, 1), "{point:?}");
    }
}

#[tokio::test]
async fn an_installation_that_fails_and_is_undone_keeps_the_secret_for_the_next() {
    let aiwm = Aiwm::start().await;
    let mut world = prepared(&aiwm).await;
    let running = world.request.program.take().unwrap();
    fails(&world, ErrorCode::Usage).await;
    world.request.program = Some(running);
    let at = At::new(&format!("{:?}", Point::Complete), Mishap::Failure);
    world.install_with(&at, Box::pin(std::future::pending())).await.unwrap_err();
    assert!(!world.host.layout.token().exists(), "it was undone");
    let again = begin(&world, &aiwm, &Uneventful).await.unwrap();
    assert_eq!((secret(&again), aiwm.bootstraps()), (SECRET, 1));
    world.install().await.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_told_as_what_it_is() {
    let (aiwm, world) = (Aiwm::start().await, World::new().await);
    aiwm.is(Mood::CutAnswer);
    let failure = begin(&world, &aiwm, &Uneventful).await.unwrap_err();
    assert!(
        matches!(failure.code, ErrorCode::ControllerUnreachable | ErrorCode::ControllerInvalid),
        "{failure:?}"
    );
    aiwm.is(Mood::Usual);
    let failure = begin(&world, &aiwm, &Uneventful).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::SetupTokenRefused);
    assert!(failure.message.contains("is lost"), "{failure}");
}

#[tokio::test]
async fn nothing_is_asked_before_the_place_for_the_answer_is_proved() {
    let (aiwm, world) = (Aiwm::start().await, World::new().await);
    // A file where the folder of secrets should be.
    fs::create_dir_all(world.host.layout.journal_dir()).unwrap();
    fs::write(world.host.layout.secrets(), "").unwrap();
    let failure = begin(&world, &aiwm, &Uneventful).await.unwrap_err();
    assert_eq!((failure.code, aiwm.bootstraps()), (ErrorCode::FileFailed, 0), "{failure}");
}

#[tokio::test]
async fn what_asks_for_nothing_uses_no_setup_token_up() {
    let (aiwm, world) = (Aiwm::start().await, World::new().await);
    let before = world.listing();
    let layout = &world.host.layout;
    let way = Way { dry_run: true, ..Way::default() };
    let token = bootstrap(layout, &aiwm.setup_token(&json!({})), &way, &Uneventful).await.unwrap();
    assert_eq!(secret(&token), "");
    for (changes, code) in [
        (json!({"exp": 2}), ErrorCode::TokenExpired),
        (json!({"nodeId": "x"}), ErrorCode::TokenInvalid),
        (json!({"apiBaseUrl": "ftp://a"}), ErrorCode::TokenInvalid),
        (json!({"apiBaseUrl": "http://aiwm.example"}), ErrorCode::InsecureUrl),
    ] {
        let failure = bootstrap(layout, &aiwm.setup_token(&changes), &Way::default(), &Uneventful).await;
        assert_eq!(failure.unwrap_err().code, code, "{changes}");
    }
    assert_eq!((aiwm.bootstraps(), world.listing()), (0, before));
}

#[tokio::test]
async fn a_setup_token_that_aiwm_refuses_leaves_nothing() {
    let (aiwm, world) = (Aiwm::start().await, World::new().await);
    let before = world.listing();
    aiwm.state.lock().unwrap().1 = 1;
    let failure = begin(&world, &aiwm, &Uneventful).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::SetupTokenRefused, "{failure}");
    assert_eq!(world.listing(), before);
}

#[tokio::test]
async fn an_unsigned_program_of_a_server_is_not_installed_for_aiwm() {
    let aiwm = Aiwm::start().await;
    let mut world = prepared(&aiwm).await;
    world.request.release_url = Some(format!("{}/v1.0.0", world.change(|server| server.base.clone())));
    fails(&world, ErrorCode::ReleaseNotFound).await;
}

#[tokio::test]
async fn a_secret_that_an_operator_regenerated_is_set_after_aiwm_has_taken_it() {
    let aiwm = Aiwm::start().await;
    let world = prepared(&aiwm).await;
    let layout = &world.host.layout;
    let set = |text: &str| {
        let text = secrecy::SecretString::from(text);
        async move { set_secret(layout, &text, &Way::default()).await }
    };
    assert_eq!(set("x").await.unwrap_err().code, ErrorCode::TokenMissing, "nothing is installed");
    world.install().await.unwrap();
    let installed = || {
        let text = fs::read_to_string(layout.token()).unwrap();
        secret(&NodeToken::parse(&text.as_str().into()).unwrap()).to_owned()
    };
    aiwm.is(Mood::Refusing);
    assert_eq!(set("another").await.unwrap_err().code, ErrorCode::SecretRefused);
    assert_eq!(installed(), SECRET);
    aiwm.is(Mood::Usual);
    assert!(set(" another\n").await.unwrap().1.is_none());
    assert_eq!(installed(), "another");
    aiwm.is(Mood::Failing);
    let (_, unasked) = set("third").await.unwrap();
    assert_eq!(unasked.map(|failure| failure.code), Some(ErrorCode::ControllerError));
    assert_eq!(installed(), "third");
    // What was set is found by the next installation, too.
    assert_eq!(secret(&begin(&world, &aiwm, &Uneventful).await.unwrap()), "third");
}

#[tokio::test]
async fn an_uninstallation_keeps_the_secret_and_a_purge_does_not() {
    let aiwm = Aiwm::start().await;
    let world = prepared(&aiwm).await;
    world.install().await.unwrap();
    let record = world.host.layout.secret_of(&NODE.parse().unwrap());
    let remove = |purge| uninstall(&world.host, Removal { purge, dry_run: false }, &Uneventful);
    let removed = remove(false).await.unwrap();
    assert!(removed.kept.contains(&record) && !world.host.layout.token().exists(), "{removed:?}");
    assert_eq!(secret(&begin(&world, &aiwm, &Uneventful).await.unwrap()), SECRET);
    remove(true).await.unwrap();
    assert!(!record.exists() && !world.host.layout.journal_dir().exists());
}

#[tokio::test]
async fn the_goal_of_an_installation_is_the_same_with_aiwm() {
    let aiwm = Aiwm::start().await;
    let mut world = prepared(&aiwm).await;
    world.request.goal = Goal::Ready;
    let outcome = world.install().await.unwrap();
    assert!(matches!(outcome.kind, OutcomeKind::Started { .. }), "{outcome:?}");
    assert!(!world.request.token.secret().expose_secret().is_empty());
}
