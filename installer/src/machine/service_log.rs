//! What the service said last, for whoever must find out why it does not run. Read with journalctl,
//! because journald has no other stable interface without its C library; that it cannot be read is
//! never a failure of its own.

use std::{
    ffi::OsStr,
    pin::Pin,
    process::Stdio,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aio_host::layout::UNIT;
use aio_protocol::error_code::ErrorCode;
use tokio::{process::Command, time::timeout};

use crate::failure::Failure;

/// How many lines are shown and reported.
const MAX_LINES: usize = 20;

/// Of one line; the journal has it whole.
const MAX_CHARS: usize = 400;

/// Of all of them: a report whose details are longer than 8 KiB would be told without any.
const MAX_BYTES: usize = 6 * 1024;

/// A journal on a disk that is full or slow must not keep the answer back.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The lines, oldest first.
pub type Lines<'a> = Pin<Box<dyn Future<Output = Vec<String>> + 'a>>;

/// Who keeps what services say.
pub trait ServiceLog {
    /// The last lines of `unit`, and of the service manager about it, since then.
    fn last_lines<'a>(&'a self, unit: &'a str, since: SystemTime) -> Lines<'a>;
}

/// journald.
#[derive(Debug, Clone, Copy)]
pub struct Journald;

impl ServiceLog for Journald {
    fn last_lines<'a>(&'a self, unit: &'a str, since: SystemTime) -> Lines<'a> {
        Box::pin(async move {
            let since = since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let (since, lines) = (format!("--since=@{since}"), format!("--lines={MAX_LINES}"));
            let mut read = journalctl(["--output=cat", "--unit", unit, &since, &lines]);
            match timeout(READ_TIMEOUT, read.output()).await {
                Ok(Ok(output)) => {
                    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
                }
                unread => {
                    tracing::debug!(?unread, "the journal could not be read");
                    Vec::new()
                }
            }
        })
    }
}

/// journalctl with these arguments, its output to be read, and nothing of its complaints shown.
pub fn journalctl<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new("journalctl");
    command
        .args(["--no-pager", "--quiet"])
        .args(arguments)
        // Nothing of our environment: it may hold the token.
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command
}

/// `failure` with what the service said since then, where that is where the reason stands.
pub(crate) async fn quote(
    log: &dyn ServiceLog,
    failure: Failure,
    since: SystemTime,
    secret: &str,
) -> Failure {
    if !matches!(failure.code, ErrorCode::ServiceFailed | ErrorCode::OnlineTimeout) {
        return failure;
    }
    let lines = presentable(log.last_lines(UNIT, since).await, secret);
    if lines.is_empty() { failure } else { failure.with("journal", lines) }
}

/// The lines as they may be shown and reported: the last that there is room for, short, and without
/// `secret`.
fn presentable(lines: Vec<String>, secret: &str) -> Vec<String> {
    let mut room = MAX_BYTES;
    let shown = lines.into_iter().rev().take(MAX_LINES).map(|line| {
        let line = line.replace(secret, "[node token]");
        line.chars().take(MAX_CHARS).collect::<String>()
    });
    let mut shown: Vec<_> = shown
        .take_while(|line| {
            let fits = line.len() <= room;
            room = room.saturating_sub(line.len());
            fits
        })
        .collect();
    shown.reverse();
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_short_and_without_the_token() {
        let mut lines: Vec<_> = (0..30).map(|number| number.to_string()).collect();
        lines.push(format!("{}se.cr.et", "x".repeat(1000)));
        lines.push("token se.cr.et was refused".to_owned());
        let shown = presentable(lines, "se.cr.et");
        assert_eq!((shown.len(), shown[0].as_str()), (20, "12"));
        assert_eq!(shown[18].chars().count(), MAX_CHARS);
        assert_eq!(shown[19], "token [node token] was refused");
        let long = presentable(vec!["y".repeat(1000); 30], "se.cr.et");
        assert_eq!(long.len(), MAX_BYTES / MAX_CHARS, "a report has room for no more");
    }
}
