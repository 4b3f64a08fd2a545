use std::{
    collections::BTreeMap,
    io::Cursor,
    os::unix::fs::{MetadataExt, symlink},
};

use aio_protocol::{
    error_code::ErrorCode,
    release::{
        Checksum,
        folder::{FileEntry, FolderManifest, Needs, read_sums, write_sums},
        index::{INDEX_LIFE, IndexedRelease, KeyId, ReleaseIndex},
        label,
    },
};
use minisign::KeyPair;
use sha2::{Digest, Sha256};

use super::*;

pub(in crate::releases) const AMD64: u8 = 62;
const ARM64: u8 = 183;

pub(in crate::releases) fn program(processor: u8, more: &str) -> Vec<u8> {
    [b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0".as_slice(), &[processor, 0], more.as_bytes()].concat()
}

fn sum(bytes: &[u8]) -> Checksum {
    Checksum::of_digest(Sha256::digest(bytes).into())
}

/// A release as the release's builder writes it, and what a test does to it.
pub(in crate::releases) struct Release {
    pub(in crate::releases) version: ReleaseVersion,
    pub(in crate::releases) files: BTreeMap<String, Vec<u8>>,
    pub(in crate::releases) key: KeyPair,
    pub(in crate::releases) signed: bool,
}

impl Release {
    pub(in crate::releases) fn new(version: &str) -> Self {
        let files = [
            ("linux-amd64", program(AMD64, "worker")),
            ("aio-installer-linux-amd64", program(AMD64, "installer")),
            ("THIRD-PARTY-LICENSES", b"licences".to_vec()),
        ];
        Self {
            version: version.parse().unwrap(),
            files: files.map(|(name, bytes)| (name.to_owned(), bytes)).into(),
            key: KeyPair::generate_unencrypted_keypair().unwrap(),
            signed: true,
        }
    }

    pub(in crate::releases) fn with(mut self, name: &str, bytes: Vec<u8>) -> Self {
        self.files.insert(name.to_owned(), bytes);
        self
    }

    fn signature(&self, name: &str, bytes: &[u8]) -> String {
        let comment = label::comment(&self.version, name);
        minisign::sign(None, &self.key.sk, Cursor::new(bytes), Some(&comment), None).unwrap().to_string()
    }

    pub(in crate::releases) fn public(&self) -> Keys {
        Keys::of(&[self.key.pk.to_base64()]).unwrap()
    }

    /// Writes the version's folder into `tree`.
    pub(in crate::releases) fn write(&self, tree: &Path) -> PathBuf {
        let folder = tree.join(self.version.to_string());
        fs::create_dir_all(&folder).unwrap();
        let platforms =
            Platform::ALL.into_iter().filter(|platform| self.files.contains_key(platform.as_str()));
        let entry = |bytes: &Vec<u8>| FileEntry { size: bytes.len() as u64, sha256: sum(bytes) };
        let manifest = FolderManifest {
            version: self.version.clone(),
            commit: "c".repeat(40),
            committed_at: "2025-12-11T12:00:00Z".parse().unwrap(),
            rust: "1.95.0".to_owned(),
            release_key: None,
            platforms: platforms.map(|it| (it, Needs { glibc: "2.31".to_owned() })).collect(),
            files: self.files.iter().map(|(name, bytes)| (name.clone(), entry(bytes))).collect(),
        };
        let mut files = self.files.clone();
        if self.signed {
            for (name, bytes) in self.files.iter().filter(|(name, _)| name.parse::<ReleaseFile>().is_ok()) {
                files.insert(signature_of(name), self.signature(name, bytes).into_bytes());
            }
        }
        files.insert(MANIFEST.to_owned(), serde_json::to_vec(&manifest).unwrap());
        let sums = write_sums(&files.iter().map(|(name, bytes)| (name.clone(), sum(bytes))).collect());
        if self.signed {
            files.insert(signature_of(SUMS), self.signature(SUMS, sums.as_bytes()).into_bytes());
        }
        files.insert(SUMS.to_owned(), sums.into_bytes());
        for (name, bytes) in files {
            fs::write(folder.join(name), bytes).unwrap();
        }
        folder
    }
}

pub(in crate::releases) fn now() -> Timestamp {
    "2025-12-11T12:00:00Z".parse().unwrap()
}

/// Every file of a folder of releases with its bytes.
fn snapshot(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(snapshot(&entry));
        } else {
            found.insert(entry.clone(), fs::read(&entry).unwrap());
        }
    }
    found
}

