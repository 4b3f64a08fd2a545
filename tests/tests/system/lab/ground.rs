//! The lab itself: what other tests take for granted of a machine.

use aio_tests::{artifacts::target_dir, lab::Machine};

#[test]
fn a_machine_boots_runs_commands_and_keeps_its_disk_over_a_reboot() -> anyhow::Result<()> {
    let mut machine = Machine::boot("ground")?;
    assert_eq!(machine.read("/proc/1/comm")?, "systemd\n");
    assert_eq!(machine.command("hostname").read()?.trim(), machine.name());
    machine.write("/etc/kept/by the test", "0640", "kept")?;
    assert_eq!(machine.sh("exit 7").run()?.status, Some(7));
    assert_eq!(machine.command("cat").input("read").read()?, "read");
    let first = machine.sh("cat /proc/sys/kernel/random/boot_id").read()?;
    machine.reboot()?;
    assert_ne!(machine.sh("cat /proc/sys/kernel/random/boot_id").read()?, first);
    assert_eq!(machine.read("/etc/kept/by the test")?, "kept");
    machine.power_off()
}

#[test]
fn a_listing_shows_every_change_on_the_disk_and_none_that_was_not_made() -> anyhow::Result<()> {
    let machine = Machine::boot("listing")?;
    let before = machine.listing()?;
    assert_eq!(before.changes_to(&machine.listing()?), "");
    machine.sh("touch /usr/local/new; chmod 0600 /etc/fstab; echo x >> /etc/profile; rm /etc/issue; ln -s a /opt/link").read()?;
    let changes = before.changes_to(&machine.listing()?);
    for change in [
        "new: /usr/local/new\n",
        "changed: /etc/fstab\n",
        "changed: /etc/profile\n",
        "gone: /etc/issue\n",
        "new: /opt/link\n",
    ] {
        assert!(changes.contains(change), "{change} is missing in\n{changes}");
    }
    assert_eq!(
        changes.matches("new: ").count()
            + changes.matches("gone: ").count()
            + changes.matches("changed: ").count(),
        5,
        "{changes}"
    );
    Ok(())
}

#[test]
fn a_panic_leaves_no_machine_behind() -> anyhow::Result<()> {
    let panic = std::panic::catch_unwind(|| {
        let machine = Machine::boot("panic").unwrap();
        std::panic::panic_any(machine.name().to_owned());
    });
    let name = *panic.unwrap_err().downcast::<String>().unwrap();
    let mut processes = std::fs::read_dir("/proc")?.flatten();
    let left = processes.find(|process| {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&name)
    });
    assert!(left.is_none(), "{left:?}");
    let folder = target_dir()?.join("lab/run").join(&name);
    assert!(!folder.exists(), "{}", folder.display());
    Ok(())
}
