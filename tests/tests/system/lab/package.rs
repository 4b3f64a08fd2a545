//! The Debian packages on real machines: what they start and what not, how they get on with
//! `aio-worker install`, and what a removal, a purge, an upgrade and a broken installation leave
//! behind.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use aio_protocol::error_code::ErrorCode;
use aio_tests::{
    artifacts::Artifacts,
    controller::Settings,
    lab::{Inside, Machine, Outcome},
    wait::wait_for,
};
use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use tempfile::TempDir;

use super::{
    installs::{is_as_it_was, is_as_it_was_but},
    site::{COMMAND, SOON, Site, UNIT, install, json_of, program, status, succeed},
};

const WORKER: &str = "aio-worker";
const CONTROLLER: &str = "aio-controller-stub";
const CONTROLLER_UNIT: &str = "aio-controller-stub.service";

/// What package managers keep for themselves.
const BOOKS: [&str; 5] =
    ["/var/lib/dpkg", "/var/lib/apt", "/var/cache", "/var/log", "/var/lib/systemd/deb-systemd"];

/// `apt-get` with these words, asking nobody anything.
fn apt(machine: &Machine, words: &[&str]) -> Inside {
    let options = ["DEBIAN_FRONTEND=noninteractive", "apt-get", "--yes", "--no-install-recommends"];
    machine.command("env").args(options).args(words).bound(SOON * 2)
}

/// `apt install` of a package that is a file on this computer.
fn apt_install(machine: &Machine, package: &Path, words: &[&str]) -> Result<Outcome> {
    machine.copy_in(package, "/root/the.deb", "0644")?;
    apt(machine, &[&["install", "/root/the.deb"], words].concat()).run()
}

pub(super) fn installed(machine: &Machine, package: &Path) -> Result<()> {
    let outcome = apt_install(machine, package, &["--allow-downgrades"])?;
    ensure!(outcome.status == Some(0), "{outcome}");
    Ok(())
}

/// The same package as another version.
struct Repacked {
    file: PathBuf,
    _folder: TempDir,
}

impl Repacked {
    fn of(package: &Path, version: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (root, file) = (folder.path().join("root"), folder.path().join("the.deb"));
        let dpkg_deb = |words: &[&str], paths: [&Path; 2]| -> Result<()> {
            let done = Command::new("dpkg-deb").args(words).args(paths).output()?;
            ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            Ok(())
        };
        dpkg_deb(&["--raw-extract"], [package, &root])?;
        let control = root.join("DEBIAN/control");
        let text = fs::read_to_string(&control)?;
        let name = text.lines().find_map(|line| line.strip_prefix("Package: ")).context("no name")?;
        let line =
            text.lines().find(|line| line.starts_with("Version: ")).context("a package without a version")?;
        fs::write(&control, text.replace(line, &format!("Version: {version}")))?;
        // Its sample of the configuration is another one.
        let sample = folder.path().join("root/usr/share").join(name).join("config.toml");
        OpenOptions::new().append(true).open(sample)?.write_all(format!("# {version}\n").as_bytes())?;
        dpkg_deb(&["--root-owner-group", "-Znone", "--build"], [&root, &file])?;
        Ok(Self { file, _folder: folder })
    }
}

fn state(machine: &Machine, unit: &str) -> Result<(String, String)> {
    Ok((machine.unit_property(unit, "ActiveState")?, machine.unit_property(unit, "UnitFileState")?))
}

fn active_and_enabled() -> (String, String) {
    ("active".to_owned(), "enabled".to_owned())
}

/// How often the daemon has begun since the machine booted.
pub(super) fn starts(machine: &Machine) -> Result<usize> {
    let lines = machine.command("journalctl").args(["--no-pager", "--output=cat", "--unit", UNIT]).read()?;
    Ok(lines.lines().filter(|line| line.starts_with("aio-worker ") && line.ends_with(" starts")).count())
}

