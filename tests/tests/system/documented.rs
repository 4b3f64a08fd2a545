//! The answers that docs/cli.md shows, and whether a program's own are of the same shape: the same
//! keys, values of the same kinds.
//!
//! A section's heading names the command. Its first fenced JSON is the example: an object, or one
//! object per line. After it, a line that begins `May be absent:` lists what is not always there,
//! and one that begins `Of any keys:` what is a map; both as paths such as `gpus[].serial`. Where
//! an example says `"<gpu>"`, the section `gpu` says what is there.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// What a section documents.
pub(crate) struct Documented {
    command: String,
    examples: Vec<Value>,
    absent: BTreeSet<String>,
    maps: BTreeSet<String>,
}

impl Documented {
    /// The section of this command, e.g. `aio-worker status`, or of a part of several answers, e.g. `gpu`.
    pub(crate) fn of(command: &str) -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("docs").join("cli.md");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let heading = format!("\n## `{command}`\n");
        let (_, rest) = text.split_once(&heading).with_context(|| format!("no section of {command}"))?;
        let section = rest.split("\n## ").next().unwrap_or(rest);
        let (_, rest) = section.split_once("```json\n").with_context(|| format!("no example: {section}"))?;
        let (example, after) = rest.split_once("\n```").context("a fence is open")?;
        let examples = serde_json::Deserializer::from_str(example).into_iter().collect::<Result<_, _>>();
        let paths = |begin: &str| {
            let line = after.lines().find_map(|line| line.strip_prefix(begin)).unwrap_or_default();
            line.split('`').skip(1).step_by(2).map(str::to_owned).collect()
        };
        Ok(Self {
            command: command.to_owned(),
            examples: examples.with_context(|| format!("the example of {command}"))?,
            absent: paths("May be absent: "),
            maps: paths("Of any keys: "),
        })
    }

    /// Fails unless this real answer is of the documented shape.
    pub(crate) fn fits(&self, answer: &Value) -> Result<()> {
        let mut faults = Vec::new();
        self.compare("", &self.examples.iter().collect::<Vec<_>>(), answer, &mut faults);
        ensure!(faults.is_empty(), "{}: {}\n{answer:#}", self.command, faults.join("; "));
        Ok(())
    }

    fn compare(&self, path: &str, examples: &[&Value], answer: &Value, faults: &mut Vec<String>) {
        if self.maps.contains(path) && answer.is_object() {
            return;
        }
        if let Some(part) = examples.iter().find_map(|example| named(example)) {
            return self.compare_part(path, part, answer, faults);
        }
        if !answer.is_null() && !examples.iter().any(|example| kind(example) == kind(answer)) {
            let shown: Vec<_> = examples.iter().map(|example| kind(example)).collect();
            return faults.push(format!("{path} is {}, documented as {shown:?}", kind(answer)));
        }
        match answer {
            Value::Object(answer) => {
                let objects: Vec<_> = examples.iter().filter_map(|example| example.as_object()).collect();
                let known: BTreeSet<_> = objects.iter().flat_map(|object| object.keys()).collect();
                for key in known.iter().filter(|key| !answer.contains_key(**key)) {
                    let path = join(path, key);
                    if !self.absent.contains(&path) {
                        faults.push(format!("{path} is documented, and was not said"));
                    }
                }
                for (key, value) in answer {
                    let path = join(path, key);
                    let examples: Vec<_> = objects.iter().filter_map(|object| object.get(key)).collect();
                    if examples.is_empty() {
                        faults.push(format!("{path} is not documented"));
                    } else {
                        self.compare(&path, &examples, value, faults);
                    }
                }
            }
            Value::Array(answers) => {
                let path = format!("{path}[]");
                let arrays = examples.iter().filter_map(|example| example.as_array());
                let examples: Vec<_> = arrays.flatten().collect();
                for answer in answers {
                    self.compare(&path, &examples, answer, faults);
                }
            }
            _ => {}
        }
    }

    fn compare_part(&self, path: &str, part: &str, answer: &Value, faults: &mut Vec<String>) {
        if answer.is_null() {
            return;
        }
        match Self::of(part) {
            Ok(part) => {
                let mut within = Vec::new();
                part.compare("", &part.examples.iter().collect::<Vec<_>>(), answer, &mut within);
                faults.extend(within.into_iter().map(|fault| format!("{path}: {fault}")));
            }
            Err(error) => faults.push(format!("{path}: {error:#}")),
        }
    }
}

