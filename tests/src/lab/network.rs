//! What joins a machine that has a network of its own to this computer: a cable, or a line that is
//! slow and loses packets. Each has two ends with addresses and no way beyond them, and goes with
//! the machine: its processes are the machine's, and so are its interfaces.

use std::{
    net::Ipv4Addr,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::wait::wait_for;

const INTERFACE: Duration = Duration::from_secs(10);

/// The two ends' addresses.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// This computer, as the machine reaches it.
    pub ours: Ipv4Addr,
    /// The machine, as this computer reaches it.
    pub machines: Ipv4Addr,
}

impl Ends {
    /// Of 198.18.0.0/15, which is nobody's but for tests of networks; a block of four for each
    /// process number.
    fn of(leader: u32) -> Self {
        let block = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + (leader % 32_768) * 4;
        Self { ours: Ipv4Addr::from(block + 1), machines: Ipv4Addr::from(block + 2) }
    }
}

/// Puts a cable between this computer and the machine.
pub(super) fn plug(leader: u32) -> Result<Ends> {
    let ends = Ends::of(leader);
    let ours = format!("aio{leader}");
    let namespace = leader.to_string();
    let add = ["link", "add", &ours, "type", "veth", "peer", "name", "cable", "netns", &namespace];
    run(Command::new("ip").args(add))?;
    run(Command::new("ip").args(["address", "add", &format!("{}/30", ends.ours), "dev", &ours]))?;
    run(Command::new("ip").args(["link", "set", &ours, "up"]))?;
    let inside = |arguments: &[&str]| run(in_network(leader).arg("ip").args(arguments));
    inside(&["address", "add", &format!("{}/30", ends.machines), "dev", "cable"])?;
    inside(&["link", "set", "cable", "up"])?;
    Ok(ends)
}

/// How bad a line is, in each direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Badness {
    /// How long a packet takes.
    pub delay: Duration,
    /// What part of all packets never arrives.
    pub loss: f64,
}

impl Badness {
    /// Not bad at all.
    pub const NONE: Self = Self { delay: Duration::ZERO, loss: 0.0 };
    /// Nothing arrives, and nobody is told.
    pub const CUT: Self = Self { delay: Duration::ZERO, loss: 1.0 };
}

/// A line whose packets are carried by threads of the test, and which ends with its machine.
#[derive(Debug)]
pub struct Line {
    /// The addresses.
    pub ends: Ends,
    badness: Arc<Mutex<Badness>>,
    _processes: [Ending; 2],
}

/// What waits for an interface's process. That one is among the machine's processes, so it is the
/// machine's end that ends it.
#[derive(Debug)]
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Line {
    /// Real packets, so that it is the kernels at both ends that time out and send again. Needs
    /// `socat`, which makes an interface whose packets come and go as datagrams; not every kernel
    /// has a queue that delays.
    pub(super) fn lay(leader: u32, folder: &Path, badness: Badness) -> Result<Self> {
        let ends = Ends::of(leader);
        let [ours, machines] = ["ours", "machines"].map(|end| Sockets::of(folder, end));
        let (at_ours, at_machines) = (ours.bind()?, machines.bind()?);
        let badness = Arc::new(Mutex::new(badness));
        carry(at_ours.try_clone()?, at_machines.try_clone()?, machines.interface.clone(), badness.clone());
        carry(at_machines, at_ours, ours.interface.clone(), badness.clone());
        // Both are of the machine's processes, and end with it however it ends.
        let namespace = format!("/proc/{leader}/ns/pid");
        let mut outside = Command::new("nsenter");
        outside.arg(format!("--pid={namespace}")).arg("--");
        let mut inside = in_network(leader);
        let processes = [
            ours.interface(&mut outside, &format!("aio{leader}"), ends.ours)?,
            machines.interface(&mut inside, "line", ends.machines)?,
        ];
        let line = Self { ends, badness, _processes: processes };
        let reach =
            |command: &mut Command| run(command.args(["ip", "route", "get"]).arg(ends.ours.to_string()));
        wait_for("the line's interfaces", INTERFACE, || reach(&mut in_network(leader)), |()| true)?;
        Ok(line)
    }

    /// From the next packet on, the line is as bad as this.
    pub fn becomes(&self, badness: Badness) {
        *self.badness.lock().unwrap_or_else(PoisonError::into_inner) = badness;
    }
}

/// One end's two sockets: the interface's, and the one that it sends to.
struct Sockets {
    interface: PathBuf,
    line: PathBuf,
}

impl Sockets {
    fn of(folder: &Path, end: &str) -> Self {
        let socket = |kind: &str| folder.join(format!("{end}.{kind}"));
        Self { interface: socket("interface"), line: socket("line") }
    }

    fn bind(&self) -> Result<UnixDatagram> {
        UnixDatagram::bind(&self.line).with_context(|| format!("cannot bind {}", self.line.display()))
    }

    /// Starts the process that holds the interface.
    fn interface(&self, through: &mut Command, name: &str, address: Ipv4Addr) -> Result<Ending> {
        let tun = format!("TUN:{address}/30,tun-name={name},iff-no-pi,iff-up");
        let datagrams = format!("UNIX-SENDTO:{},bind={}", self.line.display(), self.interface.display());
        let socat = through.args(["socat", "-b", "65536", &tun, &datagrams]).stdin(Stdio::null());
        Ok(Ending(socat.spawn().context("cannot run nsenter")?))
    }
}

/// Takes packets at one end and hands them on at the other, late or never.
fn carry(from: UnixDatagram, through: UnixDatagram, to: PathBuf, badness: Arc<Mutex<Badness>>) {
    let (late, due) = mpsc::channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        let mut packet = vec![0; 65_536];
        while let Ok(length) = from.recv(&mut packet) {
            let badness = *badness.lock().unwrap_or_else(PoisonError::into_inner);
            let lost = fastrand::f64() < badness.loss;
            let arrives = Instant::now() + badness.delay;
            if !lost && late.send((arrives, packet.split_at(length).0.to_vec())).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        for (arrives, packet) in due {
            std::thread::sleep(arrives.saturating_duration_since(Instant::now()));
            // What finds nobody at the end is lost, as on any line.
            let _ = through.send_to(&packet, &to);
        }
    });
}

/// A command in the machine's network and among its processes, with this computer's programs.
fn in_network(leader: u32) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--target", &leader.to_string(), "--net", "--pid", "--"]);
    command
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().context("cannot run a command of the network")?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Brings up what every network has.
pub(super) fn loopback(leader: u32) -> Result<()> {
    run(in_network(leader).args(["ip", "link", "set", "lo", "up"]))
}
