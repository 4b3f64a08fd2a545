//! Bad days of a machine in mid-update: no room, nothing to write to, a release that cannot run here, a
//! crash while it is watched, an operator who wants something else. They run once, with the lab's usual
//! system; `AIO_LAB_SUITE` runs them on another.

use std::fs;

use aio_protocol::{
    error_code::ErrorCode,
    update::{RootPhase, Verdict},
};
use aio_tests::{
    artifacts::{VERSION, WORKER_FILE},
    lab::Machine,
    proxy::Proxy,
    publisher::Publisher,
    wait::wait_for,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    super::site::{HOST, tls},
    NEXT, UNIT, UPDATE, Updated, runs, sound, status_of,
};

/// Gives each folder in which an update writes a file system of its own, which a test can fill.
const FOLDERS: &str = "
    systemctl stop aio-worker.service aio-worker-update.socket aio-worker-update.service
    for folder in /usr/local/lib/aio-worker /var/lib/aio-worker /var/lib/aio-worker-update \
            /var/lib/aio-installer /etc/systemd/system; do
        mkdir -p $folder
        cp -a $folder /run/copy
        mount -t tmpfs -o size=600m none $folder
        cp -a /run/copy/. $folder
        rm -r /run/copy
    done
    systemctl daemon-reload
    systemctl start aio-worker-update.socket aio-worker.service";

fn fill(folder: &str) -> String {
    format!("fallocate -l $(df --output=avail -B1 {folder} | tail -n 1) {folder}/filler")
}

impl Updated {
    /// Waits until the controller has put the update off, and says with which code and reason.
    fn put_off(&self, rollout: &str) -> Result<(String, String)> {
        let look = || self.site.controller.ask(&format!("/rollouts/{rollout}/nodes"));
        let is_off = |nodes: &Value| nodes["data"][0]["stage"] == json!("inconclusive");
        let nodes = wait_for("the update to be put off", UPDATE, look, is_off);
        let nodes = nodes.with_context(|| self.journals())?;
        let word = |field: &str| nodes["data"][0][field].as_str().unwrap_or_default().to_owned();
        self.site.controller.order(&format!("/rollouts/{rollout}/abort"), &json!({}))?;
        Ok((word("code"), word("reason")))
    }
}

#[test]
fn a_machine_without_room_keeps_its_version_and_says_nothing_against_the_release() -> Result<()> {
    let node = Updated::new("updates-room", 2)?;
    node.machine.sh(FOLDERS).read()?;
    node.site.wait_until_online(&node.machine)?;
    let unit = |place: &std::path::Path| Publisher::override_unit(place, "[Service]\nEnvironment=LATER=1");
    let read_only = "mount -o remount,ro /usr/local/lib/aio-worker".to_owned();
    let days = [
        ("/var/lib/aio-worker", fill("/var/lib/aio-worker"), ErrorCode::DiskFull),
        ("/usr/local/lib/aio-worker", fill("/usr/local/lib/aio-worker"), ErrorCode::DiskFull),
        ("/var/lib/aio-worker-update", fill("/var/lib/aio-worker-update"), ErrorCode::DiskFull),
        ("/var/lib/aio-installer", fill("/var/lib/aio-installer"), ErrorCode::DiskFull),
        ("/etc/systemd/system", fill("/etc/systemd/system"), ErrorCode::DiskFull),
        ("/usr/local/lib/aio-worker", read_only, ErrorCode::TargetReadOnly),
    ];
    let started = node.machine.unit_property(UNIT, "ExecMainStartTimestampMonotonic")?;
    for (number, (folder, harm, code)) in days.into_iter().enumerate() {
        let version = format!("v1.1.{number}");
        node.publish(&version, unit)?;
        node.machine.sh(&harm).read()?;
        let rollout = node.ask_for(&version)?;
        let (told, reason) = node.put_off(&rollout).with_context(|| harm.clone())?;
        println!("{harm}: {told}, {reason}");
        assert_eq!(told, code.as_str(), "{harm}: {reason}");
        ensure!(reason.contains(folder), "{harm}: {reason}");
        assert_eq!(runs(&node.machine)?, VERSION, "{harm}");
        // Root's service ends by itself after a few seconds; until then it sees the folder as it was.
        let mend = "systemctl stop aio-worker-update.service";
        node.machine.sh(&format!("mount -o remount,rw {folder}; rm -f {folder}/filler; {mend}")).read()?;
    }
    assert_eq!(node.machine.unit_property(UNIT, "ExecMainStartTimestampMonotonic")?, started, "no restart");

    // No room for the last word on an update that went well: it is said when there is some.
    node.publish("v1.2.0", unit)?;
    node.ask_for("v1.2.0")?;
    node.wait_for_phase(RootPhase::Probation)?;
    node.machine.sh(&fill("/var/lib/aio-worker-update")).read()?;
    let restarts = || node.machine.unit_property("aio-worker-update.service", "NRestarts");
    wait_for("root to fail to say it", UPDATE, restarts, |restarts| restarts != "0")?;
    assert_eq!(runs(&node.machine)?, "v1.2.0");
    node.machine.sh("rm /var/lib/aio-worker-update/filler").read()?;
    assert_eq!(node.verdict("v1.2.0")?, (Verdict::Succeeded, None), "{}", node.journals());
    assert_eq!(runs(&node.machine)?, "v1.2.0");
    Ok(())
}

