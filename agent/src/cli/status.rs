//! `aio-worker status`: one screen on how the running worker stands, read from its status socket as any user.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use aio_installer::cli::{Failure, Output};
use aio_protocol::{
    error_code::ErrorCode,
    snapshot::{SessionState, WorkerSnapshot},
    time::Timestamp,
};

use super::{Answer, gpus, print, print_json, runtime};
use crate::{
    config::{environment, runtime_dir},
    status_socket,
};

/// A worker whose loop turns answers at once.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where the worker's status socket is [env: AIO_RUNTIME_DIR] [default: /run/aio-worker]
    #[arg(long, value_name = "DIR")]
    runtime_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(super) answer: Answer,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let folder = runtime_dir(arguments.runtime_dir.as_deref(), &environment);
    let snapshot = runtime()?.block_on(status_socket::read(&folder, PATIENCE)).map_err(|error| {
        let message = format!("no worker answers in {}: {error}", folder.display());
        Failure::new(ErrorCode::WorkerNotRunning, message)
    })?;
    match arguments.answer.output {
        Output::Json => print_json(&snapshot),
        Output::Text => {
            print(&screen(&snapshot, SystemTime::now().into()));
            Ok(())
        }
    }
}

fn screen(snapshot: &WorkerSnapshot, now: Timestamp) -> String {
    let WorkerSnapshot { session, .. } = snapshot;
    let code = session.code.as_ref().map(|code| format!(" [{code}]")).unwrap_or_default();
    let heartbeat = match session.last_heartbeat_at {
        Some(at) => format!("{} ago", span(now.since(at))),
        None => "none yet".to_owned(),
    };
    let token = if now >= snapshot.token_expires_at {
        format!("ended {} ago, at {}", span(now.since(snapshot.token_expires_at)), snapshot.token_expires_at)
    } else {
        format!("ends in {}, at {}", span(snapshot.token_expires_at.since(now)), snapshot.token_expires_at)
    };
    let driver = snapshot.gpu_driver.as_ref();
    let rows = [
        ("worker", format!("{}, up {}", snapshot.version, span(now.since(snapshot.started_at)))),
        ("node", snapshot.node_id.to_string()),
        ("session", format!("{} for {}{code}", word(session.state), span(now.since(session.since)))),
        ("", session.detail.clone()),
        ("controller", snapshot.controller.clone()),
        ("heartbeat", format!("last acknowledged: {heartbeat}")),
        ("token", token),
        ("GPUs", gpus::headline(driver, &snapshot.gpus, &snapshot.health)),
    ];
    let mut text: String = rows.iter().map(|(name, value)| format!("{name:<11} {value}\n")).collect();
    text.push_str(&gpus::table(&snapshot.gpus, &snapshot.gpu_status));
    text
}

fn word(state: SessionState) -> &'static str {
    match state {
        SessionState::Waiting => "waiting",
        SessionState::Connecting => "connecting",
        SessionState::Registering => "registering",
        SessionState::Online => "online",
        SessionState::Stopping => "stopping",
    }
}

/// A length of time in its two largest units.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        health::Judged,
        session::reporter::first_snapshot,
        telemetry::messages::tests::{full, identity},
    };

    const NOW: i64 = 1_765_454_400_000;

    fn snapshot() -> WorkerSnapshot {
        let gpu = Judged::clone(&full(1).gpu.unwrap());
        let started = Timestamp::from_millis(NOW - 3_725_000);
        let ends = Timestamp::from_millis(NOW + 90_000_000);
        let mut snapshot = first_snapshot(&identity(), "wss://aiwm.example/ws/node", ends, started);
        snapshot.session.state = SessionState::Online;
        snapshot.session.detail = "online at wss://aiwm.example/ws/node".into();
        snapshot.session.last_heartbeat_at = Some(Timestamp::from_millis(NOW - 4_000));
        snapshot.health = gpu.summary;
        snapshot.gpu_driver = Some(gpu.driver);
        snapshot.gpus = gpu.gpus;
        snapshot.gpu_status = gpu.details;
        snapshot
    }

    #[test]
    fn one_screen_says_it_all() {
        assert_eq!(
            screen(&snapshot(), Timestamp::from_millis(NOW)),
            "\
worker      1.0.0, up 1 h 2 min
node        69396100cd71623c7bbfbfee
session     online for 1 h 2 min
            online at wss://aiwm.example/ws/node
controller  wss://aiwm.example/ws/node
heartbeat   last acknowledged: 4 s ago
token       ends in 1 d 1 h, at 2025-12-12T13:00:00.000Z
GPUs        1, driver 550, ok
  0  NVIDIA H100  80.0 GiB of 80.0 GiB  100 %  88 °C  700 W  ok
"
        );
    }

    #[test]
    fn trouble_carries_its_code_and_an_ended_token_is_told() {
        let mut snapshot = snapshot();
        snapshot.session.state = SessionState::Waiting;
        snapshot.session.code = Some("TOKEN_EXPIRED".into());
        snapshot.token_expires_at = Timestamp::from_millis(NOW - 61_000);
        let text = screen(&snapshot, Timestamp::from_millis(NOW));
        assert!(text.contains("waiting for 1 h 2 min [TOKEN_EXPIRED]"), "{text}");
        assert!(text.contains("ended 1 min 1 s ago"), "{text}");
    }
}
