//! The update machine: whether to take an offer, when to begin, how long to wait for whom, when to
//! ask root for what, and what to tell the controller. Pure: inputs and the moment come in, effects
//! go out. No I/O, clock or logging; nothing that it says makes root do anything but look. What the
//! controller and people are told of it stands in `report`.

mod report;

use std::time::{Duration, Instant};

use aio_protocol::{
    error_code::ErrorCode,
    release::ReleaseVersion,
    time::Timestamp,
    update::{LastUpdate, RootAnswer, RootPhase, RootRequest, RootStatus, Verdict},
    wire::{NodeUpdate, UpdateCancel, UpdatePermit},
};
use uuid::Uuid;

use super::{
    memory::{Memory, Tried},
    offer::Offer,
    policy::{Mode, Policy},
};

/// Between two looks at what an update waits for.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// For all of a download.
pub const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// For root to verify a release and to let it rehearse, on a slow disk.
pub const STAGE_TIMEOUT: Duration = Duration::from_secs(120);

/// From asking for the switch to being stopped for it.
pub const SWITCH_TIMEOUT: Duration = Duration::from_secs(60);

/// From one try that came to nothing to the next. After the last, the offer has failed.
pub const RETRY_PAUSES: [Duration; 3] =
    [Duration::from_secs(600), Duration::from_secs(3600), Duration::from_secs(6 * 3600)];

/// No permit holds longer than this.
const MAX_PERMIT: Duration = Duration::from_secs(3600);

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

/// Why something came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// A code of the catalogue, or of a later one.
    pub code: String,
    /// Why, in a sentence.
    pub message: String,
}

impl Trouble {
    /// With a code of the catalogue.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code: code.as_str().to_owned(), message: message.into() }
    }

    /// Whether it is the release's fault, so that another try changes nothing.
    fn is_lasting(&self) -> bool {
        use ErrorCode as Code;
        matches!(
            ErrorCode::parse(&self.code),
            Some(
                Code::UpdateFaulty
                    | Code::UpdateBelowFloor
                    | Code::UpdateUnreachable
                    | Code::KeyRevoked
                    | Code::ArchitectureMismatch
                    | Code::PlatformUnsupported
            )
        )
    }
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
    Downloaded(Uuid, Result<u64, Trouble>),
    /// Root has answered a request for this update, or could not be asked.
    RootAnswered(Uuid, Result<RootAnswer, Trouble>),
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
    Reject(Uuid, Trouble),
    /// Download the release.
    Download(Box<Offer>),
    /// Stop downloading.
    StopDownload,
    /// Remove what was downloaded.
    ClearInbox,
    /// Send a heartbeat now: behind its pong there is the most time until the next.
    Beat,
    /// Ask root, after what [`Machine::memory`] says is durable.
    AskRoot(RootRequest),
    /// Make what [`Machine::memory`] says durable.
    Remember,
}

/// The machine: its state, and what outlives a state.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    running: ReleaseVersion,
    state: State,
    policy: Policy,
    root: RootStatus,
    memory: Memory,
    put_off_until: Option<Timestamp>,
    /// The offer that was not taken last, and why.
    unwanted: Option<(Uuid, Trouble)>,
}

impl Machine {
    /// A machine of a daemon of the version `running`, with what it remembers.
    pub fn new(running: ReleaseVersion, memory: Memory) -> Self {
        Self {
            running,
            memory,
            state: State::Idle,
            policy: Policy::default(),
            root: RootStatus::default(),
            put_off_until: None,
            unwanted: None,
        }
    }

    /// The state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What is to outlive this process.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// What it decides by.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Whether nothing is to be done.
    pub fn is_idle(&self) -> bool {
        self.state == State::Idle
    }

    /// Whether a daemon that is stopped now will be back in a moment, as another version.
    pub fn is_being_replaced(&self) -> bool {
        matches!(
            self.state,
            State::Switching { .. } | State::Watched { phase: Watch::Switching | Watch::Reverting, .. }
        )
    }

