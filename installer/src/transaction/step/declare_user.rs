//! Writes the declaration of the daemon's user, which the system's own tool then follows, now and
//! after a reset of `/etc/passwd`.

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

/// Writes the declaration to `path`.
#[derive(Debug)]
pub(crate) struct DeclareUser {
    pub(crate) path: PathBuf,
}

impl Action for DeclareUser {
    const NAME: &'static str = "declare_user";

    fn summary(&self) -> String {
        format!("write {}", self.path.display())
    }

    fn way_back(&self, _: &Host, copies: &mut Copies) -> Result<Vec<Undo>, Failure> {
        Undo::of_file_and_dirs(&self.path, copies)
    }

    async fn apply(&self, _: &Work<'_>, _: Place) -> Result<(), Failure> {
        make_folders_of(&self.path)?;
        Ok(files::replace_file(&self.path, shipped::DECLARATION.as_bytes(), shipped::UNIT_MODE)?)
    }
}
