//! Debian's cloud-init with the user-data that the controller prints, on a machine's first boot as
//! an instance of a cloud.

use aio_protocol::node::NodeStatus;
use aio_tests::{
    controller::Settings,
    lab::{Machine, Outcome},
};
use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};

use super::site::{SOON, Site, UNIT};

/// The machine is made the instance `id` with this user-data, and booted as that.
fn boot_as(machine: &mut Machine, id: &str, user_data: &str) -> Result<Outcome> {
    const SEED: &str = "/var/lib/cloud/seed/nocloud";
    machine.write(&format!("{SEED}/meta-data"), "0600", format!("instance-id: {id}\n"))?;
    machine.write(&format!("{SEED}/user-data"), "0600", user_data)?;
    machine.command("rm").args(["-f", "/etc/cloud/cloud-init.disabled"]).read()?;
    machine.reboot()?;
    machine.command("cloud-init").args(["status", "--wait", "--long"]).run()
}

/// The script within user-data, and the token within that.
fn script_and_token(user_data: &str) -> Result<(String, String)> {
    let encoded = user_data.lines().find_map(|line| line.trim().strip_prefix("content: "));
    let script = String::from_utf8(STANDARD.decode(encoded.context("no script")?)?)?;
    let token = script.lines().find(|line| line.starts_with("ey")).context("no token")?.to_owned();
    Ok((script, token))
}

#[test]
fn a_first_boot_brings_the_node_online_and_a_broken_token_is_cloud_inits_error() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let mut machine = Machine::boot_for_provisioning("cloud-init")?;
    let user_data = site.controller.added_as("cloud-init", &["gpu-001"])?;
    let node = site.controller.node_named("gpu-001")?.id;
    let (script, token) = script_and_token(&user_data)?;

    let broken = STANDARD.encode(script.replace(&token, &format!("{token}x")));
    let failed = boot_as(&mut machine, "broken", &user_data.replace(&STANDARD.encode(&script), &broken))?;
    ensure!(failed.status != Some(0) && failed.stdout.contains("status: error"), "{failed}");
    let log = machine.read("/var/log/cloud-init-output.log")?;
    ensure!(log.contains("error[TOKEN_INVALID]"), "{log}");
    assert_eq!(site.controller.node(&node)?.status, NodeStatus::Pending);

    let done = boot_as(&mut machine, "first", &user_data)?;
    let log = || machine.read("/var/log/cloud-init-output.log").unwrap_or_default();
    ensure!(done.status == Some(0) && done.stdout.contains("status: done"), "{done}\n{}", log());
    // It was online before cloud-init was done, so nobody waits.
    let online = site.controller.node(&node)?;
    ensure!(online.status == NodeStatus::Online, "{online:?}\n{}", machine.journal(UNIT));
    let left = machine.command("test").args(["-e", "/run/aio-worker-setup"]).run()?;
    ensure!(left.status == Some(1), "the script with the token is still there");
    let seen = machine.sh(&format!(
        "find / -xdev -type f -perm /o=r -print0 | xargs -0 grep --files-with-matches --fixed-strings -e {token} -e {} || true",
        &STANDARD.encode(&script)[..200]
    ));
    assert_eq!(seen.read()?, "", "files that everybody may read hold the token");

    machine.reboot()?;
    site.controller
        .wait_for_status(&node, NodeStatus::Online, SOON)
        .with_context(|| machine.journal(UNIT))?;
    Ok(())
}