    /// When [`Input::Elapsed`] is due.
    pub fn deadline(&self, now: Instant, wall: Timestamp) -> Option<Instant> {
        let expiry = |offer: &Offer| now + offer.deadline.since(wall);
        match &self.state {
            State::Idle | State::Watched { .. } => None,
            State::Deferred { offer, look, .. } => Some((*look).min(expiry(offer))),
            State::Staging { offer, until } | State::Rehearsing { offer, until, .. } => {
                Some((*until).min(expiry(offer)))
            }
            State::Awaiting { offer, permit, look } => {
                Some(permit.unwrap_or(*look).min(*look).min(expiry(offer)))
            }
            State::Switching { until, .. } => Some(*until),
        }
    }

    /// Takes one input. What does not fit the state changes nothing.
    pub fn step(mut self, input: Input, at: Moment) -> (Self, Vec<Effect>) {
        let effects = match input {
            Input::Offered(message, update) => self.offered(message, update, at),
            Input::Permitted(message, permit) => self.permitted(message, &permit, at),
            Input::Cancelled(message, cancel) => self.cancelled(message, cancel, at),
            Input::Elapsed => self.elapsed(at),
            Input::BeatAcknowledged => self.acknowledged(at),
            Input::Downloaded(id, outcome) => self.downloaded(id, outcome, at),
            Input::RootAnswered(id, answer) => self.answered(id, answer, at),
            Input::RootTold(status) => self.root_told(*status, at),
            Input::PolicyChanged(policy) => self.policy_changed(*policy, at),
            Input::PutOff(until) => {
                self.put_off_until = until;
                self.look_again(at)
            }
            Input::Hurried => self.hurried(at),
        };
        (self, effects)
    }

    fn offered(&mut self, message: Uuid, update: NodeUpdate, at: Moment) -> Vec<Effect> {
        let version = update.version.clone();
        let Some(id) = update.update_id else {
            let words = format!("this worker is told that {version} is there, and not how to bring it here");
            return vec![Effect::Reject(message, Trouble::new(ErrorCode::CommandUnsupported, words))];
        };
        let offer = match Offer::of(update, at.wall) {
            Ok(offer) => offer,
            Err(lacking) => {
                let words = format!("the offer of {version} does not say its {lacking}");
                return self.refuse(
                    message,
                    (id, version),
                    Trouble::new(ErrorCode::UpdateInvalid, words),
                    at,
                );
            }
        };
        if let Some(taken) = self.offered_again(message, &offer, at) {
            return taken;
        }
        if offer.version == self.running && !self.is_root_at_work() {
            return self.runs_already(message, offer, at);
        }
        if let Some(trouble) = self.objection(&offer, at) {
            return self.refuse(message, (id, version), trouble, at);
        }
        let mut effects = vec![Effect::Acknowledge(message)];
        if matches!(self.state, State::Staging { .. }) {
            effects.push(Effect::StopDownload);
        }
        self.unwanted = None;
        effects.extend(self.wait_or_begin(offer, false, at));
        effects
    }

    /// The answer to an offer that is known already; none to a new one.
    fn offered_again(&mut self, message: Uuid, offer: &Offer, at: Moment) -> Option<Vec<Effect>> {
        match &mut self.state {
            State::Deferred { offer: known, .. }
            | State::Staging { offer: known, .. }
            | State::Rehearsing { offer: known, .. }
            | State::Awaiting { offer: known, .. }
            | State::Switching { offer: known, .. }
                if known.id == offer.id =>
            {
                if !known.brings_the_same(offer) {
                    let words = format!("the same update was offered as {}", known.version);
                    return Some(vec![Effect::Reject(
                        message,
                        Trouble::new(ErrorCode::UpdateInvalid, words),
                    )]);
                }
                // Its times may be others by now.
                *known = Offer { hurried: known.hurried, ..offer.clone() };
                let mut effects = vec![Effect::Acknowledge(message)];
                effects.extend(self.look_again(at));
                Some(effects)
            }
            State::Watched { id, .. } if *id == offer.id => Some(vec![Effect::Acknowledge(message)]),
            State::Idle => {
                let last = self.last(offer.id)?;
                match last.verdict {
                    Verdict::Succeeded => Some(vec![Effect::Acknowledge(message)]),
                    Verdict::Faulty | Verdict::Reverted => {
                        let words = last.message.clone().unwrap_or_else(|| {
                            format!("{} was tried on this node and taken back", last.version)
                        });
                        let code = last.code.clone().unwrap_or_else(|| ErrorCode::UpdateFaulty.to_string());
                        let offered = (offer.id, offer.version.clone());
                        Some(self.refuse(message, offered, Trouble { code, message: words }, at))
                    }
                    Verdict::Inconclusive | Verdict::Interrupted | Verdict::Refused => None,
                }
            }
            _ => None,
        }
    }

