//! `aio-worker update status`: what the running worker says of updates, and what root says beside
//! it; of root alone where no worker answers.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use aio_host::layout::Layout;
use aio_installer::cli::{Failure, Output, print};
use aio_protocol::{
    error_code::ErrorCode,
    snapshot::WorkerSnapshot,
    update::{LastUpdate, ManagedBy, RootPhase, RootStatus, UpdateReport, UpdateState, Verdict},
};
use serde::Serialize;

use crate::{
    cli::{
        answer::{Answer, print_json, runtime},
        paint::{Tone, paint},
    },
    config::{environment, runtime_dir},
    status_socket,
    update::root,
};

/// A worker whose loop turns answers at once.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Any user may ask.

Exit status: 0; 69 no worker answers and root is at no update.")]
pub(super) struct Arguments {
    /// Where the worker's status socket is [env: AIO_RUNTIME_DIR] [default: /run/aio-worker]
    #[arg(long, value_name = "DIR")]
    runtime_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(super) answer: Answer,
}

/// The answer for programs.
#[derive(Debug, Serialize)]
struct Told {
    /// The version that runs; none where no worker answers.
    version: Option<String>,
    /// What the worker says.
    update: Option<UpdateReport>,
    /// What root says.
    root: RootStatus,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let folder = runtime_dir(arguments.runtime_dir.as_deref(), &environment);
    let root = of_root(&Layout::default().update_status())?;
    let worker = runtime()?.block_on(status_socket::read(&folder, PATIENCE));
    let told = match worker {
        Ok(WorkerSnapshot { version, update, .. }) => {
            Told { version: Some(version), update: Some(update), root }
        }
        // While root switches, nobody answers for a moment.
        Err(_) if root.phase != RootPhase::Idle => Told { version: None, update: None, root },
        Err(error) => {
            let message = format!("no worker answers in {}: {error}", folder.display());
            return Err(Failure::new(ErrorCode::WorkerNotRunning, message));
        }
    };
    match arguments.answer.output {
        Output::Json => print_json(&told),
        Output::Text => print(&screen(&told)),
    }
}

/// What root says in its file.
pub(super) fn of_root(path: &Path) -> Result<RootStatus, Failure> {
    root::status(path).map_err(|error| {
        Failure::new(ErrorCode::FileFailed, format!("could not read {}: {error}", path.display()))
    })
}

fn screen(told: &Told) -> String {
    let mut rows = Vec::new();
    rows.extend(told.version.as_ref().map(|version| ("version", version.clone())));
    match &told.update {
        Some(update) => rows.extend(of_worker(update)),
        None => rows.push(("update", in_words(told.root.phase).to_owned())),
    }
    let last = told.update.as_ref().and_then(|update| update.last.as_ref()).or(told.root.last.as_ref());
    rows.extend(last.map(|last| ("last", ended(last))));
    rows.extend(told.root.previous.as_ref().map(|version| ("previous", version.to_string())));
    rows.extend(told.root.floor.as_ref().map(|version| ("floor", version.to_string())));
    let row = |(name, value): &(&str, String)| {
        format!("{} {value}\n", paint(Tone::Heading, &format!("{name:<11}")))
    };
    rows.iter().map(row).collect()
}

fn of_worker(update: &UpdateReport) -> Vec<(&'static str, String)> {
    let managed = match update.managed_by {
        ManagedBy::Controller => "by the controller",
        ManagedBy::Operator => "by hand",
        ManagedBy::Package => "by the package manager",
    };
    let state = match update.target.as_ref() {
        Some(target) => format!("{target}: {}", progress(update.state)),
        None => progress(update.state).to_owned(),
    };
    let mut rows = vec![("updated", managed.to_owned()), ("update", state)];
    rows.extend(update.reason.as_ref().map(|reason| ("", reason.clone())));
    rows.extend(update.pin.as_ref().map(|pin| ("pinned to", pin.to_string())));
    rows
}

