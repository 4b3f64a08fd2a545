//! `aio-worker support-bundle` on real machines: all that it promises is in it, and nowhere the token.

use std::time::{Duration, Instant};

use aio_tests::{
    artifacts::WORKER_FILE,
    controller::Settings,
    lab::{Inside, Machine, Outcome},
    wait::wait_for,
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::site::{COMMAND, SOON, Site, UNIT, install, json_of, status, succeed};

/// Where everybody may run it.
const ANYBODYS: &str = "/opt/aio-worker";

/// An unpacked bundle, on the machine.
struct Bundle<'a> {
    machine: &'a Machine,
    folder: String,
    manifest: Value,
}

impl<'a> Bundle<'a> {
    /// Runs the command, which writes to `path`, and unpacks what it wrote.
    fn make(machine: &'a Machine, command: Inside, path: &str) -> Result<Self> {
        let command = command.args(["support-bundle", "--file", path, "--output", "json"]);
        let outcome = command.bound(Duration::from_secs(90)).run()?;
        ensure!(outcome.status == Some(0), "{outcome}");
        let said = json_of(&outcome)?;
        assert_eq!(said["file"], path);
        assert_eq!(machine.command("stat").args(["--format=%a", path]).read()?.trim(), "600");
        let folder = format!("{path}.unpacked");
        machine.sh(&format!("mkdir {folder}; tar -xzf {path} -C {folder} --strip-components=1")).read()?;
        Ok(Self { machine, folder, manifest: said["manifest"].clone() })
    }

    fn file(&self, name: &str) -> Result<String> {
        self.machine.read(&format!("{}/{name}", self.folder))
    }

    /// Fails where a promised file is neither there nor said to be missing.
    fn holds(&self, promised: &[&str]) -> Result<()> {
        for name in promised {
            self.file(name).with_context(|| format!("{:#}", self.manifest))?;
        }
        Ok(())
    }

    /// Why a file is not there.
    fn missing(&self, name: &str) -> Result<String> {
        let missing = self.manifest["missing"].as_array().context("no list of what is missing")?;
        let part = missing.iter().find(|part| part["file"] == name);
        let part = part.with_context(|| format!("{name} is not said to be missing: {:#}", self.manifest))?;
        Ok(part["reason"].as_str().context("no reason")?.to_owned())
    }

    /// Every byte of every file, for the token and for the signature alone.
    fn is_without(&self, token: &str) -> Result<()> {
        let found = grep(self.machine, token, &self.folder)?;
        ensure!(found.status == Some(1), "the token is in the bundle: {found}");
        Ok(())
    }
}

fn grep(machine: &Machine, token: &str, place: &str) -> Result<Outcome> {
    machine.command("grep").args(["-raF", "-e", token, "-e", signature(token), place]).run()
}

fn signature(token: &str) -> &str {
    token.rsplit('.').next().unwrap_or(token)
}

/// The command as somebody who may do nothing.
fn as_nobody(machine: &Machine, command: &str) -> Inside {
    machine.command("setpriv").args(["--reuid=65534", "--regid=65534", "--clear-groups", command])
}

#[test]
fn a_support_bundle_holds_all_that_is_promised_and_nowhere_the_token() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = site.machine("bundle")?;
    site.put_gpus(&machine)?;
    succeed(install(&machine, &site.token), &machine)?;
    spill(&machine, &site.token)?;
    // The service was restarted.
    let session = || Ok(status(&machine)?["session"]["state"].clone());
    wait_for("the worker to be online again", SOON, session, |state| state == "online")?;

    let bundle = Bundle::make(&machine, machine.command("aio-worker"), "/root/bundle.tar.gz")?;

    bundle.is_without(&site.token)?;
    for (name, words) in [
        ("manifest.json", "\"worker\": \"1.0.0\""),
        ("doctor.json", "8 GPUs"),
        ("versions.json", "\"currentRelease\": \"v1.0.0\""),
        ("unit.json", "\"activeState\": \"active\""),
        ("unit.txt", "LoadCredential=token:/etc/aio-worker/token"),
        ("unit.txt", "the token is [redacted]"),
        ("journal.txt", "the token is [redacted]"),
        ("install-journal.jsonl", "committed"),
        ("config.toml", "proxy http://[redacted]@proxy.example"),
        ("tokens.json", site.id().as_str()),
        ("status.json", "\"state\": \"online\""),
        ("inventory.json", "H100"),
        ("undelivered/1.json", "[redacted]"),
    ] {
        let text = bundle.file(name)?;
        ensure!(text.contains(words), "{name} does not say `{words}`: {text}");
    }
    // A container has no kernel log of its own; elsewhere it is there.
    bundle.file("kernel.txt").or_else(|_| bundle.missing("kernel.txt"))?;

    // What is there is not overwritten, and a bundle of everybody's own says what it lacks.
    let again =
        machine.command("aio-worker").args(["support-bundle", "--file", "/root/bundle.tar.gz"]).run()?;
    ensure!(again.status == Some(74) && again.stderr.contains("FILE_FAILED"), "{again}");
    let bundle = Bundle::make(&machine, as_nobody(&machine, "aio-worker"), "/tmp/nobody.tar.gz")?;
    bundle.is_without(&site.token)?;
    bundle.holds(&["doctor.json", "unit.json", "status.json", "config.toml", "inventory.json"])?;
    ensure!(bundle.missing("install-journal.jsonl")?.contains("Permission denied"));
    ensure!(bundle.missing("undelivered/")?.contains("Permission denied"));
    ensure!(bundle.file("tokens.json")?.contains("Permission denied"));

    // Named by itself, it is a new file of whoever said sudo.
    let named = machine.sh("cd /root; aio-worker support-bundle; tar -tzf aio-worker-support-*.tar.gz");
    let named = named.env("SUDO_UID", "65534").env("SUDO_GID", "65534").read()?;
    ensure!(named.contains("/manifest.json\n"), "{named}");
    let owner = machine.sh("stat --format=%u:%g:%a /root/aio-worker-support-*.tar.gz").read()?;
    assert_eq!(owner.trim(), "65534:65534:600");
    let streamed = machine.sh("aio-worker support-bundle --file - | tar -tz").run()?;
    ensure!(streamed.stdout.contains("/journal.txt\n"), "{streamed}");
    ensure!(streamed.stderr.contains("standard output ("), "{streamed}");
    Ok(())
}