    /// Whether, and why, this offer is not taken.
    fn objection(&self, offer: &Offer, at: Moment) -> Option<Trouble> {
        let version = &offer.version;
        let trouble = |code, words: String| Some(Trouble::new(code, words));
        if let Some(trouble) = self.unwilling(version) {
            return Some(trouble);
        }
        if self.is_root_at_work() {
            return trouble(ErrorCode::UpdateBusy, "root is at work on another update".to_owned());
        }
        if self.memory.reverted.as_ref() == Some(version) {
            let words =
                format!("an operator went back from {version}; `aio-worker update now` lets it come again");
            return trouble(ErrorCode::UpdatePinned, words);
        }
        if let Some(floor) = self.root.floor.as_ref().filter(|floor| version < *floor) {
            let words = format!("{version} is older than {floor}, the oldest that the index allows");
            return trouble(ErrorCode::UpdateBelowFloor, words);
        }
        if offer.deadline <= at.wall {
            return trouble(ErrorCode::UpdateExpired, format!("the deadline for {version} has passed"));
        }
        let last = self.last(offer.id)?;
        let before = Trouble {
            code: last.code.clone().unwrap_or_else(|| ErrorCode::UpdateInterrupted.to_string()),
            message: last.message.clone().unwrap_or_default(),
        };
        (before.is_lasting() || self.is_exhausted(offer.id)).then_some(before)
    }

    /// Whether, and why, the operator does not want this version from the controller.
    fn unwilling(&self, version: &ReleaseVersion) -> Option<Trouble> {
        let Policy { settings, packaged, updater } = &self.policy;
        if *packaged {
            let words = "the version of this worker is the package manager's".to_owned();
            return Some(Trouble::new(ErrorCode::UpdatePackaged, words));
        }
        if settings.mode == Mode::Off {
            let words = "`updates.mode` is off on this node".to_owned();
            return Some(Trouble::new(ErrorCode::UpdatesOff, words));
        }
        if !updater {
            let words =
                "this node was installed without --auto-update: root listens to no request".to_owned();
            return Some(Trouble::new(ErrorCode::UpdatesOff, words));
        }
        let pin = settings.pin.as_ref().filter(|pin| *pin != version)?;
        Some(Trouble::new(ErrorCode::UpdatePinned, format!("this node is pinned to {pin}")))
    }

    fn is_root_at_work(&self) -> bool {
        matches!(self.state, State::Rehearsing { .. } | State::Switching { .. } | State::Watched { .. })
    }

    /// Does not take an offer. The controller goes by what is registered, so it stands there, too; the
    /// same refusal again is no news.
    fn refuse(
        &mut self,
        message: Uuid,
        (id, version): (Uuid, ReleaseVersion),
        trouble: Trouble,
        at: Moment,
    ) -> Vec<Effect> {
        let mut effects = vec![Effect::Reject(message, trouble.clone())];
        if self.is_idle() {
            self.unwanted = Some((id, trouble.clone()));
        }
        let said = self.last(id).is_some_and(|last| {
            last.verdict != Verdict::Refused || last.code.as_ref() == Some(&trouble.code)
        });
        // An update that is under way is registered as such. When it has ended, the offer comes again.
        let said = said || trouble.code == ErrorCode::UpdateBusy.as_str();
        // What waits, or is prepared, needs to know how its own last try ended.
        if !said && (self.is_idle() || self.is_root_at_work()) {
            effects.extend(self.remember(self.refused(id, version, trouble, at)));
        }
        effects
    }

    fn runs_already(&mut self, message: Uuid, offer: Offer, at: Moment) -> Vec<Effect> {
        let ended = LastUpdate {
            update_id: offer.id,
            from: self.running.clone(),
            version: offer.version,
            verdict: Verdict::Succeeded,
            code: None,
            message: None,
            at: at.wall,
        };
        let mut effects = vec![Effect::Acknowledge(message)];
        effects.extend(self.end(ended));
        effects
    }

