//! Other ways to install, and installing again.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use aio_protocol::event::EventBody;
use aio_tests::{
    artifacts::INSTALLER_FILE,
    controller::Settings,
    lab::{Listing, Machine, Outcome},
};
use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::site::{COMMAND, Site, UNIT, install, json_of, succeed};

#[test]
fn a_machine_with_gpus_shows_them_and_the_controller_tells_of_them() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = site.machine("gpus")?;
    site.put_gpus(&machine)?;

    let outcome = succeed(install(&machine, &site.token), &machine)?;

    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    assert!(said.contains("H100"), "{outcome}");
    let events = ["node.registered", "node.installation_started", "node.connected"];
    let events = site.controller.wait_for_events(site.id(), &events)?;
    let EventBody::Connected(connected) = &events[2].event.body else { bail!("{:?}", events[2]) };
    let gpus = &connected.detail.gpu_devices;
    assert_eq!(gpus.len(), 8, "{gpus:?}");
    for gpu in gpus {
        assert_eq!((gpu.model.as_str(), gpu.memory_total), ("NVIDIA H100 80GB HBM3", Some(85_520_809_984)));
    }
    let inventory = machine.command("aio-worker").args(["inventory", "--output", "json"]).run()?;
    assert!(inventory.status == Some(0) && inventory.stdout.matches("H100").count() >= 8, "{inventory}");
    json_of(&inventory)?;
    Ok(())
}

#[test]
fn the_install_script_works_when_it_is_pasted_into_a_root_shell() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = site.machine("script")?;
    let script = site.controller.token(site.id(), &json!({}))?.install_script.context("no script")?;

    shellcheck(&script)?;
    let before = machine.listing()?;

    site.alter_release(INSTALLER_FILE)?;
    let outcome = paste(&machine, &script)?;
    assert_eq!(outcome.status, Some(65), "{outcome}");
    assert!(outcome.stdout.contains("error[CHECKSUM_MISMATCH]: "), "{outcome}");
    assert_eq!(before.changes_to(&machine.listing()?), "");

    site.alter_release(INSTALLER_FILE)?;
    let outcome = paste(&machine, &script)?;
    assert_eq!(outcome.status, Some(0), "{outcome}");
    site.wait_until_online(&machine)?;
    Ok(())
}

#[test]
fn the_install_script_takes_a_folder_where_programs_run_or_says_which_have_no_room() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = site.machine("script-noexec")?;
    let script = site.controller.token(site.id(), &json!({}))?.install_script.context("no script")?;
    let refused = |status: i32, error: &str| -> Result<()> {
        let outcome = paste(&machine, &script)?;
        ensure!(outcome.status == Some(status) && outcome.stdout.contains(error), "{outcome}");
        Ok(())
    };
    let before = machine.listing()?;

    let noexec = "for dir in /tmp /var/tmp /var/lib /root; do
        mount --bind $dir $dir; mount -o remount,bind,noexec $dir; done";
    machine.sh(noexec).read()?;
    refused(73, "error[TARGET_NOEXEC]: no program runs from /tmp /var/tmp /var/lib /root")?;
    machine.sh("umount /root; mount -t tmpfs -o size=1m none /root").read()?;
    refused(73, "error[DISK_FULL]: there is no room for the installer in /root")?;
    machine.sh("umount /root; mount -t tmpfs -o nr_inodes=1 none /root").read()?;
    refused(73, "error[DISK_FULL]: there is no room for the installer in /root")?;
    machine.sh("umount /root; umount /var/lib").read()?;
    assert_eq!(before.changes_to(&machine.listing()?), "");

    let outcome = paste(&machine, &script)?;
    assert_eq!(outcome.status, Some(0), "{outcome}");
    site.wait_until_online(&machine)?;
    assert_eq!(
        machine
            .sh("ls -d /tmp/aio-worker.* /var/tmp/aio-worker.* /var/lib/aio-worker.* || echo none")
            .read()?,
        "none\n"
    );
    Ok(())
}

/// On a terminal, as a person has one, so that what differs in an interactive shell differs here too.
pub(super) fn paste(machine: &Machine, script: &str) -> Result<Outcome> {
    let shell =
        machine.command("script").args(["--quiet", "--return", "--command", "bash --norc -i", "/dev/null"]);
    shell.env("TERM", "dumb").env("HISTFILE", "").input(format!("{script}\nexit $?\n")).run()
}

