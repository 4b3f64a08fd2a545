//! The real controller as a process: started on a folder of its own, killed, started again on the
//! same port, and asked as a user of one organisation asks it.

use std::{
    collections::BTreeMap,
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aio_protocol::{
    aiwm::setup::NodeTokenClaims, claims::NodeTokenKind, ids::NodeId, time::Timestamp, wire::GATEWAY_PATH,
};
use anyhow::{Context, Result, ensure};
use jsonwebtoken::{EncodingKey, Header};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::{sleep, timeout},
};
use tokio_tungstenite::{Connector, tungstenite::http::Uri};

use crate::usage::{self, ProcessorTime};

pub(crate) const ORGANISATION: &str = "fleet";
const START: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_secs(30);
/// The most that a page of events has.
const PAGE: usize = 1000;
/// Of the one program that is published: more than all sockets of a client hold.
const RELEASE_BYTES: u64 = 64 * 1024 * 1024;
/// Names on one command line.
const BATCH: usize = 1000;
/// Where AIWM's workers connect.
const SOCKET_IO_PATH: &str = "/socket.io/?EIO=4&transport=websocket";
/// Seconds for which AIWM's node tokens last here: no run is longer.
const NODE_TOKEN_SECONDS: i64 = 6 * 3600;

/// What workers and controller speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Dialect {
    /// `aio.node.v1`
    #[default]
    Own,
    /// AIWM's, over Socket.IO
    Aiwm,
}

/// How a controller is started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mode {
    pub heartbeat_timeout: Duration,
    pub dialect: Dialect,
    /// With a certificate of its own authority.
    pub tls: bool,
}

pub(crate) struct Controller {
    program: PathBuf,
    folder: TempDir,
    mode: Mode,
    /// What it is told beside that.
    environment: Vec<(String, String)>,
    /// What its clients trust, over TLS.
    trust: Option<Arc<ClientConfig>>,
    address: SocketAddr,
    child: Child,
    // Held, so that the program may write to it.
    _stdout: Lines<BufReader<ChildStdout>>,
    http: reqwest::Client,
    user_token: String,
}

/// A node and its token.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Enrolled {
    pub node_id: NodeId,
    pub token: String,
}

/// How many events of each type NOTI has, and the last one's id.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub kinds: BTreeMap<String, u64>,
    since: Option<String>,
}

impl Controller {
    pub(crate) async fn start(program: PathBuf, mode: Mode) -> Result<Self> {
        Self::start_in(program, mode, Vec::new()).await
    }

    /// Starts one with more variables in its environment.
    pub(crate) async fn start_in(
        program: PathBuf,
        mode: Mode,
        environment: Vec<(String, String)>,
    ) -> Result<Self> {
        // It fails only when one is installed already, and there is only this one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = tempfile::tempdir()?;
        let release = folder.path().join("releases/v1.0.0");
        std::fs::create_dir_all(&release)?;
        File::create(release.join("linux-amd64"))?.set_len(RELEASE_BYTES)?;
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let (child, stdout, address) = serve(&program, folder.path(), any_port, mode, &environment).await?;
        let user_token = user_token(&program, folder.path(), &environment, ORGANISATION).await?;
        let trust = mode.tls.then(|| trust(&folder.path().join("data/tls/authority.pem"))).transpose()?;
        let mut http = reqwest::Client::builder().timeout(ANSWER).no_proxy();
        if let Some(trust) = &trust {
            http = http.tls_backend_preconfigured(ClientConfig::clone(trust));
        }
        let http = http.build()?;
        Ok(Self {
            program,
            folder,
            mode,
            environment,
            trust,
            address,
            child,
            _stdout: stdout,
            http,
            user_token,
        })
    }

