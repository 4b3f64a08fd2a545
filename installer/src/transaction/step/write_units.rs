//! Writes units, and keeps those of a release beside its program, so that whoever goes back to it
//! finds them. systemd reads what is new when it reloads.

use std::path::PathBuf;

use aio_host::files;

use super::action::{Action, make_folders_of};
use crate::{
    failure::Failure,
    machine::host::Host,
    shipped,
    transaction::{
        journal::copies::Copies,
        undo::record::Undo,
        work::{Place, Work},
    },
};

/// Writes files that everybody may read.
#[derive(Debug)]
pub(crate) struct WriteUnits {
    /// Where, and what.
    pub(crate) files: Vec<(PathBuf, Vec<u8>)>,
}

impl Action for WriteUnits {
    const NAME: &'static str = "write_units";

    fn summary(&self) -> String {
        let paths: Vec<_> = self.files.iter().map(|(path, _)| path.display().to_string()).collect();
        format!("write {}", paths.join(", "))
    }

    fn way_back(&self, _: &Host, copies: &mut Copies) -> Result<Vec<Undo>, Failure> {
        // The folders last: all files are out of them then.
        let mut undo = Vec::new();
        for (path, _) in &self.files {
            undo.push(Undo::of_file(path, copies)?);
        }
        for folder in self.files.iter().filter_map(|(path, _)| path.parent()) {
            for dir in Undo::of_dirs(folder) {
                if !undo.contains(&dir) {
                    undo.push(dir);
                }
            }
        }
        undo.push(Undo::ReloadManager);
        Ok(undo)
    }

    async fn apply(&self, _: &Work<'_>, _: Place) -> Result<(), Failure> {
        for (path, bytes) in &self.files {
            make_folders_of(path)?;
            files::replace_file(path, bytes, shipped::UNIT_MODE)?;
        }
        Ok(())
    }
}
