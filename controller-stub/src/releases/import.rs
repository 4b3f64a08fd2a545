//! Puts releases that have passed into the folder that a server offers: each whole, by one rename,
//! under a server that runs. A version that is published keeps its bytes for ever; what may come
//! later is another platform. The index comes last, when what it names is there.

#[cfg(test)]
pub(super) mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use aio_protocol::{
    release::{
        Checksum, Platform, ReleaseVersion,
        folder::{MANIFEST, SIGNATURE_SUFFIX, SUMS},
        index::INDEX,
    },
    time::Timestamp,
};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::{
    ReleaseFile,
    folder::{ImportError, Verified, io, optional, signature_of},
    index::{IndexSummary, SignedIndex},
    keys::Keys,
    outcome::Outcome,
};

/// A version that was taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Imported {
    /// The version.
    pub version: ReleaseVersion,
    /// What it runs on.
    pub platforms: Vec<Platform>,
    /// What became of it.
    pub outcome: Outcome,
}

/// Everything that was taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The versions, oldest first.
    pub versions: Vec<Imported>,
    /// The index of the tree that they are of, where it has one.
    pub index: Option<IndexSummary>,
}

/// Takes over the version in `from`, or every version below it, and the index of their tree.
/// Nothing is put in place before everything has passed.
pub(crate) fn import(from: &Path, into: &Path, keys: Keys, now: Timestamp) -> Result<Import, ImportError> {
    let from = &fs::canonicalize(from).map_err(io("read", from))?;
    let (tree, folders) = versions(from)?;
    fs::create_dir_all(into).map_err(io("create", into))?;
    // What lies in the folder has passed when it came there.
    let there = SignedIndex::read(into)?;
    let mut keys = there.iter().fold(keys, |keys, there| keys.after(&there.index));
    // Beside a version's folder there may be an index of something else.
    let whole = tree == *from || tree.join(signature_of(INDEX)).exists();
    let index = if whole { SignedIndex::read(&tree)? } else { None };
    let mut index_change = None;
    if let Some(index) = &index {
        index.verify(&keys)?;
        index_change = Some(index.change(there.as_ref())?);
        keys = keys.after(&index.index);
    }
    let mut ready = Vec::new();
    for folder in folders {
        let release = Verified::read(&folder, &keys)?;
        let place = into.join(release.manifest.version.to_string());
        let change = change(&release, &place, keys.verify_signatures())?;
        let staged = match change {
            Outcome::AlreadyThere => None,
            _ => Some(stage(&release, into)?),
        };
        let manifest = release.files.get(MANIFEST).map(Vec::as_slice).unwrap_or_default();
        let sum = staged.is_some().then(|| Checksum::of_digest(Sha256::digest(manifest).into()));
        ready.push((release.manifest, change, staged, sum));
    }
    if let Some(index) = &index {
        let sums = ready.iter().filter_map(|(manifest, _, _, sum)| Some((&manifest.version, sum.as_ref()?)));
        fits(index, &sums.collect(), into)?;
    }
    let mut imported = Vec::new();
    for (manifest, outcome, staged, _) in ready {
        if let Some(staged) = staged {
            put_in_place(staged, &into.join(manifest.version.to_string()), outcome)?;
        }
        let platforms = manifest.platforms.into_keys().collect();
        imported.push(Imported { version: manifest.version, platforms, outcome });
    }
    if let Some(index) = index.as_ref().filter(|_| index_change != Some(Outcome::AlreadyThere)) {
        index.put(into)?;
    }
    fs::File::open(into).and_then(|it| it.sync_all()).map_err(io("write to disk", into))?;
    let summary = index.map(|it| IndexSummary::of(&it.index, now, index_change));
    Ok(Import { versions: imported, index: summary })
}

/// Fails where `index` means another release by a version than the one that would be there: `new`
/// by the sum of its manifest, or what is published.
fn fits(
    index: &SignedIndex,
    new: &BTreeMap<&ReleaseVersion, &Checksum>,
    into: &Path,
) -> Result<(), ImportError> {
    for (version, release) in &index.index.releases {
        let sum = match new.get(version) {
            Some(sum) => Some((*sum).clone()),
            None => manifest_sum(&into.join(version.to_string()))?,
        };
        if sum.is_some_and(|sum| sum != release.manifest_sha256) {
            let problem = format!(
                "it means another {MANIFEST} of {version} than the one here: add that version with it"
            );
            return Err(ImportError::Index { path: index.path().to_owned(), problem });
        }
    }
    Ok(())
}

/// The sum of the manifest in a version's folder; none where there is none.
pub(super) fn manifest_sum(folder: &Path) -> Result<Option<Checksum>, ImportError> {
    let bytes = optional(&folder.join(MANIFEST))?;
    Ok(bytes.map(|bytes| Checksum::of_digest(Sha256::digest(&bytes).into())))
}

