//! Keeps a database to one server process. A session of its own holds a lock that ends with it, and beats;
//! the process that serves counts up an epoch, and what one of an earlier epoch writes is refused. So a
//! process that stood still, or was cut off, changes nothing once another serves. A standby waits for the
//! lock, and ends the session of a process that has not beaten for a while.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use sqlx::{AnyConnection, Connection, Executor, Row};
use tokio::time::{sleep, timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::DatabaseServer;
use crate::store::error::StoreError;

/// Interval between two beats.
const BEAT_INTERVAL: Duration = Duration::from_secs(2);

/// A beat that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// A start waits so long for the process before to end.
const START_PATIENCE: Duration = Duration::from_secs(2);

/// The server may find out so late that the broken session of this very process is gone.
const RETURN_PATIENCE: Duration = Duration::from_secs(30);

const RETRY_INTERVAL: Duration = Duration::from_millis(200);

const LOCK: &str =
    "SELECT CAST(pg_try_advisory_lock(1095323475, hashtext(COALESCE(current_schema(), ''))) AS INTEGER)";

/// Ends the session that holds the lock when its process has not beaten for 10 s. A lock of two numbers
/// stands in `pg_locks` as two unsigned ones.
const END_SILENT: &str = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_locks, serving \
     WHERE beaten_at < clock_timestamp() - INTERVAL '10 seconds' AND locktype = 'advisory' AND granted AND objsubid = 2 \
     AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND classid = 1095323475 \
     AND objid = CAST(CAST(hashtext(current_schema()) AS BIGINT) & 4294967295 AS OID)";

/// The lock, until this is dropped.
pub(crate) struct Session {
    server: DatabaseServer,
    epoch: Arc<OnceLock<i64>>,
    taken: CancellationToken,
    _keeper: AbortOnDropHandle<()>,
}

impl Session {
    /// Takes the lock, or says that another process has it.
    pub(super) async fn begin(server: DatabaseServer) -> Result<Self, StoreError> {
        let began = Instant::now();
        loop {
            match lock(&server).await? {
                Some(connection) => return Ok(Self::of(server, connection)),
                None if began.elapsed() < START_PATIENCE => sleep(RETRY_INTERVAL).await,
                None => return Err(StoreError::Served(server.name())),
            }
        }
    }

    /// Waits for the lock, however long another process has it or the server is away.
    pub(super) async fn wait(server: DatabaseServer) -> Self {
        let mut told = false;
        loop {
            match wait_on_one_connection(&server, &mut told).await {
                Ok(connection) => return Self::of(server, connection),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(database = server.name(), error, "the database cannot be waited for now");
                    // After an outage of the server, whoever served before is first.
                    sleep(PATIENCE).await;
                }
            }
        }
    }

    fn of(server: DatabaseServer, connection: AnyConnection) -> Self {
        let (taken, epoch) = (CancellationToken::new(), Arc::<OnceLock<i64>>::default());
        let keeper = tokio::spawn(keep(server.clone(), connection, epoch.clone(), taken.clone()));
        Self { server, epoch, taken, _keeper: AbortOnDropHandle::new(keeper) }
    }

    /// Begins an epoch, in a database that is up to date, and says its number. What a process of an earlier
    /// epoch was about to write is written before this returns, or never.
    pub(crate) async fn claim(&self) -> Result<i64, StoreError> {
        let mut connection = connect(&self.server).await?;
        let mut writing = connection.begin_with(super::BEGIN).await?;
        let epoch = count_up(&mut writing).await?;
        // Nobody serves together with others now, and what one that did was about to write is refused.
        for statement in ["DELETE FROM controllers", "DELETE FROM signals"] {
            writing.execute(statement).await?;
        }
        writing.commit().await?;
        connection.close().await?;
        Ok(*self.epoch.get_or_init(|| epoch))
    }

    /// Is cancelled once another process serves.
    pub(crate) fn taken(&self) -> CancellationToken {
        self.taken.clone()
    }
}

/// Begins the next epoch, whose number no other process has.
pub(super) async fn count_up(connection: &mut AnyConnection) -> Result<i64, sqlx::Error> {
    let next = "UPDATE serving SET epoch = epoch + 1, beaten_at = clock_timestamp() RETURNING epoch";
    sqlx::query(next).fetch_one(connection).await?.try_get(0)
}

