//! A controller as an ordinary process on a free port, and its API as a user of one organisation sees it.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::Once,
    time::Duration,
};

use aio_protocol::{event::NodeEvent, ids::NodeId, node::NodeStatus, time::Timestamp};
use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, Header};
use reqwest::{
    Certificate, StatusCode,
    blocking::{Client, RequestBuilder},
};
use rustix::process::Signal;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{artifacts::Artifacts, process::Running, wait::wait_for};

/// The organisation and the user that own every node here.
pub const ORGANISATION: &str = "org-tests";
/// What has the controller write a line for each heartbeat.
pub const HEARTBEATS: &str = "info,controller_stub::gateway=trace";
/// See [`ORGANISATION`].
pub const USER: &str = "user-tests";

const ANSWER: Duration = Duration::from_secs(10);
const NAMES_ON_A_LINE: usize = 1000;
/// Of the controller's environment, what a command needs where the data folder does not hold it.
const COMMANDS_NEED: [&str; 2] = ["DATABASE_URL", "JWT_SECRET"];

/// How a controller is started.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    releases: Option<PathBuf>,
    listen: Option<String>,
    heartbeat_timeout: Option<String>,
    config: Option<String>,
    environment: Vec<(String, String)>,
}

impl Settings {
    /// Serves this tree of releases.
    pub fn releases(mut self, tree: &Path) -> Self {
        self.releases = Some(tree.to_owned());
        self
    }

    /// Listens there, instead of on a free port of the loopback.
    pub fn listen(mut self, address: &str) -> Self {
        self.listen = Some(address.to_owned());
        self
    }

    /// How long a silent worker counts as there, e.g. `3s`.
    pub fn heartbeat_timeout(mut self, timeout: &str) -> Self {
        self.heartbeat_timeout = Some(timeout.to_owned());
        self
    }

    /// The text of a configuration file.
    pub fn config(mut self, text: &str) -> Self {
        self.config = Some(text.to_owned());
        self
    }

    /// A variable of its environment, e.g. `RELEASE_BASE_URL`.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A controller that runs.
#[derive(Debug)]
pub struct Controller {
    process: Running,
    base: String,
    user_token: String,
    client: Client,
    program: PathBuf,
    settings: Settings,
    folder: TempDir,
}

/// A node as the API shows it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its id.
    #[serde(rename = "_id")]
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Its status.
    pub status: NodeStatus,
    /// Whether a worker's socket is open.
    #[serde(default)]
    pub websocket_connected: bool,
    /// The last message of its worker.
    #[serde(default)]
    pub last_seen_at: Option<Timestamp>,
}

/// A node that was registered on the command line, and its token.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Enrolled {
    /// The node.
    pub node_id: NodeId,
    /// Its token.
    pub token: String,
}

/// The answer to a request for a token.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IssuedToken {
    /// The token.
    pub token: String,
    /// The script that installs with it; none while the release is not published.
    pub install_script: Option<String>,
    /// Where the worker is downloaded.
    pub download_url: String,
    /// Its SHA-256; none while the release is not published.
    pub checksum: Option<String>,
    /// The release.
    pub daemon_version: String,
}

/// An event as NOTI keeps it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct StoredEvent {
    /// The same over all deliveries.
    pub id: String,
    /// What was posted.
    #[serde(flatten)]
    pub event: NodeEvent,
}

impl StoredEvent {
    /// Its type on the wire.
    pub fn kind(&self) -> &'static str {
        self.event.kind().as_str()
    }
}

