//! Makes systemd read the unit files again. Nothing to undo: what is undone before it reloads by itself.

use super::Action;
use crate::{apply::Work, failure::Failure, install::Host, journal::Journal, undo::Undo};

/// See the file's head.
#[derive(Debug)]
pub(crate) struct ReloadManager;

impl Action for ReloadManager {
    const NAME: &'static str = "reload_manager";

    fn summary(&self) -> String {
        "make systemd read its unit files".to_owned()
    }

    fn way_back(&self, _: &Host, _: &mut Journal) -> Result<Vec<Undo>, Failure> {
        Ok(Vec::new())
    }

    async fn apply(&self, work: &Work<'_>) -> Result<(), Failure> {
        Ok(work.host.systemd.reload().await?)
    }
}
