//! Containers of a real machine, seen by a user without rights from inside the daemon's sandbox. What the
//! worker goes by is the name of a control group, so a scope of systemd with a container's name is one, as
//! Docker makes it.

use aio_tests::{artifacts::Artifacts, lab::Machine};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::site::{COMMAND, json_of};
use crate::documented::Documented;

/// What of the unit's sandbox could hide control groups or processes.
const SANDBOX: &str = "-p User=nobody -p CapabilityBoundingSet= -p NoNewPrivileges=yes -p ProtectSystem=strict \
     -p ProtectHome=yes -p PrivateMounts=yes -p ProtectProc=invisible -p ProtectControlGroups=yes -p ProtectKernelTunables=yes";

fn inventory(machine: &Machine) -> Result<Value> {
    let script = format!(
        "systemd-run --quiet --pipe --wait {SANDBOX} /usr/local/bin/aio-worker inventory --output json"
    );
    json_of(&machine.sh(&script).run()?)
}

#[test]
fn a_container_is_seen_from_inside_the_sandbox_with_what_it_uses() -> Result<()> {
    let machine = Machine::boot("containers")?;
    machine.copy_in(&Artifacts::release()?.worker()?, COMMAND, "0755")?;
    machine.sh(&format!("install --mode 0755 {COMMAND} /usr/local/bin/aio-worker")).read()?;
    assert_eq!(inventory(&machine)?["containers"], json!([]));

    let id = "4c".repeat(32);
    let scope = format!("docker-{id}.scope");
    let group = machine
        .sh(&format!(
            "systemd-run --quiet --scope --unit={scope} --property=MemoryMax=64M sleep 3600 </dev/null >/dev/null 2>&1 &
             until systemctl --quiet is-active {scope}; do sleep 0.1; done
             systemctl show --property=ControlGroup --value {scope}"
        ))
        .read()?;
    let found = inventory(&machine)?;
    Documented::of("aio-worker inventory")?.fits(&found)?;
    let one = &found["containers"][0];
    assert_eq!((&one["id"], &one["engine"], &one["restarts"]), (&json!(id), &json!("docker"), &json!(0)));
    // Where the machine counts memory.
    if machine.read(&format!("/sys/fs/cgroup{}/memory.current", group.trim())).is_ok() {
        let memory = one["memoryUsed"].as_u64().context("no memory")?;
        ensure!(memory > 0 && one["memoryLimit"] == 64 << 20 && one["oomKills"] == 0, "{one}");
    }

    machine.command("systemctl").args(["stop", &scope]).read()?;
    assert_eq!(inventory(&machine)?["containers"], json!([]));
    Ok(())
}
