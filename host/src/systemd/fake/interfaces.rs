//! The fake manager's D-Bus objects: the same members that the client's proxies name, with
//! systemd's own error names.

use std::{fs, io};

use zbus::{
    Connection, DBusError, Message, ObjectPath, OwnedObjectPath, interface, message::Header,
    names::ErrorName, object_server::SignalEmitter,
};

use super::{Machine, Refusal, StartOutcome, masked};
use crate::systemd::proxy::QueuedJob;

impl DBusError for Refusal {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<Message> {
        Message::error(call, self.name()).build(&self.message)
    }

    fn name(&self) -> ErrorName<'_> {
        ErrorName::try_from(self.name.as_str())
            .unwrap_or_else(|_| ErrorName::from_static_str_unchecked("org.freedesktop.DBus.Error.Failed"))
    }

    fn description(&self) -> Option<&str> {
        Some(&self.message)
    }
}

impl From<zbus::Error> for Refusal {
    fn from(error: zbus::Error) -> Self {
        Self { name: "org.freedesktop.DBus.Error.Failed".into(), message: error.to_string() }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self { name: "org.freedesktop.DBus.Error.AccessDenied".into(), message: error.to_string() }
    }
}

fn no_such_unit(message: String) -> Refusal {
    Refusal { name: "org.freedesktop.systemd1.NoSuchUnit".into(), message }
}

fn unit_masked(unit: &str) -> Refusal {
    Refusal { name: "org.freedesktop.systemd1.UnitMasked".into(), message: format!("Unit {unit} is masked.") }
}

/// `org.freedesktop.systemd1.Manager`.
#[derive(Debug)]
pub(super) struct FakeManager {
    machine: Machine,
}

/// The ids of the jobs that others wait for begin here.
const QUEUE: u32 = 1_000_000;

