//! The entries of the journal as values, read from the lines of `journalctl --output=json`. What is
//! asked, and what becomes of the answer, is for `logs` and the support bundle to say.

use std::collections::BTreeMap;

use aio_protocol::time::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

/// syslog's priorities, from 0.
const LEVELS: [&str; 8] = ["emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"];

/// What the daemon's fields begin with.
const PREFIX: &str = "AIO_";

/// An entry of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    /// When it was written.
    timestamp: Timestamp,
    /// How grave it is, in syslog's words; `-` where nobody said.
    pub(super) level: &'static str,
    /// Who said it: the daemon, or the service manager about it.
    source: String,
    /// The process that said it.
    pid: Option<u32>,
    /// The part of the daemon that said it.
    target: Option<String>,
    message: String,
    /// The daemon's fields, in small letters, without their prefix.
    fields: BTreeMap<String, String>,
}

impl Entry {
    /// Reads a line of `journalctl --output=json`.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let Value::Object(entry) = serde_json::from_str(line).ok()? else { return None };
        let field = |name: &str| entry.get(name).map(text);
        let micros = field("__REALTIME_TIMESTAMP").and_then(|micros| micros.parse::<i64>().ok());
        let level = field("PRIORITY").and_then(|level| level.parse::<usize>().ok());
        Some(Self {
            timestamp: Timestamp::from_millis(micros.unwrap_or_default() / 1000),
            level: level.and_then(|level| LEVELS.get(level)).unwrap_or(&"-"),
            source: field("SYSLOG_IDENTIFIER").or_else(|| field("_COMM")).unwrap_or_default(),
            pid: field("_PID").and_then(|pid| pid.parse().ok()),
            target: field("TARGET"),
            message: field("MESSAGE").unwrap_or_default(),
            fields: own(&entry),
        })
    }

    /// As a line: when, how grave, who, what, and the daemon's fields. The lines of one message
    /// stay together.
    pub(super) fn line(&self) -> String {
        let Self { timestamp, level, source, message, .. } = self;
        let pid = self.pid.map(|pid| pid.to_string()).unwrap_or_default();
        let mut line = format!("{timestamp} {level} {source}[{pid}]: {message}");
        for (name, value) in &self.fields {
            line.push_str(&format!(" {name}={value}"));
        }
        line.trim_end().replace('\n', "\n    ")
    }
}

fn own(entry: &Map<String, Value>) -> BTreeMap<String, String> {
    let own = |(name, value): (&String, &Value)| {
        Some((name.strip_prefix(PREFIX)?.to_ascii_lowercase(), text(value)))
    };
    entry.iter().filter_map(own).collect()
}

/// A field's value: journald writes as a list of bytes what is not printable, and nothing where it
/// is too long.
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

    const ENTRY: &str = r#"{"__REALTIME_TIMESTAMP":"1765454400123456","PRIORITY":"4",
        "SYSLOG_IDENTIFIER":"aio-worker","_PID":"7","MESSAGE":"the session is lost","TARGET":"aio_worker::session",
        "AIO_CODE":"CONTROLLER_UNREACHABLE","_UID":"998"}"#;

    #[test]
    fn an_entry_is_a_line_with_the_daemon_s_fields() {
        assert_eq!(
            Entry::parse(ENTRY).unwrap().line(),
            "2025-12-11T12:00:00.123Z warning aio-worker[7]: the session is lost code=CONTROLLER_UNREACHABLE"
        );
    }

    #[test]
    fn programs_get_an_object_of_our_own_and_nothing_of_journald_s() {
        let expected = serde_json::json!({
            "timestamp": "2025-12-11T12:00:00.123Z", "level": "warning", "source": "aio-worker", "pid": 7,
            "target": "aio_worker::session", "message": "the session is lost",
            "fields": { "code": "CONTROLLER_UNREACHABLE" },
        });
        assert_eq!(serde_json::to_value(Entry::parse(ENTRY).unwrap()).unwrap(), expected);
    }

    #[test]
    fn bytes_become_text_and_lines_stay_together() {
        let json = r#"{"MESSAGE":[27,91,109,97,10,98],"_COMM":"x"}"#;
        assert_eq!(Entry::parse(json).unwrap().line(), "1970-01-01T00:00:00.000Z - x[]: \u{1b}[ma\n    b");
        assert_eq!(Entry::parse("no JSON"), None);
    }
}
