//! How results and failures look: text for people, one JSON object for programs. Results go to
//! standard output, failures as text to standard error. Decides no outcome.

use std::process::ExitCode;

use aio_protocol::inventory::GpuDriverState;
use clap::ValueEnum;
use serde_json::{Map, Value, json};

use super::answer::print;
use crate::{
    console::say,
    controller::online::Snapshot,
    failure::Failure,
    install::{Outcome, OutcomeKind, Planned},
    transaction::work::Timing,
    uninstall::Removed,
};

/// How a command answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// One JSON object on standard output.
    Json,
}

/// Prints a failure: as text to standard error, as JSON to standard output, or as text where that
/// does not take it.
pub fn print_failure(failure: &Failure, output: Output) {
    if output == Output::Text || print(&format!("{}\n", failure_json(failure))).is_err() {
        say(&failure_text(failure));
    }
}

/// Prints what came of an installation.
pub(crate) fn print_outcome(outcome: &Outcome, output: Output) -> Result<(), Failure> {
    if let (OutcomeKind::Installed { warnings, .. }, Output::Text) = (&outcome.kind, output) {
        for warning in warnings {
            say(&format!("warning: {warning}"));
        }
    }
    match output {
        Output::Text => print(&(outcome_text(outcome) + "\n")),
        Output::Json => print(&format!("{}\n", outcome_json(outcome))),
    }
}

/// Prints what came of an uninstallation.
pub(crate) fn print_removed(removed: &Removed, output: Output) -> Result<(), Failure> {
    match output {
        Output::Text => print(&(removed_text(removed) + "\n")),
        Output::Json => print(&format!("{}\n", removed_json(removed))),
    }
}

/// Prints how a command has ended, and turns it into the exit status.
pub(crate) fn conclude(result: Result<(), Failure>, output: Output) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            print_failure(&failure, output);
            failure.code.exit_status().into()
        }
    }
}

fn removed_text(removed: &Removed) -> String {
    let Removed { installed, undone, kept, dry_run } = removed;
    let mut text = match installed {
        None if undone.is_empty() => return "nothing to do: aio-worker is not installed".to_owned(),
        None => "an installation that was cut off".to_owned(),
        Some((node, version)) => format!("aio-worker {version} of node {node}"),
    };
    if *dry_run {
        text = format!("to remove {text}:");
        for (index, line) in undone.iter().enumerate() {
            text.push_str(&format!("\n  {:2}. {line}", index + 1));
        }
    } else {
        text.push_str(" is removed; the node stays registered with its controller");
    }
    for path in kept {
        text.push_str(&format!("\n  kept: {}", path.display()));
    }
    text
}

fn removed_json(removed: &Removed) -> Value {
    let Removed { installed, undone, kept, dry_run } = removed;
    let outcome = match (undone.is_empty(), dry_run) {
        (true, _) => "not_installed",
        (false, true) => "planned",
        (false, false) => "uninstalled",
    };
    let node = installed.as_ref().map(|(node, _)| json!({ "id": node }));
    let version = installed.as_ref().map(|(_, version)| version);
    json!({ "outcome": outcome, "node": node, "version": version, "undone": undone, "kept": kept })
}

fn failure_text(failure: &Failure) -> String {
    let mut text = format!("error[{}]: {}\n  cure: {}", failure.code, failure.message, failure.code.cure());
    if let Some(Value::Array(lines)) = failure.details.get("journal") {
        text.push_str("\n  the service's last lines:");
        for line in lines.iter().filter_map(Value::as_str) {
            text.push_str(&format!("\n    {line}"));
        }
    }
    if let Some(Value::String(trouble)) = failure.details.get("reportFailed") {
        text.push_str(&format!("\n  note: the controller does not know of this: {trouble}"));
    }
    if let Some(Value::String(path)) = failure.details.get("reportKept") {
        text.push_str(&format!(
            "\n  note: the next installation, or the worker, will tell it; until then that is in {path}"
        ));
    }
    text
}

fn failure_json(failure: &Failure) -> Value {
    let mut error = Map::new();
    error.insert("code".to_owned(), failure.code.as_str().into());
    error.insert("message".to_owned(), failure.message.as_str().into());
    error.insert("cure".to_owned(), failure.code.cure().into());
    if !failure.details.is_empty() {
        error.insert("details".to_owned(), failure.details.clone().into());
    }
    json!({ "error": error })
}

