//! Runs the way back: each record is undone in reverse, and what cannot be undone is told and kept
//! for the next run.

use std::{fs, path::Path};

use aio_host::{
    files::{self, FileError},
    systemd::SystemdError,
};
use aio_protocol::error_code::ErrorCode;
use rustix::{
    fs::{AtFlags, Gid, Mode, OFlags, Uid, chownat, fchmod, fchown, open},
    io::Errno,
};

use super::record::Undo;
use crate::{
    failure::Failure,
    machine::{accounts, host::Host},
    transaction::{
        checkpoint::{Checkpoint, Point},
        journal::{Journal, copies::Copies},
    },
};

/// Undoes the journal's open transaction, last step first, and forgets it. What cannot be undone is
/// told, all of it; then the journal stays, and the next run tries again.
pub(crate) async fn undo(
    host: &Host,
    journal: &mut Journal,
    checkpoint: &dyn Checkpoint,
) -> Result<(), Failure> {
    let steps: Vec<_> = journal.open_steps().collect();
    undo_steps(host, journal.kept_copies(), &steps, checkpoint).await?;
    journal.abandon()
}

/// The same at boot, before the service: nothing of it runs, and systemd starts it when this is
/// done, so that waiting for a restart would be waiting for oneself.
pub(crate) async fn undo_before_start(
    host: &Host,
    journal: &mut Journal,
    checkpoint: &dyn Checkpoint,
) -> Result<(), Failure> {
    let is_restart = |record: &Undo| matches!(record, Undo::RestartUnit { .. });
    let kept = |undo: &[Undo]| undo.iter().filter(|it| !is_restart(it)).cloned().collect::<Vec<_>>();
    let steps: Vec<_> = journal.open_steps().map(|(step, undo)| (step, kept(undo))).collect();
    let steps: Vec<_> = steps.iter().map(|(step, undo)| (*step, undo.as_slice())).collect();
    undo_steps(host, journal.kept_copies(), &steps, checkpoint).await?;
    journal.abandon()
}

/// Undoes `steps`, the last one first. The journal is not changed.
pub(crate) async fn undo_steps(
    host: &Host,
    copies: &Copies,
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
            } else if let Err(trouble) = record.run(host, copies).await {
                troubles.push(trouble);
            }
        }
        if let Err(trouble) = checkpoint.reached(Point::Undone(step)).await {
            troubles.push(trouble);
        }
    }
    for record in last {
        if let Err(trouble) = record.run(host, copies).await {
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

impl Undo {
    async fn run(&self, host: &Host, copies: &Copies) -> Result<(), Failure> {
        match self {
            Self::RemoveFile { path } => settle(files::remove_file(path)),
            Self::RestoreFile { path, copy, mode, uid, gid } => {
                let bytes = copies.kept(copy)?;
                // A step that never came to writing may have met a full disk, which has no room for
                // the way back either.
                if !holds(path, &bytes) {
                    files::replace_file(path, &bytes, *mode)?;
                }
                Ok(files::own(path, *uid, *gid, *mode)?)
            }
            Self::RestoreLink { path, target } => match fs::read_link(path) {
                Ok(present) if present == *target => Ok(()),
                _ => Ok(files::replace_link(path, target)?),
            },
            Self::RemoveDir { path } => settle(files::remove_dir_if_empty(path)),
            Self::RemoveTree { path } => remove_tree(path),
            Self::MoveBack { path, aside } => {
                // It was never moved, or is back already.
                if aside.symlink_metadata().is_err() {
                    return Ok(());
                }
                remove_tree(path)?;
                Ok(files::rename(aside, path)?)
            }
            Self::RestoreOwner { path, mode, uid, gid, entries } => {
                give_back(path, *uid, *gid, *mode, entries)
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
            Self::UntilCommitted { was } => Box::pin(was.run(host, copies)).await,
        }
    }
}

fn holds(path: &Path, bytes: &[u8]) -> bool {
    path.symlink_metadata().is_ok_and(|it| it.is_file()) && fs::read(path).is_ok_and(|it| it == bytes)
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

/// Removes a folder of the daemon's. Whatever its user puts in there meanwhile, no link is
/// followed.
fn remove_tree(path: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::io("remove the folder", path, &error))
        }
        _ => Ok(()),
    }
}

/// Gives a folder back: without what the daemon made in it, with its owner and mode. The folder
/// above is root's, so that nobody replaces this one meanwhile; what is in it may be links, and
/// none is followed.
fn give_back(path: &Path, uid: u32, gid: u32, mode: u32, known: &[String]) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::io("give back", path, &error);
    let (owner, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = match open(path, flags, Mode::empty()) {
        // The folder is gone, and nothing in its place is ours to touch.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        opened => opened.map_err(|error| failed(error.into()))?,
    };
    for entry in fs::read_dir(path).map_err(failed)?.flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| known.iter().any(|known| known == name)) {
            // systemd gave it to the daemon with the rest.
            let given = chownat(&dir, &name, owner, group, AtFlags::SYMLINK_NOFOLLOW);
            given.map_err(|error| failed(error.into()))?;
            continue;
        }
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(|error| Failure::io("remove", &path, &error))?;
    }
    let owned = fchown(&dir, owner, group);
    owned.and_then(|()| fchmod(&dir, Mode::from_raw_mode(mode))).map_err(|error| failed(error.into()))
}
