//! A machine's life: boot, reboot, power off, and an end that leaves nothing behind.
//!
//! `unshare` gives every machine a PID and a mount namespace: when its first process ends, for
//! whatever reason, the kernel ends all others and takes the overlay away. So nothing has to be
//! unmounted, and killing one process is a whole tear-down.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::{
    Inside, Listing,
    disk::Disk,
    ground::{self, Plot, Turn},
    image::{self, Fittings},
    network::{self, Badness, Ends, Line},
};
use crate::wait::wait_for;

const BOOT: Duration = Duration::from_secs(60);
const SHUTDOWN: Duration = Duration::from_secs(60);
/// Interval between two copies of a disk, which take some 2 ms each.
const COPY_INTERVAL: Duration = Duration::from_millis(20);

/// `systemd-nspawn` ends with this when the machine wants to boot again.
const REBOOT_STATUS: i32 = 133;

/// A machine that runs.
#[derive(Debug)]
pub struct Machine {
    // Dropped in this order: first the machine, then its folder, then its turn.
    process: Process,
    leader: u32,
    image: PathBuf,
    network: Network,
    /// What is written lies on this device; without one, in the plot's folder.
    disk: Option<Disk>,
    plot: Plot,
    _turn: Turn,
}

/// Which network a machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    /// This computer's.
    Shared,
    /// One of its own, in which there is nothing but the loopback.
    Own,
}

