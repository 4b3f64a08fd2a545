//! What the daemon costs a machine, and how long an installation takes: measured, printed, and held
//! to the product's limits.

use std::{
    fs,
    time::{Duration, Instant, SystemTime},
};

use aio_protocol::{
    event::{EventKind, NodeEvent},
    ids::NodeId,
    node::NodeStatus,
    time::Timestamp,
};
use aio_tests::{
    controller::Settings,
    lab::{Inside, Machine, Outcome},
    wait::wait_for,
    worker::status_field,
};
use anyhow::{Context, Result};
use serde_json::json;

use super::site::{SOON, Site, UNIT, install, json_of, succeed};

mod meter;
mod side_by_side;

use meter::{Cost, Meter};

const MIB: u64 = 1024 * 1024;
/// Long enough for two heartbeats and a round of metrics at the usual pace, so that their cost is
/// in the figure.
const WATCHED: Duration = Duration::from_secs(65);
/// The loop, the GPU driver's, and one that asks the machine.
const THREADS: u32 = 3;
/// The same without a driver.
const BARE: &str = "bare.service";

/// Costs what the daemon cannot save where this test runs: it wakes up four times a second, as the daemon
/// does at most, asks the kernel three things each time, and with each heartbeat 700 more, as the fake driver
/// does, which looks at its scenario at each call. On a virtual machine all of that costs many times what it
/// does on metal, and another amount every hour.
const YARDSTICK: &str = r#"
for (my $turn = 0; ; $turn++) {
    select undef, undef, undef, 0.25;
    stat "/etc"; stat "/usr"; stat "/none";
    if ($turn % 120 == 60) { stat "/etc" for 1 .. 700 }
}"#;

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
    let threads = || -> Result<u32> {
        Ok(status_field(&fs::read_to_string(format!("/proc/{pid}/status"))?, "Threads")?.parse()?)
    };
    // The threads of the start-up end after a while; rest begins then.
    wait_for("the daemon to come to rest", Duration::from_secs(20), threads, |threads| *threads <= THREADS)?;
    let told = machine.command("aio-worker").args(["status", "--output", "json"]).run()?;
    let told = json_of(&told)?;
    assert_eq!(
        (&told["session"]["state"], told["gpus"].as_array().map(Vec::len)),
        (&json!("online"), Some(8))
    );
    let bare = site.controller.register("bare")?;
    start_bare(&site, &machine, &bare.id)?;
    machine.command("systemd-run").args(["--unit=yardstick", "perl", "-e", YARDSTICK]).read()?;
    let (meter, yardstick) = (Meter::begin(&machine, UNIT)?, Meter::begin(&machine, "yardstick.service")?);
    let bare = Meter::begin(&machine, BARE)?;
    std::thread::sleep(WATCHED);
    let bare = bare.read(&machine)?;
    // A question to the machine may just be under way.
    wait_for("the daemon to be at rest again", Duration::from_secs(5), threads, |threads| {
        *threads <= THREADS
    })?;
    let Cost { resident, share, threads, wakeups, .. } = meter.read(&machine)?;
    let waiting = yardstick.read(&machine)?.share;
    let rss = resident * 1024;
    let binary = fs::metadata(site.artifacts.worker()?).context("no binary")?.len();
    let installer = fs::metadata(site.artifacts.installer()?).context("no installer")?.len();

    println!(
        "footprint: install {:.2} s; at rest: RSS {:.1} MiB, {share:.3} % of a core ({waiting:.3} % for a yardstick), {threads} threads, {wakeups:.0} wake-ups a minute; binary {:.2} MB, installer {:.2} MB",
        installed.as_secs_f64(),
        rss as f64 / MIB as f64,
        binary as f64 / 1e6,
        installer as f64 / 1e6
    );
    assert!(installed < Duration::from_secs(3), "the installation took {installed:?}");
    assert!(rss < 12 * MIB, "RSS is {rss} bytes");
    assert!(share < f64::max(0.05, 2.0 * waiting), "{share} % of a core, {waiting} % for a yardstick");
    assert!(threads <= THREADS, "{threads} threads");
    println!(
        "footprint without a GPU driver: RSS {:.1} MiB, {:.3} % of a core, {} threads, {:.0} wake-ups a minute",
        bare.resident as f64 / 1024.0,
        bare.share,
        bare.threads,
        bare.wakeups
    );
    assert!(bare.resident < 10 * 1024, "{bare:?}");
    assert!(bare.share < f64::max(0.03, waiting), "{bare:?}, {waiting} % for a yardstick");
    assert!(bare.threads <= 2, "{bare:?}");
    assert!(bare.wakeups < 60.0, "{bare:?}");
    assert!(binary < 10_000_000, "the binary has {binary} bytes");
    assert!(installer < 5_000_000, "the installer has {installer} bytes");
    Ok(())
}

/// Starts a second daemon on this machine, for the node `id`, and waits until it is online and at rest.
fn start_bare(site: &Site, machine: &Machine, id: &NodeId) -> Result<()> {
    let token = site.controller.token(id, &json!({}))?.token;
    machine.write("/etc/bare/token", "0600", token)?;
    machine.write("/etc/bare/config.toml", "0644", "nvml_library = \"/nowhere/libnvidia-ml.so.1\"\n")?;
    let mut daemon = vec!["--unit=bare", "/usr/local/bin/aio-worker", "start"];
    daemon.extend(["--token-file", "/etc/bare/token", "--config", "/etc/bare/config.toml"]);
    daemon.extend(["--state-dir", "/var/lib/bare", "--runtime-dir", "/run/bare"]);
    machine.sh("mkdir -p /var/lib/bare /run/bare").read()?;
    machine.command("systemd-run").args(daemon).read()?;
    site.controller.wait_for_status(id, NodeStatus::Online, SOON)?;
    let pid = machine.host_pid(&machine.unit_property(BARE, "MainPID")?)?;
    let threads = || -> Result<u32> {
        Ok(status_field(&fs::read_to_string(format!("/proc/{pid}/status"))?, "Threads")?.parse()?)
    };
    wait_for("the second daemon to come to rest", Duration::from_secs(20), threads, |threads| *threads <= 2)?;
    Ok(())
}

