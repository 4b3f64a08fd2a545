//! Why the store has no answer, and what that means to whoever asked.

mod sqlstate;

use std::{path::PathBuf, sync::Arc};

use aio_protocol::{error_code::ErrorCode, event::InvalidEvent};
use sqlx::migrate::MigrateError;

/// Why the store has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("the database failed")]
    Database(#[source] Arc<sqlx::Error>),
    #[error("an event says what it cannot")]
    Event(#[from] InvalidEvent),
    #[error("the disk is full, and what is left of it is kept for revocations")]
    Reserved,
    #[error("the change was rolled back")]
    RolledBack,
    #[error("the database is closed")]
    Closed,
    #[error("another controller serves the database {0}")]
    Served(String),
    #[error("the database {0} holds tables of another program")]
    Foreign(String),
    #[error(
        "the database was written by a later version of this program (its schema is {found}, this one knows {known})"
    )]
    Newer { found: i64, known: i64 },
    #[error("the database could not be brought up to date")]
    Migration(#[source] MigrateError),
    #[error("the database holds something that cannot be read: {what}")]
    Corrupt {
        what: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the database's place cannot be used: {0}")]
    Place(String),
    #[error("{0} is on another machine, and its sslmode allows a connection in the clear")]
    InTheClear(String),
    #[error("every user of this machine can read the password in {0}")]
    PasswordExposed(PathBuf),
    #[error("the database cannot be worked with: {0}")]
    Unsupported(String),
    #[error("the database takes no changes")]
    ReadOnly,
    #[error("the database's file {path} cannot be used")]
    File { path: PathBuf, source: std::io::Error },
}

/// What a failure of the database comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    /// Another process holds its lock, or all connections are taken.
    Busy,
    /// Its server rolled a transaction back for the sake of another one.
    Collided,
    /// There is no room on its disk.
    Full,
    /// Its file is no database, or is damaged.
    Damaged,
    /// Its file cannot be opened or written.
    Denied,
    /// Its server does not answer.
    Unreachable,
    /// Its server lets this program do nothing with it.
    Refused,
    /// It takes no changes: a standby, for example.
    ReadOnly,
    /// Another controller serves it now.
    Taken,
    /// Anything else.
    Fault,
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(Arc::new(error))
    }
}

impl From<Arc<sqlx::Error>> for StoreError {
    fn from(error: Arc<sqlx::Error>) -> Self {
        Self::Database(error)
    }
}

impl StoreError {
    pub(crate) fn problem(&self) -> Problem {
        match self {
            Self::Database(error) => problem(error),
            Self::Migration(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
                problem(error)
            }
            Self::Reserved => Problem::Full,
            Self::Corrupt { .. } | Self::Foreign(_) => Problem::Damaged,
            Self::File { .. } => Problem::Denied,
            Self::ReadOnly => Problem::ReadOnly,
            _ => Problem::Fault,
        }
    }

    /// The catalogue's code.
    pub(crate) fn code(&self) -> ErrorCode {
        match (self, self.problem()) {
            (Self::Served(_), _) | (_, Problem::Taken) => ErrorCode::DatabaseInUse,
            (Self::Newer { .. }, _) => ErrorCode::DatabaseNewer,
            (Self::Place(_), _) => ErrorCode::ConfigInvalid,
            (Self::InTheClear(_), _) => ErrorCode::InsecureUrl,
            (Self::PasswordExposed(_), _) => ErrorCode::SecretExposed,
            (Self::Unsupported(_), _) => ErrorCode::DatabaseUnsupported,
            (_, Problem::Unreachable) => ErrorCode::DatabaseUnreachable,
            (_, Problem::Refused) => ErrorCode::DatabaseRefused,
            (_, Problem::ReadOnly) => ErrorCode::DatabaseReadOnly,
            (_, Problem::Busy | Problem::Collided) => ErrorCode::DatabaseBusy,
            (_, Problem::Full) => ErrorCode::DiskFull,
            (_, Problem::Damaged) => ErrorCode::DatabaseDamaged,
            (_, Problem::Denied) => ErrorCode::FileFailed,
            (_, Problem::Fault) => ErrorCode::ControllerError,
        }
    }
}

/// `sqlstate` reads the codes of PostgreSQL. SQLite's primary result codes
/// (<https://sqlite.org/rescode.html>); a code's lowest byte is its primary one.
pub(super) fn problem(error: &sqlx::Error) -> Problem {
    let error = match error {
        sqlx::Error::PoolTimedOut => return Problem::Busy,
        // What a server shows as its certificate.
        sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => return Problem::Refused,
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => return Problem::Unreachable,
        sqlx::Error::Tls(_) => return Problem::Refused,
        sqlx::Error::Configuration(error) => {
            return error.downcast_ref().map_or(Problem::Fault, StoreError::problem);
        }
        sqlx::Error::Database(error) => error,
        _ => return Problem::Fault,
    };
    if let Some(error) = error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() {
        return sqlstate::problem(error.code());
    }
    let Some(code) = error.code().and_then(|code| code.parse::<i64>().ok()) else { return Problem::Fault };
    match (code & 0xff, code) {
        (5 | 6, _) => Problem::Busy,
        // A write that fails for want of room or quota.
        (13, _) | (_, 778) => Problem::Full,
        (11 | 26, _) => Problem::Damaged,
        (3 | 8 | 14 | 23, _) => Problem::Denied,
        _ => Problem::Fault,
    }
}