    /// A token of a user of `organisation` who may do everything there.
    pub(crate) async fn user_token(&self, organisation: &str) -> Result<String> {
        user_token(&self.program, self.folder.path(), &self.environment, organisation).await
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn gateway(&self) -> Result<Uri> {
        let scheme = if self.mode.tls { "wss" } else { "ws" };
        let path = match self.mode.dialect {
            Dialect::Own => GATEWAY_PATH,
            Dialect::Aiwm => SOCKET_IO_PATH,
        };
        Ok(format!("{scheme}://{}{path}", self.address).parse()?)
    }

    /// What its workers speak.
    pub(crate) fn dialect(&self) -> Dialect {
        self.mode.dialect
    }

    /// How a worker encrypts what it says.
    pub(crate) fn connector(&self) -> Connector {
        self.trust.clone().map_or(Connector::Plain, Connector::Rustls)
    }

    /// SIGKILL.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Starts it again where it was; returns when it listens.
    pub(crate) async fn start_again(&mut self) -> Result<()> {
        (self.child, self._stdout, self.address) =
            serve(&self.program, self.folder.path(), self.address, self.mode, &self.environment).await?;
        Ok(())
    }

    /// Bytes of resident memory.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        usage::resident_bytes(self.pid()?)
    }

    /// Time on a processor so far.
    pub(crate) fn processor_time(&self) -> Result<ProcessorTime> {
        usage::processor_time(self.pid()?)
    }

    /// Descriptors that it has open.
    pub(crate) fn descriptors(&self) -> Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.pid()?))?.count())
    }

    /// What it wrote to its log so far, in bytes.
    pub(crate) fn log_bytes(&self) -> Result<u64> {
        Ok(std::fs::metadata(self.folder.path().join("controller.log"))?.len())
    }

    fn pid(&self) -> Result<u32> {
        self.child.id().context("the controller has ended")
    }

    /// Registers `count` nodes and makes their tokens, as an operator does on the command line.
    pub(crate) async fn enrol(&self, count: usize) -> Result<Vec<Enrolled>> {
        self.enrol_for(ORGANISATION, count).await
    }

    /// The same for another organisation.
    pub(crate) async fn enrol_for(&self, organisation: &str, count: usize) -> Result<Vec<Enrolled>> {
        let names: Vec<_> = (0..count).map(|index| format!("gpu-{index:05}")).collect();
        let mut enrolled = Vec::<Enrolled>::with_capacity(count);
        for names in names.chunks(BATCH) {
            let mut command = vec!["node", "add", "--org", organisation, "--user", organisation];
            command.extend(["--output", "json"]);
            command.extend(names.iter().map(String::as_str));
            for line in print(&self.program, self.folder.path(), &self.environment, &command).await?.lines() {
                enrolled.push(serde_json::from_str(line)?);
            }
        }
        ensure!(enrolled.len() == count, "{} of {count} nodes were registered", enrolled.len());
        if self.mode.dialect == Dialect::Aiwm {
            let secret = std::fs::read_to_string(self.folder.path().join("data/secrets/jwt-secret"))?;
            let key = EncodingKey::from_secret(secret.trim().as_bytes());
            for node in &mut enrolled {
                node.token = aiwm_token(&node.node_id, &key)?;
            }
        }
        Ok(enrolled)
    }

    /// Puts an index of releases beside the releases.
    pub(crate) fn write_index(&self, index: &str) -> Result<()> {
        Ok(std::fs::write(self.folder.path().join("releases/index.json"), index)?)
    }

    /// Asks as a user: with a body to do something, without one to look.
    pub(crate) async fn ask(&self, path: &str, body: Option<Value>) -> Result<Value> {
        let url = format!("http://{}{path}", self.address);
        let request = match body {
            Some(body) => self.http.post(url).json(&body),
            None => self.http.get(url),
        };
        let answer = request.bearer_auth(&self.user_token).send().await?;
        let (status, body) = (answer.status(), answer.json::<Value>().await?);
        ensure!(status.is_success(), "{path}: {status} {body}");
        Ok(body)
    }

    /// Counts what NOTI was told since the last count.
    pub(crate) async fn count_events(&self, tally: &mut Tally) -> Result<()> {
        #[derive(Deserialize)]
        struct Page {
            data: Vec<Event>,
        }
        #[derive(Deserialize)]
        struct Event {
            id: String,
            #[serde(rename = "type")]
            kind: String,
        }
        loop {
            let since = tally.since.as_ref().map(|id| format!("&since={id}")).unwrap_or_default();
            let scheme = if self.mode.tls { "https" } else { "http" };
            let url = format!("{scheme}://{}/events?limit={PAGE}{since}", self.address);
            let answer = self.http.get(url).bearer_auth(&self.user_token).send().await?;
            let page: Page = answer.error_for_status()?.json().await?;
            let last = page.data.len() < PAGE;
            for event in page.data {
                *tally.kinds.entry(event.kind).or_default() += 1;
                tally.since = Some(event.id);
            }
            if last {
                return Ok(());
            }
        }
    }

    /// Waits until NOTI was told of `count` events of this type.
    pub(crate) async fn told(
        &self,
        tally: &mut Tally,
        kind: &str,
        count: u64,
        bound: Duration,
    ) -> Result<()> {
        let waiting = async {
            loop {
                self.count_events(tally).await?;
                if tally.count(kind) >= count {
                    return Ok(());
                }
                sleep(Duration::from_millis(250)).await;
            }
        };
        match timeout(bound, waiting).await {
            Ok(done) => done,
            Err(_) => {
                anyhow::bail!("after {bound:?} NOTI knows of {:?}, {count} {kind} are due", tally.kinds)
            }
        }
    }
}

