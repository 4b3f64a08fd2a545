//! Connections of one database, and why there is none. A pool waits for a server that is away and then says
//! that it was slow; a connection of its own finds out what is wrong, and until one succeeds nobody waits.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{Any, AnyConnection, AnyPool, Connection, any::AnyPoolOptions, pool::PoolConnection};
use tokio::{sync::Mutex, time::timeout};

use super::{
    dialect::Place,
    error::{Problem, StoreError, problem},
};

/// How long another process's lock is waited for, and a free connection.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// How long a server may take to answer while it is known to be away.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);

/// What a probe has found counts for so long.
const FRESH: Duration = Duration::from_millis(250);

/// A bounded number of connections. Clones share them.
#[derive(Clone)]
pub(super) struct Connections {
    pool: AnyPool,
    server: Option<Arc<Server>>,
}

/// What is known of a server.
struct Server {
    place: Place,
    is_away: AtomicBool,
    /// When it was asked last, and why it was not to be had.
    asked: Mutex<Option<(Instant, Arc<sqlx::Error>)>>,
}

impl Connections {
    /// At most so many; the first is made at once.
    pub(super) async fn open(place: &Place, most: u32) -> Result<Self, StoreError> {
        let server = match place {
            Place::File(_) => None,
            Place::Server(_) => {
                let (is_away, asked) = (AtomicBool::new(false), Mutex::new(None));
                Some(Arc::new(Server { place: place.clone(), is_away, asked }))
            }
        };
        Ok(Self { pool: pool(place, most).await?, server })
    }

    /// Others of the same database, for another purpose. What one finds out of its server, both know.
    pub(super) async fn beside(&self, place: &Place, most: u32) -> Result<Self, StoreError> {
        Ok(Self { pool: pool(place, most).await?, server: self.server.clone() })
    }

    /// Waits for a connection. It goes back when it is dropped.
    pub(super) async fn take(&self) -> Result<PoolConnection<Any>, Arc<sqlx::Error>> {
        let Some(server) = &self.server else { return Ok(self.pool.acquire().await?) };
        if server.is_away.load(Ordering::Acquire) {
            self.ask(server).await?;
        }
        match self.pool.acquire().await {
            Ok(connection) => Ok(connection),
            Err(error @ sqlx::Error::PoolTimedOut) => {
                self.ask(server).await?;
                Err(error.into())
            }
            // The password may have changed.
            Err(_) => {
                self.ask(server).await?;
                Ok(self.pool.acquire().await?)
            }
        }
    }

    /// Asks the server itself, one caller for all who wait, whether it takes connections.
    async fn ask(&self, server: &Server) -> Result<(), Arc<sqlx::Error>> {
        let mut asked = server.asked.lock().await;
        if let Some((at, error)) = &*asked
            && at.elapsed() < FRESH
        {
            return Err(error.clone());
        }
        let connected = match server.place.options() {
            Ok(options) => {
                self.pool.set_connect_options(options.clone());
                match timeout(PROBE_PATIENCE, AnyConnection::connect_with(&options)).await {
                    Ok(connected) => connected,
                    Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
                }
            }
            Err(error) => Err(sqlx::Error::Configuration(Box::new(error))),
        };
        match connected {
            Ok(connection) => {
                *asked = None;
                server.is_away.store(false, Ordering::Release);
                let _ = connection.close().await;
                Ok(())
            }
            Err(error) => {
                let error = Arc::new(error);
                let away = !matches!(problem(&error), Problem::Busy);
                server.is_away.store(away, Ordering::Release);
                *asked = away.then(|| (Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

async fn pool(place: &Place, most: u32) -> Result<AnyPool, StoreError> {
    let (preparing, checking) = (place.clone(), place.clone());
    // A server may have been away since a connection's last use, or its tables another program's: `is_current` finds
    // out. A file is there, and asking it first would double what a read of one row costs.
    let options = AnyPoolOptions::new()
        .acquire_timeout(PATIENCE)
        .max_connections(most)
        .test_before_acquire(false)
        .before_acquire(move |connection, _| {
            let place = checking.clone();
            Box::pin(async move { place.is_current(connection).await })
        })
        .after_connect(move |connection, _| {
            let place = preparing.clone();
            Box::pin(async move { place.prepare(connection).await })
        });
    Ok(options.connect_with(place.options()?).await?)
}
