//! The controller goes away in the middle of an installation that then fails: it hears of the
//! failure all the same, later.

use std::{thread, time::Duration};

use aio_protocol::{error_code::ErrorCode, event::EventBody, node::NodeStatus};
use aio_tests::{
    controller::Settings,
    lab::{Inside, Machine, Outcome},
    wait::wait_for,
};
use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::json;

use super::{
    installs::is_as_it_was_but_for_reports,
    site::{SOON, Site, UNIT, install, json_of, succeed},
};

/// While `/run/break` is there, a start says that it waits, waits for `/run/go`, and then fails. In
/// the place of the service's own: before it, systemd 247 has no credentials to mount.
const BREAKABLE: &str = "[Service]\nExecStart=\nExecStart=/bin/sh -c 'if test -e /run/break; then touch /run/aio-worker/waits; until test -e /run/go; do sleep 0.05; done; exit 3; fi; exec aio-worker start'\n";
const DROP_IN: &str = "/etc/systemd/system/aio-worker.service.d/breakable.conf";

/// An installation during which the controller dies, and which then fails.
fn fail_alone(site: &mut Site, machine: &Machine, command: Inside) -> Result<Outcome> {
    machine.sh("rm -f /run/go; touch /run/break").read()?;
    thread::scope(|scope| {
        let running = scope.spawn(|| command.args(["--output", "json"]).run());
        let waits = || Ok(machine.command("ls").args(["/run/aio-worker/waits"]).run()?.status);
        wait_for("the service to wait in its start", SOON, waits, |status| *status == Some(0))?;
        site.controller.kill()?;
        // In this order: the start that waits fails, and the next one, which undoes it, does not.
        machine.sh("rm /run/break; touch /run/go").read()?;
        let outcome = running.join().map_err(|_| anyhow!("the installation panicked"))??;
        ensure!(!outcome.stdout.contains("undoFailed"), "{outcome}");
        site.controller.start_again()?;
        ensure!(outcome.status == Some(i32::from(ErrorCode::ServiceFailed.exit_status())), "{outcome}");
        Ok(outcome)
    })
}

fn kept(outcome: &Outcome) -> Result<String> {
    let answer = json_of(outcome)?;
    let path = answer["error"]["details"]["reportKept"].as_str().with_context(|| outcome.to_string())?;
    Ok(path.to_owned())
}

#[test]
fn the_next_installation_tells_what_the_last_one_could_not() -> Result<()> {
    let mut site = Site::new(Settings::default())?;
    let machine = site.machine("undelivered")?;
    machine.write(DROP_IN, "0644", BREAKABLE)?;
    let before = machine.listing()?;
    let token = site.token.clone();

    let outcome = fail_alone(&mut site, &machine, install(&machine, &token))?;

    let path = kept(&outcome)?;
    ensure!(path.starts_with("/var/lib/aio-installer/undelivered/"), "{path}");
    ensure!(!machine.read(&path)?.contains(&token), "the token is in the report");
    is_as_it_was_but_for_reports(&before, &machine)?;

    succeed(install(&machine, &token), &machine)?;
    let events = [
        "node.registered",
        "node.installation_started",
        "node.installation_failed",
        "node.installation_started",
        "node.connected",
    ];
    let events = site.controller.wait_for_events(site.id(), &events)?;
    let EventBody::InstallationFailed(failed) = &events[2].event.body else { bail!("{:?}", events[2]) };
    assert_eq!(failed.detail.error.code, "SERVICE_FAILED");
    ensure!(failed.detail.error.details.contains_key("failedAt"), "{:?}", failed.detail);
    ensure!(machine.command("ls").args([&path]).run()?.status != Some(0), "it is told and still there");
    Ok(())
}

#[test]
fn a_worker_that_goes_on_tells_of_the_upgrade_that_failed() -> Result<()> {
    let mut site = Site::new(Settings::default().heartbeat_timeout("5s"))?;
    let machine = site.machine("goes-on")?;
    succeed(install(&machine, &site.token), &machine)?;
    machine.write(DROP_IN, "0644", BREAKABLE)?;
    machine.command("systemctl").args(["daemon-reload"]).read()?;
    // Another token of the node is reason enough to restart the service.
    let next = site.controller.token(site.id(), &json!({}))?.token;

    let outcome = fail_alone(&mut site, &machine, install(&machine, &next))?;

    let path = kept(&outcome)?;
    ensure!(path.starts_with("/var/lib/aio-worker/undelivered/"), "{path}");
    let failed = || {
        let events = site.controller.events(site.id())?;
        Ok(events.into_iter().find(|event| event.kind() == "node.installation_failed"))
    };
    let told = wait_for("the worker to tell", Duration::from_secs(60), failed, Option::is_some)
        .with_context(|| machine.journal(UNIT))?;
    let EventBody::InstallationFailed(told) = told.context("no event")?.event.body else {
        bail!("no failure")
    };
    assert_eq!((told.detail.error.code.as_str(), told.status), ("SERVICE_FAILED", NodeStatus::Online));
    let gone = || Ok(machine.command("ls").args([&path]).run()?.status);
    wait_for("the report to be forgotten", SOON, gone, |status| *status != Some(0)).map(drop)
}
