//! A database of a PostgreSQL server: its address, what a connection to it keeps to, and the texts of its
//! migrations. `session` keeps it to one server process.

mod member;
mod session;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
    time::Duration,
};

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    AnyConnection, Connection, Executor, Row, SqlSafeStr,
    any::AnyConnectOptions,
    migrate::{Migration, Migrator},
};

use crate::{
    config::{Config, exposure::is_exposed},
    loopback::is_this_machine,
    store::error::StoreError,
};

pub(crate) use member::Member;
pub(crate) use session::Session;

/// Waits until no other process writes, as SQLite does: what a transaction reads then is what it changes,
/// whatever statements it is made of. The snapshot of each statement is taken behind the lock.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; \
     SELECT pg_advisory_xact_lock(1095323468, hashtext(current_schema()))";

/// The oldest that its makers still mend when this was written.
const OLDEST_VERSION: i64 = 140_000;

/// Times that the sessions of two connections are compared: others may use a pooler, too.
const POOLER_TRIES: u32 = 5;

/// The types of SQLite's texts in PostgreSQL's words. Texts are compared by their bytes there, too.
const TYPES: [(&str, &str); 4] = [
    (" TEXT", " TEXT COLLATE \"C\""),
    (" INTEGER PRIMARY KEY", " BIGINT PRIMARY KEY"),
    (" BLOB", " BYTEA"),
    (" WITHOUT ROWID", ""),
];

/// Those of SQLite in PostgreSQL's words, and those that only PostgreSQL needs.
pub(super) static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    static OWN: Migrator = sqlx::migrate!("./migrations/postgres");
    let translated = super::MIGRATIONS.iter().map(|migration| {
        let text =
            TYPES.iter().fold(migration.sql.as_str().to_owned(), |text, (from, to)| text.replace(from, to));
        let (description, kind) = (migration.description.clone(), migration.migration_type);
        Migration::new(migration.version, description, kind, sqlx::AssertSqlSafe(text).into_sql_str(), false)
    });
    let mut migrator = Migrator::with_migrations(translated.chain(OWN.iter().cloned()).collect());
    // Whether this program may work with tables of a later one was asked before.
    migrator.set_ignore_missing(true);
    migrator
});

/// The address of a database. It may hold a password, so it is never told whole.
#[derive(Clone)]
pub(crate) struct DatabaseServer {
    url: Url,
    password_file: Option<PathBuf>,
    connections: u32,
    statement_timeout: Duration,
}

impl std::fmt::Debug for DatabaseServer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("DatabaseServer").field(&self.name()).finish()
    }
}

/// Whether an address names a server.
pub(super) fn is_named_by(url: &SecretString) -> bool {
    ["postgres:", "postgresql:"].iter().any(|scheme| url.expose_secret().starts_with(scheme))
}

impl DatabaseServer {
    pub(super) fn of(url: &SecretString, config: &Config) -> Result<Self, StoreError> {
        let refuse = |why: String| StoreError::Place(format!("DATABASE_URL {why}"));
        let mut url: Url =
            url.expose_secret().parse().map_err(|error| refuse(format!("is no address: {error}")))?;
        let value =
            |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        // A folder is that of a socket.
        let socket = value("host").is_some_and(|host| host.starts_with('/'))
            || url.host_str().is_none_or(|host| host.is_empty() || host.starts_with("%2F"));
        let local = socket || is_this_machine(&url) && value("host").is_none() && value("hostaddr").is_none();
        match value("sslmode").as_deref() {
            Some("verify-full" | "verify-ca" | "require") => {}
            _ if local || config.insecure_http => {}
            None => {
                url.query_pairs_mut().append_pair("sslmode", "verify-full");
            }
            Some(_) => return Err(StoreError::InTheClear(Self::name_of(&url))),
        }
        if !url.query_pairs().any(|(key, _)| key == "application_name") {
            url.query_pairs_mut().append_pair("application_name", "controller-stub");
        }
        Ok(Self {
            url,
            password_file: config.database_password_file.clone(),
            connections: config.database_connections,
            statement_timeout: config.database_statement_timeout,
        })
    }

    pub(super) fn name(&self) -> String {
        Self::name_of(&self.url)
    }

    fn name_of(url: &Url) -> String {
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        format!("postgres://{}{port}{}", url.host_str().unwrap_or_default(), url.path())
    }

    pub(super) fn readers(&self) -> u32 {
        (self.connections / 2).max(1)
    }

    /// How to connect. The password's file is read each time: a password may be changed while this runs.
    pub(super) fn options(&self) -> Result<AnyConnectOptions, StoreError> {
        let mut url = self.url.clone();
        if let Some(path) = &self.password_file {
            let password = read_password(path)?;
            url.query_pairs_mut().append_pair("password", &password);
        }
        Ok(url.as_str().parse()?)
    }

    /// What every connection of a pool keeps to: a commit is on the disk when it returns, nothing waits or
    /// lasts for long, and a process that stands still in a transaction holds nobody up.
    pub(super) async fn prepare(&self, connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
        let settings = format!(
            "SET lock_timeout = '5s'; SET idle_in_transaction_session_timeout = '5s'; SET statement_timeout = {}; \
             SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
            self.statement_timeout.as_millis()
        );
        connection.execute(sqlx::AssertSqlSafe(settings)).await?;
        none_yet(connection.execute(REMEMBER_TABLES).await)?;
        Ok(())
    }

