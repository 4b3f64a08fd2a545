//! Root's part of updates, as far as it is on a machine: its units, the link to the release that
//! runs it, the keys that it believes, and whether its socket is open.

use std::path::PathBuf;

use aio_host::{layout::UPDATE_SOCKET_UNIT, systemd::UnitState};

use super::{entry::Entry, host::Host};
use crate::{failure::Failure, shipped};

/// What is there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Updater {
    /// The units, in the order of those that are shipped.
    pub(crate) units: Vec<Entry>,
    /// The link to the release that runs it.
    pub(crate) link: Option<PathBuf>,
    /// The names of the keys' files.
    pub(crate) keys: Vec<String>,
    /// The socket.
    pub(crate) socket: UnitState,
}

impl Updater {
    pub(super) async fn of(host: &Host) -> Result<Self, Failure> {
        let layout = &host.layout;
        let unit = |(name, _): &(&str, &str)| Entry::at(&layout.units().join(name));
        let names = std::fs::read_dir(layout.release_keys()).into_iter().flatten().flatten();
        Ok(Self {
            units: shipped::UPDATER_UNITS.iter().map(unit).collect::<Result<_, _>>()?,
            link: std::fs::read_link(layout.updater()).ok(),
            keys: names.filter_map(|entry| entry.file_name().into_string().ok()).collect(),
            socket: host.systemd.unit(UPDATE_SOCKET_UNIT).await?,
        })
    }

    /// Whether an installation has put any of it here.
    pub(crate) fn is_there(&self) -> bool {
        self.units.iter().any(|unit| matches!(unit, Entry::File { .. }))
    }

    /// Whether its socket is open, now and after the next boot.
    pub(crate) fn is_open(&self) -> bool {
        self.socket.file_state == "enabled" && self.socket.active_state == "active"
    }
}
