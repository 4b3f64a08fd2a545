//! What lies on a machine's disk: for `the machine is as it was`. Knows nothing of modification
//! times, which say who came by and not what was left.

use std::{collections::BTreeMap, fmt::Write};

use anyhow::{Context, Result, ensure};

use super::Machine;

/// What a listing leaves out, and why.
const LEFT_OUT: &[&str] = &[
    // Of the kernel, not of the disk.
    "/proc",
    "/sys",
    "/dev",
    // In memory, gone with the next boot. (What an installation leaves there is for tests of their own.)
    "/run",
    "/tmp",
    // Written by journald, logind and PID 1 at their own times.
    "/var/log/journal",
    "/var/log/wtmp",
    "/var/log/btmp",
    "/var/log/lastlog",
    "/var/lib/systemd/random-seed",
    "/var/lib/systemd/timers",
    "/var/lib/systemd/catalog",
];

/// A file, folder, link or other thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `f`, `d`, `l`, …: as `find` says it.
    pub kind: String,
    /// Octal.
    pub mode: String,
    /// User and group, as numbers.
    pub owner: String,
    /// A link's target.
    pub target: String,
    /// A file's size in bytes and SHA-256.
    pub content: Option<(u64, String)>,
}

/// Everything on a machine's disk, by path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing(BTreeMap<String, Entry>);

impl Listing {
    pub(super) fn of(machine: &Machine) -> Result<Self> {
        let prune: Vec<_> = LEFT_OUT.iter().map(|path| format!("-path {path}")).collect();
        let prune = prune.join(" -o ");
        let find = format!(r"find / \( {prune} \) -prune -o");
        let entries = machine.sh(&format!(r"{find} -printf '%p\t%y\t%m\t%U:%G\t%s\t%l\0'")).read()?;
        let sums = machine.sh(&format!("{find} -type f -print0 | xargs -0 sha256sum --zero")).read()?;
        Self::parse(&entries, &sums)
    }

    fn parse(entries: &str, sums: &str) -> Result<Self> {
        let sums: BTreeMap<&str, &str> = sums
            .split_terminator('\0')
            .filter_map(|line| line.split_once("  ").map(|(sum, path)| (path, sum)))
            .collect();
        let mut listing = BTreeMap::new();
        for line in entries.split_terminator('\0') {
            let fields: Vec<_> = line.split('\t').collect();
            ensure!(fields.len() == 6, "a line of find has other fields than asked for: {line:?}");
            let [path, kind, mode, owner, size, target] = fields[..] else { continue };
            let content = match kind {
                "f" => {
                    let sum = sums
                        .get(path)
                        .with_context(|| format!("{path} came or went in the middle of a listing"))?;
                    Some((size.parse()?, (*sum).to_owned()))
                }
                _ => None,
            };
            let entry = Entry {
                kind: kind.to_owned(),
                mode: mode.to_owned(),
                owner: owner.to_owned(),
                target: target.to_owned(),
                content,
            };
            listing.insert(path.to_owned(), entry);
        }
        ensure!(listing.len() > 1000, "a listing of {} entries is none of a whole machine", listing.len());
        Ok(Self(listing))
    }

    /// The entry at `path`.
    pub fn at(&self, path: &str) -> Option<&Entry> {
        self.0.get(path)
    }

    /// How `after` differs, one line per path; empty when it does not.
    pub fn changes_to(&self, after: &Self) -> String {
        let mut changes = String::new();
        for (path, entry) in &self.0 {
            match after.0.get(path) {
                None => writeln!(changes, "gone: {path}"),
                Some(now) if now != entry => {
                    writeln!(changes, "changed: {path}\n    was {entry:?}\n    is  {now:?}")
                }
                Some(_) => Ok(()),
            }
            .unwrap_or_default();
        }
        for path in after.0.keys().filter(|path| !self.0.contains_key(*path)) {
            writeln!(changes, "new: {path}").unwrap_or_default();
        }
        changes
    }
}