type Changes = Vec<(String, String, String)>;

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl FakeManager {
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> String {
        "252.39-1~fake".to_owned()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn virtualization(&self) -> String {
        "kvm".to_owned()
    }

    fn subscribe(&self) -> Result<(), Refusal> {
        let mut state = self.machine.lock();
        if std::mem::replace(&mut state.subscribed, true) {
            return Err(Refusal {
                name: "org.freedesktop.systemd1.AlreadySubscribed".into(),
                message: "Client is already subscribed.".into(),
            });
        }
        Ok(())
    }

    async fn get_unit(
        &self,
        name: &str,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.called("GetUnit", Some(name))?;
        if !self.machine.lock().units.contains_key(name) {
            return Err(no_such_unit(format!("Unit {name} not loaded.")));
        }
        self.serve(name, connection).await
    }

    async fn load_unit(
        &self,
        name: &str,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.called("LoadUnit", Some(name))?;
        self.machine.lock().entry(name);
        self.serve(name, connection).await
    }

    fn get_unit_file_state(&self, name: &str) -> Result<String, Refusal> {
        self.called("GetUnitFileState", Some(name))?;
        self.machine.lock().file_state(name).ok_or_else(|| Refusal {
            name: "org.freedesktop.DBus.Error.FileNotFound".into(),
            message: "No such file or directory".into(),
        })
    }

    fn reload(&self) -> Result<(), Refusal> {
        self.called("Reload", None)?;
        self.machine.lock().reload();
        Ok(())
    }

    fn enable_unit_files(
        &self,
        names: Vec<String>,
        _runtime: bool,
        _force: bool,
    ) -> Result<(bool, Changes), Refusal> {
        let mut changes = Changes::new();
        let mut has_install_section = false;
        for name in &names {
            self.called("EnableUnitFiles", Some(name))?;
            let state = self.machine.lock();
            let file = state.unit_file(name);
            if file.symlink_metadata().is_err() {
                return Err(no_such_unit(format!("Unit file {name} does not exist.")));
            }
            if masked(&file) {
                return Err(unit_masked(name));
            }
            for link in state.wants(name) {
                has_install_section = true;
                if link.symlink_metadata().is_err() {
                    link.parent().map_or(Ok(()), fs::create_dir_all)?;
                    let target = format!("/etc/systemd/system/{name}");
                    std::os::unix::fs::symlink(&target, &link)?;
                    changes.push(("symlink".into(), link.display().to_string(), target));
                }
            }
        }
        Ok((has_install_section, changes))
    }

    fn disable_unit_files(&self, names: Vec<String>, _runtime: bool) -> Result<Changes, Refusal> {
        let mut changes = Changes::new();
        for name in &names {
            self.called("DisableUnitFiles", Some(name))?;
            // Like systemd, it removes links to a unit file that is gone, and refuses where there is neither.
            let before = changes.len();
            for dir in fs::read_dir(self.machine.lock().units_dir())?.flatten() {
                let link = dir.path().join(name);
                if dir.file_name().as_encoded_bytes().ends_with(b".wants") && link.symlink_metadata().is_ok()
                {
                    fs::remove_file(&link)?;
                    // It stays unless it is empty now.
                    let _ = fs::remove_dir(dir.path());
                    changes.push(("unlink".into(), link.display().to_string(), String::new()));
                }
            }
            if changes.len() == before && self.machine.lock().file_state(name).is_none() {
                return Err(no_such_unit(format!("Unit file {name} does not exist.")));
            }
        }
        Ok(changes)
    }

    async fn start_unit(
        &self,
        name: &str,
        _mode: &str,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.called("StartUnit", Some(name))?;
        self.start(name, &emitter).await
    }

    async fn restart_unit(
        &self,
        name: &str,
        _mode: &str,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.called("RestartUnit", Some(name))?;
        self.stopped(name);
        self.start(name, &emitter).await
    }

    async fn stop_unit(
        &self,
        name: &str,
        _mode: &str,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.called("StopUnit", Some(name))?;
        let unit = self.machine.lock().unit(name);
        if unit.load_state == "not-found" && unit.active_state == "inactive" {
            return Err(no_such_unit(format!("Unit {name} not loaded.")));
        }
        self.stopped(name);
        self.end_job(name, Some("done"), &emitter).await
    }

    fn get_job_before(&self, id: u32) -> Vec<QueuedJob> {
        let state = self.machine.lock();
        // Ids of our own jobs are small; each of the queue's waits for the next.
        let next = usize::try_from(id.saturating_sub(QUEUE)).unwrap_or_default();
        let next = if id >= QUEUE { next + 1 } else { 0 };
        let path = OwnedObjectPath::default();
        let job = state.queue.get(next).zip(u32::try_from(next).ok());
        let job = job.map(|(unit, at)| {
            (QUEUE + at, unit.clone(), "start".to_owned(), "running".to_owned(), path.clone(), path.clone())
        });
        job.into_iter().collect()
    }

    fn reset_failed_unit(&self, name: &str) -> Result<(), Refusal> {
        self.called("ResetFailedUnit", Some(name))?;
        let mut state = self.machine.lock();
        let unit = state.entry(name);
        if unit.load_state == "not-found" && unit.active_state == "inactive" {
            return Err(no_such_unit(format!("Unit {name} not loaded.")));
        }
        if unit.active_state == "failed" {
            unit.active_state = "inactive".into();
            unit.sub_state = "dead".into();
        }
        unit.result = "success".into();
        unit.restarts = 0;
        Ok(())
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: ObjectPath<'_>,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
}

impl FakeManager {
    pub(super) fn new(machine: Machine) -> Self {
        Self { machine }
    }

    fn called(&self, method: &'static str, unit: Option<&str>) -> Result<(), Refusal> {
        let mut state = self.machine.lock();
        state.calls.push(format!("{method}({})", unit.unwrap_or_default()));
        state.refusals.get(method).map_or(Ok(()), |refusal| Err(refusal.clone()))
    }

    fn stopped(&self, name: &str) {
        let mut state = self.machine.lock();
        let unit = state.entry(name);
        unit.active_state = "inactive".into();
        unit.sub_state = "dead".into();
        unit.main_pid = None;
        unit.status_text.clear();
    }

    /// Serves the unit's objects, and says where.
    async fn serve(&self, name: &str, connection: &Connection) -> Result<OwnedObjectPath, Refusal> {
        let path = unit_path(name)?;
        let server = connection.object_server();
        server.at(&path, FakeUnit { machine: self.machine.clone(), name: name.to_owned() }).await?;
        if name.ends_with(".service") {
            let service = FakeService { machine: self.machine.clone(), name: name.to_owned() };
            server.at(&path, service).await?;
        }
        Ok(path)
    }

    async fn start(&self, name: &str, emitter: &SignalEmitter<'_>) -> Result<OwnedObjectPath, Refusal> {
        let (outcome, service) = {
            let mut state = self.machine.lock();
            match state.entry(name).load_state.as_str() {
                "not-found" => return Err(no_such_unit(format!("Unit {name} not found."))),
                "masked" => return Err(unit_masked(name)),
                _ => {}
            }
            (state.outcomes.pop_front().unwrap_or(StartOutcome::Done), state.service.clone())
        };
        if let (StartOutcome::Done, Some(service)) = (outcome, service) {
            (service.0)(name);
        }
        let (active, sub, result, job) = match outcome {
            StartOutcome::Done => ("active", "running", "success", Some("done")),
            StartOutcome::Failed => ("failed", "failed", "exit-code", Some("failed")),
            StartOutcome::Timeout => ("failed", "failed", "timeout", Some("failed")),
            StartOutcome::Never => ("activating", "start", "success", None),
        };
        {
            let mut state = self.machine.lock();
            let unit = state.entry(name);
            unit.active_state = active.into();
            unit.sub_state = sub.into();
            unit.result = result.into();
            unit.exit_status = i32::from(outcome == StartOutcome::Failed);
            unit.main_pid = (outcome == StartOutcome::Done).then(std::process::id);
        }
        self.end_job(name, job, emitter).await
    }

    /// Tells the end of a job before the call is answered: the order that a client is hardest put to.
    async fn end_job(
        &self,
        name: &str,
        result: Option<&str>,
        emitter: &SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, Refusal> {
        let (id, subscribed) = {
            let mut state = self.machine.lock();
            state.jobs += 1;
            (state.jobs, state.subscribed)
        };
        let job = OwnedObjectPath::try_from(format!("/org/freedesktop/systemd1/job/{id}"))?;
        if let (Some(result), true) = (result, subscribed) {
            // Somebody else's job ends, too.
            let foreign = OwnedObjectPath::try_from(format!("/org/freedesktop/systemd1/job/9{id}"))?;
            Self::job_removed(emitter, 900 + id, foreign.as_ref(), name, "canceled").await?;
            Self::job_removed(emitter, id, job.as_ref(), name, result).await?;
        }
        Ok(job)
    }
}

/// A unit's object path: what is no letter or digit is `_` and two hex digits.
pub(super) fn unit_path(name: &str) -> zbus::Result<OwnedObjectPath> {
    let escaped: String = name
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            other => format!("_{other:02x}"),
        })
        .collect();
    OwnedObjectPath::try_from(format!("/org/freedesktop/systemd1/unit/{escaped}"))
}

/// When every unit became what it is, in microseconds: 2025-12-11T12:00:00Z.
pub(super) const CHANGED: u64 = 1_765_454_400_000_000;

/// `org.freedesktop.systemd1.Unit`.
#[derive(Debug)]
struct FakeUnit {
    machine: Machine,
    name: String,
}

#[interface(name = "org.freedesktop.systemd1.Unit")]
impl FakeUnit {
    #[zbus(property)]
    fn load_state(&self) -> String {
        self.machine.lock().unit(&self.name).load_state
    }

    #[zbus(property)]
    fn active_state(&self) -> String {
        self.machine.lock().unit(&self.name).active_state
    }

    #[zbus(property)]
    fn sub_state(&self) -> String {
        self.machine.lock().unit(&self.name).sub_state
    }

    #[zbus(property)]
    fn fragment_path(&self) -> String {
        let fragment = self.machine.lock().unit(&self.name).fragment;
        fragment.map(|path| path.display().to_string()).unwrap_or_default()
    }

    #[zbus(property)]
    fn drop_in_paths(&self) -> Vec<String> {
        self.machine.settings().drop_ins.iter().map(|path| path.display().to_string()).collect()
    }

    #[zbus(property)]
    fn active_enter_timestamp(&self) -> u64 {
        self.machine.lock().entered(&self.name, "active")
    }

    #[zbus(property)]
    fn inactive_enter_timestamp(&self) -> u64 {
        self.machine.lock().entered(&self.name, "inactive")
    }

    #[zbus(property)]
    fn state_change_timestamp(&self) -> u64 {
        CHANGED
    }
}

/// `org.freedesktop.systemd1.Service`.
#[derive(Debug)]
struct FakeService {
    machine: Machine,
    name: String,
}

#[interface(name = "org.freedesktop.systemd1.Service")]
impl FakeService {
    #[zbus(property, name = "MainPID")]
    fn main_pid(&self) -> u32 {
        self.machine.lock().unit(&self.name).main_pid.unwrap_or_default()
    }

    #[zbus(property, name = "NRestarts")]
    fn n_restarts(&self) -> u32 {
        self.machine.lock().unit(&self.name).restarts
    }

    #[zbus(property)]
    fn result(&self) -> String {
        self.machine.lock().unit(&self.name).result
    }

    #[zbus(property)]
    fn exec_main_status(&self) -> i32 {
        self.machine.lock().unit(&self.name).exit_status
    }

    #[zbus(property)]
    fn user(&self) -> String {
        self.machine.settings().user
    }

    #[zbus(property)]
    fn load_credential(&self) -> Vec<(String, String)> {
        let settings = self.machine.settings();
        settings.credentials.into_iter().map(|name| (name, String::new())).collect()
    }

    #[zbus(property)]
    fn runtime_directory(&self) -> Vec<String> {
        self.machine.settings().runtime_directories
    }

    #[zbus(property)]
    fn state_directory(&self) -> Vec<String> {
        self.machine.settings().state_directories
    }

    #[zbus(property)]
    fn status_text(&self) -> String {
        self.machine.lock().unit(&self.name).status_text
    }
}
