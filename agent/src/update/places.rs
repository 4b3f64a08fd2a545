//! Where the daemon finds what updates need, and where its operator leaves a word.

use std::path::{Path, PathBuf};

use aio_host::layout::{Layout, UPDATE_INBOX};

/// The places of one daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// What the installation is: whether a package owns it.
    pub layout: Layout,
    /// Root's socket.
    pub socket: PathBuf,
    /// Root's word on updates.
    pub status: PathBuf,
    /// Where the daemon puts what it brings.
    pub inbox: PathBuf,
    /// Where operators' orders lie.
    pub runtime_dir: PathBuf,
}

impl Places {
    /// Those of an installation, with the folders that this daemon was given.
    pub fn of(layout: Layout, state_dir: &Path, runtime_dir: &Path) -> Self {
        Self {
            socket: layout.update_socket(),
            status: layout.update_status(),
            inbox: state_dir.join(UPDATE_INBOX),
            runtime_dir: runtime_dir.to_owned(),
            layout,
        }
    }

    /// Whether a package owns the version: it is there, and nothing stands before it on the
    /// service's search path.
    pub fn is_packaged(&self) -> bool {
        self.layout.is_packaged() && self.layout.command().symlink_metadata().is_err()
    }
}
