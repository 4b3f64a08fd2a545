//! Durable files: after a function returns, its effect survives a power cut; before, the old state does.
//! Does not decide what is written where. A path has one writer at a time: its callers see to that.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use aio_protocol::{error_code::ErrorCode, failure::Failure};

/// What the system refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {tried} {}", path.display())]
pub struct FileError {
    /// The file or folder.
    pub path: PathBuf,
    /// What was tried on it: a verb, with its object where one is needed.
    pub tried: &'static str,
    /// The system's reason.
    pub source: io::Error,
}

impl FileError {
    /// For `map_err`: the error of having `tried` something on `path`.
    pub fn on(path: &Path, tried: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { path: path.to_owned(), tried, source }
    }

    /// Whether this user may not do it.
    pub fn is_permission(&self) -> bool {
        self.source.kind() == ErrorKind::PermissionDenied
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::caused(ErrorCode::of_io(error.source.kind()), &error)
    }
}

/// A file in the making, beside the one that it will replace. Dropped without
/// [`commit`](Self::commit), it vanishes.
///
/// Its name is fixed (`.NAME.new`), so that what a killed process leaves is overwritten by the next
/// try or removed by [`remove_file`], and never piles up.
#[derive(Debug)]
pub struct StagedFile {
    target: PathBuf,
    stage: PathBuf,
    file: File,
    committed: bool,
}

impl StagedFile {
    /// An empty file, which nobody else can read yet, beside `target`.
    pub fn beside(target: &Path) -> Result<Self, FileError> {
        let stage = stage_of(target)?;
        clear(&stage)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&stage)
            .map_err(FileError::on(&stage, "create"))?;
        Ok(Self { target: target.to_owned(), stage, file, committed: false })
    }

    /// Where the bytes are until the file is committed.
    pub fn path(&self) -> &Path {
        &self.stage
    }

    /// Adds bytes.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.file.write_all(bytes).map_err(FileError::on(&self.stage, "write"))
    }

    /// Gives the file its mode and its name, durably.
    pub fn commit(mut self, mode: u32) -> Result<(), FileError> {
        self.file
            .set_permissions(Permissions::from_mode(mode))
            .map_err(FileError::on(&self.stage, "set the mode of"))?;
        self.file.sync_all().map_err(FileError::on(&self.stage, "write"))?;
        fs::rename(&self.stage, &self.target).map_err(FileError::on(&self.target, "replace"))?;
        self.committed = true;
        sync_parent(&self.target)
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if !self.committed {
            // A failure leaves what a kill would have left, and the next try clears it.
            let _ = fs::remove_file(&self.stage);
        }
    }
}

/// Makes `path` a file of these bytes and this mode, whatever file or link was there.
pub fn replace_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let mut staged = StagedFile::beside(path)?;
    staged.append(bytes)?;
    staged.commit(mode)
}

/// Makes `path` a symbolic link to `target`, whatever file or link was there. At no moment is there nothing.
pub fn replace_link(path: &Path, target: &Path) -> Result<(), FileError> {
    let stage = stage_of(path)?;
    clear(&stage)?;
    std::os::unix::fs::symlink(target, &stage).map_err(FileError::on(&stage, "create the link"))?;
    if let Err(source) = fs::rename(&stage, path) {
        let _ = fs::remove_file(&stage);
        return Err(FileError::on(path, "replace")(source));
    }
    sync_parent(path)
}

/// The folders that [`create_dir`] would have to create for `path`, outermost first.
pub fn missing_dirs(path: &Path) -> Vec<PathBuf> {
    let missing = path.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !exists(dir));
    let mut missing: Vec<_> = missing.map(Path::to_owned).collect();
    missing.reverse();
    missing
}

/// Makes `path` a folder, its missing parents too, and returns those that it created, outermost
/// first; each has exactly this mode. When it fails, it has removed again what it created.
pub fn create_dir(path: &Path, mode: u32) -> Result<Vec<PathBuf>, FileError> {
    let mut created = Vec::new();
    for dir in missing_dirs(path) {
        match create_one_dir(&dir, mode) {
            Ok(true) => created.push(dir),
            // Somebody else has made it since, and it is theirs.
            Ok(false) => {}
            Err(error) => {
                for dir in created.iter().rev() {
                    let _ = fs::remove_dir(dir);
                }
                return Err(error);
            }
        }
    }
    let is_dir = fs::metadata(path).map_err(FileError::on(path, "create the folder"))?.is_dir();
    if !is_dir {
        return Err(FileError::on(path, "create the folder")(ErrorKind::NotADirectory.into()));
    }
    Ok(created)
}

