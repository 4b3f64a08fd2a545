//! needrestart, which Ubuntu runs after every upgrade: it restarts services whose libraries were
//! replaced, and not the worker, though it sees it.

use std::time::Duration;

use aio_tests::{controller::Settings, lab::Machine};
use anyhow::{Result, ensure};

use super::{
    package::installed,
    site::{Site, UNIT, succeed},
};

/// It looks at every process.
const PATIENCE: Duration = Duration::from_secs(60);

/// Another service, to see that services are restarted.
const OTHER: &str = "other.service";

#[test]
fn an_upgrade_of_the_machine_restarts_other_services_and_lists_the_worker() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = Machine::boot_for_provisioning("needrestart")?;
    installed(&machine, &site.artifacts.package("aio-worker")?)?;
    succeed(machine.command("aio-worker").args(["install", "--token", &site.token]), &machine)?;
    let unit = "[Service]\nExecStart=sleep infinity\n";
    machine.write(&format!("/etc/systemd/system/{OTHER}"), "0644", unit)?;
    succeed(machine.command("systemctl").args(["start", OTHER]), &machine)?;
    let process = |unit| machine.unit_property(unit, "MainPID");
    let (worker, other) = (process(UNIT)?, process(OTHER)?);

    let replace = "for library in $(ldd /usr/bin/sleep | grep -o '/[^ ]*/libc[.]so[.]6'); do cp -p $library $library.new && mv $library.new $library; done";
    succeed(machine.sh(replace), &machine)?;
    let listed = machine.command("needrestart").args(["-b", "-r", "l"]).bound(PATIENCE).read()?;
    for unit in [UNIT, OTHER] {
        ensure!(listed.contains(&format!("NEEDRESTART-SVC: {unit}")), "{listed}");
    }
    succeed(machine.command("needrestart").args(["-q", "-r", "a"]).bound(PATIENCE), &machine)?;
    assert_ne!(process(OTHER)?, other, "needrestart has restarted nothing");
    assert_eq!(process(UNIT)?, worker, "the worker was restarted");
    site.wait_until_online(&machine)?;
    Ok(())
}
