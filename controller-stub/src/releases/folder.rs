//! Whether a version's folder is what its manifest, its sums and its signatures say. What has
//! passed is held as bytes, so that what is taken over later is what was looked at. Puts nothing in
//! place; `import` does.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use aio_protocol::{
    error_code::ErrorCode,
    release::{
        Checksum, Platform, ReleaseVersion,
        folder::{FolderManifest, MANIFEST, SIGNATURE_SUFFIX, SUMS, read_sums},
        index::KeyId,
        label::{self, OtherFile},
        program::{self, NotOurs},
    },
};
use minisign_verify::Error as Unverified;
use sha2::{Digest, Sha256};

use super::{
    ReleaseFile,
    keys::{Distrusted, Keys},
};

/// Why a folder is not taken over.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It is not laid out as a release is.
    #[error("{path} is no release: {problem}")]
    Invalid {
        /// The folder or the file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file is not the one that the sums list.
    #[error(
        "{path} is not the file that {SUMS} lists: its checksum is {actual}, and {expected} was expected"
    )]
    Altered {
        /// The file.
        path: PathBuf,
        /// What is listed.
        expected: Checksum,
        /// What it is.
        actual: Checksum,
    },
    /// A release key is configured, and a signature is missing.
    #[error("there is no {path}, and with RELEASE_PUBLIC_KEY only signed releases are taken")]
    Unsigned {
        /// The signature's file.
        path: PathBuf,
    },
    /// A signature does not hold.
    #[error("{path} does not hold")]
    Refused {
        /// The signature's file.
        path: PathBuf,
        /// Why.
        source: Unverified,
    },
    /// A signature was made with a key that an index has revoked.
    #[error("{path} was made with the key {key}, which was revoked")]
    Revoked {
        /// The signature's file.
        path: PathBuf,
        /// Which.
        key: KeyId,
    },
    /// The index is none, or does not fit the releases.
    #[error("{path} cannot be taken: {problem}")]
    Index {
        /// The index's file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A newer index is there.
    #[error("{path} has the serial {serial}, and another index with the serial {known} is published already")]
    Replayed {
        /// The index's file.
        path: PathBuf,
        /// Its serial.
        serial: u64,
        /// The serial of the one that is there.
        known: u64,
    },
    /// A signature is of another file or version.
    #[error("{path} was made for another file")]
    Swapped {
        /// The signature's file.
        path: PathBuf,
        /// Which.
        source: OtherFile,
    },
    /// A file is no program for the platform that it is named after.
    #[error("{path} cannot be published")]
    NoProgram {
        /// The file.
        path: PathBuf,
        /// What it is.
        source: NotOurs,
    },
    /// The version is there with other bytes.
    #[error("{version} is published already, and {problem}")]
    Published {
        /// The version.
        version: ReleaseVersion,
        /// What is different.
        problem: String,
    },
    /// The disk is the reason.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl ImportError {
    /// The catalogue's code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Invalid { .. } => ErrorCode::ReleaseInvalid,
            Self::Altered { .. } => ErrorCode::ChecksumMismatch,
            Self::Unsigned { .. } => ErrorCode::SignatureMissing,
            Self::Refused { source: Unverified::UnexpectedKeyId, .. } => ErrorCode::SignatureForeign,
            Self::Refused { .. } => ErrorCode::SignatureInvalid,
            Self::Revoked { .. } => ErrorCode::KeyRevoked,
            Self::Index { .. } => ErrorCode::IndexInvalid,
            Self::Replayed { .. } => ErrorCode::IndexReplayed,
            Self::Swapped { .. } => ErrorCode::ReleaseSwapped,
            Self::NoProgram { source: NotOurs::NoProgram, .. } => ErrorCode::ElfInvalid,
            Self::NoProgram { .. } => ErrorCode::ArchitectureMismatch,
            Self::Published { .. } => ErrorCode::ReleaseExists,
            Self::Io { source, .. } if source.kind() == ErrorKind::StorageFull => ErrorCode::DiskFull,
            Self::Io { .. } => ErrorCode::FileFailed,
        }
    }
}

/// A version's folder that has passed.
pub(super) struct Verified {
    pub(super) manifest: FolderManifest,
    /// Every file by name, the sums and signatures included.
    pub(super) files: BTreeMap<String, Vec<u8>>,
}

