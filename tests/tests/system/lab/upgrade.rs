//! From one release to another and back, on real systemd, with the command that the controller
//! prints. The other release is the same program with a word behind its end: another file in all
//! that an installation looks at, but for what it says of its own version.

use std::{fs, path::Path};

use aio_protocol::{error_code::ErrorCode, event::EventBody};
use aio_tests::{
    artifacts::{Artifacts, VERSION, WORKER_FILE},
    controller::Settings,
    lab::{Inside, Machine},
    wait::wait_for,
};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::{
    installs::is_as_it_was_but,
    package::starts,
    site::{SOON, Site, install, json_of, program, status, succeed},
};

/// The other release.
pub(super) const NEXT: &str = "v9.0.0";

/// Publishes `worker` as [`NEXT`] in a tree of releases.
fn publish(tree: &Path, worker: &[u8]) -> Result<()> {
    let folder = tree.join(NEXT);
    fs::create_dir(&folder)?;
    fs::write(folder.join(WORKER_FILE), worker)?;
    Ok(())
}

/// Publishes [`NEXT`], which works.
pub(super) fn publish_next(tree: &Path) -> Result<()> {
    let worker = fs::read(Artifacts::release()?.worker()?)?;
    publish(tree, &[&worker[..], b"the next release"].concat())
}

/// What `node token add` prints for this release, with the worker that is installed.
fn upgrade(site: &Site, machine: &Machine, version: &str) -> Result<Inside> {
    let arguments = ["--all", "--daemon-version", version];
    let printed = site.controller.add_tokens(&arguments)?;
    let command = printed.lines().find_map(|line| line.trim().strip_prefix("sudo aio-worker "));
    let words: Vec<_> = command.with_context(|| printed.clone())?.split_whitespace().collect();
    Ok(machine.command("/usr/local/bin/aio-worker").args(words))
}

/// The release whose program the service runs.
pub(super) fn runs(machine: &Machine) -> Result<String> {
    let program = program(machine)?;
    let release = program.strip_suffix("/aio-worker").and_then(|folder| folder.rsplit('/').next());
    Ok(release.with_context(|| program.clone())?.to_owned())
}

/// What an upgrade leaves alone.
fn kept(machine: &Machine) -> Result<[String; 2]> {
    Ok([machine.read("/etc/aio-worker/config.toml")?, status(machine)?["nodeId"].to_string()])
}

#[test]
fn an_upgrade_keeps_configuration_and_identity_and_restarts_once_and_the_way_back_is_asked_for() -> Result<()>
{
    let site = Site::with_releases(Settings::default(), publish_next)?;
    let machine = site.machine("upgrade")?;
    succeed(install(&machine, &site.token), &machine)?;
    machine.sh("echo 'log = \"debug\"' >> /etc/aio-worker/config.toml").read()?;
    let before = kept(&machine)?;
    assert_eq!((runs(&machine)?.as_str(), starts(&machine)?), (VERSION, 1));

    let upgraded = succeed(upgrade(&site, &machine, NEXT)?, &machine)?;
    // The other release is the same program.
    let warned = format!("the controller plans {NEXT}, and what runs says that it is {VERSION}");
    ensure!(upgraded.to_string().contains(&warned), "{upgraded}");
    assert_eq!((runs(&machine)?.as_str(), starts(&machine)?), (NEXT, 2));
    assert_eq!(kept(&machine)?, before);

    let again = succeed(upgrade(&site, &machine, NEXT)?.args(["--dry-run", "--output", "json"]), &machine)?;
    let steps = json_of(&again)?["steps"].clone();
    let steps: Vec<_> = steps.as_array().into_iter().flatten().map(|step| step["step"].clone()).collect();
    assert_eq!(steps, ["write_token", "start_unit", "await_online"], "for the new token alone");

    let tree = machine.listing()?;
    let refused = upgrade(&site, &machine, VERSION)?.run()?;
    ensure!(refused.stderr.contains(ErrorCode::DowngradeRefused.as_str()), "{refused}");
    assert_eq!((runs(&machine)?.as_str(), starts(&machine)?), (NEXT, 2));
    assert_eq!(tree.changes_to(&machine.listing()?), "");

    succeed(upgrade(&site, &machine, VERSION)?.args(["--allow-downgrade"]), &machine)?;
    assert_eq!((runs(&machine)?.as_str(), starts(&machine)?), (VERSION, 3));
    assert_eq!(kept(&machine)?, before);
    Ok(())
}

#[test]
fn a_release_that_does_not_start_is_left_again_and_the_controller_is_told() -> Result<()> {
    // Somebody has published another program in the worker's place.
    let publish_wrong = |tree: &Path| publish(tree, &fs::read(Artifacts::release()?.installer()?)?);
    let site = Site::with_releases(Settings::default(), publish_wrong)?;
    let machine = site.machine("upgrade-fails")?;
    succeed(install(&machine, &site.token), &machine)?;
    let (before, tree) = (kept(&machine)?, machine.listing()?);

    let failed = upgrade(&site, &machine, NEXT)?.args(["--output", "json"]).run()?;

    let error = json_of(&failed)?["error"].clone();
    assert_eq!(error["code"], json!(ErrorCode::ServiceFailed.as_str()), "{failed}");
    ensure!(error["details"].get("undoFailed").is_none(), "{failed}");
    let online = |told: &Value| told["session"]["state"] == json!("online");
    wait_for("the worker from before to be online", SOON, || status(&machine), online)?;
    assert_eq!(runs(&machine)?, VERSION);
    assert_eq!(kept(&machine)?, before);
    // systemd gives the service another one at each start.
    is_as_it_was_but(&tree, &machine, |line| line.contains("/systemd-private-"))?;
    let events = site.controller.events(site.id())?;
    let told = events.iter().find(|event| event.kind() == "node.installation_failed");
    let EventBody::InstallationFailed(told) = &told.context("nobody was told")?.event.body else {
        bail!("{told:?}")
    };
    assert_eq!(told.detail.error.code, ErrorCode::ServiceFailed.as_str());
    Ok(())
}
