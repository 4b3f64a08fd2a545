//! What is wrong with a machine beside its GPUs and containers, as its worker judges it.

use serde::{Deserialize, Serialize};

use crate::text::bounded;

/// Something about a machine that a person should look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct MachineProblem {
    /// What it is of.
    pub kind: MachineProblemKind,
    /// Which of several: a mount point, a sensor or a unit; empty where there is one.
    #[serde(default, deserialize_with = "bounded::<_, _, 255>", skip_serializing_if = "String::is_empty")]
    pub part: String,
    /// In a sentence.
    #[serde(deserialize_with = "bounded::<_, _, 255>")]
    pub reason: String,
}

/// What is wrong with a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum MachineProblemKind {
    /// A file system has little room left.
    DiskFull,
    /// A file system can hold few more files.
    InodesFull,
    /// Little main memory is available.
    MemoryFull,
    /// A sensor reports heat.
    Overheated,
    /// A service has failed.
    ServiceFailed,
    /// A word of a later version.
    #[serde(other)]
    Unknown,
}