/// A node token as AIWM's login gives it, for longer.
fn aiwm_token(node: &NodeId, key: &EncodingKey) -> Result<String> {
    let iat = Timestamp::from(SystemTime::now()).as_millis() / 1000;
    let claims = NodeTokenClaims {
        sub: node.clone(),
        kind: NodeTokenKind::Node,
        username: None,
        status: None,
        roles: vec!["worker".to_owned()],
        org_id: None,
        iat,
        exp: iat + NODE_TOKEN_SECONDS,
    };
    Ok(jsonwebtoken::encode(&Header::default(), &claims, key)?)
}

impl Tally {
    pub(crate) fn count(&self, kind: &str) -> u64 {
        self.kinds.get(kind).copied().unwrap_or(0)
    }
}

async fn serve(
    program: &Path,
    folder: &Path,
    listen: SocketAddr,
    mode: Mode,
    environment: &[(String, String)],
) -> Result<(Child, Lines<BufReader<ChildStdout>>, SocketAddr)> {
    let log = File::options().create(true).append(true).open(folder.join("controller.log"))?;
    let mut child = Command::new(program)
        .args(["serve", "--listen", &listen.to_string(), "--data-dir"])
        .arg(folder.join("data"))
        .arg("--releases")
        .arg(folder.join("releases"))
        .args(["--heartbeat-timeout", &format!("{}ms", mode.heartbeat_timeout.as_millis())])
        .args(mode.tls.then_some("--tls-self-signed"))
        .args((mode.dialect == Dialect::Aiwm).then_some("--aiwm"))
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .env("RUST_LOG", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let stdout = child.stdout.take().context("the controller's output is not piped")?;
    let mut lines = BufReader::new(stdout).lines();
    let line = timeout(START, lines.next_line()).await.context("the controller does not start")??;
    let address = line.as_deref().and_then(|line| line.strip_prefix("listening on http"));
    let address = address.map(|rest| rest.trim_start_matches('s').trim_start_matches("://"));
    let log = || std::fs::read_to_string(folder.join("controller.log")).unwrap_or_default();
    let address = address.with_context(|| format!("the controller said {line:?}; its log:\n{}", log()))?;
    Ok((child, lines, address.parse()?))
}

fn trust(authority: &Path) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority)?)?;
    Ok(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}

async fn user_token(
    program: &Path,
    folder: &Path,
    environment: &[(String, String)],
    organisation: &str,
) -> Result<String> {
    let command = ["user-token", "--org", organisation, "--user", organisation];
    Ok(print(program, folder, environment, &command).await?.trim().to_owned())
}

/// What a subcommand prints that works on the data folder.
async fn print(
    program: &Path,
    folder: &Path,
    environment: &[(String, String)],
    subcommand: &[&str],
) -> Result<String> {
    let output = Command::new(program)
        .args(subcommand)
        .arg("--data-dir")
        .arg(folder.join("data"))
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .env("RUST_LOG", "error")
        .output()
        .await?;
    let name = subcommand.first().unwrap_or(&"");
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