impl Controller {
    /// Starts a controller with a data folder of its own, and waits until it listens.
    pub fn start(artifacts: &Artifacts, settings: &Settings) -> Result<Self> {
        install_tls();
        let folder = tempfile::tempdir()?;
        let program = artifacts.controller()?;
        let listen = settings.listen.as_deref().unwrap_or("127.0.0.1:0");
        let (process, base) = serve(&program, folder.path(), settings, listen)?;
        let data = folder.path().join("data");
        let user_token = print(&program, &data, settings, &["user-token", "--role", "organization.owner"])?;
        let mut client = Client::builder().timeout(ANSWER).no_proxy();
        if base.starts_with("https:") {
            let authority = std::fs::read(data.join("tls/authority.pem"))?;
            client = client.tls_certs_only([Certificate::from_pem(&authority)?]);
        }
        let client = client.build()?;
        Ok(Self { process, base, user_token, client, program, settings: settings.clone(), folder })
    }

    /// Starts it again where it was, after a kill.
    pub fn start_again(&mut self) -> Result<()> {
        // What it prints is how this computer reaches it, which is not every address that it listens on.
        let printed = self.base.split_once("://").map_or("", |(_, address)| address);
        let chosen = self.settings.listen.as_deref().filter(|address| !address.ends_with(":0"));
        let address = chosen.unwrap_or(printed).to_owned();
        (self.process, self.base) = serve(&self.program, self.folder.path(), &self.settings, &address)?;
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.process.child.kill()?;
        self.process.child.wait()?;
        Ok(())
    }

