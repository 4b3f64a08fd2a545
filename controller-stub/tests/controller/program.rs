//! The program itself: what it prints where, and how it ends.

use std::{
    io::{BufRead, BufReader, Read, Seek},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use serde_json::{Value, json};

use crate::{harness, peers::Worker};

/// A server in a process of its own, ended with the test.
pub(crate) struct Served {
    pub child: Child,
    stdout: BufReader<std::process::ChildStdout>,
    pub url: String,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, with no setting of the machine's.
pub(crate) fn program(arguments: &[&str], data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_controller-stub"));
    command.args(arguments).arg("--data-dir").arg(data);
    for variable in controller_stub::config::variables() {
        command.env_remove(variable);
    }
    command
}

pub(crate) fn run(arguments: &[&str], data: &Path) -> Output {
    program(arguments, data).output().unwrap()
}

fn serve(data: &Path) -> Served {
    let served = serve_with(&[], data);
    assert!(served.url.starts_with("http://127.0.0.1:"), "{}", served.url);
    served
}

pub(crate) fn serve_with(flags: &[&str], data: &Path) -> Served {
    serve_logging(flags, data, Stdio::null())
}

/// The same, with variables of its environment.
pub(crate) fn serve_in(environment: &[(&str, &str)], flags: &[&str], data: &Path) -> Served {
    serve_as(environment, flags, data, Stdio::null())
}

/// What the program has said in its log when it listens.
pub(crate) fn log_of_start(flags: &[&str], data: &Path) -> String {
    let mut log = tempfile::tempfile().unwrap();
    drop(serve_logging(flags, data, log.try_clone().unwrap().into()));
    let mut text = String::new();
    log.rewind().unwrap();
    log.read_to_string(&mut text).unwrap();
    text
}

fn serve_logging(flags: &[&str], data: &Path, log: Stdio) -> Served {
    serve_as(&[], flags, data, log)
}

fn serve_as(environment: &[(&str, &str)], flags: &[&str], data: &Path, log: Stdio) -> Served {
    let listen = if flags.contains(&"--listen") { &[][..] } else { &["--listen", "127.0.0.1:0"] };
    let mut child = program(&[&["serve"], listen, flags].concat(), data)
        .envs(environment.iter().copied())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let url = line.trim_end().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line:?}")).to_owned();
    assert!(!url.ends_with(":0"), "{url}");
    Served { child, stdout, url }
}

fn told(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text:?}");
    text.trim_end().to_owned()
}

#[tokio::test]
async fn serve_prints_one_line_and_ends_in_order_when_told_to() {
    let data = tempfile::tempdir().unwrap();
    let mut served = serve(data.path());
    let pid = served.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(served.child.wait().unwrap().success());
    let mut rest = String::new();
    served.stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}

#[tokio::test]
async fn without_file_descriptors_the_controller_waits_and_then_goes_on() {
    let data = tempfile::tempdir().unwrap();
    let served = serve(data.path());
    let http = harness::http();
    let healthz = format!("{}/healthz", served.url);
    assert_eq!(http.get(&healthz).send().await.unwrap().status(), 200);
    let pid = served.child.id();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let limit = format!("--nofile={}:{}", open + 10, open + 10);
    let limited = Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).status().unwrap();
    assert!(limited.success());

    let address = served.url.strip_prefix("http://").unwrap();
    let crowd: Vec<_> = (0..100).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    let full = || match std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() {
        count if count >= open + 10 => Ok(()),
        count => Err(format!("{count} of {}", open + 10)),
    };
    harness::eventually("no file descriptor is left", async || full()).await;
    let spent = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        // Of a hundredth of a second each.
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = spent();
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert!(spent() - before < 40, "{} of 200 hundredths of a second", spent() - before);
    drop(crowd);
    harness::eventually("an answer", async || {
        http.get(&healthz).send().await.map(drop).map_err(|error| error.to_string())
    })
    .await;
}

