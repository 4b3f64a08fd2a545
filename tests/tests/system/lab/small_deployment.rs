//! The commands of docs/small-deployment.md, as they stand there, on a machine that is controller
//! and first worker in one. Both variants, behind nginx and without a proxy.

use std::{fs, time::Duration};

use aio_tests::{
    artifacts::{Artifacts, VERSION},
    lab::Machine,
    release_folder,
};
use anyhow::{Context, Result, ensure};

use super::{package::SUDO, site::json_of};

const PAGE: &str = include_str!("../../../../docs/small-deployment.md");
const NAME: &str = "aiwm.example";
const PATIENCE: Duration = Duration::from_secs(90);

/// The shell's blocks of the section whose heading ends with these words.
fn blocks(heading: &str) -> Result<Vec<&'static str>> {
    let mut sections = PAGE.split("\n## ").skip(1);
    let section = sections.find(|section| section.lines().next().is_some_and(|line| line.ends_with(heading)));
    let blocks = section.with_context(|| format!("no section {heading}"))?.split("```sh\n").skip(1);
    Ok(blocks.map(|block| block.split("```").next().unwrap_or(block)).collect())
}

/// A machine with what the page takes for granted: a release's folder, sudo, and a name. nginx is
/// installed already.
fn machine(name: &str) -> Result<Machine> {
    let artifacts = Artifacts::release()?;
    let machine = Machine::boot_for_provisioning_without_network(name)?;
    machine.write("/usr/bin/sudo", "0755", SUDO)?;
    machine.sh(&format!("echo 127.0.0.1 {NAME} >> /etc/hosts")).read()?;
    let tree = tempfile::tempdir()?;
    let packages = [artifacts.package("aio-controller-stub")?, artifacts.package("aio-worker")?];
    let worker = fs::read(artifacts.worker()?)?;
    let release = release_folder::write(&artifacts, tree.path(), &worker, &packages, |_, _| Ok(()))?;
    for entry in fs::read_dir(release)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).context("a file without a name")?;
        machine.copy_in(&path, &format!("/srv/{VERSION}/{name}"), "0644")?;
    }
    Ok(machine)
}

fn follow(machine: &Machine, commands: &str) -> Result<String> {
    let commands = commands.replace("apt install nginx", "true").replace("apt install", "apt install --yes");
    let script = format!("set -e; cd /root; export DEBIAN_FRONTEND=noninteractive\n{commands}");
    let outcome = machine.sh(&script).bound(PATIENCE).run()?;
    ensure!(outcome.status == Some(0), "{commands}{outcome}");
    Ok(outcome.stdout)
}

/// Ten nodes, the first of them on this machine, by the one of the two commands that `choose` takes.
fn nodes(machine: &Machine, choose: impl Fn(&str) -> bool) -> Result<()> {
    let [add] = blocks("Ten nodes")?[..] else { anyhow::bail!("another number of commands for nodes") };
    let said = follow(machine, add)?;
    let lines: Vec<_> = said.lines().collect();
    ensure!(lines.len() == 20 && lines.first() == Some(&"# gpu-001"), "{said}");
    let token = lines.get(1).and_then(|line| line.split(' ').next_back()).context("no token")?;

    let install: Vec<_> = blocks("The workers")?.concat().lines().map(str::to_owned).collect();
    let chosen = |line: &&String| !line.contains("<JWT>") || choose(line);
    let install: Vec<_> = install.iter().filter(chosen).map(|line| line.replace("<JWT>", token)).collect();
    let said = follow(machine, &install.join("\n"))?;
    ensure!(said.contains("is online as gpu-001"), "{said}");

    let [list] = blocks("See them")?[..] else { anyhow::bail!("another number of commands to see them") };
    let listed = follow(machine, list)?;
    ensure!(listed.lines().count() == 10 && listed.matches("online").count() == 1, "{listed}");
    Ok(())
}

fn connected_to(machine: &Machine, endpoint: &str) -> Result<()> {
    let told = json_of(&machine.command("aio-worker").args(["status", "--output", "json"]).run()?)?;
    assert_eq!(told["controller"], endpoint, "{told}");
    Ok(())
}

#[test]
fn whoever_follows_the_page_behind_nginx_has_an_online_node() -> Result<()> {
    let machine = machine("page-nginx")?;
    for block in [blocks("The controller")?, blocks("Behind nginx")?].concat() {
        follow(&machine, block)?;
    }
    nodes(&machine, |line| line.contains("--ca-file"))?;
    connected_to(&machine, &format!("wss://{NAME}/ws/node"))?;
    // nginx holds the worker's connection, and adds to no address that a client claims.
    let forged = machine.sh(&format!(
        "curl --silent --cacert /root/aiwm-authority.crt --header 'X-Forwarded-For: 203.0.113.9' --output /dev/null \
         --write-out '%{{http_code}}' https://{NAME}/metrics"
    ));
    assert_eq!(forged.read()?, "403", "the metrics are this machine's alone, and not a proxy's to show");
    Ok(())
}

#[test]
fn whoever_follows_the_page_without_a_proxy_has_an_online_node() -> Result<()> {
    let machine = machine("page-direct")?;
    for block in [blocks("The controller")?, blocks("without a proxy")?].concat() {
        follow(&machine, block)?;
    }
    nodes(&machine, |line| !line.contains("--ca-file"))?;
    connected_to(&machine, &format!("wss://{NAME}:3305/ws/node"))
}
