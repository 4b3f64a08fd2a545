//! Failures of the installer that more than one of its files tells.

use std::path::Path;

use aio_host::systemd::UnitState;
use aio_protocol::error_code::ErrorCode;
pub use aio_protocol::failure::Failure;

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