#[tokio::test]
async fn the_commands_work_on_the_folder_of_a_running_server() {
    let data = tempfile::tempdir().unwrap();
    let user_token = ["user-token", "--org", "acme", "--user", "someone", "--role", "organization.owner"];
    let before = told(&run(&user_token, data.path()));
    let never_served = run(&["node", "add", "too-early"], data.path());
    assert_eq!(never_served.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&never_served.stderr).starts_with("error[CONFIG_INVALID]: "));

    let served = serve(data.path());
    let during = told(&run(&user_token, data.path()));
    let http = harness::http();
    for token in [before, during] {
        let answer = http.get(format!("{}/nodes", served.url)).bearer_auth(token).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    let command = told(&run(&["node", "add", "gpu-01"], data.path()));
    assert!(command.starts_with("sudo aio-worker install --token ey"), "{command}");
    let added: Value =
        serde_json::from_str(&told(&run(&["node", "add", "gpu-02", "--output", "json"], data.path())))
            .unwrap();
    let (id, token) = (added["nodeId"].as_str().unwrap(), added["token"].as_str().unwrap());
    assert_eq!(added["command"], format!("sudo aio-worker install --token {token}"));
    let report = http
        .post(format!("{}/nodes/{id}/installation", served.url))
        .bearer_auth(token)
        .json(&json!({"phase": "started"}));
    assert_eq!(report.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn an_operator_lists_nodes_and_revokes_their_tokens_while_the_server_runs() {
    let data = tempfile::tempdir().unwrap();
    let served = serve(data.path());
    let added: Value =
        serde_json::from_str(&told(&run(&["node", "add", "gpu-01", "--output", "json"], data.path())))
            .unwrap();
    let (id, token) = (added["nodeId"].as_str().unwrap(), added["token"].as_str().unwrap());
    let gateway = format!("{}/ws/node", served.url.replace("http", "ws"));
    let mut worker = Worker::welcomed(&gateway, id, token).await;
    let listed = told(&run(&["node", "list"], data.path()));
    assert!(listed.starts_with(id) && listed.contains("online") && listed.ends_with("gpu-01"), "{listed}");

    told(&run(&["node", "token", "revoke", id], data.path()));
    assert_eq!(worker.closed().await, 4401);
    let plan = harness::http().get(format!("{}/nodes/{id}/installation", served.url)).bearer_auth(token);
    assert_eq!(plan.send().await.unwrap().status(), 401);

    let unknown = run(&["node", "token", "revoke", "69396100cd71623c7bbfbfee"], data.path());
    assert_eq!(unknown.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&unknown.stderr).starts_with("error[NODE_NOT_FOUND]: "));
}

#[tokio::test]
async fn a_setting_that_cannot_be_is_named_with_its_cure() {
    let data = tempfile::tempdir().unwrap();
    let output = run(&["serve", "--heartbeat-timeout", "soon"], data.path());
    assert_eq!((output.status.code(), output.stdout.len()), (Some(78), 0));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.starts_with("error[CONFIG_INVALID]: HEARTBEAT_TIMEOUT ") && text.contains("cure: "),
        "{text}"
    );

    let file = data.path().join("controller.toml");
    std::fs::write(&file, "listen = \"127.0.0.1:0\"\nheartbeat_timout = \"120s\"\n").unwrap();
    let output = run(&["serve", "--config", file.to_str().unwrap()], data.path());
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("heartbeat_timout") && text.contains("controller.toml"), "{text}");
}

#[test]
fn a_check_says_whether_it_would_start_and_leaves_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    assert_eq!(told(&run(&["serve", "--check"], &data)), "the configuration and the secrets can be used");
    assert!(!data.exists());

    let impossible =
        program(&["serve", "--check"], &data).env("NOTI_WEBHOOK_SECRET", "whsec_no base64, sorry").output();
    let refused = run(&["serve", "--check", "--listen", "0.0.0.0:0"], &data);
    std::fs::create_dir_all(data.join("secrets")).unwrap();
    std::fs::write(data.join("secrets/jwt-secret"), "").unwrap();
    let plain =
        |name: &str, url: &str| program(&["serve", "--check"], &data).env(name, url).output().unwrap();
    let emptied = run(&["serve", "--check"], &data);
    for (output, status, code) in [
        (impossible.unwrap(), 78, "CONFIG_INVALID"),
        (refused, 78, "INSECURE_LISTEN"),
        (plain("NOTI_SERVICE_URL", "http://192.0.2.1"), 78, "INSECURE_URL"),
        (plain("NOTI_SERVICE_URL", "http://localhost.evil"), 78, "INSECURE_URL"),
        (plain("NOTI_SERVICE_URL", "http://localhost@evil.example"), 78, "CONFIG_INVALID"),
        (plain("PUBLIC_URL", "http://aiwm.example"), 78, "INSECURE_URL"),
        (plain("RELEASE_BASE_URL", "http://192.0.2.1/r"), 78, "INSECURE_URL"),
        (emptied, 74, "FILE_FAILED"),
    ] {
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(status), 0), "{text}");
        assert!(text.starts_with(&format!("error[{code}]: ")) && !text.contains("sorry"), "{text}");
    }
}

