//! The way back: what undoes a step, as the journal keeps it. Each record says how something was,
//! so doing it twice, or after only a part of the step's effect, comes to the same. Removes only
//! what we made, and restores what we replaced.

use std::{
    fmt, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use aio_host::files;
use serde::{Deserialize, Serialize};

use crate::{
    failure::{Failure, not_a_file},
    transaction::journal::copies::Copies,
};

/// One thing to put back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "undo", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Undo {
    /// There was nothing at this path.
    RemoveFile { path: PathBuf },
    /// There was this file; `copy` names its bytes beside the journal.
    RestoreFile { path: PathBuf, copy: String, mode: u32, uid: u32, gid: u32 },
    /// There was this link.
    RestoreLink { path: PathBuf, target: PathBuf },
    /// The folder was not there. What others have put into it since keeps it.
    RemoveDir { path: PathBuf },
    /// The folder was not there, and all in it is the daemon's.
    RemoveTree { path: PathBuf },
    /// What was at `path` was moved to `aside`; all that is there since is the daemon's.
    MoveBack { path: PathBuf, aside: PathBuf },
    /// The folder was of this owner and mode. In it were these entries; all others are the
    /// daemon's.
    RestoreOwner { path: PathBuf, mode: u32, uid: u32, gid: u32, entries: Vec<String> },
    /// The user was not there.
    RemoveUser { name: String },
    /// The group was not there.
    RemoveGroup { name: String },
    /// In this folder were these half-written account files and no others: what an account tool
    /// leaves that is killed.
    RemoveStages { dir: PathBuf, known: Vec<String> },
    /// Unit files change back before this.
    ReloadManager,
    /// The unit was not enabled.
    DisableUnit { unit: String },
    /// The unit did not run.
    StopUnit { unit: String },
    /// The unit ran: with what it had then, once everything else is back.
    RestartUnit { unit: String },
    /// Others will have changed it by the time that a committed transaction is undone, so this
    /// holds only until then.
    UntilCommitted { was: Box<Self> },
}

impl Undo {
    /// How `path` is now. The bytes of a file are copied beside the journal.
    pub(crate) fn of_file(path: &Path, copies: &mut Copies) -> Result<Self, Failure> {
        let metadata = match path.symlink_metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::RemoveFile { path: path.to_owned() });
            }
            Err(error) => return Err(Failure::io("read", path, &error)),
        };
        if metadata.is_symlink() {
            let target = fs::read_link(path).map_err(|error| Failure::io("read", path, &error))?;
            return Ok(Self::RestoreLink { path: path.to_owned(), target });
        }
        if !metadata.is_file() {
            return Err(not_a_file(path));
        }
        let bytes = fs::read(path).map_err(|error| Failure::io("read", path, &error))?;
        Ok(Self::RestoreFile {
            path: path.to_owned(),
            copy: copies.keep(&bytes)?,
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
        })
    }

    /// The same for a file that is about to be written, the folders that will be made for it
    /// included.
    pub(crate) fn of_file_and_dirs(path: &Path, copies: &mut Copies) -> Result<Vec<Self>, Failure> {
        let mut undo = vec![Self::of_file(path, copies)?];
        undo.extend(path.parent().into_iter().flat_map(Self::of_dirs));
        Ok(undo)
    }

    /// The folders that making `dir` will make, innermost first.
    pub(crate) fn of_dirs(dir: &Path) -> impl Iterator<Item = Self> {
        files::missing_dirs(dir).into_iter().rev().map(|path| Self::RemoveDir { path })
    }

    /// Whose folder `dir` is, and what is in it.
    pub(crate) fn of_owner(dir: &Path) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::io("read", dir, &error);
        let metadata = dir.symlink_metadata().map_err(failed)?;
        let names = fs::read_dir(dir).map_err(failed)?.flatten().map(|entry| entry.file_name());
        let entries = names.filter_map(|name| name.into_string().ok()).collect();
        let (path, mode) = (dir.to_owned(), metadata.mode() & 0o7777);
        Ok(Self::RestoreOwner { path, mode, uid: metadata.uid(), gid: metadata.gid(), entries })
    }

    /// What the record is about: of several records about one thing, the earliest says how it was
    /// at first.
    pub(crate) fn subject(&self) -> (&'static str, Option<&Path>) {
        match self {
            Self::RemoveFile { path } | Self::RestoreFile { path, .. } | Self::RestoreLink { path, .. } => {
                ("file", Some(path))
            }
            Self::RemoveDir { path } => ("dir", Some(path)),
            Self::RemoveTree { path } | Self::MoveBack { path, .. } => ("tree", Some(path)),
            Self::RestoreOwner { path, .. } => ("owner", Some(path)),
            Self::RemoveUser { .. } => ("user", None),
            Self::RemoveGroup { .. } => ("group", None),
            Self::RemoveStages { dir, .. } => ("stages", Some(dir)),
            Self::ReloadManager => ("reload", None),
            Self::DisableUnit { unit } => ("enablement", Some(Path::new(unit))),
            Self::StopUnit { unit } | Self::RestartUnit { unit } => ("activity", Some(Path::new(unit))),
            Self::UntilCommitted { was } => was.subject(),
        }
    }

    /// The copy that the record needs.
    pub(crate) fn copy(&self) -> Option<&str> {
        match self {
            Self::RestoreFile { copy, .. } => Some(copy),
            Self::UntilCommitted { was } => was.copy(),
            _ => None,
        }
    }

    /// The file that the record is about.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        match self {
            Self::RemoveFile { path } | Self::RestoreFile { path, .. } | Self::RestoreLink { path, .. } => {
                Some(path.clone())
            }
            _ => None,
        }
    }

    /// The folder that the installation made, with all that is in it.
    pub(crate) fn tree(&self) -> Option<&Path> {
        match self {
            Self::RemoveTree { path } | Self::MoveBack { path, .. } | Self::RestoreOwner { path, .. } => {
                Some(path)
            }
            _ => None,
        }
    }

    /// Whether the record outlives the commit.
    pub(crate) fn lasts(&self) -> bool {
        !matches!(self, Self::UntilCommitted { .. })
    }
}

/// What it does, for a person.
impl fmt::Display for Undo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RemoveFile { path } => write!(f, "remove {}", path.display()),
            Self::RestoreFile { path, .. } => write!(f, "put {} back as it was", path.display()),
            Self::RestoreLink { path, target } => {
                write!(f, "point {} at {} again", path.display(), target.display())
            }
            Self::RemoveDir { path } => write!(f, "remove {} if nothing else is in it", path.display()),
            Self::RemoveTree { path } => write!(f, "remove {} with all that is in it", path.display()),
            Self::MoveBack { path, aside } => {
                write!(
                    f,
                    "put {} back as {}, with nothing of the daemon's in it",
                    aside.display(),
                    path.display()
                )
            }
            Self::RestoreOwner { path, .. } => write!(f, "give {} back to its owner", path.display()),
            Self::RemoveUser { name } => write!(f, "remove the user {name}"),
            Self::RemoveGroup { name } => write!(f, "remove the group {name}"),
            Self::RemoveStages { dir, .. } => {
                write!(f, "remove what a killed account tool left in {}", dir.display())
            }
            Self::ReloadManager => f.write_str("reload systemd"),
            Self::DisableUnit { unit } => write!(f, "disable {unit}"),
            Self::StopUnit { unit } => write!(f, "stop {unit}"),
            Self::RestartUnit { unit } => write!(f, "restart {unit}"),
            Self::UntilCommitted { was } => was.fmt(f),
        }
    }
}
