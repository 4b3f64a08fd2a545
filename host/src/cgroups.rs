//! The containers of this machine, found by the names of their control groups and read in `/sys/fs/cgroup`,
//! which every user may. Asks no engine and no socket. Knows both versions of control groups, the names that
//! systemd's and cgroupfs's drivers give, and nothing of a container that has no process: its control group
//! is gone.

mod files;
mod kubelet;
mod names;

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use aio_protocol::container::{ContainerEngine, Pod};

use files::Tree;
use names::Named;

/// Control groups that are looked at, those below containers left out.
const MAX_GROUPS: usize = 8192;

/// How far below the root a container may be. Podman's without root are at 5.
const MAX_DEPTH: usize = 8;

/// A container as its control group tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// The engine's id for it.
    pub id: String,
    /// What made it.
    pub engine: ContainerEngine,
    /// The control group's own number: another after each start.
    pub number: u64,
    /// The pod that it belongs to.
    pub pod: Option<Pod>,
    /// Its name in the pod, and how often the kubelet has started it again.
    pub known_as: Option<(String, u32)>,
    /// Whether its processes are frozen.
    pub paused: bool,
    /// Microseconds of processors.
    pub cpu_micros: Option<u64>,
    /// Bytes.
    pub memory_used: Option<u64>,
    /// Bytes, where there is a limit.
    pub memory_limit: Option<u64>,
    /// Processes that were killed because its memory was full.
    pub oom_kills: Option<u64>,
    /// Its processes, as many as matter.
    pub pids: Vec<u32>,
}

/// All of them at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Groups {
    /// Ordered by id.
    pub containers: Vec<Group>,
    /// By pod, what [`Group::oom_kills`] of all its containers is, those among them that are gone. Only
    /// where the kernel says it.
    pub pod_oom_kills: HashMap<String, u64>,
}

/// Something that knows a machine's containers. May block for milliseconds.
pub trait ContainerProbe: Send {
    /// The containers that have processes.
    fn groups(&mut self) -> Groups;
}

/// The machine below a folder, which is `/`.
#[derive(Debug, Clone)]
pub struct Cgroups {
    root: PathBuf,
}

impl Cgroups {
    /// Of the machine whose root folder this is.
    pub fn under(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Of this machine.
    pub fn of_this_machine() -> Self {
        Self::under(Path::new("/"))
    }
}

impl ContainerProbe for Cgroups {
    fn groups(&mut self) -> Groups {
        let Some(tree) = Tree::at(&self.root.join("sys/fs/cgroup")) else { return Groups::default() };
        let mut walk = Walk { tree: &tree, looked_at: 0, found: Vec::new(), pods: HashMap::new() };
        walk.folder(Path::new(""), None, 0);
        let Walk { found, pods, .. } = walk;
        let mut groups = Groups::default();
        if found.iter().any(|(named, ..)| named.pod.is_some()) {
            groups.pod_oom_kills = pods
                .into_iter()
                .filter_map(|(uid, path)| Some((uid, tree.oom_kills_below(&path)?)))
                .collect();
        }
        groups.containers = self.containers(&tree, found);
        groups
    }
}

impl Cgroups {
    fn containers(&self, tree: &Tree, found: Vec<(Named, PathBuf, u64)>) -> Vec<Group> {
        let in_pods = found.iter().any(|(named, ..)| named.pod.is_some());
        let links = if in_pods { kubelet::links(&self.root) } else { HashMap::new() };
        let told: HashSet<_> = links.values().map(|link| link.pod.uid.clone()).collect();
        let mut containers = Vec::with_capacity(found.len());
        for (Named { id, engine, pod }, path, number) in found {
            let link = links.get(&id);
            // The kubelet links the log of each container of a pod, but not that of the pod's sandbox.
            if link.is_none() && pod.as_ref().is_some_and(|uid| told.contains(uid)) {
                continue;
            }
            let pids = tree.pids(&path);
            if pids.is_empty() {
                continue;
            }
            containers.push(Group {
                engine,
                number,
                pod: match link {
                    Some(link) => Some(link.pod.clone()),
                    None => pod.map(|uid| Pod { uid, ..Pod::default() }),
                },
                known_as: link.map(|link| (link.container.clone(), link.restarts)),
                paused: tree.is_frozen(&path),
                cpu_micros: tree.cpu_micros(&path),
                memory_used: tree.memory_used(&path),
                memory_limit: tree.memory_limit(&path),
                oom_kills: tree.oom_kills(&path),
                pids,
                id,
            });
        }
        containers.sort_by(|a, b| a.id.cmp(&b.id));
        containers.dedup_by(|a, b| a.id == b.id);
        containers
    }
}

/// A walk through the tree, which goes into no container.
struct Walk<'a> {
    tree: &'a Tree,
    looked_at: usize,
    found: Vec<(Named, PathBuf, u64)>,
    /// Where each pod is.
    pods: HashMap<String, PathBuf>,
}

impl Walk<'_> {
    fn folder(&mut self, path: &Path, pod: Option<&str>, depth: usize) {
        let Ok(entries) = fs::read_dir(self.tree.folder(path)) else { return };
        for entry in entries.flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            self.looked_at += 1;
            if self.looked_at > MAX_GROUPS {
                return;
            }
            let below = path.join(name);
            let parent = path.file_name().and_then(|parent| parent.to_str()).unwrap_or_default();
            if let Some(named) = names::container(name, parent, pod) {
                if let Ok(metadata) = entry.metadata() {
                    self.found.push((named, below, metadata.ino()));
                }
                continue;
            }
            if names::is_helper(name) || depth >= MAX_DEPTH {
                continue;
            }
            if !files::has_folders(&entry.path()) {
                continue;
            }
            let of_pod = names::pod(name);
            if let Some(uid) = &of_pod {
                self.pods.insert(uid.clone(), below.clone());
            }
            self.folder(&below, of_pod.as_deref().or(pod), depth + 1);
        }
    }
}

#[cfg(test)]
mod tests;
