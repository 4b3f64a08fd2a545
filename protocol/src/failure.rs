//! Why something did not succeed, as every program here says it: a code of the catalogue, one sentence
//! on what was tried on what, and details for programs. Lower layers turn their own errors into
//! failures, each beside its error. How a failure looks to people is decided elsewhere.

use std::{error::Error, fmt, io, path::Path};

use serde_json::{Map, Value};

use crate::{error_code::ErrorCode, event::ErrorReport, sources::with_sources};

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
    pub fn caused(code: ErrorCode, error: &(dyn Error + 'static)) -> Self {
        Self::new(code, with_sources(error))
    }

    /// A system call on `path` that failed. `tried` is a verb, e.g. `write`.
    pub fn io(tried: &str, path: &Path, error: &io::Error) -> Self {
        let message = format!("could not {tried} {}: {error}", path.display());
        Self::new(ErrorCode::of_io(error.kind()), message).with("path", path.display().to_string())
    }

    /// The same with one detail more.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// The same, with what was tried in front of the message.
    #[must_use]
    pub fn while_trying(mut self, tried: impl fmt::Display) -> Self {
        self.message = format!("{tried}: {}", self.message);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {}

impl From<Failure> for ErrorReport {
    fn from(failure: Failure) -> Self {
        let Failure { code, message, details } = failure;
        Self { code: code.into(), message, details }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_system_call_has_the_code_that_its_cure_needs() {
        for (kind, code) in [
            (io::ErrorKind::StorageFull, ErrorCode::DiskFull),
            (io::ErrorKind::QuotaExceeded, ErrorCode::DiskFull),
            (io::ErrorKind::ReadOnlyFilesystem, ErrorCode::TargetReadOnly),
            (io::ErrorKind::PermissionDenied, ErrorCode::FileFailed),
        ] {
            let failure = Failure::io("write", Path::new("/x"), &kind.into());
            assert_eq!(failure.code, code, "{kind:?}");
            assert!(failure.message.starts_with("could not write /x: "), "{failure}");
            assert_eq!(failure.details["path"], "/x");
        }
    }

    #[test]
    fn a_report_says_all_that_the_failure_says() {
        let failure = Failure::new(ErrorCode::TlsFailed, "it ended").with("url", "https://x/");
        let report = ErrorReport::from(failure.clone().while_trying("cannot reach x"));
        assert_eq!(
            (report.code.as_str(), report.message.as_str()),
            ("TLS_FAILED", "cannot reach x: it ended")
        );
        assert_eq!(report.details, failure.details);
        assert_eq!(report.known_code(), Some(ErrorCode::TlsFailed));
    }
}
