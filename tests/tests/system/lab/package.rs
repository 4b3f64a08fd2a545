//! A machine on which a Debian package has put the program: an installation configures it, and takes back no more than that.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use aio_protocol::error_code::ErrorCode;
use aio_tests::{controller::Settings, lab::Machine};
use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{
    installs::is_as_it_was,
    site::{COMMAND, Site, UNIT, install, json_of, succeed},
};

/// A package with what ours will have: program, unit, and the user's declaration. It is made in this folder.
pub(super) fn build_package(site: &Site, folder: &Path) -> Result<PathBuf> {
    let put = |path: &str, mode: &str, content: &[u8]| -> Result<()> {
        let file = folder.join("root").join(path);
        fs::create_dir_all(file.parent().context("no folder")?)?;
        fs::write(&file, content)?;
        ensure!(Command::new("chmod").arg(mode).arg(&file).status()?.success());
        Ok(())
    };
    put("usr/bin/aio-worker", "0755", &fs::read(site.artifacts.worker()?)?)?;
    put(
        "usr/lib/systemd/system/aio-worker.service",
        "0644",
        include_bytes!("../../../../systemd/aio-worker.service"),
    )?;
    put(
        "usr/lib/sysusers.d/aio-worker.conf",
        "0644",
        include_bytes!("../../../../systemd/aio-worker.sysusers.conf"),
    )?;
    put(
        "DEBIAN/control",
        "0644",
        b"Package: aio-worker\nVersion: 1.0.0\nArchitecture: amd64\nMaintainer: tests <tests@example.org>\nDescription: the worker\n",
    )?;
    put(
        "DEBIAN/postinst",
        "0755",
        b"#!/bin/sh\nset -e\nsystemd-sysusers aio-worker.conf\nsystemctl daemon-reload\n",
    )?;
    let deb = folder.join("aio-worker.deb");
    let built = Command::new("dpkg-deb")
        .args(["--root-owner-group", "--build"])
        .arg(folder.join("root"))
        .arg(&deb)
        .output()?;
    ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Ok(deb)
}

fn install_package(site: &Site, machine: &Machine) -> Result<()> {
    let folder = tempfile::tempdir()?;
    machine.copy_in(&build_package(site, folder.path())?, "/root/aio-worker.deb", "0644")?;
    machine.command("dpkg").args(["--install", "/root/aio-worker.deb"]).read().map(drop)
}

#[test]
fn a_package_is_configured_started_and_left_to_its_package_manager() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = site.machine("package")?;
    install_package(&site, &machine)?;
    let before = machine.listing()?;

    let outcome = json_of(&succeed(install(&machine, &site.token).args(["--output", "json"]), &machine)?)?;
    let steps: Vec<_> =
        outcome["steps"].as_array().context("no steps")?.iter().map(|step| &step["step"]).collect();
    let expected = ["write_config", "write_token", "enable_unit", "start_unit", "await_online"];
    assert_eq!(steps, expected.map(|step| json!(step)).iter().collect::<Vec<_>>());
    site.wait_until_online(&machine)?;
    let program =
        machine.sh(&format!("readlink /proc/$(systemctl show --value -p MainPID {UNIT})/exe")).read()?;
    assert_eq!(program.trim(), "/usr/bin/aio-worker");

    succeed(machine.command("aio-worker").args(["uninstall", "--purge"]), &machine)?;
    is_as_it_was(&before, &machine)
}

#[test]
fn a_package_beside_an_installation_is_told_and_never_two_workers() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = site.machine("package-beside")?;
    succeed(install(&machine, &site.token), &machine)?;
    install_package(&site, &machine)?;

    let outcome = machine.command(COMMAND).args(["install", "--token", &site.token]).run()?;

    ensure!(outcome.status == Some(i32::from(ErrorCode::PackageConflict.exit_status())), "{outcome}");
    ensure!(outcome.stderr.contains("/etc/systemd/system/aio-worker.service"), "{outcome}");
    let workers =
        machine.sh("grep --files-with-matches --line-regexp aio-worker /proc/[0-9]*/comm").read()?;
    assert_eq!(workers.lines().count(), 1, "{workers}");
    Ok(())
}
