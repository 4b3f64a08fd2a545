//! One file that carries a release to machines which reach no release server: a tar archive of
//! `release.json` and the release file. Reads and writes it. A bundle vouches for nothing: what is
//! in it is verified like a download, by what the controller or a key says.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use aio_host::files::StagedFile;
use aio_protocol::{
    error_code::ErrorCode,
    release::{Platform, ReleaseManifest},
};
use tar::{Archive, Builder, Entry, EntryType, Header};
use tokio::task::yield_now;

use crate::{
    failure::Failure,
    release::verify::{Check, Promise},
};

/// A manifest has less than one KiB.
const MAX_MANIFEST_BYTES: u64 = 64 * 1024;

/// Between two pieces others may run: progress is shown and reported meanwhile.
const PIECE_BYTES: usize = 256 * 1024;

/// A bundle, of which the manifest was read.
#[derive(Debug, Clone)]
pub(crate) struct Bundle {
    pub(crate) path: PathBuf,
    pub(crate) release: ReleaseManifest,
}

impl Bundle {
    /// Reads what the bundle at `path` says of its release, and refuses one for another platform.
    pub(crate) fn open(path: &Path, platform: Platform) -> Result<Self, Failure> {
        let mut archive = Archive::new(open(path)?);
        let mut entries = archive.entries().map_err(|error| damaged(path, &error.to_string()))?;
        let manifest = next(path, &mut entries, ReleaseManifest::ENTRY)?;
        let release: ReleaseManifest =
            serde_json::from_reader(manifest.take(MAX_MANIFEST_BYTES)).map_err(|error| {
                damaged(path, &format!("its {} cannot be read: {error}", ReleaseManifest::ENTRY))
            })?;
        if release.platform != platform {
            let message =
                format!("{} is for {}, and this machine is {platform}", path.display(), release.platform);
            return Err(Failure::new(ErrorCode::ArchitectureMismatch, message));
        }
        Ok(Self { path: path.to_owned(), release })
    }

    /// Brings the release file into `into`, a new file that only root can read, if it is what was
    /// promised. `received` hears of every piece.
    pub(crate) async fn unpack(
        path: &Path,
        promise: &Promise,
        into: &Path,
        received: &impl Fn(u64),
    ) -> Result<(), Failure> {
        let mut archive = Archive::new(open(path)?);
        let mut entries = archive.entries().map_err(|error| damaged(path, &error.to_string()))?;
        next(path, &mut entries, ReleaseManifest::ENTRY)?;
        let release = next(path, &mut entries, promise.release.platform.as_str())?;
        pour(release, promise, into, received, |error| damaged(path, &error.to_string())).await
    }
}

/// Copies the program at `path` into `into`, a new file that only root can read, if it is what was
/// promised.
pub(crate) async fn copy(
    path: &Path,
    promise: &Promise,
    into: &Path,
    received: &impl Fn(u64),
) -> Result<(), Failure> {
    pour(open(path)?, promise, into, received, |error| Failure::io("read", path, &error)).await
}

async fn pour(
    mut release: impl Read,
    promise: &Promise,
    into: &Path,
    received: &impl Fn(u64),
    unreadable: impl Fn(io::Error) -> Failure,
) -> Result<(), Failure> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(into);
    let mut file = file.map_err(|error| Failure::io("create", into, &error))?;
    let mut check = Check::new(promise)?;
    let (mut piece, mut bytes) = (vec![0; PIECE_BYTES], 0);
    loop {
        let count = release.read(&mut piece).map_err(&unreadable)?;
        let Some(piece) = piece.get(..count).filter(|piece| !piece.is_empty()) else { break };
        check.update(piece)?;
        file.write_all(piece).map_err(|error| Failure::io("write", into, &error))?;
        bytes += count as u64;
        received(bytes);
        yield_now().await;
    }
    check.finish()?;
    file.sync_all().map_err(|error| Failure::io("write", into, &error))
}