    fn permitted(&mut self, message: Uuid, permit: &UpdatePermit, at: Moment) -> Vec<Effect> {
        let words = |words: String| vec![Effect::Reject(message, Trouble::new(ErrorCode::UpdateBusy, words))];
        match &self.state {
            State::Awaiting { offer, .. } if offer.id == permit.update_id => {
                if let Some(why) = self.obstacle(offer, at) {
                    let offer = offer.clone();
                    self.defer(offer, why, true, at);
                    return words(self.reason().unwrap_or_default());
                }
                let until = at.now + Duration::from_secs(permit.seconds).min(MAX_PERMIT);
                if let State::Awaiting { permit, .. } = &mut self.state {
                    *permit = Some(until);
                }
                vec![Effect::Acknowledge(message), Effect::Beat]
            }
            State::Switching { offer, .. } if offer.id == permit.update_id => {
                vec![Effect::Acknowledge(message)]
            }
            State::Watched { id, .. } if *id == permit.update_id => vec![Effect::Acknowledge(message)],
            State::Deferred { offer, .. } if offer.id == permit.update_id => {
                words(self.reason().unwrap_or_default())
            }
            _ => words("no update of this id is prepared".to_owned()),
        }
    }

    fn cancelled(&mut self, message: Uuid, cancel: UpdateCancel, at: Moment) -> Vec<Effect> {
        match &self.state {
            State::Switching { offer: Offer { id, .. }, .. } | State::Watched { id, .. }
                if *id == cancel.update_id =>
            {
                let words = "the node is switching already".to_owned();
                vec![Effect::Reject(message, Trouble::new(ErrorCode::UpdateBusy, words))]
            }
            State::Deferred { offer, .. }
            | State::Staging { offer, .. }
            | State::Rehearsing { offer, .. }
            | State::Awaiting { offer, .. }
                if offer.id == cancel.update_id =>
            {
                let why = cancel.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
                let words = format!("the controller took {} back{why}", offer.version);
                let mut effects = vec![Effect::Acknowledge(message)];
                effects.extend(self.give_up(Trouble::new(ErrorCode::UpdateCancelled, words), at));
                effects
            }
            // What is not here is taken back already.
            _ => vec![Effect::Acknowledge(message)],
        }
    }

    fn elapsed(&mut self, at: Moment) -> Vec<Effect> {
        let expired = |offer: &Offer| offer.deadline <= at.wall;
        match &self.state {
            State::Idle | State::Watched { .. } => vec![],
            State::Deferred { offer, .. }
            | State::Staging { offer, .. }
            | State::Rehearsing { offer, .. }
            | State::Awaiting { offer, .. }
                if expired(offer) =>
            {
                let words = format!("the deadline for {} came before the switch", offer.version);
                self.give_up(Trouble::new(ErrorCode::UpdateExpired, words), at)
            }
            State::Staging { until, .. } if *until <= at.now => {
                let words = format!("the download took more than {} min", DOWNLOAD_TIMEOUT.as_secs() / 60);
                let mut effects = vec![Effect::StopDownload];
                effects.extend(self.fail(Trouble::new(ErrorCode::DownloadFailed, words), at));
                effects
            }
            State::Rehearsing { until, .. } | State::Switching { until, .. } if *until <= at.now => {
                let words = "root does not answer: journalctl -u aio-worker-update.service says why";
                self.fail(Trouble::new(ErrorCode::UpdateInterrupted, words), at)
            }
            State::Deferred { look, .. } if *look <= at.now => self.look_again(at),
            State::Awaiting { .. } => {
                if let State::Awaiting { permit, .. } = &mut self.state {
                    *permit = permit.filter(|until| *until > at.now);
                }
                self.look_again(at)
            }
            _ => vec![],
        }
    }

