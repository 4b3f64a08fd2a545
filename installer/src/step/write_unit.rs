//! Writes the service's unit file. systemd reads it when it reloads: the next step but two, and again when this one is undone.

use std::path::PathBuf;

use aio_host::{files, systemd::ServiceManager};

use super::{Action, make_folders_of};
use crate::{apply::Work, failure::Failure, install::Host, journal::Journal, undo::Undo};

/// The unit: one copy for the installer and the Debian package.
pub(crate) const TEXT: &str = include_str!("../../../systemd/aio-worker.service");

/// See the file's head.
#[derive(Debug)]
pub(crate) struct WriteUnit {
    pub(crate) path: PathBuf,
}

impl Action for WriteUnit {
    const NAME: &'static str = "write_unit";

    fn summary(&self) -> String {
        format!("write {}", self.path.display())
    }

    fn way_back<S>(&self, _: &Host<S>, journal: &mut Journal) -> Result<Vec<Undo>, Failure> {
        let mut undo = Undo::of_file_and_dirs(&self.path, journal)?;
        undo.push(Undo::ReloadManager);
        Ok(undo)
    }

    async fn apply<S: ServiceManager>(&self, _: &Work<'_, S>) -> Result<(), Failure> {
        make_folders_of(&self.path)?;
        Ok(files::replace_file(&self.path, TEXT.as_bytes(), 0o644)?)
    }
}
