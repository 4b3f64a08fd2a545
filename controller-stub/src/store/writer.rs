//! All that changes the database goes through one task: it takes the writes that wait, runs them in
//! one transaction, commits once, and only then answers each. While one commit waits for the disk,
//! the next writes gather, so that a busy controller pays one flush for many changes and an idle
//! one waits for nobody. Reads go over the pool beside it.
//!
//! To add a write: a struct that owns what it writes, `impl Write` for it beside the reads of its
//! table, and a method of `Store` that hands it to `Writer::write`. Four rules come with it:
//!
//! - `run` either does all of its work or none when it answers `Ok`. What it refuses (a row that is newer
//!   than expected) it sees by the affected rows of its first statement, and says so in its answer, not as an
//!   error.
//! - `run` may be called twice: when a write of the batch fails, everything is rolled back and each write
//!   runs again alone, so that the one that fails harms no other.
//! - An answer by which nothing was changed is told from others by `changed`.
//! - Nothing that takes time but SQL belongs into `run`: everybody else waits. JSON is made before.

use std::{future::Future, pin::Pin, sync::Arc, time::Instant};

use sqlx::{AnyConnection, AssertSqlSafe, Connection};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    connections::Connections,
    error::{Problem, StoreError, problem},
    record::{Pending, Subject},
    reserve::Reserve,
};
use crate::tasks::Pulse;

/// So many writes wait for their turn; who comes then waits for room.
const QUEUE: usize = 1024;

/// So many writes share a commit at most, so that the first of them does not wait for long.
const BATCH: usize = 256;

/// Times that a write is made which the server rolled back for the sake of another one, of whatever else works
/// on the database. Ours wait for each other.
const COLLISIONS: u32 = 5;

/// One change of the database.
pub(super) trait Write: Send + Sync + 'static {
    /// What its caller learns.
    type Answer: Send;

    /// Whether it takes rights away, so that the last room on the disk is for it.
    fn is_urgent(&self) -> bool {
        false
    }

    /// Makes the change in the transaction of `connection`.
    fn run(
        &self,
        connection: &mut AnyConnection,
    ) -> impl Future<Output = Result<Self::Answer, StoreError>> + Send;

    /// Whether this answer means that something changed, which is recorded.
    fn changed(_answer: &Self::Answer) -> bool {
        true
    }

    /// What was changed, for the record; what whoever asked named when empty.
    fn subjects(&self) -> Vec<Subject> {
        Vec::new()
    }
}

/// Where writes are handed in.
#[derive(Clone)]
pub(super) struct Writer {
    jobs: mpsc::Sender<Box<dyn Job>>,
    stop: CancellationToken,
    task: TaskTracker,
    /// How many transactions were committed.
    #[cfg(feature = "pages")]
    commits: watch::Sender<u64>,
    /// The record of what is written next.
    pending: Option<Pending>,
}

impl Writer {
    /// A writer on a connection of its own, whose transactions begin with the statement `begin`.
    pub(super) fn start(pool: Connections, begin: String, reserve: Option<Reserve>, pulse: Pulse) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (stop, task) = (CancellationToken::new(), TaskTracker::new());
        let counter = watch::Sender::new(0);
        #[cfg(feature = "pages")]
        let commits = counter.clone();
        task.spawn(Committer { pool, begin, reserve, pulse, commits: counter }.serve(queue, stop.clone()));
        task.close();
        Self {
            jobs,
            stop,
            task,
            #[cfg(feature = "pages")]
            commits,
            pending: None,
        }
    }

    /// Changes whenever a transaction was committed.
    #[cfg(feature = "pages")]
    pub(super) fn commits(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }

    /// Notes a transaction that another process has committed.
    #[cfg(feature = "pages")]
    pub(super) fn note_commit(&self) {
        self.commits.send_modify(|commits| *commits += 1);
    }

    /// This writer, with a record of its first change.
    pub(super) fn recording(&self, pending: Pending) -> Self {
        Self { pending: Some(pending), ..self.clone() }
    }

    /// This writer, with no record of what it changes.
    pub(super) fn silent(&self) -> Self {
        Self { pending: None, ..self.clone() }
    }

    pub(super) fn pending(&self) -> Option<&Pending> {
        self.pending.as_ref()
    }

    /// Makes a change. When this answers, it is on the disk; a caller that goes away earlier does
    /// not take it back.
    pub(super) async fn write<W: Write>(&self, write: W) -> Result<W::Answer, StoreError> {
        let (caller, answer) = oneshot::channel();
        let pending = self.pending.clone().filter(|pending| !pending.is_written());
        let job = Box::new(Waiting { write, pending, outcome: None, caller });
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Writes what waits, and takes no more.
    pub(super) async fn close(&self) {
        self.stop.cancel();
        self.task.wait().await;
    }

    /// Waits until no more is written, for whatever reason.
    pub(super) async fn ended(&self) {
        self.task.wait().await;
    }
}