/// Returns whether there was none before. What it could not finish it has removed again.
fn create_one_dir(dir: &Path, mode: u32) -> Result<bool, FileError> {
    match fs::DirBuilder::new().mode(mode).create(dir) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
        created => created.map_err(FileError::on(dir, "create the folder"))?,
    }
    // The umask may have taken bits away.
    let finished = fs::set_permissions(dir, Permissions::from_mode(mode))
        .map_err(FileError::on(dir, "set the mode of"))
        .and_then(|()| sync_dir(dir))
        .and_then(|()| sync_parent(dir));
    if finished.is_err() {
        let _ = fs::remove_dir(dir);
    }
    finished.map(|()| true)
}

/// Gives a file or folder its owner and mode. Follows a link.
pub fn own(path: &Path, uid: u32, gid: u32, mode: u32) -> Result<(), FileError> {
    let metadata = path.symlink_metadata().map_err(FileError::on(path, "read"))?;
    if (metadata.uid(), metadata.gid()) == (uid, gid) {
        return Ok(());
    }
    std::os::unix::fs::chown(path, Some(uid), Some(gid)).map_err(FileError::on(path, "set the owner of"))?;
    // A change of owner takes setuid and setgid bits away.
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(FileError::on(path, "set the mode of"))
}

/// Gives a file another name in the same folder, in place of whatever file or link was there.
pub fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::rename(from, to).map_err(FileError::on(to, "replace"))?;
    sync_parent(to)
}

/// Removes a file or link, and what a killed replacement left beside it. Returns whether there was one.
pub fn remove_file(path: &Path) -> Result<bool, FileError> {
    clear(&stage_of(path)?)?;
    let removed = clear(path)?;
    if removed {
        sync_parent(path)?;
    }
    Ok(removed)
}

/// Removes a folder unless there is something in it. Returns whether it did.
pub fn remove_dir_if_empty(path: &Path) -> Result<bool, FileError> {
    match fs::remove_dir(path) {
        Ok(()) => sync_parent(path).map(|()| true),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => Ok(false),
        Err(source) => Err(FileError::on(path, "remove the folder")(source)),
    }
}

/// Makes the names in a folder durable.
pub fn sync_dir(path: &Path) -> Result<(), FileError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(FileError::on(path, "sync the folder"))
}

/// More files and folders than an installation creates.
const INSTALLATION_INODES: u64 = 64;

/// A file system, as far as it matters to whoever puts programs there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSystem {
    /// Bytes that this user can still write.
    pub free_bytes: u64,
    /// Files that can still be created; none where the file system has no fixed number of inodes.
    pub free_inodes: Option<u64>,
    /// Whether programs on it may run: it is not mounted with `noexec`.
    pub runs_programs: bool,
}

impl FileSystem {
    /// The one where `path` is or would be.
    pub fn of(path: &Path) -> Result<Self, FileError> {
        let existing = path.ancestors().find(|dir| exists(dir)).unwrap_or(Path::new("."));
        let stat = rustix::fs::statvfs(existing)
            .map_err(io::Error::from)
            .map_err(FileError::on(existing, "ask for the free space of"))?;
        Ok(Self {
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            free_inodes: (stat.f_files > 0).then_some(stat.f_favail),
            runs_programs: !stat.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC),
        })
    }

    /// What is missing for an installation of so many bytes: how much is needed, how much there is,
    /// and of what.
    pub fn lacks(&self, bytes: u64) -> Option<(u64, u64, &'static str)> {
        let inodes = self.free_inodes.unwrap_or(u64::MAX);
        if self.free_bytes < bytes {
            Some((bytes, self.free_bytes, "bytes"))
        } else {
            (inodes < INSTALLATION_INODES).then_some((INSTALLATION_INODES, inodes, "inodes"))
        }
    }
}

/// A dangling link exists, too: a folder cannot be created in its place.
fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn stage_of(path: &Path) -> Result<PathBuf, FileError> {
    let name =
        path.file_name().ok_or_else(|| FileError::on(path, "replace")(ErrorKind::InvalidInput.into()))?;
    let mut stage = std::ffi::OsString::from(".");
    stage.push(name);
    stage.push(".new");
    Ok(path.with_file_name(stage))
}

fn clear(path: &Path) -> Result<bool, FileError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(source) => Err(FileError::on(path, "remove")(source)),
    }
}

