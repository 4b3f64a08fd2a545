//! What comes of a request.

use std::time::Duration;

use aio_protocol::{ids::NodeId, release::ReleaseVersion};

use crate::{controller::online::Snapshot, release::offer::Offer, transaction::work::Timing};

/// A step that would be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Its word.
    pub step: &'static str,
    /// What it does, on what.
    pub summary: String,
}

/// What came of a request.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The node.
    pub node_id: NodeId,
    /// Its name, where the controller was asked.
    pub node_name: Option<String>,
    /// The release that runs, or would.
    pub version: ReleaseVersion,
    /// What happened.
    pub kind: OutcomeKind,
    /// From the command's begin.
    pub took: Duration,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum OutcomeKind {
    /// Nothing: this would be done. `cut_off` says that an earlier installation would be undone
    /// first.
    Planned {
        /// In this order.
        steps: Vec<Planned>,
        /// Whether an earlier installation was cut off.
        cut_off: bool,
    },
    /// Nothing was to be done, and the worker is online.
    AlreadyInstalled {
        /// How the worker is.
        worker: Box<Snapshot>,
    },
    /// The worker's service is ready, and nobody waited for it to be online.
    Started {
        /// Each step, and how long it took; none when nothing was to be done.
        timings: Vec<Timing>,
    },
    /// The worker's service starts with the next boot.
    Prepared {
        /// Each step, and how long it took; none when nothing was to be done.
        timings: Vec<Timing>,
    },
    /// The worker is online.
    Installed {
        /// How the worker is.
        worker: Box<Snapshot>,
        /// Each step, and how long it took.
        timings: Vec<Timing>,
        /// What went wrong without harm to the installation.
        warnings: Vec<String>,
    },
}

/// The version that the worker says it has.
pub(super) fn running(worker: &Snapshot, offer: &Offer) -> ReleaseVersion {
    format!("v{}", worker.version).parse().unwrap_or_else(|_| offer.version.clone())
}
