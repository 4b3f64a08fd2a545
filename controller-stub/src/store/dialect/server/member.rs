//! A controller that serves a database together with others. A session of its own holds a lock that keeps out
//! whoever would serve alone, and beats into the controller's row. Who finds that another is silent removes
//! its row, and where nobody leads then, leads; all in one transaction, so nobody leads beside it. What a
//! controller without a row writes is refused, so one that stood still or was cut off changes nothing.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use sqlx::{AnyConnection, Connection, Row};
use tokio::time::{sleep, timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    DatabaseServer,
    session::{beat_before_an_epoch, connect, count_up},
};
use crate::store::{
    error::StoreError,
    membership::{Membership, Seat, Sightings},
};

/// Interval between two beats.
const BEAT_INTERVAL: Duration = Duration::from_secs(2);

/// A beat that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(3);

/// A start waits so long for whoever serves alone to end.
const START_PATIENCE: Duration = Duration::from_secs(2);

const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// As the lock of who serves alone, shared.
const LOCK: &str = "SELECT CAST(pg_try_advisory_lock_shared(1095323475, hashtext(COALESCE(current_schema(), ''))) AS INTEGER)";

/// Milliseconds since 1970 by the server's clock.
const NOW: &str = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";

/// A place among the controllers, until this is dropped.
pub(crate) struct Member {
    server: DatabaseServer,
    number: Arc<OnceLock<i64>>,
    seat: Arc<Seat>,
    expelled: CancellationToken,
    keeper: AbortOnDropHandle<()>,
}

impl Member {
    /// Takes the lock, or says that another process serves alone.
    pub(super) async fn begin(server: DatabaseServer) -> Result<Self, StoreError> {
        let began = Instant::now();
        loop {
            let mut connection = connect(&server).await?;
            if lock(&mut connection).await? {
                return Ok(Self::of(server, connection));
            }
            connection.close().await?;
            if began.elapsed() > START_PATIENCE {
                return Err(StoreError::Served(server.name()));
            }
            sleep(RETRY_INTERVAL).await;
        }
    }

    fn of(server: DatabaseServer, connection: AnyConnection) -> Self {
        let (expelled, number) = (CancellationToken::new(), Arc::<OnceLock<i64>>::default());
        let seat = Arc::new(Seat::new());
        let keeper = Keeper {
            server: server.clone(),
            number: number.clone(),
            seat: seat.clone(),
            sightings: Sightings::default(),
            others: Vec::new(),
        };
        let keeper = tokio::spawn(keeper.run(connection, expelled.clone()));
        Self { server, number, seat, expelled, keeper: AbortOnDropHandle::new(keeper) }
    }

    /// Joins the controllers of a database that is up to date, and says the number.
    pub(crate) async fn join(&self) -> Result<i64, StoreError> {
        let mut connection = connect(&self.server).await?;
        let mut writing = connection.begin_with(super::BEGIN).await?;
        let number = count_up(&mut writing).await?;
        let row = format!(
            "INSERT INTO controllers (number, name, address, version, started_at, beaten_at, beats, leads) \
             SELECT $1, '', '', '', {NOW}, {NOW}, 0, CASE WHEN EXISTS (SELECT 1 FROM controllers) THEN 0 ELSE 1 END"
        );
        sqlx::query(sqlx::AssertSqlSafe(row)).bind(number).execute(&mut *writing).await?;
        writing.commit().await?;
        connection.close().await?;
        Ok(*self.number.get_or_init(|| number))
    }

    /// Where this controller stands; alone before it has joined.
    pub(crate) fn membership(&self) -> Membership {
        self.number.get().map_or_else(Membership::alone, |number| self.seat.place(*number))
    }

    /// Is cancelled once the others have taken this one for dead.
    pub(crate) fn expelled(&self) -> CancellationToken {
        self.expelled.clone()
    }

    /// Gives the place up; nothing more is written. The others take the nodes over at once.
    pub(crate) async fn leave(&self) -> Result<(), StoreError> {
        self.keeper.abort();
        let Some(number) = self.number.get() else { return Ok(()) };
        let mut connection = connect(&self.server).await?;
        let mut writing = connection.begin_with(super::BEGIN).await?;
        for statement in
            ["DELETE FROM controllers WHERE number = $1", "DELETE FROM signals WHERE controller = $1"]
        {
            sqlx::query(statement).bind(*number).execute(&mut *writing).await?;
        }
        writing.commit().await?;
        Ok(connection.close().await?)
    }
}

/// Beats until this controller is taken for dead.
struct Keeper {
    server: DatabaseServer,
    number: Arc<OnceLock<i64>>,
    seat: Arc<Seat>,
    sightings: Sightings,
    /// Who was there at the last beat.
    others: Vec<i64>,
}

/// Whether a controller has its row.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Member,
    Expelled,
}

