//! systemd's manager: units are read, enabled and run over D-Bus, never by a child process. Job
//! methods wait until the job has ended and say how it ended. The services that matter are watched
//! by subscription.

mod dbus;
#[cfg(any(test, feature = "fakes"))]
pub mod fake;
mod proxy;
pub(crate) mod units;
mod watch;

use std::{path::PathBuf, time::Duration};

use aio_protocol::{error_code::ErrorCode, failure::Failure, sources::with_sources};
pub use dbus::Systemd;
pub use watch::{ManagerReport, look, watch};

/// A unit at one moment, as the manager sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitState {
    /// `loaded`, `not-found`, `masked`, `bad-setting`, `error`.
    pub load_state: String,
    /// `active`, `inactive`, `failed`, `activating`, …
    pub active_state: String,
    /// `running`, `dead`, `auto-restart`, …
    pub sub_state: String,
    /// `enabled`, `disabled`, `masked`, or empty when there is no unit file.
    pub file_state: String,
    /// The unit file, when there is one.
    pub fragment: Option<PathBuf>,
    /// The main process, when it runs.
    pub main_pid: Option<u32>,
    /// How often systemd has restarted the service by itself.
    pub restarts: u32,
    /// `success`, `exit-code`, `signal`, `timeout`, `watchdog`, …
    pub result: String,
    /// The main process's last exit status or signal.
    pub exit_status: i32,
    /// What the service said of itself with `STATUS=`.
    pub status_text: String,
}

impl UnitState {
    /// Whether somebody has masked it, in `/etc` or, until the next boot, in `/run`.
    pub fn is_masked(&self) -> bool {
        self.load_state == "masked" || self.file_state.starts_with("masked")
    }

    /// That it is masked, and until when.
    pub fn mask(&self) -> &'static str {
        if self.file_state == "masked-runtime" {
            "aio-worker.service is masked until the next boot (in /run/systemd/system)"
        } else {
            "aio-worker.service is masked"
        }
    }
}

/// What a service is given at its start, after all drop-ins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceSettings {
    /// The drop-ins, in the order in which they are read.
    pub drop_ins: Vec<PathBuf>,
    /// The user that it runs as.
    pub user: String,
    /// `LoadCredential=`: the names.
    pub credentials: Vec<String>,
    /// `RuntimeDirectory=`.
    pub runtime_directories: Vec<String>,
    /// `StateDirectory=`.
    pub state_directories: Vec<String>,
}

/// Why the manager did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// This machine was not booted with systemd.
    #[error("this machine was not booted with systemd")]
    NotBooted,
    /// The manager cannot be reached.
    #[error("cannot reach systemd on D-Bus")]
    Unreachable(#[source] zbus::Error),
    /// The manager refused a call.
    #[error("systemd refused {call} with {name}: {message}")]
    Refused {
        /// What was called, e.g. `StartUnit(aio-worker.service)`.
        call: String,
        /// The D-Bus error's name.
        name: String,
        /// The manager's own words.
        message: String,
    },
    /// A job ended otherwise than `done`.
    #[error("the job {call} ended with `{result}`")]
    JobFailed {
        /// What was called.
        call: String,
        /// `failed`, `timeout`, `canceled`, `dependency`, …
        result: String,
    },
    /// A job did not end in time.
    #[error("the job {call} did not end within {}{}", humantime(*waited), waits_for(queued_behind))]
    JobTimeout {
        /// What was called.
        call: String,
        /// How long was waited.
        waited: Duration,
        /// The units whose jobs have to end before this one begins.
        queued_behind: Vec<String>,
    },
}

impl From<SystemdError> for Failure {
    fn from(error: SystemdError) -> Self {
        let message = with_sources(&error);
        match error {
            SystemdError::NotBooted => Self::new(ErrorCode::SystemdMissing, message),
            SystemdError::Unreachable(_) => Self::new(ErrorCode::DbusUnreachable, message),
            SystemdError::Refused { name, .. } => {
                let is_masked = name.ends_with(".UnitMasked");
                let code = if is_masked { ErrorCode::UnitMasked } else { ErrorCode::ServiceFailed };
                Self::new(code, message).with("dbusError", name)
            }
            SystemdError::JobFailed { result, .. } => {
                Self::new(ErrorCode::ServiceFailed, message).with("jobResult", result)
            }
            SystemdError::JobTimeout { queued_behind, .. } => {
                let failure = Self::new(ErrorCode::ServiceFailed, message).with("jobResult", "timeout");
                if queued_behind.is_empty() { failure } else { failure.with("waitsFor", queued_behind) }
            }
        }
    }
}

fn waits_for(units: &[String]) -> String {
    if units.is_empty() { String::new() } else { format!("; it waits for {}", units.join(" and ")) }
}

fn humantime(duration: Duration) -> String {
    format!("{} s", duration.as_secs())
}
