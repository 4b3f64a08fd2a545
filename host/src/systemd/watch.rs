//! Tells what systemd knows of the machine, how the services stand that matter before all, over
//! D-Bus and by subscription: systemd says when something changed, and then, only then, it is
//! asked. Outlives the bus and the manager. What a unit's words mean is `units`'; how often others
//! are told is theirs to decide.

use std::{future::Future, num::NonZeroUsize, path::Path, sync::Arc, time::Duration};

use aio_protocol::service::{Service, ServiceState};
use futures_util::{StreamExt, stream::select_all};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use zbus::{Connection, MatchRule, MessageStream, match_rule::Builder, message};

use super::{
    SystemdError, dbus,
    proxy::{self, ManagerProxy},
    units::{self, Loaded, SNAP_DOCKER, Told, WATCHED},
};
use crate::facts::packages::Packages;

const SYSTEMD: &str = "org.freedesktop.systemd1";

/// How long one reading of all units may take. The manager is deaf while it reads its unit files
/// again, on big machines for seconds.
const READING: Duration = Duration::from_secs(10);

/// Changes come in flocks: what follows within this time is read together.
const SETTLED: Duration = Duration::from_millis(100);

/// A bus that is restarted is back within this time, and meanwhile what was known counts.
const GRACE: Duration = Duration::from_secs(30);

/// From the first to the last pause between attempts to reach the bus.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// systemd-detect-virt(1)'s word for a machine that is not virtual.
const BARE_METAL: &str = "none";

/// What systemd knows of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ManagerReport {
    /// What the machine runs in, in the words of systemd-detect-virt(1), e.g. `kvm`, or `none`;
    /// absent where nobody could say.
    pub virtualization: Option<String>,
    /// How the services stand that matter.
    pub services: Vec<Service>,
}

impl ManagerReport {
    /// What is told while nobody can be asked.
    pub fn silent() -> Self {
        Self { virtualization: None, services: units::unknown() }
    }
}

/// Tells what systemd knows of this machine: soon, and again at every change. Returns only where
/// there is no systemd; then nothing is told but an empty report.
pub async fn watch(tell: impl FnMut(ManagerReport)) {
    watch_over(|| dbus::system_bus(READING), Path::new("/"), tell).await;
}

/// The same once, for who does not stay: waits no longer than `patience`. None where nobody answers.
pub async fn look(patience: Duration) -> Option<ManagerReport> {
    let look = async {
        let connection = dbus::system_bus(patience).await.ok()?;
        let manager = proxy::manager(&connection).await.ok()?;
        read(&manager, &mut packages_under(Path::new("/"))).await.ok()
    };
    timeout(patience, look).await.ok().flatten()
}