#[test]
fn a_rehearsal_says_what_is_wrong_and_whose_fault_it_is() -> Result<()> {
    let node = Updated::new("updates-days", 2)?;
    let started = node.machine.unit_property(UNIT, "ExecMainStartTimestampMonotonic")?;
    let other = node.site.controller.register("gpu-box-02")?;
    let other_token = node.site.controller.token(&other.id, &json!({}))?.token;
    let unsigned = other_token.rsplit_once('.').context("a token has three parts")?.0;
    node.machine.write("/etc/aio-worker/refused", "0600", format!("{unsigned}.AAAA"))?;

    // It asks for a C library that no system has.
    let newer = |place: &std::path::Path| {
        let mut worker = fs::read(place.join(WORKER_FILE))?;
        let at: Vec<_> = (0..worker.len()).filter(|at| worker[*at..].starts_with(b"GLIBC_2.")).collect();
        ensure!(!at.is_empty(), "the worker asks for no version of the C library");
        at.into_iter().for_each(|at| worker[at + 6] = b'9');
        Ok(fs::write(place.join(WORKER_FILE), worker)?)
    };
    node.publish("v1.1.1", newer)?;
    node.publish("v1.1.2", |place| {
        Publisher::override_unit(
            place,
            "[Service]\nLoadCredential=\nLoadCredential=token:/etc/aio-worker/refused",
        )
    })?;
    for (version, expected) in [("v1.1.1", "GLIBC_9."), ("v1.1.2", "TOKEN_")] {
        let rollout = node.ask_for(version)?;
        let failed = |told: &Value| told["update"]["last"]["version"] == json!(version);
        let told = wait_for("the node to refuse it", UPDATE, || status_of(&node.machine), failed);
        let last = &told.with_context(|| node.journals())?["update"]["last"];
        assert_eq!(last["code"], json!("REHEARSAL_FAILED"), "{last}");
        println!("{version}: {last}");
        ensure!(last["message"].as_str().is_some_and(|message| message.contains(expected)), "{last}");
        node.wait_for_end(&rollout)?;
    }

    // Its controller is away.
    node.publish("v1.1.3", |place| {
        Publisher::override_unit(
            place,
            "[Service]\nEnvironment=AIO_CONTROLLER_ENDPOINT=ws://127.0.0.1:9/ws/node",
        )
    })?;
    let rollout = node.ask_for("v1.1.3")?;
    let (code, reason) = node.put_off(&rollout)?;
    assert_eq!(code, "UPDATE_INCONCLUSIVE", "{reason}");
    assert_eq!(node.machine.unit_property(UNIT, "ExecMainStartTimestampMonotonic")?, started, "no restart");
    Ok(())
}