#[cfg(feature = "pages")]
#[test]
fn a_check_reads_what_is_said_of_an_identity_provider_and_asks_it_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (data, secret) = (folder.path().join("data"), folder.path().join("secret"));
    let check = |name: &str, value: &str| {
        program(&["serve", "--check"], &data)
            .env("OIDC_ISSUER", "https://id.invalid/realms/gpu")
            .env("OIDC_CLIENT_ID", "aio")
            .env("OIDC_ROLES", "staff=organization.viewer")
            .env(name, value)
            .output()
            .unwrap()
    };
    let of_file = |text: &str, mode: u32| {
        std::fs::write(&secret, text).unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(mode)).unwrap();
        check("OIDC_CLIENT_SECRET_FILE", secret.to_str().unwrap())
    };
    assert_eq!(told(&check("OIDC_NAME", "Example ID")), "the configuration and the secrets can be used");
    assert_eq!(told(&of_file("of the provider\n", 0o600)), "the configuration and the secrets can be used");
    for (output, status, code) in [
        (of_file("of the provider", 0o644), 78, "SECRET_EXPOSED"),
        (of_file("\n", 0o600), 78, "CONFIG_INVALID"),
        (check("OIDC_CLIENT_SECRET_FILE", "/nowhere"), 74, "FILE_FAILED"),
        (check("OIDC_ROLES", "staff=organisation.viewer"), 78, "CONFIG_INVALID"),
        (check("OIDC_ISSUER", "http://id.invalid"), 78, "CONFIG_INVALID"),
        (check("OTLP_ENDPOINT", "http://192.0.2.1:4318"), 78, "INSECURE_URL"),
    ] {
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{text}");
        assert!(text.starts_with(&format!("error[{code}]: ")) && !text.contains("of the provider"), "{text}");
    }
}