/// The first process of a machine, seen from outside. Whoever drops it ends the machine.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Machine {
    /// Boots a fresh machine called after `name`, and waits until systemd has started everything.
    pub fn boot(name: &str) -> Result<Self> {
        let lab = ground::lab()?;
        Self::start(&lab, name, Turn::beside_others(&lab)?, Network::Shared, Fittings::Plain)
    }

    /// The same, with Python, cloud-init and nginx on it, for tools that put workers on machines.
    /// cloud-init does nothing as long as `/etc/cloud/cloud-init.disabled` is there, and nginx
    /// nothing before it is started.
    pub fn boot_for_provisioning(name: &str) -> Result<Self> {
        let lab = ground::lab()?;
        Self::start(&lab, name, Turn::beside_others(&lab)?, Network::Shared, Fittings::Provisioning)
    }

    /// The same, without any network but its own loopback.
    pub fn boot_without_network(name: &str) -> Result<Self> {
        let lab = ground::lab()?;
        let machine = Self::start(&lab, name, Turn::beside_others(&lab)?, Network::Own, Fittings::Plain)?;
        network::loopback(machine.leader)?;
        Ok(machine)
    }

    /// A machine for provisioning, without any network but its own loopback.
    pub fn boot_for_provisioning_without_network(name: &str) -> Result<Self> {
        let lab = ground::lab()?;
        let machine =
            Self::start(&lab, name, Turn::beside_others(&lab)?, Network::Own, Fittings::Provisioning)?;
        network::loopback(machine.leader)?;
        Ok(machine)
    }

    /// The same, with no other machine running meanwhile: for measurements.
    pub fn boot_alone(name: &str) -> Result<Self> {
        let lab = ground::lab()?;
        Self::start(&lab, name, Turn::alone(&lab)?, Network::Shared, Fittings::Plain)
    }

    /// The same, with a disk that can be copied while the machine runs: a power cut leaves such a
    /// copy.
    pub fn boot_with_disk(name: &str) -> Result<Self> {
        let lab = ground::lab()?;
        let turn = Turn::beside_others(&lab)?;
        let image = image::root_file_system(&lab, Fittings::Plain)?;
        let plot = Plot::take(&lab, name)?;
        let disk = Disk::format(&plot.folder)?;
        Self::start_on(image, plot, Some(disk), turn, Network::Shared)
    }

    fn start(lab: &Path, name: &str, turn: Turn, network: Network, fittings: Fittings) -> Result<Self> {
        let image = image::root_file_system(lab, fittings)?;
        Self::start_on(image, Plot::take(lab, name)?, None, turn, network)
    }

    fn start_on(
        image: PathBuf,
        plot: Plot,
        disk: Option<Disk>,
        turn: Turn,
        network: Network,
    ) -> Result<Self> {
        let mut process = spawn(&image, &plot, network)?;
        let leader = wait_until_booted(&mut process, &plot)?;
        Ok(Self { process, leader, image, network, disk, plot, _turn: turn })
    }

    /// Copies the disk again and again while `work` is under way, and once after it. A copy has what the
    /// device has: what the machine has not yet written back is not in it. Says how each copy is
    /// called, and what `look` saw right before.
    pub fn copy_disk_while<T: Send>(
        &self,
        name: &str,
        look: impl Fn() -> T + Sync,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<Vec<(String, T)>> {
        let (disk, process) = (self.disk()?, self.process.0.id());
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let copier = scope.spawn(|| {
                let mut copies = Vec::new();
                loop {
                    let last = done.load(Ordering::Relaxed);
                    let (copy, seen) = (format!("{name}-{:04}", copies.len()), look());
                    disk.copy(process, &copy)?;
                    copies.push((copy, seen));
                    if last {
                        return Ok(copies);
                    }
                    thread::sleep(COPY_INTERVAL);
                }
            });
            let outcome = work();
            done.store(true, Ordering::Relaxed);
            let copies = copier.join().map_err(|_| anyhow!("the copier panicked"))?;
            outcome.and(copies)
        })
    }

    /// Takes the machine's power away, and boots it on a copy of its disk.
    pub fn cut_power_at(&mut self, copy: &str) -> Result<()> {
        self.disk()?.next_boot(copy)?;
        self.cut_power()
    }

    fn disk(&self) -> Result<&Disk> {
        self.disk.as_ref().with_context(|| format!("{} has no disk of its own", self.plot.name))
    }

    /// Joins a machine without network to this computer, and to nothing beyond it.
    pub fn plug(&self) -> Result<Ends> {
        ensure!(self.network == Network::Own, "{} has this computer's network already", self.plot.name);
        network::plug(self.leader)
    }

    /// The same, over a bad line.
    pub fn plug_into_bad_line(&self, badness: Badness) -> Result<Line> {
        ensure!(self.network == Network::Own, "{} has this computer's network already", self.plot.name);
        Line::lay(self.leader, &self.plot.folder, badness)
    }

    /// The machine's name, which is also its host name.
    pub fn name(&self) -> &str {
        &self.plot.name
    }

    /// A command inside the machine.
    pub fn command(&self, program: &str) -> Inside {
        Inside::new(self.leader, program)
    }

    /// The words with which another program of this computer enters the machine: what follows them
    /// is run there, with an environment of its own.
    pub fn entrance(&self) -> Vec<String> {
        Inside::entrance(self.leader)
    }

    /// A line of shell inside the machine.
    pub fn sh(&self, script: &str) -> Inside {
        self.command("sh").args(["-euc", script])
    }

    /// Writes a file inside the machine, with its folders.
    pub fn write(&self, path: &str, mode: &str, content: impl Into<Vec<u8>>) -> Result<()> {
        let install = self.command("install").args(["-D", "-m", mode, "/dev/stdin", path]);
        install.input(content).read().with_context(|| format!("cannot write {path}")).map(drop)
    }

    /// Writes a file that everybody may read, in one step: whoever reads it meanwhile reads the old
    /// or the new.
    pub fn replace(&self, path: &str, content: impl Into<Vec<u8>>) -> Result<()> {
        let new = format!("{path}.new");
        self.write(&new, "0644", content)?;
        self.command("mv").args([&new, path]).read().map(drop)
    }

    /// Copies a file of this computer into the machine.
    pub fn copy_in(&self, from: &Path, path: &str, mode: &str) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.write(path, mode, content)
    }

    /// Reads a file of the machine.
    pub fn read(&self, path: &str) -> Result<String> {
        self.command("cat").args([path]).read()
    }

    /// Everything on the machine's disk.
    pub fn listing(&self) -> Result<Listing> {
        Listing::of(self)
    }

    /// Reads a file of the machine from outside, which takes no process in it: for looks that follow
    /// each other closely. A link is followed outside.
    pub fn peek(&self, path: &str) -> Result<Vec<u8>> {
        let path = format!("/proc/{}/root{path}", self.leader);
        fs::read(&path).with_context(|| format!("cannot read {path}"))
    }

    /// One property of a unit, as `systemctl show` prints it.
    pub fn unit_property(&self, unit: &str, property: &str) -> Result<String> {
        let show = self.command("systemctl").args(["show", "--value", "--property", property, unit]);
        Ok(show.read()?.trim().to_owned())
    }

    /// The number by which this computer knows the machine's process `pid`.
    pub fn host_pid(&self, pid: &str) -> Result<u32> {
        let processes = fs::read_dir("/proc").context("cannot read /proc")?;
        let ours =
            fs::read_link(format!("/proc/{}/ns/pid", self.leader)).context("the machine has no init")?;
        processes
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
            .find(|process| {
                let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
                let inside =
                    status.lines().find_map(|line| line.strip_prefix("NSpid:")?.split_whitespace().last());
                inside == Some(pid)
                    && fs::read_link(format!("/proc/{process}/ns/pid")).is_ok_and(|ns| ns == ours)
            })
            .with_context(|| format!("{} has no process {pid}", self.plot.name))
    }

    /// The last lines of a unit's journal, for messages of failed tests.
    pub fn journal(&self, unit: &str) -> String {
        let lines = self.command("journalctl").args(["--no-pager", "--unit", unit, "--lines", "40"]);
        lines.read().unwrap_or_else(|error| format!("{error:#}"))
    }

    /// Boots the machine again, on the same disk.
    pub fn reboot(&mut self) -> Result<()> {
        let status = self.shut_down("reboot")?;
        ensure!(
            status.code() == Some(REBOOT_STATUS),
            "{} was told to reboot and ended with {status}\n{}",
            self.plot.name,
            console(&self.plot)
        );
        self.process = spawn(&self.image, &self.plot, self.network)?;
        self.leader = wait_until_booted(&mut self.process, &self.plot)?;
        Ok(())
    }

    /// Takes the machine's power away, and boots it again on the disk that is left.
    pub fn cut_power(&mut self) -> Result<()> {
        self.process.0.kill().context("the machine cannot be killed")?;
        self.process.0.wait().context("the machine has no end")?;
        // What ran in it is gone when its control groups can be removed.
        let gone = || Ok(ground::remove_cgroups(&self.plot.name).is_ok());
        wait_for("the machine's processes to end", SHUTDOWN, gone, |gone| *gone)?;
        self.process = spawn(&self.image, &self.plot, self.network)?;
        self.leader = wait_until_booted(&mut self.process, &self.plot)?;
        Ok(())
    }

    /// Powers the machine off in good order: services are stopped.
    pub fn power_off(mut self) -> Result<()> {
        let status = self.shut_down("poweroff")?;
        ensure!(status.success(), "{} was told to power off and ended with {status}", self.plot.name);
        Ok(())
    }

    fn shut_down(&mut self, verb: &str) -> Result<ExitStatus> {
        // Its own end may come before the answer to the command does, so how the machine ends is what counts.
        let _ = self.command("systemctl").args([verb]).run()?;
        let process = &mut self.process.0;
        let status = wait_for(
            &format!("{} to {verb}", self.plot.name),
            SHUTDOWN,
            || Ok(process.try_wait()?),
            Option::is_some,
        );
        status
            .with_context(|| console(&self.plot))?
            .context("a process that was waited for has no exit status")
    }
}

