//! The daemon put together: probes, status socket and session loop, from first turn to goodbye.
//! Reads no environment, handles no signal and sets no log: whoever runs it does, so that a test
//! can run it as a service would.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use aio_installer::Failure;
use aio_protocol::{release::build, time::Timestamp};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{info, warn};
use uuid::Uuid;

use crate::{
    aiwm::{account::Account, push::Pusher},
    config::WorkerConfig,
    health::Judged,
    notify::Notifier,
    reload::Reload,
    resident,
    session::{
        driver::{Beginning, Driver, Wiring},
        machine::Timings,
        reporter::first_snapshot,
    },
    status_socket,
    telemetry::{self, Probes, Readings, Verdicts, handover::Handover, messages::Identity},
    update::{
        errands::{self, Sight},
        memory::Memory,
        places::Places,
    },
};

/// How long the first look at updates may take: a disk that hangs keeps no worker from its work.
const LOOK_PATIENCE: Duration = Duration::from_secs(2);

/// A daemon that has not begun.
pub struct Worker {
    /// What it goes by.
    pub config: WorkerConfig,
    /// How long it waits for others.
    pub timings: Timings,
    /// Who tells it about the machine.
    pub probes: Probes,
    /// Who wants to know how it is.
    pub notifier: Box<dyn Notifier>,
    /// How it comes to another configuration.
    pub reload: Reload,
    /// Where it finds what updates need.
    pub places: Places,
}

impl Worker {
    /// Runs until `stop` is cancelled and goodbye is said. Nothing that the controller does or that
    /// fails on the way ends it.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Failure> {
        let Self { config, timings, probes, notifier, reload, places } = self;
        let credentials = config.installed_credentials()?;
        let identity = Identity { node_id: config.node_id.clone(), instance_id: Uuid::now_v7() };
        info!(
            node_id = %identity.node_id,
            instance_id = %identity.instance_id,
            controller = credentials.endpoint.in_words(),
            unit_version = config.unit_version.as_deref(),
            "aio-worker {} starts",
            build::number(),
        );
        let first = first_snapshot(
            &identity,
            &credentials.endpoint.to_string(),
            credentials.claims.expires_at(),
            Timestamp::from(SystemTime::now()),
        );
        let (snapshots, latest) = watch::channel(first);
        let seen = latest.clone();
        let _resident = AbortOnDropHandle::new(tokio::spawn(resident::let_go_at_rest(latest.clone())));
        let _status = match status_socket::bind(&config.runtime_dir) {
            Ok(socket) => Some(AbortOnDropHandle::new(tokio::spawn(socket.serve(latest)))),
            // Nobody can ask this worker how it is, which is no reason to take the node away.
            Err(error) => {
                warn!(folder = %config.runtime_dir.display(), %error, "no status socket: `aio-worker status` will not work");
                None
            }
        };
        let (updates, gpu) = beginning(places).await;
        let (readings_sender, readings) = watch::channel(Readings { gpu, ..Readings::default() });
        let (next_beat, announced) = watch::channel(None);
        let (concluded, rounds) = watch::channel(Instant::now());
        // A part that keeps some of the configuration subscribes here, and hears of each that is
        // taken up while the daemon runs.
        let configs = watch::Sender::new(Arc::new(config.clone()));
        let verdicts = Verdicts::new(configs.subscribe());
        let gatherer = telemetry::gather(probes, verdicts, announced, readings_sender, concluded);
        let _gatherer = AbortOnDropHandle::new(tokio::spawn(gatherer));
        let account = Account::default();
        let _fresh = AbortOnDropHandle::new(tokio::spawn(account.clone().keep_fresh()));
        let pusher = Pusher {
            identity: identity.clone(),
            readings: readings.clone(),
            latest: seen,
            configs: configs.subscribe(),
            account: account.clone(),
        };
        let _pusher = AbortOnDropHandle::new(tokio::spawn(pusher.run()));
        let wiring =
            Wiring { notifier, readings, rounds, next_beat, snapshots, reload, configs, updates, account };
        Driver::new(config, identity, timings, wiring).run(stop).await;
        info!("stopped");
        Ok(())
    }
}

/// What is known of updates before anything is said; and of the GPUs, where the daemon that made
/// room for this one has left word of them.
async fn beginning(places: Places) -> (Beginning, Option<Arc<Judged>>) {
    let looked = places.clone();
    let looking = spawn_blocking(move || {
        let Places { inbox, .. } = &looked;
        let gpu = Handover::take(inbox, SystemTime::now().into()).map(Arc::new);
        (Memory::read(inbox), errands::look(&looked), gpu)
    });
    let (memory, sight, gpu) = match timeout(LOOK_PATIENCE, looking).await {
        Ok(Ok(found)) => found,
        _ => (Memory::default(), Sight::default(), None),
    };
    (Beginning { places, memory, sight }, gpu)
}
