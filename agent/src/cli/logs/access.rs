//! Whether this user may read the system's journal. journalctl itself shows nothing to whoever may
//! not, and ends well: as if nothing had been logged.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

/// Where journald keeps its files, in folders named after the machine: what survives a reboot, and
/// what does not.
const FOLDERS: [&str; 2] = ["var/log/journal", "run/log/journal"];

/// The system's part, beside those of users.
const SYSTEM: &str = "system.journal";

/// What this user may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Access {
    /// Read it.
    Granted,
    /// Not read what is there.
    Withheld(PathBuf),
    /// There is none.
    Absent,
}

/// Looks under `root`.
pub(super) fn access(root: &Path) -> Access {
    let mut withheld = None;
    for folder in FOLDERS.map(|folder| root.join(folder)) {
        match look(&folder) {
            Ok(true) => return Access::Granted,
            Ok(false) => {}
            Err(denied) => withheld = withheld.or(Some(denied)),
        }
    }
    withheld.map_or(Access::Absent, Access::Withheld)
}

/// Whether a journal is in a folder and can be read; an error is what cannot.
fn look(folder: &Path) -> Result<bool, PathBuf> {
    let machines = match fs::read_dir(folder) {
        Ok(machines) => machines,
        Err(error) if denied(&error) => return Err(folder.to_owned()),
        Err(_) => return Ok(false),
    };
    let mut found = Ok(false);
    for machine in machines.flatten() {
        let path = machine.path().join(SYSTEM);
        match File::open(&path) {
            Ok(_) => return Ok(true),
            Err(error) if denied(&error) => found = Err(machine.path()),
            Err(_) => {}
        }
    }
    found
}

fn denied(error: &io::Error) -> bool {
    error.kind() == ErrorKind::PermissionDenied
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_of_either_kind_is_found_and_an_empty_folder_is_none() {
        for folder in FOLDERS {
            let root = tempfile::tempdir().unwrap();
            assert_eq!(access(root.path()), Access::Absent, "no folder");
            let machine = root.path().join(folder).join("0123456789abcdef0123456789abcdef");
            fs::create_dir_all(&machine).unwrap();
            assert_eq!(access(root.path()), Access::Absent, "no file");
            fs::write(machine.join(SYSTEM), "").unwrap();
            assert_eq!(access(root.path()), Access::Granted);
        }
    }
}
