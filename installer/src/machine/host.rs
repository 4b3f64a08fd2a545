//! The machine that is installed on: the real one, or a test's under a root of its own.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use aio_host::{
    layout::{Layout, USER},
    systemd::Systemd,
};
use aio_protocol::release::Platform;

use crate::machine::{
    accounts::{self, Accounts},
    service_log::ServiceLog,
};

/// The machine that is installed on.
pub struct Host {
    /// Where things lie.
    pub layout: Layout,
    /// Its service manager.
    pub systemd: Systemd,
    /// Who edits its accounts.
    pub accounts: Box<dyn Accounts>,
    /// Who keeps what its services say.
    pub service_log: Box<dyn ServiceLog>,
    /// What releases must be for.
    pub platform: Platform,
}

impl Host {
    /// Whether the account file at `path`, below the root, lists `name`.
    pub(crate) fn lists(&self, path: &str, name: &str) -> bool {
        fs::read_to_string(self.layout.root().join(path)).is_ok_and(|text| accounts::lists(&text, name))
    }

    /// Whether what is at `path` is the daemon's user's.
    pub(crate) fn is_of_daemon(&self, path: &Path) -> bool {
        let passwd = fs::read_to_string(self.layout.root().join("etc/passwd")).unwrap_or_default();
        let daemon =
            passwd.lines().find_map(|line| line.strip_prefix(USER)?.strip_prefix(':')?.split(':').nth(1));
        let owner = fs::symlink_metadata(path).map(|metadata| metadata.uid().to_string());
        owner.is_ok_and(|owner| daemon == Some(owner.as_str()))
    }
}
