//! Machines that the older script has set up, on real systemd.

use aio_protocol::node::NodeStatus;
use aio_tests::{controller::Settings, lab::Machine};
use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::site::{COMMAND, Site, UNIT, install, json_of, succeed};

/// What the script does after its download: the file, the unit with the token in it, and systemctl.
fn set_up_by_the_script(site: &Site, machine: &Machine, token: &str) -> Result<()> {
    machine.copy_in(&site.artifacts.worker()?, "/usr/local/bin/aio-worker", "0755")?;
    let endpoint = format!("{}/ws/node", site.controller.url().replacen("http", "ws", 1));
    let unit = format!(
        "[Unit]\nDescription=AIO Worker Node Daemon\n\n[Service]\nType=simple\nUser=root\n\
         Environment=\"AIO_NODE_TOKEN={token}\"\nEnvironment=\"AIO_CONTROLLER_ENDPOINT={endpoint}\"\n\
         Environment=\"AIO_NODE_ID={}\"\nExecStart=/usr/local/bin/aio-worker start\nRestart=always\n\
         ProtectSystem=strict\nReadWritePaths=/var/lib/aio-worker\nWorkingDirectory=/var/lib/aio-worker\n\n\
         [Install]\nWantedBy=multi-user.target\n",
        site.id()
    );
    machine.write("/etc/systemd/system/aio-worker.service", "0644", unit)?;
    let start =
        "mkdir -p /var/lib/aio-worker; systemctl daemon-reload; systemctl enable --now aio-worker.service";
    succeed(machine.sh(start), machine).map(drop)
}

#[test]
fn a_machine_of_the_older_script_is_taken_over_and_given_back() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = site.machine("script-s-own")?;
    set_up_by_the_script(&site, &machine, &site.token)?;
    site.wait_for(NodeStatus::Online, &machine)?;
    ensure!(machine.unit_property(UNIT, "User")? == "root");

    let token = site.controller.token(site.id(), &json!({}))?.token;
    let installed = succeed(install(&machine, &token).args(["--output", "json"]), &machine)?;

    let installed = json_of(&installed)?;
    let warnings = installed["warnings"].to_string();
    ensure!(warnings.contains("aio-worker.service.bak"), "{installed}");
    ensure!(machine.unit_property(UNIT, "User")? == "aio-worker");
    site.wait_until_online(&machine)?;
    let listing = machine.listing()?;
    let kept = listing.at("/etc/systemd/system/aio-worker.service.bak").context("no copy of the unit")?;
    ensure!(kept.mode == "600" && kept.owner == "0:0", "{kept:?}");

    succeed(machine.command(COMMAND).args(["uninstall", "--purge"]), &machine)?;
    ensure!(machine.unit_property(UNIT, "User")? == "root", "the script's unit is not back");
    ensure!(machine.unit_property(UNIT, "ActiveState")? == "active");
    let listing = machine.listing()?;
    ensure!(listing.at("/etc/systemd/system/aio-worker.service.bak").is_none());
    let state = listing.at("/var/lib/aio-worker").context("no state folder")?;
    ensure!(state.owner == "0:0", "{state:?}");
    Ok(())
}
