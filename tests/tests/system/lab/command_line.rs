//! The node's command line on a real machine: what an ordinary user sees and does not see, what the
//! journal gives, an update that waits for a restart, and that every answer for programs is as
//! docs/cli.md shows it.

use std::time::Duration;

use aio_tests::lab::{Inside, Machine};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::site::{COMMAND, HOST, Site, UNIT, install, json_of, succeed};
use crate::documented::Documented;

/// Somebody with a login and no rights.
const USER: &str = "alice";

/// A machine with GPUs, installed and online, that has a network of its own.
fn machine(site: &Site, name: &str) -> Result<Machine> {
    let machine = Machine::boot_without_network(name)?;
    site.put_command(&machine)?;
    let ends = machine.plug()?;
    machine.sh(&format!("echo {} {HOST} >> /etc/hosts", ends.ours)).read()?;
    site.put_gpus(&machine)?;
    machine.command("useradd").args(["--create-home", USER]).read()?;
    Ok(machine)
}

fn as_user(machine: &Machine, words: &[&str]) -> Inside {
    machine.command("runuser").args(["--user", USER, "--"]).args(words)
}

#[test]
fn an_ordinary_user_sees_how_the_worker_stands_and_nothing_secret_and_no_port_is_open() -> Result<()> {
    let site = Site::over_tls("0.0.0.0")?;
    let machine = machine(&site, "ordinary-user")?;
    succeed(install(&machine, &site.token), &machine)?;

    let screen = succeed(as_user(&machine, &["aio-worker", "status"]), &machine)?.stdout;
    for words in ["session     online for ", "GPUs        8, driver 550.127.05", "token       ends in "] {
        ensure!(screen.contains(words), "{screen}");
    }
    ensure!(!screen.contains("update "), "nothing waits for a restart: {screen}");
    let told = succeed(as_user(&machine, &["aio-worker", "status", "--output", "json"]), &machine)?;
    assert_eq!(json_of(&told)?["session"]["state"], "online");
    let inventory = succeed(as_user(&machine, &["aio-worker", "inventory"]), &machine)?.stdout;
    let check = succeed(as_user(&machine, &["aio-worker", "config", "check"]), &machine)?.stdout;
    ensure!(check.contains("note     /etc/aio-worker/token: ") && check.contains(": ok (1 note)"), "{check}");
    let config = succeed(as_user(&machine, &["aio-worker", "config", "show"]), &machine)?.stdout;
    let library = config.lines().find(|line| line.starts_with("nvml_library "));
    ensure!(library.is_some_and(|line| line.contains("  \"/opt/fake-nvml/")), "{config}");
    for part in site.token.split('.').skip(1) {
        for text in [&screen, &told.stdout, &inventory, &check, &config] {
            ensure!(!text.contains(part), "a part of the token is told: {text}");
        }
    }

    machine.command("chmod").args(["0640", "/etc/aio-worker/config.toml"]).read()?;
    let withheld = succeed(as_user(&machine, &["aio-worker", "config", "check"]), &machine)?.stdout;
    ensure!(
        withheld.contains("note     /etc/aio-worker/config.toml: ") && withheld.contains(": ok (2 notes)"),
        "{withheld}"
    );
    let unshown = as_user(&machine, &["aio-worker", "config", "show"]).run()?;
    ensure!(unshown.status == Some(74) && unshown.stderr.contains("error[FILE_FAILED]: "), "{unshown}");

    // It is seen where it is connected, so it would be seen where it listens.
    let connected = machine.command("ss").args(["-Htnp", "state", "established"]).read()?;
    ensure!(connected.contains("\"aio-worker\""), "{connected}");
    let listening = machine.command("ss").args(["-Hltunp"]).read()?;
    ensure!(!listening.contains("aio-worker"), "{listening}");

    the_journal_is_for_those_who_may_read_it(&machine)
}

fn the_journal_is_for_those_who_may_read_it(machine: &Machine) -> Result<()> {
    let logs = || as_user(machine, &["aio-worker", "logs"]);
    let refused = logs().run()?;
    ensure!(refused.status == Some(77) && refused.stdout.is_empty(), "{refused}");
    ensure!(
        refused.stderr.starts_with("error[NOT_ROOT]: this user may not read the journal in "),
        "{refused}"
    );
    machine.command("usermod").args(["--append", "--groups", "systemd-journal", USER]).read()?;
    let lines = succeed(logs(), machine)?.stdout;
    ensure!(lines.contains(" info aio-worker["), "{lines}");
    ensure!(lines.contains(" node_id="), "the daemon's fields: {lines}");
    Ok(())
}

