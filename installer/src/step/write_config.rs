//! Writes `config.toml`.

use std::path::PathBuf;

use aio_host::{files, systemd::ServiceManager};

use super::{Action, make_folders_of};
use crate::{apply::Work, failure::Failure, install::Host, journal::Journal, undo::Undo};

/// See the file's head.
#[derive(Debug)]
pub(crate) struct WriteConfig {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    /// A file that is there keeps its mode.
    pub(crate) mode: u32,
}

/// The configuration holds no secret, and the daemon must read it.
pub(crate) const MODE: u32 = 0o644;

impl Action for WriteConfig {
    const NAME: &'static str = "write_config";

    fn summary(&self) -> String {
        format!("write {}", self.path.display())
    }

    fn way_back<S>(&self, _: &Host<S>, journal: &mut Journal) -> Result<Vec<Undo>, Failure> {
        Undo::of_file_and_dirs(&self.path, journal)
    }

    async fn apply<S: ServiceManager>(&self, _: &Work<'_, S>) -> Result<(), Failure> {
        make_folders_of(&self.path)?;
        Ok(files::replace_file(&self.path, self.text.as_bytes(), self.mode)?)
    }
}
