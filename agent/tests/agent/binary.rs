//! The program itself: exit statuses, outputs, and the daemon as a service manager runs it.

use std::{
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use aio_protocol::wire::{DisconnectReason, WorkerMessage};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    controller::{Controller, PATIENCE, Refusal},
    daemon::{folder_with, token},
};

/// The program with an environment of its own, and no driver whatever this machine has.
pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aio-worker"));
    command.env_clear().env("AIO_NVML_LIBRARY", "/nonexistent/libnvidia-ml.so.1").args(arguments);
    command.stdin(Stdio::null());
    command
}

pub(crate) fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// A daemon as a child, ended with the test.
pub(crate) struct Service {
    pub(crate) child: Child,
    notifications: UnixDatagram,
    folder: Arc<TempDir>,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Service {
    pub(crate) fn start(controller: &str) -> Self {
        Self::on(&folder_with(&token(controller, "first")))
    }

    /// On a folder that may have known a daemon before.
    pub(crate) fn on(folder: &Arc<TempDir>) -> Self {
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let _ = std::fs::remove_file(at("notify"));
        let notifications = UnixDatagram::bind(at("notify")).unwrap();
        notifications.set_read_timeout(Some(PATIENCE)).unwrap();
        let child = program(&["start", "--token-file", &at("token"), "--config", &at("config.toml")])
            .args(["--runtime-dir", &at("run"), "--state-dir", &at("state")])
            .env("NOTIFY_SOCKET", at("notify"))
            .env("WATCHDOG_USEC", "400000")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, notifications, folder: folder.clone() }
    }

