//! The daemon's state folder before an installation. systemd gives all that is in it to the daemon,
//! whose user could then put links in its place; so what is somebody else's is moved aside by one
//! rename, and comes back by another.

use std::{fs, io::ErrorKind, path::PathBuf};

use aio_host::files;

use super::{adoption::free_name, host::Host};
use crate::failure::Failure;

/// What a new file system has.
const LOST_AND_FOUND: &str = "lost+found";

/// What is at the state folder's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StateFolder {
    /// Nothing.
    Absent,
    /// The daemon's own, of an earlier installation or a package.
    Daemons,
    /// An empty folder of somebody else, perhaps a file system of its own. It is used, and given
    /// back.
    Empty,
    /// Something of somebody else, which is moved to the free name `aside`.
    Foreign { path: PathBuf, aside: PathBuf },
}

impl StateFolder {
    /// Looks at it. `ours` says that an earlier installation has made it.
    pub(crate) fn of(host: &Host, ours: bool) -> Result<Self, Failure> {
        let state = host.layout.state_dir();
        let failed = |error| Failure::io("read", &state, &error);
        let metadata = match state.symlink_metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::Absent),
            Err(error) => return Err(failed(error)),
        };
        if metadata.is_dir() {
            if ours || host.is_of_daemon(&state) {
                return Ok(Self::Daemons);
            }
            let mut names = fs::read_dir(&state).map_err(failed)?.flatten().map(|entry| entry.file_name());
            if names.all(|name| name == LOST_AND_FOUND) {
                return Ok(Self::Empty);
            }
        }
        let aside = free_name(&state, "before");
        Ok(Self::Foreign { path: state, aside })
    }

    /// Moves what is somebody else's out of the daemon's way.
    pub(crate) fn make_way(&self) -> Result<(), Failure> {
        let Self::Foreign { path, aside } = self else { return Ok(()) };
        // What a killed run has moved already is no longer there.
        if path.symlink_metadata().is_err() {
            return Ok(());
        }
        Ok(files::rename(path, aside)?)
    }

    /// What the operator should know of it.
    pub(crate) fn note(&self) -> Option<String> {
        let Self::Foreign { path, aside } = self else { return None };
        let (path, aside) = (path.display(), aside.display());
        Some(format!(
            "{path} was there and not the worker's; it is kept as {aside}, and an uninstallation puts it back"
        ))
    }
}
