//! What the machine is, as far as an installation minds: files with content and mode, links, the
//! user, the unit, room, and what cannot be written. Looks and changes nothing; `plan` decides what
//! follows.

use std::path::{Path, PathBuf};

use aio_host::{
    files::FileSystem,
    layout::{Layout, UNIT, USER},
    systemd::UnitState,
};
use aio_protocol::release::{Checksum, ReleaseVersion};
use rustix::fs::{Access, access};

use crate::{
    failure::Failure,
    machine::{adoption::OlderUnit, entry::Entry, host::Host, state_folder::StateFolder, updater::Updater},
    release::verify,
    shipped,
    transaction::journal::Journal,
};

/// The machine at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Observed {
    pub(crate) config: Entry,
    pub(crate) ca_file: Entry,
    pub(crate) token: Entry,
    pub(crate) unit: Entry,
    /// The unit file, where no installation of ours wrote it as it is.
    pub(crate) older_unit: Option<OlderUnit>,
    pub(crate) state: StateFolder,
    pub(crate) declaration: Entry,
    pub(crate) current: Entry,
    pub(crate) command: Entry,
    /// The checksum of the release's file, when it is in its place and can be run.
    pub(crate) placed: Option<Checksum>,
    /// Whether both the daemon's user and its group are there.
    pub(crate) user: bool,
    pub(crate) service: UnitState,
    /// Root's part of updates.
    pub(crate) updater: Updater,
    /// Whether a Debian package has brought program and unit.
    pub(crate) packaged: bool,
    /// Where releases go.
    pub(crate) releases: FileSystem,
    /// Folders that the installation needs and nobody can write.
    pub(crate) read_only: Vec<PathBuf>,
}

/// Looks at the machine, with an eye on one release.
pub(crate) async fn observe(host: &Host, version: &ReleaseVersion) -> Result<Observed, Failure> {
    let layout = &host.layout;
    let unit = Entry::at(&layout.unit())?;
    let journal = Journal::read(&layout.journal_dir())?;
    Ok(Observed {
        older_unit: older_unit(layout, &unit, &journal),
        state: StateFolder::of(host, journal.made(&layout.state_dir()))?,
        config: Entry::at(&layout.config())?,
        ca_file: Entry::at(&layout.ca_file())?,
        token: Entry::at(&layout.token())?,
        unit,
        declaration: Entry::at(&layout.sysusers())?,
        current: Entry::at(&layout.current())?,
        command: Entry::at(&layout.command())?,
        placed: placed(&layout.release(version).join(shipped::BINARY))?,
        user: host.lists("etc/passwd", USER) && host.lists("etc/group", USER),
        service: host.systemd.unit(UNIT).await?,
        updater: Updater::of(host).await?,
        packaged: layout.is_packaged(),
        releases: FileSystem::of(&layout.releases())?,
        read_only: read_only(layout),
    })
}

fn older_unit(layout: &Layout, unit: &Entry, journal: &Journal) -> Option<OlderUnit> {
    let Entry::File { bytes, .. } = unit else { return None };
    let ours = bytes == shipped::UNIT_TEXT.as_bytes() || journal.unit() == Some(&verify::checksum(bytes));
    (!ours).then(|| OlderUnit::read(&layout.unit(), &String::from_utf8_lossy(bytes)))
}

fn placed(path: &Path) -> Result<Option<Checksum>, Failure> {
    Ok(match Entry::at(path)? {
        Entry::File { mode: shipped::RELEASE_MODE, bytes } => Some(verify::checksum(&bytes)),
        _ => None,
    })
}

/// Folders that an installation needs and that are on read-only file systems.
pub(crate) fn read_only(layout: &Layout) -> Vec<PathBuf> {
    let files = [layout.command(), layout.config(), layout.unit(), layout.sysusers(), layout.current()];
    let dirs = files.iter().filter_map(|file| file.parent());
    // What is missing will be made in the nearest folder that is there.
    let existing = dirs.filter_map(|dir| dir.ancestors().find(|dir| dir.exists()));
    let mut found: Vec<_> = existing
        .filter(|dir| access(*dir, Access::WRITE_OK) == Err(rustix::io::Errno::ROFS))
        .map(Path::to_owned)
        .collect();
    found.dedup();
    found
}
