//! `aio-worker start`: the daemon as systemd runs it, with its log, its signals and the real machine.

use aio_host::{
    facts::{HostProbe, SysinfoProbe},
    gpu::{GpuWatcher, NvmlProbe},
};
use aio_installer::{cli::Failure, command_line};
use aio_protocol::error_code::ErrorCode;
use secrecy::ExposeSecret;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{internal, runtime};
use crate::{
    config::{Flags, WorkerConfig, environment},
    logging,
    notify::ServiceManager,
    session::machine::Timings,
    telemetry::{Probes, Verdicts},
    worker::Worker,
};

pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    if let Some(token) = &flags.token {
        command_line::hide(token.expose_secret());
    }
    let config = WorkerConfig::load(flags, &environment)?;
    logging::start(&config.log).map_err(|error| {
        Failure::new(
            ErrorCode::ConfigInvalid,
            format!("the log filter `{}` cannot be used: {error}", config.log),
        )
    })?;
    let gpus = GpuWatcher::start(NvmlProbe::new(config.nvml_library.clone()))
        .map_err(|error| internal(format!("no thread for the GPU driver: {error}")))?;
    let worker = Worker {
        probes: Probes {
            load: host()?,
            facts: host()?,
            gpus,
            verdicts: Verdicts::new(config.health.clone(), config.state_dir.clone()),
        },
        timings: Timings::default(),
        notifier: Box::new(ServiceManager),
        config,
    };
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        let stop = CancellationToken::new();
        stop_on_signal(stop.clone())?;
        worker.run(stop).await.map_err(Failure::from)
    });
    // A question that hangs in the kernel or a driver must not keep the process: it ends with it.
    runtime.shutdown_background();
    ended
}

pub(super) fn host() -> Result<Box<dyn HostProbe>, Failure> {
    let probe =
        SysinfoProbe::new().map_err(|error| internal(format!("this machine cannot be read: {error}")))?;
    Ok(Box::new(probe))
}

fn stop_on_signal(stop: CancellationToken) -> Result<(), Failure> {
    let listen =
        |kind| signal(kind).map_err(|error| internal(format!("signals cannot be listened to: {error}")));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "asked to stop");
        stop.cancel();
    });
    Ok(())
}