pub(in crate::releases) struct World {
    folder: TempDir,
}

impl World {
    pub(in crate::releases) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(in crate::releases) fn tree(&self) -> PathBuf {
        self.folder.path().join("tree")
    }

    pub(in crate::releases) fn published(&self) -> PathBuf {
        self.folder.path().join("published")
    }

    fn import(&self, keys: Option<&Keys>) -> Result<Vec<Outcome>, ImportError> {
        let keys = keys.cloned().unwrap_or_default();
        let imported = import(&self.tree(), &self.published(), keys, now())?;
        Ok(imported.versions.into_iter().map(|imported| imported.outcome).collect())
    }

    /// The code of the refusal; nothing of what is published may have changed, and nothing may be
    /// left behind.
    fn refused(&self, key: Option<&Keys>) -> ErrorCode {
        fs::create_dir_all(self.published()).unwrap();
        let before = snapshot(&self.published());
        let code = self.import(key).unwrap_err().code();
        assert_eq!(snapshot(&self.published()), before);
        code
    }
}

#[test]
fn what_has_passed_is_published_byte_for_byte_and_adding_it_again_changes_nothing() {
    let world = World::new();
    let (older, newer) = (Release::new("v1.0.0"), Release::new("v1.1.0"));
    let folder = older.write(&world.tree());
    newer.write(&world.tree());
    assert_eq!(world.import(None).unwrap(), [Outcome::Added, Outcome::Added]);
    let place = world.published().join("v1.0.0");
    assert_eq!(
        snapshot(&place).into_values().collect::<Vec<_>>(),
        snapshot(&folder).into_values().collect::<Vec<_>>()
    );
    let mode = |name: &str| fs::metadata(place.join(name)).unwrap().mode() & 0o777;
    assert_eq!((mode(""), mode("linux-amd64"), mode(MANIFEST)), (0o755, 0o755, 0o644));

    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    let before = inode(&place);
    assert_eq!(world.import(None).unwrap(), [Outcome::AlreadyThere, Outcome::AlreadyThere]);
    assert_eq!(inode(&place), before);
    // A version's folder alone, by a name of its own, too.
    let elsewhere = world.folder.path().join("download");
    symlink(&folder, &elsewhere).unwrap();
    let again = import(&elsewhere, &world.published(), older.public(), now()).unwrap();
    assert_eq!(again.versions.first().unwrap().outcome, Outcome::AlreadyThere);
    assert_eq!(fs::read_dir(world.published()).unwrap().count(), 2, "something was left behind");
}

#[test]
fn another_platform_comes_to_a_version_and_other_bytes_do_not() {
    let world = World::new();
    let first = Release::new("v1.0.0");
    first.write(&world.tree());
    world.import(Some(&first.public())).unwrap();
    let of_one = world.folder.path().join("of-one");
    fs::rename(world.tree(), &of_one).unwrap();

    let both = Release { key: first.key.clone(), ..Release::new("v1.0.0") }
        .with("linux-arm64", program(ARM64, "worker"))
        .with("aio-installer-linux-arm64", program(ARM64, "installer"));
    let folder = both.write(&world.tree());
    assert_eq!(
        world.refused(None),
        ErrorCode::ReleaseExists,
        "nobody has verified the signatures that are others"
    );
    assert_eq!(world.import(Some(&first.public())).unwrap(), [Outcome::Extended]);
    assert!(world.published().join("v1.0.0/linux-arm64.minisig").is_file());
    assert_eq!(fs::read_dir(world.published()).unwrap().count(), 1, "the folder from before is left");

    // The tree of one platform is a part of what is there, which is no reason to take the other away.
    for name in ["linux-amd64.minisig", "aio-installer-linux-amd64.minisig"] {
        fs::copy(folder.join(name), of_one.join("v1.0.0").join(name)).unwrap();
    }
    let sums = of_one.join("v1.0.0").join(SUMS);
    let text = fs::read_to_string(&sums).unwrap();
    let kept = read_sums(&text).unwrap().into_keys();
    let anew =
        kept.map(|name| (name.clone(), sum(&fs::read(of_one.join("v1.0.0").join(name)).unwrap()))).collect();
    fs::write(&sums, write_sums(&anew)).unwrap();
    fs::write(sums.with_file_name(signature_of(SUMS)), first.signature(SUMS, write_sums(&anew).as_bytes()))
        .unwrap();
    let again = import(&of_one, &world.published(), first.public(), now()).unwrap();
    assert_eq!(again.versions.first().unwrap().outcome, Outcome::AlreadyThere);

    Release { key: first.key.clone(), ..Release::new("v1.0.0") }
        .with("linux-amd64", program(AMD64, "another worker"))
        .write(&world.tree());
    assert_eq!(world.refused(Some(&first.public())), ErrorCode::ReleaseExists);

    // A platform for which somebody has put other files beside cannot be judged.
    fs::remove_dir_all(world.tree()).unwrap();
    first.write(&world.tree());
    fs::remove_file(world.published().join("v1.0.0/THIRD-PARTY-LICENSES")).unwrap();
    assert_eq!(world.refused(None), ErrorCode::ReleaseExists);
}