/// A write whose caller waits, whatever its answer is.
trait Job: Send {
    /// Whether the last room on the disk is for it.
    fn is_urgent(&self) -> bool;
    /// Runs it, and says why it cannot be committed.
    fn run<'a>(
        &'a mut self,
        connection: &'a mut AnyConnection,
    ) -> Pin<Box<dyn Future<Output = Result<(), Problem>> + Send + 'a>>;
    /// Tells the caller what came of it.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Waiting<W: Write> {
    write: W,
    pending: Option<Pending>,
    outcome: Option<Result<W::Answer, StoreError>>,
    caller: oneshot::Sender<Result<W::Answer, StoreError>>,
}

impl<W: Write> Job for Waiting<W> {
    fn is_urgent(&self) -> bool {
        self.write.is_urgent()
    }

    fn run<'a>(
        &'a mut self,
        connection: &'a mut AnyConnection,
    ) -> Pin<Box<dyn Future<Output = Result<(), Problem>> + Send + 'a>> {
        Box::pin(async move {
            let mut outcome = self.write.run(connection).await;
            if let (Ok(answer), Some(pending)) = (&outcome, &self.pending)
                && W::changed(answer)
                && let Err(error) = pending.write(connection, self.write.subjects()).await
            {
                outcome = Err(error);
            }
            let done = outcome.as_ref().map(drop).map_err(StoreError::problem);
            self.outcome = Some(outcome);
            done
        })
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let Self { outcome, caller, pending, .. } = *self;
        if let (Some(Ok(answer)), Ok(()), Some(pending)) = (&outcome, &committed, pending)
            && W::changed(answer)
        {
            pending.commit();
        }
        let answer = match (outcome, committed) {
            (Some(Err(error)), _) | (_, Err(error)) => Err(error),
            (Some(Ok(answer)), Ok(())) => Ok(answer),
            (None, Ok(())) => Err(StoreError::RolledBack),
        };
        // Whoever asked may be gone; the change stands all the same.
        let _ = caller.send(answer);
    }
}

/// Why jobs were not committed.
enum Uncommitted {
    /// There was no transaction, which is nobody's fault.
    Unbegun(Arc<sqlx::Error>),
    /// A job failed.
    Failed(Problem),
    /// The commit itself failed.
    Lost(sqlx::Error),
}

impl Uncommitted {
    /// Whether the server has rolled everything back for the sake of another transaction.
    fn is_collision(&self) -> bool {
        match self {
            Self::Unbegun(error) => problem(error) == Problem::Collided,
            Self::Lost(error) => problem(error) == Problem::Collided,
            Self::Failed(problem) => *problem == Problem::Collided,
        }
    }

    fn is_full(&self) -> bool {
        match self {
            Self::Unbegun(error) => problem(error) == Problem::Full,
            Self::Lost(error) => problem(error) == Problem::Full,
            Self::Failed(problem) => *problem == Problem::Full,
        }
    }
}

/// What takes the waiting writes and commits them.
struct Committer {
    pool: Connections,
    begin: String,
    reserve: Option<Reserve>,
    pulse: Pulse,
    commits: watch::Sender<u64>,
}

