//! Names of releases: version, platform and checksum, as URLs, folders and plans write them.
//! `label` and `program` say what a file must be beside the published one, `manifest` what a bundle
//! says of its release, `folder` what a version's folder says of its files, `index` what
//! holds of all versions together, and `build` what a program says of itself.

pub mod build;
pub mod folder;
pub mod index;
pub mod label;
mod manifest;
pub mod program;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

pub use manifest::ReleaseManifest;

/// A text that names no release, platform or checksum.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct InvalidName {
    text: String,
    expected: &'static str,
}

/// A release's version: `v` and a semantic version, e.g. `v1.0.0`. Ordered as semantic versions are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, example = "v1.0.0", max_length = 64, pattern = r"^v(0|[1-9][0-9]{0,18})(\.(0|[1-9][0-9]{0,18})){2}(-(0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*))*)?(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?$"))]
#[serde(try_from = "String", into = "String")]
pub struct ReleaseVersion(semver::Version);

impl ReleaseVersion {
    /// The version of the program that runs.
    pub fn running() -> Self {
        // A package's version is semantic, or cargo builds nothing of it.
        let version = semver::Version::parse(build::number());
        Self(version.unwrap_or(semver::Version::new(0, 0, 0)))
    }

    /// Whether it is not meant for everybody, e.g. `v1.1.0-rc.1`.
    pub fn is_prerelease(&self) -> bool {
        !self.0.pre.is_empty()
    }
}

impl FromStr for ReleaseVersion {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        text.strip_prefix('v')
            .filter(|_| text.len() <= 64)
            .and_then(|version| semver::Version::parse(version).ok())
            .map(Self)
            .ok_or_else(|| InvalidName { text: text.to_owned(), expected: "a version such as v1.0.0" })
    }
}

impl TryFrom<String> for ReleaseVersion {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<ReleaseVersion> for String {
    fn from(version: ReleaseVersion) -> Self {
        version.to_string()
    }
}

impl fmt::Display for ReleaseVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

/// What a release file runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Platform {
    /// 64-bit x86 Linux.
    #[serde(rename = "linux-amd64")]
    LinuxAmd64,
    /// 64-bit Arm Linux.
    #[serde(rename = "linux-arm64")]
    LinuxArm64,
}

impl Platform {
    /// Every platform that has a name.
    pub const ALL: [Self; 2] = [Self::LinuxAmd64, Self::LinuxArm64];

    /// The platform of a machine with this kernel architecture (`uname -m`).
    pub fn of_architecture(architecture: &str) -> Option<Self> {
        match architecture {
            "x86_64" => Some(Self::LinuxAmd64),
            "aarch64" => Some(Self::LinuxArm64),
            _ => None,
        }
    }

    /// The platform's name in URLs and folders.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LinuxAmd64 => "linux-amd64",
            Self::LinuxArm64 => "linux-arm64",
        }
    }
}

impl FromStr for Platform {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::ALL
            .into_iter()
            .find(|platform| platform.as_str() == text)
            .ok_or_else(|| InvalidName { text: text.to_owned(), expected: "a platform such as linux-amd64" })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A SHA-256 digest, written `sha256:` and 64 lowercase hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(pattern = "^sha256:[0-9a-f]{64}$"))]
#[serde(try_from = "String", into = "String")]
pub struct Checksum(String);

impl Checksum {
    const PREFIX: &'static str = "sha256:";

    /// From the 64 hex digits alone.
    pub fn from_hex(digits: &str) -> Result<Self, InvalidName> {
        format!("{}{digits}", Self::PREFIX).parse()
    }

    /// Of the 32 bytes of a digest.
    pub fn of_digest(digest: [u8; 32]) -> Self {
        let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Self(format!("{}{digits}", Self::PREFIX))
    }

    /// The 64 hex digits alone.
    pub fn hex(&self) -> &str {
        self.0.strip_prefix(Self::PREFIX).unwrap_or(&self.0)
    }
}

impl FromStr for Checksum {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let text = text.to_ascii_lowercase();
        let valid = text
            .strip_prefix(Self::PREFIX)
            .is_some_and(|digits| digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()));
        if valid {
            Ok(Self(text))
        } else {
            Err(InvalidName { text, expected: "a checksum: `sha256:` and 64 hex digits" })
        }
    }
}

impl TryFrom<String> for Checksum {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<Checksum> for String {
    fn from(checksum: Checksum) -> Self {
        checksum.0
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_order_as_semantic_versions_do() {
        let version = |text: &str| text.parse::<ReleaseVersion>().unwrap();
        assert!(version("v1.10.0") > version("v1.9.9"));
        assert!(version("v1.0.0-rc.1") < version("v1.0.0"));
        assert_eq!(version("v1.0.0").to_string(), "v1.0.0");
    }

    #[test]
    fn a_version_is_no_path() {
        for text in ["1.0.0", "v1", "v1.0.0/../..", "", "v", "latest", "v1.0.0 "] {
            assert!(text.parse::<ReleaseVersion>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_checksum_is_sha256_in_hex() {
        let digits = "A".repeat(64);
        assert_eq!(Checksum::from_hex(&digits).unwrap().hex(), "a".repeat(64));
        for text in ["", "sha256:", "md5:aa", &"a".repeat(64), &format!("sha256:{}g", "a".repeat(63))] {
            assert!(text.parse::<Checksum>().is_err(), "{text}");
        }
    }
}
