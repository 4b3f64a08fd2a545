//! `aio-worker config`: what the daemon is told, looked at without starting it.

mod check;
mod examination;
mod file;
mod finding;
mod show;

use std::process::ExitCode;

use aio_host::layout::Layout;
use aio_installer::{
    cli::{Failure, Output},
    doctor,
};
use clap::{Args, Subcommand};

use self::{
    examination::Examination,
    finding::{Finding, Severity},
};
use crate::config::Environment;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Says everything that is wrong with the configuration, at once.
    Check(check::Arguments),
    /// Says what each key is for the daemon, and who says so.
    Show(show::Arguments),
}

impl Arguments {
    pub(super) fn output(&self) -> Output {
        match &self.command {
            Command::Check(arguments) => arguments.answer.output,
            Command::Show(arguments) => arguments.answer.output,
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    match &arguments.command {
        Command::Check(arguments) => check::run(arguments),
        Command::Show(arguments) => show::run(arguments),
    }
}

/// What `check` finds, in one finding of the doctor's. The token is left out: the doctor has checks
/// of its own for it.
pub(super) fn diagnosis(layout: &Layout, env: Environment<'_>) -> doctor::Finding {
    summary(&Examination::of_settings(layout, env), layout)
}

fn summary(findings: &[Finding], layout: &Layout) -> doctor::Finding {
    const CHECK: &str = "configuration";
    let of = |severity| findings.iter().filter(move |finding| finding.severity == severity);
    let reason = |finding: &Finding| {
        let more = match of(finding.severity).count() {
            0 | 1 => String::new(),
            count => format!(" (and {} more: aio-worker config check)", count - 1),
        };
        finding.sentence() + &more
    };
    let (error, warning, note) =
        (of(Severity::Error).next(), of(Severity::Warning).next(), of(Severity::Note).next());
    match (error, warning, note) {
        (Some(error), _, _) => doctor::Finding::failed(CHECK, error.code, reason(error)),
        (None, Some(warning), _) => doctor::Finding::warning(CHECK, reason(warning), warning.cure.clone()),
        (None, None, Some(note)) => doctor::Finding::skipped(CHECK, reason(note)),
        (None, None, None) => {
            let file = layout.config();
            let word = if file.exists() { "can be used" } else { "is not there, and need not be" };
            doctor::Finding::ok(CHECK, format!("{} {word}", file.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use aio_installer::doctor::Verdict;
    use aio_protocol::error_code::ErrorCode;

    use super::*;

    #[test]
    fn the_doctor_says_the_worst_and_how_much_more_there_is() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::under(root.path());
        let found = || diagnosis(&layout, &|_| None);
        assert_eq!(found().result, Verdict::Ok, "no file is as good as an empty one");
        fs::create_dir_all(layout.config_dir()).unwrap();
        let write = |text: &str| fs::write(layout.config(), text).unwrap();
        write("log = \"info\"\n");
        assert_eq!(found().result, Verdict::Ok);
        write("nvml_library = \"/nonexistent/libnvidia-ml.so.1\"\n");
        assert_eq!(found().result, Verdict::Warning);
        write("contoller_endpoint = 1\nlog = 7\nnvml_library = \"/nonexistent/libnvidia-ml.so.1\"\n");
        let worst = found();
        assert_eq!((worst.result, worst.code), (Verdict::Failed, Some(ErrorCode::ConfigInvalid)));
        let words = "config.toml:1: unknown key `contoller_endpoint`; did you mean `controller_endpoint`? (and 1 more: aio-worker config check)";
        assert!(worst.reason.ends_with(words), "{}", worst.reason);
    }
}
