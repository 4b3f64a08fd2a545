//! Writes the node token where only root can read it; the daemon gets a copy from systemd.

use std::path::PathBuf;

use aio_host::files;
use secrecy::{ExposeSecret, SecretString};

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

/// Writes `token` to `path`.
#[derive(Debug)]
pub(crate) struct WriteToken {
    pub(crate) path: PathBuf,
    pub(crate) token: SecretString,
}

impl Action for WriteToken {
    const NAME: &'static str = "write_token";

    fn summary(&self) -> String {
        format!("write {} (mode 0600)", self.path.display())
    }

    fn way_back(&self, _: &Host, copies: &mut Copies) -> Result<Vec<Undo>, Failure> {
        Undo::of_file_and_dirs(&self.path, copies)
    }

    async fn apply(&self, _: &Work<'_>, _: Place) -> Result<(), Failure> {
        make_folders_of(&self.path)?;
        Ok(files::replace_file(&self.path, self.token.expose_secret().as_bytes(), shipped::TOKEN_MODE)?)
    }
}
