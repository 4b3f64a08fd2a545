//! `aio-worker start`: the daemon as systemd runs it, with its log, its signals and the real machine.

use aio_host::{
    cgroups::Cgroups,
    facts::{HostProbe, SysinfoProbe},
    gpu::{GpuWatcher, NvmlProbe, Release},
    layout::Layout,
    proxy::ignored_exceptions,
};
use aio_installer::cli::{Failure, command_line};
use secrecy::ExposeSecret;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc::{self, error::TrySendError},
};
use tokio_util::sync::CancellationToken;

use super::answer::{forbid_dumps, internal, runtime};
use crate::{
    config::{Flags, WorkerConfig, environment},
    confinement::forbid_execution,
    logging::{self, Filter},
    notify::ServiceManager,
    reload::Reload,
    session::machine::Timings,
    telemetry::{Probes, manager::of_this_machine},
    update::places::Places,
    worker::Worker,
};

pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    if let Some(token) = &flags.token {
        command_line::hide(token.expose_secret());
    }
    let config = WorkerConfig::load(flags, &environment)?;
    let filter = logging::start(&config.log)?;
    forbid_dumps();
    for entry in ignored_exceptions() {
        tracing::warn!(entry, "an entry of NO_PROXY names no host, address or network, and is ignored");
    }
    // Before there is a second thread, which would not be bound by it.
    if let Err(error) = forbid_execution() {
        tracing::warn!(%error, "this kernel does not take the right to start programs away");
    }
    let probe =
        NvmlProbe::new(config.nvml_library.clone()).releasable(Release::in_folder(&config.runtime_dir));
    let gpus = GpuWatcher::start(probe)
        .map_err(|error| internal(format!("no thread for the GPU driver: {error}")))?;
    let (load, facts) = (host()?, host()?);
    let read_again = {
        let flags = flags.clone();
        move |config: &WorkerConfig| read_again(config, &flags, &filter)
    };
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        let stop = CancellationToken::new();
        stop_on_signal(stop.clone())?;
        let reload = Reload::new(reload_on_signal()?, read_again);
        let (systemd, _watcher) = of_this_machine();
        let worker = Worker {
            probes: Probes { load, facts, containers: Box::new(Cgroups::of_this_machine()), gpus, systemd },
            timings: Timings::default(),
            notifier: Box::new(ServiceManager),
            reload,
            places: Places::of(Layout::default(), &config.state_dir, &config.runtime_dir),
            config,
        };
        worker.run(stop).await
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

/// What may change while the daemon runs. The log is told last: where anything cannot be used, nothing is.
fn read_again(config: &WorkerConfig, flags: &Flags, filter: &Filter) -> Result<WorkerConfig, Failure> {
    let again = config.load_again(flags, &environment)?;
    let targets = logging::parse(&again.log)?;
    filter.set(targets);
    if again.nvml_library != config.nvml_library {
        tracing::warn!(
            "`nvml_library` is another: the GPU driver's library is loaded once, so it takes a restart"
        );
    }
    Ok(again)
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| internal(format!("signals cannot be listened to: {error}")))
}

/// SIGHUP asks for another configuration. Several in a row ask once.
fn reload_on_signal() -> Result<mpsc::Receiver<()>, Failure> {
    let mut hang_up = listen(SignalKind::hangup())?;
    let (ask, asked) = mpsc::channel(1);
    tokio::spawn(async move {
        while hang_up.recv().await.is_some() {
            // A full channel holds one that was not answered yet, and that will read what this one would.
            if let Err(TrySendError::Closed(())) = ask.try_send(()) {
                return;
            }
        }
    });
    Ok(asked)
}

fn stop_on_signal(stop: CancellationToken) -> Result<(), Failure> {
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