/// Over whatever `dial` connects to, on the machine under `root`.
async fn watch_over<F>(mut dial: impl FnMut() -> F, root: &Path, mut tell: impl FnMut(ManagerReport))
where
    F: Future<Output = Result<Connection, SystemdError>>,
{
    let mut packages = packages_under(root);
    let mut pause = PAUSES.0;
    // Since when nobody answers, until that is told. In the beginning nothing is known that could
    // go on to count.
    let mut lost = Some(None);
    loop {
        let mut told = false;
        let ended = match dial().await {
            Err(SystemdError::NotBooted) => return tell(ManagerReport::default()),
            Err(error) => Err(error),
            Ok(connection) => {
                let outcome = follow(&connection, &mut packages, |report| {
                    told = true;
                    tell(report);
                });
                outcome.await.map_err(SystemdError::Unreachable)
            }
        };
        if told {
            (lost, pause) = (Some(Some(Instant::now())), PAUSES.0);
        }
        if let Err(_error) = ended
            && let Some(since) = lost
            && since.is_none_or(|since| since.elapsed() >= GRACE)
        {
            tell(ManagerReport::silent());
            lost = None;
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// All packages that bring a watched service.
fn packages_under(root: &Path) -> Packages {
    let wanted = WATCHED.iter().flat_map(|watched| watched.packages.iter().copied()).collect();
    Packages::under(root, wanted)
}

/// Tells what the manager knows, at once and at every change, until the manager or the bus goes away.
async fn follow(
    connection: &Connection,
    packages: &mut Packages,
    mut tell: impl FnMut(ManagerReport),
) -> zbus::Result<()> {
    let manager = proxy::manager(connection).await?;
    let signals = Signals::listen(connection).await?;
    dbus::subscribed(manager.subscribe().await)?;
    let mut last = None;
    loop {
        let report = timeout(READING, read(&manager, packages)).await.map_err(|_| timed_out())??;
        if last.as_ref() != Some(&report) {
            tell(report.clone());
            last = Some(report);
        }
        tokio::select! {
            biased;
            () = connection.closed() => return Ok(()),
            // A manager that was executed anew knows its clients no more.
            () = signals.manager.notified() => return Ok(()),
            () = signals.unit.notified() => sleep(SETTLED).await,
        }
    }
}

fn timed_out() -> zbus::Error {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

/// The signals after which something may have changed. They are taken from the connection at once, and
/// their content is dropped: a full queue would hold up the answers, too.
struct Signals {
    unit: Arc<Notify>,
    manager: Arc<Notify>,
    forwarders: Vec<JoinHandle<()>>,
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.forwarders.iter().for_each(JoinHandle::abort);
    }
}

impl Signals {
    async fn listen(connection: &Connection) -> zbus::Result<Self> {
        let mut of_units = vec![
            // Unit files were read again: a package was installed or removed, or somebody edited one.
            listen(connection, from_manager("Reloading").build()?).await?,
            listen(connection, from_manager("UnitFilesChanged").build()?).await?,
        ];
        for watched in WATCHED {
            let changed = rule(SYSTEMD, "org.freedesktop.DBus.Properties", "PropertiesChanged");
            of_units.push(listen(connection, changed.path(unit_path(watched.name)).build()?).await?);
            for member in ["UnitNew", "UnitRemoved"] {
                let rule = from_manager(member).arg(0, watched.name);
                of_units.push(listen(connection, rule.build()?).await?);
            }
        }
        const BUS: &str = "org.freedesktop.DBus";
        let owner = rule(BUS, BUS, "NameOwnerChanged").arg(0, SYSTEMD).build()?;
        let of_manager = vec![listen(connection, owner).await?];
        let (unit, manager) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let forwarders = vec![forward(of_units, unit.clone()), forward(of_manager, manager.clone())];
        Ok(Self { unit, manager, forwarders })
    }
}

/// Notifies of every signal.
fn forward(signals: Vec<MessageStream>, changed: Arc<Notify>) -> JoinHandle<()> {
    let mut signals = select_all(signals);
    tokio::spawn(async move {
        while signals.next().await.is_some() {
            changed.notify_one();
        }
    })
}

fn rule(sender: &'static str, interface: &'static str, member: &'static str) -> Builder<'static> {
    let signal = MatchRule::builder().msg_type(message::Type::Signal);
    signal.sender(sender).interface(interface).member(member)
}

fn from_manager(member: &'static str) -> Builder<'static> {
    rule(SYSTEMD, "org.freedesktop.systemd1.Manager", member)
}

async fn listen(connection: &Connection, rule: MatchRule<'static>) -> zbus::Result<MessageStream> {
    MessageStream::for_match_rule(rule, connection, NonZeroUsize::new(8)).await
}

/// A unit's object path: what is no letter or digit is `_` and two hex digits (sd_bus_path_encode(3)).
fn unit_path(name: &str) -> String {
    let escaped: String = name
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            other => format!("_{other:02x}"),
        })
        .collect();
    format!("/org/freedesktop/systemd1/unit/{escaped}")
}

/// What the manager knows now.
async fn read(manager: &ManagerProxy<'static>, packages: &mut Packages) -> zbus::Result<ManagerReport> {
    // Of a machine that is not virtual the manager says an empty word.
    let word = manager.virtualization().await?;
    let virtualization = Some(if word.is_empty() { BARE_METAL.to_owned() } else { word });
    let mut services = Vec::with_capacity(WATCHED.len());
    for watched in WATCHED {
        let mut service = units::service(watched.name, &ask(manager, watched.name).await?);
        if service.state != ServiceState::Absent {
            // A few milliseconds when dpkg has changed something, otherwise one look at a file's date.
            service.version = match watched.name {
                SNAP_DOCKER => packages.of_snap("docker"),
                _ => packages.version(watched.packages),
            };
        }
        services.push(service);
    }
    Ok(ManagerReport { virtualization, services: units::worth_telling(services) })
}

/// Asks for a unit without having it loaded: that would be a change that is announced, and so asked
/// for again, without end.
async fn ask(manager: &ManagerProxy<'static>, name: &str) -> zbus::Result<Told> {
    let path = match manager.get_unit(name).await {
        Ok(path) => path,
        Err(zbus::Error::MethodError(error, ..)) if error.as_str() == dbus::NO_SUCH_UNIT => {
            return Ok(Told::File(dbus::file_state(manager, name).await?));
        }
        Err(error) => return Err(error),
    };
    let connection = manager.inner().connection();
    let unit = proxy::unit(connection, path.clone()).await?;
    let mut loaded = Loaded {
        load_state: unit.load_state().await?,
        active_state: unit.active_state().await?,
        sub_state: unit.sub_state().await?,
        active_since: unit.active_enter_timestamp().await?,
        inactive_since: unit.inactive_enter_timestamp().await?,
        changed: unit.state_change_timestamp().await?,
        ..Loaded::default()
    };
    if name.ends_with(".service") {
        let service = proxy::service(connection, path).await?;
        loaded.result = service.result().await?;
        loaded.restarts = Some(service.n_restarts().await?);
    }
    Ok(Told::Loaded(loaded))
}

#[cfg(test)]
mod tests;
