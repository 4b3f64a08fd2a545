//! What the service said last, for whoever must find out why it does not run. Read with journalctl, because journald has no other
//! stable interface without its C library; that it cannot be read is never a failure of its own.

use std::{
    pin::Pin,
    process::Stdio,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{process::Command, time::timeout};

/// How many lines are shown and reported.
const LINES: usize = 20;

/// Of one line; the journal has it whole.
const MAX_CHARS: usize = 400;

/// A journal on a disk that is full or slow must not keep the answer back.
const PATIENCE: Duration = Duration::from_secs(5);

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
            let mut journalctl = Command::new("journalctl");
            journalctl
                .args(["--no-pager", "--quiet", "--output=cat", "--unit", unit])
                .args([format!("--since=@{since}"), format!("--lines={LINES}")])
                .stdin(Stdio::null())
                .kill_on_drop(true);
            match timeout(PATIENCE, journalctl.output()).await {
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

/// The lines as they may be shown and reported: short, and without `secret`.
pub(crate) fn presentable(lines: Vec<String>, secret: &str) -> Vec<String> {
    let skipped = lines.len().saturating_sub(LINES);
    let lines = lines.into_iter().skip(skipped).map(|line| line.replace(secret, "[node token]"));
    lines.map(|line| line.chars().take(MAX_CHARS).collect()).collect()
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
    }
}
