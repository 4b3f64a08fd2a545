//! What is remembered of the GPUs over a restart of the daemon: which there were, and the errors
//! that are not over. One JSON file in the state folder. One that cannot be read is forgotten with
//! a warning: the driver tells most of it again.

use std::path::{Path, PathBuf};

use aio_host::files::{self, FileError};
use aio_protocol::{inventory::Gpu, time::Timestamp};
use serde::{Deserialize, Serialize};
use tracing::warn;

/// In the state folder.
const FILE: &str = "gpus.json";

/// What is larger was not written by this program.
const MAX_BYTES: u64 = 1024 * 1024;

/// What is remembered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Memory {
    /// The kernel's, when the errors were told of: another one has ended them all.
    pub boot_id: Option<String>,
    /// The GPUs of the last time that all were here.
    pub gpus: Vec<Gpu>,
    /// Errors that are not over.
    pub xids: Vec<RememberedXid>,
}

/// An error of a GPU that is not over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RememberedXid {
    /// Whose.
    pub uuid: String,
    /// NVIDIA's number for it.
    pub code: u64,
    /// When it was told of last.
    pub at: Timestamp,
    /// The GPU's millijoules then. When it later has used less, it was reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy: Option<u64>,
}

impl Memory {
    /// Where it is, in this state folder.
    pub fn path(state_dir: &Path) -> PathBuf {
        state_dir.join(FILE)
    }

    /// What is in the state folder; nothing where there is none.
    pub fn load(state_dir: &Path) -> Self {
        let path = Self::path(state_dir);
        let read = || -> Result<Option<Self>, String> {
            match std::fs::metadata(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error.to_string()),
                Ok(metadata) if metadata.len() > MAX_BYTES => {
                    return Err(format!("it has {} bytes", metadata.len()));
                }
                Ok(_) => {}
            }
            let bytes = std::fs::read(&path).map_err(|error| error.to_string())?;
            serde_json::from_slice(&bytes).map(Some).map_err(|error| error.to_string())
        };
        read().unwrap_or_else(|reason| {
            warn!(path = %path.display(), reason, "what was remembered of the GPUs cannot be read, and is forgotten");
            None
        }).unwrap_or_default()
    }

    /// Puts it there, durably. May block.
    pub fn save(&self, state_dir: &Path) -> Result<(), FileError> {
        let path = Self::path(state_dir);
        let bytes = serde_json::to_vec(self)
            .map_err(|error| FileError::on(&path, "write")(std::io::Error::other(error)))?;
        files::replace_file(&path, &bytes, 0o600)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_what_is_torn_is_forgotten() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(Memory::load(state.path()), Memory::default());
        let memory = Memory {
            boot_id: Some("b".into()),
            gpus: vec![Gpu { device_id: "0".into(), uuid: Some("GPU-1".into()), ..Gpu::default() }],
            xids: vec![RememberedXid {
                uuid: "GPU-1".into(),
                code: 79,
                at: Timestamp::from_millis(5),
                energy: Some(7),
            }],
        };
        memory.save(state.path()).unwrap();
        assert_eq!(Memory::load(state.path()), memory);
        for torn in ["", "{\"gpus\":", "[]"] {
            std::fs::write(Memory::path(state.path()), torn).unwrap();
            assert_eq!(Memory::load(state.path()), Memory::default(), "{torn}");
        }
        std::fs::write(Memory::path(state.path()), vec![b' '; 2_000_000]).unwrap();
        assert_eq!(Memory::load(state.path()), Memory::default());
    }
}