#[test]
fn a_release_that_is_signed_again_changes_its_signatures_alone_and_only_under_a_key() {
    let world = World::new();
    let before = Release::new("v1.0.0");
    before.write(&world.tree());
    world.import(Some(&before.public())).unwrap();
    let after = Release::new("v1.0.0");
    after.write(&world.tree());
    assert_eq!(world.refused(None), ErrorCode::ReleaseExists, "nobody has verified them");
    assert_eq!(world.refused(Some(&before.public())), ErrorCode::SignatureForeign);
    assert_eq!(world.import(Some(&after.public())).unwrap(), [Outcome::SignedAgain]);
    assert_eq!(world.import(Some(&after.public())).unwrap(), [Outcome::AlreadyThere]);
}

#[test]
fn a_worker_that_was_published_by_hand_is_completed_when_it_is_the_same() {
    let world = World::new();
    let release = Release::new("v1.0.0");
    release.write(&world.tree());
    fs::create_dir_all(world.published().join("v1.0.0")).unwrap();
    fs::write(world.published().join("v1.0.0/linux-amd64"), program(AMD64, "worker")).unwrap();
    assert_eq!(world.import(Some(&release.public())).unwrap(), [Outcome::Extended]);
}

#[test]
fn a_folder_that_is_no_release_is_refused() {
    let world = World::new();
    assert_eq!(world.refused(None), ErrorCode::FileFailed, "there is none");
    fs::create_dir_all(world.tree()).unwrap();
    assert_eq!(world.refused(None), ErrorCode::ReleaseInvalid, "it is empty");
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 7] = [
        ("no sums", |it| fs::remove_file(it.join(SUMS)).unwrap()),
        ("a file is missing", |it| fs::remove_file(it.join("linux-amd64")).unwrap()),
        ("no manifest", |it| fs::remove_file(it.join(MANIFEST)).unwrap()),
        ("sums of nothing", |it| fs::write(it.join(SUMS), "").unwrap()),
        ("no sums at all", |it| fs::write(it.join(SUMS), "<html>\n").unwrap()),
        ("sums that lead out", |it| {
            fs::write(it.join(SUMS), format!("{}  ../{MANIFEST}\n", "a".repeat(64))).unwrap();
        }),
        ("of another version", |it| fs::rename(it, it.with_file_name("v9.0.0")).unwrap()),
    ];
    for (what, damage) in damages {
        let folder = Release::new("v1.0.0").write(&world.tree());
        damage(&folder);
        assert_eq!(world.refused(None), ErrorCode::ReleaseInvalid, "{what}");
        fs::remove_dir_all(world.tree()).unwrap();
    }
}

#[test]
fn altered_files_and_programs_that_are_none_are_refused() {
    let world = World::new();
    let folder = Release::new("v1.0.0").write(&world.tree());
    fs::write(folder.join("linux-amd64"), program(AMD64, "altered")).unwrap();
    assert_eq!(world.refused(None), ErrorCode::ChecksumMismatch);
    Release::new("v1.0.0").with("linux-amd64", b"#!/bin/sh".to_vec()).write(&world.tree());
    assert_eq!(world.refused(None), ErrorCode::ElfInvalid);
    Release::new("v1.0.0").with("linux-amd64", program(ARM64, "")).write(&world.tree());
    assert_eq!(world.refused(None), ErrorCode::ArchitectureMismatch);
}