    /// SIGSTOP: the kernel still takes connections for it, and nobody answers.
    pub fn freeze(&self) -> Result<()> {
        self.process.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn thaw(&self) -> Result<()> {
        self.process.signal(Signal::CONT)
    }

    /// Whether the process has ended by itself, and how.
    pub(crate) fn has_ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.process.child.try_wait()?)
    }

    /// Its database.
    pub fn database(&self) -> PathBuf {
        self.folder.path().join("data/controller.db")
    }

    /// Its time on a processor so far.
    pub fn processor_time(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.child.id()))?;
        // The name stands in parentheses, and may have spaces.
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
        let (user, system) = ticks(11).zip(ticks(12)).context("/proc/…/stat cannot be read")?;
        Ok(Duration::from_secs(user + system) / u32::try_from(rustix::param::clock_ticks_per_second())?)
    }

    /// Registers nodes on the command line, with their tokens.
    pub fn enrol(&self, count: usize) -> Result<Vec<Enrolled>> {
        let names: Vec<_> = (0..count).map(|index| format!("gpu-{index:05}")).collect();
        let mut enrolled = Vec::with_capacity(count);
        for names in names.chunks(NAMES_ON_A_LINE) {
            let mut command = vec!["node", "add", "--output", "json"];
            command.extend(names.iter().map(String::as_str));
            for line in
                print(&self.program, &self.folder.path().join("data"), &self.settings, &command)?.lines()
            {
                enrolled.push(serde_json::from_str(line)?);
            }
        }
        Ok(enrolled)
    }

    /// Where it listens, e.g. `http://127.0.0.1:40001`.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// When each heartbeat came, and its number in the session of its worker. The controller has to
    /// be started with [`HEARTBEATS`] as its `RUST_LOG`.
    pub fn heartbeats(&self) -> Result<Vec<(Timestamp, u64)>> {
        let log = self.process.log()?;
        let beat = |line: &str| {
            let (at, told) = line.split_once(' ')?;
            let seq = told.contains(": heartbeat ").then(|| told.split_once(" seq=")).flatten()?.1;
            Some((at.parse().ok()?, seq.trim().parse().ok()?))
        };
        Ok(log.lines().filter_map(beat).collect())
    }

    /// The last lines of its log, for messages of failed tests.
    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }

    /// Ends it in good order.
    pub fn stop(mut self) -> Result<()> {
        let status = self.process.stop()?;
        ensure!(status.success(), "the controller ended with {status}; {}", self.process.log_tail());
        Ok(())
    }

    /// Registers a node.
    pub fn register(&self, name: &str) -> Result<Node> {
        self.answer(self.client.post(self.at("/nodes")).json(&json!({ "name": name, "role": ["worker"] })))
    }

    /// `controller-stub node add`: registers a node and gives the command to run on it.
    pub fn add_on_the_command_line(&self, name: &str) -> Result<String> {
        print(&self.program, &self.folder.path().join("data"), &self.settings, &["node", "add", name])
    }

    /// `controller-stub node add --output …`: registers nodes and gives what it prints.
    pub fn added_as(&self, output: &str, names: &[&str]) -> Result<String> {
        let command = [&["node", "add", "--output", output], names].concat();
        print(&self.program, &self.folder.path().join("data"), &self.settings, &command)
    }

    /// `controller-stub login`: a link to the pages that works once.
    pub fn login(&self) -> Result<String> {
        let link = print(
            &self.program,
            &self.folder.path().join("data"),
            &self.settings,
            &["login", "--valid-for", "3600"],
        )?;
        Ok(link.trim().to_owned())
    }

    /// What an installer reports of a node, with the node's token.
    pub fn report(&self, id: &NodeId, token: &str, report: &Value) -> Result<()> {
        let request = self.client.post(self.at(&format!("/nodes/{id}/installation"))).json(report);
        let response = request.bearer_auth(token).send()?;
        ensure!(response.status().is_success(), "the report was refused: {}", response.text()?);
        Ok(())
    }

    /// `controller-stub node token add …`: makes new tokens and gives what it prints.
    pub fn add_tokens(&self, arguments: &[&str]) -> Result<String> {
        let command = [&["node", "token", "add"], arguments].concat();
        print(&self.program, &self.folder.path().join("data"), &self.settings, &command)
    }

    /// An organisation's node of this name.
    pub fn node_named(&self, name: &str) -> Result<Node> {
        #[derive(Deserialize)]
        struct Nodes {
            data: Vec<Node>,
        }
        let nodes: Nodes = self.answer(self.client.get(self.at("/nodes?limit=100")))?;
        nodes
            .data
            .into_iter()
            .find(|node| node.name == name)
            .with_context(|| format!("no node is called {name}"))
    }

    /// The node as it is now.
    pub fn node(&self, id: &NodeId) -> Result<Node> {
        self.answer(self.client.get(self.at(&format!("/nodes/{id}"))))
    }

    /// What the API answers to a question.
    pub fn ask(&self, path: &str) -> Result<Value> {
        self.answer(self.client.get(self.at(path)))
    }

    /// What the API answers to an order.
    pub fn order(&self, path: &str, body: &Value) -> Result<Value> {
        self.answer(self.client.post(self.at(path)).json(body))
    }

    /// A token for the node; `request` as the token API takes it.
    pub fn token(&self, id: &NodeId, request: &Value) -> Result<IssuedToken> {
        self.answer(self.client.post(self.at(&format!("/nodes/{id}/token"))).json(request))
    }

    /// The code of the refusal that the bearer of this token meets when it asks for the node's
    /// plan; none when it is answered.
    pub fn refusal_of(&self, id: &NodeId, token: &str) -> Result<Option<String>> {
        let answer =
            self.client.get(self.at(&format!("/nodes/{id}/installation"))).bearer_auth(token).send()?;
        if answer.status().is_success() {
            return Ok(None);
        }
        let body: Value = answer.json()?;
        Ok(body["code"].as_str().map(str::to_owned))
    }

    /// The token with other claims, signed as the controller signs: with the secret of its data folder.
    pub fn signed(&self, token: &str, change: impl FnOnce(&mut Value)) -> Result<String> {
        let claims = token.split('.').nth(1).context("no token")?;
        let mut claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?;
        change(&mut claims);
        let secret = std::fs::read_to_string(self.data_dir().join("secrets/jwt-secret"))?;
        let key = EncodingKey::from_secret(secret.trim().as_bytes());
        Ok(jsonwebtoken::encode(&Header::default(), &claims, &key)?)
    }

    /// The folder of its database and secrets.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What NOTI was told of the node, oldest first.
    pub fn events(&self, id: &NodeId) -> Result<Vec<StoredEvent>> {
        #[derive(Deserialize)]
        struct Events {
            data: Vec<StoredEvent>,
        }
        let events: Events = self.answer(self.client.get(self.at(&format!("/events?nodeId={id}"))))?;
        // These come seconds after what they are about; the controller's own tests are about them.
        let is_late =
            |event: &StoredEvent| event.kind().starts_with("alarm.") || event.kind() == "node.health_changed";
        Ok(events.data.into_iter().filter(|event| !is_late(event)).collect())
    }

    /// Waits until the node has this status.
    pub fn wait_for_status(&self, id: &NodeId, status: NodeStatus, bound: Duration) -> Result<Node> {
        let what = format!("node {id} to be {status}");
        wait_for(&what, bound, || self.node(id), |node| node.status == status)
            .with_context(|| self.log_tail())
    }

    /// Waits until NOTI was told of events of these kinds, in this order and no others.
    pub fn wait_for_events(&self, id: &NodeId, kinds: &[&str]) -> Result<Vec<StoredEvent>> {
        let told = |events: &Vec<StoredEvent>| events.iter().map(StoredEvent::kind).eq(kinds.iter().copied());
        wait_for(&format!("the events {kinds:?}"), ANSWER, || self.events(id), told)
            .with_context(|| self.log_tail())
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn answer<T: serde::de::DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        let (status, body) = self.send(request)?;
        ensure!(status.is_success(), "the controller answered {status}: {body}");
        serde_json::from_str(&body)
            .with_context(|| format!("the controller's answer is another than expected: {body}"))
    }

    fn send(&self, request: RequestBuilder) -> Result<(StatusCode, String)> {
        let response = request.bearer_auth(&self.user_token).send()?;
        Ok((response.status(), response.text()?))
    }
}