/// The machines of this lab have no sudo, and their user is root.
pub(super) const SUDO: &str = "#!/bin/sh
if [ \"$1\" = -u ]; then user=$2; shift 2; exec setpriv --reuid \"$user\" --regid \"$user\" --clear-groups \"$@\"; fi
exec \"$@\"
";

/// The commands of a page's section, as they stand there.
fn documented(section: &str) -> Result<Vec<String>> {
    let page = include_str!("../../../../docs/installation.md");
    let (_, rest) =
        page.split_once(&format!("\n## {section}\n")).with_context(|| format!("no section {section}"))?;
    let section = rest.split("\n## ").next().unwrap_or(rest);
    let blocks = section.split("```sh\n").skip(1);
    Ok(blocks.map(|block| block.split("```").next().unwrap_or(block).to_owned()).collect())
}

#[test]
fn whoever_follows_the_page_on_packages_line_by_line_has_an_online_node() -> Result<()> {
    let artifacts = Artifacts::release()?;
    let machine = Machine::boot_without_network("package-page")?;
    machine.write("/usr/bin/sudo", "0755", SUDO)?;
    for name in [CONTROLLER, WORKER] {
        let package = artifacts.package(name)?;
        let file = package.file_name().and_then(|file| file.to_str()).context("a package without a name")?;
        machine.copy_in(&package, &format!("/root/{file}"), "0644")?;
    }
    let follow = |commands: &str| -> Result<String> {
        let script = format!("set -e; cd /root; export DEBIAN_FRONTEND=noninteractive; {commands}");
        let outcome = machine.sh(&script).bound(SOON * 2).run()?;
        ensure!(outcome.status == Some(0), "{outcome}");
        print!("{commands}{}", outcome.stdout);
        Ok(outcome.stdout)
    };
    let blocks = documented("With Debian packages")?;
    let [controller, node] = &blocks[..] else { bail!("the section has {} blocks", blocks.len()) };
    let said = follow(&controller.replace("apt install", "apt install --yes"))?;
    let token = said.split_whitespace().last().context("no command was printed")?;
    let said = follow(&node.replace("apt install", "apt install --yes").replace("<JWT>", token))?;
    ensure!(said.contains("is online as node "), "{said}");
    let nodes = follow("sudo -u aio-controller-stub controller-stub node list")?;
    ensure!(nodes.contains("online"), "{nodes}");
    Ok(())
}

#[test]
fn lintian_finds_nothing_in_the_packages_to_warn_of() -> Result<()> {
    let artifacts = Artifacts::release()?;
    let packages = [artifacts.package(WORKER)?, artifacts.package(CONTROLLER)?];
    let lintian = Command::new("lintian")
        .args(["--fail-on", "warning,error", "--allow-root"])
        .args(packages)
        .output()?;
    let said = String::from_utf8_lossy(&lintian.stdout);
    ensure!(lintian.status.success(), "{said}{}", String::from_utf8_lossy(&lintian.stderr));
    Ok(())
}

#[test]
fn a_package_runs_nothing_before_it_has_a_token_and_is_then_configured_without_a_download() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = Machine::boot("package")?;
    installed(&machine, &site.artifacts.package(WORKER)?)?;
    assert_eq!(state(&machine, UNIT)?, ("inactive".to_owned(), "disabled".to_owned()));
    let before = machine.listing()?;
    let install = machine.command(WORKER).args(["install", "--token", &site.token, "--output", "json"]);
    let outcome = json_of(&succeed(install, &machine)?)?;
    let steps: Vec<_> =
        outcome["steps"].as_array().context("no steps")?.iter().map(|step| &step["step"]).collect();
    let expected = ["write_token", "enable_unit", "start_unit", "await_online"];
    assert_eq!(steps, expected.map(|step| json!(step)).iter().collect::<Vec<_>>());
    site.wait_until_online(&machine)?;
    assert_eq!(program(&machine)?, "/usr/bin/aio-worker");

    succeed(machine.command(WORKER).args(["uninstall", "--purge"]), &machine)?;
    is_as_it_was(&before, &machine)
}