fn shellcheck(script: &str) -> Result<()> {
    let checker = Command::new("shellcheck").arg("-").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut checker = checker.context("cannot run shellcheck; `cargo xtask test` installs it")?;
    checker.stdin.take().context("no input")?.write_all(script.as_bytes())?;
    let output = checker.wait_with_output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

#[test]
fn the_command_that_node_add_prints_installs_the_node_and_needs_no_systemctl() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = site.machine("node-add")?;
    let command = site.controller.add_on_the_command_line("gpu-box-02")?;
    let arguments = command.strip_prefix("sudo aio-worker install ").with_context(|| command.clone())?;

    // systemd is asked over D-Bus: a systemctl that always fails is in nobody's way.
    // (Where /usr is not merged it lies in /bin.)
    let script =
        format!("mount --bind /bin/false $(command -v systemctl); exec {COMMAND} install {arguments}");
    let outcome = succeed(machine.command("unshare").args(["--mount", "sh", "-euc", &script]), &machine)?;

    assert!(outcome.stdout.contains("gpu-box-02"), "{outcome}");
    Ok(())
}

#[test]
fn installing_again_plans_nothing_and_restarts_nothing() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = site.machine("again")?;
    succeed(install(&machine, &site.token), &machine)?;
    let (pid, before) = (machine.unit_property(UNIT, "MainPID")?, machine.listing()?);

    let planned = succeed(install(&machine, &site.token).args(["--dry-run", "--output", "json"]), &machine)?;
    assert_eq!(json_of(&planned)?["steps"], json!([]), "{planned}");
    succeed(install(&machine, &site.token), &machine)?;

    assert_eq!(machine.unit_property(UNIT, "MainPID")?, pid);
    assert_eq!(before.changes_to(&machine.listing()?), "");
    let events = ["node.registered", "node.installation_started", "node.connected"];
    site.controller.wait_for_events(site.id(), &events)?;
    Ok(())
}

#[test]
fn an_uninstallation_says_goodbye_and_leaves_the_machine_as_it_was() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = site.machine("uninstall")?;
    let before = machine.listing()?;
    succeed(install(&machine, &site.token), &machine)?;
    let uninstall = |arguments: &[&str]| {
        let command = machine.command(COMMAND).args(["uninstall", "--output", "json"]).args(arguments);
        json_of(&succeed(command, &machine)?)
    };

    let removed = uninstall(&[])?;
    assert_eq!(removed["outcome"], "uninstalled", "{removed}");
    assert_eq!(removed["kept"], json!(["/etc/aio-worker/config.toml"]), "{removed}");
    let events = ["node.registered", "node.installation_started", "node.connected", "node.disconnected"];
    let events = site.controller.wait_for_events(site.id(), &events)?;
    let EventBody::Disconnected(gone) = &events[3].event.body else { bail!("{:?}", events[3]) };
    assert_eq!(gone.detail.disconnect_reason, "shutdown", "the daemon said goodbye");
    assert_eq!(uninstall(&[])?["outcome"], "not_installed");

    // Installing again and purging at once come to the same.
    let token = site.controller.token(site.id(), &json!({}))?.token;
    succeed(install(&machine, &token), &machine)?;
    assert_eq!(uninstall(&["--purge"])?["kept"], json!([]));
    is_as_it_was(&before, &machine)
}

#[test]
fn an_installation_that_is_killed_at_any_moment_is_taken_up_or_taken_back() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = site.machine("killed")?;
    let before = machine.listing()?;
    // From the first moment to beyond the last, in steps that no two runs hit alike.
    for round in 0..12 {
        let life = format!("{:.3}", 0.01 + f64::from(round) * 0.03);
        let killed = ["--signal=KILL", &life, COMMAND, "install", "--token", &site.token];
        machine.command("timeout").args(killed).run()?;
        if round % 2 == 0 {
            succeed(install(&machine, &site.token), &machine)
                .with_context(|| format!("after a kill at {life} s"))?;
            site.wait_until_online(&machine)?;
        }
        succeed(machine.command(COMMAND).args(["uninstall", "--purge"]), &machine)
            .with_context(|| format!("after a kill at {life} s"))?;
        is_as_it_was(&before, &machine).with_context(|| format!("after a kill at {life} s"))?;
    }
    Ok(())
}

