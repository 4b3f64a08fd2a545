//! Where the database is, and all in which SQLite and PostgreSQL differ: how it is named, opened, begun,
//! recognised and kept to one server. Every other statement is one text for both.

mod file;
mod server;

use std::{collections::HashSet, io, path::Path};

use secrecy::ExposeSecret;
use sqlx::{AnyConnection, Connection, Row, any::AnyConnectOptions, migrate::Migrator};
use tokio_util::sync::CancellationToken;

use self::{file::DatabaseFile, server::DatabaseServer};
use super::{
    error::{Problem, StoreError},
    membership::Membership,
    reserve::Reserve,
};
use crate::config::Config;

use server::{Member, Session};

/// The texts of the migrations for SQLite; those of PostgreSQL are made of them.
static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// The tables, by the migration that makes each.
const TABLES: [(i64, &str); 28] = [
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
    (56, "webhooks"),
    (56, "webhook_events"),
    (56, "webhook_attempts"),
    (57, "user_tokens"),
    (62, "controllers"),
    (62, "signals"),
    (64, "used_sign_ins"),
];

/// The tables, as they came.
pub(super) fn tables() -> impl Iterator<Item = &'static str> {
    TABLES.iter().map(|(_, table)| *table)
}

/// Where the database is: `controller.db` in the data folder unless a URL is configured.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// A file of SQLite's.
    File(DatabaseFile),
    /// A database of a PostgreSQL server.
    Server(DatabaseServer),
}

/// What makes a process the one that serves the database, or one of those that do, until it is dropped.
pub(crate) enum Serving {
    File { _lock: std::fs::File },
    Server(Session),
    Together(Member),
}

impl Serving {
    /// Begins a transaction that writes, which is refused once another process serves. The database is up to
    /// date.
    pub(super) async fn begin(&self) -> Result<String, StoreError> {
        match self {
            Self::File { .. } => Ok(file::BEGIN.to_owned()),
            Self::Server(session) => {
                Ok(format!("{}; SELECT refuse_unless_serving({})", server::BEGIN, session.claim().await?))
            }
            Self::Together(member) => {
                Ok(format!("{}; SELECT refuse_unless_member({})", server::BEGIN, member.join().await?))
            }
        }
    }

    /// Is cancelled once another process serves the database, or the others have taken this one for dead.
    pub(crate) fn taken(&self) -> CancellationToken {
        match self {
            Self::File { .. } => CancellationToken::new(),
            Self::Server(session) => session.taken(),
            Self::Together(member) => member.expelled(),
        }
    }

    /// Where this process stands among those that serve the database, once its store is open.
    pub(crate) fn membership(&self) -> Membership {
        match self {
            Self::File { .. } | Self::Server(_) => Membership::alone(),
            Self::Together(member) => member.membership(),
        }
    }

    /// Tells the others that this one is gone; nothing more is written.
    pub(crate) async fn leave(&self) -> Result<(), StoreError> {
        match self {
            Self::File { .. } | Self::Server(_) => Ok(()),
            Self::Together(member) => member.leave().await,
        }
    }
}

impl Place {
    /// The place that the configuration names.
    pub(crate) fn of(config: &Config) -> Result<Self, StoreError> {
        match &config.database_url {
            None => Self::in_folder(&config.data_dir),
            Some(url) if server::is_named_by(url) => DatabaseServer::of(url, config).map(Self::Server),
            Some(url) => DatabaseFile::named(url.expose_secret()).map(Self::File),
        }
    }

    /// The file that a folder has when nothing else is configured.
    pub(crate) fn in_folder(folder: &Path) -> Result<Self, StoreError> {
        DatabaseFile::named(&file::url(&folder.join("controller.db"))?).map(Self::File)
    }

    pub(super) fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// Refuses a file that is not there, and that a start would make.
    pub(super) fn refuse_missing(&self) -> Result<(), StoreError> {
        match self {
            Self::File(file) if !file.path().exists() => {
                Err(unusable(file.path(), io::ErrorKind::NotFound.into()))
            }
            Self::File(_) | Self::Server(_) => Ok(()),
        }
    }

    /// How it is told: never with a password.
    pub(super) fn name(&self) -> String {
        match self {
            Self::File(file) => file.path().display().to_string(),
            Self::Server(server) => server.name(),
        }
    }

    /// Makes this process the one that serves the database. Commands need no such right. A standby waits
    /// until no other has it.
    pub(crate) async fn serve(&self, standby: bool) -> Result<Serving, StoreError> {
        sqlx::any::install_default_drivers();
        match self {
            Self::File(_) if standby => Err(StoreError::Place("STANDBY needs PostgreSQL".to_owned())),
            Self::File(file) => Ok(Serving::File { _lock: file.lock()? }),
            Self::Server(server) => server.session(standby).await.map(Serving::Server),
        }
    }

    /// Makes this process one of those that serve the database together.
    pub(crate) async fn join(&self) -> Result<Serving, StoreError> {
        sqlx::any::install_default_drivers();
        match self {
            Self::File(_) => Err(StoreError::Place("SHARED needs PostgreSQL".to_owned())),
            Self::Server(server) => server.member().await.map(Serving::Together),
        }
    }

    /// Room on the database's disk for revocations, where the disk is this machine's.
    pub(super) fn reserve(&self) -> Option<Reserve> {
        match self {
            Self::File(file) => Some(Reserve::beside(file.path())),
            Self::Server(_) => None,
        }
    }

