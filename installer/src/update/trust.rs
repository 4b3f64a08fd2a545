//! Which releases root believes: the keys in root's own files and those that they have named since,
//! the signed index of all releases, and what was seen of it before, which never goes back. Decides
//! by bytes alone; the release's own files are `release::verify`'s.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
    time::Duration,
};

use aio_host::files;
use aio_protocol::{
    error_code::ErrorCode,
    release::{
        Checksum, ReleaseVersion,
        index::{INDEX, IndexedRelease, KeyId, ReleaseIndex},
    },
    time::Timestamp,
};
use minisign_verify::{PublicKey, Signature};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// For so long after an update its owner may still go back to the version before.
const WAY_BACK: Duration = Duration::from_secs(7 * 24 * 3600);

/// A key's file holds a comment and a line.
const MAX_KEY_BYTES: u64 = 4096;

/// What root has seen, and who is believed: `trust.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Seen {
    /// Of each key's indexes. By key, so that a key that is stolen cannot spend the numbers of the
    /// one that replaces it.
    by_key: BTreeMap<KeyId, OfKey>,
    /// Keys that the signed indexes have named beside root's own.
    learned: Vec<String>,
    /// Keys that the signed indexes have revoked.
    revoked: BTreeSet<KeyId>,
    /// The newest version that has run here.
    highest: Option<ReleaseVersion>,
    /// When it began to.
    since: Option<Timestamp>,
}

/// What was seen of a key's indexes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OfKey {
    serial: u64,
    issued_at: Timestamp,
    #[serde(default)]
    floor: Option<ReleaseVersion>,
}

/// Root's keys, and what root has seen.
#[derive(Debug)]
pub(super) struct Trust {
    keys: Vec<(KeyId, PublicKey)>,
    seen: Seen,
}

/// An index that is believed, and what was seen with it.
#[derive(Debug)]
pub(super) struct Believed {
    pub(super) index: ReleaseIndex,
    seen: Seen,
}

