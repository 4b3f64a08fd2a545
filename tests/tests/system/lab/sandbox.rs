//! What the unit takes from the daemon, tried from inside: a probe in the daemon's place, under the
//! shipped unit in which nothing but the program is another. What the unit cannot take, the daemon
//! gives up itself.

use std::collections::BTreeMap;

use aio_tests::{controller::Settings, lab::Machine, worker::status_field};
use anyhow::{Context, Result, ensure};

use super::site::{SOON, Site, UNIT, install, json_of, succeed};

/// Everything that the probe tries, and whether it may succeed. The daemon's own needs are among
/// them: a sandbox in which nothing works proves nothing.
const TRIALS: &[(&str, &str, bool)] = &[
    ("write its state", "echo > \"$STATE_DIRECTORY/x\"", true),
    ("write its runtime folder", "echo > \"$RUNTIME_DIRECTORY/x\"", true),
    ("read its token", "grep -q . \"$CREDENTIALS_DIRECTORY/token\"", true),
    ("read the load", "grep -q MemTotal /proc/meminfo && grep -q cpu /proc/stat", true),
    ("read its configuration", "grep -q '' /etc/aio-worker/config.toml", true),
    ("open a GPU that has no driver yet", "opens /dev/nvidia0", true),
    ("open the control device that has no driver yet", "opens /dev/nvidiactl", true),
    ("write /etc", "echo > /etc/probe", false),
    ("write /usr", "echo > /usr/local/probe", false),
    ("write where everybody may", "echo > /var/everybody/probe", false),
    ("read a home", "ls /home/somebody", false),
    ("read the home of root", "ls /root", false),
    ("read the installed token", "cat /etc/aio-worker/token", false),
    ("see /tmp of the machine", "test -e /tmp/of-the-machine", false),
    ("set a kernel parameter", "echo 1 > /proc/sys/kernel/panic", false),
    ("make a control group", "mkdir /sys/fs/cgroup/probe", false),
    ("open a foreign device", "echo > /dev/foreign", false),
    ("make a device", "mknod \"$STATE_DIRECTORY/device\" c 195 0", false),
    ("become root", "test \"$(/usr/local/bin/id-as-root -u)\" = 0", false),
    ("make a namespace", "unshare --user true", false),
    ("mount", "mount -t tmpfs none /mnt", false),
    ("give a file away", "chown nobody \"$STATE_DIRECTORY/x\"", false),
    ("change its priority", "renice -n 1 $$", false),
    ("make a setuid file", "chmod u+s \"$STATE_DIRECTORY/x\"", false),
];

/// Whether an open was let through to a driver that is not there. `Operation not permitted` is the
/// sandbox's word, and nobody else's here.
const OPENS: &str = "opens() { cat \"$1\" 2>&1 | tee /dev/stderr | grep -q 'No such device'; }";

/// Puts a script in the daemon's place and runs it: the unit is the shipped one but for its
/// program, and that it ends.
fn probe(machine: &Machine, script: &str) -> Result<()> {
    machine.write("/usr/local/lib/probe", "0755", script)?;
    let drop_in = "[Service]\nExecStart=\nExecStart=/bin/sh /usr/local/lib/probe\nType=oneshot\nRestart=no\nWatchdogSec=0\n";
    machine.write("/run/systemd/system/aio-worker.service.d/probe.conf", "0644", drop_in)?;
    machine.command("systemctl").args(["daemon-reload"]).read()?;
    let outcome = machine.command("systemctl").args(["restart", UNIT]).run()?;
    ensure!(outcome.status == Some(0), "{outcome}\n{}", machine.journal(UNIT));
    Ok(())
}

fn unprobed(machine: &Machine) -> Result<()> {
    let script = format!(
        "rm -r /run/systemd/system/aio-worker.service.d; systemctl daemon-reload; systemctl restart {UNIT}"
    );
    machine.sh(&script).read().map(drop)
}

/// What the sandbox must keep the probe from, made so that nothing but the sandbox keeps it.
fn temptations(machine: &Machine) -> Result<()> {
    let script = "
        mkdir --mode 0777 --parents /home/somebody /var/everybody
        echo > /tmp/of-the-machine
        chmod 0755 /root
        install --mode 4755 /usr/bin/id /usr/local/bin/id-as-root
        mknod --mode 0666 /dev/nvidia0 c 195 0
        mknod --mode 0666 /dev/nvidiactl c 195 255
        mknod --mode 0666 /dev/foreign c 1 11
        user='setpriv --reuid aio-worker --regid aio-worker --clear-groups'
        $user sh -c 'ls /home/somebody /root && echo > /var/everybody/x && echo > /dev/foreign'
        test \"$($user /usr/local/bin/id-as-root -u)\" = 0
    ";
    machine.sh(script).read().map(drop)
}