    /// SIGKILL, and nothing left of it.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn runtime_dir(&self) -> String {
        self.folder.path().join("run").to_str().unwrap().to_owned()
    }

    /// Waits until the service manager has heard a word that begins like this.
    pub(crate) async fn told(&self, beginning: &'static str) {
        let socket = self.notifications.try_clone().unwrap();
        let listen = move || {
            let mut buffer = [0; 4096];
            loop {
                let length = socket.recv(&mut buffer).unwrap_or_else(|_| panic!("nobody said {beginning}"));
                if String::from_utf8_lossy(&buffer[..length]).starts_with(beginning) {
                    return;
                }
            }
        };
        tokio::task::spawn_blocking(listen).await.unwrap();
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(crate) async fn exit_status(&mut self) -> Option<i32> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(began.elapsed() < PATIENCE, "the daemon does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[test]
fn what_a_person_must_cure_ends_the_daemon_with_the_status_that_systemd_does_not_restart() {
    let folder = tempfile::tempdir().unwrap();
    let good = token("wss://aiwm.example/ws/node", "t");
    let exposed = token("ws://aiwm.example/ws/node", "t");
    let config = |text: &str| {
        let path = folder.path().join(format!("{}.toml", text.len()));
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (empty, unknown) = (config(""), config("contoller_endpoint = \"wss://x\""));
    let (not_toml, bad_log) = (config("= ="), config("log = \"a=b=c\""));
    let absent = folder.path().join("absent").to_str().unwrap().to_owned();
    type Case<'a> = (&'static str, &'a [&'a str], &'a [(&'a str, &'a str)]);
    let cases: &[Case<'_>] = &[
        ("TOKEN_INVALID", &["--token", "garbage", "--config", &empty], &[]),
        ("TOKEN_INVALID", &["--token", &good[..good.len() / 2], "--config", &empty], &[]),
        ("TOKEN_MISSING", &["--token", "", "--config", &empty], &[]),
        ("TOKEN_MISSING", &["--token-file", &absent, "--config", &empty], &[]),
        ("TOKEN_MISSING", &["--token-file", "-", "--config", &empty], &[]),
        (
            "TOKEN_FOREIGN",
            &["--token", &good, "--config", &empty],
            &[("AIO_NODE_ID", "aaaaaaaaaaaaaaaaaaaaaaaa")],
        ),
        ("INSECURE_URL", &["--token", &exposed, "--config", &empty], &[]),
        ("CONFIG_INVALID", &["--token", &good, "--config", &unknown], &[]),
        ("CONFIG_INVALID", &["--token", &good, "--config", &not_toml], &[]),
        ("CONFIG_INVALID", &["--token", &good, "--config", &bad_log], &[]),
        ("CONFIG_INVALID", &["--token", &good, "--config", &absent], &[]),
        (
            "CONFIG_INVALID",
            &["--token", &good, "--config", &empty],
            &[("AIO_CONTROLLER_ENDPOINT", "nowhere")],
        ),
    ];
    for (code, arguments, variables) in cases {
        let (status, stdout, stderr) =
            run(program(&["start"]).args(*arguments).envs(variables.iter().copied()));
        assert_eq!((status, stdout.as_str()), (78, ""), "{arguments:?}: {stderr}");
        assert!(stderr.starts_with(&format!("error[{code}]: ")), "{arguments:?}: {stderr}");
        assert!(stderr.contains("\n  cure: "), "{stderr}");
        assert!(!stderr.contains(&good) && !stderr.contains("garbage"), "a token was shown: {stderr}");
    }
}

#[test]
fn a_command_line_that_is_not_understood_is_status_two() {
    for arguments in
        [&["start", "--bogus"][..], &["dance"], &["start", "--token", "a", "--token-file", "b"], &[]]
    {
        assert_eq!(run(&mut program(arguments)).0, 2, "{arguments:?}");
    }
}

#[test]
fn an_empty_variable_is_as_good_as_none() {
    const VARIABLES: [&str; 6] = [
        "AIO_NODE_ID",
        "AIO_CA_FILE",
        "AIO_INSECURE_HTTP",
        "AIO_PROXY",
        "AIO_RELEASE_KEY",
        "AIO_CONTROLLER_ENDPOINT",
    ];
    for value in ["", " "] {
        let mut install = program(&["install", "--dry-run", "--token", "no.token"]);
        install.envs(VARIABLES.map(|name| (name, value)));
        let (status, _, stderr) = run(&mut install);
        assert!(stderr.starts_with("error[TOKEN_INVALID]: "), "{status} {stderr}");
    }
}

#[test]
fn nobody_answering_is_told_with_its_code() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    let (status, stdout, stderr) = run(&mut program(&["status", "--runtime-dir", folder]));
    assert_eq!((status, stdout.as_str()), (69, ""));
    assert!(stderr.starts_with("error[WORKER_NOT_RUNNING]: "), "{stderr}");
    let (status, stdout, _) = run(&mut program(&["status", "--runtime-dir", folder, "--output", "json"]));
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((status, answer["error"]["code"].as_str()), (69, Some("WORKER_NOT_RUNNING")));
}

#[test]
fn the_inventory_needs_no_root_no_daemon_and_no_driver() {
    let (status, stdout, stderr) = run(&mut program(&["inventory"]));
    assert_eq!((status, stderr.as_str()), (0, ""));
    assert!(stdout.contains("no NVIDIA driver"), "{stdout}");
    let (status, stdout, _) = run(&mut program(&["inventory", "--output", "json"]));
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((status, answer["health"]["state"].as_str()), (0, Some("unknown")));
    assert_eq!(answer["systemInfo"]["hardware"]["gpuDriver"]["state"], "absent");
    assert!(answer["systemInfo"]["hardware"]["memory"]["total"].as_u64().unwrap() > 1 << 20);
}

#[test]
fn a_support_bundle_is_written_once_whatever_this_machine_lacks_and_without_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bundle.tar.gz");
    let token = token("ws://127.0.0.1:1/ws/node", "its-id");
    let arguments = ["support-bundle", "--file", path.to_str().unwrap(), "--output", "json"];
    let make = || run(program(&arguments).env("AIO_NODE_TOKEN", &token));

    let (status, stdout, stderr) = make();

    assert_eq!((status, stderr.as_str()), (0, ""));
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(answer["file"].as_str(), path.to_str());
    let mut unpacked = String::new();
    std::io::Read::read_to_string(
        &mut flate2::read::GzDecoder::new(std::fs::File::open(&path).unwrap()),
        &mut unpacked,
    )
    .unwrap();
    for words in ["/manifest.json", "/doctor.json", "/inventory.json", "\"id\": \"its-id\""] {
        assert!(unpacked.contains(words), "there is no {words}: {unpacked}");
    }
    assert!(!unpacked.contains(&token), "the token is in it: {unpacked}");
    let (status, stdout, _) = make();
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((status, answer["error"]["code"].as_str()), (74, Some("FILE_FAILED")));
}

