//! The database: how it is opened and closed. Reads go over a pool, all changes through one writer. What is read and changed stands
//! beside each table.

use std::path::Path;

use reqwest::Url;
use sqlx::{AnyPool, Executor, any::AnyPoolOptions};

use super::{error::StoreError, writer::Writer};

/// Of readers; the writer has one of its own.
const CONNECTIONS: u32 = 4;

/// The store. Clones share it.
#[derive(Clone)]
pub(crate) struct Store {
    pub(super) pool: AnyPool,
    pub(super) writer: Writer,
}

impl Store {
    /// Opens the database at `url`, or `controller.db` in `data_dir`, making it when it is not there.
    pub(crate) async fn open(url: Option<&str>, data_dir: &Path) -> Result<Self, StoreError> {
        let url = match url {
            Some(url) => url.to_owned(),
            None => file_url(&data_dir.join("controller.db"))?,
        };
        sqlx::any::install_default_drivers();
        let options = AnyPoolOptions::new().after_connect(|connection, _| {
            Box::pin(async move {
                // A commit is on the disk when it returns, and another process that writes is waited for.
                connection
                    .execute(
                        "PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                         PRAGMA foreign_keys = ON;",
                    )
                    .await?;
                Ok(())
            })
        });
        let pool = options.clone().max_connections(CONNECTIONS).connect(&url).await?;
        // SQLite has no lock to hold over migrations. Of two processes that start on a new database at once, the slower may fail at
        // each of them once, and on its next try finds that one done.
        let migrations = sqlx::migrate!("./migrations");
        let mut tries = migrations.iter().count();
        while let Err(error) = migrations.run(&pool).await {
            if tries == 0 {
                return Err(error.into());
            }
            tries -= 1;
        }
        let writer = Writer::start(options.max_connections(1).connect(&url).await?);
        let store = Self { pool, writer };
        store.fill_name_keys().await?;
        Ok(store)
    }

    /// Writes what waits and closes every connection, so that nothing is left to recover.
    pub(crate) async fn close(&self) {
        self.writer.close().await;
        self.pool.close().await;
    }
}

/// The database of a file, whatever characters its path has.
fn file_url(path: &Path) -> Result<String, StoreError> {
    let unusable = || StoreError::Place(path.display().to_string());
    let path_text = std::path::absolute(path).map_err(|_| unusable())?;
    let url = Url::from_file_path(path_text).map_err(|()| unusable())?;
    Ok(format!("sqlite://{}?mode=rwc", url.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_database_is_made_wherever_its_folder_is_and_survives_its_process() {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join("odd name %41 ? # é");
        std::fs::create_dir(&folder).unwrap();
        let store = Store::open(None, &folder).await.unwrap();
        assert_eq!(store.settle("owner", "first").await.unwrap(), "first");
        assert_eq!(store.settle("owner", "second").await.unwrap(), "first");
        store.close().await;
        assert!(folder.join("controller.db").is_file());

        let again = Store::open(None, &folder).await.unwrap();
        assert_eq!(again.setting("owner").await.unwrap().as_deref(), Some("first"));
        again.put_setting("owner", "third").await.unwrap();
        assert_eq!(again.setting("owner").await.unwrap().as_deref(), Some("third"));
        assert_eq!(again.setting("nothing").await.unwrap(), None);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn two_processes_may_start_on_a_new_database_at_once() {
        let data = tempfile::tempdir().unwrap();
        let open = || {
            let folder = data.path().to_owned();
            tokio::spawn(async move { Store::open(None, &folder).await })
        };
        let (first, second) = (open(), open());
        first.await.unwrap().unwrap().put_setting("owner", "one").await.unwrap();
        assert_eq!(second.await.unwrap().unwrap().setting("owner").await.unwrap().as_deref(), Some("one"));
    }

    #[tokio::test]
    async fn every_connection_is_durable_and_patient() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::open(None, data.path()).await.unwrap();
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut connection = store.pool.acquire().await.unwrap();
            let read = async |connection: &mut sqlx::AnyConnection, pragma| {
                use sqlx::Row;
                let row = sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA {pragma}")))
                    .fetch_one(connection)
                    .await
                    .unwrap();
                row.try_get::<i64, _>(0).unwrap()
            };
            assert_eq!(read(&mut connection, "synchronous").await, 2);
            assert_eq!(read(&mut connection, "busy_timeout").await, 10_000);
            held.push(connection);
        }
    }
}
