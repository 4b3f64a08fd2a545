//! The command line as people and shells meet it: exit statuses that tell, colour only on a
//! terminal, completions that complete, pages without a fault.

use std::{
    io::{BufRead, BufReader, Lines, Write},
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use aio_protocol::{snapshot::SessionState, telemetry::RecoveryAction};
use serde_json::Value;
use tokio::time::timeout;

use super::{
    binary::{Service, program, run},
    controller::{Controller, PATIENCE, Refusal},
    daemon::{Daemon, token},
};

/// What begins a colour.
const ESCAPE: char = '\u{1b}';

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Runs on a thread of its own, because the daemon needs this one.
async fn aside(mut command: Command) -> (i32, String, String) {
    tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap()
}

fn status(daemon: &Daemon, more: &[&str]) -> Command {
    let mut command = program(&["status", "--runtime-dir", daemon.runtime_dir.to_str().unwrap()]);
    command.args(more);
    command
}

/// A command that goes on, ended with the test.
struct Following {
    child: Child,
    lines: Option<Lines<BufReader<ChildStdout>>>,
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Following {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines: Some(lines) }
    }

    /// What it prints next.
    async fn line(&mut self) -> String {
        let mut lines = self.lines.take().unwrap();
        let read = tokio::task::spawn_blocking(move || (lines.next().unwrap().unwrap(), lines));
        let (line, lines) = timeout(PATIENCE, read).await.expect("it prints nothing").unwrap();
        self.lines = Some(lines);
        line
    }

    /// What it prints until it ends.
    async fn rest(&mut self) -> Vec<String> {
        let lines = self.lines.take().unwrap();
        let read = tokio::task::spawn_blocking(move || lines.map(Result::unwrap).collect());
        timeout(PATIENCE, read).await.expect("it goes on").unwrap()
    }

    /// From here on, nobody reads what it prints.
    fn turn_away(&mut self) {
        self.lines = None;
    }

    async fn exit_status(&mut self) -> Option<i32> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(began.elapsed() < PATIENCE, "the command does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn the_exit_status_says_whether_the_worker_is_online_and_if_not_why() {
    let mut controller = Controller::start().await;
    controller.refuse([Refusal { status: 401, retry_after: Some("3600"), code: "TOKEN_REVOKED" }]);
    let refused = Daemon::start(&controller.url);
    refused.snapshot(|snapshot| snapshot.session.code.is_some()).await;
    let (code, stdout, stderr) = aside(status(&refused, &[])).await;
    assert_eq!((code, stderr.as_str()), (78, ""), "{stdout}");
    assert!(stdout.contains("waiting for ") && stdout.contains(" [TOKEN_REVOKED]"), "{stdout}");
    controller.attempt().await;

    let online = Daemon::start(&controller.url);
    let (mut peer, _) = controller.welcomed(30_000).await;
    peer.heartbeat().await;
    online.snapshot(|snapshot| snapshot.session.state == SessionState::Online).await;
    let (code, stdout, _) = aside(status(&online, &["--output", "json"])).await;
    assert_eq!(code, 0);
    assert_eq!(json(&stdout)["pendingUpdate"], Value::Null, "a worker of one's own has no installed update");
}

#[tokio::test]
async fn whoever_follows_sees_every_change_until_the_worker_ends() {
    let mut controller = Controller::start().await;
    let mut daemon = Daemon::start(&controller.url);
    let (mut peer, _) = controller.welcomed(30_000).await;
    peer.heartbeat().await;
    daemon.snapshot(|snapshot| snapshot.gpu_status.len() == 2).await;
    let mut following = Following::start(status(&daemon, &["--follow", "--output", "json"]));
    assert_eq!(json(&following.line().await)["session"]["state"], "online");

    daemon.ask_to_stop();
    daemon.ended().await;
    let rest = following.rest().await;
    let states: Vec<_> = rest.iter().map(|line| json(line)["session"]["state"].clone()).collect();
    assert!(states.contains(&"stopping".into()), "{rest:?}");
    assert_eq!(json(rest.last().unwrap())["error"]["code"], "WORKER_NOT_RUNNING", "{rest:?}");
    assert_eq!(following.exit_status().await, Some(69));
}

#[tokio::test]
async fn whoever_follows_and_is_not_read_any_more_ends() {
    let mut controller = Controller::start().await;
    let daemon = Daemon::start(&controller.url);
    let (mut peer, _) = controller.welcomed(30_000).await;
    peer.heartbeat().await;
    let mut following = Following::start(status(&daemon, &["--follow", "--output", "json"]));
    assert_eq!(json(&following.line().await)["session"]["state"], "online");
    following.turn_away();
    // A session that ends is a change, which nobody reads; the worker itself goes on.
    peer.close(1012, "restart").await;
    assert_eq!(following.exit_status().await, Some(0));
    assert!(daemon.alive());
}

/// A standard output or error that takes nothing: the reader has gone, or the disk is full.
fn takes_nothing() -> [Stdio; 2] {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    [writer.into(), std::fs::File::options().write(true).open("/dev/full").unwrap().into()]
}

#[tokio::test]
async fn no_command_succeeds_without_its_answer_and_none_minds_a_lost_standard_error() {
    let mut controller = Controller::start().await;
    let online = Daemon::start(&controller.url);
    let (mut peer, _) = controller.welcomed(30_000).await;
    peer.heartbeat().await;
    online.snapshot(|snapshot| snapshot.session.state == SessionState::Online).await;
    let runtime_dir = online.runtime_dir.to_str().unwrap().to_owned();
    let commands: [&[&str]; 10] = [
        &["status", "--runtime-dir", &runtime_dir],
        &["status", "--runtime-dir", &runtime_dir, "--output", "json"],
        &["status", "--follow", "--runtime-dir", &runtime_dir],
        &["inventory", "--output", "json"],
        &["config", "show"],
        &["version"],
        &["man"],
        &["completions", "bash"],
        &["--help"],
        &["support-bundle", "--file", "-"],
    ];
    for arguments in commands {
        for lost in takes_nothing() {
            let mut command = program(arguments);
            command.stdout(lost).stderr(Stdio::null());
            let status = tokio::task::spawn_blocking(move || command.status().unwrap()).await.unwrap();
            assert_eq!(status.code(), Some(74), "{arguments:?}");
        }
    }
    for lost in takes_nothing() {
        let mut command = program(&["status", "--runtime-dir", "/nowhere"]);
        command.env("AIO_LOG", "trace").stdout(Stdio::null()).stderr(lost);
        assert_eq!(command.status().unwrap().code(), Some(69), "the words are lost, not the verdict");
    }
}

/// The command on a terminal, which `script` makes; and what it printed there.
fn on_a_terminal(command: &Command, variables: &[(&str, &str)]) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line: Vec<_> = words.map(|word| word.to_str().unwrap()).collect();
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line.join(" "), "/dev/null"]);
    script.env_clear().env("PATH", "/usr/bin:/bin").envs(variables.iter().copied()).stdin(Stdio::null());
    let (_, stdout, stderr) = run(&mut script);
    assert_eq!(stderr, "");
    stdout
}

