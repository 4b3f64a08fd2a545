//! The names of release files, and what is known of those that are served elsewhere.

use std::{collections::BTreeMap, fmt, str::FromStr};

use aio_protocol::release::{Checksum, InvalidName, Platform, ReleaseVersion};
use serde::{Deserialize, Serialize};

/// Release files that are served elsewhere, by version and file name.
pub type Published = BTreeMap<ReleaseVersion, BTreeMap<ReleaseFile, PublishedFile>>;

/// A release file that is served elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedFile {
    /// Its SHA-256.
    pub checksum: Checksum,
    /// Its size in bytes.
    pub size: u64,
    /// The text of its `.minisig` file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// A file of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ReleaseFile {
    /// `linux-amd64`: the daemon and the CLI of a node.
    Daemon(Platform),
    /// `aio-installer-linux-amd64`: the installer alone.
    Installer(Platform),
}

const INSTALLER_PREFIX: &str = "aio-installer-";

impl FromStr for ReleaseFile {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text.strip_prefix(INSTALLER_PREFIX) {
            Some(platform) => platform.parse().map(Self::Installer),
            None => text.parse().map(Self::Daemon),
        }
    }
}

impl TryFrom<String> for ReleaseFile {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<ReleaseFile> for String {
    fn from(file: ReleaseFile) -> Self {
        file.to_string()
    }
}

impl fmt::Display for ReleaseFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Daemon(platform) => write!(f, "{platform}"),
            Self::Installer(platform) => write!(f, "{INSTALLER_PREFIX}{platform}"),
        }
    }
}
