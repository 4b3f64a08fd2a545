//! The newest index of releases that this controller publishes. Its signature was verified when it was
//! imported, and each node verifies it again: what stands here decides what is offered, never what is
//! installed.

use std::{io, path::PathBuf};

use aio_protocol::{
    error_code::ErrorCode,
    release::index::{INDEX, ReleaseIndex},
};

use crate::releases::{ImportError, published_index};

/// Why there is no index.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoIndex {
    #[error("the controller has no releases folder, and so no index of releases")]
    NoFolder,
    #[error("there is no {}", .0.display())]
    Absent(PathBuf),
    #[error(transparent)]
    Unusable(ImportError),
}

impl NoIndex {
    /// The catalogue's code.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Unusable(ImportError::Io { .. }) => ErrorCode::FileFailed,
            _ => ErrorCode::IndexInvalid,
        }
    }
}

/// Reads the index in the releases folder, off the runtime.
pub(crate) async fn newest_index(folder: Option<PathBuf>) -> Result<ReleaseIndex, NoIndex> {
    let folder = folder.ok_or(NoIndex::NoFolder)?;
    let path = folder.join(INDEX);
    match tokio::task::spawn_blocking(move || published_index(&folder)).await {
        Ok(Ok(index)) => index.ok_or(NoIndex::Absent(path)),
        Ok(Err(error)) => Err(NoIndex::Unusable(error)),
        Err(error) => {
            let source = io::Error::other(error);
            Err(NoIndex::Unusable(ImportError::Io { action: "read", path, source }))
        }
    }
}
