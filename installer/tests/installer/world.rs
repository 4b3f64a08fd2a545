//! A machine under a root of its own, with the controller that it talks to and the daemon that
//! comes to life on it.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use aio_host::{
    layout::{Layout, UNIT},
    systemd::fake::FakeSystemd,
};
use aio_installer::{
    Accounts, Checkpoint, Failure, Goal, Host, Interrupt, Lines, Request, ServiceLog, Surroundings,
    Uneventful,
    console::Console,
    install::{Outcome, OutcomeKind, install},
    parse_token,
};
use aio_protocol::{
    release::{Platform, ReleaseVersion},
    time::Timestamp,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::server::{self, Behaviour, Shared};

pub const NODE: &str = "69396100cd71623c7bbfbfee";

/// How the daemon's session stands.
#[derive(Debug, Clone)]
pub enum Daemon {
    /// It is online as this node.
    Online(&'static str),
    /// It never gets there, and says why.
    Stuck(Option<&'static str>),
    /// It connects first and is online a little later.
    OnlineSoon,
    /// It is online, and shows no GPU.
    WithoutGpus,
    /// As another version than this one, it is online; as this one, it is as the other says.
    Unlike(&'static str, Box<Daemon>),
}

/// A machine and everything around it.
pub struct World {
    pub dir: tempfile::TempDir,
    pub host: Host,
    pub systemd: FakeSystemd,
    pub server: Shared,
    pub daemon: Arc<Mutex<Daemon>>,
    pub request: Request,
}

impl World {
    pub async fn new() -> Self {
        aio_host::tls::install_provider();
        let dir = tempfile::tempdir().unwrap();
        for folder in ["etc/systemd/system", "usr/local/bin", "usr/local/lib", "var/lib", "run"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        for (file, text) in [
            ("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n"),
            ("etc/group", "root:x:0:\n"),
            ("etc/os-release", "ID=ubuntu\nVERSION_ID=\"22.04\"\n"),
            ("etc/passwd-", "an older state of passwd\n"),
        ] {
            fs::write(dir.path().join(file), text).unwrap();
        }
        let layout = Layout::under(dir.path());
        let (systemd, client) = FakeSystemd::start(&layout).await.unwrap();
        let server = server::start(NODE).await;
        let daemon = Arc::new(Mutex::new(Daemon::Online(NODE)));
        let accounts = Box::new(FileAccounts { root: dir.path().to_owned() });
        let service_log = Box::new(Said(Arc::clone(&server)));
        let host = Host { layout, systemd: client, accounts, service_log, platform: Platform::LinuxAmd64 };
        let mut world = Self { dir, host, systemd, server, daemon, request: placeholder() };
        world.daemon_comes_to_life();
        world.use_token("first", &json!({}));
        world
    }

    /// The service's start is the daemon's, unless a test says otherwise.
    pub fn daemon_comes_to_life(&self) {
        let (layout, daemon) = (self.host.layout.clone(), Arc::clone(&self.daemon));
        self.systemd.on_start(move |unit| {
            if unit == UNIT {
                run_daemon(&layout, &daemon);
            }
        });
    }

    /// Makes the request carry a token with these claims beside the usual ones, and the controller know it.
    pub fn use_token(&mut self, jti: &str, changes: &Value) {
        let base = self.change(|server| server.base.clone());
        let text = token(&base, jti, changes);
        self.request.token = parse_token(&text.as_str().into(), Timestamp::from_millis(0)).unwrap();
        self.change(|server| server.token = Some(text));
    }

    pub fn change<T>(&self, change: impl FnOnce(&mut Behaviour) -> T) -> T {
        change(&mut self.server.lock().unwrap())
    }

    pub fn daemon_is(&self, daemon: Daemon) {
        *self.daemon.lock().unwrap() = daemon;
    }

    pub async fn install(&self) -> Result<Outcome, Failure> {
        self.install_with(&Uneventful, Box::pin(std::future::pending())).await
    }

    pub async fn install_with(
        &self,
        checkpoint: &dyn Checkpoint,
        interrupt: Interrupt<'_>,
    ) -> Result<Outcome, Failure> {
        let request = Request { began: Instant::now(), ..self.request.clone() };
        install(&self.host, &request, Surroundings { console: &Console::Silent, checkpoint, interrupt }).await
    }

    /// The steps that a dry run plans.
    pub async fn planned(&self) -> Vec<&'static str> {
        let request = Request { dry_run: true, ..self.request.clone() };
        let surroundings = Surroundings {
            console: &Console::Silent,
            checkpoint: &Uneventful,
            interrupt: Box::pin(std::future::pending()),
        };
        match install(&self.host, &request, surroundings).await.unwrap().kind {
            OutcomeKind::Planned { steps, .. } => steps.iter().map(|planned| planned.step).collect(),
            other => panic!("{other:?}"),
        }
    }

    pub fn reports(&self) -> Vec<Value> {
        self.change(|server| server.reports.clone())
    }

    /// The phases of all reports, progress left out.
    pub fn phases(&self) -> Vec<String> {
        let phases = self.reports().into_iter().map(|report| report["phase"].as_str().unwrap().to_owned());
        phases.filter(|phase| phase != "progress").collect()
    }

    pub fn release(&self, version: &str) -> PathBuf {
        self.host.layout.release(&version.parse::<ReleaseVersion>().unwrap()).join("aio-worker")
    }

    /// Everything under the root with mode, owner and content; what systemd keeps while a service
    /// runs is left out.
    pub fn listing(&self) -> Listing {
        let mut found = BTreeMap::new();
        list(self.dir.path(), self.dir.path(), &mut found);
        Listing {
            files: found,
            active: self.systemd.unit(UNIT).active_state,
            unit: self.systemd.unit(UNIT).file_state,
        }
    }
}

/// What a machine looks like to somebody who compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    pub files: BTreeMap<PathBuf, String>,
    pub active: String,
    pub unit: String,
}

impl Listing {
    /// The same without the installer's own folder.
    pub fn without_journal(mut self) -> Self {
        self.files.retain(|path, _| !path.starts_with("var/lib/aio-installer"));
        self
    }
}

fn list(root: &Path, dir: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().to_owned();
        if name.starts_with("run") {
            continue;
        }
        let metadata = path.symlink_metadata().unwrap();
        let content = if metadata.is_symlink() {
            format!("-> {}", fs::read_link(&path).unwrap().display())
        } else if metadata.is_file() {
            server::sha256(&fs::read(&path).unwrap())
        } else if metadata.is_dir() {
            list(root, &path, found);
            "folder".to_owned()
        } else {
            "something else".to_owned()
        };
        let mode = metadata.permissions().mode();
        found.insert(name, format!("{mode:o} {}:{} {content}", metadata.uid(), metadata.gid()));
    }
}

pub fn token(base: &str, jti: &str, changes: &Value) -> String {
    let mut claims = json!({
        "sub": NODE, "type": "node", "jti": jti, "iat": 0, "exp": 4_000_000_000_i64,
        "ctl": "ws://127.0.0.1:1/ws/node", "api": base,
    });
    for (key, value) in changes.as_object().unwrap() {
        claims[key] = value.clone();
    }
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", encode("{\"alg\":\"none\"}"), encode(&claims.to_string()), encode("signature"))
}

fn placeholder() -> Request {
    let token = token("http://127.0.0.1:1", "x", &json!({}));
    let token = parse_token(&token.as_str().into(), Timestamp::from_millis(0)).unwrap();
    Request { goal: Goal::Online(Duration::from_secs(10)), ..Request::new(token) }
}

/// Plays the daemon's part when its unit starts: state, and a status socket that speaks.
fn run_daemon(layout: &Layout, daemon: &Arc<Mutex<Daemon>>) {
    let installed = layout.command().exists() || layout.packaged_command().exists();
    assert!(installed, "a unit was started whose program is not there");
    fs::create_dir_all(layout.state_dir()).unwrap();
    fs::write(layout.state_dir().join("state.json"), "{}").unwrap();
    fs::create_dir_all(layout.runtime_dir()).unwrap();
    let _ = fs::remove_file(layout.status_socket());
    let listener = UnixListener::bind(layout.status_socket()).unwrap();
    let daemon = Arc::clone(daemon);
    let current = fs::read_link(layout.current()).ok();
    let version = current.and_then(|version| version.to_str()?.strip_prefix('v').map(str::to_owned));
    let version = version.unwrap_or_else(|| "1.0.0".to_owned());
    std::thread::spawn(move || {
        let snapshot = |node, online, code| snapshot(&version, node, online, code);
        for peer in listener.incoming() {
            let Ok(mut peer) = peer else { return };
            let daemon = match daemon.lock().unwrap().clone() {
                Daemon::Unlike(faulty, daemon) if faulty == version => *daemon,
                Daemon::Unlike(..) => Daemon::Online(NODE),
                daemon => daemon,
            };
            let lines = match daemon {
                Daemon::Online(node) => vec![snapshot(node, true, None)],
                Daemon::Stuck(code) => vec![snapshot(NODE, false, code)],
                Daemon::WithoutGpus => {
                    let mut told: Value = serde_json::from_str(&snapshot(NODE, true, None)).unwrap();
                    told["gpus"] = json!([]);
                    vec![told.to_string()]
                }
                Daemon::OnlineSoon => {
                    vec![
                        "a line of a newer daemon".to_owned(),
                        snapshot(NODE, false, None),
                        snapshot(NODE, true, None),
                    ]
                }
                Daemon::Unlike(..) => unreachable!("it was looked into"),
            };
            for line in lines {
                let _ = writeln!(peer, "{line}");
            }
            // The connection stays open as a daemon's does.
            std::mem::forget(peer);
        }
    });
}

fn snapshot(version: &str, node: &str, online: bool, code: Option<&str>) -> String {
    let mut session = json!({
        "state": if online { "online" } else { "connecting" },
        "detail": if online { "online" } else { "dialling ws://127.0.0.1:1" },
        "since": "2025-12-11T12:00:00.000Z", "sessions": 1,
    });
    if online {
        session["lastHeartbeatAt"] = "2025-12-11T12:00:00.100Z".into();
    }
    if let Some(code) = code {
        session["code"] = code.into();
    }
    json!({
        "version": version, "nodeId": node, "instanceId": "00000000-0000-4000-8000-000000000000",
        "controller": "ws://127.0.0.1:1/ws/node", "startedAt": "2025-12-11T12:00:00.000Z",
        "tokenExpiresAt": "2026-12-11T12:00:00.000Z", "session": session,
        "gpuDriver": { "state": "ok", "version": "550.54" },
        "gpus": [{ "deviceId": "0", "model": "NVIDIA H100", "memoryTotal": 85_899_345_920_u64 }],
        "gpuStatus": [], "health": { "state": "ok" },
    })
    .to_string()
}

/// Accounts as the system's tools keep them, in files under a root, backups and all.
struct FileAccounts {
    root: PathBuf,
}

impl FileAccounts {
    fn edit(&self, name: &str, edit: impl FnOnce(String) -> String) {
        let path = self.root.join("etc").join(name);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(self.root.join("etc").join(format!("{name}-")), &text).unwrap();
        fs::write(path, edit(text)).unwrap();
        fs::write(self.root.join("etc/.pwd.lock"), "").unwrap();
    }

    fn remove(&self, file: &str, name: &str) {
        let prefix = format!("{name}:");
        self.edit(file, |text| {
            text.lines().filter(|line| !line.starts_with(&prefix)).map(|line| format!("{line}\n")).collect()
        });
    }
}

/// A service that has said one thing, and the token by mistake.
struct Said(Shared);

impl ServiceLog for Said {
    fn last_lines<'a>(&'a self, unit: &'a str, _: SystemTime) -> Lines<'a> {
        let token = self.0.lock().unwrap().token.clone().unwrap_or_default();
        Box::pin(std::future::ready(vec![format!("{unit}: cannot open /etc/x"), format!("with {token}")]))
    }
}

type Ran<'a> = std::pin::Pin<Box<dyn Future<Output = Result<(), Failure>> + 'a>>;

impl Accounts for FileAccounts {
    fn create<'a>(&'a self, declaration: &'a Path) -> Ran<'a> {
        assert!(fs::read_to_string(declaration).unwrap().contains("u aio-worker"));
        self.edit("group", |text| text + "aio-worker:x:999:\n");
        self.edit("passwd", |text| text + "aio-worker:x:999:999::/:/usr/sbin/nologin\n");
        Box::pin(std::future::ready(Ok(())))
    }

    fn remove_user<'a>(&'a self, name: &'a str) -> Ran<'a> {
        self.remove("passwd", name);
        Box::pin(std::future::ready(Ok(())))
    }

    fn remove_group<'a>(&'a self, name: &'a str) -> Ran<'a> {
        self.remove("group", name);
        Box::pin(std::future::ready(Ok(())))
    }
}
