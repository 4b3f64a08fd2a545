//! A clock that the daemon alone goes by, so that a test can set it: nobody's real clock is
//! touched. Timers and waits are not measured by it, as on a machine whose clock is set.

use std::time::{Duration, SystemTime};

use aio_protocol::time::Timestamp;
use aio_tests::{lab::Machine, wait::wait_for};
use anyhow::{Context, Result};

use super::site::{SOON, UNIT, status};

const OFFSET: &str = "/run/lab/clock";

/// Gives the daemon the clock, from its next start on.
pub(super) fn give(machine: &Machine) -> Result<()> {
    let library = machine.sh("ls /usr/lib/*/faketime/libfaketime.so.1").read()?;
    let variables = [
        &format!("LD_PRELOAD={}", library.trim()),
        &format!("FAKETIME_TIMESTAMP_FILE={OFFSET}"),
        "FAKETIME_NO_CACHE=1",
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
        "FAKETIME_DISABLE_SHM=1",
    ];
    let drop_in = format!("[Service]\nEnvironment={}\n", variables.join(" "));
    machine.write(&format!("/etc/systemd/system/{UNIT}.d/clock.conf"), "0644", drop_in)?;
    set(machine, 0)?;
    machine.command("systemctl").args(["daemon-reload"]).read().map(drop)
}

/// Sets it so many seconds ahead of the real one, or behind.
pub(super) fn set(machine: &Machine, seconds: i64) -> Result<()> {
    machine.replace(OFFSET, format!("{seconds:+}"))
}

/// Waits until a heartbeat was acknowledged that the daemon sent at about the time that the clock
/// shows: whoever sets a clock that the daemon does not go by proves nothing.
pub(super) fn is_gone_by(machine: &Machine, seconds: i64, tolerance: Duration) -> Result<()> {
    let off = || {
        let told =
            status(machine)?["session"]["lastHeartbeatAt"].as_str().context("no heartbeat")?.to_owned();
        let real = Timestamp::from(SystemTime::now());
        Ok(told.parse::<Timestamp>()?.as_millis() - real.as_millis() - seconds * 1000)
    };
    let near = |off: &i64| u128::from(off.unsigned_abs()) < tolerance.as_millis();
    wait_for(&format!("a heartbeat that is {seconds} s off"), SOON, off, near).map(drop)
}
