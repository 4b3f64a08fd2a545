//! The Ansible role in `packaging/ansible`, run by this computer's Ansible on a machine: what it
//! says of changes, and that nobody sees a token.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use aio_tests::{controller::Settings, lab::Machine, proxy::Proxy};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use tempfile::TempDir;

use super::{
    installs::is_as_it_was,
    site::{HOST, SOON, Site, UNIT, program},
    upgrade::{NEXT, publish_next, runs},
};

const NODE: &str = "gpu-001";

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("packaging").join("ansible")
}

/// This computer's Ansible, an inventory of one machine, and the way into it.
struct Control {
    folder: TempDir,
}

/// What a run of the playbook said of the machine.
#[derive(Debug)]
struct Run {
    changed: u32,
    failed: u32,
    output: String,
}

impl Control {
    /// As the controller's own inventory has it; the way is a program that takes ssh's place.
    fn of(machine: &Machine, inventory: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let ssh = folder.path().join("ssh");
        let enter = machine.entrance().join(" ");
        fs::write(
            &ssh,
            format!(
                "#!/bin/sh\n# The last argument is the command.\nfor command; do :; done\nexec {enter} sh -c \"$command\"\n"
            ),
        )?;
        fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755))?;
        let control = Self { folder };
        control.has(inventory)?;
        let way = json!({
            "ansible_connection": "ssh",
            "ansible_ssh_executable": ssh,
            "ansible_ssh_args": "",
            "ansible_ssh_transfer_method": "piped",
            "ansible_ssh_pipelining": true,
            "ansible_become": false,
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_remote_tmp": "/run/ansible",
        });
        fs::write(control.folder.path().join("way.json"), way.to_string())?;
        Ok(control)
    }

    /// From now on, this is the inventory.
    fn has(&self, inventory: &str) -> Result<()> {
        Ok(fs::write(self.folder.path().join("inventory.yml"), inventory)?)
    }

    /// Runs the playbook.
    fn play(&self, arguments: &[&str]) -> Result<Run> {
        let file = |name: &str| self.folder.path().join(name);
        let mut way = std::ffi::OsString::from("@");
        way.push(file("way.json"));
        let output = Command::new("ansible-playbook")
            .arg("--inventory")
            .arg(file("inventory.yml"))
            .arg("--extra-vars")
            .arg(way)
            .args(arguments)
            .arg(packaging().join("site.yml"))
            .env("ANSIBLE_NOCOLOR", "1")
            .env("ANSIBLE_HOME", file("home"))
            .env("ANSIBLE_LOCAL_TEMP", file("local"))
            .env("LC_ALL", "C.UTF-8")
            .output()
            .context(
                "cannot run ansible-playbook (apt-get install ansible-core; `cargo xtask test` does it)",
            )?;
        let output = [output.stdout, output.stderr].concat();
        let output = String::from_utf8_lossy(&output).into_owned();
        let recap = output.lines().find(|line| line.starts_with(NODE) && line.contains("changed="));
        let recap = recap.with_context(|| format!("no recap:\n{output}"))?;
        let number = |key: &str| -> Result<u32> {
            let word = recap.split_whitespace().find_map(|word| word.strip_prefix(key));
            Ok(word.with_context(|| format!("no {key} in {recap}"))?.parse()?)
        };
        Ok(Run { changed: number("changed=")?, failed: number("failed=")?, output })
    }

    /// The same, and it must go well.
    fn changes(&self, arguments: &[&str]) -> Result<u32> {
        let run = self.play(arguments)?;
        ensure!(run.failed == 0, "{arguments:?}:\n{}", run.output);
        Ok(run.changed)
    }
}

/// Authorities of a company, as this computer has them.
fn company() -> Result<PathBuf> {
    let bundle = PathBuf::from("/etc/ssl/certs/ca-certificates.crt");
    ensure!(bundle.is_file(), "{} is not there: apt-get install ca-certificates", bundle.display());
    Ok(bundle)
}

