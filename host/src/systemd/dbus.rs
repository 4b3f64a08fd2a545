//! The real service manager: systemd over D-Bus. Waits for jobs; decides nothing about units.

use std::{io, path::Path, time::Duration};

use futures_util::StreamExt;
use tokio::{sync::Mutex, time::timeout};
use zbus::{Connection, DBusError, OwnedObjectPath, fdo};

use super::{
    ServiceSettings, SystemdError, UnitState,
    proxy::{self, JobRemovedStream, ManagerProxy},
};

/// How long a job may take. A unit's own start or stop timeout ends it earlier; this bounds what is
/// queued behind other jobs.
const JOB_BOUND: Duration = Duration::from_secs(90);

/// How long the manager may take to answer a call. The longest is a reload on a machine with
/// thousands of units.
const CALL_BOUND: Duration = Duration::from_secs(60);

/// Maximum number of units that a message names.
const MAX_QUEUED_BEHIND: usize = 4;

/// A job of this mode replaces whatever other job of the unit is queued, as `systemctl` does.
const REPLACE: &str = "replace";

/// The manager's word for a unit that it does not have in memory, or that has no file.
pub(super) const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// systemd's manager on D-Bus.
#[derive(Debug)]
pub struct Systemd {
    connection: Mutex<Connection>,
    redial: bool,
    job_bound: Duration,
    call_bound: Duration,
}

impl Systemd {
    /// The manager of this machine, over the system bus.
    pub async fn connect() -> Result<Self, SystemdError> {
        Self::connect_within(CALL_BOUND).await
    }

    /// The same, waiting no longer than this for the answer to a call: for who only looks, and
    /// would rather not know.
    pub async fn connect_within(call_bound: Duration) -> Result<Self, SystemdError> {
        let connection = Mutex::new(system_bus(call_bound).await?);
        Ok(Self { connection, redial: true, job_bound: JOB_BOUND, call_bound })
    }

    /// The manager at the other end of `connection`.
    pub fn over(connection: Connection) -> Self {
        let connection = Mutex::new(connection);
        Self { connection, redial: false, job_bound: JOB_BOUND, call_bound: CALL_BOUND }
    }

    /// The connection, for who wants nothing of this client.
    #[cfg(test)]
    pub(super) fn into_connection(self) -> Connection {
        self.connection.into_inner()
    }

    /// The same, waiting no longer than this for a job.
    pub fn with_job_bound(self, job_bound: Duration) -> Self {
        Self { job_bound, ..self }
    }

    /// The manager's version, e.g. `252.39-1~deb12u2`.
    pub async fn version(&self) -> Result<String, SystemdError> {
        self.manager().await?.version().await.map_err(refused("Get(Version)"))
    }

    /// Reads a unit; one that does not exist has the load state `not-found`.
    pub async fn unit(&self, name: &str) -> Result<UnitState, SystemdError> {
        let manager = self.manager().await?;
        read_unit(&manager, name).await.map_err(refused(&format!("LoadUnit({name})")))
    }

    /// Reads all unit files again.
    pub async fn reload(&self) -> Result<(), SystemdError> {
        self.manager().await?.reload().await.map_err(refused("Reload()"))
    }

    /// Makes the unit start at boot.
    pub async fn enable(&self, name: &str) -> Result<(), SystemdError> {
        let manager = self.manager().await?;
        let enabled = manager.enable_unit_files(&[name], false, false).await;
        enabled.map_err(refused(&format!("EnableUnitFiles({name})")))?;
        Ok(())
    }

    /// Takes that back.
    pub async fn disable(&self, name: &str) -> Result<(), SystemdError> {
        let manager = self.manager().await?;
        let disabled = manager.disable_unit_files(&[name], false).await;
        disabled.map_err(refused(&format!("DisableUnitFiles({name})")))?;
        Ok(())
    }

    /// Starts the unit and waits for the job (for `Type=notify`: for `READY=1`).
    pub async fn start(&self, name: &str) -> Result<(), SystemdError> {
        self.start_within(name, self.job_bound).await
    }

    /// Queues the unit's start, and waits for nothing: at boot it may be behind whoever asks.
    pub async fn start_later(&self, name: &str) -> Result<(), SystemdError> {
        let manager = self.manager().await?;
        let queued = Job::Start.queue(&manager, name).await;
        queued.map(|_| ()).map_err(refused(&format!("StartUnit({name})")))
    }

    /// Stops the unit and waits for the job.
    pub async fn stop(&self, name: &str) -> Result<(), SystemdError> {
        self.run_job(Job::Stop, name, self.job_bound).await
    }

