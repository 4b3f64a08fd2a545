//! `aio-worker logs`: what the service has said, out of the journal, as lines or as objects of our
//! own. Who may read the journal may say it; who may not is told so, instead of being shown
//! nothing.

mod access;

use std::{
    io,
    path::Path,
    process::{ExitCode, Stdio},
};

use aio_host::layout::UNIT;
use aio_installer::{
    cli::{Failure, Output, print_part},
    journalctl,
};
use aio_protocol::error_code::ErrorCode;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{ChildStderr, ChildStdout},
    signal::unix::{SignalKind, signal},
};

use self::access::{Access, access};
use super::{
    answer::{Answer, internal, json_line, runtime},
    journal::Entry,
    paint::{Tone, paint},
};

/// As many as a person reads.
const LINES: u32 = 100;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Who may read the journal may say it: root, and the members of the group systemd-journal (or adm). Times are UTC. What is logged, \
`log` in config.toml says.

Exit status: 0 all was printed, or nothing has been logged; 2 --since is no time; 74 there is no journal; 77 this user may not read \
it; with --follow, 130 after Ctrl-C.

Examples:
  sudo aio-worker logs --follow
  sudo aio-worker logs --since -1h
  sudo aio-worker logs --lines 1000 --output json | jq 'select(.level == \"warning\") | .fields.code'")]
pub(super) struct Arguments {
    /// Go on, and print what is logged from now on
    #[arg(long, short)]
    follow: bool,
    /// Not more than the last N lines [default: 100; with --since all]
    #[arg(long, short = 'n', value_name = "N")]
    lines: Option<u32>,
    /// Only what is not older: a time that journalctl knows, e.g. -1h, yesterday, '2026-01-31 12:00:00'
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    #[command(flatten)]
    pub(super) answer: Answer,
}

impl Arguments {
    fn of_journalctl(&self) -> Vec<String> {
        let mut arguments = vec!["--output=json".to_owned(), format!("--unit={UNIT}")];
        let lines = self.lines.or(self.since.is_none().then_some(LINES));
        arguments.extend(lines.map(|lines| format!("--lines={lines}")));
        arguments.extend(self.since.as_ref().map(|since| format!("--since={since}")));
        if self.follow {
            arguments.push("--follow".to_owned());
            // To follow is to see ten lines, unless told otherwise.
            arguments.extend(lines.is_none().then(|| "--no-tail".to_owned()));
        }
        arguments
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    readable()?;
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        let listen =
            |kind| signal(kind).map_err(|error| internal(format!("signals cannot be listened to: {error}")));
        let (mut interrupt, mut terminate) =
            (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        // Whoever ends this command ends journalctl with it, and at once.
        tokio::select! {
            read = read(arguments) => read.map(|()| ExitCode::SUCCESS),
            _ = interrupt.recv() => Ok(ErrorCode::Interrupted.exit_status().into()),
            _ = terminate.recv() => Ok(ErrorCode::Interrupted.exit_status().into()),
        }
    });
    runtime.shutdown_background();
    ended
}

fn readable() -> Result<(), Failure> {
    match access(Path::new("/")) {
        Access::Granted => Ok(()),
        Access::Withheld(path) => {
            let message = format!(
                "this user may not read the journal in {}: root may, and members of the group systemd-journal",
                path.display()
            );
            Err(Failure::new(ErrorCode::NotRoot, message))
        }
        Access::Absent => {
            let message = "there is no journal in /var/log/journal or /run/log/journal: systemd-journald does not run, or keeps none";
            Err(Failure::new(ErrorCode::FileFailed, message))
        }
    }
}

async fn read(arguments: &Arguments) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(ErrorCode::FileFailed, format!("journalctl: {error}"));
    let mut child = journalctl(arguments.of_journalctl()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    let (entries, complaints) = (child.stdout.take(), child.stderr.take());
    let output = arguments.answer.output;
    let complaint = tokio::spawn(complaint(complaints));
    if !print_all(entries, output).await? {
        // Who reads no further has had enough, and journalctl ends with this command.
        return Ok(());
    }
    let status = child.wait().await.map_err(failed)?;
    match complaint.await.unwrap_or_default() {
        _ if status.success() => Ok(()),
        text if text.contains("Failed to parse timestamp") => {
            Err(Failure::new(ErrorCode::Usage, format!("--since: {text}")))
        }
        text => Err(Failure::new(ErrorCode::FileFailed, format!("journalctl ended with {status}: {text}"))),
    }
}

/// Prints each entry as it comes; false when nobody reads any more.
async fn print_all(entries: Option<ChildStdout>, output: Output) -> Result<bool, Failure> {
    let Some(entries) = entries else { return Ok(true) };
    let mut entries = BufReader::new(entries);
    let mut line = Vec::new();
    while entries.read_until(b'\n', &mut line).await.is_ok_and(|length| length > 0) {
        if let Some(entry) = Entry::parse(&String::from_utf8_lossy(&line)) {
            let shown = match output {
                Output::Text => screen(&entry) + "\n",
                Output::Json => json_line(&entry)?,
            };
            if !print_part(&shown)? {
                return Ok(false);
            }
        }
        line.clear();
    }
    Ok(true)
}

async fn complaint(from: Option<ChildStderr>) -> String {
    let mut text = Vec::new();
    if let Some(mut from) = from {
        // What cannot be read is not told.
        let _ = from.read_to_end(&mut text).await;
    }
    String::from_utf8_lossy(&text).trim().to_owned()
}

/// A line in the colour of its level. What is not printable must not command the terminal.
fn screen(entry: &Entry) -> String {
    let line = entry.line().replace(|c: char| c.is_control() && c != '\n' && c != '\t', "\u{fffd}");
    match entry.level {
        "emergency" | "alert" | "critical" | "error" => paint(Tone::Bad, &line),
        "warning" => paint(Tone::Doubtful, &line),
        "debug" => paint(Tone::Faint, &line),
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(lines: Option<u32>, since: Option<&str>, follow: bool) -> Vec<String> {
        let since = since.map(str::to_owned);
        Arguments { follow, lines, since, answer: Answer { output: Output::Text } }.of_journalctl()
    }

    #[test]
    fn a_hundred_lines_are_printed_unless_somebody_says_how_many_or_since_when() {
        let always = ["--output=json", "--unit=aio-worker.service"];
        let with = |more: &[&'static str]| [&always, more].concat();
        assert_eq!(arguments(None, None, false), with(&["--lines=100"]));
        assert_eq!(arguments(Some(7), None, true), with(&["--lines=7", "--follow"]));
        assert_eq!(arguments(None, Some("-1h"), false), with(&["--since=-1h"]));
        assert_eq!(arguments(None, Some("-1h"), true), with(&["--since=-1h", "--follow", "--no-tail"]));
        assert_eq!(arguments(Some(7), Some("-1h"), false), with(&["--lines=7", "--since=-1h"]));
    }

    #[test]
    fn what_would_command_a_terminal_is_not_printed_on_it() {
        let entry =
            Entry::parse(r#"{"MESSAGE":[27,93,48,59,120,7,10,98],"_COMM":"x","PRIORITY":"6"}"#).unwrap();
        assert_eq!(screen(&entry), "1970-01-01T00:00:00.000Z info x[]: \u{fffd}]0;x\u{fffd}\n    b");
    }
}
