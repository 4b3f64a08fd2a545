//! Power cuts in mid-update. These tests take their time, so they run once, with the lab's usual system;
//! `AIO_LAB_SUITE` runs them on another.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use aio_installer::checksum;
use aio_protocol::update::{RootPhase, RootStatus, Verdict};
use aio_tests::{
    artifacts::{VERSION, WORKER_FILE},
    lab::Machine,
    wait::wait_for,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{NEXT, Publisher, SOON, UNIT, UPDATE, Updated, runs, sound, status_of, succeed};

#[test]
fn an_update_that_loses_its_power_is_taken_back_before_it_is_online_and_watched_on_after() -> Result<()> {
    let mut node = Updated::new("updates-power", 5)?;
    // The new version hangs before it says that it is ready, so that the power fails there.
    node.publish("v1.1.1", |place| {
        Publisher::override_unit(place, "[Service]\nExecStart=\nExecStart=/bin/sleep 1000")
    })?;
    let rollout = node.ask_for("v1.1.1")?;
    node.wait_for_phase(RootPhase::Switching)?;
    wait_for(
        "the new version to be started",
        UPDATE,
        || runs_or_not(&node.machine),
        |runs| runs.contains("sleep"),
    )?;
    node.machine.cut_power()?;
    assert_eq!(node.verdict("v1.1.1")?.0, Verdict::Interrupted, "{}", node.journals());
    assert_eq!(runs(&node.machine)?, VERSION);

    // It would be tried again in ten minutes.
    node.site.controller.order(&format!("/rollouts/{rollout}/abort"), &serde_json::json!({}))?;
    node.publish("v1.2.0", sound)?;
    node.ask_for("v1.2.0")?;
    node.wait_for_phase(RootPhase::Probation)?;
    node.machine.cut_power()?;
    assert_eq!(node.verdict("v1.2.0")?, (Verdict::Succeeded, None), "{}", node.journals());
    assert_eq!(runs(&node.machine)?, "v1.2.0");
    Ok(())
}

fn runs_or_not(machine: &Machine) -> Result<String> {
    let pid = machine.unit_property(UNIT, "MainPID")?;
    machine.sh(&format!("tr '\\0' ' ' < /proc/{pid}/cmdline || true")).read()
}

/// How many of the copies that show the same phase are booted; `cargo xtask load power` says 1000, which is
/// all.
const BOOTS: &str = "AIO_POWER_BOOTS";

#[test]
fn a_disk_that_loses_its_power_at_any_moment_boots_a_whole_worker() -> Result<()> {
    let boots = std::env::var(BOOTS).ok().and_then(|boots| boots.parse().ok()).unwrap_or(1);
    let mut node = Updated::on(Machine::boot_with_disk("updates-disk")?, 1)?;
    node.publish(NEXT, sound)?;

    let phase = || {
        let status = node.machine.peek("/var/lib/aio-worker-update/status.json").ok()?;
        Some(serde_json::from_slice::<RootStatus>(&status).ok()?.phase)
    };
    let there = node.machine.copy_disk_while("there", phase, || {
        node.ask_for(NEXT)?;
        assert_eq!(node.verdict(NEXT)?, (Verdict::Succeeded, None), "{}", node.journals());
        Ok(())
    })?;
    let back = node.machine.copy_disk_while("back", phase, || {
        let back = node.machine.command("aio-worker").args(["update", "revert"]).bound(UPDATE);
        succeed(back, &node.machine).map(drop)
    })?;
    for (way, copies) in [("there", there), ("back", back)] {
        let mut versions = BTreeSet::new();
        for same_phase in copies.chunk_by(|(_, one), (_, next)| one == next) {
            let step = same_phase.len().div_ceil(boots);
            let mut ends = BTreeMap::<_, u32>::new();
            for (name, phase) in same_phase.iter().step_by(step) {
                node.machine.cut_power_at(name)?;
                let end = node.boots_whole();
                let end = end.with_context(|| format!("{name}, {phase:?}: {}", node.journals()))?;
                *ends.entry(end).or_default() += 1;
            }
            let phase = same_phase.first().and_then(|(_, phase)| *phase);
            println!("power: {way}, {} copies at {phase:?}, booted: {ends:?}", same_phase.len());
            versions.extend(ends.into_keys().map(|(version, _)| version));
        }
        ensure!(versions.iter().eq([VERSION, NEXT]), "{way}: {versions:?}");
    }
    Ok(())
}

impl Updated {
    /// Waits until the update has been taken up or back and the worker is online; then every file of the
    /// version that runs is the one that was published. Says which version it is, and what the update
    /// came to.
    fn boots_whole(&self) -> Result<(String, String)> {
        // What lies ready stays, until the controller lets it on or another comes.
        let resting = |status: &RootStatus| matches!(status.phase, RootPhase::Idle | RootPhase::Staged);
        let at_rest = self.wait_for_root("root to be at rest", resting)?;
        let online = |told: &Value| told["session"]["state"] == json!("online");
        wait_for("the worker to be online", SOON, || status_of(&self.machine), online)?;
        let version = runs(&self.machine)?;
        let published = fs::read(self.site.releases().join(&version).join(WORKER_FILE))?;
        let installed = format!("/usr/local/lib/aio-worker/{version}/aio-worker");
        let sum = self.machine.command("sha256sum").args([installed]).read()?;
        ensure!(sum.starts_with(checksum(&published).to_string().trim_start_matches("sha256:")), "{sum}");
        let came_to = at_rest.last.map(|last| format!("{} {:?}", last.version, last.verdict));
        Ok((version, came_to.unwrap_or_default()))
    }
}
