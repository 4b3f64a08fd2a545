//! The service as systemd knows it: restarted when its loop stands still and only then, reloaded
//! without another process, and not disturbed when what it leans on is restarted.

use std::{thread::sleep, time::Duration};

use aio_tests::{controller::Settings, lab::Machine, wait::wait_for};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::site::{SOON, Site, UNIT, install, json_of, succeed};

/// A watchdog that a test can wait for.
const WATCHDOG: Duration = Duration::from_secs(2);
/// The loop is missed after the watchdog's time, and killed when it has not ended within the time
/// that a stop may take.
const BITTEN: Duration = Duration::from_secs(40);

/// A node that is online, and its machine.
fn online(name: &str) -> Result<(Site, Machine)> {
    let site = Site::new(Settings::default())?;
    let machine = site.machine(name)?;
    succeed(install(&machine, &site.token), &machine)?;
    Ok((site, machine))
}

fn shorten_watchdog(machine: &Machine) -> Result<()> {
    let text = format!("[Service]\nWatchdogSec={}\n", WATCHDOG.as_secs());
    machine.write("/run/systemd/system/aio-worker.service.d/watchdog.conf", "0644", text)?;
    machine.sh(&format!("systemctl daemon-reload; systemctl restart {UNIT}")).read().map(drop)
}

fn status(machine: &Machine) -> Result<Value> {
    json_of(&machine.command("aio-worker").args(["status", "--output", "json"]).run()?)
}

/// The journal's messages of the unit of this priority or a worse one, this boot.
fn messages(machine: &Machine, filter: &str) -> Result<String> {
    machine.sh(&format!("journalctl --no-pager --output=cat --unit {UNIT} {filter}")).read()
}

/// A service of the machine's, as the daemon sees it.
fn service(machine: &Machine, name: &str) -> Result<Value> {
    let told = status(machine)?;
    let services = told["services"].as_array().context("no services")?;
    services.iter().find(|service| service["name"] == name).cloned().with_context(|| format!("{told}"))
}

#[test]
fn a_loop_that_stands_still_is_ended_by_the_watchdog_and_the_node_comes_back() -> Result<()> {
    let (site, machine) = online("watchdog")?;
    shorten_watchdog(&machine)?;
    site.wait_until_online(&machine)?;
    let pid = machine.unit_property(UNIT, "MainPID")?;

    machine.command("kill").args(["-STOP", &pid]).run().and_then(|outcome| {
        // Where there is no kill(1), every shell has one.
        if outcome.status == Some(0) {
            Ok(())
        } else {
            machine.sh(&format!("kill -STOP {pid}")).read().map(drop)
        }
    })?;

    let restarts = || machine.unit_property(UNIT, "NRestarts");
    wait_for("systemd to restart the daemon", BITTEN, restarts, |restarts| restarts != "0")?;
    ensure!(messages(&machine, "")?.contains("Failed with result 'watchdog'"), "{}", machine.journal(UNIT));
    let told = || Ok(status(&machine)?["session"]["state"].clone());
    wait_for("the worker to be online again", SOON, told, |state| state == "online")?;
    assert_ne!(machine.unit_property(UNIT, "MainPID")?, pid);
    let own = service(&machine, UNIT)?;
    assert_eq!((&own["state"], &own["restarts"]), (&"active".into(), &1.into()), "{own}");
    Ok(())
}

#[test]
fn a_gpu_driver_that_hangs_for_ever_leads_to_no_restart() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = site.machine("hung-driver")?;
    site.put_gpus(&machine)?;
    let hung = include_str!("../../../fake-nvml/scenarios/hung.json");
    machine.write("/opt/fake-nvml/libnvidia-ml.so.1.json", "0644", hung)?;
    succeed(install(&machine, &site.token), &machine)?;
    shorten_watchdog(&machine)?;
    let driver = || Ok(status(&machine)?["gpuDriver"]["state"].clone());
    wait_for("the driver's silence to be seen", SOON, driver, |state| state == "unknown")?;
    let pid = machine.unit_property(UNIT, "MainPID")?;

    // Nothing is to happen, so there is nothing to wait for but time: five times in which a
    // watchdog would have bitten.
    sleep(WATCHDOG * 5);

    assert_eq!(machine.unit_property(UNIT, "MainPID")?, pid, "{}", machine.journal(UNIT));
    assert_eq!(machine.unit_property(UNIT, "NRestarts")?, "0");
    assert_eq!(status(&machine)?["session"]["state"], "online");
    Ok(())
}

