//! The files of control groups, of both versions. A number that cannot be read is not known.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Processes of a container that are read.
const MAX_PIDS: usize = 4096;

/// Groups below a container that are looked at for processes.
const MAX_BELOW: usize = 64;

/// A limit of version 1 from which on there is none: it is written as the largest number of pages.
const NO_LIMIT: u64 = 1 << 60;

/// Where control groups are.
#[derive(Debug)]
pub(super) enum Tree {
    /// Version 2: one tree.
    Unified(PathBuf),
    /// Version 1: a tree for each controller, all of the same shape. `base` is the one that is walked.
    Split { base: PathBuf, cpu: PathBuf, memory: PathBuf, freezer: PathBuf },
}

impl Tree {
    /// The tree that is mounted at `mounts`, if one is.
    pub(super) fn at(mounts: &Path) -> Option<Self> {
        if mounts.join("cgroup.controllers").is_file() {
            return Some(Self::Unified(mounts.to_owned()));
        }
        let at = |name: &str| mounts.join(name);
        // In systemd's own tree is every group, whatever a kernel was started without; elsewhere there is
        // none such.
        let base = ["systemd", "memory", "cpuacct"].into_iter().map(at).find(|folder| folder.is_dir())?;
        Some(Self::Split { base, cpu: at("cpuacct"), memory: at("memory"), freezer: at("freezer") })
    }

    /// The folder of a group in the tree that is walked.
    pub(super) fn folder(&self, group: &Path) -> PathBuf {
        match self {
            Self::Unified(base) | Self::Split { base, .. } => base.join(group),
        }
    }

    pub(super) fn cpu_micros(&self, group: &Path) -> Option<u64> {
        match self {
            Self::Unified(base) => field(&base.join(group).join("cpu.stat"), "usage_usec"),
            Self::Split { cpu, .. } => Some(number(&cpu.join(group).join("cpuacct.usage"))? / 1000),
        }
    }

    pub(super) fn memory_used(&self, group: &Path) -> Option<u64> {
        number(&match self {
            Self::Unified(base) => base.join(group).join("memory.current"),
            Self::Split { memory, .. } => memory.join(group).join("memory.usage_in_bytes"),
        })
    }

    /// Nothing where there is no limit, which version 2 writes as `max`.
    pub(super) fn memory_limit(&self, group: &Path) -> Option<u64> {
        let limit = number(&match self {
            Self::Unified(base) => base.join(group).join("memory.max"),
            Self::Split { memory, .. } => memory.join(group).join("memory.limit_in_bytes"),
        })?;
        (limit < NO_LIMIT).then_some(limit)
    }

    pub(super) fn oom_kills(&self, group: &Path) -> Option<u64> {
        match self {
            Self::Unified(base) => field(&base.join(group).join("memory.events"), "oom_kill"),
            Self::Split { memory, .. } => field(&memory.join(group).join("memory.oom_control"), "oom_kill"),
        }
    }

    /// The same of the groups below it, those that are gone among them: only version 2 counts them there.
    pub(super) fn oom_kills_below(&self, group: &Path) -> Option<u64> {
        matches!(self, Self::Unified(_)).then(|| self.oom_kills(group)).flatten()
    }

    pub(super) fn is_frozen(&self, group: &Path) -> bool {
        match self {
            Self::Unified(base) => field(&base.join(group).join("cgroup.events"), "frozen") == Some(1),
            Self::Split { freezer, .. } => fs::read_to_string(freezer.join(group).join("freezer.state"))
                .is_ok_and(|state| state.trim() == "FROZEN"),
        }
    }

    /// The processes of a group and of those below it.
    pub(super) fn pids(&self, group: &Path) -> Vec<u32> {
        let (mut pids, mut folders, mut looked_at) = (Vec::new(), vec![self.folder(group)], 0);
        while let Some(folder) = folders.pop() {
            // A group of threads refuses to say.
            let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).take(MAX_PIDS - pids.len()));
            looked_at += 1;
            if looked_at >= MAX_BELOW || pids.len() >= MAX_PIDS {
                break;
            }
            if !has_folders(&folder) {
                continue;
            }
            let below = fs::read_dir(&folder).into_iter().flatten().flatten();
            folders.extend(
                below.filter(|it| it.file_type().is_ok_and(|kind| kind.is_dir())).map(|it| it.path()),
            );
        }
        pids
    }
}

/// Whether folders are in it. One without has two links, itself and its parent's entry for it; asking that is
/// much cheaper than to list the files of a group.
pub(super) fn has_folders(folder: &Path) -> bool {
    fs::metadata(folder).is_ok_and(|metadata| metadata.nlink() != 2)
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The number behind a word, in a file of such lines.
fn field(file: &Path, word: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let value = |line: &str| line.strip_prefix(word)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(value)
}
