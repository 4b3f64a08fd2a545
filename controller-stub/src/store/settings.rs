//! Settings: a name and a value.

use sqlx::{AnyConnection, Row};

use super::{database::Store, error::StoreError, writer::Write};

impl Store {
    /// Reads a setting.
    pub(crate) async fn setting(&self, name: &str) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT value FROM settings WHERE name = $1")
            .bind(name)
            .fetch_optional(&mut *self.pool.take().await?)
            .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    /// Writes a setting.
    pub(crate) async fn put_setting(&self, name: &str, value: &str) -> Result<(), StoreError> {
        self.writer.write(Put { name: name.to_owned(), value: value.to_owned() }).await
    }

    /// Writes a setting unless it has a value, and reads the value that it has then.
    pub(crate) async fn settle(&self, name: &str, value: &str) -> Result<String, StoreError> {
        self.writer.write(Settle { name: name.to_owned(), value: value.to_owned() }).await
    }
}

/// Writes a setting.
struct Put {
    name: String,
    value: String,
}

impl Write for Put {
    type Answer = ();

    async fn run(&self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(&self.name)
        .bind(&self.value)
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// Writes a setting unless it has a value, and reads the value that it has then.
struct Settle {
    name: String,
    value: String,
}

impl Write for Settle {
    type Answer = String;

    async fn run(&self, connection: &mut AnyConnection) -> Result<String, StoreError> {
        sqlx::query("INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
            .bind(&self.name)
            .bind(&self.value)
            .execute(&mut *connection)
            .await?;
        let row = sqlx::query("SELECT value FROM settings WHERE name = $1")
            .bind(&self.name)
            .fetch_one(connection)
            .await?;
        Ok(row.try_get(0)?)
    }
}
