//! Installing where no release server is reached, and where nobody is: from a bundle that stock
//! tools open and verify.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use aio_protocol::{error_code::ErrorCode, node::NodeStatus};
use aio_tests::{
    artifacts::{Artifacts, VERSION, WORKER_FILE},
    controller::Settings,
    release_server::{Behaviour, ReleaseServer},
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::site::{COMMAND, Site, UNIT, install, json_of, succeed};

/// A site whose releases are signed with a key that its tokens carry, by the stock tool.
struct Signed {
    site: Site,
    /// Where they are downloaded from.
    server: ReleaseServer,
    keys: TempDir,
}

impl Signed {
    fn new() -> Result<Self> {
        let keys = tempfile::tempdir()?;
        let public = keys.path().join("release.pub");
        minisign(keys.path(), &["-G", "-W", "-p", "release.pub", "-s", "release.key"])?;
        let text = fs::read_to_string(public)?;
        let key = text.lines().nth(1).context("a public key of one line")?;
        let server = ReleaseServer::start(fs::read(Artifacts::release()?.worker()?)?)?;
        let settings =
            Settings::default().env("RELEASE_PUBLIC_KEY", key).env("RELEASE_BASE_URL", &server.url());
        // Releases are signed before the token is made: it pins what was published then.
        let site = Site::with_releases(settings, |releases| {
            let file = releases.join(VERSION).join(WORKER_FILE);
            let label = format!("file:{WORKER_FILE} version:{VERSION}");
            minisign(
                keys.path(),
                &["-S", "-s", "release.key", "-t", &label, "-m", &file.display().to_string()],
            )
        })?;
        Ok(Self { site, server, keys })
    }

    /// `aio-worker bundle` on this computer.
    fn bundle(&self) -> Result<PathBuf> {
        let file = self.keys.path().join("bundle.tar");
        let output = Command::new(self.site.artifacts.worker()?)
            .args(["bundle", "--output", "json", "--file"])
            .arg(&file)
            .env_clear()
            .env("AIO_NODE_TOKEN", &self.site.token)
            .output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let told: Value = serde_json::from_slice(&output.stdout)?;
        assert_eq!((&told["version"], &told["signed"]), (&VERSION.into(), &true.into()), "{told}");
        Ok(file)
    }
}

fn minisign(folder: &Path, arguments: &[&str]) -> Result<()> {
    let output = Command::new("minisign").args(arguments).current_dir(folder).output();
    let output = output.context("cannot run minisign; `cargo xtask test` installs it")?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn a_bundle_is_an_archive_that_stock_tools_open_and_verify() -> Result<()> {
    let signed = Signed::new()?;
    let bundle = signed.bundle()?;
    let folder = signed.keys.path();
    let listed = Command::new("tar").arg("-tf").arg(&bundle).output()?;
    assert_eq!(String::from_utf8(listed.stdout)?, format!("release.json\n{WORKER_FILE}\n"));
    ensure!(Command::new("tar").arg("-xf").arg(&bundle).current_dir(folder).status()?.success());
    let manifest: Value = serde_json::from_slice(&fs::read(folder.join("release.json"))?)?;
    fs::write(folder.join("x.minisig"), manifest["signature"].as_str().context("no signature")?)?;
    minisign(folder, &["-V", "-p", "release.pub", "-x", "x.minisig", "-m", WORKER_FILE])?;
    assert_eq!(fs::read(folder.join(WORKER_FILE))?, fs::read(Artifacts::release()?.worker()?)?);

    // What is there is not replaced.
    let again = Command::new(signed.site.artifacts.worker()?)
        .args(["bundle", "--token", &signed.site.token, "--file"])
        .arg(&bundle)
        .output()?;
    assert_eq!(again.status.code(), Some(ErrorCode::FileFailed.exit_status().into()), "{again:?}");
    Ok(())
}

#[test]
fn a_machine_without_release_server_is_installed_from_a_bundle() -> Result<()> {
    let signed = Signed::new()?;
    let site = &signed.site;
    let machine = site.machine("bundle")?;
    machine.copy_in(&signed.bundle()?, "/root/bundle.tar", "0600")?;
    signed.server.behave(Behaviour::Status(404));

    let outcome = install(&machine, &site.token).run()?;
    ensure!(outcome.status == Some(i32::from(ErrorCode::ReleaseNotFound.exit_status())), "{outcome}");
    succeed(install(&machine, &site.token).args(["--bundle", "/root/bundle.tar"]), &machine)?;
    site.wait_until_online(&machine).map(drop)
}

#[test]
fn an_image_is_prepared_without_any_network_and_connects_with_its_first_boot() -> Result<()> {
    let mut signed = Signed::new()?;
    let bundle = signed.bundle()?;
    let mut machine = signed.site.machine("image")?;
    machine.copy_in(&bundle, "/root/bundle.tar", "0600")?;
    signed.site.controller.kill()?;
    let before = machine.listing()?;
    let prepare = |more: &[&str]| {
        let arguments = ["--bundle", "/root/bundle.tar", "--delay-connect", "--output", "json"];
        install(&machine, &signed.site.token).args(arguments).args(more.iter().copied())
    };

    // Nobody but the key vouches for it.
    let other = signed.keys.path().join("other");
    fs::create_dir(&other)?;
    minisign(&other, &["-G", "-W", "-p", "release.pub", "-s", "release.key"])?;
    machine.copy_in(&other.join("release.pub"), "/root/other.pub", "0644")?;
    let outcome = prepare(&["--release-key", "/root/other.pub"]).run()?;
    ensure!(outcome.stdout.contains("SIGNATURE_FOREIGN"), "{outcome}");
    machine.command("rm").args(["/root/other.pub"]).read()?;
    assert_eq!(before.changes_to(&machine.listing()?), "");

    let prepared = json_of(&succeed(prepare(&[]), &machine)?)?;
    assert_eq!(prepared["outcome"], "prepared", "{prepared}");
    assert_eq!(machine.unit_property(UNIT, "ActiveState")?, "inactive");
    assert_eq!(machine.unit_property(UNIT, "UnitFileState")?, "enabled");

    signed.site.controller.start_again()?;
    assert_eq!(signed.site.controller.node(signed.site.id())?.status, NodeStatus::Pending);
    machine.reboot()?;
    signed.site.wait_until_online(&machine)?;
    succeed(machine.command(COMMAND).args(["uninstall", "--purge"]), &machine).map(drop)
}
