//! The way back: what undoes a step, as the journal keeps it. Each record says how something was, so doing it twice, or after only a part
//! of the step's effect, comes to the same. Removes only what we made, and restores what we replaced.

use std::{
    fmt,
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use aio_host::{
    files::{self, FileError},
    systemd::SystemdError,
};
use aio_protocol::error_code::ErrorCode;
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid, chown, chownat, fchmod, open};
use serde::{Deserialize, Serialize};

use crate::{
    accounts,
    apply::{Checkpoint, Point},
    failure::Failure,
    install::Host,
    journal::Journal,
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
    /// The file or folder was of this owner and mode. In a folder were these entries; all others are the daemon's.
    RestoreOwner { path: PathBuf, mode: u32, uid: u32, gid: u32, entries: Option<Vec<String>> },
    /// The user was not there.
    RemoveUser { name: String },
    /// The group was not there.
    RemoveGroup { name: String },
    /// In this folder were these half-written account files and no others: what an account tool leaves that is killed.
    RemoveStages { dir: PathBuf, known: Vec<String> },
    /// Unit files change back before this.
    ReloadManager,
    /// The unit was not enabled.
    DisableUnit { unit: String },
    /// The unit did not run.
    StopUnit { unit: String },
    /// The unit ran: with what it had then, once everything else is back.
    RestartUnit { unit: String },
    /// Others will have changed it by the time that a committed transaction is undone, so this holds only until then.
    UntilCommitted { was: Box<Self> },
}

