//! `aio-worker status`: how the running worker stands, read from its status socket as any user;
//! once, or at every change. How it looks is `screen`'s business; which version is installed,
//! `installed`'s.

mod screen;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use aio_host::layout::Layout;
use aio_installer::cli::{Failure, Output, print, print_part};
use aio_protocol::{
    error_code::ErrorCode,
    snapshot::{SessionSnapshot, SessionState, WorkerSnapshot},
};
use serde::Serialize;

use super::{
    answer::{Answer, json_line, runtime},
    installed,
};
use crate::{
    config::{environment, runtime_dir},
    status_socket::StatusReader,
};

/// A worker whose loop turns answers at once.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Any user may ask; nothing secret is told.

Exit status: 0 the worker is online; 69 no worker answers; otherwise that of the code that keeps it from being online, as \
docs/troubleshooting.md lists them, or 1 where there is no such code: it is on its way. With --follow: 69 when the worker has ended.

Examples:
  aio-worker status
  aio-worker status --output json
  aio-worker status --follow")]
pub(super) struct Arguments {
    /// Go on, and say what changes: in JSON, one object per line
    #[arg(long, short)]
    follow: bool,
    /// Where the worker's status socket is [env: AIO_RUNTIME_DIR] [default: /run/aio-worker]
    #[arg(long, value_name = "DIR")]
    runtime_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(super) answer: Answer,
}

/// The answer: what the worker says of itself, and what is said beside it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(flatten)]
    worker: WorkerSnapshot,
    /// Another version than the one that runs, which a restart of the service would start.
    pending_update: Option<PendingUpdate>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct PendingUpdate {
    version: String,
}

/// Prints the answer; gives the status with which the command ends.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let folder = runtime_dir(arguments.runtime_dir.as_deref(), &environment);
    runtime()?.block_on(tell(&folder, arguments.follow, arguments.answer.output))
}

async fn tell(folder: &Path, follow: bool, output: Output) -> Result<ExitCode, Failure> {
    let silent = |error: std::io::Error| {
        let message = format!("no worker answers in {}: {error}", folder.display());
        Failure::new(ErrorCode::WorkerNotRunning, message)
    };
    let mut reader = StatusReader::open(folder, PATIENCE).await.map_err(silent)?;
    let mut told = status(reader.next(Some(PATIENCE)).await.map_err(silent)?, folder).await;
    let first = match output {
        Output::Json => json_line(&told)?,
        Output::Text => screen::screen(&told, SystemTime::now().into()),
    };
    print(&first)?;
    if !follow {
        return Ok(verdict(&told.worker.session).into());
    }
    loop {
        let snapshot = reader.next(None).await.map_err(|_| {
            Failure::new(ErrorCode::WorkerNotRunning, format!("the worker in {} has ended", folder.display()))
        })?;
        let now = status(snapshot, folder).await;
        let change = match output {
            Output::Json => json_line(&now)?,
            Output::Text => screen::changes(&told, &now, SystemTime::now().into()),
        };
        if !print_part(&change)? {
            return Ok(ExitCode::SUCCESS);
        }
        told = now;
    }
}

async fn status(worker: WorkerSnapshot, folder: &Path) -> Status {
    let layout = Layout::default();
    // A worker elsewhere was started by hand: what is installed is not its update.
    let installed = if folder == layout.runtime_dir() { installed::version(&layout).await } else { None };
    let pending_update = pending(&worker.version, installed);
    Status { worker, pending_update }
}

fn pending(running: &str, installed: Option<String>) -> Option<PendingUpdate> {
    installed.filter(|version| version != running).map(|version| PendingUpdate { version })
}

/// How it is, for programs that read no words.
fn verdict(session: &SessionSnapshot) -> u8 {
    const ON_ITS_WAY: u8 = 1;
    match session.state {
        SessionState::Online => 0,
        _ => {
            let code = session.code.as_deref().and_then(ErrorCode::parse);
            code.map_or(ON_ITS_WAY, ErrorCode::exit_status)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{screen::tests::snapshot, *};

    #[test]
    fn another_version_than_the_one_that_runs_is_an_update() {
        assert_eq!(pending("1.0.0", None), None);
        assert_eq!(pending("1.0.0", Some("1.0.0".into())), None);
        assert_eq!(pending("1.0.0", Some("1.2.0".into())), Some(PendingUpdate { version: "1.2.0".into() }));
    }

    #[test]
    fn the_exit_status_is_zero_online_and_that_of_the_trouble_otherwise() {
        let mut session = snapshot().session;
        assert_eq!(verdict(&session), 0);
        session.state = SessionState::Connecting;
        assert_eq!(verdict(&session), 1);
        session.state = SessionState::Waiting;
        session.code = Some("TOKEN_EXPIRED".into());
        assert_eq!(verdict(&session), ErrorCode::TokenExpired.exit_status());
        session.code = Some("OF_A_NEWER_WORKER".into());
        assert_eq!(verdict(&session), 1);
    }

    #[test]
    fn programs_read_the_worker_s_own_words_and_an_update_beside_them() {
        let status = Status { worker: snapshot(), pending_update: None };
        let serde_json::Value::Object(mut answer) = serde_json::to_value(&status).unwrap() else { panic!() };
        assert_eq!(answer.remove("pendingUpdate"), Some(serde_json::Value::Null));
        assert_eq!(serde_json::Value::Object(answer), serde_json::to_value(&status.worker).unwrap());
    }
}