#[test]
fn from_inside_nothing_can_be_done_but_what_the_daemon_does() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = site.machine("sandbox")?;
    succeed(install(&machine, &site.token), &machine)?;
    temptations(&machine)?;

    let trials: String = TRIALS
        .iter()
        .map(|(name, script, _)| {
            format!("if ( {script} ) >\"$RUNTIME_DIRECTORY/said\" 2>&1; then echo '{name}: yes'; else echo '{name}: no'; fi; sed 's/^/# /' \"$RUNTIME_DIRECTORY/said\"\n")
        })
        .collect();
    probe(&machine, &format!("{OPENS}\nexec >\"$STATE_DIRECTORY/found\"\n{trials}cat /proc/self/status\n"))?;

    let found = machine.read("/var/lib/aio-worker/found")?;
    let answers: BTreeMap<_, _> = found.lines().filter_map(|line| line.split_once(": ")).collect();
    let mut wrong = vec![];
    for (name, _, may) in TRIALS {
        let answer = answers.get(name).with_context(|| format!("`{name}` was not tried:\n{found}"))?;
        if *answer != (if *may { "yes" } else { "no" }) {
            wrong.push(format!("{name}: {answer}"));
        }
    }
    ensure!(wrong.is_empty(), "{wrong:#?}\n{found}\n{}", machine.journal(UNIT));
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status_field(&found, set)?, "0000000000000000", "{set}");
    }
    assert_eq!(
        (status_field(&found, "NoNewPrivs")?, status_field(&found, "Seccomp")?),
        ("1".to_owned(), "2".to_owned())
    );

    // The daemon in the same place has one filter more: it cannot execute anything any more.
    let filters = |status: &str| Ok::<u32, anyhow::Error>(status_field(status, "Seccomp_filters")?.parse()?);
    unprobed(&machine)?;
    site.wait_until_online(&machine)?;
    let pid = machine.unit_property(UNIT, "MainPID")?;
    let tasks = machine.sh(&format!("for task in /proc/{pid}/task/*; do cat $task/status; done")).read()?;
    let threads: Vec<_> = tasks.split("Name:").filter(|text| !text.trim().is_empty()).collect();
    ensure!(threads.len() >= 2, "the daemon has one thread: {tasks}");
    for thread in threads {
        assert_eq!(filters(thread)?, filters(&found)? + 1, "{thread}");
    }
    let journal = machine.journal(UNIT);
    ensure!(!journal.contains("take the right"), "{journal}");
    Ok(())
}

#[test]
fn systemd_rates_the_service_at_most_one_and_a_half() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = site.machine("rated")?;
    succeed(install(&machine, &site.token), &machine)?;
    let report = machine.command("systemd-analyze").args(["security", "--no-pager", UNIT]).read()?;
    let last =
        report.lines().rev().find(|line| line.contains("Overall exposure level")).context("no level")?;
    let level =
        last.split(": ").nth(1).and_then(|rest| rest.split_whitespace().next()).context("no figure")?;
    let version = machine.command("systemctl").args(["--version"]).read()?;
    println!("exposure: {level} on {}", version.lines().next().unwrap_or_default());
    ensure!(level.parse::<f64>()? <= 1.5, "{report}");
    Ok(())
}

#[test]
fn the_driver_s_library_works_inside_wherever_it_lies() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = site.machine("library")?;
    site.put_gpus(&machine)?;
    succeed(install(&machine, &site.token), &machine)?;
    let gpus = |machine: &Machine| -> Result<Option<usize>> {
        let told = machine.command("aio-worker").args(["status", "--output", "json"]).run()?;
        Ok(json_of(&told)?["gpus"].as_array().map(Vec::len))
    };
    let eight = |count: &Option<usize>| *count == Some(8);
    let seen = || gpus(&machine);
    aio_tests::wait::wait_for("the GPUs of a library in /opt", SOON, seen, eight)?;

    let script = format!(
        "folder=$(dirname $(ldconfig -p | sed -n 's/.*libc.so.6.*=> //p' | head -n 1))
        cp /opt/fake-nvml/libnvidia-ml.so.1* \"$folder\"
        rm -r /opt/fake-nvml; echo > /etc/aio-worker/config.toml; ldconfig
        systemctl restart {UNIT}"
    );
    machine.sh(&script).read()?;
    aio_tests::wait::wait_for("the GPUs of a library at its usual place", SOON, seen, eight)?;
    Ok(())
}

#[test]
fn the_driver_is_loaded_as_root_where_that_can_be_done_and_where_it_cannot_the_daemon_runs_all_the_same()
-> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = site.machine("modprobe")?;
    succeed(install(&machine, &site.token), &machine)?;
    site.wait_until_online(&machine)?;
    let errors = format!("journalctl --no-pager --output=cat --priority=err --unit {UNIT}");
    let errors = machine.sh(&errors).read()?;
    // systemd 247 runs nothing before a program with credentials, and says so.
    let of_247 = |line: &str| {
        line.contains("/run/credentials/") || line.contains("Failed at step NAMESPACE spawning sh")
    };
    let version = machine.command("systemctl").args(["--version"]).read()?;
    let unexpected: Vec<_> =
        errors.lines().filter(|line| !(version.starts_with("systemd 247") && of_247(line))).collect();
    ensure!(unexpected.is_empty(), "without nvidia-modprobe: {unexpected:?}");

    let tool = "#!/bin/sh\necho \"$(id --user) $*\" >> /run/modprobe\nmknod --mode 0666 /dev/nvidiactl c 195 255\nexit 3\n";
    machine.write("/usr/bin/nvidia-modprobe", "0755", tool)?;
    machine.command("systemctl").args(["restart", UNIT]).read()?;
    assert_eq!(machine.read("/run/modprobe")?, "0 -c=0 -c=255\n", "{}", machine.journal(UNIT));
    assert_eq!(machine.sh("stat --format='%t %T' /dev/nvidiactl").read()?.trim(), "c3 ff");
    assert_eq!(machine.unit_property(UNIT, "ActiveState")?, "active", "that it failed is nobody's end");
    Ok(())
}
