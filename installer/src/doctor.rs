//! Looks at all that an installation and a running worker need, and changes nothing: one finding per check. A check that another one
//! has made impossible is skipped and says so. `machine` looks around here, `network` asks the controller; GPUs are the worker's to look at.

mod machine;
mod network;

use std::{path::PathBuf, time::SystemTime};

use aio_host::{
    layout::Layout,
    systemd::{ServiceManager, SystemdError},
};
use aio_protocol::{error_code::ErrorCode, time::Timestamp};
use secrecy::SecretString;
use serde::Serialize;

pub(crate) use network::their_time;

use crate::{failure::Failure, install::Host, token};

/// What is looked at.
#[derive(Debug)]
pub struct Examination {
    /// Where things lie.
    pub layout: Layout,
    /// Whether root asks.
    pub root: bool,
    /// The token that was given, if any; else the installed one counts, where it can be read.
    pub token: Option<SecretString>,
    /// Authorities (PEM) beside the operating system's.
    pub ca_file: Option<PathBuf>,
    /// The proxy that was named.
    pub proxy: Option<String>,
    /// Whether plain `http` to other machines is allowed.
    pub insecure_http: bool,
}

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

    fn of(check: &'static str, found: Result<String, Failure>) -> Self {
        match found {
            Ok(reason) => Self::ok(check, reason),
            Err(failure) => Self::failed(check, failure.code, failure.message),
        }
    }
}

/// What an installation asks before it changes anything, beside what its plan refuses. Gives what the operator should know; `theirs` is the
/// controller's time.
pub(crate) async fn preflight<S: ServiceManager>(
    host: &Host<S>,
    force_os: bool,
    theirs: Option<Timestamp>,
) -> Result<Vec<String>, Failure> {
    let untested = machine::system(host.layout.root());
    let refused = (untested.result != Verdict::Ok && !force_os)
        .then(|| Finding::failed(untested.check, ErrorCode::SystemUntested, untested.reason.clone()));
    let findings = [
        refused.unwrap_or(untested),
        machine::manager(host.systemd.version().await),
        network::clock(SystemTime::now().into(), theirs),
    ];
    let mut failed = findings.iter().filter(|finding| finding.result == Verdict::Failed);
    if let Some(first) = failed.next() {
        let code = first.code.unwrap_or(ErrorCode::Internal);
        let failure = Failure::new(code, &*first.reason).with("check", first.check);
        // Whoever cures one thing is told what comes next.
        let others: Vec<_> = failed.map(|finding| finding.reason.clone()).collect();
        return Err(if others.is_empty() { failure } else { failure.with("alsoFailed", others) });
    }
    let warnings = findings.into_iter().filter(|finding| finding.result == Verdict::Warning);
    Ok(warnings.map(|finding| finding.reason).collect())
}

/// Looks at everything, in the order in which one thing rests on another.
pub async fn examine<S: ServiceManager>(
    examination: &Examination,
    systemd: Result<&S, SystemdError>,
) -> Vec<Finding> {
    let Examination { layout, root, .. } = examination;
    let mut findings = vec![
        machine::privileges(*root),
        machine::system(layout.root()),
        machine::processor(std::env::consts::ARCH),
        machine::room(layout),
        machine::folders(layout),
        machine::lock(layout),
        machine::accounts(layout.root()),
    ];
    match systemd {
        Ok(systemd) => {
            findings.push(machine::manager(systemd.version().await));
            findings.push(machine::unit(systemd.unit(aio_host::layout::UNIT).await));
        }
        Err(error) => {
            findings.push(Finding::of("systemd", Err(error.into())));
            findings.push(Finding::skipped("unit", "systemd was not reached"));
        }
    }
    findings.push(machine::containers(layout.root()));
    findings.extend(network::examine(examination, token::installed(layout)).await);
    findings
}