    /// Makes this process one of those that serve the database together.
    pub(super) async fn member(&self) -> Result<Member, StoreError> {
        self.refuse_given_away().await?;
        Member::begin(self.clone()).await
    }

    /// Makes this process the one that serves the database; a standby waits until it is.
    pub(super) async fn session(&self, standby: bool) -> Result<Session, StoreError> {
        match self.refuse_given_away().await {
            // A standby waits for a server that is away, too.
            Err(error) if !standby || matches!(error, StoreError::Unsupported(_)) => Err(error),
            _ if standby => Ok(Session::wait(self.clone()).await),
            _ => Session::begin(self.clone()).await,
        }
    }

    /// Refuses a pooler that gives a session to another connection after each transaction: locks and settings
    /// are a session's. There, two connections that are open at once have the same session.
    async fn refuse_given_away(&self) -> Result<(), StoreError> {
        const SESSION: &str = "SELECT CAST(pg_backend_pid() AS BIGINT)";
        let options = self.options()?;
        let mut one = AnyConnection::connect_with(&options).await?;
        let mut two = AnyConnection::connect_with(&options).await?;
        for _ in 0..POOLER_TRIES {
            let sessions = (one.fetch_one(SESSION).await?, two.fetch_one(SESSION).await?);
            if sessions.0.try_get::<i64, _>(0)? == sessions.1.try_get::<i64, _>(0)? {
                return Err(StoreError::Unsupported(
                    "a pooler gives its sessions away after each transaction, and has to keep them \
                     (PgBouncer: `pool_mode = session`)"
                        .to_owned(),
                ));
            }
        }
        one.close().await?;
        Ok(two.close().await?)
    }
}

/// Keeps in the session which migration was the last when it began.
const REMEMBER_TABLES: &str =
    "SELECT set_config('aio.tables', (SELECT CAST(MAX(version) AS TEXT) FROM _sqlx_migrations), false)";

/// What a statement on the migrations has found; nothing where there are none yet.
fn none_yet<T>(found: Result<T, sqlx::Error>) -> Result<Option<T>, sqlx::Error> {
    const UNDEFINED_TABLE: &str = "42P01";
    match found {
        Err(sqlx::Error::Database(error)) if error.code().is_some_and(|code| code == UNDEFINED_TABLE) => {
            Ok(None)
        }
        found => found.map(Some),
    }
}

/// Whether no program has changed the tables since the session began.
pub(super) async fn is_current(connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
    let same = "SELECT CAST(COALESCE(current_setting('aio.tables', true), '') = CAST(MAX(version) AS TEXT) AS INTEGER) \
                FROM _sqlx_migrations";
    let same = none_yet(sqlx::query(same).fetch_one(connection).await)?;
    same.map_or(Ok(true), |row| Ok(row.try_get::<i64, _>(0)? == 1))
}

fn read_password(path: &Path) -> Result<String, StoreError> {
    if is_exposed(path) {
        return Err(StoreError::PasswordExposed(path.to_owned()));
    }
    let text = fs::read_to_string(path).map_err(|source| super::unusable(path, source))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The oldest program that may work with the tables, by the number of its last migration.
pub(super) async fn oldest_program(connection: &mut AnyConnection) -> Result<i64, StoreError> {
    let oldest = sqlx::query("SELECT MAX(migration) FROM oldest_program").fetch_one(connection).await?;
    Ok(oldest.try_get::<Option<i64>, _>(0)?.unwrap_or(i64::MAX))
}

/// Refuses a server that is too old, takes no changes, or keeps texts in another encoding.
pub(super) async fn refuse_unusable(connection: &mut AnyConnection) -> Result<(), StoreError> {
    let row = sqlx::query(
        "SELECT CAST(current_setting('server_version_num') AS BIGINT), current_setting('server_version'), \
         current_setting('server_encoding'), current_setting('transaction_read_only')",
    )
    .fetch_one(connection)
    .await?;
    let (version, number): (String, i64) = (row.try_get(1)?, row.try_get(0)?);
    if number < OLDEST_VERSION {
        return Err(StoreError::Unsupported(format!(
            "it is PostgreSQL {version}, and 14 is the oldest that will do"
        )));
    }
    let encoding: String = row.try_get(2)?;
    if encoding != "UTF8" {
        return Err(StoreError::Unsupported(format!("its encoding is {encoding}, and UTF8 is needed")));
    }
    if row.try_get::<String, _>(3)? == "on" {
        return Err(StoreError::ReadOnly);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The migration from which on tables say which programs may work with them.
    const SINCE: i64 = 66;

    #[test]
    fn a_migration_that_older_programs_cannot_work_beside_says_so() {
        let takes_away = |text: &str| {
            let text = text.to_uppercase();
            ["DROP ", "RENAME ", "SET NOT NULL", "TYPE "].iter().any(|word| text.contains(word))
        };
        for migration in MIGRATIONS.iter().filter(|it| it.version > SINCE) {
            let says_so = MIGRATIONS
                .iter()
                .filter(|it| it.version >= migration.version)
                .any(|it| it.sql.as_str().contains("UPDATE oldest_program"));
            assert!(
                !takes_away(migration.sql.as_str()) || says_so,
                "{} takes something away: a migration of PostgreSQL's own has to raise oldest_program",
                migration.version
            );
        }
        assert_eq!(MIGRATIONS.iter().filter(|it| it.version == SINCE).count(), 1);
    }
}
