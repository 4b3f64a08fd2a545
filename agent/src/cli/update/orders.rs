//! `aio-worker update now` and `defer`: an operator's word to the running daemon, which finds it in
//! its runtime folder.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use aio_host::files::FileError;
use aio_installer::cli::{Failure, Output, print};
use aio_protocol::{
    error_code::ErrorCode,
    time::{self, Timestamp},
    update::{UpdateReport, UpdateState},
};
use serde_json::json;

use super::status::progress;
use crate::{
    cli::answer::{Answer, print_json, runtime},
    config::{environment, runtime_dir},
    status_socket::{self, StatusReader},
    update::order::{self, LONGEST_DELAY, Order, Orders},
};

/// A worker whose loop turns answers at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// The daemon looks for orders every second while an update waits.
const HEARD_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
What waits for its window, for busy GPUs, for a next try or for its operator begins; the controller still says when to switch. An offer that was refused
because an operator went back from it is taken when the controller makes it again.

Exit status: 0; 69 no worker answers; 77 not root.")]
pub(super) struct NowArguments {
    /// Where the worker's status socket is [env: AIO_RUNTIME_DIR] [default: /run/aio-worker]
    #[arg(long, value_name = "DIR")]
    runtime_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(super) answer: Answer,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
It counts until the daemon ends, and never beyond an offer's deadline, at which the controller hears that the node did not take it. To stay at a version,
use aio-worker update pin.

Exit status: 0; 69 no worker answers; 77 not root.")]
pub(super) struct DeferArguments {
    /// For how long, at most 30 days: 90m, 8h, 2d
    #[arg(value_name = "DURATION", value_parser = duration, required_unless_present = "end", conflicts_with = "end")]
    period: Option<Duration>,
    /// Put updates off no longer
    #[arg(long)]
    end: bool,
    /// Where the worker's status socket is [env: AIO_RUNTIME_DIR] [default: /run/aio-worker]
    #[arg(long, value_name = "DIR")]
    runtime_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(super) answer: Answer,
}

fn duration(text: &str) -> Result<Duration, String> {
    let period = time::duration(text).ok_or_else(|| "say it as 90m, 8h or 2d".to_owned())?;
    let allowed = !period.is_zero() && period <= LONGEST_DELAY;
    allowed.then_some(period).ok_or_else(|| "it is not between a second and 30 days".to_owned())
}

pub(super) fn now(arguments: &NowArguments) -> Result<(), Failure> {
    let folder = runtime_dir(arguments.runtime_dir.as_deref(), &environment);
    let update = runtime()?.block_on(hurry(&folder))?;
    match arguments.answer.output {
        Output::Json => print_json(&json!({ "update": update })),
        Output::Text => print(&format!("{}\n", outcome(&update))),
    }
}

/// Gives the order, and waits until what waited does so no longer, or until it is clear that it does.
async fn hurry(folder: &Path) -> Result<UpdateReport, Failure> {
    let mut status = StatusReader::open(folder, PATIENCE).await.map_err(|error| silent(folder, &error))?;
    let mut update = status.next(Some(PATIENCE)).await.map_err(|error| silent(folder, &error))?.update;
    Orders::in_folder(folder).give(Order::Now(order::now())).map_err(unwritten)?;
    let heard = async {
        while update.state == UpdateState::Deferred {
            update = status.next(None).await?.update;
        }
        std::io::Result::Ok(())
    };
    match tokio::time::timeout(HEARD_WITHIN, heard).await {
        Ok(Err(error)) => Err(silent(folder, &error)),
        // It waits on: its reason says what for.
        Ok(Ok(())) | Err(_) => Ok(update),
    }
}

fn outcome(update: &UpdateReport) -> String {
    let reason = update.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    match (&update.target, update.state) {
        (None, _) => {
            format!("nothing is offered at the moment; the next offer will not be held back{reason}")
        }
        (Some(target), state) => format!("{target}: {}{reason}", progress(state)),
    }
}

pub(super) fn defer(arguments: &DeferArguments) -> Result<(), Failure> {
    let folder = runtime_dir(arguments.runtime_dir.as_deref(), &environment);
    // Who is not there could not put anything off.
    runtime()?.block_on(status_socket::read(&folder, PATIENCE)).map_err(|error| silent(&folder, &error))?;
    let orders = Orders::in_folder(&folder);
    let until = arguments.period.map(|period| order::now().plus(period));
    match until {
        Some(until) => orders.give(Order::PutOff(until)).map_err(unwritten)?,
        None => drop(orders.clear().map_err(unwritten)?),
    }
    match arguments.answer.output {
        Output::Json => print_json(&json!({ "deferredUntil": until })),
        Output::Text => print(&words(until)),
    }
}

fn words(until: Option<Timestamp>) -> String {
    match until {
        Some(until) => format!("this node takes no update until {until}\n"),
        None => "updates are put off no longer\n".to_owned(),
    }
}

fn silent(folder: &Path, error: &std::io::Error) -> Failure {
    let message = format!("no worker answers in {}: {error}", folder.display());
    Failure::new(ErrorCode::WorkerNotRunning, message)
}

fn unwritten(error: FileError) -> Failure {
    let code = if error.is_permission() { ErrorCode::NotRoot } else { ErrorCode::FileFailed };
    Failure::new(code, format!("{error}: {}", error.source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_at_most_thirty_days() {
        assert_eq!(duration("90m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("8h"), Ok(Duration::from_secs(8 * 3600)));
        assert_eq!(duration("2d"), Ok(Duration::from_secs(2 * 86_400)));
        assert_eq!(duration("30d"), Ok(LONGEST_DELAY));
        for text in ["", "0s", "-5m", "31d", "soon", "1mo"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_came_of_an_order_is_said() {
        let mut update = UpdateReport::default();
        assert!(outcome(&update).starts_with("nothing is offered at the moment"));
        update.target = Some("v1.1.0".parse().unwrap());
        update.state = UpdateState::Staging;
        assert_eq!(outcome(&update), "v1.1.0: being brought to this machine");
    }
}
