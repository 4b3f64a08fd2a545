//! Brings a release from the daemon's folder to the others: copied by descriptor, never following a
//! link, and verified as root's own copy. Nothing that the daemon's user does meanwhile changes what
//! is verified. Runs nothing of it, and switches nothing.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use aio_host::{
    files::{self, FileSystem},
    layout::{Layout, UPDATE_INBOX},
};
use aio_protocol::{
    error_code::ErrorCode,
    release::{
        Checksum, Platform, ReleaseManifest, ReleaseVersion,
        folder::{FileEntry, FolderManifest, MANIFEST, SIGNATURE_SUFFIX, is_file_name},
        index::{INDEX, MAX_INDEX_BYTES},
    },
    time::Timestamp,
};
use rustix::fs::{Mode, OFlags, open, openat};
use uuid::Uuid;

use super::trust::{Seen, Trust};
use crate::{
    failure::Failure,
    release::verify::{Check, Promise, checksum},
    shipped,
};

/// A manifest names a few dozen files.
const MAX_MANIFEST_BYTES: u64 = 1024 * 1024;

/// A signature is four lines.
const MAX_SIGNATURE_BYTES: u64 = 4096;

/// A unit is a page.
const MAX_UNIT_BYTES: u64 = 64 * 1024;

/// So much is read at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// What is to be staged.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) update: Uuid,
    pub(super) version: &'a ReleaseVersion,
    pub(super) manifest: &'a Checksum,
    pub(super) index_serial: u64,
    /// What runs now.
    pub(super) present: &'a ReleaseVersion,
    /// What ran before.
    pub(super) previous: Option<&'a ReleaseVersion>,
    pub(super) platform: Platform,
    pub(super) now: Timestamp,
}

/// Verifies what the daemon has brought, and puts it into the folder of staged releases. What was
/// seen of the index with it is for the caller to keep.
pub(super) fn stage(layout: &Layout, trust: &Trust, wanted: &Wanted<'_>) -> Result<Seen, Failure> {
    let inbox = Inbox::open(layout, wanted.update)?;
    let index = inbox.read(INDEX, MAX_INDEX_BYTES)?;
    let signature = inbox.text(&format!("{INDEX}{SIGNATURE_SUFFIX}"), MAX_SIGNATURE_BYTES)?;
    let believed = trust.believe(&index, &signature, wanted.now)?;
    if believed.index.serial != wanted.index_serial {
        let (asked, there) = (wanted.index_serial, believed.index.serial);
        let message = format!("the index of serial {asked} was to be used, and {there} is there");
        return Err(Failure::new(ErrorCode::UpdateInvalid, message));
    }
    believed.release(wanted.version, wanted.manifest, wanted.present, wanted.previous, wanted.now)?;

    let manifest = inbox.manifest(wanted)?;
    let name = wanted.platform.as_str();
    let Some(program) = manifest.files.get(name) else {
        let message = format!("{} was not published for {name}", wanted.version);
        return Err(Failure::new(ErrorCode::ReleaseNotFound, message));
    };
    let signature = inbox.text(&format!("{name}{SIGNATURE_SUFFIX}"), MAX_SIGNATURE_BYTES)?;
    let key = trust.key_of(&signature).ok_or_else(|| {
        let message = format!("{name} of {} is signed with a key that is not believed", wanted.version);
        Failure::new(ErrorCode::SignatureForeign, message)
    })?;
    let promise = Promise::of(promised(wanted, program, signature.clone()), &inbox.origin(name), Some(key))?;
    ensure_room(layout, program.size)?;

    let staged = layout.staged_release();
    discard(layout)?;
    let units = staged.join(shipped::UNITS);
    files::create_dir(&units, 0o755)?;
    let outcome = inbox.copy(name, &promise, &staged.join(shipped::BINARY)).and_then(|()| {
        for (name, entry) in manifest.files.iter().filter(|(name, _)| shipped::is_unit(name)) {
            let bytes = inbox.read(name, MAX_UNIT_BYTES)?;
            if checksum(&bytes) != entry.sha256 {
                return Err(other_file(&inbox.origin(name), &entry.sha256, &checksum(&bytes)));
            }
            files::replace_file(&units.join(name), &bytes, shipped::UNIT_MODE)?;
        }
        Ok(files::sync_dir(&staged)?)
    });
    if let Err(failure) = outcome {
        // What is half there is of no use; that it cannot be removed is no news.
        let _ = discard(layout);
        return Err(failure);
    }
    Ok(believed.into_seen())
}

/// Removes what was staged.
pub(super) fn discard(layout: &Layout) -> Result<(), Failure> {
    let staged = layout.staged_release();
    match fs::remove_dir_all(&staged) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::io("remove the folder", &staged, &error))
        }
        _ => Ok(()),
    }
}

fn promised(wanted: &Wanted<'_>, program: &FileEntry, signature: String) -> ReleaseManifest {
    ReleaseManifest {
        version: wanted.version.clone(),
        platform: wanted.platform,
        checksum: program.sha256.clone(),
        size: program.size,
        signature: Some(signature),
    }
}

