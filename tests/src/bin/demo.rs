//! `aio-demo`: the whole system on one computer, each event shown as it arrives. What a person
//! reads goes to standard error; standard output carries one line of JSON, with `--once`.

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use aio_protocol::{
    event::{EventBody, NodeEvent},
    node::NodeStatus,
};
use aio_tests::{
    artifacts::Artifacts,
    controller::{Controller, Node, Settings, StoredEvent},
    lab::{Machine, Outcome},
    worker::Worker,
};
use anyhow::{Context, Result, bail};
use clap::Parser;
use serde_json::json;

/// Starts a controller and a worker, and shows what happens
#[derive(Debug, Parser)]
struct Arguments {
    /// Stop when the node is online, and print one line of JSON
    #[arg(long)]
    once: bool,
    /// Install on real systemd, in a container (as root)
    #[arg(long)]
    systemd: bool,
}

const NODE: &str = "demo-node";
/// How long a node may take to be online before the demo calls it a failure.
const ONLINE: Duration = Duration::from_secs(60);
const PACE: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let interrupted = interruption()?;
    let artifacts = Artifacts::beside_this_program()?;
    let releases = tempfile::tempdir()?;
    if arguments.systemd {
        artifacts.write_releases(releases.path())?;
    }
    let controller = Controller::start(&artifacts, &Settings::default().releases(releases.path()))?;
    eprintln!("demo: the controller and its NOTI endpoint listen on {}", controller.url());
    eprintln!("demo: look at it, once: {}", controller.login()?);
    let node = controller.register(NODE)?;
    let token = controller.token(&node.id, &json!({}))?.token;
    eprintln!("demo: node {} ({}) is registered", node.name, node.id);
    let machine = arguments.systemd.then(|| boot(&artifacts)).transpose()?;
    let started = Instant::now();
    let mut worker = match machine {
        Some(machine) => Running::Installation(Installation::start(machine, token)?),
        None => Running::Process(Worker::start(&artifacts, &token, &[])?),
    };
    let mut show = Show { controller: &controller, node: &node, shown: 0 };
    let online = show.until_online(&mut worker, &interrupted, started);
    let shown = online.and_then(|seconds| {
        if arguments.once {
            println!("{}", summary(&controller, &node, arguments.systemd, seconds)?);
        } else if seconds.is_some() {
            eprintln!("demo: online. Ctrl-C ends it.");
            show.until_interrupted(&interrupted)?;
        }
        Ok(())
    });
    eprintln!("demo: ending");
    let ended = worker.end();
    if shown.is_err() {
        // What failed first is what matters; how the worker ended may say why.
        ended.unwrap_or_else(|error| eprintln!("demo: {error:#}"));
        return shown;
    }
    ended?;
    if !arguments.once {
        // The worker says goodbye, and the controller tells it.
        show.new_events()?;
    }
    controller.stop()
}

/// Set when a person or a service manager wants the demo to end.
fn interruption() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&flag);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let mut terminate = signal(SignalKind::terminate()).ok();
            let terminated = async {
                match &mut terminate {
                    Some(terminate) => terminate.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminated => {}
            }
            set.store(true, Ordering::Relaxed);
        });
    });
    Ok(flag)
}

fn boot(artifacts: &Artifacts) -> Result<Machine> {
    eprintln!("demo: booting a machine");
    let machine = Machine::boot("demo")?;
    machine.copy_in(&artifacts.worker()?, "/root/aio-worker", "0755")?;
    eprintln!("demo: {} runs; installing: aio-worker install --token-file -", machine.name());
    Ok(machine)
}

/// The worker, however it came to run.
enum Running {
    Process(Worker),
    Installation(Installation),
}

/// An installation, which goes on while its events are shown.
struct Installation {
    machine: Machine,
    thread: std::thread::JoinHandle<Result<Outcome>>,
}

impl Installation {
    fn start(machine: Machine, token: String) -> Result<Self> {
        let install = machine.command("/root/aio-worker").args(["install", "--token-file", "-"]).input(token);
        Ok(Self { machine, thread: std::thread::spawn(|| install.run()) })
    }
}

impl Running {
    /// Whether nothing more will come of it.
    fn has_given_up(&mut self) -> Result<bool> {
        match self {
            Self::Process(worker) => worker.has_ended(),
            Self::Installation(installation) => Ok(installation.thread.is_finished()),
        }
    }

    fn log(&self) -> String {
        match self {
            Self::Process(worker) => worker.log_tail(),
            Self::Installation(installation) => installation.machine.journal("aio-worker.service"),
        }
    }

