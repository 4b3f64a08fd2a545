//! The words of the update machine: its states, what happens to it, and what it asks to be done.

use std::time::Instant;

use aio_protocol::{
    event::ErrorReport,
    failure::Failure,
    release::ReleaseVersion,
    time::Timestamp,
    update::{RootAnswer, RootRequest, RootStatus},
    wire::{NodeUpdate, UpdateCancel, UpdatePermit},
};
use uuid::Uuid;

use crate::update::{offer::Offer, policy::Policy};

/// When something happened, and what is so at that moment.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// When.
    pub now: Instant,
    /// The same on the wall.
    pub wall: Timestamp,
    /// Whether the node's window is open.
    pub window_open: bool,
    /// How busy the busiest GPU is, in percent, where that is known.
    pub gpu_percent: Option<u8>,
}

/// What an update waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// The controller's own time.
    NotBefore(Timestamp),
    /// The node's window.
    Window,
    /// A GPU is busier than this, in percent. How busy it is changes all the time, and is nobody's news.
    GpuBusy(u8),
    /// The operator, until then or until a word of theirs.
    Operator(Option<Timestamp>),
    /// The next try after one that came to nothing.
    Retry(Timestamp),
}

/// Where the node is on its way to another version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing is to be done.
    Idle,
    /// The offer waits.
    Deferred {
        /// What for.
        why: Wait,
        /// The offer.
        offer: Offer,
        /// When to look again.
        look: Instant,
        /// Whether root has verified the release already.
        staged: bool,
    },
    /// The release is being downloaded.
    Staging {
        /// The offer.
        offer: Offer,
        /// When to give up.
        until: Instant,
    },
    /// Root verifies the release and lets it rehearse.
    Rehearsing {
        /// The offer.
        offer: Offer,
        /// When to give up.
        until: Instant,
        /// Whether root is done with verifying.
        verified: bool,
    },
    /// All is prepared.
    Awaiting {
        /// The offer.
        offer: Offer,
        /// Until when the controller permits the switch, if it does.
        permit: Option<Instant>,
        /// When to look again whether all is still as it should be.
        look: Instant,
    },
    /// Root was asked to switch.
    Switching {
        /// The offer.
        offer: Offer,
        /// When to give up.
        until: Instant,
    },
    /// Root has switched and watches, or goes back.
    Watched {
        /// Which update.
        id: Uuid,
        /// The version that is proven.
        version: ReleaseVersion,
        /// What root does.
        phase: Watch,
    },
}

/// What root does once it has begun to switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// It starts the new version.
    Switching,
    /// It waits for the new version to be online.
    Proving,
    /// It watches on.
    Probation,
    /// It brings the version before back.
    Reverting,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The controller offers a version, in the message of this id.
    Offered(Uuid, NodeUpdate),
    /// The controller permits the switch.
    Permitted(Uuid, UpdatePermit),
    /// The controller takes an offer back.
    Cancelled(Uuid, UpdateCancel),
    /// The deadline has come.
    Elapsed,
    /// The controller has read a heartbeat.
    BeatAcknowledged,
    /// The download for this update has ended, with the index of this serial.
    Downloaded(Uuid, Result<u64, Failure>),
    /// Root has answered a request for this update, or could not be asked.
    RootAnswered(Uuid, Result<RootAnswer, Failure>),
    /// Root says how it stands.
    RootTold(Box<RootStatus>),
    /// The operator's word, or the installation, is another.
    PolicyChanged(Box<Policy>),
    /// The operator puts updates off until then, or no longer.
    PutOff(Option<Timestamp>),
    /// The operator wants now what is offered.
    Hurried,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The command of this message is taken.
    Acknowledge(Uuid),
    /// The command of this message is not.
    Reject(Uuid, ErrorReport),
    /// Download the release.
    Download(Box<Offer>),
    /// Stop downloading.
    StopDownload,
    /// Remove what was downloaded.
    ClearInbox,
    /// Send a heartbeat now: behind its pong there is the most time until the next.
    Beat,
    /// Ask root, after what [`Machine::memory`](super::Machine::memory) says is durable.
    AskRoot(RootRequest),
    /// Make what [`Machine::memory`](super::Machine::memory) says durable.
    Remember,
}
