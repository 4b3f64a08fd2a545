//! Where the soak takes place: a machine whose network, clock, disk, driver and controller the test
//! can spoil and put right, and the daemon on it as it is shipped. Decides nothing about when.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use aio_protocol::{node::NodeStatus, time::Timestamp};
use aio_tests::{
    controller::Settings,
    lab::{Badness, Line, Machine},
    wait::wait_for,
    worker::status_field,
};
use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{
    super::{
        clock,
        site::{HOST, SOON, Site, UNIT, install, status, succeed},
    },
    fault::Fault,
};

/// Five heartbeats in three seconds: as fast as a lease makes them that a busy test computer can keep.
const LEASE: &str = "2s";
const LOSS: Badness = Badness { delay: Duration::from_millis(5), loss: 0.05 };
const SCENARIO: &str = "/opt/fake-nvml/libnvidia-ml.so.1.json";
/// Room for tokens and little else.
const DISK: &str =
    "mount -t tmpfs -o size=64k,mode=0750,uid=aio-worker,gid=aio-worker none /var/lib/aio-worker";

pub(super) struct Ground {
    pub(super) site: Site,
    pub(super) machine: Machine,
    line: Line,
    /// By which this computer knows the daemon.
    pub(super) pid: u32,
}

impl Ground {
    /// A machine with an installed daemon that is online, with eight GPUs. Its tokens live so long,
    /// and each is soon exchanged.
    pub(super) fn new(life: Duration, first_exchange: Duration) -> Result<Self> {
        let port = std::net::TcpListener::bind("0.0.0.0:0")?.local_addr()?.port();
        let settings = Settings::default()
            .listen(&format!("0.0.0.0:{port}"))
            .env("TLS_SELF_SIGNED", "true")
            .env("PUBLIC_URL", &format!("https://{HOST}:{port}"))
            .heartbeat_timeout(LEASE);
        let site = Site::new(settings)?;
        let machine = Machine::boot_without_network("soak")?;
        site.put_command(&machine)?;
        site.put_gpus(&machine)?;
        let line = machine.plug_into_bad_line(Badness::NONE)?;
        machine.sh(&format!("echo {} {HOST} >> /etc/hosts", line.ends.ours)).read()?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        // It is exchanged when two thirds of its life are over.
        let issued = now + first_exchange - life * 2 / 3;
        let token = site.signed(&site.token, |claims| {
            (claims["jti"], claims["iat"], claims["exp"]) =
                ("soak".into(), issued.as_secs().into(), (issued + life).as_secs().into());
        })?;
        succeed(install(&machine, &token), &machine)?;
        clock::give(&machine)?;
        machine.sh(&format!("systemctl stop {UNIT}; {DISK}; systemctl start {UNIT}")).read()?;
        let pid = machine.host_pid(&machine.unit_property(UNIT, "MainPID")?)?;
        let ground = Self { site, machine, line, pid };
        ground.wait_until_online(SOON)?;
        ground.moves_the_daemons_clock()?;
        Ok(ground)
    }

    /// And on the way nothing happens to the session.
    fn moves_the_daemons_clock(&self) -> Result<()> {
        let before = self.sessions()?;
        for seconds in [3600, -3600, 0] {
            clock::set(&self.machine, seconds)?;
            clock::is_gone_by(&self.machine, seconds, Duration::from_secs(60))?;
        }
        let after = self.sessions()?;
        ensure!(after == before, "{before} sessions became {after}: {}", self.machine.journal(UNIT));
        Ok(())
    }

    /// How many sessions the daemon has had, those left out that it ended itself to come with another token.
    pub(super) fn sessions(&self) -> Result<u64> {
        let sessions = status(&self.machine)?["session"]["sessions"].as_u64().context("no sessions")?;
        let exchanges = u64::try_from(self.logged("connecting with it")?)?;
        Ok(sessions.saturating_sub(exchanges))
    }