    fn acknowledged(&mut self, at: Moment) -> Vec<Effect> {
        let State::Awaiting { offer, permit: Some(until), .. } = &self.state else { return vec![] };
        if *until <= at.now || offer.deadline <= at.wall || self.obstacle(offer, at).is_some() {
            return vec![];
        }
        let offer = offer.clone();
        // Should it end without anybody's word, it was a try.
        let times = self.tries(offer.id) + 1;
        self.memory.tried = Some(Tried { update_id: offer.id, times });
        let request = RootRequest::Switch { update_id: offer.id };
        self.state = State::Switching { offer, until: at.now + SWITCH_TIMEOUT };
        vec![Effect::AskRoot(request)]
    }

    fn downloaded(&mut self, id: Uuid, outcome: Result<u64, Trouble>, at: Moment) -> Vec<Effect> {
        let State::Staging { offer, .. } = &self.state else { return vec![] };
        if offer.id != id {
            return vec![];
        }
        // The newest index counts, which may be newer than the offer.
        let index_serial = match outcome {
            Ok(serial) => serial,
            Err(trouble) => return self.fail(trouble, at),
        };
        if offer.deadline <= at.wall {
            return self.elapsed(at);
        }
        let offer = offer.clone();
        let request = RootRequest::Stage {
            update_id: id,
            version: offer.version.clone(),
            manifest_sha256: offer.manifest_sha256.clone(),
            index_serial,
        };
        self.state = State::Rehearsing { offer, until: at.now + STAGE_TIMEOUT, verified: false };
        vec![Effect::AskRoot(request)]
    }

    fn answered(&mut self, id: Uuid, answer: Result<RootAnswer, Trouble>, at: Moment) -> Vec<Effect> {
        let (offer, switching) = match &self.state {
            State::Rehearsing { offer, .. } if offer.id == id => (offer.clone(), false),
            State::Switching { offer, .. } if offer.id == id => (offer.clone(), true),
            _ => return vec![],
        };
        match answer {
            Ok(RootAnswer::Staged) if !switching => self.wait_or_begin(offer, true, at),
            Ok(RootAnswer::Staged | RootAnswer::Switching) => vec![],
            Ok(RootAnswer::Refused { code, message }) => self.fail(Trouble { code, message }, at),
            Err(trouble) => self.fail(trouble, at),
        }
    }

    fn root_told(&mut self, status: RootStatus, at: Moment) -> Vec<Effect> {
        let ended = status.last.clone().filter(|last| self.root.last.as_ref() != Some(last));
        self.root = status;
        let mut effects = vec![];
        // What root said before this process began is remembered already.
        let is_news = |last: &LastUpdate| self.memory.last.as_ref().is_none_or(|known| known.at < last.at);
        if let Some(last) = ended.clone().filter(is_news) {
            let is_over = matches!(last.verdict, Verdict::Succeeded | Verdict::Faulty | Verdict::Reverted);
            effects.extend(self.remember(last));
            if is_over && self.is_idle() {
                effects.push(Effect::ClearInbox);
            }
        }
        let watch = match self.root.phase {
            RootPhase::Switching => Some(Watch::Switching),
            RootPhase::Proving => Some(Watch::Proving),
            RootPhase::Probation => Some(Watch::Probation),
            RootPhase::Reverting => Some(Watch::Reverting),
            RootPhase::Idle | RootPhase::Staging | RootPhase::Rehearsing | RootPhase::Staged => None,
        };
        if let (Some(phase), Some(id)) = (watch, self.root.update_id) {
            if matches!(self.state, State::Staging { .. }) {
                effects.push(Effect::StopDownload);
            }
            let version = self.root.version.clone().unwrap_or_else(|| self.running.clone());
            self.state = State::Watched { id, version, phase };
            return effects;
        }
        match &mut self.state {
            State::Watched { .. } => {
                self.state = State::Idle;
                effects.push(Effect::ClearInbox);
            }
            State::Switching { offer, .. }
                if ended.as_ref().is_some_and(|last| last.update_id == offer.id) =>
            {
                let offer = offer.clone();
                effects.extend(self.undone(offer, ended, at));
            }
            State::Rehearsing { offer, verified, .. } if self.root.update_id == Some(offer.id) => {
                *verified |= self.root.phase != RootPhase::Staging;
            }
            _ => {}
        }
        effects
    }