    fn end(self) -> Result<()> {
        match self {
            Self::Process(worker) => {
                let status = worker.stop()?;
                if !status.success() {
                    bail!("the worker ended with {status}");
                }
                Ok(())
            }
            Self::Installation(Installation { machine, thread }) => {
                let outcome =
                    thread.join().map_err(|_| anyhow::anyhow!("the installation's thread panicked"))??;
                if outcome.status != Some(0) {
                    bail!("the installation failed: {outcome}");
                }
                eprint!("{}{}", outcome.stderr, outcome.stdout);
                machine.power_off()
            }
        }
    }
}

/// Shows each event once.
struct Show<'a> {
    controller: &'a Controller,
    node: &'a Node,
    shown: usize,
}

impl Show<'_> {
    /// The seconds it took, or nothing when interrupted before.
    fn until_online(
        &mut self,
        worker: &mut Running,
        interrupted: &AtomicBool,
        started: Instant,
    ) -> Result<Option<f64>> {
        loop {
            self.new_events()?;
            // Asked before the node: an installation that has succeeded ends after the node is online.
            let given_up = worker.has_given_up()?;
            let node = self.controller.node(&self.node.id)?;
            match node.status {
                NodeStatus::Online => {
                    let seconds = started.elapsed().as_secs_f64();
                    // Its event is delivered behind the status.
                    while !self.new_events()?
                        && !interrupted.load(Ordering::Relaxed)
                        && started.elapsed() < ONLINE
                    {
                        std::thread::sleep(PACE);
                    }
                    return Ok(Some(seconds));
                }
                _ if interrupted.load(Ordering::Relaxed) => return Ok(None),
                NodeStatus::Error => bail!("the installation failed; {}", worker.log()),
                status if given_up => {
                    bail!("the node is {status}, and its worker has ended; {}", worker.log())
                }
                status if started.elapsed() > ONLINE => {
                    bail!("the node is {status} and not online after {ONLINE:?}; {}", worker.log())
                }
                _ => std::thread::sleep(PACE),
            }
        }
    }

    fn until_interrupted(&mut self, interrupted: &AtomicBool) -> Result<()> {
        while !interrupted.load(Ordering::Relaxed) {
            self.new_events()?;
            std::thread::sleep(PACE);
        }
        Ok(())
    }

    /// Shows what is new, and says whether the node was ever connected.
    fn new_events(&mut self) -> Result<bool> {
        let events = self.controller.events(&self.node.id)?;
        for StoredEvent { event, .. } in events.iter().skip(self.shown) {
            eprintln!("{}  {:<26} {}", event.timestamp, event.kind().as_str(), detail(event));
        }
        self.shown = events.len();
        Ok(events.iter().any(|event| event.kind() == "node.connected"))
    }
}

fn detail(event: &NodeEvent) -> String {
    match &event.body {
        EventBody::Connected(data) => {
            let gpus: Vec<_> = data.detail.gpu_devices.iter().map(|gpu| gpu.model.as_str()).collect();
            let gpus = if gpus.is_empty() { "no GPU".to_owned() } else { gpus.join(", ") };
            format!("{} from {} with {gpus}", data.status, data.detail.ip_address)
        }
        EventBody::Disconnected(data) => format!("{}: {}", data.status, data.detail.disconnect_reason),
        EventBody::InstallationFailed(data) => {
            format!("{}: {}: {}", data.status, data.detail.error.code, data.detail.error.message)
        }
        EventBody::Updated(data) => format!("{} runs {}", data.status, data.detail.version),
        EventBody::UpdateFailed(data) => {
            format!("{}: {} {}", data.status, data.detail.error.code, data.detail.error.message)
        }
        EventBody::HealthChanged(data) => {
            format!(
                "{}: {}",
                data.detail.health.state.as_str(),
                data.detail.health.worst.as_deref().unwrap_or("well")
            )
        }
        EventBody::AlarmRaised(data) | EventBody::AlarmResolved(data) => {
            format!("{}: {}", data.detail.kind, data.detail.reason)
        }
        EventBody::Registered(data)
        | EventBody::InstallationStarted(data)
        | EventBody::MaintenanceMode(data)
        | EventBody::Resumed(data)
        | EventBody::Decommissioned(data) => data.status.to_string(),
    }
}

fn summary(controller: &Controller, node: &Node, systemd: bool, seconds: Option<f64>) -> Result<String> {
    let seconds = seconds.context("interrupted before the node was online")?;
    let now = controller.node(&node.id)?;
    // The status is there before NOTI was told; the demo shows both. A worker that connects without
    // an installer counts as one.
    let expected = ["node.registered", "node.installation_started", "node.connected"];
    controller.wait_for_events(&node.id, &expected)?;
    let line = json!({
        "nodeId": now.id,
        "nodeName": now.name,
        "status": now.status,
        "seconds": (seconds * 1000.0).round() / 1000.0,
        "systemd": systemd,
        "events": expected,
    });
    Ok(line.to_string())
}
