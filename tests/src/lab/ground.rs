//! Where machines stand: the lab's folder, how many machines run at once, and what a killed run left behind.
//! Everything hangs on file locks, which the kernel gives back however their holder ends.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{artifacts, wait::wait_for};

const TOOLS: &[(&str, &str)] = &[
    ("mmdebstrap", "mmdebstrap"),
    ("systemd-nspawn", "systemd-container"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("ip", "iproute2"),
    ("socat", "socat"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs"),
];

/// How long a machine may wait for its turn: as long as a whole run of the lab may take.
const TURN: Duration = Duration::from_secs(20 * 60);

/// The lab's folder, if this computer can run the lab at all.
pub(super) fn lab() -> Result<PathBuf> {
    const WITHOUT: &str = "or leave the lab out: cargo xtask test --no-lab";
    ensure!(
        rustix::process::geteuid().is_root(),
        "the lab boots systemd containers and that takes root: run it as root, {WITHOUT}"
    );
    for (tool, package) in TOOLS {
        ensure!(
            on_path(tool),
            "the lab needs `{tool}`, which is not installed: apt-get install {package} (`cargo xtask test` does it), {WITHOUT}"
        );
    }
    let lab = artifacts::target_dir()?.join("lab");
    fs::create_dir_all(lab.join("run")).with_context(|| format!("cannot create {}", lab.display()))?;
    Ok(lab)
}

fn on_path(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(tool).is_file())
}

/// Leave to run a machine: given back when dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _quiet: File,
    _slot: Option<File>,
}

impl Turn {
    /// As many machines at once as there are processors; more would only make each other slow.
    pub(super) fn beside_others(lab: &Path) -> Result<Self> {
        let quiet = lock_file(&lab.join("run/quiet.lock"))?;
        quiet.lock_shared().context("cannot lock the lab")?;
        let slots = std::thread::available_parallelism().map_or(1, usize::from);
        let slots: Vec<_> = (0..slots).map(|n| lab.join(format!("run/slot-{n}.lock"))).collect();
        let take = || -> Result<Option<Taken>> {
            for slot in &slots {
                if let Some(file) = claim(slot)? {
                    return Ok(Some(Taken(file)));
                }
            }
            Ok(None)
        };
        let slot = wait_for("a free slot in the lab", TURN, take, Option::is_some)?;
        Ok(Self { _quiet: quiet, _slot: slot.map(|taken| taken.0) })
    }

    /// No other machine runs meanwhile: for measurements.
    pub(super) fn alone(lab: &Path) -> Result<Self> {
        let quiet = lock_file(&lab.join("run/quiet.lock"))?;
        quiet.lock().context("cannot lock the lab")?;
        Ok(Self { _quiet: quiet, _slot: None })
    }
}

#[derive(Debug)]
struct Taken(File);

fn lock_file(path: &Path) -> Result<File> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))
}

fn claim(path: &Path) -> Result<Option<File>> {
    let file = lock_file(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// A machine's own folder, and its name, which no other machine on this computer has.
#[derive(Debug)]
pub(super) struct Plot {
    pub(super) name: String,
    pub(super) folder: PathBuf,
    _owned: File,
}

impl Plot {
    /// A fresh folder for a machine called `name`; also clears away every folder whose owner is gone.
    pub(super) fn take(lab: &Path, name: &str) -> Result<Self> {
        static MACHINES: AtomicU32 = AtomicU32::new(0);
        let run = lab.join("run");
        let arrivals = lock_file(&run.join("arrivals.lock"))?;
        arrivals.lock().context("cannot lock the lab")?;
        sweep(&run)?;
        let number = MACHINES.fetch_add(1, Ordering::Relaxed);
        let name = format!("aio-{name}-{}-{number}", std::process::id());
        let folder = run.join(&name);
        fs::create_dir(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let owned = claim(&folder.join("owned"))?.context("a new folder is locked already")?;
        for part in ["upper", "work", "root"] {
            fs::create_dir(folder.join(part))?;
        }
        Ok(Self { name, folder, _owned: owned })
    }
}

impl Drop for Plot {
    fn drop(&mut self) {
        clear(&self.name, &self.folder);
    }
}

fn sweep(run: &Path) -> Result<()> {
    for entry in fs::read_dir(run).with_context(|| format!("cannot read {}", run.display()))? {
        let folder = entry?.path();
        if !folder.is_dir() {
            continue;
        }
        let owned = folder.join("owned");
        let Some(name) = folder.file_name().and_then(|name| name.to_str()) else { continue };
        // The lock is held as long as its process lives, so a free one means that nobody will clear
        // up but us.
        if claim(&owned)?.is_some() {
            eprintln!("lab: clearing away {name}, which an earlier run left");
            clear(name, &folder);
        }
    }
    Ok(())
}

/// Ends what is left of a machine, by the name that only its own processes carry, and removes its
/// folder. The mounts go with the machine's namespace.
fn clear(name: &str, folder: &Path) {
    let argument = machine_argument(name);
    let end = || {
        let left = processes_with(&argument);
        for pid in &left {
            let _ = rustix::process::kill_process(*pid, rustix::process::Signal::KILL);
        }
        // A cgroup is busy until the last of its processes is gone, those inside the machine included.
        remove_cgroups(name)?;
        Ok(left.len())
    };
    let cleared = wait_for("the machine's processes to end", Duration::from_secs(10), end, |n| *n == 0);
    if let Err(error) = cleared.and_then(|_| Ok(fs::remove_dir_all(folder)?)) {
        eprintln!("lab: {name} could not be cleared away: {error:#}");
    }
}

/// What marks the processes of the machine called `name`.
pub(super) fn machine_argument(name: &str) -> String {
    format!("--machine={name}")
}

fn processes_with(argument: &str) -> Vec<rustix::process::Pid> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes()))
        })
        .filter_map(rustix::process::Pid::from_raw)
        .collect()
}

/// The cgroups that a machine gets where the computer itself does not run systemd (elsewhere
/// systemd removes its scope).
fn cgroups(name: &str) -> Vec<PathBuf> {
    ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup"]
        .into_iter()
        .map(|root| Path::new(root).join(name))
        .collect()
}

pub(super) fn remove_cgroups(name: &str) -> std::io::Result<()> {
    fn remove(cgroup: &Path) -> std::io::Result<()> {
        for entry in fs::read_dir(cgroup)?.flatten() {
            if entry.file_type()?.is_dir() {
                remove(&entry.path())?;
            }
        }
        fs::remove_dir(cgroup)
    }
    cgroups(name).iter().filter(|cgroup| cgroup.is_dir()).try_for_each(|cgroup| remove(cgroup))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_whose_owner_is_gone_is_cleared_and_a_living_one_is_not() {
        let lab = tempfile::tempdir().unwrap();
        fs::create_dir(lab.path().join("run")).unwrap();
        let living = Plot::take(lab.path(), "living").unwrap();
        let left = lab.path().join("run/aio-left-1-0");
        fs::create_dir_all(left.join("upper/etc")).unwrap();
        let another = Plot::take(lab.path(), "another").unwrap();
        assert!(!left.exists());
        assert!(living.folder.is_dir());
        let folder = another.folder.clone();
        drop(another);
        assert!(!folder.exists());
    }
}
