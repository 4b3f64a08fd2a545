//! What every step can do: name itself, say what it does, say how the machine gets back, and take
//! effect.

use std::path::Path;

use aio_host::files;

use crate::{
    failure::Failure,
    machine::host::Host,
    transaction::{
        journal::copies::Copies,
        undo::record::Undo,
        work::{Place, Work},
    },
};

/// What every step can do.
pub(super) trait Action {
    /// The step's word.
    const NAME: &'static str;

    /// What it does, on what: one line for a person.
    fn summary(&self) -> String;

    /// What the operator should know of it afterwards.
    fn note(&self) -> Option<String> {
        None
    }

    /// How the machine gets back, in the order in which it is to be done, whatever part of the
    /// effect has come about. Called before it.
    fn way_back(&self, host: &Host, copies: &mut Copies) -> Result<Vec<Undo>, Failure>;

    /// The effect.
    async fn apply(&self, work: &Work<'_>, place: Place) -> Result<(), Failure>;
}

/// Makes the folders above `path`, open to everybody as the system's own are.
/// `Undo::of_file_and_dirs` and `of_dirs` are the way back.
pub(super) fn make_folders_of(path: &Path) -> Result<(), Failure> {
    if let Some(folder) = path.parent() {
        files::create_dir(folder, 0o755)?;
    }
    Ok(())
}
