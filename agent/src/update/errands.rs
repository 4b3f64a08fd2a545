//! What the machine asks for, done beside the session's loop: looks at root's word and at orders,
//! downloads, questions to root, and the memory's file. What comes of each is an input of the
//! machine. Decides nothing, and blocks nobody: all work on files is on threads of its own.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aio_protocol::{
    error_code::ErrorCode,
    failure::Failure,
    time::Timestamp,
    update::{RootRequest, RootStatus},
};
use jiff::tz::Offset;
use tokio::{
    sync::{Mutex as Turn, mpsc},
    task::spawn_blocking,
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;
use uuid::Uuid;

use super::{
    download::{self, Cancelled, Source},
    machine::{Input, STAGE_TIMEOUT},
    memory::Memory,
    offer::Offer,
    order::{self, Order, Orders},
    places::Places,
    root,
};
use crate::telemetry::handover::Handover;

/// A look at the machine takes no time where disks work.
const LOOK_PATIENCE: Duration = Duration::from_secs(5);

/// For the last look before this process ends.
const LAST_LOOK: Duration = Duration::from_millis(300);

/// What a look has found.
#[derive(Debug, Clone, PartialEq)]
pub struct Sight {
    /// Root's word, where it can be read.
    pub root: Option<RootStatus>,
    /// Whether root's socket is there.
    pub updater: bool,
    /// Whether a package owns the version.
    pub packaged: bool,
    /// What an operator asks.
    pub order: Option<Order>,
    /// How far the machine's clock on the wall is from UTC.
    pub offset: Offset,
}

impl Default for Sight {
    fn default() -> Self {
        Self { root: None, updater: false, packaged: false, order: None, offset: Offset::UTC }
    }
}

/// Looks. Reads files; an order to hurry is taken.
pub fn look(places: &Places) -> Sight {
    let now = order::now();
    let orders = Orders::in_folder(&places.runtime_dir);
    let found = orders.read(now);
    if matches!(found, Some(Order::Now(_)))
        && let Err(error) = orders.clear()
    {
        warn!(%error, reason = %error.source, "an order to update now cannot be removed");
    }
    Sight {
        root: root::status(&places.status).ok(),
        updater: places.socket.exists(),
        packaged: places.is_packaged(),
        order: found,
        offset: offset(now),
    }
}

/// How far this machine's clock on the wall is from UTC at that time.
pub fn offset(at: Timestamp) -> Offset {
    jiff::Timestamp::from_millisecond(at.as_millis())
        .map_or(Offset::UTC, |time| jiff::tz::TimeZone::system().to_offset(time))
}

/// What has come of an errand.
#[derive(Debug)]
pub enum Outcome {
    /// Of a look.
    Seen(Box<Sight>),
    /// Of all else.
    Input(Input),
}

/// The errands that are being run.
#[derive(Debug)]
pub struct Errands {
    places: Places,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
    tell: mpsc::UnboundedSender<Outcome>,
    download: Option<(Cancelled, AbortOnDropHandle<()>)>,
    looking: Option<AbortOnDropHandle<()>>,
    /// The newest memory, and whose turn it is to write it.
    memory: Arc<(Mutex<Memory>, Turn<()>)>,
}

impl Errands {
    /// Nobody is under way.
    pub fn new(places: Places) -> Self {
        let (tell, outcomes) = mpsc::unbounded_channel();
        Self { places, outcomes, tell, download: None, looking: None, memory: Arc::default() }
    }

    /// What has come of the next that is done.
    pub async fn next(&mut self) -> Outcome {
        match self.outcomes.recv().await {
            Some(outcome) => outcome,
            // There is always a sender: this one's own.
            None => std::future::pending().await,
        }
    }

    /// Looks, unless somebody does.
    pub fn look(&mut self) {
        if self.looking.as_ref().is_some_and(|looking| !looking.is_finished()) {
            return;
        }
        let (tell, places) = (self.tell.clone(), self.places.clone());
        self.looking = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            if let Ok(Ok(sight)) = timeout(LOOK_PATIENCE, spawn_blocking(move || look(&places))).await {
                let _ = tell.send(Outcome::Seen(Box::new(sight)));
            }
        })));
    }

    /// Looks at once, and waits for it only a moment.
    pub async fn look_now(&self) -> Option<Sight> {
        let places = self.places.clone();
        timeout(LAST_LOOK, spawn_blocking(move || look(&places))).await.ok()?.ok()
    }

    /// Makes this memory durable; a newer one that comes meanwhile takes its place.
    pub fn remember(&self, memory: Memory) {
        self.hold(memory);
        let (held, places) = (self.memory.clone(), self.places.clone());
        tokio::spawn(async move {
            // It is in the log already, and a forgetful daemon tries once more than it would.
            let _ = write(&held, &places).await;
        });
    }

    fn hold(&self, memory: Memory) {
        *self.memory.0.lock().unwrap_or_else(PoisonError::into_inner) = memory;
    }

    /// Asks root, once this memory is durable; the daemon that may take this one's place finds what
    /// is handed over.
    pub fn ask_root(&self, request: RootRequest, memory: Memory, handover: Option<Handover>) {
        self.hold(memory);
        let (held, places, tell) = (self.memory.clone(), self.places.clone(), self.tell.clone());
        tokio::spawn(async move {
            let id = asked_about(&request);
            let asking = async {
                write(&held, &places).await?;
                if let Some(handover) = handover {
                    let inbox = places.inbox.clone();
                    // Without it the next one looks for itself.
                    let _ = spawn_blocking(move || handover.leave(&inbox)).await;
                }
                root::ask(&places.socket, &request).await
            };
            // The machine's own patience is the same, and says more.
            if let Ok(answer) = timeout(STAGE_TIMEOUT, asking).await {
                let _ = tell.send(Outcome::Input(Input::RootAnswered(id, answer)));
            }
        });
    }

    /// Begins to download, from where and by whatever `source` finds to be the way.
    pub fn download(&mut self, offer: Offer, source: Source) {
        self.stop_download();
        let cancelled = Cancelled::new();
        let (tell, inbox, until) = (self.tell.clone(), self.places.inbox.clone(), cancelled.clone());
        let task = tokio::spawn(async move {
            let id = offer.id;
            let running = spawn_blocking(move || download::run(&offer, source, &inbox, &until));
            let outcome = running
                .await
                .unwrap_or_else(|error| Err(Failure::new(ErrorCode::Internal, error.to_string())));
            let _ = tell.send(Outcome::Input(Input::Downloaded(id, outcome)));
        });
        self.download = Some((cancelled, AbortOnDropHandle::new(task)));
    }

    /// Stops downloading. What came stays.
    pub fn stop_download(&mut self) {
        if let Some((cancelled, _task)) = self.download.take() {
            cancelled.cancel();
        }
    }

    /// Removes all that was downloaded.
    pub fn clear_inbox(&mut self) {
        self.stop_download();
        let inbox = self.places.inbox.clone();
        spawn_blocking(move || download::clear(&inbox, None));
    }
}

impl Drop for Errands {
    fn drop(&mut self) {
        self.stop_download();
    }
}

async fn write(held: &(Mutex<Memory>, Turn<()>), places: &Places) -> Result<(), Failure> {
    let _turn = held.1.lock().await;
    let memory = held.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let inbox = places.inbox.clone();
    let written = spawn_blocking(move || memory.write(&inbox)).await;
    match written {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            warn!(%error, reason = %error.source, "what this node remembers of updates could not be kept");
            Err(error.into())
        }
        Err(error) => Err(Failure::new(ErrorCode::Internal, error.to_string())),
    }
}

fn asked_about(request: &RootRequest) -> Uuid {
    match request {
        RootRequest::Stage { update_id, .. }
        | RootRequest::Switch { update_id }
        | RootRequest::Revert { update_id } => *update_id,
    }
}
