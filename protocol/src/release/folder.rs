//! What a version's folder in a tree of releases says of its files: `manifest.json`, and
//! `SHA256SUMS` as `sha256sum --check` reads it. Texts only: who writes a folder and who takes one
//! over compare them with the bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Checksum, InvalidName, Platform, ReleaseVersion};
use crate::time::Timestamp;

/// The manifest's file name.
pub const MANIFEST: &str = "manifest.json";

/// The file name of the list of sums: every file of the folder but itself and its signature.
pub const SUMS: &str = "SHA256SUMS";

/// The ending of a signature's file name.
pub const SIGNATURE_SUFFIX: &str = ".minisig";

/// The file name of the licences of what the programs hold of others.
pub const LICENCES: &str = "THIRD-PARTY-LICENSES";

/// `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FolderManifest {
    /// The release's version.
    pub version: ReleaseVersion,
    /// The commit that it was built from, in full; `-dirty` behind it where the sources were not
    /// all committed.
    pub commit: String,
    /// When that commit was made.
    pub committed_at: Timestamp,
    /// The compiler's version.
    pub rust: String,
    /// The key that is built in: the base64 of a minisign public key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_key: Option<String>,
    /// What it runs on.
    pub platforms: BTreeMap<Platform, Needs>,
    /// Its files by name, without signatures, which are made of them, and without itself.
    pub files: BTreeMap<String, FileEntry>,
}

/// What a platform's programs need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Needs {
    /// The oldest C library that they run with, e.g. `2.31`.
    pub glibc: String,
}

/// A file of the folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileEntry {
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256, as 64 hex digits.
    #[serde(with = "digits")]
    pub sha256: Checksum,
}

mod digits {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::Checksum;

    pub(super) fn serialize<S: Serializer>(checksum: &Checksum, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(checksum.hex())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Checksum, D::Error> {
        Checksum::from_hex(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// Whether `name` can be a file's in a folder: no path, nothing hidden, and nothing that a shell or
/// a URL reads otherwise.
pub fn is_file_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+~".contains(&byte);
    (1..=128).contains(&name.len()) && !name.starts_with(['.', '-']) && name.bytes().all(allowed)
}

/// The text of `SHA256SUMS`.
pub fn write_sums(sums: &BTreeMap<String, Checksum>) -> String {
    sums.iter().map(|(name, sum)| format!("{}  {name}\n", sum.hex())).collect()
}

/// What a text of `SHA256SUMS` lists: lines of 64 hex digits, a blank, a blank or the `*` of a
/// binary file, and a name.
pub fn read_sums(text: &str) -> Result<BTreeMap<String, Checksum>, InvalidName> {
    let mut sums = BTreeMap::new();
    for line in text.lines() {
        let read = line.split_once(' ').and_then(|(digits, rest)| {
            let name = rest.strip_prefix([' ', '*']).filter(|name| is_file_name(name))?;
            Some((name.to_owned(), Checksum::from_hex(digits).ok()?))
        });
        let new = read.is_some_and(|(name, sum)| sums.insert(name, sum).is_none());
        if !new {
            let expected = "a line of SHA256SUMS that names one file of this folder for the first time";
            return Err(InvalidName { text: line.to_owned(), expected });
        }
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_read_as_they_are_written_and_as_sha256sum_writes_them() {
        let sum = |digit: &str| Checksum::from_hex(&digit.repeat(64)).unwrap();
        let sums =
            BTreeMap::from([("linux-amd64".to_owned(), sum("a")), ("manifest.json".to_owned(), sum("b"))]);
        let text = write_sums(&sums);
        assert_eq!(read_sums(&text).unwrap(), sums);
        assert_eq!(read_sums(&text.replace("  ", " *")).unwrap(), sums);
    }

    #[test]
    fn a_line_that_leads_out_of_the_folder_or_says_a_thing_twice_is_refused() {
        let a = "a".repeat(64);
        for text in [
            format!("{a}  ../linux-amd64\n"),
            format!("{a}  /etc/passwd\n"),
            format!("{a}  .hidden\n"),
            format!("{a}  \n"),
            format!("{a}\n"),
            "abc  linux-amd64\n".to_owned(),
            format!("{a}  linux-amd64\n\n"),
            format!("{a}  linux-amd64\n{a}  linux-amd64\n"),
        ] {
            assert!(read_sums(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_manifest_is_read_whatever_later_versions_add_to_it() {
        let text = format!(
            r#"{{"version":"v1.0.0","commit":"c","committedAt":"2025-12-11T12:00:00Z","rust":"1.95.0","later":1,
                "platforms":{{"linux-amd64":{{"glibc":"2.31","later":1}}}},
                "files":{{"linux-amd64":{{"size":3,"sha256":"{}","later":1}}}}}}"#,
            "a".repeat(64)
        );
        let manifest: FolderManifest = serde_json::from_str(&text).unwrap();
        assert_eq!(manifest.platforms[&Platform::LinuxAmd64].glibc, "2.31");
        let again = serde_json::to_string(&manifest).unwrap();
        assert_eq!(serde_json::from_str::<FolderManifest>(&again).unwrap(), manifest);
    }
}
