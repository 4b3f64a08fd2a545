//! Carries the database of a deployment over from SQLite to PostgreSQL.

use serde::Serialize;

use super::CommandError;
use crate::{
    config::Config,
    store::{Place, transfer},
};

/// How many rows of a table were carried over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CarriedTable {
    /// The table.
    pub table: &'static str,
    /// Its rows.
    pub rows: u64,
}

/// Carries everything over: `from` is the configuration of the database that it comes from, `to` that of an
/// empty one. No controller may serve either meanwhile.
pub async fn migrate(from: &Config, to: &Config) -> Result<Vec<CarriedTable>, CommandError> {
    let carried = transfer(&Place::of(from)?, &Place::of(to)?).await?;
    Ok(carried.into_iter().map(|it| CarriedTable { table: it.table, rows: it.rows }).collect())
}
