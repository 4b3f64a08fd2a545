//! What a daemon needs in order to go by another configuration without being another process: who
//! asks for it, and how it is read, on a thread of its own, because a disk may hang. What a changed
//! configuration means for a session is the session loop's to say.

use std::sync::Arc;

use aio_installer::Failure;
use aio_protocol::error_code::ErrorCode;
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinHandle, spawn_blocking},
};

use crate::config::WorkerConfig;

/// Reads all that may have changed, beside the configuration in force. Changes nothing unless all
/// of it can be used.
pub type Read = Arc<dyn Fn(&WorkerConfig) -> Result<WorkerConfig, Failure> + Send + Sync>;

/// The way to another configuration.
pub struct Reload {
    asked: mpsc::Receiver<()>,
    read: Read,
    reading: Option<JoinHandle<Result<Loaded, Failure>>>,
}

/// A configuration that was read.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: WorkerConfig,
    /// The authorities that it names, as they were then.
    pub authorities: Option<Vec<u8>>,
}

/// What happens on the way.
#[derive(Debug)]
pub enum News {
    /// Somebody asks for another configuration.
    Asked,
    /// It was read, or cannot be used.
    Read(Box<Result<Loaded, Failure>>),
}

impl Reload {
    /// Whoever sends to `asked` asks for another configuration; nobody can any more once that end is gone.
    pub fn new(
        asked: mpsc::Receiver<()>,
        read: impl Fn(&WorkerConfig) -> Result<WorkerConfig, Failure> + Send + Sync + 'static,
    ) -> Self {
        Self { asked, read: Arc::new(read), reading: None }
    }

    /// The way that nobody goes.
    pub fn never() -> Self {
        Self::new(mpsc::channel(1).1, |config| Ok(config.clone()))
    }

    /// Begins to read, beside the configuration in force.
    pub fn begin(&mut self, config: WorkerConfig) {
        let read = self.read.clone();
        self.reading = Some(spawn_blocking(move || {
            let config = read(&config)?;
            Ok(Loaded { authorities: config.authorities(), config })
        }));
    }

    /// What happens next. Whoever asks while a configuration is being read is heard when that is done,
    /// because what was read may be older than the question.
    pub async fn next(&mut self) -> News {
        let Some(reading) = &mut self.reading else {
            return match self.asked.recv().await {
                Some(()) => News::Asked,
                None => std::future::pending().await,
            };
        };
        let read = reading.await;
        self.reading = None;
        let broken = |error: JoinError| Err(Failure::new(ErrorCode::Internal, error.to_string()));
        News::Read(Box::new(read.unwrap_or_else(broken)))
    }
}

impl std::fmt::Debug for Reload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reload")
    }
}
