//! One installation at a time: an advisory lock on the installer's own folder, which only root can
//! open. The kernel drops it with the process, so a killed installation blocks nobody.

use std::{
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::MetadataExt,
    path::Path,
    time::Duration,
};

use aio_host::files::{self, FileError};
use aio_protocol::error_code::ErrorCode;
use rustix::fs::{FlockOperation, flock};
use tokio::time::{Instant, sleep};

use crate::failure::Failure;

/// The installer's folder is private: it holds copies of what was replaced.
const MODE: u32 = 0o700;

/// Maximum number of times that another installation may remove the folder while this one takes the
/// lock.
const MAX_ATTEMPTS: u32 = 100;

/// Time that a holder who is about to end has to give the lock back.
const PATIENCE: Duration = Duration::from_secs(2);

/// Interval between two tries to take the lock.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// The lock. It ends with this value, or with the process.
#[derive(Debug)]
pub(crate) struct Lock {
    _folder: File,
}

impl Lock {
    /// Takes the lock on `dir`, which is made if it is not there.
    pub(crate) fn take(dir: &Path) -> Result<Self, Failure> {
        for _ in 0..MAX_ATTEMPTS {
            let opened = files::create_dir(dir, MODE)
                .and_then(|_| File::open(dir).map_err(FileError::on(dir, "open")));
            let folder = match opened {
                Err(error) if error.source.kind() == ErrorKind::NotFound => continue,
                opened => opened?,
            };
            match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(held(dir));
                }
                Err(error) => return Err(Failure::io("lock", dir, &error.into())),
            }
            // Whoever held it before may have removed the folder between our two calls; then ours
            // is nobody's.
            if is_still(dir, &folder) {
                return Ok(Self { _folder: folder });
            }
        }
        Err(held(dir))
    }

    /// Takes the lock on `dir`, and waits a moment for a holder who is about to end: an update says
    /// how it ended before it has swept up. `explain` completes the refusal, and says by another
    /// code that the holder is not about to end.
    pub(crate) async fn take_when_free(
        dir: &Path,
        explain: &dyn Fn(Failure) -> Failure,
    ) -> Result<Self, Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let refused = match Self::take(dir) {
                Err(failure) => explain(failure),
                taken => return taken,
            };
            if refused.code != ErrorCode::InstallLocked || Instant::now() >= deadline {
                return Err(refused);
            }
            sleep(RETRY_INTERVAL).await;
        }
    }

    /// Whether somebody holds the lock on `dir`, as far as this user may see; leaves nothing
    /// behind.
    pub(crate) fn is_held(dir: &Path) -> bool {
        let Ok(folder) = File::open(dir) else { return false };
        flock(&folder, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
    }

    /// Gives the lock back, and takes the folder away unless something is in it.
    pub(crate) fn release(self, dir: &Path) -> Result<(), Failure> {
        files::remove_dir_if_empty(dir)?;
        Ok(())
    }
}

fn held(dir: &Path) -> Failure {
    Failure::new(ErrorCode::InstallLocked, format!("another installation holds {}", dir.display()))
}

fn is_still(dir: &Path, folder: &File) -> bool {
    let (Ok(named), Ok(held)) = (fs::metadata(dir), folder.metadata()) else { return false };
    (named.dev(), named.ino()) == (held.dev(), held.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_installation_is_refused_until_the_first_has_ended() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("aio-installer");
        let first = Lock::take(&dir).unwrap();
        assert_eq!(Lock::take(&dir).unwrap_err().code, ErrorCode::InstallLocked);
        assert!(Lock::is_held(&dir));
        first.release(&dir).unwrap();
        assert!(!dir.exists(), "an empty folder does not stay");
        assert!(!Lock::is_held(&dir) && !dir.exists());
        drop(Lock::take(&dir).unwrap());
        assert!(Lock::take(&dir).is_ok(), "a process that died holds nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_who_is_about_to_end_is_waited_for_and_no_other() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("aio-installer");
        let held = Lock::take(&dir).unwrap();
        let busy = |failure: Failure| Failure::new(ErrorCode::UpdateBusy, failure.message);
        let began = Instant::now();
        assert_eq!(Lock::take_when_free(&dir, &busy).await.unwrap_err().code, ErrorCode::UpdateBusy);
        assert_eq!(began.elapsed(), Duration::ZERO);
        let refused = Lock::take_when_free(&dir, &|failure| failure).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::InstallLocked);
        assert!(began.elapsed() >= PATIENCE);
        let ends = async {
            sleep(PATIENCE / 2).await;
            drop(held);
        };
        let (taken, ()) = tokio::join!(Lock::take_when_free(&dir, &|failure| failure), ends);
        assert!(taken.is_ok());
    }

    #[test]
    fn of_two_first_installations_at_once_one_is_refused_and_the_other_keeps_its_lock() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("lib").join("aio-installer");
        for _ in 0..200 {
            let begin = std::sync::Barrier::new(2);
            let take = || {
                begin.wait();
                Lock::take(&dir)
            };
            let (first, second) = std::thread::scope(|scope| {
                let other = scope.spawn(take);
                (take(), other.join().unwrap())
            });
            let (Ok(lock), Err(refused)) = (if first.is_ok() { (first, second) } else { (second, first) })
            else {
                panic!("not one of two")
            };
            assert_eq!(refused.code, ErrorCode::InstallLocked, "{}", refused.message);
            assert!(Lock::is_held(&dir));
            lock.release(&dir).unwrap();
            std::fs::remove_dir(dir.parent().unwrap()).unwrap();
        }
    }
}
