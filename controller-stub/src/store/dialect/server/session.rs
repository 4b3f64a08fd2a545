//! Keeps a database to one server process: a session of its own holds a lock that ends with it. A session that
//! breaks is begun again; this process may serve on as long as no other has taken the lock meanwhile.

use std::time::{Duration, Instant};

use sqlx::{AnyConnection, Connection, Executor, Row};
use tokio::time::{sleep, timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::DatabaseServer;
use crate::store::error::StoreError;

/// Interval between two looks at the session.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// A look that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// A start waits so long for the process before to end.
const START_PATIENCE: Duration = Duration::from_secs(2);

/// The server may find out so late that the broken session of this very process is gone.
const RETURN_PATIENCE: Duration = Duration::from_secs(30);

const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// The lock, until this is dropped.
pub(crate) struct Session {
    taken: CancellationToken,
    _keeper: AbortOnDropHandle<()>,
}

impl Session {
    pub(super) async fn begin(server: DatabaseServer) -> Result<Self, StoreError> {
        let began = Instant::now();
        let connection = loop {
            match lock(&server).await? {
                Some(connection) => break connection,
                None if began.elapsed() < START_PATIENCE => sleep(RETRY_INTERVAL).await,
                None => return Err(StoreError::Served(server.name())),
            }
        };
        let taken = CancellationToken::new();
        let keeper = tokio::spawn(keep(server, connection, taken.clone()));
        Ok(Self { taken, _keeper: AbortOnDropHandle::new(keeper) })
    }

    /// Is cancelled once another process has the lock.
    pub(crate) fn taken(&self) -> CancellationToken {
        self.taken.clone()
    }
}

/// Keeps the lock until another process has it.
async fn keep(server: DatabaseServer, mut connection: AnyConnection, taken: CancellationToken) {
    loop {
        sleep(LOOK_INTERVAL).await;
        if matches!(timeout(PATIENCE, connection.ping()).await, Ok(Ok(()))) {
            continue;
        }
        tracing::warn!(
            database = server.name(),
            "the session that keeps the database to this controller broke"
        );
        match lock_again(&server).await {
            Some(again) => connection = again,
            None => {
                tracing::error!(database = server.name(), "another controller serves the database now");
                taken.cancel();
                return;
            }
        }
        tracing::info!(database = server.name(), "the database is kept to this controller again");
    }
}

/// Takes the lock again, however long the server is away. None when somebody else holds it.
async fn lock_again(server: &DatabaseServer) -> Option<AnyConnection> {
    let mut held_since = None;
    loop {
        match timeout(PATIENCE, lock(server)).await {
            Ok(Ok(Some(connection))) => return Some(connection),
            Ok(Ok(None)) => {
                if held_since.get_or_insert_with(Instant::now).elapsed() > RETURN_PATIENCE {
                    return None;
                }
            }
            Ok(Err(_)) | Err(_) => held_since = None,
        }
        sleep(RETRY_INTERVAL).await;
    }
}

/// A connection that holds the lock; none when another has it.
async fn lock(server: &DatabaseServer) -> Result<Option<AnyConnection>, StoreError> {
    let mut connection = AnyConnection::connect_with(&server.options()?).await?;
    // The server finds out within seconds that this machine is gone.
    connection
        .execute("SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3")
        .await?;
    let row = sqlx::query(
        "SELECT CAST(pg_try_advisory_lock(1095323475, hashtext(COALESCE(current_schema(), ''))) AS INTEGER)",
    )
    .fetch_one(&mut connection)
    .await?;
    Ok((row.try_get::<i64, _>(0)? == 1).then_some(connection))
}