    /// Root has ended the switch, and this process still runs.
    fn undone(&mut self, offer: Offer, ended: Option<LastUpdate>, at: Moment) -> Vec<Effect> {
        let passes = ended.is_some_and(|last| {
            let trouble = Trouble { code: last.code.unwrap_or_default(), message: String::new() };
            matches!(last.verdict, Verdict::Refused | Verdict::Interrupted | Verdict::Inconclusive)
                && !trouble.is_lasting()
        });
        if passes && !self.is_exhausted(offer.id) {
            return self.wait_or_begin(Offer { hurried: false, ..offer }, false, at);
        }
        self.state = State::Idle;
        vec![Effect::ClearInbox]
    }

    fn policy_changed(&mut self, policy: Policy, at: Moment) -> Vec<Effect> {
        self.policy = policy;
        self.unwanted = None;
        let version = match &self.state {
            State::Deferred { offer, .. }
            | State::Staging { offer, .. }
            | State::Rehearsing { offer, .. }
            | State::Awaiting { offer, .. } => &offer.version,
            State::Idle | State::Switching { .. } | State::Watched { .. } => return vec![],
        };
        match self.unwilling(version) {
            Some(trouble) => self.give_up(trouble, at),
            None => self.look_again(at),
        }
    }

    fn hurried(&mut self, at: Moment) -> Vec<Effect> {
        self.put_off_until = None;
        self.unwanted = None;
        let mut effects = vec![];
        let tried = self.memory.tried.take_if(|_| self.state == State::Idle).is_some();
        if self.memory.reverted.take().is_some() || tried {
            effects.push(Effect::Remember);
        }
        match &mut self.state {
            State::Deferred { offer, .. }
            | State::Staging { offer, .. }
            | State::Rehearsing { offer, .. } => {
                offer.hurried = true;
            }
            State::Awaiting { offer, .. } => offer.hurried = true,
            State::Idle | State::Switching { .. } | State::Watched { .. } => {}
        }
        effects.extend(self.look_again(at));
        effects
    }

    /// What this offer has to wait for now.
    fn obstacle(&self, offer: &Offer, at: Moment) -> Option<Wait> {
        if let Some(time) = offer.not_before.filter(|time| *time > at.wall) {
            return Some(Wait::NotBefore(time));
        }
        if offer.hurried {
            return None;
        }
        if self.policy.settings.mode == Mode::Notify {
            return Some(Wait::Operator(None));
        }
        if let Some(until) = self.put_off_until.filter(|until| *until > at.wall) {
            return Some(Wait::Operator(Some(until)));
        }
        if let Some(time) = self.next_try(offer.id).filter(|time| *time > at.wall) {
            return Some(Wait::Retry(time));
        }
        if !offer.urgent && !at.window_open {
            return Some(Wait::Window);
        }
        let limit = [offer.gpu_above, self.policy.settings.gpu_above].into_iter().flatten().min()?;
        at.gpu_percent.filter(|percent| *percent > limit).map(|_| Wait::GpuBusy(limit))
    }

    /// When an offer that came to nothing may be tried again.
    fn next_try(&self, id: Uuid) -> Option<Timestamp> {
        let times = usize::try_from(self.tries(id)).unwrap_or(usize::MAX);
        let pause = RETRY_PAUSES.get(times.checked_sub(1)?)?;
        let last = self.last(id)?;
        Some(last.at.plus(*pause))
    }

    fn is_exhausted(&self, id: Uuid) -> bool {
        usize::try_from(self.tries(id)).is_ok_and(|times| times > RETRY_PAUSES.len())
    }

    fn tries(&self, id: Uuid) -> u32 {
        self.memory.tried.as_ref().filter(|tried| tried.update_id == id).map_or(0, |tried| tried.times)
    }

    /// The last update that ended, if it was this one.
    fn last(&self, id: Uuid) -> Option<&LastUpdate> {
        self.memory.last.as_ref().filter(|last| last.update_id == id)
    }

