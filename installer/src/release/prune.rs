//! Which releases stay on a machine: the one that runs and the one before it. What older ones are
//! is removed after an installation has been committed; that it cannot be removed is no failure of
//! the installation.

use std::fs;

use aio_host::{files, layout::Layout};
use aio_protocol::release::ReleaseVersion;

use crate::{failure::Failure, shipped};

/// Removes every release but `kept`. A folder in which others have put something stays.
pub(crate) fn prune(layout: &Layout, kept: &[&ReleaseVersion]) -> Result<(), Failure> {
    for entry in fs::read_dir(layout.releases()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let version = name.to_str().and_then(|name| name.parse::<ReleaseVersion>().ok());
        if let Some(version) = version.filter(|version| !kept.contains(&version)) {
            let folder = layout.release(&version);
            files::remove_file(&folder.join(shipped::BINARY))?;
            let units = folder.join(shipped::UNITS);
            for unit in fs::read_dir(&units).into_iter().flatten().flatten() {
                files::remove_file(&unit.path())?;
            }
            files::remove_dir_if_empty(&units)?;
            files::remove_dir_if_empty(&folder)?;
        }
    }
    Ok(())
}
