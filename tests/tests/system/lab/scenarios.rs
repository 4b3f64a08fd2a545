//! The three scenarios of the product, on real systemd.

use std::time::Duration;

use aio_protocol::{
    event::{EventBody, HEARTBEAT_TIMEOUT},
    node::NodeStatus,
};
use aio_tests::{
    artifacts::WORKER_FILE,
    controller::{ORGANISATION, Settings, StoredEvent, USER},
    lab::Machine,
    relay::Relay,
    worker::status_field,
};
use anyhow::{Context, Result, bail};

use super::site::{Site, UNIT, install, json_of, succeed};

/// Long enough for a heartbeat every second, short enough to wait for.
const LEASE: Duration = Duration::from_secs(3);

#[test]
fn one_command_installs_the_worker_and_the_node_is_online_and_again_after_a_reboot() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let mut machine = site.machine("installation")?;

    let outcome = succeed(install(&machine, &site.token), &machine)?;

    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    assert!(said.contains(&site.node.name), "the node is not named: {outcome}");
    assert!(said.contains("GPU") && said.contains(" s"), "no GPUs or no seconds: {outcome}");
    assert!(!said.contains(&site.token), "the token was printed");
    // The command has waited for it: no waiting here.
    assert_eq!(site.controller.node(site.id())?.status, NodeStatus::Online);
    everything_is_in_place(&machine, &site)?;
    the_daemon_has_no_privileges(&machine)?;
    the_events_tell_the_story(&site)?;

    machine.reboot()?;

    let events = [
        "node.registered",
        "node.installation_started",
        "node.connected",
        "node.disconnected",
        "node.connected",
    ];
    let events = site.controller.wait_for_events(site.id(), &events)?;
    let EventBody::Disconnected(gone) = &events[3].event.body else { bail!("{:?}", events[3]) };
    assert!(["shutdown", "reboot"].contains(&gone.detail.disconnect_reason.as_str()), "{gone:?}");
    site.wait_until_online(&machine)?;
    machine.power_off()
}

fn everything_is_in_place(machine: &Machine, site: &Site) -> Result<()> {
    let listing = machine.listing()?;
    let at = |path: &str| listing.at(path).with_context(|| format!("{path} is missing"));
    let owner_and_mode =
        |path: &str| Ok::<_, anyhow::Error>((at(path)?.owner.as_str(), at(path)?.mode.as_str()));
    assert_eq!(owner_and_mode("/etc/aio-worker/token")?, ("0:0", "600"));
    assert_eq!(owner_and_mode("/etc/aio-worker/config.toml")?, ("0:0", "644"));
    assert_eq!(owner_and_mode("/etc/systemd/system/aio-worker.service")?, ("0:0", "644"));
    assert_eq!(owner_and_mode("/usr/local/lib/aio-worker/v1.0.0/aio-worker")?, ("0:0", "755"));
    assert_eq!(at("/usr/local/lib/aio-worker/current")?.target, "v1.0.0");
    assert_eq!(at("/usr/local/bin/aio-worker")?.target, "/usr/local/lib/aio-worker/current/aio-worker");
    assert_eq!(machine.read("/etc/aio-worker/token")?.trim(), site.token);
    let unit = include_str!("../../../../systemd/aio-worker.service");
    assert_eq!(machine.read("/etc/systemd/system/aio-worker.service")?, unit);
    assert_eq!(machine.unit_property(UNIT, "UnitFileState")?, "enabled");
    assert_eq!(machine.unit_property(UNIT, "ActiveState")?, "active");
    Ok(())
}

fn the_daemon_has_no_privileges(machine: &Machine) -> Result<()> {
    let pid = machine.unit_property(UNIT, "MainPID")?;
    let status = machine.read(&format!("/proc/{pid}/status"))?;
    let user = machine.command("id").args(["--user", "aio-worker"]).read()?;
    assert_eq!(status_field(&status, "Uid")?, user.trim());
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status_field(&status, set)?, "0000000000000000", "{set}");
    }
    assert_eq!(status_field(&status, "NoNewPrivs")?, "1");
    let token = machine.read("/etc/aio-worker/token")?;
    // It answers an ordinary user, and nothing that others can read carries the token.
    let everybody = [
        "--reuid",
        "nobody",
        "--regid",
        "nogroup",
        "--clear-groups",
        "aio-worker",
        "status",
        "--output",
        "json",
    ];
    let seen = machine.command("setpriv").args(everybody).run()?;
    assert_eq!(json_of(&seen)?["session"]["state"], "online", "{seen}");
    let command_line = machine.read(&format!("/proc/{pid}/cmdline"))?;
    let journal = machine.sh(&format!("journalctl --no-pager --output=export --unit {UNIT}")).read()?;
    for readable in [&seen.stdout, &command_line, &journal] {
        assert!(!readable.contains(token.trim()), "the token can be read");
    }
    Ok(())
}

fn the_events_tell_the_story(site: &Site) -> Result<()> {
    let events = ["node.registered", "node.installation_started", "node.connected"];
    let events = site.controller.wait_for_events(site.id(), &events)?;
    let expected = [NodeStatus::Pending, NodeStatus::Installing, NodeStatus::Online];
    for (stored, status) in events.iter().zip(expected) {
        let body = serde_json::to_value(&stored.event)?;
        assert_eq!(body["data"]["nodeId"], site.id().as_str(), "{body}");
        assert_eq!(body["data"]["nodeName"], site.node.name.as_str(), "{body}");
        assert_eq!(body["data"]["status"], status.as_str(), "{body}");
        assert_eq!(body["data"]["owner"]["orgId"], ORGANISATION, "{body}");
        assert_eq!(body["data"]["owner"]["userId"], USER, "{body}");
    }
    let EventBody::Connected(connected) = &events[2].event.body else { bail!("{:?}", events[2]) };
    assert!(connected.detail.ip_address.is_loopback(), "{connected:?}");
    assert!(connected.detail.gpu_devices.is_empty(), "a machine without GPUs has {connected:?}");
    Ok(())
}

