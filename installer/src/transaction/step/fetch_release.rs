//! Brings the release file, from its server or out of a bundle, to a private place on the file
//! system where it will run, and checks it there.

use std::path::PathBuf;

use super::action::{Action, make_folders_of};
use crate::{
    failure::Failure,
    machine::host::Host,
    release::offer::Source,
    release::{
        bundle::{Bundle, copy},
        download,
        verify::Promise,
    },
    transaction::{
        journal::copies::Copies,
        undo::record::Undo,
        work::{Place, Work},
    },
};

/// Fetches what `promise` names from `source` to `into`.
#[derive(Debug)]
pub(crate) struct FetchRelease {
    pub(crate) source: Source,
    pub(crate) promise: Box<Promise>,
    pub(crate) into: PathBuf,
}

impl Action for FetchRelease {
    const NAME: &'static str = "fetch_release";

    fn summary(&self) -> String {
        let size = self.promise.release.size;
        match &self.source {
            Source::Server(url) => format!("download {url} ({size} bytes) and verify it"),
            Source::Bundle(path) => format!("unpack {} ({size} bytes) and verify it", path.display()),
            Source::Program(path) => format!("copy {} ({size} bytes) and verify it", path.display()),
        }
    }

    fn way_back(&self, _: &Host, copies: &mut Copies) -> Result<Vec<Undo>, Failure> {
        Undo::of_file_and_dirs(&self.into, copies)
    }

    async fn apply(&self, work: &Work<'_>, place: Place) -> Result<(), Failure> {
        make_folders_of(&self.into)?;
        let total = self.promise.release.size;
        let received = |bytes| {
            work.console.downloaded(bytes, total);
            work.progress(place, bytes, total);
        };
        let fetched = match &self.source {
            Source::Server(url) => {
                download::fetch(work.client, url, &self.promise, &self.into, work.console, &received).await
            }
            Source::Bundle(path) => Bundle::unpack(path, &self.promise, &self.into, &received).await,
            Source::Program(path) => copy(path, &self.promise, &self.into, &received).await,
        };
        work.console.clear();
        fetched
    }
}
