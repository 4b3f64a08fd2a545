//! Gives a verified release file its mode and its final place in the folder of its version.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

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

/// Moves `fetched` to `to`.
#[derive(Debug)]
pub(crate) struct PlaceRelease {
    pub(crate) fetched: PathBuf,
    pub(crate) to: PathBuf,
}

impl Action for PlaceRelease {
    const NAME: &'static str = "place_release";

    fn summary(&self) -> String {
        format!("put the release in {}", self.to.display())
    }

    fn way_back(&self, _: &Host, copies: &mut Copies) -> Result<Vec<Undo>, Failure> {
        Undo::of_file_and_dirs(&self.to, copies)
    }

    async fn apply(&self, _: &Work<'_>, _: Place) -> Result<(), Failure> {
        let failed = |error| Failure::io("put in place", &self.to, &error);
        make_folders_of(&self.to)?;
        let file = File::open(&self.fetched).map_err(failed)?;
        file.set_permissions(Permissions::from_mode(shipped::RELEASE_MODE)).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        fs::rename(&self.fetched, &self.to).map_err(failed)?;
        for dir in [self.to.parent(), self.fetched.parent()].into_iter().flatten() {
            files::sync_dir(dir)?;
        }
        Ok(())
    }
}