fn sync_parent(path: &Path) -> Result<(), FileError> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => sync_dir(Path::new(".")),
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn mode(path: &Path) -> u32 {
        path.symlink_metadata().unwrap().mode() & 0o7777
    }

    #[test]
    fn a_replaced_file_has_the_new_bytes_and_mode_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "an older and much longer text").unwrap();
        // Left by a killed process.
        fs::write(dir.path().join(".token.new"), "torn").unwrap();
        replace_file(&path, b"new", 0o640).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(mode(&path), 0o640);
        assert_eq!(names(dir.path()), ["token"]);
    }

    #[test]
    fn a_file_in_the_making_is_private_and_vanishes_unless_committed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("worker");
        replace_file(&path, b"old", 0o755).unwrap();
        let mut staged = StagedFile::beside(&path).unwrap();
        staged.append(b"half of").unwrap();
        assert_eq!(mode(staged.path()), 0o600);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        drop(staged);
        assert_eq!(names(dir.path()), ["worker"]);
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }

    #[test]
    fn a_replacement_never_writes_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, path) = (dir.path().join("victim"), dir.path().join("config"));
        fs::write(&victim, "untouched").unwrap();
        replace_link(&path, &victim).unwrap();
        replace_file(&path, b"new", 0o600).unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"untouched");
        assert!(path.symlink_metadata().unwrap().is_file());
    }

    #[test]
    fn a_link_is_switched_to_a_new_target_even_when_the_old_one_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("current");
        replace_link(&path, Path::new("1.0.0")).unwrap();
        replace_link(&path, Path::new("1.0.1")).unwrap();
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("1.0.1"));
        assert_eq!(names(dir.path()), ["current"]);
    }

    #[test]
    fn a_link_does_not_replace_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("current");
        fs::create_dir(&path).unwrap();
        replace_link(&path, Path::new("1.0.0")).unwrap_err();
        assert_eq!(names(dir.path()), ["current"]);
        assert!(path.is_dir());
    }

    #[test]
    fn created_folders_are_told_outermost_first_and_have_the_mode() {
        let dir = tempfile::tempdir().unwrap();
        let (outer, inner) = (dir.path().join("a"), dir.path().join("a/b"));
        assert_eq!(missing_dirs(&inner), [outer.clone(), inner.clone()]);
        assert_eq!(create_dir(&inner, 0o777).unwrap(), [outer.clone(), inner.clone()]);
        assert_eq!((mode(&outer), mode(&inner)), (0o777, 0o777));
        assert_eq!(create_dir(&inner, 0o700).unwrap(), Vec::<PathBuf>::new());
        assert_eq!(mode(&inner), 0o777, "a folder that was there keeps its mode");
    }

    #[test]
    fn a_folder_cannot_be_made_of_a_file_and_nothing_is_left_of_the_try() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(create_dir(&file, 0o755).unwrap_err().source.kind(), ErrorKind::NotADirectory);
        create_dir(&file.join("below"), 0o755).unwrap_err();
        let long = dir.path().join("a").join("x".repeat(300));
        create_dir(&long, 0o755).unwrap_err();
        assert_eq!(names(dir.path()), ["file"]);
    }

    #[test]
    fn removing_is_done_once_and_a_filled_folder_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, file) = (dir.path().join("d"), dir.path().join("d/f"));
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "").unwrap();
        fs::write(folder.join(".f.new"), "left by a killed replacement").unwrap();
        assert!(!remove_dir_if_empty(&folder).unwrap());
        assert!(remove_file(&file).unwrap());
        assert!(!remove_file(&file).unwrap());
        assert!(remove_dir_if_empty(&folder).unwrap());
        assert!(!remove_dir_if_empty(&folder).unwrap());
    }

    #[test]
    fn free_space_is_that_of_the_nearest_folder_that_exists() {
        let dir = tempfile::tempdir().unwrap();
        assert!(FileSystem::of(&dir.path().join("not/there/yet")).unwrap().free_bytes > 0);
    }

    #[test]
    fn an_error_says_what_was_tried_and_answers_questions() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("no/file");
        let error = replace_file(&path, b"", 0o600).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot create {}", dir.path().join("no/.file.new").display()));

        let asked = |errno: Errno| {
            let error = FileError::on(&path, "write")(errno.into());
            (error.is_permission(), Failure::from(error).code)
        };
        assert_eq!(asked(Errno::NOSPC), (false, ErrorCode::DiskFull));
        assert_eq!(asked(Errno::DQUOT), (false, ErrorCode::DiskFull));
        assert_eq!(asked(Errno::ROFS), (false, ErrorCode::TargetReadOnly));
        assert_eq!(asked(Errno::ACCESS), (true, ErrorCode::FileFailed));
        assert_eq!(asked(Errno::PERM), (true, ErrorCode::FileFailed));
        assert_eq!(asked(Errno::IO), (false, ErrorCode::FileFailed));
    }

    #[test]
    fn a_full_disk_is_recognised_on_a_real_write() {
        let mut full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let error = full.write_all(b"x").map_err(FileError::on(Path::new("/dev/full"), "write")).unwrap_err();
        assert_eq!(Failure::from(error).code, ErrorCode::DiskFull);
    }
}