    /// Restarts the unit, or starts it, and waits for the job.
    pub async fn restart(&self, name: &str) -> Result<(), SystemdError> {
        self.restart_within(name, self.job_bound).await
    }

    /// Starts the unit and waits for the job no longer than this: it may be queued behind others.
    pub async fn start_within(&self, name: &str, bound: Duration) -> Result<(), SystemdError> {
        self.run_job(Job::Start, name, bound).await
    }

    /// The same for a restart.
    pub async fn restart_within(&self, name: &str, bound: Duration) -> Result<(), SystemdError> {
        self.run_job(Job::Restart, name, bound).await
    }

    /// What the service is given at its start, after all drop-ins.
    pub async fn settings(&self, name: &str) -> Result<ServiceSettings, SystemdError> {
        let manager = self.manager().await?;
        read_settings(&manager, name).await.map_err(refused(&format!("LoadUnit({name})")))
    }

    /// Forgets that the unit has failed.
    pub async fn reset_failed(&self, name: &str) -> Result<(), SystemdError> {
        let reset = self.manager().await?.reset_failed_unit(name).await;
        reset.map_err(refused(&format!("ResetFailedUnit({name})")))
    }

    /// A manager that can be called: the bus may have been restarted since the last call.
    async fn manager(&self) -> Result<ManagerProxy<'static>, SystemdError> {
        let mut connection = self.connection.lock().await;
        if self.redial && !alive(&connection).await {
            *connection = dial(self.call_bound).await?;
        }
        proxy::manager(&connection).await.map_err(SystemdError::Unreachable)
    }

    /// Queues a job and waits until it has ended.
    async fn run_job(&self, job: Job, unit: &str, bound: Duration) -> Result<(), SystemdError> {
        let tried = format!("{}({unit})", job.method());
        let manager = self.manager().await?;
        // The manager tells ended jobs only to clients that asked, and a quick job ends before a
        // later question.
        let ended = subscribe(&manager, unit).await.map_err(refused("Subscribe"))?;
        let queued = job.queue(&manager, unit).await.map_err(refused(&tried))?;
        match timeout(bound, result_of(&queued, ended)).await {
            Ok(Ok(result)) if result == "done" => Ok(()),
            Ok(Ok(result)) => Err(SystemdError::JobFailed { call: tried, result }),
            Ok(Err(error)) => Err(SystemdError::Unreachable(error)),
            Err(_) => {
                let queued_behind = queued_behind(&manager, &queued).await;
                Err(SystemdError::JobTimeout { call: tried, waited: bound, queued_behind })
            }
        }
    }
}

/// What a unit can be asked to do.
#[derive(Debug, Clone, Copy)]
enum Job {
    Start,
    Stop,
    Restart,
}

impl Job {
    fn method(self) -> &'static str {
        match self {
            Self::Start => "StartUnit",
            Self::Stop => "StopUnit",
            Self::Restart => "RestartUnit",
        }
    }

    async fn queue(self, manager: &ManagerProxy<'_>, unit: &str) -> zbus::Result<OwnedObjectPath> {
        match self {
            Self::Start => manager.start_unit(unit, REPLACE).await,
            Self::Stop => manager.stop_unit(unit, REPLACE).await,
            Self::Restart => manager.restart_unit(unit, REPLACE).await,
        }
    }
}

/// The bus of a machine that was booted with systemd.
pub(super) async fn system_bus(call_bound: Duration) -> Result<Connection, SystemdError> {
    // The test of sd_booted(3).
    if !Path::new("/run/systemd/system").is_dir() {
        return Err(SystemdError::NotBooted);
    }
    dial(call_bound).await
}

async fn dial(call_bound: Duration) -> Result<Connection, SystemdError> {
    let builder = zbus::connection::Builder::system().method_timeout(call_bound);
    match timeout(call_bound, builder.build()).await {
        Ok(connection) => connection.map_err(SystemdError::Unreachable),
        Err(_) => Err(SystemdError::Unreachable(io::Error::from(io::ErrorKind::TimedOut).into())),
    }
}

/// Whether the bus answers. The connection itself learns of its end only when it is used.
async fn alive(connection: &Connection) -> bool {
    const BUS: &str = "org.freedesktop.DBus";
    let ping = connection.call_method(Some(BUS), "/", Some("org.freedesktop.DBus.Peer"), "Ping", &());
    ping.await.is_ok()
}

