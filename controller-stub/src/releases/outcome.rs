//! What became of a version, or of the index, that was to be taken over.

use serde::Serialize;

/// What became of a version, or of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It is new.
    Added,
    /// It was there, and has more files now.
    Extended,
    /// It was there, and has other signatures now.
    SignedAgain,
    /// An older one was there: of an index.
    Replaced,
    /// It was there with these bytes.
    AlreadyThere,
}
