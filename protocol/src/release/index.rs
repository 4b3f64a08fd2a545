//! `index.json`: what the owner of a release key says of all releases together, signed. A manifest
//! binds the files of one version; the index binds the versions: which there are, which are too old
//! to go back to, which keys are not to be believed any more, and until when all of that holds.
//! What a controller or a release server says beside it can withhold an update, and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::{Checksum, InvalidName, ReleaseVersion};
use crate::time::Timestamp;

/// The index's file name, in the root of a tree of releases; its signature lies beside it.
pub const INDEX: &str = "index.json";

/// A larger index is not read.
pub const MAX_INDEX_BYTES: u64 = 256 * 1024;

/// For so long an index holds, unless whoever signs it says otherwise: whoever withholds new ones
/// is found out after that.
pub const INDEX_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// `index.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseIndex {
    /// Counts up with each index that is signed; a smaller one than was seen before is a replay.
    pub serial: u64,
    /// When it was signed.
    pub issued_at: Timestamp,
    /// Until when it holds.
    pub expires_at: Timestamp,
    /// No older version is installed any more, and nothing goes back below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<ReleaseVersion>,
    /// Keys that are believed no more, whatever they have signed.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub revoked: BTreeSet<KeyId>,
    /// The keys that sign releases from now on: the base64 of minisign public keys. A node that
    /// believes whoever signed this index believes them, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// Every version that may be installed.
    pub releases: BTreeMap<ReleaseVersion, IndexedRelease>,
}

/// What the index says of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IndexedRelease {
    /// The SHA-256 of its `manifest.json`, which names every file with its own.
    pub manifest_sha256: Checksum,
    /// The oldest version that can be updated to it in one step; any, where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_from: Option<ReleaseVersion>,
    /// The version of the protocol that it speaks.
    #[serde(default = "first")]
    pub protocol: u32,
}

fn first() -> u32 {
    1
}

impl ReleaseIndex {
    /// The trusted comment of its signature.
    pub fn comment(&self) -> String {
        format!("file:{INDEX} serial:{}", self.serial)
    }

    /// Whether it holds no more at `now`, which is no earlier than it was signed: a clock that is
    /// behind says nothing.
    pub fn expired(&self, now: Timestamp) -> bool {
        self.expires_at <= now.max(self.issued_at)
    }

    /// Whether `version` is too old for it.
    pub fn is_below_floor(&self, version: &ReleaseVersion) -> bool {
        self.floor.as_ref().is_some_and(|floor| version < floor)
    }

    /// The version to install next on the way from `present` to `target`: `target` itself, or the
    /// newest stepping stone that can be reached; none where there is no way.
    pub fn next_step(&self, present: &ReleaseVersion, target: &ReleaseVersion) -> Option<&ReleaseVersion> {
        let reachable =
            |release: &IndexedRelease| release.oldest_from.as_ref().is_none_or(|it| it <= present);
        let (version, release) = self.releases.get_key_value(target)?;
        if reachable(release) {
            return Some(version);
        }
        let between = self.releases.range(present.clone()..target.clone()).rev();
        let mut stones = between.filter(|(version, _)| *version != present && !self.is_below_floor(version));
        stones.find(|(_, release)| reachable(release)).map(|(version, _)| version)
    }
}

/// A minisign key's id: 16 hex digits, upper case. `minisign` itself leaves zeros at the beginning out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(String);

impl KeyId {
    /// Fewer digits are taken for a copy that was cut off: one key among a million has more zeros at the beginning.
    const MIN_DIGITS: usize = 12;

    /// Of the eight bytes in a key or a signature, which stand there with the lowest first.
    pub fn of_bytes(bytes: [u8; 8]) -> Self {
        Self(format!("{:016X}", u64::from_le_bytes(bytes)))
    }
}

impl KeyId {
    /// Of a public key in base64, as it stands in a `.pub` file's second line; none if it is none.
    pub fn of_public_key(key: &str) -> Option<Self> {
        let bytes = STANDARD.decode(key.trim()).ok().filter(|bytes| bytes.len() == 42)?;
        Some(Self::of_bytes(*bytes.strip_prefix(b"Ed")?.first_chunk()?))
    }

    /// Of whoever made a signature, the text of a `.minisig` file.
    pub fn of_signature(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text.lines().nth(1)?.trim()).ok().filter(|bytes| bytes.len() == 74)?;
        Some(Self::of_bytes(*bytes.get(2..)?.first_chunk()?))
    }
}

impl FromStr for KeyId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let is_id = (Self::MIN_DIGITS..=16).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let invalid =
            || InvalidName { text: text.to_owned(), expected: "a minisign key's id of 16 hex digits" };
        is_id.then(|| Self(format!("{:0>16}", text.to_ascii_uppercase()))).ok_or_else(invalid)
    }
}

