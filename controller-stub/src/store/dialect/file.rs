//! A database of SQLite's: its file, which is private and served by one process, and what a connection to it
//! keeps to.

use std::{
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    str::FromStr,
};

use reqwest::Url;
use sqlx::{AnyConnection, Connection, Executor, Row, any::AnyConnectOptions, sqlite::SqliteConnectOptions};

use super::{damaged, unusable};
use crate::store::error::StoreError;

/// Takes SQLite's write lock at once: a transaction that first reads and then writes could
/// otherwise fail half-way.
pub(super) const BEGIN: &str = "BEGIN IMMEDIATE";

/// Connections that read single rows, and as many that read lists.
pub(super) const READERS: u32 = 4;

/// A damaged database up to this size is found by `check`; a larger one would take too long to read.
const MAX_CHECKED_BYTES: u64 = 1024 * 1024 * 1024;

/// The file of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DatabaseFile {
    url: String,
    path: PathBuf,
}

impl DatabaseFile {
    pub(super) fn named(url: &str) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::from_str(url).map_err(|_| StoreError::Place(url.to_owned()))?;
        let path = options.get_filename().to_owned();
        // As sqlx names a database in memory, of which every connection would have its own.
        if path.as_os_str().as_encoded_bytes().starts_with(b"file:sqlx-in-memory")
            || path == Path::new(":memory:")
        {
            return Err(StoreError::Place(format!("{url} is a database in memory")));
        }
        Ok(Self { url: url.to_owned(), path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn options(&self) -> Result<AnyConnectOptions, StoreError> {
        Ok(self.url.parse()?)
    }

    /// Keeps other servers out until the file is dropped.
    pub(super) fn lock(&self) -> Result<File, StoreError> {
        let path = &self.path;
        self.keep_private()?;
        // A lock on the database's own file would end when SQLite closes it.
        let mut lock = path.canonicalize().map_err(|source| unusable(path, source))?.into_os_string();
        lock.push(".lock");
        let lock = PathBuf::from(lock);
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock);
        let file = file.map_err(|source| unusable(&lock, source))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(StoreError::Served(path.display().to_string())),
            Err(TryLockError::Error(source)) => Err(unusable(&lock, source)),
        }
    }

    /// Makes the files unreadable to others, whatever the umask and whoever made them. SQLite's own
    /// files take after the first.
    pub(super) fn keep_private(&self) -> Result<(), StoreError> {
        let path = &self.path;
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(unusable(path, source)),
        }
        if !fs::metadata(path).map_err(|source| unusable(path, source))?.is_file() {
            return Err(no_file(path));
        }
        for suffix in ["", "-wal", "-shm"] {
            let mut file = path.as_os_str().to_owned();
            file.push(suffix);
            let Ok(metadata) = fs::metadata(&file) else { continue };
            if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 {
                fs::set_permissions(&file, Permissions::from_mode(0o600))
                    .map_err(|source| unusable(Path::new(&file), source))?;
            }
        }
        Ok(())
    }

    /// A connection that only reads, and the file's size; none where there is no file yet.
    pub(super) async fn open_to_check(&self) -> Result<Option<(AnyConnection, u64)>, StoreError> {
        let path = &self.path;
        let size = match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => metadata.len(),
            Ok(_) => return Err(no_file(path)),
            // The first start makes it, but not through a link that leads nowhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => return Ok(None),
            Err(source) => return Err(unusable(path, source)),
        };
        let url = url(path)?.replace("?mode=rwc", "?mode=ro");
        Ok(Some((AnyConnection::connect(&url).await?, size)))
    }
}

/// A commit is on the disk when it returns, another process that writes is waited for, the log of writes shrinks
/// again, and a connection keeps half a MiB of pages: the system has them all.
pub(super) async fn prepare(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    let pragmas = "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
                   PRAGMA journal_size_limit = 4194304; PRAGMA cache_size = -512;";
    connection.execute(pragmas).await.map(drop)
}

pub(super) async fn check(connection: &mut AnyConnection, size: u64) -> Result<(), StoreError> {
    if size > MAX_CHECKED_BYTES {
        return Ok(());
    }
    let verdict = sqlx::query("PRAGMA quick_check(1)").fetch_one(connection).await?;
    let verdict: String = verdict.try_get(0)?;
    if verdict == "ok" { Ok(()) } else { Err(damaged(verdict)) }
}

fn no_file(path: &Path) -> StoreError {
    unusable(path, io::Error::other("it is no regular file"))
}

/// The database of a file, whatever characters its path has.
pub(super) fn url(path: &Path) -> Result<String, StoreError> {
    let unusable = || StoreError::Place(path.display().to_string());
    let path_text = std::path::absolute(path).map_err(|_| unusable())?;
    let url = Url::from_file_path(path_text).map_err(|()| unusable())?;
    Ok(format!("sqlite://{}?mode=rwc", url.path()))
}
