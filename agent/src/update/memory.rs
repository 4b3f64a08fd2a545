//! What the daemon remembers of updates over its own end: how the last one that ended with it
//! ended, how often the present one was tried, and from which version an operator went back. One
//! small file in the state folder; one that is missing or unreadable is an empty memory.

use std::{fs, path::Path};

use aio_host::files::{self, FileError};
use aio_protocol::{release::ReleaseVersion, update::LastUpdate};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The file's name in the inbox.
const FILE: &str = "memory.json";

/// What is remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Memory {
    /// The last update that ended, as far as the daemon knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<LastUpdate>,
    /// How often the last offer was tried in vain; one that is being switched to counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tried: Option<Tried>,
    /// The version that an operator went back from: it is not taken again until an operator says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reverted: Option<ReleaseVersion>,
}

/// How often an offer was tried in vain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tried {
    /// Which.
    pub update_id: Uuid,
    /// How often.
    pub times: u32,
}

impl Memory {
    /// What the inbox holds.
    pub fn read(inbox: &Path) -> Self {
        let text = fs::read(inbox.join(FILE)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Writes it into the inbox, durably.
    pub fn write(&self, inbox: &Path) -> Result<(), FileError> {
        files::create_dir(inbox, 0o750)?;
        let text = serde_json::to_vec(self).unwrap_or_default();
        files::replace_file(&inbox.join(FILE), &text, 0o600)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_remembered_and_what_is_torn_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let inbox = folder.path().join("update");
        assert_eq!(Memory::read(&inbox), Memory::default());
        let memory = Memory {
            tried: Some(Tried { update_id: Uuid::max(), times: 2 }),
            reverted: Some("v1.1.0".parse().unwrap()),
            last: None,
        };
        memory.write(&inbox).unwrap();
        assert_eq!(Memory::read(&inbox), memory);
        fs::write(inbox.join(FILE), "{\"tried\":").unwrap();
        assert_eq!(Memory::read(&inbox), Memory::default());
    }
}