#[test]
fn an_upgrade_of_the_package_keeps_configuration_and_identity_and_restarts_once_and_so_does_the_way_back()
-> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = Machine::boot("package-upgrade")?;
    let package = site.artifacts.package(WORKER)?;
    installed(&machine, &package)?;
    succeed(machine.command(WORKER).args(["install", "--token", &site.token]), &machine)?;
    machine.sh("echo 'log = \"debug\"' >> /etc/aio-worker/config.toml").read()?;
    let (config, token) =
        (machine.read("/etc/aio-worker/config.toml")?, machine.read("/etc/aio-worker/token")?);
    assert_eq!(starts(&machine)?, 1);
    for (round, version) in ["1.0.1", "1.0.0"].into_iter().enumerate() {
        let pid = machine.unit_property(UNIT, "MainPID")?;
        installed(&machine, &Repacked::of(&package, version)?.file)?;
        assert_ne!(machine.unit_property(UNIT, "MainPID")?, pid);
        let online = || Ok(status(&machine)?["session"]["state"].clone());
        wait_for("the worker to be online again", SOON, online, |state| state == "online")?;
        assert_eq!(starts(&machine)?, round + 2, "it was restarted once");
        assert_eq!(machine.read("/etc/aio-worker/config.toml")?, config);
        assert_eq!(machine.read("/etc/aio-worker/token")?, token);
    }
    // Stopped by somebody, it stays so, forbidden or not; started although it is disabled, it is restarted.
    for (change, version, expected) in [
        ("systemctl stop", "1.0.2", ("inactive", "enabled")),
        ("systemctl disable --now", "1.0.3", ("inactive", "disabled")),
        ("systemctl start", "1.0.4", ("active", "disabled")),
    ] {
        machine.sh(&format!("{change} {UNIT}")).read()?;
        let before = starts(&machine)?;
        installed(&machine, &Repacked::of(&package, version)?.file)?;
        let (active, enabled) = state(&machine, UNIT)?;
        assert_eq!((active.as_str(), enabled.as_str()), expected, "{change}");
        assert_eq!(starts(&machine)?, before + usize::from(active == "active"), "{change}");
    }
    Ok(())
}

#[test]
fn a_configuration_that_was_there_before_the_package_stays_and_dpkg_asks_nobody() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = Machine::boot("package-config")?;
    machine.write("/usr/bin/sudo", "0755", SUDO)?;
    let file = "/etc/aio-worker/config.toml";
    let facts = format!("stat --format='%a %U %G' {file}; cat {file}");
    let [page] = &documented("Through a proxy")?[..] else { bail!("the section has another block") };
    machine.sh(page).read()?;
    let before = machine.sh(&facts).read()?;
    ensure!(before.starts_with("640 root aio-worker\nproxy = "), "{before}");
    for package in [WORKER, CONTROLLER] {
        let (package, service) = (site.artifacts.package(package)?, format!("{package}.service"));
        // Nobody is there to answer.
        installed(&machine, &package)?;
        machine.sh(&format!("systemctl stop {service}; for file in /etc/aio-*/config.toml; do echo '# mine' >> $file; done")).read()?;
        let mine = machine.sh("cat /etc/aio-*/config.toml").read()?;
        installed(&machine, &Repacked::of(&package, "1.0.1")?.file)?;
        assert_eq!(machine.sh("cat /etc/aio-*/config.toml").read()?, mine);
        let odd = machine.sh("dpkg --audit; find /etc -name '*.dpkg-*' -path '*aio*'").read()?;
        assert_eq!(odd, "");
    }
    ensure!(machine.sh(&facts).read()?.starts_with(before.trim_end()), "the first lines are another's");
    // What somebody has taken away is not put back.
    machine.sh(&format!("rm {file}")).read()?;
    installed(&machine, &Repacked::of(&site.artifacts.package(WORKER)?, "1.0.2")?.file)?;
    assert_eq!(machine.sh(&format!("test -e {file} || echo gone")).read()?, "gone\n");
    Ok(())
}

