//! Writes the service's unit file. systemd reads it when it reloads: the next step but two, and
//! again when this one is undone.

use std::{fs, path::PathBuf};

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

/// Writes the unit file to `path`.
#[derive(Debug)]
pub(crate) struct WriteUnit {
    pub(crate) path: PathBuf,
    /// Where a file that is not ours is kept, for whoever wrote it. Root's alone: the older
    /// script's unit holds the token.
    pub(crate) keep: Option<PathBuf>,
}

/// Of the copy.
const KEPT_MODE: u32 = 0o600;

impl Action for WriteUnit {
    const NAME: &'static str = "write_unit";

    fn summary(&self) -> String {
        let kept = self.keep.as_ref();
        let kept = kept.map(|keep| format!(", and keep the one that is there as {}", keep.display()));
        format!("write {}{}", self.path.display(), kept.unwrap_or_default())
    }

    fn note(&self) -> Option<String> {
        let keep = self.keep.as_ref()?.display();
        Some(format!(
            "{} was not as an installation left it; it is kept as {keep}. Changes belong into a drop-in: systemctl edit aio-worker",
            self.path.display()
        ))
    }

    fn way_back(&self, _: &Host, copies: &mut Copies) -> Result<Vec<Undo>, Failure> {
        let mut undo = Undo::of_file_and_dirs(&self.path, copies)?;
        undo.extend(self.keep.iter().map(|keep| Undo::RemoveFile { path: keep.clone() }));
        undo.push(Undo::ReloadManager);
        Ok(undo)
    }

    async fn apply(&self, _: &Work<'_>, _: Place) -> Result<(), Failure> {
        make_folders_of(&self.path)?;
        if let Some(keep) = &self.keep {
            let bytes = fs::read(&self.path).map_err(|error| Failure::io("read", &self.path, &error))?;
            files::replace_file(keep, &bytes, KEPT_MODE)?;
        }
        Ok(files::replace_file(&self.path, shipped::UNIT_TEXT.as_bytes(), shipped::UNIT_MODE)?)
    }
}