impl Trust {
    /// Reads the keys in `keys` and what was seen in `seen`.
    pub(super) fn read(keys: &Path, seen: &Path) -> Result<Self, Failure> {
        let seen = match fs::read(seen) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                let message = format!("{} cannot be understood: {error}", seen.display());
                Failure::new(ErrorCode::FileFailed, message).with("path", seen.display().to_string())
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Seen::default(),
            Err(error) => return Err(Failure::io("read", seen, &error)),
        };
        Ok(Self::of(&keys_in(keys)?, seen))
    }

    fn of(texts: &[String], seen: Seen) -> Self {
        let texts = texts.iter().chain(&seen.learned);
        let keys =
            texts.filter_map(|text| Some((KeyId::of_public_key(text)?, PublicKey::from_base64(text).ok()?)));
        let keys = keys.filter(|(id, _)| !seen.revoked.contains(id)).collect();
        Self { keys, seen }
    }

    /// Whether `signature` vouches for `bytes`, by a key that is believed: the key and the signature.
    fn vouched(
        &self,
        bytes: &[u8],
        signature: &str,
        what: &str,
    ) -> Result<(KeyId, PublicKey, Signature), Failure> {
        let refused = |code, message: String| Failure::new(code, message);
        if self.keys.is_empty() {
            let message = "no release key is known on this machine, so nothing can be believed";
            return Err(refused(ErrorCode::SignatureMissing, message.to_owned()));
        }
        let signer = KeyId::of_signature(signature).ok_or_else(|| {
            refused(ErrorCode::SignatureInvalid, format!("the signature of {what} cannot be read"))
        })?;
        if self.seen.revoked.contains(&signer) {
            return Err(refused(
                ErrorCode::KeyRevoked,
                format!("{what} is signed with {signer}, which was revoked"),
            ));
        }
        let Some((id, key)) = self.keys.iter().find(|(id, _)| *id == signer) else {
            let message = format!("{what} is signed with {signer}, which nobody on this machine knows");
            return Err(refused(ErrorCode::SignatureForeign, message));
        };
        let invalid = |error: minisign_verify::Error| {
            refused(ErrorCode::SignatureInvalid, format!("the signature of {what} does not hold: {error}"))
        };
        let read = Signature::decode(signature).map_err(invalid)?;
        key.verify(bytes, &read, false).map_err(invalid)?;
        Ok((id.clone(), key.clone(), read))
    }

    /// The key that has made `signature`, where it is believed.
    pub(super) fn key_of(&self, signature: &str) -> Option<&PublicKey> {
        let signer = KeyId::of_signature(signature)?;
        self.keys.iter().find(|(id, _)| *id == signer).map(|(_, key)| key)
    }

    /// The index in `bytes`, if it is believed, no older than what was seen, and holds at `now`.
    pub(super) fn believe(&self, bytes: &[u8], signature: &str, now: Timestamp) -> Result<Believed, Failure> {
        let (signer, _, signature) = self.vouched(bytes, signature, INDEX)?;
        let index: ReleaseIndex = serde_json::from_slice(bytes).map_err(|error| {
            Failure::new(
                ErrorCode::IndexInvalid,
                format!("{INDEX} is signed and cannot be understood: {error}"),
            )
        })?;
        if signature.trusted_comment() != index.comment() {
            let message = format!("the signature of {INDEX} says `{}`", signature.trusted_comment());
            return Err(Failure::new(ErrorCode::IndexInvalid, message).with("expected", index.comment()));
        }
        let before = self.seen.by_key.get(&signer);
        if let Some(before) = before.filter(|before| index.serial < before.serial) {
            let message =
                format!("{INDEX} has the serial {}, and {} was seen before", index.serial, before.serial);
            return Err(Failure::new(ErrorCode::IndexReplayed, message)
                .with("serial", index.serial)
                .with("seen", before.serial));
        }
        // A clock that was set back keeps no old index alive.
        let newest = self.seen.by_key.values().map(|of| of.issued_at).max();
        if index.expired(newest.map_or(now, |newest| newest.max(now))) {
            let message = format!("{INDEX} held until {}", index.expires_at);
            return Err(Failure::new(ErrorCode::IndexExpired, message)
                .with("expiresAt", index.expires_at.to_string()));
        }
        let mut seen = self.seen.clone();
        let of = OfKey { serial: index.serial, issued_at: index.issued_at, floor: index.floor.clone() };
        seen.by_key.insert(signer, of);
        for key in &index.keys {
            if KeyId::of_public_key(key).is_some() && !seen.learned.contains(key) {
                seen.learned.push(key.clone());
            }
        }
        seen.revoked.extend(index.revoked.iter().cloned());
        seen.by_key.retain(|id, _| !seen.revoked.contains(id));
        Ok(Believed { index, seen })
    }
}

impl Believed {
    /// What the index says of `version`, if it may be installed over `present`.
    pub(super) fn release(
        &self,
        version: &ReleaseVersion,
        manifest: &Checksum,
        present: &ReleaseVersion,
        previous: Option<&ReleaseVersion>,
        now: Timestamp,
    ) -> Result<&IndexedRelease, Failure> {
        let of_version =
            |code, message: String| Failure::new(code, message).with("version", version.to_string());
        let release =
            self.index.releases.get(version).ok_or_else(|| {
                of_version(ErrorCode::IndexInvalid, format!("{INDEX} does not name {version}"))
            })?;
        if release.manifest_sha256 != *manifest {
            let message = format!("{INDEX} names another {version} than was asked for");
            return Err(of_version(ErrorCode::ReleaseSwapped, message)
                .with("expected", release.manifest_sha256.to_string())
                .with("actual", manifest.to_string()));
        }
        if let Some(oldest) = release.oldest_from.as_ref().filter(|oldest| present < *oldest) {
            let message = format!("{version} is installed over {oldest} or newer, and {present} runs");
            return Err(of_version(ErrorCode::UpdateUnreachable, message)
                .with("oldestFrom", oldest.to_string())
                .with("present", present.to_string()));
        }
        let is_back = self.seen.highest.as_ref().is_some_and(|highest| version < highest);
        if is_back && previous != Some(version) {
            let message = format!("a newer version has run here, and {version} is not the one before it");
            return Err(of_version(ErrorCode::DowngradeRefused, message));
        }
        self.seen.may_go_back(version, now)?;
        Ok(release)
    }