    pub(super) fn begin(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::NetworkCut => self.line.becomes(Badness::CUT),
            Fault::PacketsLost => self.line.becomes(LOSS),
            Fault::ControllerKilled => self.site.controller.kill()?,
            Fault::ControllerHung => self.site.controller.freeze()?,
            Fault::BusRestarted => {
                self.machine.command("systemctl").args(["restart", "dbus.service"]).read().map(drop)?
            }
            Fault::DriverHung => self.gpus(include_str!("../../../../fake-nvml/scenarios/hung.json"))?,
            Fault::GpuLost => self.gpus(include_str!("../../../../fake-nvml/scenarios/lost-gpu.json"))?,
            Fault::ClockForward => clock::set(&self.machine, 3600)?,
            Fault::ClockBack => clock::set(&self.machine, -3600)?,
            Fault::DiskFull => {
                let fill =
                    "dd if=/dev/zero of=/var/lib/aio-worker/full bs=4k 2>/dev/null && exit 1 || exit 0";
                self.machine.sh(fill).read().map(drop)?;
            }
            Fault::Stopped => self.signal(Signal::STOP)?,
        }
        Ok(())
    }

    pub(super) fn end(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::NetworkCut | Fault::PacketsLost => self.line.becomes(Badness::NONE),
            Fault::ControllerKilled => self.site.controller.start_again()?,
            Fault::ControllerHung => self.site.controller.thaw()?,
            Fault::BusRestarted => {}
            Fault::DriverHung | Fault::GpuLost => {
                self.gpus(include_str!("../../../../fake-nvml/scenarios/eight-h100.json"))?;
            }
            Fault::ClockForward | Fault::ClockBack => clock::set(&self.machine, 0)?,
            Fault::DiskFull => self.machine.sh("rm /var/lib/aio-worker/full").read().map(drop)?,
            Fault::Stopped => self.signal(Signal::CONT)?,
        }
        Ok(())
    }

    /// Waits until the controller has heard the daemon after now.
    pub(super) fn wait_until_online(&self, bound: Duration) -> Result<()> {
        let well = Timestamp::from(SystemTime::now());
        let look = || self.site.controller.node(self.site.id());
        let online = wait_for("the node to be heard online", bound, look, |node| {
            node.status == NodeStatus::Online
                && node.websocket_connected
                && node.last_seen_at.is_some_and(|seen| seen > well)
        });
        online.with_context(|| format!("the journal of {UNIT}:\n{}", self.machine.journal(UNIT))).map(drop)
    }

    /// Waits until the daemon finds nothing wrong with its GPUs.
    pub(super) fn wait_until_healthy(&self, bound: Duration) -> Result<()> {
        let well = |told: &Value| told["health"]["state"] == json!("ok");
        wait_for("all GPUs to be well again", bound, || status(&self.machine), well).map(drop)
    }

    /// Fails unless the daemon is the process that it was, and systemd never had to start another.
    pub(super) fn is_the_same_process(&self) -> Result<()> {
        let restarts = self.restarts()?;
        let pid = self.machine.host_pid(&self.machine.unit_property(UNIT, "MainPID")?)?;
        ensure!(
            restarts == 0 && pid == self.pid,
            "{restarts} restarts, process {} is now {pid}; the journal of {UNIT}:\n{}",
            self.pid,
            self.machine.journal(UNIT)
        );
        Ok(())
    }

    /// How often systemd has started the daemon again.
    pub(super) fn restarts(&self) -> Result<u32> {
        Ok(self.machine.unit_property(UNIT, "NRestarts")?.parse()?)
    }

    /// The daemon's memory, in KiB.
    pub(super) fn resident(&self) -> Result<u64> {
        Ok(status_field(&fs::read_to_string(format!("/proc/{}/status", self.pid))?, "VmRSS")?.parse()?)
    }

    /// How often this stands in the daemon's log.
    pub(super) fn logged(&self, words: &str) -> Result<usize> {
        let journal = self.machine.command("journalctl").args(["--no-pager", "--unit", UNIT]).read()?;
        Ok(journal.matches(words).count())
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).context("no pid")?;
        kill_process(pid, signal).context("cannot signal the daemon")
    }

    fn gpus(&self, scenario: &str) -> Result<()> {
        self.machine.replace(SCENARIO, scenario)
    }
}