#[test]
fn a_reload_takes_up_what_changed_and_a_broken_file_changes_nothing_and_is_told() -> Result<()> {
    let (_site, machine) = online("reload")?;
    let pid = machine.unit_property(UNIT, "MainPID")?;
    let reload = || machine.command("systemctl").args(["reload", UNIT]).read();
    let text = || machine.unit_property(UNIT, "StatusText");

    machine.write("/etc/aio-worker/config.toml", "0644", "log = \"chatty=a=b\"\n")?;
    reload()?;
    let told = wait_for("the complaint", SOON, text, |text| text.contains("CONFIG_INVALID"))?;
    ensure!(told.starts_with("Online at ") && told.contains("chatty"), "{told}");
    let coded = messages(&machine, "AIO_CODE=CONFIG_INVALID")?;
    ensure!(coded.contains("the configuration stays as it was"), "no line with its code as a field: {coded}");

    machine.write("/etc/aio-worker/config.toml", "0644", "log = \"debug\"\n")?;
    reload()?;
    wait_for("the complaint to go", SOON, text, |text| !text.contains("CONFIG_INVALID"))?;
    ensure!(messages(&machine, "--priority=info")?.contains("the configuration was reloaded"));
    assert_eq!(machine.unit_property(UNIT, "ActiveState")?, "active");
    assert_eq!(machine.unit_property(UNIT, "MainPID")?, pid);
    assert_eq!(status(&machine)?["session"]["sessions"], 1, "the connection was to stay");

    // The same file ends a daemon that starts, and no restart would cure it.
    machine.write("/etc/aio-worker/config.toml", "0644", "= =\n")?;
    machine.command("systemctl").args(["restart", UNIT]).run()?;
    let state = || machine.unit_property(UNIT, "ActiveState");
    wait_for("the daemon to give up", SOON, state, |state| state == "failed")?;
    let ended = (machine.unit_property(UNIT, "ExecMainStatus")?, machine.unit_property(UNIT, "NRestarts")?);
    assert_eq!(ended, ("78".to_owned(), "0".to_owned()));
    Ok(())
}

#[test]
fn nothing_that_the_service_leans_on_takes_it_along_when_it_is_restarted() -> Result<()> {
    let (site, machine) = online("lean")?;
    machine.write("/etc/systemd/system/docker.service", "0644", DOCKER)?;
    let pid = machine.unit_property(UNIT, "MainPID")?;
    let docker = || service(&machine, "docker.service");
    for (changes, verb, state) in [
        (
            "systemctl daemon-reload; systemctl restart systemd-journald; systemctl daemon-reexec",
            "start",
            "active",
        ),
        ("systemctl restart dbus", "stop", "inactive"),
    ] {
        machine.sh(changes).read()?;
        // systemd itself finds the new bus a moment later.
        let reached = || machine.command("systemctl").args(["is-system-running"]).run();
        wait_for("systemd to answer", SOON, reached, |outcome| outcome.stderr.is_empty())?;
        machine.command("systemctl").args([verb, "docker.service"]).read()?;
        wait_for(&format!("docker to be {state} after {changes}"), SOON * 2, docker, |docker| {
            docker["state"] == state
        })?;
        assert_eq!(machine.unit_property(UNIT, "MainPID")?, pid, "after {changes}");
    }
    assert_eq!(machine.unit_property(UNIT, "NRestarts")?, "0");
    assert_eq!(status(&machine)?["session"]["sessions"], 1, "the session was to go on");
    machine.command("systemctl").args(["reload", UNIT]).read()?;
    let logged = || messages(&machine, "");
    wait_for("a line in the new journal", SOON, logged, |text| text.contains("was reloaded"))?;
    site.wait_until_online(&machine)?;
    Ok(())
}

/// A runtime that does nothing.
const DOCKER: &str = "[Service]\nExecStart=sleep infinity\n";

#[test]
fn services_that_matter_are_known_without_asking_again_and_again() -> Result<()> {
    let (_site, machine) = online("services")?;
    let state = |name: &'static str| {
        let machine = &machine;
        move || Ok(service(machine, name)?["state"].clone())
    };
    assert_eq!(service(&machine, "docker.service")?["state"], "absent");
    assert_eq!(service(&machine, "nvidia-fabricmanager.service")?["state"], "absent");

    // As a package does it: unit files, then a reload.
    machine.write("/etc/systemd/system/docker.service", "0644", DOCKER)?;
    let crashing = "[Service]\nExecStart=false\nRestart=always\nRestartSec=1\n";
    machine.write("/etc/systemd/system/nvidia-persistenced.service", "0644", crashing)?;
    let status = "\nPackage: docker.io\nStatus: install ok installed\nVersion: 20.10.24+dfsg1-1+b3\n";
    machine.command("tee").args(["--append", "/var/lib/dpkg/status"]).input(status).read()?;
    machine.command("systemctl").args(["daemon-reload"]).read()?;
    wait_for("docker to be there", SOON, state("docker.service"), |state| state == "inactive")?;
    machine.command("systemctl").args(["start", "docker.service", "nvidia-persistenced.service"]).run()?;
    wait_for("docker to run", SOON, state("docker.service"), |state| state == "active")?;
    let docker = service(&machine, "docker.service")?;
    ensure!(docker["version"] == "20.10.24+dfsg1" && docker["since"].is_string(), "{docker}");

    let crashed = || service(&machine, "nvidia-persistenced.service");
    let failing = |told: &Value| told["state"] == "failed" && told["restarts"].as_u64() > Some(1);
    wait_for("the crash loop to be seen as a failure", SOON * 2, crashed, failing)?;

    let inventory = machine.command("aio-worker").args(["inventory", "--output", "json"]).run()?;
    let runtime = json_of(&inventory)?["systemInfo"]["containerRuntime"].clone();
    let expected = serde_json::json!({ "name": "docker", "active": true, "version": "20.10.24+dfsg1" });
    assert_eq!(runtime, expected);
    Ok(())
}
