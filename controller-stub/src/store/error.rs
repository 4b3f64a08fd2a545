//! Why the store has no answer.

use std::sync::Arc;

use aio_protocol::event::InvalidEvent;

/// Why the store has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    #[error("an event says what it cannot")]
    Event(#[from] InvalidEvent),
    #[error("the database takes no changes now")]
    Unusable(#[source] Arc<sqlx::Error>),
    #[error("the change was rolled back")]
    RolledBack,
    #[error("the database is closed")]
    Closed,
    #[error("the database could not be brought up to date")]
    Migration(#[from] sqlx::migrate::MigrateError),
    #[error("the database holds something that cannot be read: {what}")]
    Corrupt {
        what: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the database's place cannot be used: {0}")]
    Place(String),
}
