//! Writes `config.toml`, and beside it the authorities that the operator made known.

use std::{os::unix::fs::MetadataExt, path::PathBuf};

use aio_host::files;

use super::action::{Action, make_folders_of};
use crate::{
    failure::Failure,
    machine::host::Host,
    transaction::{
        journal::copies::Copies,
        undo::record::Undo,
        work::{Place, Work},
    },
};

/// Writes files of the configuration.
#[derive(Debug)]
pub(crate) struct WriteConfig {
    /// What changes: the files' paths, what they will hold, and their modes.
    pub(crate) files: Vec<(PathBuf, Vec<u8>, u32)>,
}

impl Action for WriteConfig {
    const NAME: &'static str = "write_config";

    fn summary(&self) -> String {
        let paths: Vec<_> = self.files.iter().map(|(path, ..)| path.display().to_string()).collect();
        format!("write {}", paths.join(" and "))
    }

    fn way_back(&self, _: &Host, copies: &mut Copies) -> Result<Vec<Undo>, Failure> {
        // The folders last: each file is in one of them.
        let mut undo = Vec::new();
        for (path, ..) in &self.files {
            undo.push(Undo::of_file(path, copies)?);
        }
        undo.extend(
            self.files.first().and_then(|(path, ..)| path.parent()).into_iter().flat_map(Undo::of_dirs),
        );
        Ok(undo)
    }

    async fn apply(&self, _: &Work<'_>, _: Place) -> Result<(), Failure> {
        for (path, bytes, mode) in &self.files {
            make_folders_of(path)?;
            let before = path.symlink_metadata().ok().filter(|metadata| metadata.is_file());
            files::replace_file(path, bytes, *mode)?;
            // An admin may have given it to the daemon's group, because of a proxy's password.
            if let Some(before) = before {
                files::own(path, before.uid(), before.gid(), *mode)?;
            }
        }
        Ok(())
    }
}
