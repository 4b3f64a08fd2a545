//! Puts the command on everybody's path: a link through `current`, so that an upgrade need not
//! touch it.

use std::path::PathBuf;

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

/// Links `link` to `target`.
#[derive(Debug)]
pub(crate) struct LinkCommand {
    pub(crate) link: PathBuf,
    pub(crate) target: PathBuf,
}

impl Action for LinkCommand {
    const NAME: &'static str = "link_command";

    fn summary(&self) -> String {
        format!("link {} to {}", self.link.display(), self.target.display())
    }

    fn way_back(&self, _: &Host, copies: &mut Copies) -> Result<Vec<Undo>, Failure> {
        Undo::of_file_and_dirs(&self.link, copies)
    }

    async fn apply(&self, _: &Work<'_>, _: Place) -> Result<(), Failure> {
        make_folders_of(&self.link)?;
        Ok(files::replace_link(&self.link, &self.target)?)
    }
}
