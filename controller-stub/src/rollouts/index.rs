//! The newest index of releases that this controller publishes. Its signature was verified when it was
//! imported, and each node verifies it again: what stands here decides what is offered, never what is installed.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use aio_protocol::release::index::{INDEX, MAX_INDEX_BYTES, ReleaseIndex};

/// Why there is no index.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoIndex {
    #[error("the controller has no releases folder, and so no index of releases")]
    NoFolder,
    #[error("there is no {}", .0.display())]
    Absent(PathBuf),
    #[error("{} cannot be read", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} is no index of releases: {problem}", path.display())]
    Invalid { path: PathBuf, problem: String },
}

/// Reads the index in the releases folder, off the runtime.
pub(crate) async fn newest_index(folder: Option<PathBuf>) -> Result<ReleaseIndex, NoIndex> {
    let folder = folder.ok_or(NoIndex::NoFolder)?;
    let path = folder.join(INDEX);
    let failed = |source| NoIndex::Unreadable { path: path.clone(), source };
    let file = path.clone();
    match tokio::task::spawn_blocking(move || read(&file)).await.map_err(io::Error::other) {
        Ok(Ok(index)) => Ok(index),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Err(NoIndex::Absent(path)),
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
            Err(NoIndex::Invalid { path, problem: error.to_string() })
        }
        Ok(Err(error)) | Err(error) => Err(failed(error)),
    }
}

fn read(path: &Path) -> io::Result<ReleaseIndex> {
    let mut text = String::new();
    let read = File::open(path)?.take(MAX_INDEX_BYTES + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_INDEX_BYTES {
        let problem = format!("it is larger than {MAX_INDEX_BYTES} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    serde_json::from_str(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