#[test]
fn a_node_is_registered_a_third_of_a_second_after_its_daemon_was_started() -> Result<()> {
    const LIMIT: Duration = Duration::from_millis(300);
    const STARTS: usize = 9;
    let site = Site::new(Settings::default())?;
    let machine = Machine::boot_alone("start")?;
    site.put_command(&machine)?;
    site.put_gpus(&machine)?;
    succeed(install(&machine, &site.token), &machine)?;
    let mut taken = Vec::new();
    for _ in 0..STARTS {
        machine.command("systemctl").args(["stop", UNIT]).read()?;
        site.wait_for(NodeStatus::Offline, &machine)?;
        machine.command("systemctl").args(["start", UNIT]).read()?;
        site.wait_until_online(&machine)?;
        let began = started(&machine)?;
        let look = || Ok(site.controller.events(site.id())?.pop().map(|stored| stored.event));
        let connected = |event: &Option<NodeEvent>| {
            event.as_ref().is_some_and(|it| it.kind() == EventKind::Connected && it.timestamp > began)
        };
        let welcomed = wait_for("the event of the connection", SOON, look, connected)?.context("no event")?;
        taken.push(welcomed.timestamp.since(began));
    }
    taken.sort_unstable();
    println!("start: from the process's begin to the controller's welcome, with eight GPUs: {taken:?}");
    let median = taken.get(STARTS / 2).context("no starts")?;
    // The slowest had something else to wait for: this computer's other work, not the daemon's own.
    assert!(*median < LIMIT, "{taken:?}");
    assert!(taken.iter().all(|taken| *taken < LIMIT * 5), "{taken:?}");
    Ok(())
}

/// When systemd began the daemon's process, by this computer's clock.
fn started(machine: &Machine) -> Result<Timestamp> {
    let micros = machine.unit_property(UNIT, "ExecMainStartTimestampMonotonic")?.parse()?;
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let wall = SystemTime::now();
    let now = Duration::new(now.tv_sec.try_into()?, now.tv_nsec.try_into()?);
    let ago = now.checked_sub(Duration::from_micros(micros)).context("it starts in the future")?;
    Ok(wall.checked_sub(ago).context("before all time")?.into())
}

/// What the older script does, on the same release.
const OLDER_SCRIPT: &str = include_str!("../../../fixtures/older-install.sh");

/// From the command's begin: until the controller says that the node is online, and until the
/// command says how it went; and what it said.
fn timed(site: &Site, machine: &Machine, command: Inside) -> Result<(Duration, Duration, Outcome)> {
    let began = Instant::now();
    std::thread::scope(|scope| {
        let online = scope.spawn(|| {
            site.controller.wait_for_status(site.id(), NodeStatus::Online, SOON)?;
            Ok::<_, anyhow::Error>(began.elapsed())
        });
        let outcome = succeed(command, machine)?;
        let answered = began.elapsed();
        let online = online.join().map_err(|_| anyhow::anyhow!("the watcher panicked"))??;
        Ok((online, answered, outcome))
    })
}

#[test]
fn an_installation_says_how_it_went_in_half_of_the_older_script_s_time() -> Result<()> {
    let older = Site::new(Settings::default())?;
    let machine = Machine::boot_alone("older-script")?;
    let issued = older.controller.token(older.id(), &json!({}))?;
    let endpoint = format!("{}/ws/node", older.controller.url().replacen("http", "ws", 1));
    let script = machine
        .command("bash")
        .args(["-s"])
        .env("AIO_NODE_TOKEN", &issued.token)
        .env("AIO_CONTROLLER_ENDPOINT", &endpoint)
        .env("AIO_NODE_ID", older.id().as_str())
        .env("DOWNLOAD_URL", &issued.download_url)
        .env("CHECKSUM", &issued.checksum.context("no checksum")?)
        .input(OLDER_SCRIPT);
    let (script_online, script_answered, _) = timed(&older, &machine, script)?;
    machine.power_off()?;

    let site = Site::new(Settings::default())?;
    let machine = Machine::boot_alone("side-by-side")?;
    site.put_command(&machine)?;
    let command = install(&machine, &site.token).args(["--output", "json"]);
    let (online, answered, outcome) = timed(&site, &machine, command)?;

    let seconds = |duration: Duration| duration.as_secs_f64();
    println!(
        "side by side: the older script online after {:.2} s and done after {:.2} s; aio-worker install online after {:.2} s and done after {:.2} s",
        seconds(script_online),
        seconds(script_answered),
        seconds(online),
        seconds(answered)
    );
    let steps = json_of(&outcome)?["steps"].as_array().cloned().unwrap_or_default();
    let steps: Vec<_> = steps.iter().map(|step| format!("{} {}", step["step"], step["seconds"])).collect();
    println!("steps, in seconds: {}", steps.join(", ").replace('"', ""));
    assert!(answered * 2 < script_answered, "{answered:?} against {script_answered:?}");
    assert!(online < Duration::from_secs(3), "online after {online:?}");
    Ok(())
}
