//! `index.json` of a tree of releases and its signature: read, verified against the keys that are
//! believed and against the one that is there, and put in place. What it says of versions is for
//! nodes and rollouts to judge.

use std::{
    fs,
    path::{Path, PathBuf},
};

use aio_protocol::{
    release::{
        ReleaseVersion,
        index::{INDEX, MAX_INDEX_BYTES, ReleaseIndex},
    },
    time::Timestamp,
};
use serde::Serialize;

use super::{
    folder::{ImportError, io, optional, signature_of},
    keys::{Distrusted, Keys},
    outcome::Outcome,
};

/// An index that was taken over, or that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IndexSummary {
    /// Its serial.
    pub serial: u64,
    /// Until when it holds.
    pub expires_at: Timestamp,
    /// Whether it holds no more.
    pub expired: bool,
    /// The oldest version that may be installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<ReleaseVersion>,
    /// What became of it, where it was to be taken over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

impl IndexSummary {
    /// Of `index`, as it is at `now`.
    pub(crate) fn of(index: &ReleaseIndex, now: Timestamp, outcome: Option<Outcome>) -> Self {
        Self {
            serial: index.serial,
            expires_at: index.expires_at,
            expired: index.expired(now),
            floor: index.floor.clone(),
            outcome,
        }
    }
}

/// An index with the bytes that were signed.
#[derive(Debug)]
pub(super) struct SignedIndex {
    pub(super) index: ReleaseIndex,
    path: PathBuf,
    bytes: Vec<u8>,
    signature: Option<Vec<u8>>,
}

impl SignedIndex {
    /// The index in `folder`, if there is one, as it says of itself.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>, ImportError> {
        let path = folder.join(INDEX);
        // The signature first: whoever replaces both replaces it first, too.
        let signature = optional(&folder.join(signature_of(INDEX)))?;
        let Some(bytes) = optional(&path)? else { return Ok(None) };
        let invalid = |problem: String| ImportError::Index { path: path.clone(), problem };
        if bytes.len() as u64 > MAX_INDEX_BYTES {
            return Err(invalid(format!("it has more than {MAX_INDEX_BYTES} bytes")));
        }
        let index = serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
        Ok(Some(Self { index, path, bytes, signature }))
    }

    /// Its file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Fails unless a key that is believed has signed it as the index that it is.
    pub(super) fn verify(&self, keys: &Keys) -> Result<(), ImportError> {
        let path = self.path.with_file_name(signature_of(INDEX));
        let Some(signature) = &self.signature else {
            return if keys.verify_signatures() { Err(ImportError::Unsigned { path }) } else { Ok(()) };
        };
        let comment = keys.verify(&self.bytes, signature).map_err(|distrusted| match distrusted {
            Distrusted::Revoked(key) => ImportError::Revoked { path: path.clone(), key },
            Distrusted::Unverified(source) => ImportError::Refused { path: path.clone(), source },
        })?;
        if keys.verify_signatures() && comment != self.index.comment() {
            let problem = format!("it was signed as `{comment}`, and says `{}`", self.index.comment());
            return Err(ImportError::Index { path: self.path.clone(), problem });
        }
        Ok(())
    }

    /// What putting it in place of `there` would be.
    pub(super) fn change(&self, there: Option<&Self>) -> Result<Outcome, ImportError> {
        let Some(there) = there else { return Ok(Outcome::Added) };
        let (serial, known) = (self.index.serial, there.index.serial);
        if serial > known {
            return Ok(Outcome::Replaced);
        }
        match serial == known && self.bytes == there.bytes {
            true if self.signature == there.signature => Ok(Outcome::AlreadyThere),
            // The way back for one whose replacement was interrupted between its two files.
            true => Ok(Outcome::SignedAgain),
            false => Err(ImportError::Replayed { path: self.path.clone(), serial, known }),
        }
    }

    /// Puts it into `folder`. For the moment between the two renames, what a reader gets does not
    /// verify, and it asks again.
    pub(super) fn put(&self, folder: &Path) -> Result<(), ImportError> {
        let signature = signature_of(INDEX);
        match &self.signature {
            Some(bytes) => replace(folder, &signature, bytes)?,
            None => match fs::remove_file(folder.join(&signature)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(io("remove", &folder.join(signature))(error));
                }
                _ => {}
            },
        }
        replace(folder, INDEX, &self.bytes)
    }
}

fn replace(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), ImportError> {
    use std::{io::Write, os::unix::fs::PermissionsExt};
    let path = folder.join(name);
    let written = tempfile::Builder::new().prefix(".adding-").tempfile_in(folder).and_then(|mut file| {
        file.write_all(bytes)?;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
        file.as_file().sync_all()?;
        file.persist(&path).map(drop).map_err(|error| error.error)
    });
    written.map_err(io("put in place", &path))
}
