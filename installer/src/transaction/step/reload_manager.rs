//! Makes systemd read the unit files again. Nothing to undo: what is undone before it reloads by
//! itself.

use super::action::Action;
use crate::{
    failure::Failure,
    machine::host::Host,
    transaction::{
        journal::copies::Copies,
        undo::record::Undo,
        work::{Place, Work},
    },
};

/// Reloads the manager, as `systemctl daemon-reload` does.
#[derive(Debug)]
pub(crate) struct ReloadManager;

impl Action for ReloadManager {
    const NAME: &'static str = "reload_manager";

    fn summary(&self) -> String {
        "make systemd read its unit files".to_owned()
    }

    fn way_back(&self, _: &Host, _: &mut Copies) -> Result<Vec<Undo>, Failure> {
        Ok(Vec::new())
    }

    async fn apply(&self, work: &Work<'_>, _: Place) -> Result<(), Failure> {
        Ok(work.host.systemd.reload().await?)
    }
}
