//! Waits for a worker that is online: reads the daemon's status socket until the controller has
//! acknowledged a heartbeat of the present session. Ends early when waiting cannot help: the
//! service is down, or the controller refuses this token or node for good.

use std::{path::Path, time::Duration};

use aio_host::layout::UNIT;
use aio_protocol::{error_code::ErrorCode, ids::NodeId, inventory::GpuDriver, snapshot::SessionSnapshot};
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    net::UnixStream,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    failure::{Failure, of_service},
    machine::host::Host,
};

/// What an installation reads of a `WorkerSnapshot`, and passes on. All of it would take a good
/// part of the small program that this is.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// The daemon's version.
    pub version: String,
    /// The node that it speaks for.
    pub node_id: NodeId,
    /// The controller's WebSocket endpoint.
    pub controller: String,
    /// How it stands with the controller.
    pub session: SessionSnapshot,
    /// What the GPU driver said of itself.
    #[serde(default)]
    pub gpu_driver: Option<GpuDriver>,
    /// The GPUs, in the worker's own words (`aio_protocol::inventory::Gpu`).
    pub gpus: Vec<Value>,
}

/// Interval between looks at a service that does not answer.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The worker's snapshot once it is settled as `node`.
pub(crate) async fn settled(host: &Host, node: &NodeId, patience: Duration) -> Result<Snapshot, Failure> {
    let deadline = Instant::now() + patience;
    let mut last = None;
    let watched = timeout_at(deadline, watch(host, node, &mut last)).await;
    match watched {
        Ok(outcome) => outcome,
        Err(_) => Err(late(last.as_ref(), patience)),
    }
}

async fn watch(host: &Host, node: &NodeId, last: &mut Option<Snapshot>) -> Result<Snapshot, Failure> {
    loop {
        if let Some(mut lines) = listen(&host.layout.status_socket()).await {
            // Ends when the daemon does.
            while let Ok(Some(line)) = lines.next_line().await {
                // A line of a newer daemon is no reason to fail: a later one may be understood.
                let Ok(snapshot) = serde_json::from_str::<Snapshot>(&line) else { continue };
                if snapshot.node_id == *node {
                    if snapshot.session.settled() {
                        return Ok(snapshot);
                    }
                    if let Some(refused) = refusal(&snapshot) {
                        return Err(refused);
                    }
                }
                *last = Some(snapshot);
            }
        }
        let unit = host.systemd.unit(UNIT).await?;
        if matches!(unit.active_state.as_str(), "failed" | "inactive") || unit.sub_state == "auto-restart" {
            let message =
                format!("{UNIT} does not stay up: it is {} ({})", unit.active_state, unit.sub_state);
            return Err(of_service(Failure::new(ErrorCode::ServiceFailed, message), &unit));
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// How the worker is at the moment, if it says so within `patience`.
pub(crate) async fn present(host: &Host, patience: Duration) -> Option<Snapshot> {
    let look = async {
        let line = listen(&host.layout.status_socket()).await?.next_line().await.ok()??;
        serde_json::from_str(&line).ok()
    };
    tokio::time::timeout(patience, look).await.ok()?
}

async fn listen(socket: &Path) -> Option<Lines<BufReader<UnixStream>>> {
    Some(BufReader::new(UnixStream::connect(socket).await.ok()?).lines())
}

/// What no waiting mends: the controller will not have this token or this node, or the daemon
/// cannot use its configuration.
fn refusal(snapshot: &Snapshot) -> Option<Failure> {
    let code = ErrorCode::parse(snapshot.session.code.as_deref()?)?;
    code.is_final().then(|| {
        let message =
            format!("the worker runs and is refused by {}: {}", snapshot.controller, snapshot.session.detail);
        Failure::new(code, message).with("controller", &*snapshot.controller)
    })
}

fn late(last: Option<&Snapshot>, patience: Duration) -> Failure {
    let waited = format!("within {} s", patience.as_secs_f32());
    let Some(snapshot) = last else {
        let message = format!("{UNIT} runs and did not say how it is {waited}");
        return Failure::new(ErrorCode::OnlineTimeout, message);
    };
    let session = &snapshot.session;
    let message = format!(
        "the controller at {} acknowledged no heartbeat {waited}; the worker says: {}",
        snapshot.controller, session.detail
    );
    let failure = Failure::new(ErrorCode::OnlineTimeout, message)
        .with("controller", &*snapshot.controller)
        .with("node", snapshot.node_id.as_str());
    match &session.code {
        Some(code) => failure.with("workerCode", code.as_str()),
        None => failure,
    }
}