impl Verified {
    /// Reads and checks `folder`; where there are keys, its signatures too.
    pub(super) fn read(folder: &Path, keys: &Keys) -> Result<Self, ImportError> {
        let invalid = |name: &str, problem: String| ImportError::Invalid { path: folder.join(name), problem };
        let mut files = BTreeMap::new();
        let sums_bytes = required(folder, SUMS)?;
        let signed = optional(&folder.join(signature_of(SUMS)))?;
        let listed = str::from_utf8(&sums_bytes).map_err(|error| invalid(SUMS, error.to_string()))?;
        let listed = read_sums(listed).map_err(|error| invalid(SUMS, error.to_string()))?;
        for (name, expected) in &listed {
            let bytes = required(folder, name)?;
            let actual = Checksum::of_digest(Sha256::digest(&bytes).into());
            if actual != *expected {
                let path = folder.join(name);
                return Err(ImportError::Altered { path, expected: expected.clone(), actual });
            }
            files.insert(name.clone(), bytes);
        }
        files.insert(SUMS.to_owned(), sums_bytes);
        files.extend(signed.map(|bytes| (signature_of(SUMS), bytes)));

        let Some(text) = files.get(MANIFEST) else {
            return Err(invalid(SUMS, format!("it does not list {MANIFEST}")));
        };
        let manifest: FolderManifest =
            serde_json::from_slice(text).map_err(|error| invalid(MANIFEST, error.to_string()))?;
        let verified = Self { manifest, files };
        verified.agrees(folder).map_err(|problem| invalid(MANIFEST, problem))?;
        verified.programs_fit(folder)?;
        verified.signatures_hold(folder, keys)?;
        Ok(verified)
    }

    /// Whether manifest, sums and the folder's name say the same.
    fn agrees(&self, folder: &Path) -> Result<(), String> {
        let Self { manifest, files } = self;
        let name = folder.file_name().and_then(|name| name.to_str());
        if let Some(named) = name.and_then(|name| name.parse::<ReleaseVersion>().ok())
            && named != manifest.version
        {
            return Err(format!("it is of {}, in a folder called {named}", manifest.version));
        }
        for (name, entry) in &manifest.files {
            let bytes = files.get(name).ok_or_else(|| format!("{SUMS} does not list {name}"))?;
            let sum = Checksum::of_digest(Sha256::digest(bytes).into());
            if bytes.len() as u64 != entry.size || sum != entry.sha256 {
                return Err(format!("it says another size or sum of {name} than {SUMS}"));
            }
        }
        let known = |name: &str| {
            name == MANIFEST
                || name == SUMS
                || name == signature_of(SUMS)
                || manifest.files.contains_key(name)
                || name.strip_suffix(SIGNATURE_SUFFIX).is_some_and(|name| manifest.files.contains_key(name))
        };
        if let Some(stray) = files.keys().find(|name| !known(name)) {
            return Err(format!("it does not know {stray}, which {SUMS} lists"));
        }
        for platform in manifest.platforms.keys() {
            if !manifest.files.contains_key(platform.as_str()) {
                return Err(format!("it has the platform {platform}, and no such file"));
            }
        }
        if manifest.platforms.is_empty() {
            return Err("it is for no platform".to_owned());
        }
        Ok(())
    }

    fn programs_fit(&self, folder: &Path) -> Result<(), ImportError> {
        for (name, platform) in self.programs() {
            let bytes = self.files.get(name).map(Vec::as_slice).unwrap_or_default();
            let head = bytes.get(..program::HEAD).unwrap_or(bytes);
            program::check(head, platform)
                .map_err(|source| ImportError::NoProgram { path: folder.join(name), source })?;
        }
        Ok(())
    }

    /// The sums, which vouch for everything, and what nodes fetch, which is signed by itself.
    fn signatures_hold(&self, folder: &Path, keys: &Keys) -> Result<(), ImportError> {
        let programs = self.programs().map(|(name, _)| name);
        for name in [SUMS].into_iter().chain(programs) {
            let path = folder.join(signature_of(name));
            let (Some(bytes), Some(text)) = (self.files.get(name), self.files.get(&signature_of(name)))
            else {
                if keys.verify_signatures() {
                    return Err(ImportError::Unsigned { path });
                }
                continue;
            };
            let comment = match keys.verify(bytes, text) {
                Ok(comment) => comment,
                Err(Distrusted::Revoked(key)) => return Err(ImportError::Revoked { path, key }),
                Err(Distrusted::Unverified(_)) if !keys.verify_signatures() => continue,
                Err(Distrusted::Unverified(source)) => return Err(ImportError::Refused { path, source }),
            };
            if keys.verify_signatures() {
                label::check_file(&comment, &self.manifest.version, name)
                    .map_err(|source| ImportError::Swapped { path, source })?;
            }
        }
        Ok(())
    }

    fn programs(&self) -> impl Iterator<Item = (&str, Platform)> {
        self.manifest.files.keys().filter_map(|name| match name.parse().ok()? {
            ReleaseFile::Daemon(platform) | ReleaseFile::Installer(platform) => Some((&**name, platform)),
        })
    }
}

pub(super) fn signature_of(name: &str) -> String {
    format!("{name}{SIGNATURE_SUFFIX}")
}

fn required(folder: &Path, name: &str) -> Result<Vec<u8>, ImportError> {
    let found = optional(&folder.join(name))?;
    found.ok_or_else(|| ImportError::Invalid {
        path: folder.to_owned(),
        problem: format!("there is no {name} in it"),
    })
}

pub(super) fn optional(path: &Path) -> Result<Option<Vec<u8>>, ImportError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ImportError::Io { action: "read", path: path.to_owned(), source }),
    }
}

pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ImportError {
    let path = path.to_owned();
    move |source| ImportError::Io { action, path, source }
}
