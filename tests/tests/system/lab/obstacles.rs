//! What keeps an installation from its end, or harms by it, and can only be shown on real systemd:
//! words that nobody reads, a container's drop-in, a boot that waits for a network, and a daemon
//! that plants links for root.

use aio_protocol::node::NodeStatus;
use aio_tests::controller::Settings;
use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::site::{COMMAND, Site, UNIT, install, json_of, succeed};

#[test]
fn words_that_nobody_reads_end_no_work_and_a_lost_answer_is_no_success() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = site.machine("nobody-reads")?;
    machine.write("/root/token", "0600", site.token.clone())?;
    let piped = |words: &str| machine.sh(&format!("AIO_LOG=trace {COMMAND} {words}"));

    // The reader goes away after the first of many lines.
    let first = piped("install --token-file /root/token --output json 2>&1 >/root/answer | head -1; true");
    succeed(first, &machine)?;
    site.wait_until_online(&machine)?;
    ensure!(machine.unit_property(UNIT, "ActiveState")? == "active");
    let answer = machine.read("/root/answer")?;
    ensure!(answer.contains("\"outcome\":\"installed\""), "{answer}");

    for words in [
        "install --token-file /root/token >/dev/full 2>/dev/full",
        "status >/dev/full",
        "doctor >/dev/full",
        "logs >/dev/full",
        "uninstall --purge >/dev/full 2>&1",
    ] {
        let outcome = piped(words).run()?;
        ensure!(outcome.status == Some(74), "{words}: {outcome}");
    }
    ensure!(machine.unit_property(UNIT, "LoadState")? == "not-found", "the uninstallation was done");
    Ok(())
}

#[test]
fn a_container_manager_s_drop_in_that_takes_credentials_away_keeps_no_node_offline() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = site.machine("like-incus")?;
    let drop_in = "/run/systemd/system/service.d/zzz-lxc-service.conf";
    let text = "[Service]\nProcSubset=all\nProtectProc=default\nNoNewPrivileges=no\nLoadCredential=\n";
    machine.write(drop_in, "0644", text)?;
    succeed(machine.command("systemctl").args(["daemon-reload"]), &machine)?;

    let installed = succeed(install(&machine, &site.token).args(["--output", "json"]), &machine)?;

    let warnings = json_of(&installed)?["warnings"].to_string();
    ensure!(warnings.contains(drop_in) && warnings.contains("LoadCredential="), "{warnings}");
    site.wait_until_online(&machine)?;
    let copy = succeed(machine.command("stat").args(["-c", "%a %U", "/run/aio-worker/token"]), &machine)?;
    ensure!(copy.stdout.trim() == "400 aio-worker", "{copy}");
    let doctor = machine.command("aio-worker").args(["doctor", "--output", "json"]).run()?;
    let checks = json_of(&doctor)?["checks"].clone();
    let found = checks.as_array().into_iter().flatten().find(|finding| finding["check"] == "drop_ins");
    let found = found.context("doctor does not look at drop-ins")?;
    ensure!(found["result"] == "warning" && found["reason"].to_string().contains(drop_in), "{found}");

    // A new token reaches the daemon as well, and without the drop-in there is no copy.
    let token = site.controller.token(site.id(), &json!({}))?.token;
    succeed(install(&machine, &token), &machine)?;
    site.wait_until_online(&machine)?;
    let undo = format!("rm {drop_in}; systemctl daemon-reload; systemctl restart {UNIT}");
    succeed(machine.sh(&undo), &machine)?;
    site.wait_until_online(&machine)?;
    ensure!(machine.unit_property(UNIT, "ActiveState")? == "active");
    Ok(())
}