impl Undo {
    /// How `path` is now. The bytes of a file are copied beside the journal.
    pub(crate) fn of_file(path: &Path, journal: &mut Journal) -> Result<Self, Failure> {
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
            copy: journal.keep(&bytes)?,
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
        })
    }

    /// The same for a file that is about to be written, the folders that will be made for it included.
    pub(crate) fn of_file_and_dirs(path: &Path, journal: &mut Journal) -> Result<Vec<Self>, Failure> {
        let mut undo = vec![Self::of_file(path, journal)?];
        undo.extend(path.parent().into_iter().flat_map(Self::of_dirs));
        Ok(undo)
    }

    /// The folders that making `dir` will make, innermost first.
    pub(crate) fn of_dirs(dir: &Path) -> impl Iterator<Item = Self> {
        files::missing_dirs(dir).into_iter().rev().map(|path| Self::RemoveDir { path })
    }

    /// Whose `dir` and all in it is. A folder that is not there has nobody.
    pub(crate) fn of_owners(dir: &Path) -> Result<Vec<Self>, Failure> {
        let failed = |error: std::io::Error| Failure::io("read", dir, &error);
        let metadata = match dir.symlink_metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut entries = metadata.is_dir().then(Vec::new);
        let mut inside = Vec::new();
        if let Some(names) = &mut entries {
            for entry in fs::read_dir(dir).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                names.extend(entry.file_name().to_str().map(str::to_owned));
                inside.extend(Self::of_owners(&entry.path())?);
            }
        }
        let (path, mode) = (dir.to_owned(), metadata.mode() & 0o7777);
        let (uid, gid) = (metadata.uid(), metadata.gid());
        inside.insert(0, Self::RestoreOwner { path, mode, uid, gid, entries });
        Ok(inside)
    }

    /// What the record is about: of several records about one thing, the earliest says how it was at first.
    pub(crate) fn subject(&self) -> (&'static str, Option<&Path>) {
        match self {
            Self::RemoveFile { path } | Self::RestoreFile { path, .. } | Self::RestoreLink { path, .. } => {
                ("file", Some(path))
            }
            Self::RemoveDir { path } => ("dir", Some(path)),
            Self::RemoveTree { path } => ("tree", Some(path)),
            Self::RestoreOwner { path, .. } => ("owner", Some(path)),
            Self::RemoveUser { .. } => ("user", None),
            Self::RemoveGroup { .. } => ("group", None),
            Self::RemoveStages { dir, .. } => ("stages", Some(dir)),
            Self::ReloadManager => ("reload", None),
            Self::DisableUnit { .. } => ("enablement", None),
            Self::StopUnit { .. } | Self::RestartUnit { .. } => ("activity", None),
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

    /// Whether the record outlives the commit.
    pub(crate) fn lasts(&self) -> bool {
        !matches!(self, Self::UntilCommitted { .. })
    }

    async fn run(&self, host: &Host, journal: &Journal) -> Result<(), Failure> {
        match self {
            Self::RemoveFile { path } => settle(files::remove_file(path)),
            Self::RestoreFile { path, copy, mode, uid, gid } => {
                let bytes = journal.kept(copy)?;
                files::replace_file(path, &bytes, *mode)?;
                own(path, *uid, *gid, *mode)
            }
            Self::RestoreLink { path, target } => Ok(files::replace_link(path, target)?),
            Self::RemoveDir { path } => settle(files::remove_dir_if_empty(path)),
            Self::RemoveTree { path } => match fs::remove_dir_all(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(Failure::io("remove the folder", path, &error))
                }
                _ => Ok(()),
            },
            Self::RestoreOwner { path, mode, uid, gid, entries } => {
                remove_all_but(path, entries.as_deref())?;
                give_back(path, *uid, *gid, *mode)
            }
            Self::RemoveUser { name } if host.lists("etc/passwd", name) => {
                host.accounts.remove_user(name).await
            }
            Self::RemoveGroup { name } if host.lists("etc/group", name) => {
                host.accounts.remove_group(name).await
            }
            Self::RemoveUser { .. } | Self::RemoveGroup { .. } => Ok(()),
            Self::RemoveStages { dir, known } => accounts::remove_stages(dir, known).await,
            Self::ReloadManager => Ok(host.systemd.reload().await?),
            Self::DisableUnit { unit } => tolerate(host.systemd.disable(unit).await),
            Self::StopUnit { unit } => {
                tolerate(host.systemd.stop(unit).await)?;
                // A unit that never ran, or that is forgotten already, has no failure to forget.
                tolerate(host.systemd.reset_failed(unit).await)
            }
            Self::RestartUnit { unit } => Ok(host.systemd.restart(unit).await?),
            Self::UntilCommitted { was } => Box::pin(was.run(host, journal)).await,
        }
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

/// The parent folder may be gone as well, or have never come about.
fn settle(removed: Result<bool, FileError>) -> Result<(), Failure> {
    match removed {
        Err(error) if error.source.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// A unit that systemd does not know needs neither stopping nor disabling.
fn tolerate(done: Result<(), SystemdError>) -> Result<(), Failure> {
    match done {
        Err(SystemdError::Refused { name, message, .. })
            if name.ends_with(".NoSuchUnit") || name.ends_with(".FileNotFound") =>
        {
            tracing::debug!(name, message, "there is nothing to undo");
            Ok(())
        }
        other => Ok(other?),
    }
}

pub(crate) fn own(path: &Path, uid: u32, gid: u32, mode: u32) -> Result<(), Failure> {
    let metadata = path.symlink_metadata().map_err(|error| Failure::io("read", path, &error))?;
    if (metadata.uid(), metadata.gid()) == (uid, gid) {
        return Ok(());
    }
    chown(path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
        .map_err(|error| Failure::io("set the owner of", path, &error.into()))?;
    // A change of owner takes setuid and setgid bits away.
    fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(|error| Failure::io("set the mode of", path, &error))
}

/// Removes what the daemon made in a folder of somebody else's. A name that is no text cannot be the daemon's.
fn remove_all_but(dir: &Path, entries: Option<&[String]>) -> Result<(), Failure> {
    let (Some(entries), Ok(present)) = (entries, fs::read_dir(dir)) else { return Ok(()) };
    for entry in present.flatten() {
        if entry.file_name().to_str().is_none_or(|name| entries.iter().any(|known| known == name)) {
            continue;
        }
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(|error| Failure::io("remove", &path, &error))?;
    }
    Ok(())
}

/// Owner and mode of what is at `path`, which may be gone. The daemon's user could write here, so no link is followed.
fn give_back(path: &Path, uid: u32, gid: u32, mode: u32) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::io("give back", path, &error);
    let (owner, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    match chownat(CWD, path, owner, group, AtFlags::SYMLINK_NOFOLLOW) {
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        done => done.map_err(|error| failed(error.into()))?,
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match open(path, flags, Mode::empty()) {
        Ok(file) => fchmod(file, Mode::from_raw_mode(mode)).map_err(|error| failed(error.into())),
        // A link, or a socket: neither has a mode that counts.
        Err(_) => Ok(()),
    }
}

pub(crate) fn not_a_file(path: &Path) -> Failure {
    let message =
        format!("{} is neither a file nor a link, and a file of that name is needed", path.display());
    Failure::new(ErrorCode::FileFailed, message).with("path", path.display().to_string())
}

/// Undoes the journal's open transaction, last step first, and forgets it. What cannot be undone is told, all of it; then the journal
/// stays, and the next run tries again.
pub(crate) async fn undo(
    host: &Host,
    journal: &mut Journal,
    checkpoint: &dyn Checkpoint,
) -> Result<(), Failure> {
    let steps: Vec<_> = journal.open_steps().collect();
    undo_steps(host, journal, &steps, checkpoint).await?;
    journal.abandon()
}

/// Undoes `steps`, the last one first. The journal is not changed.
pub(crate) async fn undo_steps(
    host: &Host,
    journal: &Journal,
    steps: &[(&str, &[Undo])],
    checkpoint: &dyn Checkpoint,
) -> Result<(), Failure> {
    host.accounts.settled().await;
    let mut troubles = Vec::new();
    let mut last = Vec::new();
    for (step, records) in steps.iter().rev() {
        tracing::info!(step, "undoing");
        for record in *records {
            if let Undo::RestartUnit { unit } = record {
                // Meanwhile nothing runs with what is being taken back, nor as a user who is.
                if let Err(trouble) = tolerate(host.systemd.stop(unit).await) {
                    troubles.push(trouble);
                }
                last.push(record);
            } else if let Err(trouble) = record.run(host, journal).await {
                troubles.push(trouble);
            }
        }
        if let Err(trouble) = checkpoint.reached(Point::Undone(step)).await {
            troubles.push(trouble);
        }
    }
    for record in last {
        if let Err(trouble) = record.run(host, journal).await {
            troubles.push(trouble);
        }
    }
    if troubles.is_empty() {
        return Ok(());
    }
    for trouble in &troubles {
        tracing::error!(code = %trouble.code, message = %trouble.message, "could not undo");
    }
    let words: Vec<_> = troubles.iter().map(|trouble| trouble.message.as_str()).collect();
    let code = troubles.first().map_or(ErrorCode::Internal, |trouble| trouble.code);
    let message = format!("not everything could be undone; the next run tries again: {}", words.join("; "));
    Err(Failure::new(code, message))
}
