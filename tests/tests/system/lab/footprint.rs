//! What the daemon costs a machine, and how long an installation takes: measured, printed, and held to the product's limits.

use std::{fs, time::Duration};

use aio_tests::{
    controller::Settings,
    lab::Machine,
    wait::wait_for,
    worker::{processor_time, status_field},
};
use anyhow::{Context, Result};
use serde_json::json;

use super::site::{Site, UNIT, install, json_of, succeed};

const MIB: u64 = 1024 * 1024;
/// Long enough for two heartbeats and a round of metrics at the usual pace, so that their cost is in the figure.
const WATCHED: Duration = Duration::from_secs(65);

#[test]
fn a_daemon_at_rest_with_eight_gpus_is_not_noticed_on_the_machine() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = Machine::boot_alone("footprint")?;
    site.put_command(&machine)?;
    site.put_gpus(&machine)?;
    let command = install(&machine, &site.token);
    let began = std::time::Instant::now();
    succeed(command, &machine)?;
    let installed = began.elapsed();

    let pid = machine.host_pid(&machine.unit_property(UNIT, "MainPID")?)?;
    let status = || Ok(fs::read_to_string(format!("/proc/{pid}/status"))?);
    // The threads of the start-up end after a while; rest begins then.
    let few = |status: &String| {
        status_field(status, "Threads").is_ok_and(|threads| threads.parse().unwrap_or(99) <= 4)
    };
    wait_for("the daemon to come to rest", Duration::from_secs(40), status, few)?;
    let told = machine.command("aio-worker").args(["status", "--output", "json"]).run()?;
    let told = json_of(&told)?;
    assert_eq!(
        (&told["session"]["state"], told["gpus"].as_array().map(Vec::len)),
        (&json!("online"), Some(8))
    );
    let before = processor_time(pid)?;
    let began = std::time::Instant::now();
    std::thread::sleep(WATCHED);
    let spent = processor_time(pid)?.saturating_sub(before);
    let share = 100.0 * spent.as_secs_f64() / began.elapsed().as_secs_f64();
    let status = status()?;
    let rss = status_field(&status, "VmRSS")?.parse::<u64>()? * 1024;
    let threads: u32 = status_field(&status, "Threads")?.parse()?;
    let binary = fs::metadata(site.artifacts.worker()?).context("no binary")?.len();

    println!(
        "footprint: install {:.2} s; at rest: RSS {:.1} MiB, {share:.3} % of a core, {threads} threads; binary {:.2} MB",
        installed.as_secs_f64(),
        rss as f64 / MIB as f64,
        binary as f64 / 1e6
    );
    assert!(installed < Duration::from_secs(3), "the installation took {installed:?}");
    assert!(rss < 12 * MIB, "RSS is {rss} bytes");
    assert!(share < 0.1, "{share} % of a core");
    assert!(threads <= 4, "{threads} threads");
    assert!(binary < 9_000_000, "the binary has {binary} bytes");
    Ok(())
}