/// The jobs of `unit` that end from now on. Asking for that unit's alone keeps a busy boot out of
/// the stream's bounded queue.
async fn subscribe(manager: &ManagerProxy<'static>, unit: &str) -> zbus::Result<JobRemovedStream> {
    const UNIT: u8 = 2;
    let ended = manager.receive_job_removed_with_args(&[(UNIT, unit)]).await?;
    subscribed(manager.subscribe().await)?;
    Ok(ended)
}

/// Whether the manager tells of changes, now or since before.
pub(super) fn subscribed(outcome: zbus::Result<()>) -> zbus::Result<()> {
    match outcome {
        Err(zbus::Error::MethodError(name, ..))
            if name.as_str() == "org.freedesktop.systemd1.AlreadySubscribed" =>
        {
            Ok(())
        }
        other => other,
    }
}

async fn result_of(job: &OwnedObjectPath, mut ended: JobRemovedStream) -> zbus::Result<String> {
    while let Some(signal) = ended.next().await {
        let args = signal.args()?;
        if args.job() == &**job {
            return Ok((*args.result()).to_owned());
        }
    }
    Err(io::Error::from(io::ErrorKind::ConnectionAborted).into())
}

/// Sorts an error of `call`: either the manager said no, or it did not say anything.
fn refused(call: &str) -> impl FnOnce(zbus::Error) -> SystemdError {
    let call = call.to_owned();
    move |error| match error {
        zbus::Error::MethodError(name, message, _) => {
            SystemdError::Refused { call, name: name.to_string(), message: message.unwrap_or_default() }
        }
        zbus::Error::FDO(error) => match *error {
            fdo::Error::ZBus(error) => SystemdError::Unreachable(error),
            // The bus answers in the place of a manager that is not on it.
            fdo::Error::ServiceUnknown(_)
            | fdo::Error::NameHasNoOwner(_)
            | fdo::Error::NoReply(_)
            | fdo::Error::Disconnected(_) => SystemdError::Unreachable(zbus::Error::FDO(error)),
            error => SystemdError::Refused {
                call,
                name: error.name().to_string(),
                message: error.description().unwrap_or_default().to_owned(),
            },
        },
        error => SystemdError::Unreachable(error),
    }
}

/// The units whose jobs this one waits for: of a chain of waiting jobs the one that runs, too. None
/// where the manager does not say.
async fn queued_behind(manager: &ManagerProxy<'static>, job: &OwnedObjectPath) -> Vec<String> {
    let id = |path: &str| path.rsplit('/').next().and_then(|id| id.parse::<u32>().ok());
    let (mut units, mut ids) = (Vec::new(), Vec::from_iter(id(job.as_str())));
    while let Some(id) = ids.pop() {
        for (id, unit, _, _, _, _) in manager.get_job_before(id).await.unwrap_or_default() {
            if units.len() < MAX_QUEUED_BEHIND && !units.contains(&unit) {
                units.push(unit);
                ids.push(id);
            }
        }
    }
    units
}

async fn read_settings(manager: &ManagerProxy<'static>, name: &str) -> zbus::Result<ServiceSettings> {
    let path = manager.load_unit(name).await?;
    let connection = manager.inner().connection();
    let unit = proxy::unit(connection, path.clone()).await?;
    let service = proxy::service(connection, path).await?;
    Ok(ServiceSettings {
        drop_ins: unit.drop_in_paths().await?.into_iter().map(Into::into).collect(),
        user: service.user().await?,
        credentials: service.load_credential().await?.into_iter().map(|(name, _)| name).collect(),
        runtime_directories: service.runtime_directory().await?,
        state_directories: service.state_directory().await?,
    })
}

async fn read_unit(manager: &ManagerProxy<'static>, name: &str) -> zbus::Result<UnitState> {
    let path = manager.load_unit(name).await?;
    let connection = manager.inner().connection();
    let unit = proxy::unit(connection, path.clone()).await?;
    let fragment = unit.fragment_path().await?;
    let state = UnitState {
        load_state: unit.load_state().await?,
        active_state: unit.active_state().await?,
        sub_state: unit.sub_state().await?,
        file_state: file_state(manager, name).await?,
        fragment: (!fragment.is_empty()).then(|| fragment.into()),
        ..UnitState::default()
    };
    // A socket has no process of its own.
    if !name.ends_with(".service") {
        return Ok(state);
    }
    let service = proxy::service(connection, path).await?;
    let main_pid = service.main_pid().await?;
    Ok(UnitState {
        main_pid: (main_pid != 0).then_some(main_pid),
        restarts: service.n_restarts().await?,
        result: service.result().await?,
        exit_status: service.exec_main_status().await?,
        status_text: service.status_text().await?,
        ..state
    })
}

