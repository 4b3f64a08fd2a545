//! The reference client of Socket.IO against what is served here: polling, the upgrade, WebSocket alone, the
//! way back after a restart, and dashboards. And the examples of docs/aiwm.md, as they stand there.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Output, Stdio},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{sync::mpsc, task::spawn_blocking, time::timeout};

use super::peer::{controller, controller_with, node, system_info};
use crate::harness::Controller;

/// A program is slow to start, and to install, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// A folder with the reference client; nothing where it cannot be had, which is said.
async fn client_folder() -> Option<TempDir> {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/socketio-client");
    for name in ["package.json", "package-lock.json", "client.mjs"] {
        std::fs::copy(source.join(name), folder.path().join(name)).unwrap();
    }
    let arguments = ["ci", "--no-audit", "--no-fund", "--prefer-offline"];
    let mut npm = Command::new("npm");
    npm.args(arguments).current_dir(folder.path());
    let installed = output(npm).await;
    match installed {
        Ok(output) if output.status.success() => Some(folder),
        Ok(output) => skip(&String::from_utf8_lossy(&output.stderr)),
        Err(error) => skip(&error.to_string()),
    }
}

async fn output(mut command: Command) -> std::io::Result<Output> {
    let ended = spawn_blocking(move || command.stdin(Stdio::null()).output());
    timeout(PATIENCE, ended).await.expect("it ends in time").unwrap()
}

fn skip<T>(why: &str) -> Option<T> {
    eprintln!("NOT CHECKED: the reference client of Socket.IO, because it cannot be installed: {why}");
    None
}

struct Reference {
    child: Child,
    said: mpsc::UnboundedReceiver<String>,
    orders: ChildStdin,
}