#[test]
fn the_version_is_told_to_people_and_programs() {
    let version = env!("CARGO_PKG_VERSION");
    let (status, stdout, _) = run(&mut program(&["version"]));
    assert_eq!(status, 0);
    assert!(stdout.starts_with(&format!("aio-worker {version} (linux-")), "{stdout}");
    let (_, stdout, _) = run(&mut program(&["version", "--output", "json"]));
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(answer["version"], version);
}

#[tokio::test]
async fn a_service_is_ready_watched_and_asked_and_leaves_on_sigterm() {
    let mut controller = Controller::start().await;
    let mut service = Service::start(&controller.url);
    service.told("READY=1").await;
    let (mut peer, register) = controller.welcomed(30_000).await;
    assert!(!register.boot_id.is_empty());
    peer.heartbeat().await;
    service.told("STATUS=Online at ws://").await;
    service.told("WATCHDOG=1").await;
    let folder = service.runtime_dir();
    let status =
        tokio::task::spawn_blocking(move || run(&mut program(&["status", "--runtime-dir", &folder])));
    let (status, stdout, _) = status.await.unwrap();
    assert_eq!(status, 0);
    assert!(stdout.contains("session     online for "), "{stdout}");
    assert!(stdout.contains("GPUs        no NVIDIA driver"), "{stdout}");
    let asked = Instant::now();
    service.signal(rustix::process::Signal::TERM);
    service.told("STOPPING=1").await;
    let WorkerMessage::Disconnecting(goodbye) = peer.rare_message().await else { panic!("no goodbye") };
    assert_eq!(goodbye.reason, DisconnectReason::Shutdown);
    assert!(peer.next().await.is_none());
    assert_eq!(service.exit_status().await, Some(0));
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert!(!Path::new(&service.runtime_dir()).join("status.sock").exists());
}

#[tokio::test]
async fn a_refused_service_stays_and_its_log_says_once_what_to_do() {
    let mut controller = Controller::start().await;
    controller.refuse([Refusal { status: 401, retry_after: None, code: "TOKEN_REVOKED" }]);
    let mut service = Service::start(&controller.url);
    controller.attempt().await;
    service.told("STATUS=The controller refused the connection (401)").await;
    service.signal(rustix::process::Signal::INT);
    assert_eq!(service.exit_status().await, Some(0));
    let mut log = String::new();
    std::io::Read::read_to_string(&mut service.child.stderr.take().unwrap(), &mut log).unwrap();
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(warnings[0].contains("TOKEN_REVOKED") && warnings[0].contains("Make a new token"), "{log}");
    assert!(!log.contains(&token(&controller.url, "first")), "the token was logged");
}

#[test]
fn a_token_given_as_an_argument_does_not_stay_where_everybody_reads() {
    // It takes the connection and says nothing, so that the command waits.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let api = format!("http://{}", silent.local_addr().unwrap());
    let token = super::daemon::token_with("ws://127.0.0.1:1", "first", |claims| claims["api"] = api.into());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.tar");
    let mut command = program(&["bundle", "--token", &token, "--file", file.to_str().unwrap()]);
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let line = || std::fs::read(format!("/proc/{}/cmdline", child.id())).unwrap();
    let shows = |line: &[u8]| String::from_utf8_lossy(line).contains(&token);
    let deadline = Instant::now() + PATIENCE;
    // Until it has become the program, it shows this one's line.
    while !line().windows(6).any(|word| word == b"bundle") || shows(&line()) {
        assert!(Instant::now() < deadline, "{}", String::from_utf8_lossy(&line()));
        std::thread::sleep(Duration::from_millis(2));
    }
    let hidden = String::from_utf8(line()).unwrap();
    let words: Vec<_> = hidden.split('\0').collect();
    assert_eq!((words[1], words[2], words[3]), ("bundle", "--token", "x".repeat(token.len()).as_str()));
    child.kill().unwrap();
    child.wait().unwrap();
}
