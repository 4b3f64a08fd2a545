//! The releases that nodes can install: what lies in the releases folder (`v1.0.0/linux-amd64`,
//! `v1.0.0/aio-installer-linux-amd64`, `.minisig` beside), and what the configuration says of releases that
//! are served elsewhere. A file is hashed once, off the runtime, and again when it changes. It does not
//! decide which release a node gets; how releases get into the folder stands in `import`.

pub(crate) mod downloads;
pub(crate) mod expiry;
pub(crate) mod fetch;
mod folder;
mod import;
mod index;
mod keys;
mod outcome;
mod published;
pub(crate) mod serving;

use std::{
    collections::HashMap,
    fs,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use aio_protocol::release::{
    Checksum, Platform, ReleaseVersion,
    folder::{FolderManifest, MANIFEST, SUMS},
    index::ReleaseIndex,
};
use sha2::{Digest, Sha256};

pub(crate) use aio_protocol::release::folder::SIGNATURE_SUFFIX;
pub(crate) use import::import;
pub(crate) use keys::Keys;
pub(crate) use published::ReleaseFile;
use serving::Served;
pub use {
    fetch::{FetchError, ReleaseSource},
    folder::ImportError,
    import::{Import, Imported},
    index::IndexSummary,
    outcome::Outcome,
    published::{Published, PublishedFile},
};

/// A minisign signature is four short lines.
const MAX_SIGNATURE_BYTES: u64 = 4096;

/// The releases that nodes can install.
pub(crate) struct Releases {
    folder: Option<PathBuf>,
    elsewhere: Published,
    hashed: Mutex<HashMap<PathBuf, (Stamp, Checksum)>>,
}

/// What changes when a file does.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Releases {
    pub(crate) fn new(folder: Option<PathBuf>, elsewhere: Published) -> Self {
        Self { folder, elsewhere, hashed: Mutex::default() }
    }

    /// The file of this name in the folder.
    pub(crate) async fn served(&self, version: &ReleaseVersion, name: &str) -> io::Result<Option<Served>> {
        let Some(path) = self.path(version, name) else { return Ok(None) };
        let hashed = self.hashed(path.clone()).await?;
        Ok(hashed.map(|(stamp, checksum)| Served { path, stamp, checksum }))
    }

    /// Whether a file of this name is the version's to be served: a program, or what its manifest
    /// lists. Nothing else that lies in the folder is.
    pub(crate) async fn lists(&self, version: &ReleaseVersion, name: &str) -> io::Result<bool> {
        let stem = name.strip_suffix(SIGNATURE_SUFFIX).unwrap_or(name);
        if stem.parse::<ReleaseFile>().is_ok() || stem == SUMS || name == MANIFEST {
            return Ok(true);
        }
        let Some(path) = self.path(version, MANIFEST) else { return Ok(false) };
        let text = match tokio::fs::read(&path).await {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let manifest: FolderManifest = serde_json::from_slice(&text).map_err(io::Error::other)?;
        Ok(manifest.files.contains_key(name))
    }

    /// The file of this name beside the versions, in whole.
    pub(crate) async fn beside(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let Some(folder) = &self.folder else { return Ok(None) };
        match tokio::fs::read(folder.join(name)).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The index of the folder, as it says of itself: it was verified when it came there.
    pub(crate) async fn index(&self) -> Result<Option<ReleaseIndex>, ImportError> {
        let Some(folder) = self.folder.clone() else { return Ok(None) };
        let read = tokio::task::spawn_blocking(move || published_index(&folder)).await;
        read.unwrap_or_else(|error| {
            let path = self.folder.clone().unwrap_or_default();
            Err(ImportError::Io { action: "read", path, source: io::Error::other(error) })
        })
    }

    /// Where a file of this name lies, whether it is there or not; `None` without a releases folder.
    fn path(&self, version: &ReleaseVersion, name: &str) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(version.to_string()).join(name))
    }

    /// What is published as `file` of `version`. What the configuration pins comes before what the
    /// folder holds.
    pub(crate) async fn find(
        &self,
        version: &ReleaseVersion,
        file: ReleaseFile,
    ) -> io::Result<Option<PublishedFile>> {
        if let Some(published) = self.elsewhere.get(version).and_then(|files| files.get(&file)) {
            return Ok(Some(published.clone()));
        }
        match self.path(version, &file.to_string()) {
            Some(path) => self.read(path).await,
            None => Ok(None),
        }
    }

    /// Hashes everything in the folder, so that the first node need not wait for it. Says how many
    /// files there are.
    pub(crate) async fn survey(&self) -> io::Result<usize> {
        let Some(folder) = &self.folder else { return Ok(0) };
        let mut count = 0;
        let mut versions = tokio::fs::read_dir(folder).await?;
        while let Some(entry) = versions.next_entry().await? {
            let Some(version) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            for platform in Platform::ALL {
                for file in [ReleaseFile::Daemon(platform), ReleaseFile::Installer(platform)] {
                    count += usize::from(self.find(&version, file).await?.is_some());
                }
            }
        }
        Ok(count)
    }

    async fn read(&self, path: PathBuf) -> io::Result<Option<PublishedFile>> {
        let Some((stamp, checksum)) = self.hashed(path.clone()).await? else { return Ok(None) };
        let signature =
            tokio::task::spawn_blocking(move || signature(&path)).await.map_err(io::Error::other)??;
        Ok(Some(PublishedFile { checksum, size: stamp.size, signature }))
    }

    /// What lies at `path`, hashed now or before.
    async fn hashed(&self, path: PathBuf) -> io::Result<Option<(Stamp, Checksum)>> {
        let known = self.table().get(&path).cloned();
        let file = path.clone();
        let work = tokio::task::spawn_blocking(move || hash_unless_known(&file, known));
        let Some((stamp, checksum)) = work.await.map_err(io::Error::other)?? else {
            self.table().remove(&path);
            return Ok(None);
        };
        let before = self.table().insert(path.clone(), (stamp.clone(), checksum.clone()));
        if before.is_some_and(|(_, before)| before != checksum) {
            tracing::warn!(path = %path.display(), %checksum, "a published release file has changed");
        }
        Ok(Some((stamp, checksum)))
    }

    fn table(&self) -> MutexGuard<'_, HashMap<PathBuf, (Stamp, Checksum)>> {
        self.hashed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The index that lies in the releases folder `folder`.
pub(crate) fn published_index(folder: &Path) -> Result<Option<ReleaseIndex>, ImportError> {
    Ok(index::SignedIndex::read(folder)?.map(|it| it.index))
}

/// Whether the version's folder holds the release that `index` means.
pub(crate) fn is_indexed(index: &ReleaseIndex, version: &ReleaseVersion, folder: &Path) -> bool {
    let meant = index.releases.get(version).map(|release| &release.manifest_sha256);
    meant.is_some() && import::manifest_sum(folder).is_ok_and(|sum| sum.as_ref() == meant)
}

/// A file that changes while it is read is read again this often.
const READS: usize = 3;

fn hash_unless_known(path: &Path, known: Option<(Stamp, Checksum)>) -> io::Result<Option<(Stamp, Checksum)>> {
    for _ in 0..READS {
        let Some(before) = stamp(path)? else { return Ok(None) };
        if let Some((stamp, checksum)) = &known
            && *stamp == before
        {
            return Ok(Some((before, checksum.clone())));
        }
        let checksum = hash(path)?;
        if stamp(path)?.as_ref() == Some(&before) {
            return Ok(Some((before, checksum)));
        }
    }
    Err(io::Error::other(format!("{} keeps changing while it is read", path.display())))
}

impl Stamp {
    fn of(meta: &fs::Metadata) -> Self {
        Self {
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

fn stamp(path: &Path) -> io::Result<Option<Stamp>> {
    match fs::metadata(path) {
        Ok(meta) => Ok(meta.is_file().then(|| Stamp::of(&meta))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn hash(path: &Path) -> io::Result<Checksum> {
    let (mut file, mut digest) = (fs::File::open(path)?, Sha256::new());
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let read = file.read(&mut chunk)?;
        let Some(read) = chunk.get(..read).filter(|read| !read.is_empty()) else { break };
        digest.update(read);
    }
    Checksum::from_hex(&hex::encode(digest.finalize())).map_err(io::Error::other)
}

fn signature(path: &Path) -> io::Result<Option<String>> {
    let mut name = path.as_os_str().to_owned();
    name.push(SIGNATURE_SUFFIX);
    match fs::File::open(name) {
        Ok(file) => {
            let mut text = String::new();
            file.take(MAX_SIGNATURE_BYTES).read_to_string(&mut text)?;
            Ok(Some(text))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAEMON: ReleaseFile = ReleaseFile::Daemon(Platform::LinuxAmd64);

    fn version() -> ReleaseVersion {
        "v1.0.0".parse().unwrap()
    }

    #[test]
    fn a_release_file_is_one_of_a_few_names() {
        for name in ["linux-amd64", "aio-installer-linux-arm64"] {
            assert_eq!(name.parse::<ReleaseFile>().unwrap().to_string(), name);
        }
        for name in
            ["", "aio-installer-", "linux-amd64.minisig", "../linux-amd64", "aio-installer-aio-installer-"]
        {
            assert!(name.parse::<ReleaseFile>().is_err(), "{name}");
        }
    }

    #[tokio::test]
    async fn a_file_is_hashed_once_and_again_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let releases = Releases::new(Some(folder.path().to_owned()), Published::new());
        assert_eq!(releases.find(&version(), DAEMON).await.unwrap(), None);

        let file = folder.path().join("v1.0.0/linux-amd64");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "abc").unwrap();
        let first = releases.find(&version(), DAEMON).await.unwrap().unwrap();
        assert_eq!(
            first.checksum.hex(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "the SHA-256 of `abc`"
        );
        assert_eq!((first.size, first.signature), (3, None));
        assert_eq!(releases.survey().await.unwrap(), 1);

        fs::write(&file, "abd").unwrap();
        fs::write(folder.path().join("v1.0.0/linux-amd64.minisig"), "untrusted comment: x").unwrap();
        let second = releases.find(&version(), DAEMON).await.unwrap().unwrap();
        assert_ne!(second.checksum, first.checksum);
        assert_eq!(second.signature.as_deref(), Some("untrusted comment: x"));

        fs::remove_file(&file).unwrap();
        assert_eq!(releases.find(&version(), DAEMON).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_the_configuration_pins_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("v1.0.0")).unwrap();
        fs::write(folder.path().join("v1.0.0/linux-amd64"), "abc").unwrap();
        let pinned = PublishedFile {
            checksum: Checksum::from_hex(&"a".repeat(64)).unwrap(),
            size: 9,
            signature: None,
        };
        let elsewhere = Published::from([(version(), [(DAEMON, pinned.clone())].into())]);
        let releases = Releases::new(Some(folder.path().to_owned()), elsewhere);
        assert_eq!(releases.find(&version(), DAEMON).await.unwrap(), Some(pinned));
    }
}