fn outcome_text(outcome: &Outcome) -> String {
    let Outcome { node_id, node_name, version, .. } = outcome;
    let node = match node_name {
        Some(name) => format!("{name} ({node_id})"),
        None => format!("node {node_id}"),
    };
    match &outcome.kind {
        OutcomeKind::Planned { steps, cut_off } => {
            let mut text = match steps.len() {
                0 => format!("nothing to do: aio-worker {version} is installed as {node}"),
                _ => format!("to install aio-worker {version} as {node}:"),
            };
            if *cut_off {
                text.push_str("\n  first: undo an earlier installation that was cut off");
            }
            for (index, Planned { step, summary }) in steps.iter().enumerate() {
                text.push_str(&format!("\n  {:2}. {step}: {summary}", index + 1));
            }
            text
        }
        OutcomeKind::AlreadyInstalled { worker } => {
            format!("already installed: aio-worker {version} is online as {node}{}", gpus_text(worker))
        }
        OutcomeKind::Started { timings } => {
            let what = if timings.is_empty() { "is installed already" } else { "is installed and started" };
            format!("aio-worker {version} {what} as {node}; `aio-worker status` says whether it is online")
        }
        OutcomeKind::Prepared { timings } => {
            let what = if timings.is_empty() { "is installed already" } else { "is installed" };
            format!(
                "aio-worker {version} {what} as {node}; it connects with the next boot, or after systemctl start aio-worker"
            )
        }
        OutcomeKind::Installed { worker, .. } => {
            let seconds = outcome.took.as_secs_f64();
            format!("aio-worker {version} is online as {node} after {seconds:.1} s{}", gpus_text(worker))
        }
    }
}

fn gpus_text(worker: &Snapshot) -> String {
    let lines = worker.gpus.iter().map(|gpu| {
        let word = |key: &str| gpu.get(key).and_then(Value::as_str).unwrap_or("?");
        let memory = gpu.get("memoryTotal").and_then(Value::as_u64);
        let memory = memory.map(|bytes| format!(", {} GiB", bytes >> 30)).unwrap_or_default();
        format!("\n  GPU {}: {}{memory}", word("deviceId"), word("model"))
    });
    if worker.gpus.is_empty() { format!("\n  no GPU: {}", why_no_gpu(worker)) } else { lines.collect() }
}

fn why_no_gpu(worker: &Snapshot) -> String {
    match &worker.gpu_driver {
        None => "the driver was not asked yet".to_owned(),
        Some(driver) => driver.reason.clone().unwrap_or_else(|| {
            let why = match driver.state {
                GpuDriverState::Ok => "the driver reports none",
                GpuDriverState::Absent => "there is no NVIDIA driver",
                GpuDriverState::Unknown => "the driver does not answer",
            };
            why.to_owned()
        }),
    }
}

fn outcome_json(outcome: &Outcome) -> Value {
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| drop(object.insert(name.to_owned(), value));
    put("node", json!({ "id": outcome.node_id, "name": outcome.node_name }));
    put("version", json!(outcome.version));
    put("seconds", seconds(outcome.took).into());
    let worker = match &outcome.kind {
        OutcomeKind::Planned { steps, cut_off } => {
            let step = |Planned { step, summary }: &Planned| json!({ "step": step, "summary": summary });
            put("outcome", "planned".into());
            put("steps", steps.iter().map(step).collect());
            put("undoFirst", (*cut_off).into());
            None
        }
        OutcomeKind::AlreadyInstalled { worker } => {
            put("outcome", "already_installed".into());
            put("steps", json!([]));
            Some(worker)
        }
        OutcomeKind::Started { timings } => {
            put("outcome", "started".into());
            put("steps", timings.iter().map(timing_json).collect());
            None
        }
        OutcomeKind::Prepared { timings } => {
            put("outcome", "prepared".into());
            put("steps", timings.iter().map(timing_json).collect());
            None
        }
        OutcomeKind::Installed { worker, timings, warnings } => {
            put("outcome", "installed".into());
            put("steps", timings.iter().map(timing_json).collect());
            put("warnings", json!(warnings));
            Some(worker)
        }
    };
    if let Some(worker) = worker {
        put("gpus", json!(worker.gpus));
        put("gpuDriver", json!(worker.gpu_driver));
        put("controller", json!(worker.controller));
    }
    object.into()
}

fn timing_json(Timing { step, took }: &Timing) -> Value {
    json!({ "step": step, "seconds": seconds(*took) })
}

/// Milliseconds are enough for people and programs.
fn seconds(duration: std::time::Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aio_protocol::error_code::ErrorCode;

    use super::*;

    #[test]
    fn a_failure_names_code_message_and_cure() {
        let failure = Failure::new(ErrorCode::NotRoot, "installing needs root").with("uid", 1000);
        assert_eq!(
            failure_text(&failure),
            "error[NOT_ROOT]: installing needs root\n  cure: Run it again with sudo."
        );
        let expected = json!({ "error": {
            "code": "NOT_ROOT", "message": "installing needs root", "cure": "Run it again with sudo.",
            "details": { "uid": 1000 },
        }});
        assert_eq!(failure_json(&failure), expected);
    }

    #[test]
    fn a_plan_is_a_numbered_list() {
        let kind = OutcomeKind::Planned {
            steps: vec![Planned { step: "write_unit", summary: "write /unit".to_owned() }],
            cut_off: true,
        };
        let outcome = Outcome {
            node_id: "69396100cd71623c7bbfbfee".parse().unwrap(),
            node_name: Some("gpu-01".to_owned()),
            version: "v1.0.0".parse().unwrap(),
            kind,
            took: Duration::from_millis(1234),
        };
        assert_eq!(
            outcome_text(&outcome),
            "to install aio-worker v1.0.0 as gpu-01 (69396100cd71623c7bbfbfee):\n  \
             first: undo an earlier installation that was cut off\n   1. write_unit: write /unit"
        );
        assert_eq!(outcome_json(&outcome)["seconds"], 1.234);
    }
}