impl Committer {
    async fn serve(mut self, mut queue: mpsc::Receiver<Box<dyn Job>>, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                taken = queue.recv_many(&mut batch, BATCH) => match taken {
                    0 => break,
                    _ => {
                        let pulse = self.pulse.clone();
                        let _turn = pulse.turn();
                        if let Some(error) = self.write(&mut batch).await {
                            // Who came meanwhile does not wait as long again for the same answer.
                            while let Ok(job) = queue.try_recv() {
                                job.answer(Err(StoreError::Database(error.clone())));
                            }
                        }
                    }
                },
                () = stop.cancelled(), if !queue.is_closed() => queue.close(),
            }
        }
        self.pool.close().await;
    }

    /// Commits the whole batch at once, or, when one of its writes fails, each of them alone.
    /// Empties the batch. Says why there is no transaction to be had.
    async fn write(&mut self, batch: &mut Vec<Box<dyn Job>>) -> Option<Arc<sqlx::Error>> {
        let began = Instant::now();
        metrics::histogram!("aio_store_commit_writes").record(u32::try_from(batch.len()).unwrap_or(u32::MAX));
        if self.reserve.as_mut().is_some_and(Reserve::is_spent) {
            for job in batch.extract_if(.., |job| !job.is_urgent()) {
                job.answer(Err(StoreError::Reserved));
            }
        }
        let mut unbegun: Option<Arc<sqlx::Error>> = None;
        if batch.len() > 1 {
            match self.commit(batch).await {
                Ok(()) => batch.drain(..).for_each(|job| job.answer(Ok(()))),
                Err(Uncommitted::Unbegun(error)) if problem(&error) != Problem::Full => unbegun = Some(error),
                Err(_) => {}
            }
        }
        for job in batch.drain(..) {
            if let Some(error) = &unbegun {
                job.answer(Err(StoreError::Database(error.clone())));
                continue;
            }
            let mut alone = [job];
            let mut committed = self.commit(&mut alone).await;
            for _ in 1..COLLISIONS {
                if !committed.as_ref().is_err_and(Uncommitted::is_collision) {
                    break;
                }
                committed = self.commit(&mut alone).await;
            }
            if alone.iter().all(|job| job.is_urgent())
                && committed.as_ref().is_err_and(Uncommitted::is_full)
                && self.reserve.as_mut().is_some_and(Reserve::spend)
            {
                committed = self.commit(&mut alone).await;
            }
            let [job] = alone;
            job.answer(match committed {
                Ok(()) => Ok(()),
                Err(Uncommitted::Failed(_)) => Err(StoreError::RolledBack),
                Err(Uncommitted::Lost(error)) => Err(error.into()),
                // A write that is urgent may still find room.
                Err(Uncommitted::Unbegun(error)) if problem(&error) == Problem::Full => Err(error.into()),
                // The next would wait as long for the same answer.
                Err(Uncommitted::Unbegun(error)) => Err(StoreError::Database(unbegun.insert(error).clone())),
            });
        }
        metrics::histogram!("aio_store_commit_seconds").record(began.elapsed());
        unbegun
    }

    /// Runs these writes in one transaction; what fails rolls all of them back.
    async fn commit(&self, jobs: &mut [Box<dyn Job>]) -> Result<(), Uncommitted> {
        let mut connection = self.pool.take().await.map_err(Uncommitted::Unbegun)?;
        let committed = transact(&mut connection, &self.begin, jobs).await;
        if committed.is_err() {
            // The database may have rolled back by itself, and sqlx does not know. A new connection
            // knows of no transaction.
            let _ = connection.close().await;
        } else {
            self.commits.send_modify(|commits| *commits += 1);
        }
        committed
    }
}

async fn transact(
    connection: &mut AnyConnection,
    begin: &str,
    jobs: &mut [Box<dyn Job>],
) -> Result<(), Uncommitted> {
    let unbegun = |error: sqlx::Error| Uncommitted::Unbegun(error.into());
    let mut transaction = connection.begin_with(AssertSqlSafe(begin)).await.map_err(unbegun)?;
    for job in jobs {
        job.run(&mut transaction).await.map_err(Uncommitted::Failed)?;
    }
    transaction.commit().await.map_err(Uncommitted::Lost)
}

#[cfg(test)]
mod tests;