#[test]
fn a_release_with_another_checksum_is_refused_and_the_machine_is_as_it_was() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = site.machine("checksum")?;
    let expected =
        site.controller.token(site.id(), &serde_json::json!({}))?.checksum.context("no checksum")?;
    site.alter_release(WORKER_FILE)?;
    let before = machine.listing()?;

    let outcome = install(&machine, &site.token).run()?;

    assert_eq!(outcome.status, Some(65), "{outcome}");
    assert_eq!(before.changes_to(&machine.listing()?), "");
    assert!(
        outcome.stderr.contains("error[CHECKSUM_MISMATCH]: ") && outcome.stderr.contains("cure: "),
        "{outcome}"
    );
    assert_eq!(site.controller.node(site.id())?.status, NodeStatus::Error);
    let events = ["node.registered", "node.installation_started", "node.installation_failed"];
    let events = site.controller.wait_for_events(site.id(), &events)?;
    let EventBody::InstallationFailed(failed) = &events[2].event.body else { bail!("{:?}", events[2]) };
    assert_eq!(failed.status, NodeStatus::Error);
    let error = &failed.detail.error;
    assert_eq!(error.code, "CHECKSUM_MISMATCH");
    assert!(!error.message.is_empty());
    let actual = machine_sum(&site)?;
    assert_eq!(bare(&error.details["expected"])?, bare(&expected.into())?);
    assert_eq!(bare(&error.details["actual"])?, actual);
    for sum in [bare(&error.details["expected"])?, actual] {
        assert!(outcome.stderr.contains(&sum), "{sum} is not in the message: {outcome}");
    }
    Ok(())
}

/// What lies on the server now, by another program than the ones under test.
fn machine_sum(site: &Site) -> Result<String> {
    let sum = std::process::Command::new("sha256sum").arg(site.release_file(WORKER_FILE)).output()?;
    let text = String::from_utf8(sum.stdout)?;
    Ok(text.split_whitespace().next().context("sha256sum printed nothing")?.to_owned())
}

/// The digits of a checksum, with or without `sha256:`.
fn bare(checksum: &serde_json::Value) -> Result<String> {
    let text = checksum.as_str().context("a checksum is no text")?;
    Ok(text.trim_start_matches("sha256:").to_owned())
}

#[test]
fn a_daemon_that_is_killed_for_good_is_offline_after_the_heartbeat_timeout_and_online_when_it_returns()
-> Result<()> {
    const NO_RESTART: &str = "/run/systemd/system/aio-worker.service.d/for-good.conf";
    let site = Site::new(Settings::default().heartbeat_timeout("3s"))?;
    let machine = site.machine("killed")?;
    succeed(install(&machine, &site.token), &machine)?;
    machine.write(NO_RESTART, "0644", "[Service]\nRestart=no\n")?;
    machine.command("systemctl").args(["daemon-reload"]).read()?;

    machine.command("systemctl").args(["kill", "--signal=SIGKILL", UNIT]).read()?;

    it_goes_offline_by_timeout(&site, &machine)?;
    assert_eq!(machine.unit_property(UNIT, "ActiveState")?, "failed", "it was to stay dead");
    machine.sh(&format!("rm {NO_RESTART}; systemctl daemon-reload; systemctl start {UNIT}")).read()?;
    it_comes_back(&site, &machine)
}

#[test]
fn a_cut_network_is_offline_after_the_heartbeat_timeout_and_online_when_it_is_mended() -> Result<()> {
    let relay = Relay::bind()?;
    let site = Site::new(Settings::default().heartbeat_timeout("3s").env("PUBLIC_URL", &relay.url()))?;
    relay.carry_to(site.controller.url())?;
    let machine = site.machine("cut")?;
    succeed(install(&machine, &site.token), &machine)?;
    let pid = machine.unit_property(UNIT, "MainPID")?;

    relay.cut();

    it_goes_offline_by_timeout(&site, &machine)?;
    relay.mend();
    it_comes_back(&site, &machine)?;
    assert_eq!(machine.unit_property(UNIT, "MainPID")?, pid, "the daemon did not live through it");
    Ok(())
}

const CONNECTED: [&str; 3] = ["node.registered", "node.installation_started", "node.connected"];

fn it_goes_offline_by_timeout(site: &Site, machine: &Machine) -> Result<()> {
    let node = site.wait_for(NodeStatus::Offline, machine)?;
    let events = [&CONNECTED[..], &["node.disconnected"]].concat();
    let events = site.controller.wait_for_events(site.id(), &events)?;
    let Some(StoredEvent { event, .. }) = events.last() else { bail!("no event") };
    let EventBody::Disconnected(gone) = &event.body else { bail!("{event:?}") };
    assert_eq!(gone.status, NodeStatus::Offline);
    assert_eq!(gone.detail.disconnect_reason, HEARTBEAT_TIMEOUT);
    assert_eq!(node.last_seen_at, Some(gone.detail.last_seen_at));
    let silent = event.timestamp.since(gone.detail.last_seen_at);
    assert!(silent >= LEASE && silent < LEASE * 2, "offline after {silent:?} of silence");
    Ok(())
}

fn it_comes_back(site: &Site, machine: &Machine) -> Result<()> {
    let node = site.wait_until_online(machine)?;
    assert!(node.websocket_connected);
    let events = [&CONNECTED[..], &["node.disconnected", "node.connected"]].concat();
    site.controller.wait_for_events(site.id(), &events).map(drop)
}
