//! Downloads the release file to a private place on the file system where it will run, and checks it there.

use std::path::PathBuf;

use aio_host::systemd::ServiceManager;
use reqwest::Url;

use super::{Action, make_folders_of};
use crate::{
    apply::Work, download, failure::Failure, install::Host, journal::Journal, undo::Undo, verify::Promise,
};

/// See the file's head.
#[derive(Debug)]
pub(crate) struct FetchRelease {
    pub(crate) url: Url,
    pub(crate) promise: Box<Promise>,
    pub(crate) into: PathBuf,
}

impl Action for FetchRelease {
    const NAME: &'static str = "fetch_release";

    fn summary(&self) -> String {
        format!("download {} ({} bytes) and verify it", self.url, self.promise.size)
    }

    fn way_back<S>(&self, _: &Host<S>, journal: &mut Journal) -> Result<Vec<Undo>, Failure> {
        Undo::of_file_and_dirs(&self.into, journal)
    }

    async fn apply<S: ServiceManager>(&self, work: &Work<'_, S>) -> Result<(), Failure> {
        make_folders_of(&self.into)?;
        let total = self.promise.size;
        let received = |bytes| {
            work.console.downloaded(bytes, total);
            work.progress(bytes, total);
        };
        let fetched = download::fetch(work.client, &self.url, &self.promise, &self.into, &received).await;
        work.console.clear();
        fetched
    }
}
