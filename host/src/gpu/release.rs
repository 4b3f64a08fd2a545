//! A request that the probe lets go of the GPUs for a while, so that a driver can be unloaded or a GPU
//! reset: a file in the runtime folder that says until when. Root writes it, the probe's thread reads it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use aio_protocol::time::Timestamp;

use crate::files::{self, FileError};

const FILE: &str = "gpu-release";

/// A request for longer than this is none: nobody may switch the watch over GPUs off by mistake.
pub const LONGEST_RELEASE: Duration = Duration::from_secs(3600);

/// Where such requests are.
#[derive(Debug, Clone)]
pub struct Release(PathBuf);

impl Release {
    /// In the daemon's runtime folder.
    pub fn in_folder(runtime_dir: &Path) -> Self {
        Self(runtime_dir.join(FILE))
    }

    /// Until when the GPUs are not to be held; none where nobody asks for it now.
    pub fn until(&self) -> Option<Timestamp> {
        let now = Timestamp::from(SystemTime::now());
        let until: Timestamp = fs::read_to_string(&self.0).ok()?.trim().parse().ok()?;
        (until > now && until.since(now) <= LONGEST_RELEASE).then_some(until)
    }

    /// Asks for it until then.
    pub fn ask(&self, until: Timestamp) -> Result<(), FileError> {
        files::replace_file(&self.0, format!("{until}\n").as_bytes(), 0o644)
    }

    /// Asks for it no longer; whether anybody had.
    pub fn end(&self) -> Result<bool, FileError> {
        files::remove_file(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_time_that_is_near_and_to_come_counts() {
        let folder = tempfile::tempdir().unwrap();
        let release = Release::in_folder(folder.path());
        assert_eq!(release.until(), None);
        let now = Timestamp::from(SystemTime::now());
        let soon = now.plus(Duration::from_secs(300));
        release.ask(soon).unwrap();
        assert_eq!(release.until(), Some(soon));
        release.ask(now.plus(LONGEST_RELEASE * 2)).unwrap();
        assert_eq!(release.until(), None);
        release.ask(now).unwrap();
        assert_eq!(release.until(), None, "its time is over");
        fs::write(folder.path().join(FILE), "for ever").unwrap();
        assert_eq!(release.until(), None);
        assert!(release.end().unwrap() && !release.end().unwrap());
    }
}
