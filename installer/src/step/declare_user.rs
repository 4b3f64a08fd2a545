//! Writes the declaration of the daemon's user, which the system's own tool then follows, now and after a reset of `/etc/passwd`.

use std::path::PathBuf;

use aio_host::files;

use super::{Action, make_folders_of};
use crate::{apply::Work, failure::Failure, install::Host, journal::Journal, undo::Undo};

/// The declaration: one copy for the installer and the Debian package.
pub(crate) const DECLARATION: &str = include_str!("../../../systemd/aio-worker.sysusers.conf");

/// See the file's head.
#[derive(Debug)]
pub(crate) struct DeclareUser {
    pub(crate) path: PathBuf,
}

impl Action for DeclareUser {
    const NAME: &'static str = "declare_user";

    fn summary(&self) -> String {
        format!("write {}", self.path.display())
    }

    fn way_back(&self, _: &Host, journal: &mut Journal) -> Result<Vec<Undo>, Failure> {
        Undo::of_file_and_dirs(&self.path, journal)
    }

    async fn apply(&self, _: &Work<'_>) -> Result<(), Failure> {
        make_folders_of(&self.path)?;
        Ok(files::replace_file(&self.path, DECLARATION.as_bytes(), 0o644)?)
    }
}