/// Starts a controller on `folder`, and says where it listens.
fn serve(program: &Path, folder: &Path, settings: &Settings, listen: &str) -> Result<(Running, String)> {
    let mut command = Command::new(program);
    command.args(["serve", "--listen", listen, "--data-dir"]).arg(folder.join("data"));
    if let Some(tree) = &settings.releases {
        command.arg("--releases").arg(tree);
    }
    if let Some(timeout) = &settings.heartbeat_timeout {
        command.args(["--heartbeat-timeout", timeout]);
    }
    if let Some(text) = &settings.config {
        let file = folder.join("controller.toml");
        std::fs::write(&file, text)?;
        command.arg("--config").arg(file);
    }
    command.envs(settings.environment.iter().map(|(name, value)| (name, value)));
    command.stdout(Stdio::piped());
    let mut process = Running::start(&mut command, &folder.join("controller.log"))?;
    let base = listening_address(&mut process)?;
    Ok((process, base))
}

/// The address in the one line that a controller prints when it is ready.
fn listening_address(process: &mut Running) -> Result<String> {
    let stdout = process.child.stdout.take().context("the controller's output is not piped")?;
    let mut lines = BufReader::new(stdout).lines();
    let line = lines.next().transpose()?;
    let Some(address) = line.as_deref().and_then(|line| line.strip_prefix("listening on ")) else {
        bail!("the controller did not say where it listens but {line:?}; {}", process.log_tail());
    };
    let address = address.trim_end_matches('/').to_owned();
    // Whatever else it prints must not fill the pipe.
    std::thread::spawn(move || lines.count());
    Ok(address)
}

/// What a subcommand prints that works on the data folder, for the organisation and the user of the tests.
fn print(program: &Path, data: &Path, settings: &Settings, subcommand: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(subcommand).args(["--org", ORGANISATION, "--user", USER, "--data-dir"]).arg(data);
    let shared = settings.environment.iter().filter(|(name, _)| COMMANDS_NEED.contains(&name.as_str()));
    let output = command.env_clear().envs(shared.map(|(name, value)| (name, value))).output()?;
    ensure!(output.status.success(), "{subcommand:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn install_tls() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // It fails only when one is installed already, and there is only this one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    });
}
