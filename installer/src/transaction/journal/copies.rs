//! Copies of what an installation replaced, beside the journal, for as long as a record names them.
//! They may be secrets, so they are root's alone.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use aio_host::files;

use crate::failure::Failure;

const FOLDER: &str = "replaced";
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

/// The copies beside one journal.
#[derive(Debug)]
pub(crate) struct Copies {
    dir: PathBuf,
    next: u32,
}

impl Copies {
    /// The copies beside the journal in `dir`, of which these are named.
    pub(super) fn of(dir: &Path, referenced: &HashSet<&str>) -> Self {
        let last = referenced.iter().filter_map(|name| name.parse::<u32>().ok()).max();
        Self { dir: dir.join(FOLDER), next: last.map_or(0, |last| last + 1) }
    }

    /// Keeps a copy of these bytes for as long as a record names it. Durable on return.
    pub(crate) fn keep(&mut self, bytes: &[u8]) -> Result<String, Failure> {
        let name = self.next.to_string();
        files::create_dir(&self.dir, DIR_MODE)?;
        files::replace_file(&self.dir.join(&name), bytes, FILE_MODE)?;
        self.next += 1;
        Ok(name)
    }

    /// The bytes of a copy.
    pub(crate) fn kept(&self, name: &str) -> Result<Vec<u8>, Failure> {
        let path = self.dir.join(name);
        fs::read(&path).map_err(|error| Failure::io("read", &path, &error))
    }

    /// Removes copies that no record names.
    pub(super) fn sweep(&self, referenced: &HashSet<&str>) -> Result<(), Failure> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Ok(()) };
        for entry in entries {
            let name = entry.map_err(|error| Failure::io("read", &self.dir, &error))?.file_name();
            if !name.to_str().is_some_and(|name| referenced.contains(name)) {
                files::remove_file(&self.dir.join(name))?;
            }
        }
        files::remove_dir_if_empty(&self.dir)?;
        Ok(())
    }
}
