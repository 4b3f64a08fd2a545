//! Power cuts in an installation, and right after it. Those of an update are among its own tests.

use aio_tests::{artifacts::VERSION, controller::Settings, lab::Machine};
use anyhow::{Context, Result, ensure};

use super::{
    site::{Site, UNIT, install, succeed},
    upgrade::runs,
};

/// How many of the copies are booted that were taken in mid-installation.
const BOOTS: usize = 4;

#[test]
fn an_installation_that_loses_its_power_is_made_good_and_one_that_has_ended_is_on_the_disk() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let mut machine = Machine::boot_with_disk("power")?;
    site.put_command(&machine)?;
    machine.sh("sync").read()?;
    let copies = machine.copy_disk_while(
        "install",
        || (),
        || succeed(install(&machine, &site.token), &machine).map(drop),
    )?;
    let (last, ()) = copies.last().context("no copy")?;
    machine.cut_power_at(last)?;
    site.wait_until_online(&machine).context("what ended with success is not on the disk")?;
    assert_eq!(runs(&machine)?, VERSION);

    let step = copies.len().div_ceil(BOOTS);
    for (copy, ()) in copies.iter().step_by(step) {
        machine.cut_power_at(copy)?;
        succeed(install(&machine, &site.token), &machine).with_context(|| copy.clone())?;
        site.wait_until_online(&machine).with_context(|| copy.clone())?;
        let failed = machine.command("systemctl").args(["is-failed", UNIT]).run()?;
        ensure!(failed.stdout.trim() == "active" && runs(&machine)? == VERSION, "{copy}: {failed}");
    }
    println!("power: {} copies of an installation", copies.len());
    Ok(())
}