#[test]
fn a_version_that_is_watched_may_crash_once_and_nobody_installs_over_it() -> Result<()> {
    let node = Updated::new("updates-crash", 8)?;
    let soon = "[Service]\nRestartSec=100ms\n";
    node.machine.write("/etc/systemd/system/aio-worker.service.d/lab.conf", "0644", soon)?;
    node.machine.command("systemctl").args(["daemon-reload"]).read()?;
    node.machine.copy_in(&node.site.artifacts.package("aio-worker")?, "/root/the.deb", "0644")?;
    let crash = || node.machine.sh(&format!("systemctl kill --signal=KILL {UNIT}")).read();
    let crashed = |times: &'static str| {
        let restarts = || node.machine.unit_property(UNIT, "NRestarts");
        wait_for("systemd to restart it", UPDATE, restarts, |restarts| restarts == times)?;
        let online = |told: &Value| told["session"]["state"] == json!("online");
        wait_for("the worker to be online", UPDATE, || status_of(&node.machine), online)
    };
    for (version, crashes) in [(NEXT, 1), ("v1.2.0", 2)] {
        node.publish(version, sound)?;
        let before = runs(&node.machine)?;
        let rollout = node.ask_for(version)?;
        node.wait_for_phase(RootPhase::Probation)?;
        let install = ["install", "--token", &node.site.token];
        for words in [&install[..], &["uninstall"], &["uninstall", "--purge"]] {
            let refused = node.machine.command("aio-worker").args(words.iter().copied()).run()?;
            let status = i32::from(ErrorCode::UpdateBusy.exit_status());
            assert_eq!(refused.status, Some(status), "{words:?}: {refused}");
            ensure!(refused.stderr.contains("UPDATE_BUSY"), "{words:?}: {refused}");
        }
        let packaged = node.machine.command("dpkg").args(["--install", "/root/the.deb"]).run()?;
        ensure!(packaged.to_string().contains("PACKAGE_CONFLICT"), "{packaged}");
        crash()?;
        if crashes == 2 {
            crashed("1")?;
            crash()?;
        }
        let (verdict, expected) = match crashes {
            1 => (Verdict::Succeeded, version),
            _ => (Verdict::Faulty, &*before),
        };
        let ended = node.verdict(version)?;
        assert_eq!((ended.0, runs(&node.machine)?.as_str()), (verdict, expected), "{}", node.journals());
        node.wait_for_end(&rollout)?;
    }
    Ok(())
}

#[test]
fn a_controller_that_is_away_delays_an_update_and_costs_it_nothing() -> Result<()> {
    let mut node = Updated::new("updates-alone", 3)?;
    for (version, phase) in [(NEXT, RootPhase::Staging), ("v1.2.0", RootPhase::Probation)] {
        node.publish(version, sound)?;
        let rollout = node.ask_for(version)?;
        node.wait_for_phase(phase)?;
        node.site.controller.kill()?;
        let away = |told: &Value| told["session"]["state"] != json!("online");
        wait_for("the worker to notice", UPDATE, || status_of(&node.machine), away)?;
        node.site.controller.start_again()?;
        assert_eq!(node.verdict(version)?, (Verdict::Succeeded, None), "{phase:?}: {}", node.journals());
        assert_eq!(runs(&node.machine)?, version);
        node.wait_for_end(&rollout)?;
    }
    Ok(())
}

#[test]
fn an_uninstallation_in_mid_update_waits_for_its_turn_and_leaves_nothing() -> Result<()> {
    let node = Updated::new("updates-leave", 1)?;
    node.publish(NEXT, sound)?;
    node.ask_for(NEXT)?;
    // Its release is there, and nothing has been switched.
    let staged = |phase: RootPhase| phase != RootPhase::Idle;
    node.wait_for_root("root to begin", |status| staged(status.phase))?;
    let gone = || node.machine.command("aio-worker").args(["uninstall", "--purge"]).run();
    let gone = wait_for("the uninstallation", UPDATE, gone, |outcome| outcome.status == Some(0))?;
    ensure!(gone.status == Some(0), "{gone}");
    let left = node.machine.sh(
        "ls -d /usr/local/lib/aio-worker /var/lib/aio-worker* /run/aio-worker* /run/systemd/system/aio-worker* \
         2>/dev/null || true",
    );
    assert_eq!(left.read()?, "");
    Ok(())
}

#[test]
fn an_update_comes_through_the_proxy_where_there_is_no_other_way() -> Result<()> {
    let machine = Machine::boot_without_network("updates-proxy")?;
    let proxy = Proxy::start(machine.plug()?.ours.into(), HOST)?;
    let node =
        Updated::with(tls("127.0.0.1")?, machine, 1, |install| install.env("HTTPS_PROXY", &proxy.url()))?;
    node.publish(NEXT, sound)?;
    node.ask_for(NEXT)?;
    assert_eq!(node.verdict(NEXT)?, (Verdict::Succeeded, None), "{}", node.journals());
    assert_eq!(runs(&node.machine)?, NEXT);
    Ok(())
}
