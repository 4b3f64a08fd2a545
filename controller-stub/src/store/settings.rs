//! Settings: a name and a value.

use sqlx::{AnyConnection, AnyPool, Row};

use super::{StoreError, writer::Write};

pub(super) async fn read(pool: &AnyPool, name: &str) -> Result<Option<String>, StoreError> {
    let row =
        sqlx::query("SELECT value FROM settings WHERE name = $1").bind(name).fetch_optional(pool).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// Writes a setting.
pub(super) struct Put {
    pub name: String,
    pub value: String,
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
pub(super) struct Settle {
    pub name: String,
    pub value: String,
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
