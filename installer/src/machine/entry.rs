//! What is at a path, as far as an installation minds: nothing, a file with its bytes and mode, a
//! link, or something odd.

use std::{
    fmt, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::failure::Failure;

/// What is at a path.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Nothing.
    Absent,
    /// A file.
    File { mode: u32, bytes: Vec<u8> },
    /// A symbolic link.
    Link { target: PathBuf },
    /// A folder, or something odd.
    Other,
}

/// Says nothing of what is in a file: it may be the token.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("Absent"),
            Self::File { mode, bytes } => write!(f, "File({mode:o}, {} bytes)", bytes.len()),
            Self::Link { target } => write!(f, "Link({})", target.display()),
            Self::Other => f.write_str("Other"),
        }
    }
}

impl Entry {
    pub(super) fn at(path: &Path) -> Result<Self, Failure> {
        let failed = |error| Failure::io("read", path, &error);
        let metadata = match path.symlink_metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::Absent),
            Err(error) => return Err(failed(error)),
        };
        if metadata.is_symlink() {
            Ok(Self::Link { target: fs::read_link(path).map_err(failed)? })
        } else if metadata.is_file() {
            let mode = metadata.permissions().mode() & 0o7777;
            Ok(Self::File { mode, bytes: fs::read(path).map_err(failed)? })
        } else {
            Ok(Self::Other)
        }
    }

    /// Whether it is a file of exactly these bytes and this mode.
    pub(crate) fn is_file(&self, wanted: &[u8], wanted_mode: u32) -> bool {
        matches!(self, Self::File { mode, bytes } if *mode == wanted_mode && bytes == wanted)
    }

    /// Whether it is a link to exactly this.
    pub(crate) fn is_link(&self, wanted: &Path) -> bool {
        matches!(self, Self::Link { target } if target == wanted)
    }
}