pub(super) fn is_as_it_was(before: &Listing, machine: &Machine) -> Result<()> {
    is_as_it_was_but(before, machine, |_| false)
}

/// The same, but for reports that the controller could not be given.
pub(super) fn is_as_it_was_but_for_reports(before: &Listing, machine: &Machine) -> Result<()> {
    is_as_it_was_but(before, machine, |line| {
        line == "new: /var/lib/aio-installer" || line.starts_with("new: /var/lib/aio-installer/undelivered")
    })
}

pub(super) fn is_as_it_was_but(
    before: &Listing,
    machine: &Machine,
    allowed: impl Fn(&str) -> bool,
) -> Result<()> {
    let changes = before.changes_to(&machine.listing()?);
    let headings = changes.lines().filter(|line| !line.starts_with(' '));
    let of_accounts = |line: &&str| ACCOUNT_BACKUPS.iter().any(|path| line.ends_with(path));
    let ours: Vec<_> = headings.filter(|line| !of_accounts(line) && !allowed(line)).collect();
    ensure!(ours.is_empty(), "{changes}");
    Ok(())
}

#[test]
fn a_doctor_finds_a_machine_well_before_and_after_the_installation_and_changes_nothing() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = site.machine("doctor")?;
    let before = machine.listing()?;
    let doctor = |command: &str| {
        let command =
            machine.command(command).args(["doctor", "--output", "json", "--token-file", "/root/token"]);
        let found = json_of(&succeed(command, &machine)?)?;
        let checks = found["checks"].as_array().context("no checks")?.clone();
        ensure!(checks.len() >= 14, "{found}");
        let failed: Vec<_> = checks.iter().filter(|check| check["result"] == "failed").collect();
        ensure!(failed.is_empty(), "{failed:?}");
        Ok(checks)
    };
    machine.write("/root/token", "0600", site.token.as_str())?;
    doctor(COMMAND)?;
    machine.command("rm").args(["/root/token"]).run()?;
    assert_eq!(before.changes_to(&machine.listing()?), "");

    succeed(install(&machine, &site.token), &machine)?;
    machine.write("/root/token", "0600", site.token.as_str())?;
    let checks = doctor("aio-worker")?;
    let unit = checks.iter().find(|check| check["check"] == "unit").context("no unit")?;
    assert!(unit["reason"].as_str().is_some_and(|reason| reason.contains("active")), "{unit}");

    // As anybody: what cannot be seen is said, and what can be is looked at.
    let nobody = ["-u", "nobody", "--", "aio-worker", "doctor"];
    let anybody = machine.command("runuser").args(nobody).run()?;
    assert!(
        anybody.stdout.contains("not running as root") && anybody.stdout.contains("skipped"),
        "{anybody}"
    );
    // Neither does a configuration that is not for everybody keep the answer back.
    machine.command("chmod").args(["0640", "/etc/aio-worker/config.toml"]).read()?;
    let inventory = ["-u", "nobody", "--", "aio-worker", "inventory", "--output", "json"];
    json_of(&succeed(machine.command("runuser").args(inventory), &machine)?)?;
    Ok(())
}

/// The account tools keep what was before the last edit here, whoever made it.
const ACCOUNT_BACKUPS: [&str; 4] = ["/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-"];

#[test]
fn a_dry_run_lists_the_steps_and_changes_nothing() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = site.machine("dry-run")?;
    let before = machine.listing()?;

    let planned = succeed(install(&machine, &site.token).args(["--dry-run", "--output", "json"]), &machine)?;

    let steps = json_of(&planned)?["steps"].as_array().map_or(0, Vec::len);
    assert!(steps >= 10, "{planned}");
    assert_eq!(before.changes_to(&machine.listing()?), "");
    site.controller.wait_for_events(site.id(), &["node.registered"])?;
    let version = machine.command(COMMAND).args(["version", "--output", "json"]).run()?;
    assert_eq!(json_of(&version)?["version"], env!("CARGO_PKG_VERSION"), "{version}");
    Ok(())
}

#[test]
fn the_demo_installs_on_systemd_and_ends_with_one_line_of_json() -> Result<()> {
    crate::demo::once_on_systemd()
}