/// Beats, and keeps the lock until another process serves.
async fn keep(
    server: DatabaseServer,
    mut connection: AnyConnection,
    epoch: Arc<OnceLock<i64>>,
    taken: CancellationToken,
) {
    loop {
        sleep(BEAT_INTERVAL).await;
        let mine = epoch.get().copied();
        match timeout(PATIENCE, beat(&mut connection, mine)).await {
            Ok(Ok(true)) => continue,
            Ok(Ok(false)) => break,
            Ok(Err(_)) | Err(_) => {}
        }
        tracing::warn!(
            database = server.name(),
            "the session that keeps the database to this controller broke"
        );
        match lock_again(&server, mine).await {
            Some(again) => connection = again,
            None => break,
        }
        tracing::info!(database = server.name(), "the database is kept to this controller again");
    }
    tracing::error!(database = server.name(), "another controller serves the database now");
    taken.cancel();
}

/// Says whether this is still the epoch.
async fn beat(connection: &mut AnyConnection, epoch: Option<i64>) -> Result<bool, sqlx::Error> {
    let Some(epoch) = epoch else { return beat_before_an_epoch(connection).await.map(|()| true) };
    let beaten = sqlx::query("UPDATE serving SET beaten_at = clock_timestamp() WHERE epoch = $1");
    Ok(beaten.bind(epoch).execute(connection).await?.rows_affected() > 0)
}

/// For who has the lock and no epoch of its own.
pub(super) async fn beat_before_an_epoch(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    match connection.execute("UPDATE serving SET beaten_at = clock_timestamp()").await {
        // The table is not there yet: nobody looks at it.
        Err(sqlx::Error::Database(_)) | Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Takes the lock again, however long the server is away. None when another process serves.
async fn lock_again(server: &DatabaseServer, epoch: Option<i64>) -> Option<AnyConnection> {
    let mut held_since = None;
    loop {
        match timeout(PATIENCE, look_for_lock(server, epoch)).await {
            Ok(Ok(Look::Locked(connection))) => return Some(connection),
            Ok(Ok(Look::Over)) => return None,
            Ok(Ok(Look::Held)) => {
                if held_since.get_or_insert_with(Instant::now).elapsed() > RETURN_PATIENCE {
                    return None;
                }
            }
            Ok(Err(_)) | Err(_) => held_since = None,
        }
        sleep(RETRY_INTERVAL).await;
    }
}

/// What a process finds that has lost the lock.
enum Look {
    Locked(AnyConnection),
    /// By its own session, as far as the server knows, or by a process that has not served yet.
    Held,
    /// Another process has served since.
    Over,
}

async fn look_for_lock(server: &DatabaseServer, epoch: Option<i64>) -> Result<Look, StoreError> {
    let mut connection = connect(server).await?;
    let locked = try_lock(&mut connection).await?;
    if let Some(epoch) = epoch {
        let same = sqlx::query("SELECT 1 FROM serving WHERE epoch = $1").bind(epoch);
        if same.fetch_optional(&mut connection).await?.is_none() {
            return Ok(Look::Over);
        }
    }
    Ok(if locked { Look::Locked(connection) } else { Look::Held })
}

/// Waits until a connection holds the lock.
async fn wait_on_one_connection(
    server: &DatabaseServer,
    told: &mut bool,
) -> Result<AnyConnection, StoreError> {
    let mut connection = connect(server).await?;
    loop {
        let locked = timeout(PATIENCE, try_lock(&mut connection)).await;
        if locked.map_err(|_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))?? {
            return Ok(connection);
        }
        if !std::mem::replace(told, true) {
            tracing::info!(
                database = server.name(),
                "another controller serves the database: this one stands by"
            );
        }
        sleep(RETRY_INTERVAL).await;
    }
}

/// A connection that holds the lock; none when another process has it.
async fn lock(server: &DatabaseServer) -> Result<Option<AnyConnection>, StoreError> {
    let mut connection = connect(server).await?;
    if try_lock(&mut connection).await? {
        return Ok(Some(connection));
    }
    connection.close().await?;
    Ok(None)
}

pub(super) async fn connect(server: &DatabaseServer) -> Result<AnyConnection, StoreError> {
    let mut connection = AnyConnection::connect_with(&server.options()?).await?;
    // The server finds out within seconds that this machine is gone.
    connection
        .execute("SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3")
        .await?;
    Ok(connection)
}

/// Takes the lock, or ends the session of a process that has it and does not beat.
async fn try_lock(connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
    let row = sqlx::query(LOCK).fetch_one(&mut *connection).await?;
    if row.try_get::<i64, _>(0)? == 1 {
        // Before a standby takes it for silent.
        return beat_before_an_epoch(connection).await.map(|()| true);
    }
    match sqlx::query(END_SILENT).fetch_one(connection).await {
        // The table is not there yet: nobody has served for long.
        Err(sqlx::Error::Database(_)) | Ok(_) => Ok(false),
        Err(error) => Err(error),
    }
}