#[test]
fn a_purge_leaves_a_person_s_account_and_what_an_installation_has_taken_over() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = site.machine("package-purge")?;
    let package = site.artifacts.package(WORKER)?;
    machine.sh("useradd --create-home --shell /bin/bash aio-worker").read()?;
    let account = machine.sh("getent passwd aio-worker; getent group aio-worker").read()?;
    installed(&machine, &package)?;
    ensure!(apt(&machine, &["remove", WORKER]).run()?.status == Some(0));
    succeed(install(&machine, &site.token), &machine)?;
    ensure!(apt(&machine, &["purge", WORKER]).run()?.status == Some(0));
    assert_eq!(machine.sh("getent passwd aio-worker; getent group aio-worker").read()?, account);
    machine.sh("systemctl restart aio-worker").read()?;
    site.wait_until_online(&machine)?;
    Ok(())
}

#[test]
fn a_removal_stops_a_later_installation_goes_on_and_a_purge_leaves_nothing() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = Machine::boot("package-remove")?;
    let package = site.artifacts.package(WORKER)?;
    let before = machine.listing()?;
    installed(&machine, &package)?;
    succeed(machine.command(WORKER).args(["install", "--token", &site.token]), &machine)?;

    ensure!(apt(&machine, &["remove", WORKER]).run()?.status == Some(0));
    site.wait_for(aio_protocol::node::NodeStatus::Offline, &machine)?;
    ensure!(machine.sh("command -v aio-worker").run()?.status != Some(0), "the command is still there");
    installed(&machine, &package)?;
    assert_eq!(state(&machine, UNIT)?, active_and_enabled(), "what was there before goes on");
    site.wait_until_online(&machine)?;

    ensure!(apt(&machine, &["purge", WORKER]).run()?.status == Some(0));
    machine.command("rm").args(["/root/the.deb"]).read()?;
    is_as_it_was_but(&before, &machine, |line| BOOKS.iter().any(|book| line.contains(book)))?;
    assert_eq!(machine.sh("getent passwd aio-worker || echo none").read()?.trim(), "none");
    Ok(())
}

#[test]
fn a_package_and_an_installation_beside_it_are_told_and_never_two_workers() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = site.machine("package-beside")?;
    let package = site.artifacts.package(WORKER)?;
    succeed(install(&machine, &site.token), &machine)?;

    let refused = apt_install(&machine, &package, &[])?;
    // apt gives dpkg a terminal, and so one stream.
    let said = refused.to_string();
    ensure!(refused.status == Some(100) && said.contains("PACKAGE_CONFLICT"), "{refused}");
    ensure!(said.contains("sudo aio-worker uninstall") && said.contains("Its token goes"), "{refused}");
    let known = "dpkg --audit; dpkg-query --show --showformat '${db:Status-Status}' aio-worker";
    assert_eq!(machine.sh(known).read()?.trim(), "not-installed");
    site.wait_until_online(&machine)?;

    // Past the package manager.
    machine.command("dpkg-deb").args(["--extract", "/root/the.deb", "/"]).read()?;
    let outcome = machine.command(COMMAND).args(["install", "--token", &site.token]).run()?;
    ensure!(outcome.status == Some(i32::from(ErrorCode::PackageConflict.exit_status())), "{outcome}");
    ensure!(outcome.stderr.contains("/etc/systemd/system/aio-worker.service"), "{outcome}");
    let workers =
        machine.sh("grep --files-with-matches --line-regexp aio-worker /proc/[0-9]*/comm").read()?;
    assert_eq!(workers.lines().count(), 1, "{workers}");

    succeed(machine.command("/usr/local/bin/aio-worker").args(["uninstall"]), &machine)?;
    installed(&machine, &package)?;
    succeed(machine.command(WORKER).args(["install", "--token", &site.token]), &machine)?;
    site.wait_until_online(&machine)?;
    Ok(())
}

