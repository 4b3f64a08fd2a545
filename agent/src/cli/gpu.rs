//! `aio-worker gpu release`: asks the running daemon to let go of the GPUs for a while, so that the driver
//! can be unloaded or a GPU reset, and waits until it has.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use aio_host::gpu::{LONGEST_RELEASE, RELEASED, Release};
use aio_installer::cli::{Failure, Output, print};
use aio_protocol::{error_code::ErrorCode, snapshot::WorkerSnapshot, time::Timestamp};
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
    let period: jiff::SignedDuration = text.parse().map_err(|_| "say it as 90s, 5m or 1h".to_owned())?;
    let period = Duration::try_from(period).map_err(|_| "it is negative".to_owned())?;
    let allowed = !period.is_zero() && period <= LONGEST_RELEASE;
    allowed.then_some(period).ok_or_else(|| "it is not between a second and an hour".to_owned())
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Command::Release(arguments) = &arguments.command;
    let folder = runtime_dir(arguments.runtime_dir.as_deref(), &environment);
    let release = Release::in_folder(&folder);
    let failed = |error: aio_host::files::FileError| {
        let code = if error.is_permission() { ErrorCode::NotRoot } else { ErrorCode::FileFailed };
        Failure::new(code, format!("{error}: {}", error.source))
    };
    if arguments.end {
        let was_asked = release.end().map_err(failed)?;
        return answer(
            arguments,
            None,
            if was_asked { "the daemon uses the GPUs again" } else { "nothing was released" },
        );
    }
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        let silent = |error: std::io::Error| {
            let message = format!("the daemon does not answer at {}: {error}", folder.display());
            Failure::new(ErrorCode::WorkerNotRunning, message)
        };
        // Who is not there could not let go of anything.
        let mut status = StatusReader::open(&folder, PATIENCE).await.map_err(silent)?;
        let until = Timestamp::from(SystemTime::now()).plus(arguments.period);
        release.ask(until).map_err(failed)?;
        let expected = format!("{RELEASED} until {until}");
        let has_let_go = |snapshot: &WorkerSnapshot| {
            let reason = snapshot.gpu_driver.as_ref().and_then(|driver| driver.reason.as_deref());
            reason.is_some_and(|reason| reason.starts_with(&expected))
        };
        let waiting = async {
            while !has_let_go(&status.next(None).await?) {}
            Ok(until)
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(released) => released.map_err(silent),
            Err(_) => {
                let message = format!(
                    "the daemon has not closed the driver within {} s; the driver may hang",
                    PATIENCE.as_secs()
                );
                Err(Failure::new(ErrorCode::GpusNotReleased, message))
            }
        }
    });
    runtime.shutdown_background();
    let until = outcome?;
    answer(
        arguments,
        Some(until),
        &format!("the daemon has closed the driver, and opens it again at {until}"),
    )
}

fn answer(arguments: &ReleaseArguments, until: Option<Timestamp>, words: &str) -> Result<(), Failure> {
    match arguments.answer.output {
        Output::Json => print_json(&serde_json::json!({ "releasedUntil": until })),
        Output::Text => print(&format!("{words}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
