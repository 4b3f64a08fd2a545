//! Values as columns hold them: the one place where a row's text and numbers become the domain's types.

use aio_protocol::{
    ids::{NodeId, OwnerId},
    node::NodeStatus,
    time::Timestamp,
};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{Row, any::AnyRow};

use super::error::StoreError;

/// Which part of a list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub offset: u64,
    pub limit: u64,
}

/// Something in a column that is not what was written there.
pub(super) fn corrupt<E: std::error::Error + Send + Sync + 'static>(
    what: &'static str,
) -> impl FnOnce(E) -> StoreError {
    move |source| StoreError::Corrupt { what, source: Box::new(source) }
}

/// A time in a column.
pub(super) fn time(row: &AnyRow, column: &str) -> Result<Timestamp, StoreError> {
    Ok(Timestamp::from_millis(row.try_get(column)?))
}

/// A time in a column that may be empty.
pub(super) fn optional_time(row: &AnyRow, column: &str) -> Result<Option<Timestamp>, StoreError> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(Timestamp::from_millis))
}

/// A count in a column.
pub(super) fn count(row: &AnyRow, column: usize) -> Result<u64, StoreError> {
    Ok(u64::try_from(row.try_get::<i64, _>(column)?).unwrap_or(0))
}

/// A node's id in the first column.
pub(super) fn node_id(row: &AnyRow) -> Result<NodeId, StoreError> {
    row.try_get::<String, _>(0)?.parse().map_err(corrupt("node_id"))
}

/// A node and whose it is, in the first two columns.
pub(super) fn owned_node(row: &AnyRow) -> Result<(NodeId, OwnerId), StoreError> {
    Ok((node_id(row)?, row.try_get::<String, _>(1)?.parse().map_err(corrupt("org_id"))?))
}

/// A status in a column.
pub(super) fn status(row: &AnyRow, column: &'static str) -> Result<NodeStatus, StoreError> {
    from_json(column, &format!("\"{}\"", row.try_get::<String, _>(column)?))
}

/// An unsigned number for a column.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A structure for a column.
pub(super) fn json(what: &'static str, value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(corrupt(what))
}

/// A structure in a column.
pub(super) fn from_json<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(corrupt(what))
}