#[test]
fn a_start_that_waits_for_the_network_has_the_time_that_was_asked_for_and_says_what_it_waits_for()
-> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = site.machine("slow-network")?;
    let slow = "[Unit]\nDefaultDependencies=no\nBefore=network-online.target\n\
        [Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=sh -c 'until test -e /root/network; do sleep 0.1; done'\n";
    machine.write("/etc/systemd/system/slow-wait-online.service", "0644", slow)?;
    let wants = "systemctl stop network-online.target; mkdir -p /etc/systemd/system/network-online.target.wants; \
        ln -s ../slow-wait-online.service /etc/systemd/system/network-online.target.wants/; systemctl daemon-reload";
    succeed(machine.sh(wants), &machine)?;

    let outcome = install(&machine, &site.token).args(["--timeout", "3s", "--output", "json"]).run()?;

    let error = json_of(&outcome)?["error"].clone();
    ensure!(error["code"] == "SERVICE_FAILED", "{error}");
    let message = error["message"].to_string();
    ensure!(
        message.contains("network-online.target") && message.contains("slow-wait-online.service"),
        "{error}"
    );
    ensure!(!message.contains("success"), "{error}");
    ensure!(machine.unit_property(UNIT, "LoadState")? == "not-found", "nothing is left");

    let arrive = "systemd-run --on-active=4s touch /root/network";
    succeed(machine.sh(arrive), &machine)?;
    succeed(install(&machine, &site.token).args(["--timeout", "60s"]), &machine)?;
    site.wait_for(NodeStatus::Online, &machine)?;
    Ok(())
}

#[test]
fn no_link_that_the_daemon_plants_is_followed_when_it_is_uninstalled() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = site.machine("planted")?;
    let before = "mkdir -p /var/lib/aio-worker/sub && echo mine >/var/lib/aio-worker/sub/mine && \
        mkdir /etc/victim && echo keep >/etc/victim/passwords";
    succeed(machine.sh(before), &machine)?;
    let owners = "stat -c '%n %u:%g %a' /var/lib/aio-worker /var/lib/aio-worker/sub /var/lib/aio-worker/sub/mine /etc /etc/victim";
    let as_it_was = succeed(machine.sh(owners), &machine)?.stdout;
    succeed(install(&machine, &site.token), &machine)?;
    let plant = "runuser -u aio-worker -- ln -s /etc/victim /var/lib/aio-worker/sub && \
        runuser -u aio-worker -- ln -s /etc /var/lib/aio-worker/planted";
    succeed(machine.sh(plant), &machine)?;

    succeed(machine.command(COMMAND).args(["uninstall", "--purge"]), &machine)?;

    ensure!(machine.read("/etc/victim/passwords")? == "keep\n");
    ensure!(machine.read("/var/lib/aio-worker/sub/mine")? == "mine\n");
    ensure!(succeed(machine.sh(owners), &machine)?.stdout == as_it_was);
    ensure!(machine.listing()?.at("/var/lib/aio-worker.before").is_none());
    Ok(())
}

#[test]
fn an_empty_state_folder_of_somebody_else_is_used_and_given_back() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = site.machine("own-file-system")?;
    let before = "mkdir -p -m 0700 /var/lib/aio-worker/lost+found && mkdir /etc/victim && \
        echo keep >/etc/victim/passwords";
    succeed(machine.sh(before), &machine)?;
    let owners = "stat -c '%n %u:%g %a' /var/lib/aio-worker /var/lib/aio-worker/* /etc/victim";
    let as_it_was = succeed(machine.sh(owners), &machine)?.stdout;
    succeed(install(&machine, &site.token), &machine)?;
    let plant = "runuser -u aio-worker -- ln -s /etc/victim /var/lib/aio-worker/planted";
    succeed(machine.sh(plant), &machine)?;

    succeed(machine.command(COMMAND).args(["uninstall", "--purge"]), &machine)?;

    ensure!(machine.read("/etc/victim/passwords")? == "keep\n");
    let as_it_is = succeed(machine.sh(owners), &machine)?.stdout;
    ensure!(as_it_is == as_it_was, "{as_it_was}{as_it_is}");
    Ok(())
}