/// Asked of the manager, not of the unit: the unit's own property is as old as the last reload.
pub(super) async fn file_state(manager: &ManagerProxy<'static>, name: &str) -> zbus::Result<String> {
    match manager.get_unit_file_state(name).await {
        Err(zbus::Error::FDO(error)) if matches!(*error, fdo::Error::FileNotFound(_)) => Ok(String::new()),
        Err(zbus::Error::MethodError(name, ..)) if name.as_str() == NO_SUCH_UNIT => Ok(String::new()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;
    use crate::{
        layout::{Layout, UNIT},
        systemd::fake::{FakeSystemd, StartOutcome},
    };

    const UNIT_FILE: &str = "[Service]\nExecStart=aio-worker start\n[Install]\nWantedBy=multi-user.target\n";

    /// A machine with the unit file in place.
    struct Bench {
        dir: tempfile::TempDir,
        layout: Layout,
        fake: FakeSystemd,
        systemd: Systemd,
    }

    impl Bench {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let layout = Layout::under(dir.path());
            fs::create_dir_all(layout.unit().parent().unwrap()).unwrap();
            fs::write(layout.unit(), UNIT_FILE).unwrap();
            let (fake, systemd) = FakeSystemd::start(&layout).await.unwrap();
            Self { dir, layout, fake, systemd }
        }

        fn wants(&self) -> PathBuf {
            self.dir.path().join("etc/systemd/system/multi-user.target.wants").join(UNIT)
        }
    }

    #[tokio::test]
    async fn a_unit_that_does_not_exist_is_not_found_and_no_error() {
        let bench = Bench::new().await;
        let unit = bench.systemd.unit("nothing.service").await.unwrap();
        assert_eq!((unit.load_state.as_str(), unit.active_state.as_str()), ("not-found", "inactive"));
        assert_eq!((unit.file_state.as_str(), unit.fragment, unit.main_pid), ("", None, None));
    }

    #[tokio::test]
    async fn a_service_is_enabled_started_read_stopped_and_disabled() {
        let bench = Bench::new().await;
        let systemd = &bench.systemd;
        assert_eq!(systemd.version().await.unwrap(), "252.39-1~fake");
        systemd.reload().await.unwrap();
        systemd.enable(UNIT).await.unwrap();
        assert_eq!(fs::read_link(bench.wants()).unwrap(), PathBuf::from("/etc/systemd/system").join(UNIT));

        systemd.start(UNIT).await.unwrap();
        bench.fake.change(UNIT, |unit| unit.status_text = "online".into());
        let unit = systemd.unit(UNIT).await.unwrap();
        let expected = UnitState {
            load_state: "loaded".into(),
            active_state: "active".into(),
            sub_state: "running".into(),
            file_state: "enabled".into(),
            fragment: Some(bench.layout.unit()),
            main_pid: Some(std::process::id()),
            restarts: 0,
            result: "success".into(),
            exit_status: 0,
            status_text: "online".into(),
        };
        assert_eq!(unit, expected);

        systemd.restart(UNIT).await.unwrap();
        systemd.stop(UNIT).await.unwrap();
        systemd.disable(UNIT).await.unwrap();
        let unit = systemd.unit(UNIT).await.unwrap();
        assert_eq!((unit.active_state.as_str(), unit.file_state.as_str()), ("inactive", "disabled"));
        assert!(!bench.wants().parent().unwrap().exists(), "nothing is left of the enablement");
    }

    #[tokio::test]
    async fn a_removed_unit_file_is_forgotten_at_the_next_reload() {
        let bench = Bench::new().await;
        assert_eq!(bench.systemd.unit(UNIT).await.unwrap().load_state, "loaded");
        fs::remove_file(bench.layout.unit()).unwrap();
        assert_eq!(bench.systemd.unit(UNIT).await.unwrap().load_state, "loaded");
        bench.systemd.reload().await.unwrap();
        assert_eq!(bench.systemd.unit(UNIT).await.unwrap().load_state, "not-found");
    }

    #[tokio::test]
    async fn a_job_that_fails_says_how_and_the_next_one_is_not_mistaken_for_it() {
        let bench = Bench::new().await;
        for (outcome, result) in [(StartOutcome::Failed, "exit-code"), (StartOutcome::Timeout, "timeout")] {
            bench.fake.next_start(outcome);
            let error = bench.systemd.start(UNIT).await.unwrap_err();
            assert_eq!(error.to_string(), format!("the job StartUnit({UNIT}) ended with `failed`"));
            let unit = bench.systemd.unit(UNIT).await.unwrap();
            assert_eq!((unit.active_state.as_str(), unit.result.as_str()), ("failed", result));
            bench.systemd.reset_failed(UNIT).await.unwrap();
            bench.systemd.start(UNIT).await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_enablement_outlives_its_unit_file_and_can_be_taken_back() {
        let bench = Bench::new().await;
        bench.systemd.enable(UNIT).await.unwrap();
        fs::remove_file(bench.layout.unit()).unwrap();
        bench.systemd.disable(UNIT).await.unwrap();
        assert!(bench.wants().symlink_metadata().is_err());
        let error = bench.systemd.disable(UNIT).await.unwrap_err();
        assert!(error.to_string().contains("does not exist"), "{error}");
    }

    #[tokio::test]
    async fn a_job_that_never_ends_is_given_up_in_time() {
        let Bench { fake, systemd, dir: _dir, .. } = Bench::new().await;
        let systemd = systemd.with_job_bound(Duration::from_millis(50));
        fake.next_start(StartOutcome::Never);
        fake.queue_behind(&["network-online.target", "systemd-networkd-wait-online.service"]);
        let error = systemd.start(UNIT).await.unwrap_err();
        assert!(matches!(&error, SystemdError::JobTimeout { call, .. } if call.contains(UNIT)), "{error:?}");
        let said = error.to_string();
        let expected = "waits for network-online.target and systemd-networkd-wait-online.service";
        assert!(said.ends_with(expected), "{said}");
    }

    #[tokio::test]
    async fn a_refusal_carries_the_managers_own_words() {
        let bench = Bench::new().await;
        let expect = |error: SystemdError, expected: [&str; 3]| {
            let SystemdError::Refused { call, name, message } = error else { panic!("{error:?}") };
            assert_eq!([call.as_str(), name.as_str(), message.as_str()], expected);
        };
        let error = bench.systemd.start("nothing.service").await.unwrap_err();
        let no_such_unit = "org.freedesktop.systemd1.NoSuchUnit";
        expect(error, ["StartUnit(nothing.service)", no_such_unit, "Unit nothing.service not found."]);

        // A name of the D-Bus specification reaches the client by another way than systemd's own.
        let denied = "org.freedesktop.DBus.Error.AccessDenied";
        bench.fake.refuse("EnableUnitFiles", denied, "Permission denied");
        let error = bench.systemd.enable(UNIT).await.unwrap_err();
        expect(error, [&format!("EnableUnitFiles({UNIT})"), denied, "Permission denied"]);
    }

    #[tokio::test]
    async fn a_masked_unit_is_seen_as_masked_and_cannot_be_started() {
        let bench = Bench::new().await;
        bench.fake.mask("other.service").unwrap();
        let unit = bench.systemd.unit("other.service").await.unwrap();
        assert_eq!((unit.load_state.as_str(), unit.file_state.as_str()), ("masked", "masked"));
        for error in [
            bench.systemd.enable("other.service").await.unwrap_err(),
            bench.systemd.start("other.service").await.unwrap_err(),
        ] {
            assert!(
                matches!(&error, SystemdError::Refused { name, .. } if name.ends_with(".UnitMasked")),
                "{error:?}"
            );
        }
    }

    #[tokio::test]
    async fn the_service_has_started_before_the_job_has_ended() {
        let bench = Bench::new().await;
        let ready = bench.dir.path().join("ready");
        let played = ready.clone();
        bench.fake.on_start(move |unit| fs::write(&played, unit).unwrap());
        bench.systemd.start(UNIT).await.unwrap();
        assert_eq!(fs::read_to_string(ready).unwrap(), UNIT);
    }

    #[tokio::test]
    async fn a_manager_that_hangs_up_in_the_middle_of_a_job_is_unreachable() {
        let Bench { fake, systemd, dir: _dir, .. } = Bench::new().await;
        fake.next_start(StartOutcome::Never);
        let job = tokio::spawn(async move { systemd.start(UNIT).await });
        while fake.unit(UNIT).active_state != "activating" {
            tokio::task::yield_now().await;
        }
        fake.hang_up().await.unwrap();
        let error = job.await.unwrap().unwrap_err();
        assert!(matches!(error, SystemdError::Unreachable(_)), "{error:?}");
    }
}