#[tokio::test]
async fn there_is_colour_on_a_terminal_and_nowhere_else() {
    let mut controller = Controller::start().await;
    let daemon = Daemon::start(&controller.url);
    daemon.machine.tell(|report| report.readings[1].recovery_action = Some(RecoveryAction::DrainAndReset));
    let (mut peer, _) = controller.welcomed(30_000).await;
    peer.heartbeat().await;
    daemon.snapshot(|snapshot| snapshot.gpu_status.len() == 2).await;

    let (_, piped, _) = aside(status(&daemon, &[])).await;
    assert!(!piped.contains(ESCAPE), "{piped:?}");
    let seen = |variables: &'static [(&'static str, &'static str)], more: &[&str]| {
        let command = status(&daemon, more);
        tokio::task::spawn_blocking(move || on_a_terminal(&command, variables))
    };
    let coloured = seen(&[("TERM", "xterm-256color")], &[]).await.unwrap();
    assert!(coloured.contains("\u{1b}[32monline\u{1b}[0m"), "{coloured:?}");
    assert!(coloured.contains("\u{1b}[33mdegraded\u{1b}[0m"), "{coloured:?}");
    for variables in [&[("TERM", "dumb")][..], &[("TERM", "xterm"), ("NO_COLOR", "1")], &[]] {
        let plain = seen(variables, &[]).await.unwrap();
        assert!(plain.contains("online for") && !plain.contains(ESCAPE), "{variables:?}: {plain:?}");
    }
    let json = seen(&[("TERM", "xterm")], &["--output", "json"]).await.unwrap();
    assert!(json.starts_with('{') && !json.contains(ESCAPE), "{json:?}");
}

