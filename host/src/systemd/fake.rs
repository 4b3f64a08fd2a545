//! A service manager for tests: it speaks systemd's D-Bus protocol over a socket pair, so that what
//! is tested is the real client. Unit files and enablement are real files under a [`Layout`]'s
//! root, as on a machine. Decides nothing about processes: a test plays the service's part.

mod interfaces;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use zbus::{Connection, Guid, connection::Builder};

use self::interfaces::FakeManager;
use super::{ServiceSettings, Systemd, UnitState};
use crate::layout::{Layout, USER};

/// What becomes of the next start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartOutcome {
    /// The service runs.
    Done,
    /// It ends at once: the job ends with `failed`.
    Failed,
    /// It does not say in time that it is ready: the job ends with `failed`, the unit's result is `timeout`.
    Timeout,
    /// The job never ends.
    Never,
}

/// The handle by which a test looks at the fake manager and tells it what to do.
#[derive(Debug, Clone)]
pub struct FakeSystemd {
    machine: Machine,
    // The manager lives as long as somebody holds its end of the socket pair.
    connection: Connection,
}

impl FakeSystemd {
    /// A manager of the machine under `layout`'s root, and the real client connected to it.
    pub async fn start(layout: &Layout) -> zbus::Result<(Self, Systemd)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        let machine = Machine::under(layout.root());
        let server = Builder::unix_stream(ours)
            .server(Guid::generate())
            .p2p()
            .serve_at("/org/freedesktop/systemd1", FakeManager::new(machine.clone()))
            .build();
        let client = Builder::unix_stream(theirs).p2p().build();
        let (connection, client) = tokio::try_join!(server, client)?;
        Ok((Self { machine, connection }, Systemd::over(client)))
    }

    /// What was called, in order, e.g. `StartUnit(aio-worker.service)`.
    pub fn calls(&self) -> Vec<String> {
        self.machine.lock().calls.clone()
    }

    /// A unit as the manager sees it at this moment.
    pub fn unit(&self, name: &str) -> UnitState {
        self.machine.lock().unit(name)
    }

    /// Changes what the manager says of a unit: its service crashed, is restarted again and again,
    /// spoke of itself, …
    pub fn change(&self, name: &str, change: impl FnOnce(&mut UnitState)) {
        change(self.machine.lock().entry(name));
    }

    /// The same, and the manager announces it to who subscribed.
    pub async fn announce(&self, name: &str, change: impl FnOnce(&mut UnitState)) -> zbus::Result<()> {
        self.change(name, change);
        const UNIT: &str = "org.freedesktop.systemd1.Unit";
        let words = (UNIT, HashMap::<&str, zbus::Variant<'_>>::new(), vec!["ActiveState"]);
        let path = interfaces::unit_path(name)?;
        let (interface, member) = ("org.freedesktop.DBus.Properties", "PropertiesChanged");
        self.connection.emit_signal(None::<&str>, &path, interface, member, &words).await
    }

    /// Decides the next start that is not decided yet; others succeed.
    pub fn next_start(&self, outcome: StartOutcome) {
        self.machine.lock().outcomes.push_back(outcome);
    }

    /// Has every call of `method` refused with this D-Bus error.
    pub fn refuse(&self, method: &'static str, name: &str, message: &str) {
        let refusal = Refusal { name: name.to_owned(), message: message.to_owned() };
        self.machine.lock().refusals.insert(method, refusal);
    }

    /// Has every job wait for a job of the first of these units, which waits for one of the second,
    /// and so on.
    pub fn queue_behind(&self, units: &[&str]) {
        self.machine.lock().queue = units.iter().map(|unit| (*unit).to_owned()).collect();
    }

    /// What the service manager gives the services, after all drop-ins.
    pub fn give(&self, settings: ServiceSettings) {
        self.machine.lock().settings = Some(settings);
    }

    /// Masks a unit as `systemctl mask` does.
    pub fn mask(&self, name: &str) -> io::Result<()> {
        let file = self.machine.lock().units_dir().join(name);
        if let Some(dir) = file.parent() {
            fs::create_dir_all(dir)?;
        }
        std::os::unix::fs::symlink("/dev/null", file)
    }

    /// Calls `service` with the unit's name whenever a unit starts, before its job ends: it plays
    /// the service's part.
    pub fn on_start(&self, service: impl Fn(&str) + Send + Sync + 'static) {
        self.machine.lock().service = Some(Service(Arc::new(service)));
    }

    /// Breaks the connection, as when the machine's bus dies.
    pub async fn hang_up(self) -> zbus::Result<()> {
        self.connection.close().await
    }
}