/// Puts the token where it does not belong: into a drop-in, from there into the journal, and into
/// what the installer leaves.
fn spill(machine: &Machine, token: &str) -> Result<()> {
    let signature = signature(token);
    // In the place of the service's own: before it, systemd 247 has no credentials to mount.
    let drop_in = format!(
        "[Service]\nExecStart=\nExecStart=/bin/sh -c 'echo the token is {token}; echo signed {signature}; exec aio-worker start'\n"
    );
    machine.write(&format!("/etc/systemd/system/{UNIT}.d/spill.conf"), "0644", drop_in)?;
    machine.write("/var/lib/aio-installer/undelivered/1.json", "0600", format!("{{\"x\":\"{token}\"}}"))?;
    machine.sh("echo '# proxy http://me:pass@proxy.example' >>/etc/aio-worker/config.toml").read()?;
    machine.sh(&format!("systemctl daemon-reload; systemctl restart {UNIT}; journalctl --sync")).read()?;
    let journal = machine.command("journalctl").args(["--quiet", "--unit", UNIT]).read()?;
    ensure!(journal.contains(token) && journal.contains(&format!("signed {signature}")), "{journal}");
    Ok(())
}

#[test]
fn where_nothing_is_installed_or_an_installation_failed_or_d_bus_hangs_a_support_bundle_says_so() -> Result<()>
{
    let site = Site::new(Settings::default())?;
    let machine = site.machine("bundle-bare")?;
    machine.copy_in(&site.artifacts.worker()?, ANYBODYS, "0755")?;
    let bare = ["doctor.json", "versions.json", "unit.json", "inventory.json"];

    let bundle = Bundle::make(&machine, machine.command(COMMAND), "/root/bare.tar.gz")?;
    bundle.holds(&bare)?;
    ensure!(bundle.file("unit.json")?.contains("\"loadState\": \"not-found\""));
    for name in
        ["status.json", "config.toml", "tokens.json", "install-journal.jsonl", "unit.txt", "journal.txt"]
    {
        bundle.missing(name)?;
    }
    Bundle::make(&machine, as_nobody(&machine, ANYBODYS), "/tmp/nobody.tar.gz")?.holds(&bare)?;

    site.alter_release(WORKER_FILE)?;
    let failed = install(&machine, &site.token).run()?;
    ensure!(failed.status == Some(65), "{failed}");
    let command = machine.command(COMMAND).env("AIO_NODE_TOKEN", &site.token);
    let bundle = Bundle::make(&machine, command, "/root/failed.tar.gz")?;
    bundle.holds(&bare)?;
    bundle.is_without(&site.token)?;
    ensure!(bundle.file("tokens.json")?.contains(site.id().as_str()));
    ensure!(bundle.file("doctor.json")?.contains("ends in"), "the token was not looked at");

    let bus = machine.unit_property("dbus.service", "MainPID")?;
    machine.sh(&format!("kill -STOP {bus}")).read()?;
    let began = Instant::now();
    let bundle = Bundle::make(&machine, machine.command(COMMAND), "/root/hung.tar.gz");
    let took = began.elapsed();
    machine.sh(&format!("kill -CONT {bus}")).read()?;
    let bundle = bundle?;
    bundle.holds(&["doctor.json", "versions.json", "inventory.json"])?;
    ensure!(bundle.missing("unit.json")?.contains("D-Bus"), "{:#}", bundle.manifest);
    ensure!(took < Duration::from_secs(45), "it took {took:?}");
    Ok(())
}