/// The section that an example names instead of showing something.
fn named(example: &Value) -> Option<&str> {
    example.as_str()?.strip_prefix('<')?.strip_suffix('>')
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use aio_protocol::{
        time::Timestamp,
        update::{LastUpdate, ManagedBy, RootPhase, RootStatus, UpdateReport, UpdateState, Verdict},
    };
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn documented(example: Value) -> Documented {
        let path = |path: &str| BTreeSet::from([path.to_owned()]);
        Documented {
            command: "x".to_owned(),
            examples: vec![example],
            absent: path("list[].b"),
            maps: path("map"),
        }
    }

    #[test]
    fn another_key_another_kind_and_a_missing_key_are_found() {
        let documented =
            documented(json!({ "text": "x", "list": [{ "a": 1, "b": null }, { "b": 2 }], "map": {} }));
        let answer = |list: Value| json!({ "text": "y", "list": list, "map": { "any": 1 } });
        documented.fits(&answer(json!([]))).unwrap();
        documented.fits(&answer(json!([{ "a": 7 }, { "a": 8, "b": 3 }]))).unwrap();
        documented.fits(&answer(json!([{ "a": null, "b": 3 }]))).unwrap();
        for (list, words) in [
            (json!([{ "b": 1 }]), "list[].a is documented, and was not said"),
            (json!([{ "a": 1, "c": 1 }]), "list[].c is not documented"),
            (json!([{ "a": "1" }]), "list[].a is a text"),
            (json!([1]), "list[] is a number"),
        ] {
            let error = documented.fits(&answer(list)).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_part_that_has_a_section_of_its_own_is_as_that_says() {
        let documented = documented(json!({ "text": "x", "list": ["<service>"], "map": {} }));
        let answer = |service: Value| json!({ "text": "y", "list": [service], "map": {} });
        documented.fits(&answer(json!({ "name": "docker.service", "state": "absent" }))).unwrap();
        let error = documented.fits(&answer(json!({ "name": "docker.service" }))).unwrap_err().to_string();
        assert!(error.contains("list[]: state is documented, and was not said"), "{error}");
    }

    #[test]
    fn what_a_worker_and_root_say_of_updates_is_documented() {
        let version = || "v1.0.0".parse().unwrap();
        let last = LastUpdate {
            update_id: Uuid::nil(),
            from: version(),
            version: version(),
            verdict: Verdict::Faulty,
            code: Some("UPDATE_FAULTY".into()),
            message: Some("in words".into()),
            at: Timestamp::from_millis(0),
        };
        let update = UpdateReport {
            managed_by: ManagedBy::Controller,
            state: UpdateState::Deferred,
            update_id: Some(Uuid::nil()),
            target: Some(version()),
            reason: Some("in words".into()),
            last: Some(last.clone()),
            pin: Some(version()),
            floor: Some(version()),
            index_serial: Some(1),
        };
        let root = RootStatus {
            phase: RootPhase::Probation,
            update_id: Some(Uuid::nil()),
            from: Some(version()),
            version: Some(version()),
            until: Some(Timestamp::from_millis(0)),
            last: Some(last),
            gpus: 8,
            strikes: 0,
            previous: Some(version()),
            floor: Some(version()),
            index_serial: Some(1),
        };
        let report = Documented::of("update report").unwrap();
        let status = Documented::of("aio-worker update status").unwrap();
        for (update, root) in [(update, root), (UpdateReport::default(), RootStatus::default())] {
            report.fits(&serde_json::to_value(&update).unwrap()).unwrap();
            status.fits(&json!({ "version": "1.0.0", "update": update, "root": root })).unwrap();
        }
    }
}