#[test]
fn the_role_installs_once_changes_nothing_twice_takes_off_and_shows_no_token() -> Result<()> {
    let site = Site::over_tls("127.0.0.1")?;
    let machine = Machine::boot_for_provisioning("ansible")?;
    // Only the proxy knows the controller's name.
    let proxy = Proxy::start([127, 0, 0, 1].into(), HOST)?;
    let vars = format!(
        "  vars:\n    aio_worker_proxy: {}\n    aio_worker_ca_file: {}\n",
        proxy.url(),
        company()?.display()
    );
    let complete = |inventory: String| inventory.replace("  vars:\n", &vars);
    let inventory = complete(site.controller.added_as("ansible", &[NODE])?);
    let token = inventory.split('"').find(|word| word.starts_with("ey")).context("no token")?.to_owned();
    let control = Control::of(&machine, &inventory)?;
    let before = machine.listing()?;

    ensure!(control.changes(&["--check"])? > 0, "a first installation is a change");
    is_as_it_was(&before, &machine)?;

    let last = token.chars().next_back().context("an empty token")?;
    let broken = format!("aio_worker_token={}{last}{last}", token.trim_end_matches(last));
    let refused = control.play(&["--extra-vars", &broken])?;
    ensure!(refused.failed == 1 && refused.output.contains("error[TOKEN_INVALID]"), "{}", refused.output);
    is_as_it_was(&before, &machine)?;

    let first = control.play(&["-vvv"])?;
    ensure!(first.failed == 0 && first.changed == 1, "{}", first.output);
    ensure!(!first.output.contains(&token), "the token is in Ansible's output");
    let journal = machine.sh("journalctl --no-pager --all").read()?;
    ensure!(journal.contains(": Invoked with") && !journal.contains(&token), "{journal}");
    let node = site.controller.node_named(NODE)?.id;
    site.controller
        .wait_for_status(&node, aio_protocol::node::NodeStatus::Online, SOON)
        .with_context(|| machine.journal(UNIT))?;
    ensure!(machine.read("/etc/aio-worker/ca.pem")? == fs::read_to_string(company()?)?, "another authority");
    assert_eq!(control.changes(&[])?, 0, "a second run");
    control.has(&complete(site.controller.add_tokens(&[node.as_str(), "--output", "ansible"])?))?;
    assert_eq!(control.changes(&[])?, 1, "another token");
    ensure!(!machine.read("/etc/aio-worker/token")?.contains(&token), "the token is the one before");

    let absent = ["--extra-vars", "aio_worker_state=absent aio_worker_purge=true"];
    assert_eq!(control.changes(&absent)?, 1);
    is_as_it_was(&before, &machine)?;
    ensure!(proxy.asked().iter().any(|line| line.starts_with("CONNECT ")), "{:?}", proxy.asked());
    Ok(())
}

#[test]
fn the_role_installs_from_a_package_and_takes_the_token_from_a_file() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = Machine::boot_for_provisioning("ansible-package")?;
    let control = Control::of(&machine, &format!("aio_workers:\n  hosts:\n    {NODE}:\n"))?;
    let package = site.artifacts.package("aio-worker")?;
    let token = control.folder.path().join("token");
    fs::write(&token, format!("{}\n", site.token))?;
    let variables = json!({ "aio_worker_deb": package, "aio_worker_token_file": token }).to_string();
    let variables = ["--extra-vars", variables.as_str()];

    assert_eq!(control.changes(&variables)?, 2, "package and installation");
    site.wait_until_online(&machine)?;
    assert_eq!(program(&machine)?, "/usr/bin/aio-worker");
    assert_eq!(control.changes(&variables)?, 0, "a second run");

    assert_eq!(control.changes(&["--extra-vars", "aio_worker_state=absent"])?, 2, "installation and package");
    ensure!(
        machine.command("test").args(["-e", "/usr/bin/aio-worker"]).run()?.status == Some(1),
        "it is there"
    );
    Ok(())
}

#[test]
fn all_nodes_are_upgraded_as_the_page_on_operations_says() -> Result<()> {
    let site = Site::with_releases(Settings::default(), publish_next)?;
    let machine = Machine::boot_for_provisioning("ansible-upgrade")?;
    let control = Control::of(&machine, &site.controller.added_as("ansible", &[NODE])?)?;
    // A hardened machine: no program runs in these.
    machine
        .sh("for dir in /tmp /var/tmp; do mount --bind $dir $dir; mount -o remount,bind,noexec $dir; done")
        .read()?;
    let nowhere = ["--extra-vars", r#"{"aio_worker_temporary_folders": ["/tmp", "/var/tmp"]}"#];
    let refused = control.play(&nowhere)?;
    ensure!(refused.failed == 1 && refused.output.contains("error[TARGET_NOEXEC]"), "{}", refused.output);
    assert_eq!(control.changes(&[])?, 1);
    let config = machine.read("/etc/aio-worker/config.toml")?;

    let inventory =
        site.controller.add_tokens(&["--all", "--daemon-version", NEXT, "--output", "ansible"])?;
    control.has(&inventory)?;
    // The site's own node has no machine.
    let only = ["--limit", NODE];
    assert_eq!(control.changes(&only)?, 1, "an upgrade");
    assert_eq!(runs(&machine)?, NEXT);
    assert_eq!(machine.read("/etc/aio-worker/config.toml")?, config);
    assert_eq!(control.changes(&only)?, 0, "a second run");
    Ok(())
}
