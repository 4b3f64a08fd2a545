//! What a daemon needs in order to go by another configuration without being another process: who
//! asks for it, and how it is read. What a changed configuration means for a session is the session
//! loop's to say.

use aio_installer::Failure;
use tokio::sync::mpsc;

use crate::config::WorkerConfig;

/// Reads all that may have changed, beside the configuration in force. Changes nothing unless all
/// of it can be used.
pub type Read = Box<dyn FnMut(&WorkerConfig) -> Result<WorkerConfig, Failure> + Send>;

/// The way to another configuration.
pub struct Reload {
    /// Somebody asks for it; nobody can any more once the other end is gone.
    pub asked: mpsc::Receiver<()>,
    /// How it is read.
    pub read: Read,
}

impl Reload {
    /// The way that nobody goes.
    pub fn never() -> Self {
        Self { asked: mpsc::channel(1).1, read: Box::new(|config| Ok(config.clone())) }
    }
}

impl std::fmt::Debug for Reload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reload")
    }
}
