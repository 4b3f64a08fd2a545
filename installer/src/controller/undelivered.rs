//! Failures that the controller could not be told: kept as one small file each, and told by the
//! next installation, or by the worker where one stays on the machine. Nothing secret is in them.
//! Only failures are kept: progress is stale, and a success the worker itself shows.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use aio_host::{
    files,
    layout::{Layout, UNDELIVERED},
};
use aio_protocol::{
    ids::NodeId,
    installation::{InstallationReport, UndeliveredFailure},
};
use rustix::fs::{Gid, Mode, OFlags, Uid, fchown, fstat, mkdirat, open, openat};
use tokio::time::Instant;

use crate::{controller::calls::Controller, failure::Failure, machine::host::Host};

/// Maximum number of kept failures. Beyond it something fails every few minutes for days; then the
/// oldest go.
const MAX_KEPT: usize = 1000;

/// For telling all of them: somebody waits for an installation.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(5);

/// Keeps `failure`, for the worker where one stays here, else for the next installation. Says
/// where.
pub(crate) fn keep(host: &Host, failure: &UndeliveredFailure) -> Result<PathBuf, Failure> {
    let dir = host.layout.undelivered();
    let bytes = serde_json::to_vec(failure).map_err(|error| Failure::io("write", &dir, &error.into()))?;
    // Names that sort by time.
    let name = format!("{:013}-{:08x}.json", failure.at.as_millis(), fastrand::u32(..));
    let state = host.layout.state_dir();
    if host.is_of_daemon(&state) {
        let path = state.join(UNDELIVERED).join(&name);
        hand_over(&state, &name, &bytes).map_err(|error| Failure::io("write", &path, &error))?;
        return Ok(path);
    }
    files::create_dir(&dir, 0o700)?;
    let path = dir.join(name);
    files::replace_file(&path, &bytes, 0o600)?;
    let kept = list(&dir);
    for old in kept.iter().take(kept.len().saturating_sub(MAX_KEPT)) {
        tracing::warn!(path = %old.display(), "too many reports wait to be told, and the oldest is forgotten");
        files::remove_file(old)?;
    }
    Ok(path)
}

/// Writes a file into the daemon's folder and gives it to the daemon. Its user could have put
/// anything there, so no link is followed and nothing is replaced.
fn hand_over(state: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let folder = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let state = open(state, folder, Mode::empty())?;
    let owner = fstat(&state)?;
    let (uid, gid) = (Some(Uid::from_raw(owner.st_uid)), Some(Gid::from_raw(owner.st_gid)));
    match mkdirat(&state, UNDELIVERED, Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let dir = openat(&state, UNDELIVERED, folder, Mode::empty())?;
    fchown(&dir, uid, gid)?;
    let new = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = fs::File::from(openat(&dir, name, new, Mode::RUSR | Mode::WUSR)?);
    file.write_all(bytes)?;
    fchown(&file, uid, gid)?;
    file.sync_all()
}

/// Tells the controller what it does not know yet of `node`. What cannot be told now stays; what it
/// does not want is forgotten.
pub(crate) async fn deliver(layout: &Layout, node: &NodeId, controller: &Controller<'_>) {
    let dir = layout.undelivered();
    let deadline = Instant::now() + DELIVERY_TIMEOUT;
    for path in list(&dir) {
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            // A disk that fails today may give it tomorrow.
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a kept report cannot be read now");
                continue;
            }
        };
        let told = match serde_json::from_slice::<UndeliveredFailure>(&bytes) {
            Ok(failure) if failure.node_id != *node => continue,
            Ok(failure) => {
                let step = failure.step.clone();
                let report = InstallationReport::Failed { step, error: failure.told_late() };
                controller.report(&report, deadline).await
            }
            Err(reason) => {
                tracing::warn!(path = %path.display(), %reason, "what was kept is no report, and is forgotten");
                Ok(())
            }
        };
        match told {
            Err(trouble) if trouble.code.is_transient() => return,
            Err(trouble) => {
                tracing::debug!(message = %trouble.message, "the controller refused a kept report")
            }
            Ok(()) => {}
        }
        if let Err(error) = files::remove_file(&path) {
            tracing::warn!(%error, reason = %error.source, "a report that was told could not be removed");
            return;
        }
    }
    // Ignore the error: reports of other nodes may be in it.
    let _ = fs::remove_dir(&dir);
}

/// Forgets all that are kept for the next installation.
pub(crate) fn forget(layout: &Layout) -> Result<(), Failure> {
    let dir = layout.undelivered();
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::io("remove", &dir, &error)),
        _ => Ok(()),
    }
}

/// The files that are kept for the next installation, oldest first.
pub(crate) fn list(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let is_report = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json");
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).filter(is_report).collect();
    paths.sort();
    paths
}
