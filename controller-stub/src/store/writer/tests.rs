//! The writer on a real database: what shares a commit, what a failure harms, and what a caller
//! that leaves takes back.

use sqlx::{Executor, Row};
use tempfile::TempDir;
use tokio::sync::Notify;

use super::*;
use crate::{store::testing, tasks::Pulses};

struct Bench {
    writer: Arc<Writer>,
    reader: Connections,
    _folder: TempDir,
}

async fn bench() -> Bench {
    sqlx::any::install_default_drivers();
    let folder = tempfile::tempdir().unwrap();
    let place = testing::place(folder.path()).await;
    let reader = Connections::open(&place, 2).await.unwrap();
    let table = "CREATE TABLE words (word TEXT NOT NULL PRIMARY KEY)";
    reader.take().await.unwrap().execute(table).await.unwrap();
    let connection = Connections::open(&place, 1).await.unwrap();
    let writer = Arc::new(Writer::start(connection, place.begin(), None, Pulses::default().add("writer")));
    Bench { writer, reader, _folder: folder }
}

async fn words(reader: &Connections) -> Vec<String> {
    let rows = sqlx::query("SELECT word FROM words ORDER BY word")
        .fetch_all(&mut *reader.take().await.unwrap())
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Adds a word, and says which words another connection saw at that moment.
struct Add {
    word: &'static str,
    reader: Connections,
}

impl Write for Add {
    type Answer = Vec<String>;

    async fn run(&self, connection: &mut AnyConnection) -> Result<Vec<String>, StoreError> {
        sqlx::query("INSERT INTO words (word) VALUES ($1)").bind(self.word).execute(connection).await?;
        Ok(words(&self.reader).await)
    }
}

/// Holds the writer up, so that what is written meanwhile gathers.
struct Hold {
    reached: Arc<Notify>,
    release: Arc<Notify>,
}

impl Write for Hold {
    type Answer = ();

    async fn run(&self, _: &mut AnyConnection) -> Result<(), StoreError> {
        self.reached.notify_one();
        self.release.notified().await;
        Ok(())
    }
}

impl Bench {
    /// Starts these writes while the writer is held up, and gives each one's answer.
    async fn together(&self, words: &[&'static str]) -> Vec<Result<Vec<String>, StoreError>> {
        let hold = Hold { reached: Arc::default(), release: Arc::default() };
        let (reached, release) = (hold.reached.clone(), hold.release.clone());
        let writer = self.writer.clone();
        let held = tokio::spawn(async move { writer.write(hold).await });
        reached.notified().await;
        let mut answers = Vec::new();
        for word in words {
            let (caller, answer) = oneshot::channel();
            let write = Add { word, reader: self.reader.clone() };
            self.writer
                .jobs
                .send(Box::new(Waiting { write, pending: None, outcome: None, caller }))
                .await
                .unwrap();
            answers.push(answer);
        }
        release.notify_one();
        held.await.unwrap().unwrap();
        let mut outcomes = Vec::new();
        for answer in answers {
            outcomes.push(answer.await.unwrap());
        }
        outcomes
    }
}

#[tokio::test]
async fn writes_that_waited_together_share_a_commit_and_are_answered_after_it() {
    let bench = bench().await;
    let seen = bench.together(&["a", "b", "c"]).await;
    for seen in seen {
        assert_eq!(seen.unwrap(), [""; 0], "nothing was committed while they ran");
    }
    assert_eq!(words(&bench.reader).await, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_write_that_fails_harms_no_other_of_its_commit() {
    let bench = bench().await;
    let outcomes = bench.together(&["a", "b", "a", "c"]).await;
    let done: Vec<_> = outcomes.iter().map(Result::is_ok).collect();
    assert_eq!(done, [true, true, false, true]);
    assert_eq!(words(&bench.reader).await, ["a", "b", "c"]);
    // And the writer goes on.
    bench.writer.write(Add { word: "d", reader: bench.reader.clone() }).await.unwrap();
    assert_eq!(words(&bench.reader).await, ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn a_caller_that_goes_away_takes_nothing_back_and_a_close_writes_what_waits() {
    let bench = bench().await;
    let hold = Hold { reached: Arc::default(), release: Arc::default() };
    let (reached, release) = (hold.reached.clone(), hold.release.clone());
    let writer = bench.writer.clone();
    let held = tokio::spawn(async move { writer.write(hold).await });
    reached.notified().await;
    let (caller, answer) = oneshot::channel();
    let write = Add { word: "a", reader: bench.reader.clone() };
    bench.writer.jobs.send(Box::new(Waiting { write, pending: None, outcome: None, caller })).await.unwrap();
    drop(answer);
    held.abort();
    release.notify_one();
    bench.writer.close().await;
    assert_eq!(words(&bench.reader).await, ["a"]);
    let late = bench.writer.write(Add { word: "b", reader: bench.reader.clone() }).await;
    assert!(matches!(late, Err(StoreError::Closed)), "{late:?}");
}

/// Fills the database to the last page that it may have.
struct Fill;

impl Write for Fill {
    type Answer = ();

    async fn run(&self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        connection.execute("PRAGMA max_page_count = 8").await?;
        sqlx::query("INSERT INTO words (word) VALUES ($1)")
            .bind("x".repeat(100_000))
            .execute(connection)
            .await?;
        Ok(())
    }
}

#[tokio::test]
async fn a_full_disk_fails_the_writes_of_its_time_alone() {
    let bench = bench().await;
    for word in ["a", "b", "c"] {
        let full = bench.writer.write(Fill).await.unwrap_err();
        assert_eq!(full.problem(), Problem::Full, "{full:?}");
        bench.writer.write(Add { word, reader: bench.reader.clone() }).await.unwrap();
    }
    assert_eq!(words(&bench.reader).await, ["a", "b", "c"]);
}