/// Twice the program: room to spare for logs and state.
fn ensure_room(layout: &Layout, size: u64) -> Result<(), Failure> {
    let file_system = FileSystem::of(&layout.releases())?;
    let path = layout.releases().display().to_string();
    if !file_system.runs_programs {
        let message = format!("{path} is on a file system that is mounted with noexec");
        return Err(Failure::new(ErrorCode::TargetNoexec, message).with("path", path));
    }
    let Some((needed, available, what)) = file_system.lacks(size.saturating_mul(2)) else { return Ok(()) };
    let message = format!("{path} needs {needed} free {what}, and there are {available}");
    Err(Failure::new(ErrorCode::DiskFull, message).with("path", path))
}

fn other_file(origin: &str, expected: &Checksum, actual: &Checksum) -> Failure {
    let message = format!("{origin} is not the file that the manifest names: its checksum is {actual}");
    Failure::new(ErrorCode::ChecksumMismatch, message)
        .with("expected", expected.to_string())
        .with("actual", actual.to_string())
}

/// The folder that the daemon has filled for one update. Its user can write in it at any time.
struct Inbox {
    folder: OwnedFd,
    path: PathBuf,
}

impl Inbox {
    fn open(layout: &Layout, update: Uuid) -> Result<Self, Failure> {
        let path = layout.update_inbox().join(update.to_string());
        let failed = |error: rustix::io::Errno| Failure::io("open", &path, &error.into());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // The folder above is root's, so the first step is not the daemon's to turn elsewhere.
        let mut folder = open(layout.state_dir(), flags, Mode::empty()).map_err(failed)?;
        for name in [UPDATE_INBOX, &update.to_string()] {
            folder = openat(&folder, name, flags, Mode::empty()).map_err(failed)?;
        }
        Ok(Self { folder, path })
    }

    fn origin(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    /// A regular file of this name: no link, no pipe, no device.
    fn file(&self, name: &str) -> Result<File, Failure> {
        let path = self.path.join(name);
        if !is_file_name(name) {
            return Err(Failure::new(ErrorCode::ReleaseInvalid, format!("`{name}` is no name of a file")));
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&self.folder, name, flags, Mode::empty());
        let file = File::from(file.map_err(|error| Failure::io("open", &path, &error.into()))?);
        let metadata = file.metadata().map_err(|error| Failure::io("read", &path, &error))?;
        if metadata.is_file() {
            Ok(file)
        } else {
            Err(Failure::new(ErrorCode::ReleaseInvalid, format!("{} is no regular file", path.display())))
        }
    }

    fn read(&self, name: &str, most: u64) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let read = self.file(name)?.take(most + 1).read_to_end(&mut bytes);
        read.map_err(|error| Failure::io("read", &self.path.join(name), &error))?;
        if bytes.len() as u64 > most {
            let message = format!("{} has more than {most} bytes", self.origin(name));
            return Err(Failure::new(ErrorCode::SizeMismatch, message));
        }
        Ok(bytes)
    }

    fn text(&self, name: &str, most: u64) -> Result<String, Failure> {
        String::from_utf8(self.read(name, most)?).map_err(|_| {
            Failure::new(ErrorCode::SignatureInvalid, format!("{} is no text", self.origin(name)))
        })
    }

    fn manifest(&self, wanted: &Wanted<'_>) -> Result<FolderManifest, Failure> {
        let bytes = self.read(MANIFEST, MAX_MANIFEST_BYTES)?;
        let actual = checksum(&bytes);
        if actual != *wanted.manifest {
            return Err(other_file(&self.origin(MANIFEST), wanted.manifest, &actual));
        }
        let invalid = |message: String| Failure::new(ErrorCode::ReleaseInvalid, message);
        let manifest: FolderManifest = serde_json::from_slice(&bytes)
            .map_err(|error| invalid(format!("{} cannot be understood: {error}", self.origin(MANIFEST))))?;
        if manifest.version != *wanted.version {
            let (found, expected) = (&manifest.version, wanted.version);
            return Err(invalid(format!("{} is of {found}, and not of {expected}", self.origin(MANIFEST))));
        }
        Ok(manifest)
    }

    /// Copies the file called `name` to `into`, if the copy is what was promised.
    fn copy(&self, name: &str, promise: &Promise, into: &Path) -> Result<(), Failure> {
        let mut from = self.file(name)?;
        let to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(into);
        let mut to = to.map_err(|error| Failure::io("create", into, &error))?;
        let mut check = Check::new(promise)?;
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let count =
                from.read(&mut piece).map_err(|error| Failure::io("read", &self.path.join(name), &error))?;
            let Some(piece) = piece.get(..count).filter(|piece| !piece.is_empty()) else { break };
            check.update(piece)?;
            to.write_all(piece).map_err(|error| Failure::io("write", into, &error))?;
        }
        check.finish()?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(shipped::RELEASE_MODE);
        to.set_permissions(mode)
            .and_then(|()| to.sync_all())
            .map_err(|error| Failure::io("write", into, &error))
    }
}
