//! `aio-worker gpu release`: asks the running daemon to let go of the GPUs for a while, so that the driver
//! can be unloaded or a GPU reset, and waits until it has.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use aio_host::{
    files::FileError,
    gpu::{LONGEST_RELEASE, RELEASED, Release},
};
use aio_installer::cli::{Failure, Output, print};
use aio_protocol::{
    error_code::ErrorCode,
    snapshot::WorkerSnapshot,
    time::{self, Timestamp},
};
use clap::Subcommand;

use super::answer::{Answer, print_json, runtime};
use crate::{
    config::{environment, runtime_dir},
    status_socket::StatusReader,
};

/// How long the daemon may take: it looks at the GPUs at least every 20 s, and a driver may take its time.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Has the daemon close the driver for a while, so that it can be unloaded or a GPU reset.
    Release(ReleaseArguments),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sudo aio-worker gpu release --for 5m && sudo nvidia-smi --gpu-reset -i 0
  sudo aio-worker gpu release --end

Exit status: 0 the driver is closed, or the release has ended; 69 no daemon answers; 77 not root; 75 the daemon has not closed it in time.")]
struct ReleaseArguments {
    /// For how long, at most an hour: 90s, 5m, 1h
    #[arg(long = "for", value_name = "DURATION", value_parser = duration, default_value = "5m", conflicts_with = "end")]
    period: Duration,
    /// Let the daemon use the GPUs again now
    #[arg(long)]
    end: bool,
    /// Where the status socket is [env: AIO_RUNTIME_DIR] [default: /run/aio-worker]
    #[arg(long, value_name = "DIR")]
    runtime_dir: Option<PathBuf>,
    #[command(flatten)]
    answer: Answer,
}

impl Arguments {
    pub(super) fn output(&self) -> Output {
        let Command::Release(arguments) = &self.command;
        arguments.answer.output
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let period = time::duration(text).ok_or_else(|| "say it as 90s, 5m or 1h".to_owned())?;
    let allowed = !period.is_zero() && period <= LONGEST_RELEASE;
    allowed.then_some(period).ok_or_else(|| "it is not between a second and an hour".to_owned())
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Command::Release(arguments) = &arguments.command;
    let folder = runtime_dir(arguments.runtime_dir.as_deref(), &environment);
    if arguments.end {
        let was_asked = Release::in_folder(&folder).end().map_err(unwritten)?;
        return answer(
            arguments,
            None,
            if was_asked { "the daemon uses the GPUs again" } else { "nothing was released" },
        );
    }
    let runtime = runtime()?;
    let until = Timestamp::from(SystemTime::now()).plus(arguments.period);
    let let_go = runtime.block_on(let_go(&folder, until, PATIENCE));
    runtime.shutdown_background();
    let_go?;
    answer(
        arguments,
        Some(until),
        &format!("the daemon has closed the driver, and opens it again at {until}"),
    )
}

fn unwritten(error: FileError) -> Failure {
    let code = if error.is_permission() { ErrorCode::NotRoot } else { ErrorCode::FileFailed };
    Failure::new(code, format!("{error}: {}", error.source))
}

/// Asks the daemon in `folder` to let go of the GPUs, and waits until it has.
async fn let_go(folder: &Path, until: Timestamp, patience: Duration) -> Result<(), Failure> {
    let silent = |error: std::io::Error| {
        let message = format!("the daemon does not answer at {}: {error}", folder.display());
        Failure::new(ErrorCode::WorkerNotRunning, message)
    };
    // Who is not there could not let go of anything.
    let mut status = StatusReader::open(folder, patience).await.map_err(silent)?;
    Release::in_folder(folder).ask(until).map_err(unwritten)?;
    let expected = format!("{RELEASED} until {until}");
    let has_let_go = |snapshot: &WorkerSnapshot| {
        let reason = snapshot.gpu_driver.as_ref().and_then(|driver| driver.reason.as_deref());
        reason.is_some_and(|reason| reason.starts_with(&expected))
    };
    let waiting = async {
        while !has_let_go(&status.next(None).await.map_err(silent)?) {}
        Ok(())
    };
    tokio::time::timeout(patience, waiting).await.unwrap_or_else(|_| {
        let message = format!(
            "the daemon has not closed the driver within {} s; the driver may hang",
            patience.as_secs()
        );
        Err(Failure::new(ErrorCode::GpusNotReleased, message))
    })
}

fn answer(arguments: &ReleaseArguments, until: Option<Timestamp>, words: &str) -> Result<(), Failure> {
    match arguments.answer.output {
        Output::Json => print_json(&serde_json::json!({ "releasedUntil": until })),
        Output::Text => print(&format!("{words}\n")),
    }
}

#[cfg(test)]
mod tests {
    use aio_protocol::inventory::GpuDriver;
    use tokio::sync::watch;

    use super::*;
    use crate::{session::reporter::first_snapshot, status_socket, telemetry::messages::tests::identity};

    #[tokio::test]
    async fn a_release_is_done_when_the_daemon_says_so_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let until = Timestamp::from(SystemTime::now()).plus(Duration::from_secs(300));
        let code = |outcome: Result<(), Failure>| outcome.unwrap_err().code;
        let hasty = Duration::from_millis(50);
        assert_eq!(code(let_go(folder.path(), until, hasty).await), ErrorCode::WorkerNotRunning);

        let now = SystemTime::now().into();
        let (daemon, snapshots) =
            watch::channel(first_snapshot(&identity(), "wss://aiwm.example/ws/node", until, now));
        let socket = status_socket::bind(folder.path()).unwrap();
        let serving = tokio::spawn(socket.serve(snapshots));
        assert_eq!(code(let_go(folder.path(), until, hasty).await), ErrorCode::GpusNotReleased);

        let asked = tokio::spawn({
            let folder = folder.path().to_owned();
            async move { let_go(&folder, until, PATIENCE).await }
        });
        let reason = Some(format!("{RELEASED} until {until}"));
        daemon.send_modify(|it| {
            it.gpu_driver = Some(GpuDriver { reason, ..it.gpu_driver.clone().unwrap_or_default() });
        });
        assert_eq!(asked.await.unwrap(), Ok(()));
        serving.abort();
    }

    #[test]
    fn a_release_lasts_an_hour_at_most() {
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h"), Ok(LONGEST_RELEASE));
        for text in ["", "0s", "-5m", "61m", "soon"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