impl Reference {
    fn start(folder: &TempDir, address: &str, token: &str, transports: &str) -> Self {
        let mut child = Command::new("node")
            .args(["client.mjs", address, token, transports])
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (say, said) = mpsc::unbounded_channel();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| say.send(line)));
        let orders = child.stdin.take().unwrap();
        Self { child, said, orders }
    }

    async fn next(&mut self) -> (String, Value) {
        let line = timeout(PATIENCE, self.said.recv()).await.expect("it says something in time");
        let said: Value = serde_json::from_str(&line.expect("it has not ended")).unwrap();
        (said["what"].as_str().unwrap().to_owned(), said["detail"].clone())
    }

    /// Waits for this to be said; whatever comes before is passed over.
    async fn hears(&mut self, what: &str) -> Value {
        loop {
            let (said, detail) = self.next().await;
            if said == what {
                return detail;
            }
        }
    }

    fn order(&mut self, line: &str) {
        self.orders.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn emit(&mut self, event: &str, message: &Value) {
        self.order(&format!("emit {event} {message}"));
    }

    /// Ends it, and waits until it has.
    async fn end(mut self) {
        self.order("close");
        while timeout(PATIENCE, self.said.recv()).await.expect("it ends in time").is_some() {}
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

#[tokio::test]
async fn the_reference_client_joins_by_every_transport_and_comes_back_after_a_restart() {
    let Some(folder) = client_folder().await else { return };
    let mut controller = controller().await;
    let owner = controller.owner_of("acme").await;
    let node = node(&controller, &owner, "gpu-01").await;
    let workers = format!("{}/ws/node", controller.url());
    let register = json!({"data": {"systemInfo": system_info()}});
    for (transports, first, upgrades) in [
        ("polling", "polling", false),
        ("websocket", "websocket", false),
        ("polling,websocket", "polling", true),
    ] {
        let mut client = Reference::start(&folder, &workers, &node.token, transports);
        assert_eq!(client.hears("open").await, first, "{transports}");
        let mut upgraded = false;
        loop {
            match client.next().await {
                (what, detail) if what == "upgrade" => upgraded = detail == "websocket",
                (what, _) if what == "connect" => {}
                (what, detail) if what == "connection.ack" => {
                    assert_eq!(detail["status"], "success", "{detail}");
                    break;
                }
                (what, detail) => panic!("{what} {detail}"),
            }
        }
        client.emit("node.register", &register);
        loop {
            match client.next().await {
                (what, detail) if what == "upgrade" => upgraded = detail == "websocket",
                (what, _) if what == "register.ack" => break,
                (what, detail) => panic!("{what} {detail}"),
            }
        }
        if upgrades && !upgraded {
            assert_eq!(client.hears("upgrade").await, "websocket");
        }
        owner.await_status(&node.id, "online").await;
        client.emit("node.register", &register);
        client.hears("register.ack").await;
        client.end().await;
        owner.await_status(&node.id, "offline").await;
    }
    let mut refused = Reference::start(&folder, &workers, "forged", "websocket");
    assert_eq!(refused.hears("connect_error").await, "TOKEN_INVALID");
    refused.end().await;

    let mut client = Reference::start(&folder, &workers, &node.token, "websocket");
    client.hears("connection.ack").await;
    let address = controller.address();
    controller.stop().await;
    assert_eq!(client.hears("disconnect").await, "transport close");
    controller.start_again(address).await;
    assert_eq!(client.hears("connection.ack").await["status"], "success");
    client.emit("node.register", &register);
    client.hears("register.ack").await;
    client.end().await;
}

#[tokio::test]
async fn a_dashboard_hears_of_its_own_organisation_and_a_forged_token_opens_nothing() {
    let Some(folder) = client_folder().await else { return };
    let controller = controller().await;
    let owner = controller.owner_of("acme").await;
    let notifications = format!("{}/notifications", controller.url());
    let token = |org: &'static str, role: &'static str| user_token(&controller, org, role);
    let forged = crate::gateway::signed("another secret, also long enough to be one", &"0".repeat(24), 60);
    for (token, refusal) in [
        (forged, "TOKEN_INVALID"),
        (token("acme", "nothing").await, "TOKEN_INVALID"),
        (String::new(), "TOKEN_MISSING"),
    ] {
        let mut client = Reference::start(&folder, &notifications, &token, "websocket");
        assert_eq!(client.hears("connect_error").await, refusal);
        client.end().await;
    }
    let mut ours =
        Reference::start(&folder, &notifications, &token("acme", "organization.viewer").await, "polling");
    let mut theirs =
        Reference::start(&folder, &notifications, &token("other", "organization.viewer").await, "websocket");
    ours.hears("connect").await;
    theirs.hears("connect").await;
    // What is kept before a dashboard has found its place is not news to it.
    let first = tokio::select! {
        event = ours.hears("node.registered") => event,
        () = async { for number in 0.. {
            super::peer::registered(&owner, &format!("gpu-{number}")).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        } } => unreachable!(),
    };
    assert_eq!(
        (&first["type"], &first["data"]["owner"]["orgId"]),
        (&json!("node.registered"), &json!("acme"))
    );
    let own = super::peer::registered(&controller.owner_of("other").await, "theirs").await;
    loop {
        let (what, event) = theirs.next().await;
        assert_eq!(event["data"]["owner"]["orgId"], "other", "{what}");
        if event["data"]["nodeId"] == json!(own) {
            break;
        }
    }
    ours.end().await;
    theirs.end().await;
}

async fn user_token(controller: &Controller, org: &str, role: &str) -> String {
    use controller_stub::commands::{For, user_token};
    let whose = For { org: Some(org.parse().unwrap()), user: Some("someone".parse().unwrap()) };
    user_token(&controller.config, whose, vec![role.into()], 3600).await.unwrap()
}

/// The program in this language that docs/aiwm.md shows.
fn example(language: &str) -> String {
    let page = include_str!("../../../../docs/aiwm.md");
    let (_, rest) = page.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("\n```").unwrap().0.to_owned()
}

#[tokio::test]
async fn the_examples_of_the_documentation_run_as_they_stand_there() {
    let Some(folder) = client_folder().await else { return };
    let controller = controller_with(|config| config.aiwm_double = true).await;
    let token = user_token(&controller, "acme", "organization.owner").await;
    for (language, program, name) in [("js", "node", "example.mjs"), ("python", "python3", "example.py")] {
        std::fs::write(folder.path().join(name), example(language)).unwrap();
        let mut command = Command::new(program);
        command.arg(name).current_dir(folder.path());
        command.env("AIWM", controller.url()).env("AIWM_TOKEN", &token).env("NO_PROXY", "*");
        let output = match output(command).await {
            Ok(output) => output,
            Err(error) => {
                eprintln!(
                    "NOT CHECKED: the example in {language}, because {program} does not start: {error}"
                );
                continue;
            }
        };
        let said = String::from_utf8_lossy(&output.stdout);
        let failed = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.trim_end().ends_with("ok"), "{program}: {said}{failed}");
    }
}
