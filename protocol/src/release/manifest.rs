//! What a bundle says of the release in it: one file that carries a release to machines which reach
//! no release server.

use serde::{Deserialize, Serialize};

use super::{Checksum, Platform, ReleaseVersion};

/// The first entry of a bundle, which is a tar archive: `release.json`, then the release file,
/// called after its platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseManifest {
    /// The release's version.
    pub version: ReleaseVersion,
    /// What it runs on.
    pub platform: Platform,
    /// The release file's SHA-256.
    pub checksum: Checksum,
    /// Its size in bytes.
    pub size: u64,
    /// Its detached minisign signature, the text of the `.minisig` file, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

impl ReleaseManifest {
    /// The manifest's name in a bundle.
    pub const ENTRY: &str = "release.json";
}