#[test]
fn logs_are_followed_bounded_and_told_from_a_time_on() -> Result<()> {
    let site = Site::over_tls("0.0.0.0")?;
    let machine = machine(&site, "logs")?;
    let nothing = machine.command(COMMAND).args(["logs"]).run()?;
    ensure!(nothing.status == Some(0) && nothing.stdout.is_empty(), "nothing was logged yet: {nothing}");
    succeed(install(&machine, &site.token), &machine)?;
    let logs = |more: &[&str]| machine.command("aio-worker").args(["logs"]).args(more);

    let last = logs(&["--lines", "2"]).read()?;
    assert_eq!(last.lines().filter(|line| !line.starts_with("    ")).count(), 2, "{last}");
    ensure!(logs(&["--since", "-1h"]).read()?.contains(" starts"), "a time before the installation");
    assert_eq!(logs(&["--since", "+1h"]).read()?, "", "a time that has not come");
    let nonsense = logs(&["--since", "soon"]).run()?;
    ensure!(nonsense.status == Some(2) && nonsense.stderr.contains("error[USAGE]: --since: "), "{nonsense}");
    ensure!(!last.contains(&site.token), "{last}");

    let script = format!(
        "aio-worker logs --follow --lines 1 > /tmp/log & pid=$!
        wait_for() {{ n=0; until \"$@\"; do n=$((n+1)); [ $n -lt 300 ] || exit 9; sleep 0.1; done; }}
        wait_for test -s /tmp/log
        systemctl restart {UNIT}
        wait_for grep -q ' stopped' /tmp/log
        wait_for grep -q ' starts' /tmp/log
        kill -INT $pid
        wait $pid || echo $?
        # A child that was killed is gone when its parent has been told.
        wait_for sh -c '! grep -qx journalctl /proc/[0-9]*/comm 2>/dev/null'"
    );
    assert_eq!(machine.sh(&script).read()?.trim(), "130", "Ctrl-C ends it, and journalctl with it");
    Ok(())
}

#[test]
fn an_update_that_waits_for_a_restart_is_told_and_gone_after_it() -> Result<()> {
    let site = Site::over_tls("0.0.0.0")?;
    let machine = machine(&site, "pending-update")?;
    succeed(install(&machine, &site.token), &machine)?;
    let status = || machine.command("aio-worker").args(["status", "--output", "json"]).run();
    assert_eq!(json_of(&status()?)?["pendingUpdate"], Value::Null);

    let switch = |version: &str| {
        machine.sh(&format!(
            "cd /usr/local/lib/aio-worker; mkdir -p {version}; cp -n v1.0.0/aio-worker {version}/; ln -sfn {version} current"
        ))
    };
    switch("v1.2.0").read()?;
    assert_eq!(json_of(&status()?)?["pendingUpdate"]["version"], "1.2.0");
    let screen = machine.command("aio-worker").args(["status"]).read()?;
    ensure!(screen.contains("update      1.2.0 is installed; restart the service to run it\n"), "{screen}");
    switch("v1.0.0").read()?;
    assert_eq!(json_of(&status()?)?["pendingUpdate"], Value::Null);
    Ok(())
}

#[test]
fn every_answer_for_programs_is_as_it_is_documented() -> Result<()> {
    let site = Site::over_tls("0.0.0.0")?;
    let machine = machine(&site, "answers")?;
    let answer = |command: Inside| -> Result<Value> { json_of(&command.args(["--output", "json"]).run()?) };
    let worker = |words: &[&str]| machine.command(COMMAND).args(words).bound(Duration::from_secs(90));
    let failed = Documented::of("error")?;
    failed.fits(&answer(worker(&["status"]))?)?;
    failed.fits(&answer(worker(&["install", "--token", "garbage"]))?)?;

    let installed = Documented::of("aio-worker install")?;
    installed.fits(&answer(install(&machine, &site.token).args(["--dry-run"]))?)?;
    installed.fits(&answer(install(&machine, &site.token))?)?;
    installed.fits(&answer(install(&machine, &site.token))?)?;
    machine.write("/root/wrong.toml", "0644", "contoller_endpoint = \"x\"\n")?;
    for (section, commands) in [
        ("aio-worker status", &[&["status"][..]][..]),
        ("aio-worker inventory", &[&["inventory"]]),
        ("aio-worker doctor", &[&["doctor"]]),
        (
            "aio-worker config check",
            &[
                &["config", "check"],
                &["config", "check", "--config", "/root/wrong.toml", "--token-file", "/nonexistent"],
            ],
        ),
        ("aio-worker config show", &[&["config", "show"]]),
        ("aio-worker version", &[&["version"]]),
        ("aio-worker support-bundle", &[&["support-bundle", "--file", "/root/bundle.tar.gz"]]),
        ("aio-worker bundle", &[]),
        ("aio-worker update status", &[&["update", "status"]]),
        ("aio-worker update now", &[&["update", "now"]]),
        ("aio-worker update defer", &[&["update", "defer", "1h"], &["update", "defer", "--end"]]),
        ("aio-worker update pin", &[&["update", "pin"], &["update", "unpin"]]),
    ] {
        let documented = Documented::of(section)?;
        for command in commands {
            let said = answer(worker(command))?;
            println!("{section}\n{said:#}");
            documented.fits(&said)?;
        }
    }
    let bundle = worker(&["bundle", "--token", &site.token, "--file", "/root/release.tar"]);
    Documented::of("aio-worker bundle")?.fits(&answer(bundle)?)?;
    let configuration = machine.read("/etc/aio-worker/config.toml")?;
    machine.write("/etc/aio-worker/config.toml", "0644", "nvml_libary = 7\n")?;
    let broken = worker(&["doctor", "--output", "json"]).run()?;
    ensure!(
        broken.status == Some(78),
        "one fault in the configuration is found, and all else is looked at: {broken}"
    );
    let checks = json_of(&broken)?;
    Documented::of("aio-worker doctor")?.fits(&checks)?;
    let words = "config.toml:1: unknown key `nvml_libary`; did you mean `nvml_library`?";
    ensure!(broken.stdout.contains(words) && broken.stdout.contains("gpu_driver"), "{checks:#}");
    machine.write("/etc/aio-worker/config.toml", "0644", configuration)?;
    let logs = worker(&["logs", "--output", "json"]).read()?;
    let documented = Documented::of("aio-worker logs")?;
    for line in logs.lines() {
        documented.fits(&serde_json::from_str(line).with_context(|| line.to_owned())?)?;
    }
    ensure!(logs.lines().count() > 3, "{logs}");
    let uninstalled = Documented::of("aio-worker uninstall")?;
    uninstalled.fits(&answer(worker(&["uninstall", "--dry-run"]))?)?;
    uninstalled.fits(&answer(worker(&["uninstall"]))?)?;
    uninstalled.fits(&answer(worker(&["uninstall"]))?)
}