/// Mounts the disk, if the machine has one, and the overlay, and becomes `systemd-nspawn`, as the first
/// process of the machine's namespaces. `--keep-unit` and `--register=no` because there may be no systemd
/// outside; a cgroup of its own because two machines in one would get in each other's way.
const FIRST_PROCESS: &str = r#"
if [ -n "$3" ]; then
    mkdir "$3"
    echo $$ > "$3/cgroup.procs"
fi
if [ -e "$2/device" ]; then
    mount -o loop "$2/device" "$2/copies"
    mount -o loop "$2/copies/$(cat "$2/boot-from")" "$2/disk"
    disk=$2/disk
    mkdir -p "$disk/upper" "$disk/work"
else
    disk=$2
fi
mount -t overlay overlay -o "lowerdir=$1,upperdir=$disk/upper,workdir=$disk/work" "$2/root"
shift 3
exec systemd-nspawn "$@"
"#;

fn spawn(image: &Path, plot: &Plot, network: Network) -> Result<Process> {
    let log = File::create(plot.folder.join("console.log")).context("cannot create the console's log")?;
    let scope = Path::new("/run/systemd/system").is_dir();
    let mut command = if scope {
        let mut scope = Command::new("systemd-run");
        scope.args(["--scope", "--quiet", "--collect", "--property=Delegate=yes", "unshare"]);
        scope
    } else {
        Command::new("unshare")
    };
    let cgroup = if scope { PathBuf::new() } else { new_cgroup(&plot.name)? };
    command
        .args((network == Network::Own).then_some("--net"))
        .args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "sh",
            "-euc",
            FIRST_PROCESS,
            "sh",
        ])
        .arg(image)
        .arg(&plot.folder)
        .arg(cgroup)
        .arg("--directory")
        .arg(plot.folder.join("root"))
        .args(["--boot", "--register=no", "--keep-unit", "--settings=no", "--link-journal=no"])
        // systemd keeps devices from services with it, as on a machine that is no container.
        .arg("--system-call-filter=bpf")
        .arg(ground::machine_argument(&plot.name))
        .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    Ok(Process(command.spawn().context("cannot run unshare")?))
}

