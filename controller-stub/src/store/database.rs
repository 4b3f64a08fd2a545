//! The database: how it is opened, checked and closed. Rows are read over two pools, so that a question about
//! one node never waits for somebody's lists, and all changes go through one writer. What is read and changed
//! stands beside each table.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    str::FromStr,
    time::{Duration, Instant},
};

use reqwest::Url;
use sqlx::{
    AnyConnection, AnyPool, Connection, Executor, Row, any::AnyPoolOptions, migrate::Migrator,
    sqlite::SqliteConnectOptions,
};
use tokio::time::sleep;

use super::{
    error::{Problem, StoreError, problem},
    reserve::Reserve,
    shares::Shares,
    writer::Writer,
};
use crate::tasks::Pulses;

/// Connections that read single rows: the admission of workers among them.
const POINT_CONNECTIONS: u32 = 4;

/// Connections that read lists.
const LIST_CONNECTIONS: u32 = 4;

/// How long another process's lock is waited for, and a free connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a new database is tried again that another process sets up at the same moment.
const SETUP_INTERVAL: Duration = Duration::from_millis(50);

/// The tables, by the migration that makes each.
const TABLES: [(i64, &str); 21] = [
    (1, "settings"),
    (1, "nodes"),
    (1, "transitions"),
    (1, "tokens"),
    (1, "outbox"),
    (1, "inbox"),
    (2, "dead_letters"),
    (11, "audit"),
    (12, "idempotency"),
    (21, "sightings"),
    (23, "rollouts"),
    (23, "rollout_nodes"),
    (23, "node_groups"),
    (30, "aiwm_nodes"),
    (40, "telemetry_nodes"),
    (40, "telemetry"),
    (41, "alarms"),
    (41, "silences"),
    (50, "sessions"),
    (50, "login_links"),
    (55, "told_healths"),
];

/// A damaged database up to this size is found by `check`; a larger one would take too long to read.
const MAX_CHECKED_BYTES: u64 = 1024 * 1024 * 1024;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// The store. Clones share it.
#[derive(Clone)]
pub(crate) struct Store {
    /// For single rows.
    pub(super) pool: AnyPool,
    /// For lists, behind `shares`.
    pub(super) lists: AnyPool,
    /// An organisation's share of `lists`.
    pub(super) shares: Shares,
    pub(super) writer: Writer,
}

/// Where the database is: `controller.db` in the data folder unless a URL is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    url: String,
    file: PathBuf,
}

impl Place {
    /// The place that `url` names, or `controller.db` in `data_dir`.
    pub(crate) fn of(url: Option<&str>, data_dir: &Path) -> Result<Self, StoreError> {
        let url = match url {
            Some(url) => url.to_owned(),
            None => file_url(&data_dir.join("controller.db"))?,
        };
        let options = SqliteConnectOptions::from_str(&url).map_err(|_| StoreError::Place(url.clone()))?;
        let file = options.get_filename().to_owned();
        // As sqlx names a database in memory, of which every connection would have its own.
        if file.as_os_str().as_encoded_bytes().starts_with(b"file:sqlx-in-memory")
            || file == Path::new(":memory:")
        {
            return Err(StoreError::Place(format!("{url} is a database in memory")));
        }
        Ok(Self { url, file })
    }

    /// Makes this process the one that serves the database, until the file is dropped. Commands
    /// need no such right.
    pub(crate) fn serve(&self) -> Result<File, StoreError> {
        let path = &self.file;
        self.keep_private()?;
        // A lock on the database's own file would end when SQLite closes it.
        let mut lock = path.canonicalize().map_err(|source| unusable(path, source))?.into_os_string();
        lock.push(".lock");
        let lock = PathBuf::from(lock);
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock);
        let file = file.map_err(|source| unusable(&lock, source))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(StoreError::Served(path.clone())),
            Err(TryLockError::Error(source)) => Err(unusable(&lock, source)),
        }
    }

    /// Makes the files unreadable to others, whatever the umask and whoever made them. SQLite's own
    /// files take after the first.
    fn keep_private(&self) -> Result<(), StoreError> {
        let path = &self.file;
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
}

impl Store {
    /// Opens the database, making it when it is not there.
    pub(crate) async fn open(place: &Place) -> Result<Self, StoreError> {
        Self::open_with(place, Reserve::beside(&place.file), &Pulses::default()).await
    }

    /// Opens the database as its server, which keeps room for revocations.
    pub(crate) async fn open_as_server(place: &Place, pulses: &Pulses) -> Result<Self, StoreError> {
        let mut reserve = Reserve::beside(&place.file);
        reserve.hold();
        Self::open_with(place, reserve, pulses).await
    }