    /// Goes on with an offer, as far as nothing stands in its way.
    fn wait_or_begin(&mut self, offer: Offer, staged: bool, at: Moment) -> Vec<Effect> {
        if let Some(why) = self.obstacle(&offer, at) {
            self.defer(offer, why, staged, at);
            return vec![];
        }
        if staged {
            self.state = State::Awaiting { offer, permit: None, look: at.now + LOOK_INTERVAL };
            return vec![];
        }
        self.state = State::Staging { offer: offer.clone(), until: at.now + DOWNLOAD_TIMEOUT };
        vec![Effect::Download(Box::new(offer))]
    }

    fn defer(&mut self, offer: Offer, why: Wait, staged: bool, at: Moment) {
        self.state = State::Deferred { offer, why, look: at.now + LOOK_INTERVAL, staged };
    }

    /// Whether what waits may go on, and what was prepared may still be begun.
    fn look_again(&mut self, at: Moment) -> Vec<Effect> {
        match &self.state {
            State::Deferred { offer, .. } | State::Awaiting { offer, .. } if offer.deadline <= at.wall => {
                self.elapsed(at)
            }
            State::Deferred { offer, staged, .. } => {
                let (offer, staged) = (offer.clone(), *staged);
                self.wait_or_begin(offer, staged, at)
            }
            State::Awaiting { offer, permit, .. } => {
                let (offer, permitted) = (offer.clone(), *permit);
                let effects = self.wait_or_begin(offer, true, at);
                if let State::Awaiting { permit, .. } = &mut self.state {
                    *permit = permitted;
                }
                effects
            }
            _ => vec![],
        }
    }

    /// A try came to nothing; there may be another.
    fn fail(&mut self, trouble: Trouble, at: Moment) -> Vec<Effect> {
        let (offer, counted) = match &self.state {
            State::Staging { offer, .. } | State::Rehearsing { offer, .. } => (offer.clone(), false),
            State::Switching { offer, .. } => (offer.clone(), true),
            _ => return vec![],
        };
        let times = self.tries(offer.id) + u32::from(!counted);
        self.memory.tried = Some(Tried { update_id: offer.id, times });
        if trouble.is_lasting() || self.is_exhausted(offer.id) {
            return self.give_up(trouble, at);
        }
        let mut effects = self.remember(self.refused(offer.id, offer.version.clone(), trouble, at));
        // An operator's word is for one try.
        effects.extend(self.wait_or_begin(Offer { hurried: false, ..offer }, false, at));
        effects
    }

    /// Ends the update that has not been switched to.
    fn give_up(&mut self, trouble: Trouble, at: Moment) -> Vec<Effect> {
        let offer = match &self.state {
            State::Deferred { offer, .. }
            | State::Staging { offer, .. }
            | State::Rehearsing { offer, .. }
            | State::Awaiting { offer, .. }
            | State::Switching { offer, .. } => offer.clone(),
            State::Idle | State::Watched { .. } => return vec![],
        };
        let mut effects = vec![];
        if matches!(self.state, State::Staging { .. }) {
            effects.push(Effect::StopDownload);
        }
        effects.extend(self.end(self.refused(offer.id, offer.version, trouble, at)));
        effects
    }

    fn refused(&self, update_id: Uuid, version: ReleaseVersion, trouble: Trouble, at: Moment) -> LastUpdate {
        LastUpdate {
            update_id,
            from: self.running.clone(),
            version,
            verdict: Verdict::Refused,
            code: Some(trouble.code),
            message: Some(trouble.message),
            at: at.wall,
        }
    }

    fn end(&mut self, ended: LastUpdate) -> Vec<Effect> {
        let mut effects = self.remember(ended);
        if !matches!(self.state, State::Watched { .. }) {
            if matches!(self.state, State::Staging { .. }) {
                effects.push(Effect::StopDownload);
            }
            self.state = State::Idle;
            effects.push(Effect::ClearInbox);
        }
        effects
    }

    fn remember(&mut self, last: LastUpdate) -> Vec<Effect> {
        match last.verdict {
            // What runs is what was gone back to.
            Verdict::Reverted if last.version == self.running => {
                self.memory.reverted = Some(last.from.clone())
            }
            Verdict::Reverted => self.memory.reverted = Some(last.version.clone()),
            Verdict::Succeeded => self.memory.reverted = None,
            _ => {}
        }
        self.memory.last = Some(last);
        vec![Effect::Remember]
    }
}

#[cfg(test)]
mod tests;