#[test]
fn without_the_journal_behind_it_the_log_is_text_on_standard_error() {
    let data = tempfile::tempdir().unwrap();
    let mut child = program(&["serve", "--listen", "127.0.0.1:0"], data.path())
        .env("JOURNAL_STREAM", "1:1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = lines.find_map(|line| line.ok().filter(|line| line.contains("the controller runs")));
    let _ = child.kill();
    child.wait().unwrap();
    assert!(line.is_some_and(|line| line.contains("INFO") && line.contains("address=")));
}

#[tokio::test]
async fn a_backup_of_a_running_controller_as_the_page_makes_it_is_one_that_serves() {
    let page = include_str!("../../../docs/operations.md");
    let (_, commands) = page.split_once("```sh\nsqlite3 ").unwrap();
    let commands = format!("sqlite3 {}", commands.split("```").next().unwrap());
    let place = tempfile::tempdir().unwrap();
    let (data, backup) = (place.path().join("data"), place.path().join("backup"));
    std::fs::create_dir(&backup).unwrap();
    let served = serve(&data);
    let added: Value =
        serde_json::from_str(&told(&run(&["node", "add", "gpu", "--output", "json"], &data))).unwrap();
    let commands = commands.replace("/backup", backup.to_str().unwrap());
    let copied = Command::new("sh").args(["-euc", &commands]).current_dir(place.path()).output().unwrap();
    assert!(copied.status.success(), "{commands}{}", String::from_utf8_lossy(&copied.stderr));
    drop(served);

    let restored = serve(&backup);
    assert!(told(&run(&["node", "list"], &backup)).ends_with("  gpu"));
    let token = added["token"].as_str().unwrap();
    let url = format!("{}/nodes/{}/installation", restored.url, added["nodeId"].as_str().unwrap());
    let answer = harness::http().get(url).bearer_auth(token).send().await.unwrap();
    // The token is good; the release is not published here.
    assert_eq!(answer.json::<Value>().await.unwrap()["code"], "RELEASE_NOT_FOUND");
}

#[test]
fn a_reader_that_has_had_enough_is_no_error() {
    let data = tempfile::tempdir().unwrap();
    serve(data.path());
    let names: Vec<_> = (0..50).map(|number| format!("gpu-{number}")).collect();
    let arguments: Vec<_> = ["node", "add"].into_iter().chain(names.iter().map(String::as_str)).collect();
    assert!(run(&arguments, data.path()).status.success());
    for arguments in [
        &["node", "list"][..],
        &["node", "list", "--output", "json"],
        &["audit"],
        &["audit", "--format", "csv"],
    ] {
        // Nobody holds the other end of this pipe.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child = program(arguments, data.path()).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{arguments:?}: {output:?}");
    }
}

#[test]
fn a_node_is_named_by_its_name_and_found_by_label_and_status() {
    let data = tempfile::tempdir().unwrap();
    serve(data.path());
    let printed = |arguments: &[&str]| {
        let output = run(arguments, data.path());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    printed(&["node", "add", "gpu-10", "gpu-2"]);
    let names = |arguments: &[&str]| {
        let listed = printed(&[&["node", "list"], arguments].concat());
        listed.lines().map(|line| line.split_whitespace().last().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&[]), ["gpu-2", "gpu-10"]);
    assert!(printed(&["node", "label", "gpu-2", "rack=r7", "zone=a"]).ends_with("gpu-2  rack=r7,zone=a\n"));
    assert!(printed(&["node", "label", "gpu-2", "zone-"]).ends_with("gpu-2  rack=r7\n"));
    printed(&["node", "rename", "gpu-2", "gpu-3"]);
    assert_eq!(names(&["--label", "rack=r7", "--status", "pending,online"]), ["gpu-3"]);
    assert!(printed(&["node", "token", "add", "gpu-3"]).starts_with("sudo aio-worker install --token "));
    assert!(printed(&["node", "token", "revoke", "gpu-3"]).ends_with(" are revoked\n"));
    for (arguments, code) in [
        (&["node", "rename", "gpu-3", "gpu-10"][..], "NAME_TAKEN"),
        (&["node", "rename", "gpu-2", "gpu-4"], "NODE_NOT_FOUND"),
        (&["node", "label", "gpu-3", "a b=c"], "USAGE"),
        (&["node", "label", "gpu-3", "rack"], "USAGE"),
        (&["node", "add", "gpu-3"], "USAGE"),
    ] {
        let output = run(arguments, data.path());
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains(&format!("error[{code}]")), "{arguments:?}: {told}");
    }
}

#[test]
fn a_webhook_is_made_listed_tested_and_removed_on_the_command_line() {
    let data = tempfile::tempdir().unwrap();
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{nowhere}/hook");
    let refused = run(&["webhook", "add", &url], data.path());
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("WEBHOOK_NETWORKS"), "{refused:?}");
    let allowed = |arguments: &[&str]| {
        let output = program(arguments, data.path()).env("WEBHOOK_NETWORKS", "127.0.0.1").output().unwrap();
        told(&output)
    };
    let added = allowed(&["webhook", "add", &url, "--event", "alarm.raised", "--description", "pager"]);
    let (id, secret) = added.split_once("  ").unwrap();
    assert!(secret.starts_with("whsec_"), "{added}");
    let listed = allowed(&["webhook", "list"]);
    assert_eq!(listed, format!("{id}  {url}  alarm.raised  0 wait, 0 were given up  pager"));
    assert!(allowed(&["webhook", "test", id]).contains("webhook.test  failed  it did not answer: "));
    assert_eq!(allowed(&["webhook", "attempts", id]).lines().count(), 1);
    assert!(allowed(&["webhook", "rotate", id]).starts_with(&format!("{id}  whsec_")));
    assert!(allowed(&["webhook", "replay", id]).starts_with("0 events"));
    allowed(&["webhook", "remove", id]);
    assert!(run(&["webhook", "list"], data.path()).stdout.is_empty());
    let gone = run(&["webhook", "attempts", id], data.path());
    assert!(String::from_utf8_lossy(&gone.stderr).contains("NOT_FOUND"), "{gone:?}");
    let trail = run(&["audit"], data.path());
    let trail = String::from_utf8_lossy(&trail.stdout);
    assert!(trail.contains("webhook.rotate") && !trail.contains("/hook"), "{trail}");
}