/// The state behind all D-Bus objects.
#[derive(Debug, Clone)]
struct Machine(Arc<Mutex<State>>);

impl Machine {
    fn under(root: &Path) -> Self {
        Self(Arc::new(Mutex::new(State { root: root.to_owned(), ..State::default() })))
    }

    /// As the worker's unit has them, unless a test says otherwise.
    fn settings(&self) -> ServiceSettings {
        self.lock().settings.clone().unwrap_or_else(|| ServiceSettings {
            drop_ins: Vec::new(),
            user: USER.to_owned(),
            credentials: vec!["token".to_owned()],
            runtime_directories: vec![USER.to_owned()],
            state_directories: vec![USER.to_owned()],
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct State {
    root: PathBuf,
    calls: Vec<String>,
    subscribed: bool,
    jobs: u32,
    /// What the manager has in memory; `fragment` and `load_state` are as old as its last look at the files.
    units: BTreeMap<String, UnitState>,
    outcomes: VecDeque<StartOutcome>,
    refusals: BTreeMap<&'static str, Refusal>,
    service: Option<Service>,
    queue: Vec<String>,
    settings: Option<ServiceSettings>,
}

#[derive(Debug, Clone)]
struct Refusal {
    name: String,
    message: String,
}

#[derive(Clone)]
struct Service(Arc<dyn Fn(&str) + Send + Sync>);

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Service")
    }
}

impl State {
    fn units_dir(&self) -> PathBuf {
        self.root.join("etc/systemd/system")
    }

    /// The unit's file: an admin's own, or else one until the next boot, or a package's.
    fn unit_file(&self, name: &str) -> PathBuf {
        let own = self.units_dir().join(name);
        let others = ["run/systemd/system", "usr/lib/systemd/system"];
        let mut others = others.map(|folder| self.root.join(folder).join(name)).into_iter();
        let other = others.find(|file| own.symlink_metadata().is_err() && file.is_file());
        other.unwrap_or(own)
    }

    /// A unit, loaded now unless it was before. Like systemd, which then sees later changes of the
    /// file only when it reloads.
    fn entry(&mut self, name: &str) -> &mut UnitState {
        let file = self.unit_file(name);
        let unit = self.units.entry(name.to_owned()).or_insert_with(|| UnitState {
            load_state: "not-found".into(),
            active_state: "inactive".into(),
            sub_state: "dead".into(),
            result: "success".into(),
            ..UnitState::default()
        });
        if unit.load_state == "not-found" {
            load(unit, &file);
        }
        unit
    }

    fn unit(&mut self, name: &str) -> UnitState {
        let file_state = self.file_state(name).unwrap_or_default();
        UnitState { file_state, ..self.entry(name).clone() }
    }

    /// When the unit became `active_state`, in microseconds; 0 where it is something else.
    fn entered(&mut self, name: &str, active_state: &str) -> u64 {
        if self.unit(name).active_state == active_state { interfaces::CHANGED } else { 0 }
    }

    fn reload(&mut self) {
        let files: Vec<_> = self.units.keys().map(|name| self.unit_file(name)).collect();
        for (unit, file) in self.units.values_mut().zip(files) {
            load(unit, &file);
        }
    }

    /// `None` when there is no unit file.
    fn file_state(&self, name: &str) -> Option<String> {
        let file = self.unit_file(name);
        file.symlink_metadata().ok()?;
        let state = if masked(&file) {
            "masked"
        } else if self.wants(name).iter().any(|link| link.symlink_metadata().is_ok()) {
            "enabled"
        } else if self.wants(name).is_empty() {
            "static"
        } else {
            "disabled"
        };
        Some(state.to_owned())
    }

    /// The links that make the unit start at boot, as its `[Install]` section says.
    fn wants(&self, name: &str) -> Vec<PathBuf> {
        let text = fs::read_to_string(self.unit_file(name)).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.strip_prefix("WantedBy="))
            .flat_map(str::split_whitespace)
            .map(|target| self.units_dir().join(format!("{target}.wants")).join(name))
            .collect()
    }
}

fn masked(file: &Path) -> bool {
    fs::read_link(file).is_ok_and(|target| target == Path::new("/dev/null"))
}

fn load(unit: &mut UnitState, file: &Path) {
    let (load_state, fragment) = if file.symlink_metadata().is_err() {
        ("not-found", None)
    } else if masked(file) {
        ("masked", Some(file.to_owned()))
    } else {
        ("loaded", Some(file.to_owned()))
    };
    unit.load_state = load_state.to_owned();
    unit.fragment = fragment;
}