    /// What was seen now, for [`Seen::write`]: after all checks.
    pub(super) fn into_seen(self) -> Seen {
        self.seen
    }
}

impl Seen {
    /// The oldest version that may be installed.
    pub(super) fn floor(&self) -> Option<&ReleaseVersion> {
        self.by_key.values().filter_map(|of| of.floor.as_ref()).max()
    }

    /// Whether this machine may run `version` at `now`, however old it is.
    pub(super) fn may_go_back(&self, version: &ReleaseVersion, now: Timestamp) -> Result<(), Failure> {
        if let Some(floor) = self.floor().filter(|floor| version < *floor) {
            let message = format!("{version} is older than {floor}, the oldest that may be installed");
            return Err(Failure::new(ErrorCode::UpdateBelowFloor, message).with("floor", floor.to_string()));
        }
        match (&self.highest, self.since) {
            (Some(highest), Some(since)) if version < highest && now.since(since) > WAY_BACK => {
                let message = format!("{highest} has run here since {since}, and {version} is older");
                Err(Failure::new(ErrorCode::DowngradeRefused, message).with("highest", highest.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// The newest index.
    pub(super) fn serial(&self) -> Option<u64> {
        self.by_key.values().map(|of| of.serial).max()
    }

    /// `version` has proven itself at `now`.
    pub(super) fn ran(mut self, version: &ReleaseVersion, now: Timestamp) -> Self {
        if self.highest.as_ref().is_none_or(|highest| highest < version) {
            (self.highest, self.since) = (Some(version.clone()), Some(now));
        }
        self
    }

    /// What `trust` holds.
    pub(super) fn of(trust: &Trust) -> &Self {
        &trust.seen
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), Failure> {
        let bytes = serde_json::to_vec(self).map_err(|error| {
            Failure::new(ErrorCode::Internal, format!("{} cannot be written: {error}", path.display()))
        })?;
        Ok(files::replace_file(path, &bytes, 0o600)?)
    }
}

/// The keys in a folder: one in each file, the last line that is one.
fn keys_in(folder: &Path) -> Result<Vec<String>, Failure> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Failure::io("read", folder, &error)),
    };
    let mut keys = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        let is_key = path.extension().is_some_and(|extension| extension == "pub");
        if !is_key || entry.metadata().is_ok_and(|metadata| metadata.len() > MAX_KEY_BYTES) {
            continue;
        }
        let text = fs::read_to_string(&path).map_err(|error| Failure::io("read", &path, &error))?;
        keys.extend(
            text.lines()
                .rev()
                .map(str::trim)
                .find(|line| KeyId::of_public_key(line).is_some())
                .map(str::to_owned),
        );
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use minisign::KeyPair;

    use super::*;

    fn keys() -> KeyPair {
        KeyPair::generate_unencrypted_keypair().unwrap()
    }

    fn text(keys: &KeyPair) -> String {
        keys.pk.to_base64()
    }

    fn id(keys: &KeyPair) -> KeyId {
        KeyId::of_public_key(&text(keys)).unwrap()
    }

    fn trust(keys: &[&KeyPair], seen: Seen) -> Trust {
        Trust::of(&keys.iter().map(|keys| text(keys)).collect::<Vec<_>>(), seen)
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn version(text: &str) -> ReleaseVersion {
        text.parse().unwrap()
    }

    fn manifest() -> Checksum {
        Checksum::of_digest([7; 32])
    }

    fn index(serial: u64) -> ReleaseIndex {
        let of = |oldest: Option<&str>| IndexedRelease {
            manifest_sha256: manifest(),
            oldest_from: oldest.map(version),
            protocol: 1,
        };
        ReleaseIndex {
            serial,
            issued_at: at(1_000),
            expires_at: at(1_000_000),
            floor: None,
            revoked: BTreeSet::new(),
            keys: vec![],
            releases: BTreeMap::from([
                (version("v1.0.0"), of(None)),
                (version("v1.1.0"), of(None)),
                (version("v2.0.0"), of(Some("v1.1.0"))),
            ]),
        }
    }

    fn signed(index: &ReleaseIndex, by: &KeyPair) -> (Vec<u8>, String) {
        let bytes = serde_json::to_vec(index).unwrap();
        let signature = sign(&bytes, by, &index.comment());
        (bytes, signature)
    }

    fn sign(bytes: &[u8], by: &KeyPair, comment: &str) -> String {
        minisign::sign(Some(&by.pk), &by.sk, bytes, Some(comment), None).unwrap().into_string()
    }

    fn seen(trust: &Trust, index: &ReleaseIndex, by: &KeyPair) -> Result<Seen, ErrorCode> {
        let (bytes, signature) = signed(index, by);
        let believed = trust.believe(&bytes, &signature, at(2_000));
        believed.map(Believed::into_seen).map_err(|failure| failure.code)
    }

    #[test]
    fn an_index_is_believed_by_root_s_keys_alone() {
        let (ours, other) = (keys(), keys());
        let trusting = trust(&[&ours], Seen::default());
        assert!(seen(&trusting, &index(1), &ours).is_ok());
        assert_eq!(seen(&trusting, &index(1), &other), Err(ErrorCode::SignatureForeign));
        assert_eq!(seen(&trust(&[], Seen::default()), &index(1), &ours), Err(ErrorCode::SignatureMissing));
        let (bytes, signature) = signed(&index(1), &ours);
        let code =
            |bytes: &[u8], signature: &str| trusting.believe(bytes, signature, at(2_000)).unwrap_err().code;
        assert_eq!(code(&bytes, "no signature"), ErrorCode::SignatureInvalid);
        assert_eq!(code(&[&bytes[..], b" "].concat(), &signature), ErrorCode::SignatureInvalid);
        // What was signed as another file, or with another number, is not the index.
        for comment in ["file:linux-amd64 version:v1.0.0", "file:index.json serial:2", ""] {
            assert_eq!(code(&bytes, &sign(&bytes, &ours, comment)), ErrorCode::IndexInvalid, "{comment}");
        }
        assert_eq!(code(b"{}", &sign(b"{}", &ours, "file:index.json serial:1")), ErrorCode::IndexInvalid);
    }

    #[test]
    fn an_index_never_goes_back_and_holds_for_its_time() {
        let ours = keys();
        let before = seen(&trust(&[&ours], Seen::default()), &index(5), &ours).unwrap();
        assert_eq!(before.serial(), Some(5));
        let later = trust(&[&ours], before);
        assert_eq!(seen(&later, &index(4), &ours), Err(ErrorCode::IndexReplayed));
        assert!(seen(&later, &index(5), &ours).is_ok() && seen(&later, &index(9), &ours).is_ok());
        let mut old = index(6);
        old.expires_at = at(1_500);
        assert_eq!(seen(&later, &old, &ours), Err(ErrorCode::IndexExpired));
        // However far the clock is set back, it is no earlier than what was signed.
        old.expires_at = at(1_000);
        let (bytes, signature) = signed(&old, &ours);
        assert_eq!(later.believe(&bytes, &signature, at(0)).unwrap_err().code, ErrorCode::IndexExpired);
    }

    #[test]
    fn a_key_names_its_successor_which_revokes_it_and_its_numbers_with_it() {
        let (old, new) = (keys(), keys());
        let mut handing_over = index(1);
        handing_over.keys = vec![text(&new)];
        let before = seen(&trust(&[&old], Seen::default()), &handing_over, &old).unwrap();
        // Whoever has stolen the old key spends its numbers.
        let before = seen(&trust(&[&old], before), &index(u64::MAX), &old).unwrap();
        let mut taking_over = index(2);
        taking_over.revoked = BTreeSet::from([id(&old)]);
        let after = seen(&trust(&[&old], before), &taking_over, &new).unwrap();
        assert_eq!(after.serial(), Some(2));
        let trusting = trust(&[&old], after);
        assert_eq!(seen(&trusting, &index(u64::MAX), &old), Err(ErrorCode::KeyRevoked));
        assert!(seen(&trusting, &index(3), &new).is_ok());
        let signature = signed(&index(3), &old).1;
        assert!(
            trusting.key_of(&signature).is_none(),
            "what it has signed otherwise is worth nothing, either"
        );
    }

    #[test]
    fn a_version_is_installed_at_or_above_the_floor_and_back_only_to_the_one_before() {
        let ours = keys();
        let may = |seen: Seen,
                   floor: Option<&str>,
                   wanted: &str,
                   present: &str,
                   previous: Option<&str>,
                   now: i64| {
            let mut index = index(9);
            (index.floor, index.expires_at) = (floor.map(version), at(i64::MAX / 2));
            let (bytes, signature) = signed(&index, &ours);
            let trust = trust(&[&ours], seen);
            let believed = trust.believe(&bytes, &signature, at(now)).unwrap();
            let previous = previous.map(version);
            let may = believed.release(
                &version(wanted),
                &manifest(),
                &version(present),
                previous.as_ref(),
                at(now),
            );
            may.map(|_| ()).map_err(|failure| failure.code)
        };
        let fresh = Seen::default;
        assert_eq!(may(fresh(), None, "v1.1.0", "v1.0.0", None, 2_000), Ok(()));
        assert_eq!(may(fresh(), None, "v1.5.0", "v1.0.0", None, 2_000), Err(ErrorCode::IndexInvalid));
        assert_eq!(
            may(fresh(), Some("v1.1.0"), "v1.0.0", "v1.1.0", Some("v1.0.0"), 2_000),
            Err(ErrorCode::UpdateBelowFloor)
        );
        assert_eq!(may(fresh(), None, "v2.0.0", "v1.0.0", None, 2_000), Err(ErrorCode::UpdateUnreachable));
        let day = 24 * 3600 * 1000;
        let ran = || Seen::default().ran(&version("v1.1.0"), at(2_000)).ran(&version("v1.0.0"), at(3_000));
        assert_eq!(may(ran(), None, "v1.0.0", "v1.1.0", Some("v1.0.0"), 7 * day), Ok(()));
        assert_eq!(
            may(ran(), None, "v1.0.0", "v1.1.0", Some("v1.0.0"), 8 * day),
            Err(ErrorCode::DowngradeRefused)
        );
        assert_eq!(may(ran(), None, "v1.0.0", "v1.1.0", None, 3_000), Err(ErrorCode::DowngradeRefused));
        // A floor that was seen stays, whatever later indexes leave out.
        let mut high = index(1);
        high.floor = Some(version("v1.1.0"));
        let floored = seen(&trust(&[&ours], fresh()), &high, &ours).unwrap();
        assert_eq!(floored.floor(), Some(&version("v1.1.0")));
    }

    #[test]
    fn keys_are_the_pub_files_of_a_folder_as_minisign_writes_them() {
        let folder = tempfile::tempdir().unwrap();
        let ours = keys();
        assert_eq!(keys_in(&folder.path().join("none")).unwrap(), [""; 0]);
        for (name, content) in [
            ("a.pub", format!("untrusted comment: minisign public key\n{}\n", text(&ours))),
            ("b.pub", "no key\n".to_owned()),
            ("c.txt", text(&ours)),
            ("d.pub", "x".repeat(5000)),
        ] {
            fs::write(folder.path().join(name), content).unwrap();
        }
        assert_eq!(keys_in(folder.path()).unwrap(), [text(&ours)]);
        let path = folder.path().join("trust.json");
        let seen = Seen::default().ran(&version("v1.1.0"), at(2_000));
        seen.write(&path).unwrap();
        assert_eq!(Trust::read(folder.path(), &path).unwrap().seen, seen);
        fs::write(&path, "{").unwrap();
        assert_eq!(Trust::read(folder.path(), &path).unwrap_err().code, ErrorCode::FileFailed);
    }
}
