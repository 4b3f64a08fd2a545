//! The daemon beside other agents that people know, on one machine at the same time, at the same
//! pace: Debian's node exporter, asked over HTTP, and Debian's Zabbix agent 2, asked over its own
//! protocol.
//!
//! It installs packages and takes five minutes, so it runs only when asked: `AIO_LAB_SIDE_BY_SIDE=1
//! cargo nextest run -p aio-tests -E 'test(side_by_side)' --no-capture`. What every run holds the
//! daemon to stands one folder up.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use aio_protocol::node::NodeStatus;
use aio_tests::{controller::Settings, lab::Machine};
use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{
    super::site::{SOON, Site, UNIT, install, succeed},
    meter::{Cost, Meter},
};

const PACE: Duration = Duration::from_secs(30);
/// Four times the pace, and what the last answer takes.
const WATCHED: Duration = Duration::from_secs(125);
/// The same unit, for another node, on a machine without GPUs.
const PLAIN: &str = "aio-plain.service";
const EXPORTER: &str = "prometheus-node-exporter.service";
const ZABBIX: &str = "zabbix-agent2.service";
/// What a heartbeat and the metrics tell, as far as it has names for it.
const KEYS: [&str; 10] = [
    "agent.ping",
    "system.cpu.util",
    "system.cpu.load",
    "vm.memory.size[used]",
    "vm.memory.size[pused]",
    "system.uptime",
    "vfs.fs.size[/,used]",
    "vfs.fs.size[/,total]",
    "net.if.in[lo]",
    "net.if.out[lo]",
];

#[test]
fn the_daemon_costs_less_than_agents_that_people_know() -> Result<()> {
    if std::env::var_os("AIO_LAB_SIDE_BY_SIDE").is_none() {
        println!("not asked to: AIO_LAB_SIDE_BY_SIDE is not set");
        return Ok(());
    }
    let site = Site::new(Settings::default())?;
    let machine = Machine::boot_alone("side-by-side")?;
    others(&machine)?;
    site.put_command(&machine)?;
    site.put_gpus(&machine)?;
    succeed(install(&machine, &site.token), &machine)?;
    plain(&site, &machine)?;
    // Start-up, package scripts and first readings are over.
    thread::sleep(PACE);

    let units = [
        (PLAIN, "aio-worker, no GPU"),
        (UNIT, "aio-worker, 8 GPUs"),
        (EXPORTER, "node exporter"),
        (ZABBIX, "Zabbix agent 2"),
    ];
    let idle = watched(&machine, &units, || Ok(()))?;
    let (mut scraped, mut told) = (0, 0);
    let asked = watched(&machine, &units, || {
        scraped = scrape(&machine)?;
        told = query()?;
        Ok(())
    })?;
    println!("node exporter: {scraped} bytes a scrape; Zabbix agent 2: {told} bytes for {} keys", KEYS.len());
    println!("aio-worker sends every 30 s in both; the others are asked every 30 s in the second");
    for (name, costs) in [("idle", &idle), ("asked", &asked)] {
        for ((_, what), Cost { resident, proportional, share, threads, wakeups }) in units.iter().zip(costs) {
            println!(
                "{name:6} {what:20} RSS {:6.2} MiB, PSS {:6.2} MiB, {share:.4} % of a core, {threads:2} threads, {wakeups:6.1} wake-ups a minute",
                mib(*resident),
                mib(*proportional)
            );
        }
    }
    let [plain, gpus, exporter, zabbix] = asked.as_slice() else { anyhow::bail!("{asked:?}") };
    ensure!(mib(plain.resident) <= 10.0 && mib(gpus.resident) <= 12.0, "{plain:?} {gpus:?}");
    for other in [exporter, zabbix] {
        ensure!(
            gpus.resident < other.resident && gpus.share < other.share && gpus.threads < other.threads,
            "{gpus:?} {other:?}"
        );
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "no process has so much memory")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// Installs the others as Debian does, told to answer this machine alone.
fn others(machine: &Machine) -> Result<()> {
    let script = "export DEBIAN_FRONTEND=noninteractive; apt-get -q update; apt-get -q install --yes --no-install-recommends prometheus-node-exporter zabbix-agent2";
    machine.sh(script).bound(Duration::from_secs(300)).read()?;
    // Passive alone: nobody serves active checks here.
    machine.sh("sed -i -e 's/^ServerActive=.*//' -e 's/^Server=.*/Server=127.0.0.1/' /etc/zabbix/zabbix_agent2.conf").read()?;
    machine.sh(&format!("systemctl restart {EXPORTER} {ZABBIX}")).read().map(drop)
}

/// A second daemon beside the installed one: the same program and unit, a node, token and folders
/// of its own, no GPU driver.
fn plain(site: &Site, machine: &Machine) -> Result<()> {
    let node = site.controller.register("plain-box")?;
    let token = site.controller.token(&node.id, &json!({}))?.token;
    machine.write("/etc/aio-plain/token", "0600", token)?;
    let unit = include_str!("../../../../../systemd/aio-worker.service")
        .replace("/etc/aio-worker/", "/etc/aio-plain/")
        .replace("Directory=aio-worker", "Directory=aio-plain")
        .replace("[Service]", "[Service]\nEnvironment=AIO_NVML_LIBRARY=/nonexistent/libnvidia-ml.so.1");
    machine.write(&format!("/etc/systemd/system/{PLAIN}"), "0644", unit)?;
    machine.sh(&format!("systemctl daemon-reload; systemctl start {PLAIN}")).read()?;
    site.controller.wait_for_status(&node.id, NodeStatus::Online, SOON).map(drop)
}

/// What each costs over the same time, in which `ask` is called at the pace.
fn watched<const N: usize>(
    machine: &Machine,
    units: &[(&str, &str); N],
    mut ask: impl FnMut() -> Result<()>,
) -> Result<Vec<Cost>> {
    let meters = units.iter().map(|(unit, _)| Meter::begin(machine, unit)).collect::<Result<Vec<_>>>()?;
    let began = Instant::now();
    let mut next = began + PACE / 2;
    while next < began + WATCHED {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        ask()?;
        next += PACE;
    }
    thread::sleep((began + WATCHED).saturating_duration_since(Instant::now()));
    meters.iter().map(|meter| meter.read(machine)).collect()
}

/// Asks the exporter as Prometheus does; the answer's size.
fn scrape(machine: &Machine) -> Result<usize> {
    let answer =
        machine.command("curl").args(["--silent", "--fail", "http://127.0.0.1:9100/metrics"]).read()?;
    ensure!(answer.contains("node_memory_MemTotal_bytes"), "{answer}");
    Ok(answer.len())
}

/// Asks Zabbix's agent as its server does, a connection for each key; the answers' size. The
/// machine has this computer's network.
fn query() -> Result<usize> {
    let mut size = 0;
    for key in KEYS {
        let mut stream = TcpStream::connect(("127.0.0.1", 10050)).context("nobody is the Zabbix agent")?;
        stream.set_read_timeout(Some(SOON))?;
        let length = u64::try_from(key.len())?.to_le_bytes();
        stream.write_all(&[b"ZBXD\x01".as_slice(), &length, key.as_bytes()].concat())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        ensure!(
            answer.starts_with(b"ZBXD") && !answer.windows(6).any(|it| it == b"ZBX_NO"),
            "{key}: {answer:?}"
        );
        size += answer.len();
    }
    Ok(size)
}
