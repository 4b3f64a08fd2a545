//! Looks at all that an installation and a running worker need, and changes nothing: one finding
//! per check. A check that another one has made impossible is skipped and says so. `machine` looks
//! around here, `network` asks the controller; GPUs are the worker's to look at.

mod examination;
mod finding;
mod machine;
mod network;

use std::time::SystemTime;

use aio_host::layout::UNIT;
use aio_host::systemd::{Systemd, SystemdError};
use aio_protocol::{error_code::ErrorCode, time::Timestamp};

pub use self::{
    examination::Examination,
    finding::{Finding, Verdict},
};
use crate::{failure::Failure, machine::host::Host, token};

/// What an installation asks before it changes anything, beside what its plan refuses. Gives what
/// the operator should know; `theirs` is the controller's time.
pub(crate) async fn preflight(
    host: &Host,
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
pub async fn examine(examination: &Examination, systemd: Result<&Systemd, SystemdError>) -> Vec<Finding> {
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
            let unit = systemd.unit(UNIT).await;
            let is_loaded = unit.as_ref().is_ok_and(|unit| unit.load_state == "loaded");
            findings.push(machine::unit(unit));
            findings.push(if is_loaded {
                machine::drop_ins(systemd.settings(UNIT).await)
            } else {
                Finding::skipped("drop_ins", "there is no unit that they could change")
            });
        }
        Err(error) => {
            findings.push(Finding::of("systemd", Err(error.into())));
            findings
                .extend(["unit", "drop_ins"].map(|check| Finding::skipped(check, "systemd was not reached")));
        }
    }
    findings.push(machine::containers(layout.root()));
    findings.extend(network::examine(examination, token::installed(layout)).await);
    findings
}