impl TryFrom<String> for KeyId {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> ReleaseVersion {
        text.parse().unwrap()
    }

    fn index(releases: &[(&str, Option<&str>)]) -> ReleaseIndex {
        let manifest_sha256 = Checksum::from_hex(&"a".repeat(64)).unwrap();
        let release = |oldest: Option<&str>| IndexedRelease {
            manifest_sha256: manifest_sha256.clone(),
            oldest_from: oldest.map(version),
            protocol: 1,
        };
        ReleaseIndex {
            serial: 7,
            issued_at: Timestamp::from_millis(1_000),
            expires_at: Timestamp::from_millis(2_000),
            floor: Some(version("v1.1.0")),
            revoked: BTreeSet::new(),
            keys: vec![],
            releases: releases.iter().map(|(name, oldest)| (version(name), release(*oldest))).collect(),
        }
    }

    #[test]
    fn an_index_expires_by_the_later_of_the_clock_and_its_own_time() {
        let mut index = index(&[]);
        assert!(!index.expired(Timestamp::from_millis(0)) && !index.expired(Timestamp::from_millis(1_999)));
        assert!(index.expired(Timestamp::from_millis(2_000)));
        index.expires_at = index.issued_at;
        assert!(index.expired(Timestamp::from_millis(0)), "it never held");
        assert_eq!(index.comment(), "file:index.json serial:7");
    }

    #[test]
    fn a_node_that_is_too_old_goes_by_the_newest_stepping_stone_it_reaches() {
        let index = index(&[
            ("v1.0.5", None),
            ("v1.2.0", Some("v1.0.0")),
            ("v1.3.0", Some("v1.1.0")),
            ("v2.0.0", Some("v1.3.0")),
        ]);
        let next = |present: &str, target: &str| {
            index.next_step(&version(present), &version(target)).map(ToString::to_string)
        };
        assert_eq!(next("v1.3.0", "v2.0.0").as_deref(), Some("v2.0.0"));
        assert_eq!(next("v1.1.0", "v2.0.0").as_deref(), Some("v1.3.0"));
        assert_eq!(next("v1.0.0", "v2.0.0").as_deref(), Some("v1.2.0"), "v1.0.5 is below the floor");
        assert_eq!(next("v0.9.0", "v2.0.0"), None);
        assert_eq!(next("v1.3.0", "v3.0.0"), None, "it is not in the index");
        assert_eq!(next("v2.0.0", "v1.3.0").as_deref(), Some("v1.3.0"), "the way back is one step");
    }

    #[test]
    fn a_key_s_id_is_what_minisign_prints() {
        let key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
        let bytes = [0x1f, 0xe8, 0xb4, 0x42, 0x18, 0x0f, 0x62, 0xe7];
        assert_eq!(KeyId::of_bytes(bytes).to_string(), "E7620F1842B4E81F");
        assert_eq!(KeyId::of_public_key(key), Some(KeyId::of_bytes(bytes)));
        for text in ["", "RWQ", "no key", &key.replace("RWQ", "AAA")] {
            assert_eq!(KeyId::of_public_key(text), None, "{text}");
        }
        let signature = format!(
            "untrusted comment: x\n{}\n",
            STANDARD.encode([b"ED".as_slice(), &bytes, &[0; 64]].concat())
        );
        assert_eq!(KeyId::of_signature(&signature), Some(KeyId::of_bytes(bytes)));
        assert_eq!("e7620f1842b4e81f".parse(), Ok(KeyId::of_bytes(bytes)));
        assert_eq!("9D9442645B6B0C7".parse::<KeyId>().unwrap().to_string(), "09D9442645B6B0C7");
        for text in ["", "E7620F1842B", "E7620F1842B4E81G", "E7620F1842B4E81FF"] {
            assert!(text.parse::<KeyId>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_index_is_read_whatever_later_versions_add_to_it() {
        let text = format!(
            r#"{{"serial":1,"issuedAt":"2025-12-11T12:00:00Z","expiresAt":"2026-01-10T12:00:00Z","later":1,
                "releases":{{"v1.0.0":{{"manifestSha256":"sha256:{}","later":1}}}}}}"#,
            "a".repeat(64)
        );
        let index: ReleaseIndex = serde_json::from_str(&text).unwrap();
        assert_eq!(index.releases[&version("v1.0.0")].protocol, 1);
        let again = serde_json::to_string(&index).unwrap();
        assert_eq!(serde_json::from_str::<ReleaseIndex>(&again).unwrap(), index);
    }
}