#[test]
fn with_a_release_key_nothing_is_taken_that_it_has_not_signed() {
    let world = World::new();
    let release = Release::new("v1.0.0");
    let key = Some(release.public());
    let folder = release.write(&world.tree());
    assert_eq!(world.refused(Some(&Release::new("v1.0.0").public())), ErrorCode::SignatureForeign);

    fs::remove_file(folder.join(signature_of(SUMS))).unwrap();
    assert_eq!(world.refused(key.as_ref()), ErrorCode::SignatureMissing);
    fs::write(folder.join(signature_of(SUMS)), "no signature").unwrap();
    assert_eq!(world.refused(key.as_ref()), ErrorCode::SignatureInvalid);
    fs::write(folder.join(signature_of(SUMS)), release.signature(SUMS, b"other sums")).unwrap();
    assert_eq!(world.refused(key.as_ref()), ErrorCode::SignatureInvalid);
    // A good signature of these bytes as another file or of another version.
    let sums = fs::read(folder.join(SUMS)).unwrap();
    fs::write(folder.join(signature_of(SUMS)), release.signature("linux-amd64", &sums)).unwrap();
    assert_eq!(world.refused(key.as_ref()), ErrorCode::ReleaseSwapped);

    fs::remove_dir_all(world.tree()).unwrap();
    Release { signed: false, key: release.key.clone(), ..Release::new("v1.0.0") }.write(&world.tree());
    assert_eq!(world.refused(key.as_ref()), ErrorCode::SignatureMissing);
    assert_eq!(world.import(None).unwrap(), [Outcome::Added], "without a key, sums are enough");
}

#[test]
fn one_bad_version_keeps_the_others_of_its_tree_back() {
    let world = World::new();
    Release::new("v1.0.0").write(&world.tree());
    let bad = Release::new("v1.1.0").write(&world.tree());
    fs::write(bad.join("linux-amd64"), "").unwrap();
    assert_eq!(world.refused(None), ErrorCode::ChecksumMismatch);
}

/// An index of what lies in the tree, signed with `key`, and what `change` makes of it.
pub(in crate::releases) fn write_index(
    world: &World,
    key: &KeyPair,
    serial: u64,
    change: impl FnOnce(&mut ReleaseIndex),
) {
    let mut releases = BTreeMap::new();
    for path in fs::read_dir(world.tree()).unwrap().map(|entry| entry.unwrap().path()) {
        if !path.is_dir() {
            continue;
        }
        let manifest_sha256 = manifest_sum(&path).unwrap().unwrap();
        let version = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        releases.insert(version, IndexedRelease { manifest_sha256, oldest_from: None, protocol: 1 });
    }
    let mut index = ReleaseIndex {
        serial,
        issued_at: now(),
        expires_at: now().plus(INDEX_LIFE),
        floor: None,
        revoked: BTreeSet::new(),
        keys: Vec::new(),
        releases,
    };
    change(&mut index);
    let text = serde_json::to_vec(&index).unwrap();
    let signature = minisign::sign(None, &key.sk, Cursor::new(&text), Some(&index.comment()), None).unwrap();
    fs::write(world.tree().join(INDEX), text).unwrap();
    fs::write(world.tree().join(signature_of(INDEX)), signature.to_string()).unwrap();
}

pub(in crate::releases) fn id(key: &KeyPair) -> KeyId {
    KeyId::of_public_key(&key.pk.to_base64()).unwrap()
}

fn index_outcome(world: &World, keys: &Keys) -> Outcome {
    let imported = import(&world.tree(), &world.published(), keys.clone(), now()).unwrap();
    imported.index.unwrap().outcome.unwrap()
}

#[test]
fn an_index_comes_with_the_versions_that_it_names_and_never_goes_back() {
    let world = World::new();
    let release = Release::new("v1.0.0");
    let keys = release.public();
    let folder = release.write(&world.tree());
    write_index(&world, &release.key, 7, |_| {});
    assert_eq!(index_outcome(&world, &keys), Outcome::Added);
    assert_eq!(index_outcome(&world, &keys), Outcome::AlreadyThere);
    let published = fs::read(world.published().join(INDEX)).unwrap();
    assert_eq!(published, fs::read(world.tree().join(INDEX)).unwrap());
    assert_eq!(fs::metadata(world.published().join(INDEX)).unwrap().mode() & 0o777, 0o644);

    write_index(&world, &release.key, 6, |_| {});
    assert_eq!(world.refused(Some(&keys)), ErrorCode::IndexReplayed);
    assert_eq!(world.refused(None), ErrorCode::IndexReplayed, "whether it is verified or not");
    write_index(&world, &release.key, 7, |index| index.floor = Some("v1.0.0".parse().unwrap()));
    assert_eq!(world.refused(Some(&keys)), ErrorCode::IndexReplayed, "another one of this serial");
    write_index(&world, &release.key, 8, |_| {});
    // A version's folder alone comes with the index of its tree.
    let alone = import(&folder, &world.published(), keys.clone(), now()).unwrap();
    assert_eq!(alone.index.unwrap().outcome, Some(Outcome::Replaced));

    // Interrupted between its two files.
    fs::remove_file(world.published().join(signature_of(INDEX))).unwrap();
    assert_eq!(index_outcome(&world, &keys), Outcome::SignedAgain);
    assert_eq!(index_outcome(&world, &keys), Outcome::AlreadyThere);
    assert_eq!(fs::read_dir(world.published()).unwrap().count(), 3, "something was left behind");
}

