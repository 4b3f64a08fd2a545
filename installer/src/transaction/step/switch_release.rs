//! Makes `current` mean the release, by one rename. The release before stays in its folder.

use std::path::{Path, PathBuf};

use aio_host::files;
use aio_protocol::release::ReleaseVersion;

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

/// Points `link` at the folder of `version`.
#[derive(Debug)]
pub(crate) struct SwitchRelease {
    pub(crate) link: PathBuf,
    pub(crate) version: ReleaseVersion,
    /// The release that the link meant until now.
    pub(crate) previous: Option<ReleaseVersion>,
}

impl Action for SwitchRelease {
    const NAME: &'static str = "switch_release";

    fn summary(&self) -> String {
        format!("point {} at {}", self.link.display(), self.version)
    }

    fn way_back(&self, _: &Host, copies: &mut Copies) -> Result<Vec<Undo>, Failure> {
        Ok(vec![Undo::of_file(&self.link, copies)?])
    }

    async fn apply(&self, _: &Work<'_>, _: Place) -> Result<(), Failure> {
        Ok(files::replace_link(&self.link, Path::new(&self.version.to_string()))?)
    }
}
