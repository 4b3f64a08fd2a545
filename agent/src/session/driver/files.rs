//! Work on files, one after the other and off the loop: a disk that hangs delays no heartbeat and no
//! watchdog. Decides neither what is read or written nor what comes of it.

use std::collections::VecDeque;

use aio_host::files::FileError;
use aio_installer::Failure;
use aio_protocol::{event::ErrorReport, installation::UndeliveredFailure, wire::TokenOffer};
use tokio::task::{JoinHandle, spawn_blocking};
use uuid::Uuid;

use crate::{
    tokens::rotation::{Held, Origin},
    undelivered::Undelivered,
};

/// What has been done.
pub(super) enum Done {
    /// The authorities that the first configuration names were read.
    AuthoritiesRead(Option<Vec<u8>>),
    /// The tokens were read, for the connection of this number.
    TokensRead { connection: u64, tokens: Result<Vec<Held>, Failure> },
    /// The tokens were read, to find out whether another is there.
    TokensChecked(Result<Vec<Held>, Failure>),
    /// An offered token was stored as candidate, or could not be.
    Stored { offer: Uuid, outcome: Result<(), ErrorReport> },
    /// The token of this origin was put in its place, or could not be.
    Kept(Origin, Result<(), FileError>),
    /// The candidate was removed, or could not be.
    Discarded(Result<(), FileError>),
    /// All that was to be done before an offer is weighed is done.
    OfferDue(Uuid, TokenOffer),
    /// What an installer left was read, on the connection of this number.
    UndeliveredRead { connection: u64, undelivered: Undelivered, due: Vec<UndeliveredFailure> },
}

type Work = Box<dyn FnOnce() -> Done + Send>;

/// What is being done, and what waits for it.
#[derive(Default)]
pub(super) struct Files {
    running: Option<JoinHandle<Done>>,
    waiting: VecDeque<Work>,
}

impl Files {
    /// Whether anything is still to be done.
    pub(super) fn is_busy(&self) -> bool {
        self.running.is_some()
    }

    /// Does this when all before it is done.
    pub(super) fn push(&mut self, work: impl FnOnce() -> Done + Send + 'static) {
        self.waiting.push_back(Box::new(work));
        self.start();
    }

    /// The next that is done; none where it broke. Waits for ever while there is nothing to do.
    pub(super) async fn done(&mut self) -> Option<Done> {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let done = running.await;
        self.running = None;
        self.start();
        done.map_err(|error| tracing::error!(%error, "work on a file broke")).ok()
    }

    fn start(&mut self) {
        if self.running.is_none() {
            self.running = self.waiting.pop_front().map(spawn_blocking);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn kept(origin: Origin) -> Done {
        Done::Kept(origin, Ok(()))
    }

    #[tokio::test]
    async fn what_hangs_holds_up_what_comes_behind_it_and_nobody_else() {
        let mut files = Files::default();
        let (release, held) = mpsc::channel::<()>();
        files.push(move || {
            let _ = held.recv();
            kept(Origin::Installed)
        });
        files.push(|| kept(Origin::Kept));
        let soon = std::time::Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, files.done()).await.is_err());
        assert!(files.is_busy());
        release.send(()).unwrap();
        assert!(matches!(files.done().await, Some(Done::Kept(Origin::Installed, _))));
        assert!(matches!(files.done().await, Some(Done::Kept(Origin::Kept, _))));
        assert!(!files.is_busy());
    }

    #[tokio::test]
    async fn what_breaks_does_not_stop_the_rest() {
        let mut files = Files::default();
        files.push(|| panic!("broken on purpose"));
        files.push(|| kept(Origin::Kept));
        assert!(files.done().await.is_none());
        assert!(files.done().await.is_some());
    }
}
