//! What a check found: how it came out, what was seen, and what to do about it.

use aio_protocol::error_code::ErrorCode;
use serde::Serialize;

use crate::failure::Failure;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and somebody should know.
    Warning,
    /// An installation, or the worker, would fail.
    Failed,
    /// It could not be looked at.
    Skipped,
}

/// What a check found.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// The check's name.
    pub check: &'static str,
    /// How it came out.
    pub result: Verdict,
    /// What was seen, in words.
    pub reason: String,
    /// The catalogue's code of what failed.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_word")]
    pub code: Option<ErrorCode>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cure: Option<String>,
}

fn as_word<S: serde::Serializer>(code: &Option<ErrorCode>, serializer: S) -> Result<S::Ok, S::Error> {
    match code {
        Some(code) => serializer.serialize_str(code.as_str()),
        None => serializer.serialize_none(),
    }
}

impl Finding {
    /// All is well.
    pub fn ok(check: &'static str, reason: impl Into<String>) -> Self {
        Self { check, result: Verdict::Ok, reason: reason.into(), code: None, cure: None }
    }

    /// It works, and somebody should know.
    pub fn warning(check: &'static str, reason: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { cure: Some(cure.into()), result: Verdict::Warning, ..Self::ok(check, reason) }
    }

    /// It fails; the code says with what cure.
    pub fn failed(check: &'static str, code: ErrorCode, reason: impl Into<String>) -> Self {
        let cure = Some(code.cure().to_owned());
        Self { code: Some(code), cure, result: Verdict::Failed, ..Self::ok(check, reason) }
    }

    /// It was not looked at, for this reason.
    pub fn skipped(check: &'static str, reason: impl Into<String>) -> Self {
        Self { result: Verdict::Skipped, ..Self::ok(check, reason) }
    }

    /// What came of a check that may fail.
    pub(super) fn of(check: &'static str, found: Result<String, Failure>) -> Self {
        match found {
            Ok(reason) => Self::ok(check, reason),
            Err(failure) => Self::failed(check, failure.code, failure.message),
        }
    }
}
