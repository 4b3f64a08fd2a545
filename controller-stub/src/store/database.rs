//! The database: how it is opened, checked and closed. Rows are read over two pools, so that a question about
//! one node never waits for somebody's lists, and all changes go through one writer. What is read and changed
//! stands beside each table.

use std::time::{Duration, Instant};

use sqlx::{AnyConnection, Connection, Row};
use tokio::time::sleep;

use super::{
    connections::{Connections, PATIENCE},
    dialect::{Place, Serving},
    error::{Problem, StoreError},
    reserve::Reserve,
    shares::Shares,
    writer::Writer,
};
use crate::tasks::Pulses;

/// How often a new database is tried again that another process sets up at the same moment.
const SETUP_INTERVAL: Duration = Duration::from_millis(50);

/// The store. Clones share it.
#[derive(Clone)]
pub(crate) struct Store {
    /// For single rows.
    pub(super) pool: Connections,
    /// For lists, behind `shares`.
    pub(super) lists: Connections,
    /// An organisation's share of `lists`.
    pub(super) shares: Shares,
    pub(super) writer: Writer,
}

impl Store {
    /// Opens the database, making it when it is not there.
    pub(crate) async fn open(place: &Place) -> Result<Self, StoreError> {
        Self::open_with(place, place.reserve(), &Pulses::default(), None).await
    }

    /// Opens the database as its server, which keeps room for revocations.
    pub(crate) async fn open_as_server(
        place: &Place,
        serving: &Serving,
        pulses: &Pulses,
    ) -> Result<Self, StoreError> {
        let mut reserve = place.reserve();
        if let Some(reserve) = &mut reserve {
            reserve.hold();
        }
        Self::open_with(place, reserve, pulses, Some(serving)).await
    }

    async fn open_with(
        place: &Place,
        reserve: Option<Reserve>,
        pulses: &Pulses,
        serving: Option<&Serving>,
    ) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        place.prepare_to_open()?;
        // A pool would try an unusable database again and again, and then say that it was slow.
        set_up(place).await?;
        let begin = match serving {
            Some(serving) => serving.begin().await?,
            None => place.begin(),
        };
        let readers = place.readers();
        let writer = Connections::open(place, 1).await?;
        let store = Self {
            pool: writer.beside(place, readers).await?,
            lists: writer.beside(place, readers).await?,
            shares: Shares::new(readers / 2),
            writer: Writer::start(writer, begin, reserve, pulses.add("writer")),
        };
        store.fill_name_keys().await?;
        Ok(store)
    }

    /// A setting of a database that another process may serve; none where there is none.
    pub(crate) async fn peek(place: &Place, name: &str) -> Result<Option<String>, StoreError> {
        sqlx::any::install_default_drivers();
        let mut connection = AnyConnection::connect_with(&place.options()?).await?;
        // Fails where the table is not there yet.
        let found = sqlx::query("SELECT value FROM settings WHERE name = $1").bind(name);
        let found = found.fetch_optional(&mut connection).await.ok().flatten();
        connection.close().await?;
        Ok(found.map(|row| row.try_get(0)).transpose()?)
    }

    /// Says why a server could not open the database. Changes nothing.
    pub(crate) async fn check(place: &Place) -> Result<(), StoreError> {
        sqlx::any::install_default_drivers();
        place.check().await
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

/// Brings the database up to date. Of two processes that start on a new database of SQLite's at once, the
/// slower may fail at each migration once, and on its next try finds that one done.
pub(super) async fn set_up(place: &Place) -> Result<(), StoreError> {
    let began = Instant::now();
    let mut tries = place.migrations().iter().count();
    loop {
        let Err(error) = migrate(place).await else { return Ok(()) };
        let again = match error.problem() {
            Problem::Busy | Problem::Collided => began.elapsed() < PATIENCE,
            Problem::Fault if matches!(error, StoreError::Migration(_)) => {
                place.migrates_unlocked() && tries > 0
            }
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
    let mut connection = AnyConnection::connect_with(&place.options()?).await?;
    place.recognise(&mut connection).await?;
    place.prepare_to_migrate(&mut connection).await?;
    place.migrations().run_direct(None, &mut connection, false).await.map_err(StoreError::Migration)?;
    Ok(connection.close().await?)
}

#[cfg(test)]
mod tests;
