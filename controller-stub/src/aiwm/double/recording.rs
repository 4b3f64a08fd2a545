//! What was said and answered, for a test to read (pure). Bounded: the oldest goes first. Holds no secret:
//! values whose names say that they are one are replaced.

use std::collections::VecDeque;

use aio_protocol::{ids::NodeId, time::Timestamp};
use serde::Serialize;
use serde_json::{Value, json};

const MAX_ENTRIES: usize = 2000;
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// A larger body is not kept.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// Fields whose values are secrets, or hold one.
const SECRETS: [&str; 8] =
    ["token", "setuptoken", "accesstoken", "secret", "apikey", "password", "authorization", "installcommand"];

/// Who said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::aiwm) enum By {
    Peer,
    Controller,
}

/// Something that was said.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::aiwm) struct Entry {
    pub at: Timestamp,
    pub by: By,
    /// Where it is known whose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_id: Option<NodeId>,
    /// The event's name, or the method and path of a request.
    pub what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    pub body: Value,
}

#[derive(Debug, Default)]
pub(in crate::aiwm) struct Recording {
    /// With the bytes of each.
    entries: VecDeque<(Entry, usize)>,
    bytes: usize,
    dropped: u64,
}

impl Recording {
    pub(in crate::aiwm) fn push(&mut self, mut entry: Entry) {
        redact(&mut entry.body);
        let size = |value: &Value| value.to_string().len();
        let mut bytes = size(&entry.body);
        if bytes > MAX_BODY_BYTES {
            entry.body = json!({ "omittedBytes": bytes });
            bytes = size(&entry.body);
        }
        bytes += entry.what.len();
        self.bytes += bytes;
        self.entries.push_back((entry, bytes));
        while self.entries.len() > MAX_ENTRIES || self.bytes > MAX_BYTES {
            let Some((_, bytes)) = self.entries.pop_front() else { break };
            self.bytes -= bytes;
            self.dropped += 1;
        }
    }

    /// What concerns a node, or all, oldest first; and how many were dropped.
    pub(super) fn of(&self, node: Option<&NodeId>) -> (Vec<Entry>, u64) {
        let concerns = |entry: &Entry| node.is_none() || entry.node_id.as_ref() == node;
        let entries = self.entries.iter().map(|(entry, _)| entry).filter(|entry| concerns(entry));
        (entries.cloned().collect(), self.dropped)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if SECRETS.contains(&name.to_ascii_lowercase().as_str()) {
                    *value = Value::from("[redacted]");
                } else {
                    redact(value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(redact),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(body: Value) -> Entry {
        let at = Timestamp::from_millis(0);
        Entry { at, by: By::Peer, node_id: None, what: "POST /nodes".into(), status: None, body }
    }

    #[test]
    fn no_secret_is_kept_however_deep_it_lies() {
        let mut recording = Recording::default();
        recording.push(entry(
            json!({"auth": {"token": "s3cret"}, "list": [{"accessToken": "s3cret"}], "Secret": ["s3cret"],
            "installCommand": "install --token s3cret", "credentials": {"secret": "s3cret"}, "name": "kept"}),
        ));
        let (entries, _) = recording.of(None);
        let text = serde_json::to_string(&entries).unwrap();
        assert!(!text.contains("s3cret") && text.contains("kept"), "{text}");
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many_or_too_much() {
        let mut recording = Recording::default();
        for number in 0..MAX_ENTRIES + 5 {
            recording.push(entry(json!(number)));
        }
        let (entries, dropped) = recording.of(None);
        assert_eq!((entries.len(), dropped), (MAX_ENTRIES, 5));
        assert_eq!(entries.first().unwrap().body, json!(5));
        for _ in 0..1000 {
            recording.push(entry(json!("x".repeat(MAX_BODY_BYTES - 100))));
        }
        assert!(recording.bytes <= MAX_BYTES && recording.of(None).0.len() < 300);
        recording.push(entry(json!("x".repeat(MAX_BODY_BYTES))));
        let last = recording.of(None).0.pop().unwrap();
        assert!(last.body.get("omittedBytes").is_some());
        recording.clear();
        assert_eq!((recording.of(None).0.len(), recording.bytes), (0, 0));
    }

    #[test]
    fn one_node_s_part_is_that_node_s_alone() {
        let mut recording = Recording::default();
        let ours = NodeId::from_bytes([1; 12]);
        recording.push(Entry { node_id: Some(ours.clone()), ..entry(json!(1)) });
        recording.push(entry(json!(2)));
        assert_eq!(recording.of(Some(&ours)).0.len(), 1);
        assert_eq!(recording.of(None).0.len(), 2);
    }
}
