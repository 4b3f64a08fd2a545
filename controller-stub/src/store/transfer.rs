//! Carries everything of one database over into another that is empty: table by table in one transaction, and
//! compared row by row before it is committed. The database that it comes from stays as it was.

use futures_util::TryStreamExt;
use sqlx::{AnyConnection, AssertSqlSafe, Connection, Row, any::AnyRow};

use super::{
    database::set_up,
    dialect::{self, Place},
    error::StoreError,
    rows::count,
};

/// Rows that one statement adds.
const BATCH: usize = 200;

/// Tables that say who serves, which is another matter in another database.
const OF_CONTROLLERS: [&str; 2] = ["controllers", "signals"];

/// How many rows of a table were carried over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Carried {
    pub table: &'static str,
    pub rows: u64,
}

/// A value of a column. The tables have no others.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Text(Option<String>),
    Number(Option<i64>),
    Bytes(Option<Vec<u8>>),
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Number,
    Bytes,
}

struct Table {
    name: &'static str,
    columns: Vec<(String, Kind)>,
    /// The columns of its key.
    key: Vec<String>,
}

/// Carries all of `from` over into `to`, which a database of SQLite's and one of PostgreSQL's may be. Nobody
/// may serve either meanwhile.
pub(crate) async fn transfer(from: &Place, to: &Place) -> Result<Vec<Carried>, StoreError> {
    if !from.is_file() || to.is_file() {
        let problem = "what is carried over is a database of SQLite's, into one of PostgreSQL's";
        return Err(StoreError::Place(problem.to_owned()));
    }
    sqlx::any::install_default_drivers();
    from.refuse_missing()?;
    from.check().await?;
    // Keeps servers out.
    let (_source, _target) = (from.serve(false).await?, to.serve(false).await?);
    set_up(from).await?;
    set_up(to).await?;
    let mut source = AnyConnection::connect_with(&from.options()?).await?;
    let mut target = AnyConnection::connect_with(&to.options()?).await?;
    let mut writing = target.begin_with(AssertSqlSafe(to.begin())).await?;
    let mut carried = Vec::new();
    for name in dialect::tables().filter(|name| !OF_CONTROLLERS.contains(name)) {
        let table = describe(&mut source, name).await?;
        let there = sqlx::query(AssertSqlSafe(format!("SELECT COUNT(*) FROM {name}")));
        if count(&there.fetch_one(&mut *writing).await?, 0)? > 0 {
            return Err(StoreError::Place(format!(
                "{} is not empty: the table `{name}` has rows",
                to.name()
            )));
        }
        let rows = carry(&table, &mut source, &mut writing).await?;
        compare(&table, &mut source, &mut writing).await?;
        carried.push(Carried { table: name, rows });
    }
    writing.commit().await?;
    source.close().await?;
    target.close().await?;
    Ok(carried)
}

async fn describe(connection: &mut AnyConnection, name: &'static str) -> Result<Table, StoreError> {
    let columns = format!("SELECT name, type, pk FROM pragma_table_info('{name}') ORDER BY cid");
    let rows = sqlx::query(AssertSqlSafe(columns)).fetch_all(connection).await?;
    let mut table = Table { name, columns: Vec::new(), key: Vec::new() };
    for row in &rows {
        let (column, of): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let kind = match of.as_str() {
            "TEXT" => Kind::Text,
            "BLOB" => Kind::Bytes,
            _ => Kind::Number,
        };
        if row.try_get::<i64, _>(2)? > 0 {
            table.key.push(column.clone());
        }
        table.columns.push((column, kind));
    }
    Ok(table)
}

impl Table {
    fn names(&self) -> String {
        self.columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Everything, in the order of its key: texts are ordered by their bytes in both databases.
    fn select(&self) -> AssertSqlSafe<String> {
        AssertSqlSafe(format!("SELECT {} FROM {} ORDER BY {}", self.names(), self.name, self.key.join(", ")))
    }

    fn read(&self, row: &AnyRow) -> Result<Vec<Value>, sqlx::Error> {
        let values = self.columns.iter().enumerate().map(|(place, (_, kind))| {
            Ok(match kind {
                Kind::Text => Value::Text(row.try_get(place)?),
                Kind::Number => Value::Number(row.try_get(place)?),
                Kind::Bytes => Value::Bytes(row.try_get(place)?),
            })
        });
        values.collect()
    }

    fn insert(&self, rows: usize) -> String {
        let mut place = 0;
        let values: Vec<_> = (0..rows)
            .map(|_| {
                let places: Vec<_> = self
                    .columns
                    .iter()
                    .map(|_| {
                        place += 1;
                        format!("${place}")
                    })
                    .collect();
                format!("({})", places.join(", "))
            })
            .collect();
        format!("INSERT INTO {} ({}) VALUES {}", self.name, self.names(), values.join(", "))
    }
}

async fn carry(
    table: &Table,
    source: &mut AnyConnection,
    target: &mut AnyConnection,
) -> Result<u64, StoreError> {
    let mut rows = sqlx::query(table.select()).fetch(source);
    let (mut batch, mut carried) = (Vec::with_capacity(BATCH), 0);
    while let Some(row) = rows.try_next().await? {
        batch.push(table.read(&row)?);
        if batch.len() == BATCH {
            carried += insert(table, &mut batch, target).await?;
        }
    }
    if !batch.is_empty() {
        carried += insert(table, &mut batch, target).await?;
    }
    Ok(carried)
}

async fn insert(
    table: &Table,
    batch: &mut Vec<Vec<Value>>,
    target: &mut AnyConnection,
) -> Result<u64, StoreError> {
    let mut query = sqlx::query(AssertSqlSafe(table.insert(batch.len())));
    for value in batch.drain(..).flatten() {
        query = match value {
            Value::Text(text) => query.bind(text),
            Value::Number(number) => query.bind(number),
            Value::Bytes(bytes) => query.bind(bytes),
        };
    }
    Ok(query.execute(target).await?.rows_affected())
}

/// Refuses where one has a row that the other has not, or has otherwise.
async fn compare(
    table: &Table,
    source: &mut AnyConnection,
    target: &mut AnyConnection,
) -> Result<(), StoreError> {
    let mut ours = sqlx::query(table.select()).fetch(source);
    let mut theirs = sqlx::query(table.select()).fetch(target);
    let mut number = 0_u64;
    loop {
        number += 1;
        let (our, their) = (ours.try_next().await?, theirs.try_next().await?);
        let same = match (&our, &their) {
            (None, None) => return Ok(()),
            (Some(our), Some(their)) => table.read(our)? == table.read(their)?,
            _ => false,
        };
        if !same {
            let how = format!("row {number} of the table `{}` is another there", table.name);
            return Err(StoreError::Corrupt { what: "what was carried over", source: how.into() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_statement_adds_many_rows() {
        let columns = vec![("id".to_owned(), Kind::Text), ("at".to_owned(), Kind::Number)];
        let table = Table { name: "sightings", columns, key: vec!["id".to_owned()] };
        assert_eq!(table.insert(2), "INSERT INTO sightings (id, at) VALUES ($1, $2), ($3, $4)");
        assert_eq!(table.select().0, "SELECT id, at FROM sightings ORDER BY id");
    }
}