/// Where the machine's cgroup is to be; what an earlier boot of it left is removed.
fn new_cgroup(name: &str) -> Result<PathBuf> {
    ground::remove_cgroups(name).with_context(|| format!("cannot remove the old cgroups of {name}"))?;
    let unified = Path::new("/sys/fs/cgroup/unified");
    let root = if unified.is_dir() { unified } else { Path::new("/sys/fs/cgroup") };
    Ok(root.join(name))
}

/// The pid of the machine's own init, once it says that everything has started.
fn wait_until_booted(process: &mut Process, plot: &Plot) -> Result<u32> {
    let outermost = process.0.id();
    let look = || -> Result<(u32, String)> {
        if let Some(status) = process.0.try_wait()? {
            bail!("systemd-nspawn ended with {status}");
        }
        let nspawn = only_child(outermost).context("unshare has not started systemd-nspawn")?;
        let leader = only_child(nspawn).context("systemd-nspawn has not started the machine's init")?;
        let state = Inside::new(leader, "systemctl").args(["is-system-running"]).run()?;
        Ok((leader, state.stdout.trim().to_owned()))
    };
    let booted = |(_, state): &(u32, String)| matches!(state.as_str(), "running" | "degraded");
    let (leader, _) =
        wait_for(&format!("{} to boot", plot.name), BOOT, look, booted).with_context(|| console(plot))?;
    Ok(leader)
}

fn only_child(parent: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

fn console(plot: &Plot) -> String {
    let console = fs::read(plot.folder.join("console.log")).unwrap_or_default();
    let console = String::from_utf8_lossy(&console);
    let lines: Vec<_> = console.lines().collect();
    let tail = lines.split_at(lines.len().saturating_sub(25)).1;
    format!("the console of {} ends:\n{}", plot.name, tail.join("\n"))
}