/// A state in words.
pub(in crate::cli) fn progress(state: UpdateState) -> &'static str {
    match state {
        UpdateState::Idle => "none is under way",
        UpdateState::Offered => "offered",
        UpdateState::Deferred => "waiting",
        UpdateState::Staging => "being brought to this machine",
        UpdateState::Staged => "verified",
        UpdateState::Rehearsing => "trying itself beside the running version",
        UpdateState::Awaiting => "prepared; the controller says when",
        UpdateState::Switching => "being started",
        UpdateState::Proving => "started, not yet online",
        UpdateState::Probation => "online, and watched for a while",
        UpdateState::Reverting => "being taken back",
    }
}

fn in_words(phase: RootPhase) -> &'static str {
    match phase {
        RootPhase::Idle => progress(UpdateState::Idle),
        RootPhase::Staging => progress(UpdateState::Staging),
        RootPhase::Rehearsing => progress(UpdateState::Rehearsing),
        RootPhase::Staged => progress(UpdateState::Staged),
        RootPhase::Switching => progress(UpdateState::Switching),
        RootPhase::Proving => progress(UpdateState::Proving),
        RootPhase::Probation => progress(UpdateState::Probation),
        RootPhase::Reverting => progress(UpdateState::Reverting),
    }
}

/// How an update ended, in a line.
pub(super) fn ended(last: &LastUpdate) -> String {
    let (tone, verdict) = match last.verdict {
        Verdict::Succeeded => (Tone::Good, "succeeded"),
        Verdict::Faulty => (Tone::Bad, "faulty"),
        Verdict::Inconclusive => (Tone::Doubtful, "inconclusive"),
        Verdict::Interrupted => (Tone::Doubtful, "interrupted"),
        Verdict::Refused => (Tone::Doubtful, "not taken"),
        Verdict::Reverted => (Tone::Doubtful, "taken back by an operator"),
    };
    let LastUpdate { from, version, at, code, message, .. } = last;
    let code = code.as_ref().map(|code| format!(" [{code}]")).unwrap_or_default();
    let message = message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
    format!("{from} to {version}, {}{code}, at {at}{message}", paint(tone, verdict))
}

#[cfg(test)]
mod tests {
    use aio_protocol::time::Timestamp;
    use uuid::Uuid;

    use super::*;

    fn last(verdict: Verdict) -> LastUpdate {
        LastUpdate {
            update_id: Uuid::nil(),
            from: "v1.0.0".parse().unwrap(),
            version: "v1.1.0".parse().unwrap(),
            verdict,
            code: Some("UPDATE_FAULTY".into()),
            message: Some("it ended with status 1".into()),
            at: Timestamp::from_millis(1_765_454_400_000),
        }
    }

    #[test]
    fn a_screen_says_how_it_is_and_how_it_was() {
        let update = UpdateReport {
            managed_by: ManagedBy::Controller,
            state: UpdateState::Deferred,
            target: Some("v1.1.0".parse().unwrap()),
            reason: Some("v1.1.0 waits for the window Sat".into()),
            last: Some(last(Verdict::Faulty)),
            ..UpdateReport::default()
        };
        let root = RootStatus { previous: Some("v0.9.0".parse().unwrap()), ..RootStatus::default() };
        let told = Told { version: Some("1.0.0".into()), update: Some(update), root };
        assert_eq!(
            screen(&told),
            "\
version     1.0.0
updated     by the controller
update      v1.1.0: waiting
            v1.1.0 waits for the window Sat
last        v1.0.0 to v1.1.0, faulty [UPDATE_FAULTY], at 2025-12-11T12:00:00.000Z: it ended with status 1
previous    v0.9.0
"
        );
    }

    #[test]
    fn while_nobody_answers_root_says_how_it_is() {
        let root = RootStatus { phase: RootPhase::Switching, ..RootStatus::default() };
        assert_eq!(screen(&Told { version: None, update: None, root }), "update      being started\n");
    }
}