#[test]
fn config_check_says_all_at_once_to_people_and_to_programs() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(
        at("config.toml"),
        "contoller_endpoint = \"wss://x\"\nlog = 7\n[health]\nxid_hours = 9000\n",
    )
    .unwrap();
    std::fs::write(at("token"), token("ws://aiwm.example/ws/node", "t")).unwrap();
    let arguments = ["config", "check", "--config", &at("config.toml"), "--token-file", &at("token")];

    let (code, stdout, stderr) = run(&mut program(&arguments));
    assert_eq!((code, stderr.as_str()), (78, ""));
    let expected = format!(
        "error    {}:1: unknown key `contoller_endpoint`; did you mean `controller_endpoint`? [CONFIG_INVALID]\n",
        at("config.toml")
    );
    assert!(stdout.starts_with(&expected), "{stdout}");
    assert!(stdout.ends_with(": the daemon cannot use this (4 errors, 1 warning)\n"), "{stdout}");

    let (code, stdout, _) = run(program(&arguments).args(["--output", "json"]));
    let answer = json(&stdout);
    assert_eq!((code, answer["usable"].as_bool()), (78, Some(false)));
    let errors: Vec<_> = answer["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["severity"] == "error")
        .collect();
    let codes: Vec<_> = errors.iter().map(|finding| finding["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["CONFIG_INVALID", "CONFIG_INVALID", "CONFIG_INVALID", "INSECURE_URL"]);
    assert_eq!((errors[1]["line"].as_u64(), errors[1]["key"].as_str()), (Some(2), Some("log")));
    assert_eq!((errors[2]["line"].as_u64(), errors[2]["key"].as_str()), (Some(4), Some("health.xid_hours")));

    std::fs::write(at("config.toml"), "insecure_http = true\n").unwrap();
    let (code, stdout, _) = run(&mut program(&arguments));
    assert_eq!(code, 0, "{stdout}");
    assert!(stdout.contains("warning ") && stdout.ends_with(": ok (2 warnings)\n"), "{stdout}");
}

/// What bash offers where the cursor stands behind these words.
fn offered(words: &[&str]) -> Vec<String> {
    let script = format!(
        "{}\nCOMP_WORDS=({}); COMP_CWORD={}; {}\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
        run(&mut program(&["completions", "bash"])).1,
        words.join(" "),
        words.len() - 1,
        // What `complete -F` was told to call, with the words that bash calls it with.
        format_args!(
            "function=$(complete -p aio-worker | sed -n 's/.* -F \\([^ ]*\\).*/\\1/p'); \"$function\" aio-worker '{}' '{}'",
            words[words.len() - 1],
            words[words.len() - 2]
        )
    );
    let mut bash = Command::new("bash");
    let mut child = bash
        .args(["--norc", "--noprofile", "-s"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_values() {
    let first = offered(&["aio-worker", "''"]);
    for command in ["start", "install", "status", "doctor", "logs", "config", "completions", "man"] {
        assert!(first.iter().any(|word| word == command), "{first:?}");
    }
    assert_eq!(offered(&["aio-worker", "support"]), ["support-bundle"]);
    assert_eq!(offered(&["aio-worker", "config", "ch"]), ["check"]);
    assert_eq!(offered(&["aio-worker", "status", "--fol"]), ["--follow"]);
    assert_eq!(offered(&["aio-worker", "status", "--output", "j"]), ["json"]);
}

#[test]
fn every_shell_has_completions() {
    for (shell, words) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef aio-worker"),
        ("fish", "complete -c aio-worker"),
        ("elvish", "edit:completion:arg-completer[aio-worker]"),
        ("powershell", "Register-ArgumentCompleter"),
    ] {
        let (code, stdout, stderr) = run(&mut program(&["completions", shell]));
        assert_eq!((code, stderr.as_str()), (0, ""), "{shell}");
        assert!(stdout.contains(words) && stdout.contains("support-bundle"), "{shell}: {stdout}");
    }
    assert_eq!(run(&mut program(&["completions", "csh"])).0, 2);
}

#[test]
fn groff_finds_no_fault_in_any_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man/man8");
    let (code, stdout, stderr) = run(&mut program(&["man", "--output-dir", pages.to_str().unwrap()]));
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "", ""));
    let (_, first, _) = run(&mut program(&["man"]));
    assert_eq!(first, std::fs::read_to_string(pages.join("aio-worker.8")).unwrap());
    let pages: Vec<PathBuf> = std::fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(pages.len() > 12, "{pages:?}");
    for page in &pages {
        let arguments = ["-man", "-Tutf8", "-ww", "-z"];
        match Command::new("groff").args(arguments).arg(page).stdin(Stdio::null()).output() {
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success() && said.is_empty(), "{}: {said}", page.display());
            }
            Err(error) => {
                return eprintln!("groff was not run, so the pages' markup was not checked: {error}");
            }
        }
    }
}

#[test]
fn without_a_journal_the_log_is_said_to_be_nowhere() {
    let journals =
        ["/var/log/journal", "/run/log/journal"].map(|folder| std::fs::read_dir(folder).map(|it| it.count()));
    if journals.iter().any(|found| found.as_ref().is_ok_and(|count| *count > 0)) {
        return eprintln!("not looked at: this computer has a journal, of which the lab tests more");
    }
    let (code, stdout, stderr) = run(&mut program(&["logs"]));
    assert_eq!((code, stdout.as_str()), (74, ""));
    assert!(stderr.starts_with("error[FILE_FAILED]: there is no journal in "), "{stderr}");
}

#[tokio::test]
async fn nothing_that_status_tells_everybody_is_secret() {
    let mut controller = Controller::start().await;
    let service = Service::start(&controller.url);
    let (mut peer, _) = controller.welcomed(30_000).await;
    peer.heartbeat().await;
    let folder = service.runtime_dir();
    let (code, stdout, _) = aside(program(&["status", "--runtime-dir", &folder, "--output", "json"])).await;
    assert_eq!(code, 0, "{stdout}");
    let token = token(&controller.url, "first");
    for part in token.split('.').skip(1) {
        assert!(!stdout.contains(part), "a part of the token is told: {stdout}");
    }
}