impl Keeper {
    async fn run(mut self, connection: AnyConnection, expelled: CancellationToken) {
        let mut connection = Some(connection);
        let mut failures = 0_u32;
        loop {
            sleep(if connection.is_some() { BEAT_INTERVAL } else { RETRY_INTERVAL }).await;
            match timeout(PATIENCE, self.round(&mut connection)).await {
                Ok(Ok(Found::Member)) if failures > 0 => {
                    tracing::info!(database = self.server.name(), failures, "this controller beats again");
                    failures = 0;
                }
                Ok(Ok(Found::Member)) => {}
                Ok(Ok(Found::Expelled)) => break,
                failed => {
                    connection = None;
                    failures += 1;
                    if failures.is_power_of_two() {
                        let error = failed.ok().and_then(Result::err).map(|error| error.to_string());
                        let error = error.as_deref().unwrap_or("no answer in time");
                        let database = self.server.name();
                        tracing::warn!(database, failures, error, "this controller cannot beat");
                    }
                }
            }
        }
        tracing::error!(database = self.server.name(), "the other controllers took this one for dead");
        expelled.cancel();
    }

    /// Beats on the connection, or on a new one that has the lock, too.
    async fn round(&mut self, kept: &mut Option<AnyConnection>) -> Result<Found, StoreError> {
        let Some(number) = self.number.get().copied() else {
            if let Some(connection) = kept {
                beat_before_an_epoch(connection).await?;
            }
            return Ok(Found::Member);
        };
        let (mut connection, is_locked) = match kept.take() {
            Some(connection) => (connection, true),
            None => {
                let mut connection = connect(&self.server).await?;
                let is_locked = lock(&mut connection).await?;
                (connection, is_locked)
            }
        };
        // Whoever serves alone has removed the row before it serves.
        let found = self.beat(&mut connection, number).await?;
        *kept = is_locked.then_some(connection);
        Ok(found)
    }

    async fn beat(&mut self, connection: &mut AnyConnection, number: i64) -> Result<Found, StoreError> {
        let beat = format!("UPDATE controllers SET beats = beats + 1, beaten_at = {NOW} WHERE number = $1");
        let beaten = sqlx::query(sqlx::AssertSqlSafe(beat)).bind(number).execute(&mut *connection).await?;
        if beaten.rows_affected() == 0 {
            return Ok(Found::Expelled);
        }
        beat_before_an_epoch(connection).await?;
        let rows =
            sqlx::query("SELECT number, beats, leads FROM controllers").fetch_all(&mut *connection).await?;
        let mut beats = Vec::with_capacity(rows.len());
        let mut leader = None;
        for row in &rows {
            let of: i64 = row.try_get(0)?;
            beats.push((of, row.try_get(1)?));
            leader = leader.or((row.try_get::<i64, _>(2)? == 1).then_some(of));
        }
        let mut silent = self.sightings.look(&beats, Instant::now());
        silent.retain(|(of, _)| *of != number);
        let leads = leader == Some(number);
        let is_orphaned = leader.is_none_or(|leader| silent.iter().any(|(of, _)| *of == leader));
        let leads = match is_orphaned || leads && !silent.is_empty() {
            true => tend(connection, number, &silent).await?,
            false => leads,
        };
        let others: Vec<i64> = beats.iter().map(|(of, _)| *of).filter(|of| *of != number).collect();
        let somebody_left = !silent.is_empty() || self.others.iter().any(|of| !others.contains(of));
        self.seat.beaten(leads, !others.is_empty(), somebody_left);
        self.others = others;
        Ok(Found::Member)
    }
}

/// Removes those who are still as silent as they were seen, leads where nobody does then, and says whether
/// this one leads.
async fn tend(
    connection: &mut AnyConnection,
    number: i64,
    silent: &[(i64, i64)],
) -> Result<bool, StoreError> {
    let mut writing = connection.begin_with(super::BEGIN).await?;
    sqlx::query("SELECT refuse_unless_member($1)").bind(number).execute(&mut *writing).await?;
    for (other, beats) in silent {
        let removed = sqlx::query("DELETE FROM controllers WHERE number = $1 AND beats = $2");
        if removed.bind(other).bind(beats).execute(&mut *writing).await?.rows_affected() > 0 {
            tracing::warn!(
                controller = other,
                "a controller has not been heard of for 15 s and is taken for dead"
            );
            sqlx::query("DELETE FROM signals WHERE controller = $1")
                .bind(other)
                .execute(&mut *writing)
                .await?;
        }
    }
    let lead = "UPDATE controllers SET leads = 1 WHERE number = $1 \
                AND NOT EXISTS (SELECT 1 FROM controllers WHERE leads = 1 AND number <> $1)";
    let leads = sqlx::query(lead).bind(number).execute(&mut *writing).await?.rows_affected() > 0;
    writing.commit().await?;
    Ok(leads)
}

/// Takes the lock; says whether nobody serves alone.
async fn lock(connection: &mut AnyConnection) -> Result<bool, StoreError> {
    Ok(sqlx::query(LOCK).fetch_one(connection).await?.try_get::<i64, _>(0)? == 1)
}