    async fn open_with(place: &Place, reserve: Reserve, pulses: &Pulses) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        place.keep_private()?;
        // A pool would try an unusable database again and again, and then say that it was slow.
        set_up(place).await?;
        let options = AnyPoolOptions::new()
            .acquire_timeout(PATIENCE)
            .after_connect(|connection, _| Box::pin(prepare(connection)));
        let pool = |connections| options.clone().max_connections(connections).connect(&place.url);
        let store = Self {
            pool: pool(POINT_CONNECTIONS).await?,
            lists: pool(LIST_CONNECTIONS).await?,
            shares: Shares::new(LIST_CONNECTIONS / 2),
            writer: Writer::start(pool(1).await?, Some(reserve), pulses.add("writer")),
        };
        store.fill_name_keys().await?;
        Ok(store)
    }

    /// Says why a server could not open the database. Changes nothing.
    pub(crate) async fn check(place: &Place) -> Result<(), StoreError> {
        let path = &place.file;
        let size = match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => metadata.len(),
            Ok(_) => return Err(no_file(path)),
            // The first start makes it, but not through a link that leads nowhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => return Ok(()),
            Err(source) => return Err(unusable(path, source)),
        };
        sqlx::any::install_default_drivers();
        let url = file_url(path)?.replace("?mode=rwc", "?mode=ro");
        let mut connection = AnyConnection::connect(&url).await?;
        recognise(&mut connection, path).await?;
        if size <= MAX_CHECKED_BYTES {
            let verdict = sqlx::query("PRAGMA quick_check(1)").fetch_one(&mut connection).await?;
            let verdict: String = verdict.try_get(0)?;
            if verdict != "ok" {
                return Err(damaged(verdict));
            }
        }
        Ok(connection.close().await?)
    }

    /// Waits until no more is written, which but for `close` is a fault.
    pub(crate) async fn writer_ended(&self) {
        self.writer.ended().await;
    }

    /// Writes what waits and closes every connection, so that nothing is left to recover.
    pub(crate) async fn close(&self) {
        self.writer.close().await;
        self.pool.close().await;
        self.lists.close().await;
    }
}

/// What every connection keeps to: a commit is on the disk when it returns, another process that
/// writes is waited for, and the log of writes shrinks again.
async fn prepare(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    let pragmas = "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
                   PRAGMA journal_size_limit = 4194304;";
    connection.execute(pragmas).await.map(drop)
}

/// Brings the database up to date. SQLite has no lock to hold over migrations: of two processes
/// that start on a new database at once, the slower may fail at each of them once, and on its next
/// try finds that one done.
async fn set_up(place: &Place) -> Result<(), StoreError> {
    let began = Instant::now();
    let mut tries = MIGRATIONS.iter().count();
    loop {
        let Err(error) = migrate(place).await else { return Ok(()) };
        let again = match error.problem() {
            Problem::Busy => began.elapsed() < PATIENCE,
            Problem::Fault if matches!(error, StoreError::Migration(_)) => tries > 0,
            _ => false,
        };
        if !again {
            return Err(error);
        }
        tries = tries.saturating_sub(1);
        sleep(SETUP_INTERVAL).await;
    }
}

async fn migrate(place: &Place) -> Result<(), StoreError> {
    let mut connection = AnyConnection::connect(&place.url).await?;
    recognise(&mut connection, &place.file).await?;
    prepare(&mut connection).await?;
    MIGRATIONS.run_direct(None, &mut connection, false).await.map_err(StoreError::Migration)?;
    Ok(connection.close().await?)
}

/// Refuses a database of another program, of a later version, or of which a part is gone.
async fn recognise(connection: &mut AnyConnection, path: &Path) -> Result<(), StoreError> {
    let tables = sqlx::query("SELECT name FROM sqlite_master WHERE type = 'table'")
        .fetch_all(&mut *connection)
        .await?;
    let tables = tables.iter().map(|row| row.try_get(0)).collect::<Result<HashSet<String>, _>>()?;
    if tables.is_empty() {
        return Ok(());
    }
    let foreign = || StoreError::Foreign(path.to_owned());
    let applied = sqlx::query(
        "SELECT version, CAST(success AS INTEGER), HEX(checksum) FROM _sqlx_migrations ORDER BY version",
    )
    .fetch_all(&mut *connection)
    .await
    .map_err(|error| if problem(&error) == Problem::Fault { foreign() } else { error.into() })?;
    let mut newest = 0;
    for row in &applied {
        let (version, done) = (row.try_get::<i64, _>("version")?, row.try_get::<i64, _>(1)? != 0);
        match MIGRATIONS.iter().find(|migration| migration.version == version) {
            Some(ours) if row.try_get::<String, _>(2)? != hex::encode_upper(&ours.checksum) => {
                return Err(foreign());
            }
            Some(_) if !done => return Err(damaged(format!("migration {version} has not ended"))),
            Some(_) => {}
            // What begins with our first migration was ours once.
            None if newest == 0 => return Err(foreign()),
            None => {
                let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0);
                return Err(StoreError::Newer { found: version, known });
            }
        }
        newest = version;
    }
    let missing = TABLES.iter().find(|(since, table)| *since <= newest && !tables.contains(*table));
    missing.map_or(Ok(()), |(_, table)| Err(damaged(format!("the table `{table}` is missing"))))
}

fn damaged(how: String) -> StoreError {
    StoreError::Corrupt { what: "the file", source: how.into() }
}

fn no_file(path: &Path) -> StoreError {
    unusable(path, io::Error::other("it is no regular file"))
}

fn unusable(path: &Path, source: io::Error) -> StoreError {
    StoreError::File { path: path.to_owned(), source }
}

/// The database of a file, whatever characters its path has.
fn file_url(path: &Path) -> Result<String, StoreError> {
    let unusable = || StoreError::Place(path.display().to_string());
    let path_text = std::path::absolute(path).map_err(|_| unusable())?;
    let url = Url::from_file_path(path_text).map_err(|()| unusable())?;
    Ok(format!("sqlite://{}?mode=rwc", url.path()))
}

#[cfg(test)]
mod tests;
