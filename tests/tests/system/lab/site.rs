//! What the tests of an installation begin with: a controller that serves the release, a registered
//! node, its token, and a machine with the command on it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use aio_protocol::{ids::NodeId, node::NodeStatus};
use aio_tests::{
    artifacts::{Artifacts, VERSION},
    controller::{Controller, Node, Settings},
    lab::{Inside, Machine, Outcome},
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The command, where an operator has put it.
pub(super) const COMMAND: &str = "/root/aio-worker";
/// A name that is nobody's: machines are told where it is.
pub(super) const HOST: &str = "aiwm.lab.example";
/// The service.
pub(super) const UNIT: &str = "aio-worker.service";
/// How long an installation or a reconnect may take on a computer that is busy with other tests.
pub(super) const SOON: Duration = Duration::from_secs(30);

/// A controller with one node.
pub(super) struct Site {
    pub(super) artifacts: Artifacts,
    pub(super) controller: Controller,
    pub(super) node: Node,
    pub(super) token: String,
    releases: TempDir,
}

impl Site {
    /// The controller serves the release itself; `settings` say what is special about it.
    pub(super) fn new(settings: Settings) -> Result<Self> {
        Self::with_releases(settings, |_| Ok(()))
    }

    /// The same, and `publish` changes the folder of releases before anybody reads it.
    pub(super) fn with_releases(
        settings: Settings,
        publish: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        let artifacts = Artifacts::release()?;
        let releases = tempfile::tempdir()?;
        artifacts.write_releases(releases.path())?;
        publish(releases.path())?;
        let controller = Controller::start(&artifacts, &settings.releases(releases.path()))?;
        let node = controller.register("gpu-box-01")?;
        ensure!(node.status == NodeStatus::Pending, "a registered node is {}", node.status);
        let token = controller.token(&node.id, &json!({}))?.token;
        Ok(Self { artifacts, controller, node, token, releases })
    }

    /// Where the controller's releases lie.
    pub(super) fn releases(&self) -> &Path {
        self.releases.path()
    }

    /// A controller that listens on this address of this computer, with an authority of its own,
    /// and is known to nodes by [`HOST`].
    pub(super) fn over_tls(address: &str) -> Result<Self> {
        Self::new(tls(address)?)
    }

    /// A machine on which nothing but the command has been put.
    pub(super) fn machine(&self, name: &str) -> Result<Machine> {
        let machine = Machine::boot(name)?;
        self.put_command(&machine)?;
        Ok(machine)
    }

    pub(super) fn put_command(&self, machine: &Machine) -> Result<()> {
        machine.copy_in(&self.artifacts.worker()?, COMMAND, "0755")
    }

    /// Puts the fake GPU driver where the daemon's configuration then looks for it.
    pub(super) fn put_gpus(&self, machine: &Machine) -> Result<()> {
        const LIBRARY: &str = "/opt/fake-nvml/libnvidia-ml.so.1";
        let scenario = include_str!("../../../fake-nvml/scenarios/eight-h100.json");
        machine.copy_in(&self.artifacts.fake_nvml()?, LIBRARY, "0755")?;
        machine.write(&format!("{LIBRARY}.json"), "0644", scenario)?;
        machine.write("/etc/aio-worker/config.toml", "0644", format!("nvml_library = \"{LIBRARY}\"\n"))
    }

    /// A file of the release that the controller serves.
    pub(super) fn release_file(&self, name: &str) -> PathBuf {
        self.releases.path().join(VERSION).join(name)
    }

    /// Turns a byte in the middle of a file of the served release around.
    pub(super) fn alter_release(&self, name: &str) -> Result<()> {
        let path = self.release_file(name);
        let mut bytes = fs::read(&path)?;
        let middle = bytes.len() / 2;
        bytes[middle] = !bytes[middle];
        fs::write(&path, bytes).with_context(|| format!("cannot alter {}", path.display()))
    }

    /// Waits until the node is online.
    pub(super) fn wait_until_online(&self, machine: &Machine) -> Result<Node> {
        self.wait_for(NodeStatus::Online, machine)
    }

    /// Waits until the node has this status.
    pub(super) fn wait_for(&self, status: NodeStatus, machine: &Machine) -> Result<Node> {
        let seen = self.controller.wait_for_status(&self.node.id, status, SOON);
        seen.with_context(|| format!("the journal of {UNIT}:\n{}", machine.journal(UNIT)))
    }

    /// The token with other claims, and the controller's signature on them.
    pub(super) fn signed(&self, token: &str, change: impl FnOnce(&mut Value)) -> Result<String> {
        self.controller.signed(token, change)
    }

    pub(super) fn id(&self) -> &NodeId {
        &self.node.id
    }
}

/// The settings of a controller with an authority of its own, which nodes know by [`HOST`].
pub(super) fn tls(address: &str) -> Result<Settings> {
    let port = std::net::TcpListener::bind((address, 0))?.local_addr()?.port();
    Ok(Settings::default()
        .listen(&format!("{address}:{port}"))
        .env("TLS_SELF_SIGNED", "true")
        .env("PUBLIC_URL", &format!("https://{HOST}:{port}")))
}

/// The program that the service runs.
pub(super) fn program(machine: &Machine) -> Result<String> {
    let link = format!("/proc/{}/exe", machine.unit_property(UNIT, "MainPID")?);
    Ok(machine.command("readlink").args([&link]).read()?.trim().to_owned())
}

/// `aio-worker install` with this token.
pub(super) fn install(machine: &Machine, token: &str) -> Inside {
    machine.command(COMMAND).args(["install", "--token", token]).bound(Duration::from_secs(90))
}

/// What the daemon says of itself.
pub(super) fn status(machine: &Machine) -> Result<Value> {
    json_of(&machine.command("aio-worker").args(["status", "--output", "json"]).run()?)
}

/// Fails unless the command exited with 0.
pub(super) fn succeed(command: Inside, machine: &Machine) -> Result<Outcome> {
    let outcome = command.run()?;
    ensure!(outcome.status == Some(0), "{outcome}\n--- journal\n{}", machine.journal(UNIT));
    Ok(outcome)
}

/// The one JSON object that a command with `--output json` prints.
pub(super) fn json_of(outcome: &Outcome) -> Result<Value> {
    serde_json::from_str(outcome.stdout.trim()).with_context(|| format!("not one JSON object: {outcome}"))
}
