//! What the service and the kernel have said, read with journalctl, because journald has no other stable interface without its C library. What came
//! before the deadline counts, also when the rest does not come.

use std::{collections::VecDeque, process::Stdio, time::Duration};

use aio_host::layout::UNIT;
use aio_protocol::time::Timestamp;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::timeout,
};

use super::part::{Content, Found};

/// Lines of the service's journal.
const LINES: usize = 2000;

/// Lines of the kernel's about its GPU driver.
const DRIVER_LINES: usize = 500;

/// A journal on a disk that is full or slow must not keep the rest back.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the GPU driver's lines hold.
const DRIVER: [&str; 3] = ["NVRM", "Xid", "nvidia"];

const LEVELS: [&str; 8] = ["emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"];

/// The last lines of the unit, and of the service manager about it, with the fields that the daemon gave them.
pub(super) async fn of_unit() -> Found {
    let lines = format!("--lines={LINES}");
    read(&["--output=json", "--unit", UNIT, &lines], LINES, entry).await
}

/// What the kernel has said of the GPU driver in the last week.
pub(super) async fn of_driver() -> Found {
    let arguments = ["--output=short-iso-precise", "--utc", "--since=-7d", "_TRANSPORT=kernel"];
    let of_driver =
        |line: &str| DRIVER.iter().any(|word| line.contains(word)).then(|| line.trim_end().to_owned());
    read(&arguments, DRIVER_LINES, of_driver).await
}

async fn read(arguments: &[&str], most: usize, shown: impl Fn(&str) -> Option<String>) -> Found {
    let mut journalctl = Command::new("journalctl");
    journalctl
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
    let mut child = journalctl.spawn().map_err(|error| format!("journalctl: {error}"))?;
    let mut output = BufReader::new(child.stdout.take().ok_or("journalctl has no output")?);
    let mut lines = VecDeque::new();
    let reading = async {
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).await.is_ok_and(|length| length > 0) {
            lines.extend(shown(&String::from_utf8_lossy(&line)));
            if lines.len() > most {
                lines.pop_front();
            }
            line.clear();
        }
    };
    let cut_off = timeout(PATIENCE, reading).await.is_err();
    let patience = PATIENCE.as_secs();
    match (lines.is_empty(), cut_off) {
        (true, true) => Err(format!("the journal gave nothing within {patience} s")),
        (true, false) => Err("the journal holds no such line, or none that this user may read".to_owned()),
        (false, _) => Ok(Content {
            text: lines.into_iter().map(|line| line + "\n").collect(),
            note: cut_off.then(|| format!("the journal gave no more within {patience} s")),
        }),
    }
}

/// An entry of the journal as a line: when, how grave, who, what, and the fields of our daemon.
fn entry(json: &str) -> Option<String> {
    let Value::Object(fields) = serde_json::from_str(json).ok()? else { return None };
    let field = |name: &str| fields.get(name).map(text);
    let at = field("__REALTIME_TIMESTAMP").and_then(|micros| micros.parse::<i64>().ok());
    let at = Timestamp::from_millis(at.unwrap_or_default() / 1000);
    let level = field("PRIORITY").and_then(|level| level.parse::<usize>().ok());
    let level = level.and_then(|level| LEVELS.get(level)).unwrap_or(&"-");
    let name = field("SYSLOG_IDENTIFIER").or_else(|| field("_COMM")).unwrap_or_default();
    let pid = field("_PID").unwrap_or_default();
    let mut line = format!("{at} {level} {name}[{pid}]: {}", field("MESSAGE").unwrap_or_default());
    for (name, value) in &fields {
        if let Some(name) = name.strip_prefix("AIO_") {
            line.push_str(&format!(" {}={}", name.to_ascii_lowercase(), text(value)));
        }
    }
    Some(line.trim_end().replace('\n', "\n    "))
}

/// A field's value: journald writes as a list of bytes what is not printable, and nothing where it is too long.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(bytes) => {
            let bytes: Vec<u8> = bytes.iter().filter_map(|byte| u8::try_from(byte.as_u64()?).ok()).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        _ => "(too long)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_line_with_the_daemon_s_fields() {
        let json = r#"{"__REALTIME_TIMESTAMP":"1765454400123456","PRIORITY":"4","SYSLOG_IDENTIFIER":"aio-worker",
            "_PID":"7","MESSAGE":"the session is lost","AIO_CODE":"CONTROLLER_UNREACHABLE","_UID":"998"}"#;
        assert_eq!(
            entry(json).unwrap(),
            "2025-12-11T12:00:00.123Z warning aio-worker[7]: the session is lost code=CONTROLLER_UNREACHABLE"
        );
    }

    #[test]
    fn bytes_become_text_and_lines_stay_together() {
        let json = r#"{"MESSAGE":[27,91,109,97,10,98],"_COMM":"x"}"#;
        assert_eq!(entry(json).unwrap(), "1970-01-01T00:00:00.000Z - x[]: \u{1b}[ma\n    b");
        assert_eq!(entry("no JSON"), None);
    }
}