#[test]
fn a_package_that_was_left_half_installed_is_finished_by_the_package_manager() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = Machine::boot("package-half")?;
    let package = site.artifacts.package(WORKER)?;
    machine.copy_in(&package, "/root/the.deb", "0644")?;
    machine.command("dpkg").args(["--unpack", "/root/the.deb"]).read()?;
    machine.command("dpkg").args(["--configure", "--pending"]).read()?;
    succeed(machine.command(WORKER).args(["install", "--token", &site.token]), &machine)?;

    let pid = machine.unit_property(UNIT, "MainPID")?;
    machine.copy_in(&Repacked::of(&package, "1.0.1")?.file, "/root/the.deb", "0644")?;
    machine.command("dpkg").args(["--unpack", "/root/the.deb"]).read()?;
    assert_eq!(
        machine.unit_property(UNIT, "MainPID")?,
        pid,
        "an upgrade that stops half way stops no worker"
    );
    // What a postinst needs is not there, and then it is.
    let program = machine.sh("command -v systemd-sysusers").read()?.trim().to_owned();
    machine.command("mv").args([&program, "/root/away"]).read()?;
    let broken = machine.command("dpkg").args(["--configure", "--pending"]).run()?;
    ensure!(broken.status == Some(1), "{broken}");
    assert_eq!(machine.unit_property(UNIT, "MainPID")?, pid);
    machine.command("mv").args(["/root/away", &program]).read()?;
    machine.command("dpkg").args(["--configure", "--pending"]).read()?;
    assert_ne!(machine.unit_property(UNIT, "MainPID")?, pid);
    site.wait_until_online(&machine)?;
    Ok(())
}

#[test]
fn the_controller_s_package_serves_this_machine_at_once_and_keeps_what_it_knows() -> Result<()> {
    // Its port is that of every other machine's controller where machines share the network.
    let machine = Machine::boot_without_network("package-controller")?;
    let package = Artifacts::release()?.package(CONTROLLER)?;
    let before = machine.listing()?;
    installed(&machine, &package)?;
    assert_eq!(state(&machine, CONTROLLER_UNIT)?, active_and_enabled());
    let modes = machine.sh("stat --format='%a %U %n' /var/lib/aio-controller-stub /var/lib/aio-controller-stub/secrets/* /etc/aio-controller-stub/config.toml").read()?;
    for line in modes.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let expected = match words[2] {
            "/var/lib/aio-controller-stub" => ("700", CONTROLLER),
            "/etc/aio-controller-stub/config.toml" => ("640", "root"),
            _ => ("600", CONTROLLER),
        };
        assert_eq!((words[0], words[1]), expected, "{modes}");
    }
    machine.command("systemctl").args(["reload", CONTROLLER_UNIT]).read()?;
    assert_eq!(state(&machine, CONTROLLER_UNIT)?, active_and_enabled());
    let add = |who: &[&str], name: &str| {
        let words = ["controller-stub", "node", "add", name, "--output", "json"];
        machine.command(who[0]).args(&who[1..]).args(words).run()
    };
    let itself = ["setpriv", "--reuid", CONTROLLER, "--regid", CONTROLLER, "--clear-groups"];
    let added = json_of(&add(&itself, "gpu-01")?)?;
    ensure!(
        added["command"].as_str().is_some_and(|it| it.starts_with("sudo aio-worker install ")),
        "{added}"
    );
    let refused = add(&["env"], "gpu-02")?;
    ensure!(refused.status == Some(2) && refused.stderr.contains("error[USAGE]"), "{refused}");

    installed(&machine, &Repacked::of(&package, "1.0.1")?.file)?;
    assert_eq!(state(&machine, CONTROLLER_UNIT)?, active_and_enabled());
    let list = machine.command(itself[0]).args(&itself[1..]).args(["controller-stub", "node", "list"]);
    ensure!(list.read()?.contains("gpu-01"), "an upgrade has lost a node");

    ensure!(apt(&machine, &["purge", CONTROLLER]).run()?.status == Some(0));
    machine.command("rm").args(["/root/the.deb"]).read()?;
    is_as_it_was_but(&before, &machine, |line| BOOKS.iter().any(|book| line.contains(book)))
}