    /// What has to be done before the first connection.
    pub(super) fn prepare_to_open(&self) -> Result<(), StoreError> {
        match self {
            Self::File(file) => file.keep_private(),
            Self::Server(_) => Ok(()),
        }
    }

    /// How to connect, with the password that holds now.
    pub(super) fn options(&self) -> Result<AnyConnectOptions, StoreError> {
        match self {
            Self::File(file) => file.options(),
            Self::Server(server) => server.options(),
        }
    }

    /// Readers of single rows, and of lists.
    pub(super) fn readers(&self) -> u32 {
        match self {
            Self::File(_) => file::READERS,
            Self::Server(server) => server.readers(),
        }
    }

    /// What every connection of a pool keeps to.
    pub(super) async fn prepare(&self, connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
        match self {
            Self::File(_) => file::prepare(connection).await,
            Self::Server(server) => server.prepare(connection).await,
        }
    }

    /// Whether the tables are as they were when a connection was made. Statements that it has prepared since
    /// fail once they have more columns.
    pub(super) async fn is_current(&self, connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
        match self {
            Self::File(_) => Ok(true),
            Self::Server(_) => server::is_current(connection).await,
        }
    }

    /// What the connection keeps to that brings the database up to date, which may take long.
    pub(super) async fn prepare_to_migrate(&self, connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
        match self {
            Self::File(_) => file::prepare(connection).await,
            Self::Server(_) => Ok(()),
        }
    }

    /// Begins a transaction that writes, alone among all processes: what it reads is what it changes.
    pub(super) fn begin(&self) -> String {
        match self {
            Self::File(_) => file::BEGIN.to_owned(),
            Self::Server(_) => server::BEGIN.to_owned(),
        }
    }

    pub(super) fn migrations(&self) -> &'static Migrator {
        match self {
            Self::File(_) => &MIGRATIONS,
            Self::Server(_) => &server::MIGRATIONS,
        }
    }

    /// Whether a migration may succeed when it is tried again: SQLite has no lock to hold over migrations.
    pub(super) fn migrates_unlocked(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// Says why a server could not open the database. Changes nothing.
    pub(super) async fn check(&self) -> Result<(), StoreError> {
        match self {
            Self::File(file) => {
                let Some((mut connection, size)) = file.open_to_check().await? else { return Ok(()) };
                self.recognise(&mut connection).await?;
                file::check(&mut connection, size).await?;
                Ok(connection.close().await?)
            }
            Self::Server(_) => {
                let mut connection = AnyConnection::connect_with(&self.options()?).await?;
                self.recognise(&mut connection).await?;
                Ok(connection.close().await?)
            }
        }
    }

    /// Refuses a database of another program, of a later version, or of which a part is gone; and a server
    /// that cannot be worked with.
    pub(super) async fn recognise(&self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        let (snapshot, tables) = match self {
            Self::File(_) => ("BEGIN", "SELECT name FROM sqlite_master WHERE type = 'table'"),
            Self::Server(_) => {
                server::refuse_unusable(connection).await?;
                // Another process may bring it up to date meanwhile.
                (
                    "BEGIN ISOLATION LEVEL REPEATABLE READ",
                    "SELECT CAST(tablename AS TEXT) FROM pg_tables WHERE schemaname = current_schema()",
                )
            }
        };
        let mut reading = connection.begin_with(snapshot).await?;
        let tables = sqlx::query(tables).fetch_all(&mut *reading).await?;
        let tables = tables.iter().map(|row| row.try_get(0)).collect::<Result<HashSet<String>, _>>()?;
        if !tables.is_empty() {
            self.compare(&tables, &mut reading).await?;
        }
        Ok(reading.rollback().await?)
    }

    async fn compare(
        &self,
        tables: &HashSet<String>,
        connection: &mut AnyConnection,
    ) -> Result<(), StoreError> {
        let foreign = || StoreError::Foreign(self.name());
        let applied = sqlx::query(
            "SELECT version, CAST(success AS INTEGER), checksum FROM _sqlx_migrations ORDER BY version",
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(|error| {
            if super::error::problem(&error) == Problem::Fault { foreign() } else { error.into() }
        })?;
        let mut newest = 0;
        for row in &applied {
            let (version, done) = (row.try_get::<i64, _>(0)?, row.try_get::<i64, _>(1)? != 0);
            match self.migrations().iter().find(|migration| migration.version == version) {
                Some(ours) if row.try_get::<Vec<u8>, _>(2)? != *ours.checksum => return Err(foreign()),
                Some(_) if !done => return Err(damaged(format!("migration {version} has not ended"))),
                Some(_) => {}
                // What begins with our first migration was ours once.
                None if newest == 0 => return Err(foreign()),
                None => {
                    let known =
                        self.migrations().iter().map(|migration| migration.version).max().unwrap_or(0);
                    // For the time of an upgrade, programs of two versions work with a server's tables.
                    if !matches!(self, Self::Server(_))
                        || server::oldest_program(&mut *connection).await? > known
                    {
                        return Err(StoreError::Newer { found: version, known });
                    }
                }
            }
            newest = version;
        }
        let missing = TABLES.iter().find(|(since, table)| *since <= newest && !tables.contains(*table));
        missing.map_or(Ok(()), |(_, table)| Err(damaged(format!("the table `{table}` is missing"))))
    }
}

fn damaged(how: String) -> StoreError {
    StoreError::Corrupt { what: "the database", source: how.into() }
}

fn unusable(path: &Path, source: io::Error) -> StoreError {
    StoreError::File { path: path.to_owned(), source }
}