/// Writes a bundle of the verified release at `file` to `to`, where nothing may be yet. The same
/// release gives the same bytes.
pub(crate) fn write(to: &Path, release: &ReleaseManifest, file: &Path) -> Result<(), Failure> {
    let staged = StagedFile::beside(to)?;
    let failed = |error: io::Error| Failure::io("write", to, &error);
    let out = OpenOptions::new().write(true).open(staged.path()).map_err(failed)?;
    let mut builder = Builder::new(out);
    let manifest = serde_json::to_vec_pretty(release).map_err(|error| failed(error.into()))?;
    builder
        .append_data(&mut header(manifest.len() as u64, 0o644), ReleaseManifest::ENTRY, &*manifest)
        .map_err(failed)?;
    builder
        .append_data(&mut header(release.size, 0o755), release.platform.as_str(), open(file)?)
        .map_err(failed)?;
    builder.finish().map_err(failed)?;
    Ok(staged.commit(0o644)?)
}

/// Without owner and time: they say nothing of a release.
fn header(size: u64, mode: u32) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(mode);
    header.set_size(size);
    header
}

fn open(path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(|error| Failure::io("read", path, &error))
}

/// The next entry, which must be the file called `name`.
fn next<'a>(
    path: &Path,
    entries: &mut impl Iterator<Item = io::Result<Entry<'a, File>>>,
    name: &str,
) -> Result<Entry<'a, File>, Failure> {
    let entry = entries.next().ok_or_else(|| damaged(path, &format!("it has no {name}")))?;
    let entry = entry.map_err(|error| damaged(path, &error.to_string()))?;
    let is_it = entry.path_bytes().as_ref() == name.as_bytes() && entry.header().entry_type().is_file();
    if is_it { Ok(entry) } else { Err(damaged(path, &format!("its {name} is not where it must be"))) }
}

fn damaged(path: &Path, reason: &str) -> Failure {
    let message = format!("{} is no bundle of a release: {reason}", path.display());
    Failure::new(ErrorCode::BundleInvalid, message).with("path", path.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::release::verify::tests::{program, release_of};

    fn made(folder: &Path) -> (PathBuf, Vec<u8>) {
        let (to, file, bytes) = (folder.join("x.tar"), folder.join("program"), program(&[7; 300_000]));
        fs::write(&file, &bytes).unwrap();
        write(&to, &release_of(&bytes), &file).unwrap();
        fs::remove_file(file).unwrap();
        (to, bytes)
    }

    async fn unpacked(path: &Path) -> Result<Vec<u8>, ErrorCode> {
        let bundle = Bundle::open(path, Platform::LinuxAmd64).map_err(|failure| failure.code)?;
        let promise = Promise::of(bundle.release, "the bundle", None).unwrap();
        let into = path.with_extension("out");
        let unpacked = Bundle::unpack(path, &promise, &into, &|_| {}).await;
        unpacked.map(|()| fs::read(&into).unwrap()).map_err(|failure| failure.code)
    }

    #[tokio::test]
    async fn what_was_bundled_is_unpacked_and_the_same_release_is_the_same_bundle() {
        let folder = tempfile::tempdir().unwrap();
        let (path, bytes) = made(folder.path());
        assert_eq!(unpacked(&path).await, Ok(bytes));
        let first = fs::read(&path).unwrap();
        assert_eq!(first, fs::read(made(folder.path()).0).unwrap());
        assert_eq!(
            Bundle::open(&path, Platform::LinuxArm64).unwrap_err().code,
            ErrorCode::ArchitectureMismatch
        );
    }

    #[tokio::test]
    async fn a_bundle_that_is_cut_off_or_changed_is_never_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let (path, _) = made(folder.path());
        let whole = fs::read(&path).unwrap();
        for cut in [0, 100, 512, 600, 1024, 1500, 2048, 100_000, 301_000] {
            fs::write(&path, &whole[..cut]).unwrap();
            let code = unpacked(&path).await.unwrap_err();
            assert!(matches!(code, ErrorCode::BundleInvalid | ErrorCode::SizeMismatch), "{cut}: {code}");
        }
        let mut changed = whole.clone();
        changed[200_000] = 8;
        fs::write(&path, &changed).unwrap();
        assert_eq!(unpacked(&path).await, Err(ErrorCode::ChecksumMismatch));
        fs::write(&path, "an archive of something else").unwrap();
        assert_eq!(unpacked(&path).await, Err(ErrorCode::BundleInvalid));
        assert_eq!(unpacked(&folder.path().join("none")).await, Err(ErrorCode::FileFailed));
    }
}