/// The tree, and of it `from` where it is a version's folder, else all versions in it, oldest first.
fn versions(from: &Path) -> Result<(PathBuf, Vec<PathBuf>), ImportError> {
    if from.join(MANIFEST).exists() {
        let tree = from.parent().unwrap_or(from).to_owned();
        return Ok((tree, vec![from.to_owned()]));
    }
    let mut found: Vec<(ReleaseVersion, PathBuf)> = Vec::new();
    for entry in fs::read_dir(from).map_err(io("read", from))? {
        let path = entry.map_err(io("read", from))?.path();
        let version = path.file_name().and_then(|name| name.to_str()?.parse().ok());
        found.extend(version.filter(|_| path.is_dir()).map(|version| (version, path)));
    }
    // An index alone is how one is renewed.
    if found.is_empty() && !from.join(INDEX).exists() {
        let problem = format!("there is neither {MANIFEST} nor a version's folder in it");
        return Err(ImportError::Invalid { path: from.to_owned(), problem });
    }
    found.sort();
    Ok((from.to_owned(), found.into_iter().map(|(_, path)| path).collect()))
}

/// What putting `release` at `place` would be. A file that nodes or people may have fetched must
/// stay what it is. Manifest and sums change where files are added; signatures, where they were
/// verified (with a key), for a release that is signed again with another.
fn change(release: &Verified, place: &Path, verified: bool) -> Result<Outcome, ImportError> {
    if !place.exists() {
        return Ok(Outcome::Added);
    }
    let mut there = BTreeSet::new();
    for entry in fs::read_dir(place).map_err(io("read", place))? {
        let name = entry.map_err(io("read", place))?.file_name();
        there.insert(name.to_string_lossy().into_owned());
    }
    let sums_signature = signature_of(SUMS);
    let (mut missing, mut other) = (false, BTreeSet::new());
    for (name, bytes) in &release.files {
        match optional(&place.join(name))? {
            None => missing = true,
            Some(published) if published == *bytes => {}
            Some(_) => drop(other.insert(&**name)),
        }
    }
    let only_there = there.iter().find(|name| !release.files.contains_key(*name));
    let of_an_index = |name: &str| name == MANIFEST || name == SUMS || name == sums_signature;
    let is_signature = |name: &str| name.ends_with(SIGNATURE_SUFFIX);
    let other_file = other.iter().find(|name| !of_an_index(name) && !is_signature(name));
    let other_signature = other.iter().find(|name| is_signature(name) && **name != sums_signature);

    let version = &release.manifest.version;
    let refuse = |problem: String| Err(ImportError::Published { version: version.clone(), problem });
    if let Some(name) = other_file {
        return refuse(format!("its {name} is another file"));
    }
    if let Some(name) = other_signature.filter(|_| !verified) {
        return refuse(format!("its {name} is another one, which only RELEASE_PUBLIC_KEY could tell good"));
    }
    if let Some(name) = only_there {
        return if missing || other_signature.is_some() {
            refuse(format!("it has {name}, which this one has not"))
        } else {
            Ok(Outcome::AlreadyThere)
        };
    }
    let signed_again = other_signature.is_some() || other.contains(&*sums_signature);
    match other.iter().next() {
        _ if missing => Ok(Outcome::Extended),
        None => Ok(Outcome::AlreadyThere),
        Some(_) if signed_again && verified && !other.contains(MANIFEST) => Ok(Outcome::SignedAgain),
        Some(name) => refuse(format!("its {name} is another file")),
    }
}

/// Writes the files where nobody looks for them, in the file system of their place.
fn stage(release: &Verified, into: &Path) -> Result<TempDir, ImportError> {
    let staged = tempfile::Builder::new()
        .prefix(".adding-")
        .tempdir_in(into)
        .map_err(io("create a folder in", into))?;
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(io("set the rights of", path))
    };
    for (name, bytes) in &release.files {
        let path = staged.path().join(name);
        fs::write(&path, bytes).map_err(io("write", &path))?;
        mode(&path, if name.parse::<ReleaseFile>().is_ok() { 0o755 } else { 0o644 })?;
        fs::File::open(&path).and_then(|file| file.sync_all()).map_err(io("write to disk", &path))?;
    }
    mode(staged.path(), 0o755)?;
    Ok(staged)
}

fn put_in_place(staged: TempDir, place: &Path, outcome: Outcome) -> Result<(), ImportError> {
    let flags = if outcome == Outcome::Added { RenameFlags::NOREPLACE } else { RenameFlags::EXCHANGE };
    renameat_with(CWD, staged.path(), CWD, place, flags)
        .map_err(|error| io("put in place", place)(error.into()))?;
    if outcome == Outcome::Added {
        // It has its place now; after an exchange, what was there before lies here, and goes.
        let _ = staged.keep();
    }
    Ok(())
}
