//! Why a command ends without success: a code of the catalogue, one sentence on what was tried on
//! what, and details for programs. Turns the errors of lower layers into codes, each in one place.
//! `present` decides how a failure looks to people.

use std::{fmt, path::Path};

use aio_host::{
    files::FileError,
    systemd::{SystemdError, UnitState},
};
use aio_protocol::{error_code::ErrorCode, event::ErrorReport, sources::with_sources};
use serde_json::{Map, Value};

/// A failure that a user sees. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The stable code: exit status and cure follow from it.
    pub code: ErrorCode,
    /// One sentence: what was tried, on what, and what came of it.
    pub message: String,
    /// What is worth knowing beside, by name.
    pub details: Map<String, Value>,
}

impl Failure {
    /// A failure without details.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: Map::new() }
    }

    /// A failure that `error` and its sources explain.
    pub fn caused(code: ErrorCode, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(code, with_sources(error))
    }

    /// The same with one detail more.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// As reports to the controller carry it.
    pub(crate) fn to_report(&self) -> ErrorReport {
        ErrorReport {
            code: self.code.as_str().to_owned(),
            message: self.message.clone(),
            details: self.details.clone(),
        }
    }

    /// A system call on `path` that failed: `tried` says what for, e.g. `write`.
    pub(crate) fn io(tried: &str, path: &Path, error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        let code = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => ErrorCode::DiskFull,
            ErrorKind::ReadOnlyFilesystem => ErrorCode::TargetReadOnly,
            _ => ErrorCode::FileFailed,
        };
        Self::new(code, format!("could not {tried} {}: {error}", path.display()))
            .with("path", path.display().to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        let code = if error.is_disk_full() {
            ErrorCode::DiskFull
        } else if error.is_read_only() {
            ErrorCode::TargetReadOnly
        } else {
            ErrorCode::FileFailed
        };
        Self::new(code, with_sources(&error))
    }
}

impl From<SystemdError> for Failure {
    fn from(error: SystemdError) -> Self {
        let message = with_sources(&error);
        match error {
            SystemdError::NotBooted => Self::new(ErrorCode::SystemdMissing, message),
            SystemdError::Unreachable(_) => Self::new(ErrorCode::DbusUnreachable, message),
            SystemdError::Refused { name, .. } => {
                let code = if name.ends_with(".UnitMasked") {
                    ErrorCode::UnitMasked
                } else {
                    ErrorCode::ServiceFailed
                };
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

/// `failure` with how the service ended.
pub(crate) fn of_service(failure: Failure, unit: &UnitState) -> Failure {
    let mut message = failure.message;
    // A service that never ran has not failed.
    if !matches!(unit.result.as_str(), "" | "success") {
        message.push_str(&format!(
            "; the service ended with `{}`, exit status {}",
            unit.result, unit.exit_status
        ));
    }
    if !unit.status_text.is_empty() {
        message.push_str(&format!("; it said: {}", unit.status_text));
    }
    Failure { message, code: ErrorCode::ServiceFailed, details: failure.details }
        .with("result", &*unit.result)
        .with("exitStatus", unit.exit_status)
        .with("activeState", &*unit.active_state)
        .with("restarts", unit.restarts)
}

/// Something other than a file or link stands where a file belongs.
pub(crate) fn not_a_file(path: &Path) -> Failure {
    let message =
        format!("{} is neither a file nor a link, and a file of that name is needed", path.display());
    Failure::new(ErrorCode::FileFailed, message).with("path", path.display().to_string())
}
