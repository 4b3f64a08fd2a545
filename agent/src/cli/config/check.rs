//! `aio-worker config check`: says at once all for which the daemon would not start or not connect.
//! What that is, `examination` finds out.

use std::{path::PathBuf, process::ExitCode, time::SystemTime};

use aio_host::layout::Layout;
use aio_installer::cli::{Failure, Output, print};
use serde::Serialize;

use super::{
    examination::Examination,
    finding::{Finding, Severity, screen},
};
use crate::{
    cli::{
        answer::{Answer, print_json},
        paint::{Tone, paint},
    },
    config::{Flags, environment},
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Any user may ask; what only root may read is said not to be checked. The environment is that of this command: a variable that a drop-in \
gives to the service is not seen.

Exit status: 0 the daemon can use it, whatever is worth a warning; otherwise that of the first error's code, as \
docs/troubleshooting.md lists them.

Examples:
  sudo aio-worker config check
  aio-worker config check --config ./config.toml --output json")]
pub(super) struct Arguments {
    /// The configuration [default: /etc/aio-worker/config.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A file with the node token; `-` reads it from standard input [default: as the daemon finds it]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) answer: Answer,
}

/// The answer for programs.
#[derive(Debug, Serialize)]
struct Checked {
    file: PathBuf,
    /// Whether nothing was found for which the daemon would not start or not connect.
    usable: bool,
    findings: Vec<Finding>,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let layout = Layout::default();
    let file = arguments.config.clone().unwrap_or_else(|| layout.config());
    let flags = Flags {
        config: arguments.config.clone(),
        token_file: arguments.token_file.clone(),
        ..Flags::default()
    };
    let findings = Examination::of(&flags, &layout, &environment, SystemTime::now().into());
    let first = findings.iter().find(|finding| finding.severity == Severity::Error);
    let status = first.map_or(0, |finding| finding.code.exit_status());
    let checked = Checked { file, usable: first.is_none(), findings };
    match arguments.answer.output {
        Output::Json => print_json(&checked)?,
        Output::Text => print(&format!("{}{}", screen(&checked.findings), conclusion(&checked)))?,
    }
    Ok(status.into())
}

fn conclusion(checked: &Checked) -> String {
    let count = |severity| checked.findings.iter().filter(|finding| finding.severity == severity).count();
    let of = |count: usize, word: &str| match count {
        0 => None,
        1 => Some(format!("1 {word}")),
        _ => Some(format!("{count} {word}s")),
    };
    let counts = [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Note, "note")];
    let counts: Vec<_> = counts.iter().filter_map(|(severity, word)| of(count(*severity), word)).collect();
    let counts = if counts.is_empty() { String::new() } else { format!(" ({})", counts.join(", ")) };
    let word =
        if checked.usable { paint(Tone::Good, "ok") } else { paint(Tone::Bad, "the daemon cannot use this") };
    format!("{}: {word}{counts}\n", checked.file.display())
}
