//! Room on the disk that is kept for revocations: a file beside the database that holds nothing. On a full
//! disk it is removed, so that what takes rights away can still be written, and all else is refused until
//! there is room for it again.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// Some thousand revocations.
const SIZE: u64 = 8 * 1024 * 1024;

/// A disk that is full is asked for room no more often.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// The reserve beside one database.
pub(super) struct Reserve {
    path: PathBuf,
    state: State,
}

enum State {
    /// Nothing is kept, and nothing is refused: a command, or a disk that was full from the start.
    Absent,
    Held,
    /// Removed when the disk was full.
    Spent {
        tried_at: Instant,
    },
}

impl Reserve {
    /// The reserve of the database at `database`, which another process may hold.
    pub(super) fn beside(database: &Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push(".reserve");
        Self { path: path.into(), state: State::Absent }
    }

    /// Takes the room.
    pub(super) fn hold(&mut self) {
        match self.allocate() {
            Ok(()) => self.state = State::Held,
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "no room is kept for revocations")
            }
        }
    }

    /// Whether changes that are not urgent must wait. Takes the room back as soon as the disk has
    /// twice as much.
    pub(super) fn is_spent(&mut self) -> bool {
        let State::Spent { tried_at } = &mut self.state else { return false };
        if tried_at.elapsed() < RETRY_INTERVAL {
            return true;
        }
        *tried_at = Instant::now();
        if self.free_bytes() < 2 * SIZE || self.allocate().is_err() {
            return true;
        }
        self.state = State::Held;
        tracing::info!("the disk has room again: all changes are taken");
        false
    }

    /// Gives the room away. Says whether there was any.
    pub(super) fn spend(&mut self) -> bool {
        if fs::remove_file(&self.path).is_err() {
            return false;
        }
        if matches!(self.state, State::Held) {
            tracing::error!("the disk is full: only revocations are written until there is room");
            self.state = State::Spent { tried_at: Instant::now() };
        }
        true
    }

    fn allocate(&self) -> io::Result<()> {
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.path)?;
        let allocated = fallocate(&file, FallocateFlags::empty(), 0, SIZE);
        if allocated.is_err() {
            let _ = fs::remove_file(&self.path);
        }
        Ok(allocated?)
    }

    fn free_bytes(&self) -> u64 {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        statvfs(folder).map_or(0, |it| it.f_bavail.saturating_mul(it.f_frsize))
    }
}
