//! The three scenarios of the product in AIWM's dialect, on real systemd: a setup token brings a node
//! online, a controller that was away finds it again, and a token that is refused changes nothing. The
//! controller is the double.

use std::time::{Duration, Instant};

use aio_protocol::{error_code::ErrorCode, node::NodeStatus};
use aio_tests::{
    artifacts::{Artifacts, VERSION},
    controller::{Controller, Node, Settings},
    lab::Machine,
    publisher::Publisher,
    wait::wait_for,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    site::{COMMAND, SOON, install, json_of, status, succeed},
    upgrade::runs,
};

/// An AIWM with a node, and a machine with the command on it.
struct Aiwm {
    controller: Controller,
    node: Node,
    setup_token: String,
    machine: Machine,
}

impl Aiwm {
    fn new(name: &str) -> Result<Self> {
        Self::with(Settings::default(), name)
    }

    fn with(settings: Settings, name: &str) -> Result<Self> {
        let artifacts = Artifacts::release()?;
        let controller = Controller::start(&artifacts, &settings.env("AIWM", "true"))?;
        let node = controller.register("gpu-box-01")?;
        let guide = controller.order(&format!("/nodes/{}/setup-guide", node.id), &json!({"os": "ubuntu"}))?;
        let command = guide["installCommand"].as_str().with_context(|| guide.to_string())?;
        let setup_token = command.split_whitespace().last().context("an empty command")?.to_owned();
        let machine = Machine::boot(name)?;
        machine.copy_in(&artifacts.worker()?, COMMAND, "0755")?;
        Ok(Self { controller, node, setup_token, machine })
    }

    /// Waits until the worker is in a session that AIWM knows of.
    fn wait_until_online(&self) -> Result<()> {
        let online = |told: &Value| told["session"]["state"] == json!("online");
        let look = || Ok(status(&self.machine).unwrap_or_default());
        wait_for("the worker to be online", SOON, look, online)?;
        self.controller.wait_for_status(&self.node.id, NodeStatus::Online, SOON).map(drop)
    }
}

#[test]
fn a_setup_token_installs_the_worker_and_the_node_is_online_and_again_after_a_reboot() -> Result<()> {
    let mut aiwm = Aiwm::new("aiwm")?;
    let began = Instant::now();
    let outcome = succeed(install(&aiwm.machine, &aiwm.setup_token), &aiwm.machine)?;
    println!("from the command to its end: {:?}", began.elapsed());

    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    ensure!(said.contains("is online") && !said.contains(&aiwm.setup_token), "{outcome}");
    assert_eq!(aiwm.controller.node(&aiwm.node.id)?.status, NodeStatus::Online);
    // AIWM plans no release: what was run is what is installed.
    assert_eq!(runs(&aiwm.machine)?, VERSION);
    let events = ["node.registered", "node.installation_started", "node.connected"];
    aiwm.controller.wait_for_events(&aiwm.node.id, &events)?;

    // The setup token is used up, and the node's secret is kept: nothing is planned.
    let again = install(&aiwm.machine, &aiwm.setup_token).args(["--dry-run", "--output", "json"]);
    let planned = json_of(&succeed(again, &aiwm.machine)?)?;
    assert_eq!(planned["steps"], json!([]), "{planned}");

    aiwm.machine.reboot()?;
    aiwm.wait_until_online()?;
    aiwm.machine.power_off()
}

#[test]
fn a_release_of_a_server_is_installed_under_its_owner_s_key_and_under_no_other() -> Result<()> {
    const RELEASE: &str = "v1.2.0";
    let (owner, other) = (Publisher::new()?, Publisher::new()?);
    let releases = tempfile::tempdir()?;
    owner.publish(&Artifacts::release()?, releases.path(), RELEASE, |_| Ok(()))?;
    let aiwm = Aiwm::with(Settings::default().releases(releases.path()), "aiwm-release")?;
    let url = format!("{}/releases/{RELEASE}", aiwm.controller.url());
    let install_under = |key: String| {
        let from = ["--release-url", &url, "--release-key", &key, "--output", "json"];
        install(&aiwm.machine, &aiwm.setup_token).args(from)
    };

    let refused = install_under(other.key()).run()?;
    let code = json_of(&refused)?["error"]["code"].clone();
    assert_eq!(code, json!(ErrorCode::SignatureForeign.as_str()), "{refused}");
    aiwm.machine.sh("test ! -e /usr/local/bin/aio-worker").read()?;

    succeed(install_under(owner.key()), &aiwm.machine)?;
    assert_eq!(runs(&aiwm.machine)?, RELEASE);
    aiwm.wait_until_online()?;
    aiwm.machine.power_off()
}

#[test]
fn a_controller_that_was_killed_finds_the_node_again_within_seconds() -> Result<()> {
    let mut aiwm = Aiwm::new("aiwm-back")?;
    succeed(install(&aiwm.machine, &aiwm.setup_token), &aiwm.machine)?;
    aiwm.controller.kill()?;
    let away = |told: &Value| told["session"]["state"] != json!("online");
    wait_for("the worker to notice", SOON, || status(&aiwm.machine), away)?;

    aiwm.controller.start_again()?;
    let began = Instant::now();
    aiwm.wait_until_online()?;

    let took = began.elapsed();
    println!("back {took:?} after AIWM was");
    ensure!(took < Duration::from_secs(15), "{took:?}");
    aiwm.machine.power_off()
}

#[test]
fn a_setup_token_that_aiwm_refuses_leaves_the_machine_as_it_was() -> Result<()> {
    let aiwm = Aiwm::new("aiwm-refused")?;
    let tree = aiwm.machine.listing()?;
    // A newer one takes its place.
    let path = format!("/nodes/{}/setup-guide", aiwm.node.id);
    aiwm.controller.order(&path, &json!({"os": "ubuntu"}))?;

    let refused = install(&aiwm.machine, &aiwm.setup_token).args(["--output", "json"]).run()?;

    let error = json_of(&refused)?["error"].clone();
    assert_eq!(error["code"], json!(ErrorCode::SetupTokenRefused.as_str()), "{refused}");
    assert_eq!(tree.changes_to(&aiwm.machine.listing()?), "");
    assert_eq!(aiwm.controller.node(&aiwm.node.id)?.status, NodeStatus::Pending);
    aiwm.machine.power_off()
}
