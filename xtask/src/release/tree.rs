//! A tree of releases as a whole: which of its versions a believed key has signed, and its
//! `index.json` with the signature beside it. What the index says is `index`'s to decide.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use aio_protocol::{
    release::{
        Checksum, ReleaseVersion,
        folder::{MANIFEST, SIGNATURE_SUFFIX, SUMS, read_sums},
        index::{INDEX, KeyId, MAX_INDEX_BYTES, ReleaseIndex},
        label,
    },
    time::Timestamp,
};
use anyhow::{Context, Result, anyhow, ensure};
use minisign_verify::{PublicKey, Signature};

use super::{
    folder::{checksum, put, read, set_mode, sync},
    index::{self, Changes, Keys},
    key::Key,
};

/// A tree whose index can be written.
pub(super) struct Tree {
    place: PathBuf,
    before: Option<ReleaseIndex>,
    signer: String,
}

impl Tree {
    /// Reads the index of the tree at `place`, if there is one. Fails early where signing would
    /// fail late.
    pub(super) fn open(place: &Path, key: &Key, changes: &Changes) -> Result<Self> {
        let signer = key.public().filter(|_| key.signs()).context("an index is signed: give --key")?;
        let before = before(place)?;
        index::keys(before.as_ref(), signer, changes)?;
        Ok(Self { place: place.to_owned(), before, signer: signer.to_owned() })
    }

    /// Signs an index of what lies there now, and puts it in place. The signature comes first: for
    /// the moment between the two renames, what a reader gets does not verify, and it asks again.
    pub(super) fn sign(&self, key: &Key, changes: &Changes) -> Result<ReleaseIndex> {
        let keys = index::keys(self.before.as_ref(), &self.signer, changes)?;
        let found = self.survey(&keys)?;
        if let Some((version, _)) = &changes.oldest_from {
            ensure!(found.contains_key(version), "there is no signed {version} to say --oldest-from of");
        }
        let index = index::next(self.before.as_ref(), keys, found, changes, now())?;
        let text = serde_json::to_string_pretty(&index).context("the index cannot be written as JSON")?;
        let size = text.len() as u64;
        ensure!(
            size < MAX_INDEX_BYTES,
            "the index has {size} bytes, and readers take {MAX_INDEX_BYTES}: raise --floor"
        );
        let unfinished = tempfile::Builder::new().prefix(".unfinished-").tempdir_in(&self.place);
        let unfinished = unfinished.with_context(|| format!("cannot write to {}", self.place.display()))?;
        put(unfinished.path(), INDEX, format!("{text}\n").as_bytes(), 0o644)?;
        key.sign(&unfinished.path().join(INDEX), &index.comment())?;
        let signature = signature_of(INDEX);
        set_mode(&unfinished.path().join(&signature), 0o644)?;
        sync(unfinished.path())?;
        for name in [&*signature, INDEX] {
            let place = self.place.join(name);
            fs::rename(unfinished.path().join(name), &place)
                .with_context(|| format!("cannot put {} in place", place.display()))?;
        }
        fs::File::open(&self.place).and_then(|it| it.sync_all()).context("cannot write the tree to disk")?;
        Ok(index)
    }

    /// The manifest's sum of each version that one of `keys` has signed. The others are said.
    fn survey(&self, keys: &Keys) -> Result<BTreeMap<ReleaseVersion, Checksum>> {
        let mut found = BTreeMap::new();
        let unreadable = || format!("cannot read {}", self.place.display());
        for entry in fs::read_dir(&self.place).with_context(unreadable)? {
            let path = entry.with_context(unreadable)?.path();
            let version = path.file_name().and_then(|name| name.to_str()?.parse().ok());
            let Some(version) = version.filter(|_| path.is_dir()) else { continue };
            match signed(&path, &version, &keys.believed) {
                Ok(sum) => drop(found.insert(version, sum)),
                Err(error) => eprintln!("xtask: {version} is not in the index: {error:#}"),
            }
        }
        Ok(found)
    }
}

/// The index that lies there. It must be whole: its serial is what the next one counts on from.
fn before(place: &Path) -> Result<Option<ReleaseIndex>> {
    let path = place.join(INDEX);
    if !path.exists() {
        return Ok(None);
    }
    let bytes = read(&path)?;
    let index: ReleaseIndex =
        serde_json::from_slice(&bytes).with_context(|| format!("cannot read {}", path.display()))?;
    let comment = verified(place, INDEX, &bytes, &index.keys).and_then(|comment| {
        ensure!(
            comment == index.comment(),
            "its signature is of `{comment}`, and not of `{}`",
            index.comment()
        );
        Ok(())
    });
    comment.with_context(|| {
        format!("{} is not as it was signed: put back both files as they are published", path.display())
    })?;
    Ok(Some(index))
}

/// The sum of the manifest of `version`, which one of `keys` vouches for.
fn signed(folder: &Path, version: &ReleaseVersion, keys: &[String]) -> Result<Checksum> {
    let sums = read(&folder.join(SUMS))?;
    let comment = verified(folder, SUMS, &sums, keys)?;
    label::check_file(&comment, version, SUMS)?;
    let listed = read_sums(str::from_utf8(&sums).context("its sums are no text")?)?;
    let expected = listed.get(MANIFEST).with_context(|| format!("its sums do not list {MANIFEST}"))?;
    let sum = checksum(&read(&folder.join(MANIFEST))?);
    ensure!(sum == *expected, "its {MANIFEST} is not the one that was signed");
    Ok(sum)
}

/// The trusted comment of the signature of `name`, if one of `keys` has made it.
fn verified(folder: &Path, name: &str, bytes: &[u8], keys: &[String]) -> Result<String> {
    let text = read(&folder.join(signature_of(name))).context("it is not signed")?;
    let text = str::from_utf8(&text).context("its signature is no text")?;
    let id = KeyId::of_signature(text).context("its signature cannot be read")?;
    let key = keys.iter().find(|key| KeyId::of_public_key(key).as_ref() == Some(&id));
    let key = key.with_context(|| format!("it is signed with {id}, which is not believed"))?;
    let invalid = |error| anyhow!("its signature does not hold: {error}");
    let signature = Signature::decode(text).map_err(invalid)?;
    PublicKey::from_base64(key).and_then(|key| key.verify(bytes, &signature, false)).map_err(invalid)?;
    Ok(signature.trusted_comment().to_owned())
}

fn signature_of(name: &str) -> String {
    format!("{name}{SIGNATURE_SUFFIX}")
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
