//! `aio-demo-update`: a small fleet goes from one version to the next, and a faulty release halts at its
//! canary. Ten workers are simulated; with `--systemd` a real one is installed in a container and updated
//! with them. Ends by itself; what a person reads goes to standard error.

use std::{fs, path::Path, process::ExitCode, time::Duration};

use aio_fleet::Crew;
use aio_protocol::{
    node::NodeStatus,
    release::{Checksum, index::IndexedRelease},
};
use aio_tests::{
    artifacts::{Artifacts, VERSION},
    controller::{Controller, Settings},
    lab::Machine,
    publisher::Publisher,
    wait::wait_for,
};
use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::{Value, json};

/// Brings a small fleet to a new version, and halts a faulty one at its canary
#[derive(Debug, Parser)]
struct Arguments {
    /// Install a real worker on real systemd, in a container (as root), and update it as well
    #[arg(long)]
    systemd: bool,
}

/// Number of simulated workers.
const SIMULATED: usize = 10;

const GOOD: &str = "v1.1.0";
const FAULTY: &str = "v1.2.0";

/// For a worker to be online, and for a rollout to end.
const PATIENCE: Duration = Duration::from_secs(180);

/// Seconds for which a new version is watched on the real node.
const PROBATION: u32 = 3;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let artifacts = Artifacts::beside_this_program()?;
    let (publisher, releases) = (Publisher::new()?, tempfile::tempdir()?);
    let mut releases = Releases { publisher, artifacts, tree: releases, real: arguments.systemd };
    releases.publish(VERSION, |_| Ok(()))?;
    let settings = Settings::default().releases(releases.tree.path());
    let settings = settings.env("RELEASE_PUBLIC_KEY", &releases.publisher.key());
    let controller = Controller::start(&releases.artifacts, &settings)?;
    eprintln!("demo: the controller listens on {}", controller.url());

    let mut nodes = Vec::new();
    for number in 1..=SIMULATED {
        let node = controller.register(&format!("simulated-{number:02}"))?.id;
        nodes.push((node.clone(), controller.token(&node, &json!({}))?.token));
    }
    let ids: Vec<_> = nodes.iter().map(|(node, _)| node.clone()).collect();
    let crew = Crew::start(controller.url(), nodes)?;
    let real = arguments.systemd.then(|| install(&releases.artifacts, &controller)).transpose()?;
    for node in &ids {
        controller.wait_for_status(node, NodeStatus::Online, PATIENCE)?;
    }
    eprintln!("demo: {} nodes are online with {VERSION}", ids.len() + usize::from(real.is_some()));

    releases.publish(GOOD, |_| Ok(()))?;
    let completed = roll_out(&controller, GOOD)?;
    ensure!(completed["state"] == json!("completed"), "it should have been completed: {completed}");

    crew.spoil();
    releases.publish(FAULTY, |place| {
        Publisher::override_unit(place, "[Service]\nExecStart=\nExecStart=/bin/false")
    })?;
    let halted = roll_out(&controller, FAULTY)?;
    ensure!(halted["state"] == json!("halted"), "it should have been halted: {halted}");
    let (tried, all) = (&halted["nodes"]["faulty"], ids.len() + usize::from(real.is_some()));
    eprintln!("demo: {FAULTY} came to {tried} of {all} nodes, and was left again there");
    if let Some(machine) = real {
        machine.power_off()?;
    }
    controller.stop()
}

/// The folder of releases, and who signs it.
struct Releases {
    publisher: Publisher,
    artifacts: Artifacts,
    tree: tempfile::TempDir,
    /// Whether anybody fetches the files. Simulated workers read the index alone.
    real: bool,
}

impl Releases {
    fn publish(&mut self, version: &str, edit: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let tree = self.tree.path();
        if self.real {
            self.publisher.publish(&self.artifacts, tree, version, edit)?;
            return self.publisher.index(tree, |_| {}).map(drop);
        }
        fs::create_dir(tree.join(version))?;
        let named = [VERSION, GOOD, FAULTY].into_iter().filter(|it| tree.join(it).exists());
        let named = named.map(str::parse).collect::<Result<Vec<_>, _>>()?;
        let manifest_sha256: Checksum = format!("sha256:{}", "0".repeat(64)).parse()?;
        let release = IndexedRelease { manifest_sha256, oldest_from: None, protocol: 1 };
        let releases = named.into_iter().map(|version| (version, release.clone())).collect();
        self.publisher.index(tree, |index| index.releases = releases).map(drop)
    }
}

/// A real node, on a machine of its own.
fn install(artifacts: &Artifacts, controller: &Controller) -> Result<Machine> {
    let node = controller.register("real")?.id;
    let token = controller.token(&node, &json!({}))?.token;
    let machine = Machine::boot("demo-update")?;
    machine.copy_in(&artifacts.worker()?, "/root/aio-worker", "0755")?;
    eprintln!("demo: {} runs; installing: aio-worker install --auto-update", machine.name());
    let install = machine.command("/root/aio-worker").args(["install", "--token-file", "-", "--auto-update"]);
    let outcome = install.input(token).run()?;
    ensure!(outcome.status == Some(0), "the installation failed: {outcome}");
    let drop_in = format!("[Service]\nEnvironment=AIO_UPDATE_PROBATION={PROBATION}\n");
    machine.write("/etc/systemd/system/aio-worker-update.service.d/demo.conf", "0644", drop_in)?;
    machine.command("systemctl").args(["daemon-reload"]).read()?;
    Ok(machine)
}

/// Rolls `version` out, and shows how far that is until it goes on no more.
fn roll_out(controller: &Controller, version: &str) -> Result<Value> {
    let draft = json!({"version": version, "canaries": "1", "soakSeconds": 1, "wavePauseSeconds": 1, "inFlight": "3"});
    let rollout = controller.order("/rollouts", &draft)?;
    let path = format!("/rollouts/{}", rollout["id"].as_str().context("a rollout without an id")?);
    controller.order(&format!("{path}/start"), &json!({}))?;
    let mut shown = String::new();
    let look = || {
        let rollout = controller.ask(&path)?;
        let line = line_of(&rollout);
        if line != shown {
            eprintln!("demo: {version}  {line}");
            shown = line;
        }
        Ok(rollout)
    };
    let is_over =
        |rollout: &Value| ["completed", "halted"].iter().any(|state| rollout["state"] == json!(state));
    let rollout = wait_for("the rollout to end", PATIENCE, look, is_over)?;
    let failed = controller.ask(&format!("{path}/nodes?stage=faulty"))?;
    for node in failed["data"].as_array().into_iter().flatten() {
        let word = |name: &str| node[name].as_str().unwrap_or_default();
        eprintln!("demo: {version}  {}: {} {}", word("name"), word("code"), word("reason"));
    }
    Ok(rollout)
}

fn line_of(rollout: &Value) -> String {
    let counted = rollout["nodes"].as_object().into_iter().flatten();
    let counted =
        counted.filter(|(_, nodes)| **nodes != json!(0)).map(|(stage, nodes)| format!("{nodes} {stage}"));
    format!(
        "{:<10} {}",
        rollout["state"].as_str().unwrap_or_default(),
        counted.collect::<Vec<_>>().join(", ")
    )
}