#[test]
fn an_index_that_is_not_what_was_signed_is_refused() {
    let world = World::new();
    let release = Release::new("v1.0.0");
    let keys = Some(release.public());
    release.write(&world.tree());
    let (index, signature) = (world.tree().join(INDEX), world.tree().join(signature_of(INDEX)));
    write_index(&world, &Release::new("v1.0.0").key, 1, |_| {});
    assert_eq!(world.refused(keys.as_ref()), ErrorCode::SignatureForeign);
    write_index(&world, &release.key, 1, |_| {});
    let good = fs::read(&signature).unwrap();
    fs::remove_file(&signature).unwrap();
    assert_eq!(world.refused(keys.as_ref()), ErrorCode::SignatureMissing);
    write_index(&world, &release.key, 2, |_| {});
    fs::write(&signature, good).unwrap();
    assert_eq!(world.refused(keys.as_ref()), ErrorCode::SignatureInvalid, "that of another index");
    fs::write(&signature, release.signature("linux-amd64", &fs::read(&index).unwrap())).unwrap();
    assert_eq!(world.refused(keys.as_ref()), ErrorCode::IndexInvalid, "signed as something else");
    for text in [b"<html>".to_vec(), vec![b' '; 300 * 1024], b"{}".to_vec()] {
        fs::write(&index, text).unwrap();
        assert_eq!(world.refused(keys.as_ref()), ErrorCode::IndexInvalid);
    }
    let another = Checksum::from_hex(&"a".repeat(64)).unwrap();
    write_index(&world, &release.key, 3, |index| {
        index.releases.values_mut().for_each(|it| it.manifest_sha256 = another.clone());
    });
    assert_eq!(world.refused(keys.as_ref()), ErrorCode::IndexInvalid, "it means other bytes of v1.0.0");
    // One that has expired is taken: only nodes take nothing under it.
    write_index(&world, &release.key, 4, |index| index.expires_at = index.issued_at);
    let imported = import(&world.tree(), &world.published(), release.public(), now()).unwrap();
    assert!(imported.index.unwrap().expired);
}

#[test]
fn a_key_that_the_index_names_is_believed_and_one_that_it_revokes_is_not() {
    let world = World::new();
    let (old, new) = (Release::new("v1.0.0"), Release::new("v1.1.0"));
    let keys = old.public();
    let second = Keys::of(&[old.key.pk.to_base64(), new.key.pk.to_base64()]).unwrap();
    old.write(&world.tree());
    write_index(&world, &old.key, 1, |index| index.keys = vec![new.key.pk.to_base64()]);
    assert_eq!(index_outcome(&world, &keys), Outcome::Added);

    // The configuration knows the old key alone, and the index that is there names the new one.
    new.write(&world.tree());
    write_index(&world, &new.key, 2, |_| {});
    assert_eq!(index_outcome(&world, &keys), Outcome::Replaced);

    write_index(&world, &new.key, 3, |index| index.revoked.extend([id(&old.key)]));
    assert_eq!(world.refused(Some(&second)), ErrorCode::KeyRevoked, "v1.0.0 is signed with it");
    assert_eq!(world.refused(None), ErrorCode::KeyRevoked, "whether signatures are verified or not");
    Release { key: new.key.clone(), ..Release::new("v1.0.0") }.write(&world.tree());
    write_index(&world, &new.key, 3, |index| index.revoked.extend([id(&old.key)]));
    assert_eq!(index_outcome(&world, &second), Outcome::Replaced);
    write_index(&world, &old.key, 4, |_| {});
    assert_eq!(world.refused(Some(&second)), ErrorCode::KeyRevoked, "it signs no index any more");
}
