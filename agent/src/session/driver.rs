//! The loop between the machine and the world: frames, timers, readings, the token's file and the
//! request to stop become inputs; effects become frames and sockets. Decides nothing; the watchdog
//! hears from it at every turn that is due and as long as the machine is looked at, and from nobody
//! else. How another configuration is taken up stands in `reload`, what becomes of tokens in
//! `tokens`, and of updates in `updates`.

mod files;
mod reload;
#[cfg(test)]
mod tests;
mod tokens;
mod updates;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use aio_protocol::{
    error_code::ErrorCode,
    event::ErrorReport,
    snapshot::WorkerSnapshot,
    time::Timestamp,
    update::EXPECTED_BACK_SECONDS,
    wire::{
        Body, CommandAck, CommandStatus, ControllerMessage, DisconnectReason, Disconnecting,
        InstallationFailed, MAX_FRAME_BYTES, Register, Unreadable, encode,
    },
};
use sd_notify::NotifyState;
use secrecy::SecretString;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};
use uuid::Uuid;

use files::{Done, Files};
pub(crate) use updates::Beginning;
use updates::Updates;

use super::{
    Trusted,
    backoff::Jitter,
    clock_watch::ClockWatch,
    machine::{Effect, Input, Moment, Session, State, Timings},
    reporter::Reporter,
    send_queue::Outgoing,
    setback::{Patience, Setback},
    socket::{Event, Link},
};
use crate::{
    aiwm::account::Account,
    config::WorkerConfig,
    health::Judged,
    notify::Notifier,
    reload::Reload,
    tally::Tally,
    telemetry::{
        Pace, Readings, gathers,
        messages::{Identity, Inventory},
    },
    tokens::rotation::{self, Origin, Rotation},
    undelivered::Undelivered,
    update,
};

/// How often root and the operator are looked at, while an update is under way.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How often a file is looked at for another token, while there is no session.
const TOKEN_CHECK: Duration = Duration::from_secs(2);

/// From one registration for links or mounts alone to the next, at first and at most.
const LINK_PAUSES: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(900));

/// A watchdog that wants to hear more often than this is a mistake in a unit, not a wish.
const SHORTEST_WATCHDOG: Duration = Duration::from_millis(10);

/// What connects the loop with everybody else.
pub(crate) struct Wiring {
    /// The service manager.
    pub(crate) notifier: Box<dyn Notifier>,
    /// What the machine is and does.
    pub(crate) readings: watch::Receiver<Readings>,
    /// When somebody has last looked at it.
    pub(crate) rounds: watch::Receiver<tokio::time::Instant>,
    /// When the next heartbeat is due.
    pub(crate) next_beat: watch::Sender<Option<Instant>>,
    /// What the status socket says.
    pub(crate) snapshots: watch::Sender<WorkerSnapshot>,
    /// The way to another configuration.
    pub(crate) reload: Reload,
    /// The configuration, for all parts that keep some of it.
    pub(crate) configs: watch::Sender<Arc<WorkerConfig>>,
    /// What is known of updates.
    pub(crate) updates: Beginning,
    /// The node token of AIWM, where the controller is one.
    pub(crate) account: Account,
}

/// Everything that the loop holds.
pub(crate) struct Driver {
    config: WorkerConfig,
    configs: watch::Sender<Arc<WorkerConfig>>,
    reload: Reload,
    /// The authorities that the configuration names, as they were when it was read.
    authorities: Option<Vec<u8>>,
    identity: Identity,
    notifier: Box<dyn Notifier>,
    readings: watch::Receiver<Readings>,
    rounds: watch::Receiver<tokio::time::Instant>,
    next_beat: watch::Sender<Option<Instant>>,
    reporter: Reporter,
    session: Session,
    link: Option<Link>,
    trusted: Trusted,
    account: Account,
    rotation: Rotation,
    /// The token that the last connection was tried with.
    tried: Option<SecretString>,
    /// What the controller knows of this machine, in this session.
    registered: Option<Inventory>,
    /// When changes of links and mounts are told again.
    link_pace: Pace,
    /// What the last heartbeat said of the GPUs' health.
    health: Option<Arc<Judged>>,
    /// The last heartbeat, and when it was sent.
    sent: (u64, Timestamp),
    misunderstood: Tally,
    clock_watch: ClockWatch,
    unwatched: Tally,
    files: Files,
    /// Counts the connections, those included that were only tried.
    connection: u64,
    /// None while it is being read.
    undelivered: Option<Undelivered>,
    updates: Updates,
}

impl Driver {
    pub(crate) fn new(
        config: WorkerConfig,
        identity: Identity,
        timings: Timings,
        Wiring { notifier, readings, rounds, next_beat, snapshots, reload, configs, updates, account }: Wiring,
    ) -> Self {
        Self {
            configs,
            reload,
            authorities: None,
            rotation: Rotation::new(config.endpoint.is_some()),
            updates: Updates::new(updates, config.updates.clone()),
            undelivered: Some(Undelivered::in_state_dir(&config.state_dir, identity.node_id.clone())),
            files: Files::default(),
            connection: 0,
            config,
            identity,
            notifier,
            readings,
            rounds,
            next_beat,
            reporter: Reporter::new(snapshots),
            session: Session::new(timings, tokio::time::Instant::now().into_std()),
            link: None,
            trusted: Trusted::default(),
            account,
            tried: None,
            registered: None,
            link_pace: Pace::new(LINK_PAUSES),
            health: None,
            sent: (0, Timestamp::from_millis(0)),
            misunderstood: Tally::default(),
            clock_watch: ClockWatch::start(),
            unwatched: Tally::default(),
        }
    }

    /// Turns until the session has stopped.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let config = self.config.clone();
        self.files.push(move || Done::AuthoritiesRead(config.authorities()));
        let patience = self.notifier.watchdog().filter(|patience| *patience >= SHORTEST_WATCHDOG);
        let mut watchdog = interval(patience.unwrap_or(Duration::from_secs(3600)) / 2);
        watchdog.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut token_check = interval(TOKEN_CHECK);
        token_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.notifier.tell(NotifyState::Ready);
        let mut update_look = interval(LOOK_INTERVAL);
        update_look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.reporter.updating(&self.updates.report());
        let mut stopping = false;
        while *self.session.state() != State::Stopped {
            self.reporter.session(&self.session, &*self.notifier);
            self.next_beat.send_if_modified(|announced| {
                let next = self.session.next_beat();
                std::mem::replace(announced, next) != next
            });
            let deadline = self.session.deadline().map(tokio::time::Instant::from_std);
            let update_due = self.updates.deadline().map(tokio::time::Instant::from_std);
            let waiting = matches!(self.session.state(), State::Waiting { .. });
            tokio::select! {
                biased;
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    self.notifier.tell(NotifyState::Stopping);
                    self.look_once_more().await;
                    self.take(Input::StopRequested);
                }
                _ = watchdog.tick(), if patience.is_some() => self.feed_watchdog(),
                news = self.reload.next() => self.hear_of_reload(news),
                event = next_event(&mut self.link) => self.heard(event),
                Ok(()) = self.readings.changed() => self.measured(),
                () = sleep_until(deadline.unwrap_or_else(tokio::time::Instant::now)), if deadline.is_some() => {
                    self.take(Input::Elapsed);
                }
                slept = self.clock_watch.slept() => self.take(Input::Woke(slept)),
                done = self.files.done() => self.file_done(done),
                outcome = self.updates.next() => self.update_outcome(outcome),
                () = sleep_until(update_due.unwrap_or_else(tokio::time::Instant::now)), if update_due.is_some() => {
                    self.update(update::machine::Input::Elapsed);
                }
                _ = update_look.tick(), if !self.updates.is_idle() => self.updates.look(),
                _ = token_check.tick(), if waiting && self.config.token.may_change() => {
                    // One that hangs is enough.
                    if !self.files.is_busy() {
                        self.check_tokens();
                    }
                }
            }
        }
        self.reporter.session(&self.session, &*self.notifier);
    }

    /// Says that all is well, as long as somebody still looks at the machine. A driver that does
    /// not answer is looked at.
    fn feed_watchdog(&mut self) {
        if gathers(*self.rounds.borrow(), tokio::time::Instant::now()) {
            self.notifier.tell(NotifyState::Watchdog);
        } else if let Some(count) = self.unwatched.count() {
            error!(count, "nobody looks at this machine any more; the watchdog is to restart this service");
        }
    }

    /// Gives the machine one input, does what it says, and gives it what came of that.
    fn take(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let at =
                Moment { now: tokio::time::Instant::now().into_std(), jitter: Jitter::new(fastrand::f64()) };
            let (session, effects) = self.session.clone().step(input, at);
            self.session = session;
            if !matches!(self.session.state(), State::Registering { .. } | State::Online(_)) {
                self.registered = None;
            }
            for effect in effects {
                inputs.extend(self.perform(effect));
            }
        }
    }

    fn perform(&mut self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::Dial => self.dial(),
            Effect::HangUp => {
                if self.link.take().is_none() && self.files.is_busy() {
                    warn!("reading the token does not end: is there a disk that hangs?");
                }
            }
            Effect::SendRegister => self.send_register(),
            Effect::SendBeat(seq) => {
                let beat = self.identity.heartbeat(seq, &self.readings.borrow());
                self.health.clone_from(&self.readings.borrow().gpu);
                self.sent = (seq, now());
                self.send(&beat);
                self.queue(Outgoing::Ping(seq));
                self.updates.look_at_rest();
            }
            Effect::SendMetrics => {
                let metrics = self.identity.metrics(&self.readings.borrow());
                if let Some(metrics) = metrics {
                    self.send(&metrics);
                }
            }
            Effect::KeepToken => return self.rotate(|rotation, at| rotation.welcomed(at)),
            Effect::WeighOffer(message_id, offer) => {
                // The token in use may still have to be put in order.
                self.files.push(move || Done::OfferDue(message_id, offer));
            }
            Effect::RefuseCommand { message_id, kind } => self.refuse(message_id, &kind),
            Effect::HearOfUpdate(message_id, message) => self.hear_of_update(message_id, *message),
            Effect::SayGoodbye => {
                let (reason, expected_back_seconds) = if self.updates.is_being_replaced() {
                    (DisconnectReason::Update, Some(EXPECTED_BACK_SECONDS))
                } else {
                    (DisconnectReason::Shutdown, None)
                };
                let node_id = self.identity.node_id.clone();
                self.send(&Disconnecting { node_id, reason, expected_back_seconds });
                self.queue(Outgoing::Close);
            }
        }
        None
    }

    fn heard(&mut self, event: Event) {
        match event {
            Event::Opened => self.take(Input::SocketOpened),
            Event::Text(text) => self.read(&text),
            Event::Ponged(seq) => {
                if matches!(self.session.state(), State::Online(online) if online.seq == seq && self.sent.0 == seq)
                {
                    self.reporter.acknowledged(self.sent.1);
                    self.tell_undelivered(seq);
                    self.update(update::machine::Input::BeatAcknowledged);
                }
                self.take(Input::PongReceived(seq));
            }
            Event::Lost(setback) => {
                self.link = None;
                let setback = self.judged(setback);
                self.take(Input::SocketLost(setback));
            }
        }
    }

    /// A frame that is not understood is a warning and no more: the controller may be newer than this worker.
    fn read(&mut self, text: &str) {
        match ControllerMessage::decode(text) {
            Ok(frame) => {
                if let ControllerMessage::Error(error) = &frame.message {
                    warn!(code = error.code, "the controller did not accept a message: {}", error.message);
                }
                self.take(Input::FrameReceived(frame.message_id, frame.message));
                self.register_changes();
                self.register_update();
            }
            Err(error) => {
                if let Some(count) = self.misunderstood.count() {
                    let reason = match &error {
                        Unreadable::Malformed(cause) => cause.to_string(),
                        Unreadable::UnknownType { .. } => String::new(),
                    };
                    warn!(count, reason, "a frame of the controller was ignored: {error}");
                }
            }
        }
    }

    fn measured(&mut self) {
        let readings = self.readings.borrow_and_update().clone();
        self.reporter.measured(&readings);
        if readings.complete() {
            self.take(Input::FactsRead);
        }
        self.register_changes();
        self.health_changes();
    }

    /// What is wrong with a GPU does not wait for the next heartbeat.
    fn health_changes(&mut self) {
        let news = match (&self.health, &self.readings.borrow().gpu) {
            (Some(told), Some(now)) => !told.same_health(now),
            _ => false,
        };
        if news {
            self.take(Input::HealthChanged);
        }
    }

    /// Compares what the controller was told with what the machine is, so that no change between the
    /// two is ever lost. A change of links or mounts alone may wait: containers cause them all the time.
    fn register_changes(&mut self) {
        let Some(registered) = &self.registered else { return };
        let inventory = Inventory::of(&self.readings.borrow());
        if *registered == inventory {
            return;
        }
        if registered.differs_in_links_or_mounts_alone(&inventory) {
            let now = tokio::time::Instant::now();
            if now < self.link_pace.next() {
                return;
            }
            self.link_pace = self.link_pace.told(now);
        }
        debug!("the machine is no longer what was registered");
        self.take(Input::InventoryChanged);
    }

    fn send_register(&mut self) {
        let (register, inventory) = {
            let readings = self.readings.borrow();
            if readings.facts.is_none() {
                warn!("registering without the facts of this machine: reading them does not end");
            }
            (self.identity.register(&readings), Inventory::of(&readings))
        };
        let (update, capabilities) = self.updates.tell();
        let register = Register { update, capabilities, ..register }.fitted();
        self.registered = Some(inventory);
        self.send(&register);
    }

    /// What an installer could not tell is told when the controller is known to listen.
    fn tell_undelivered(&mut self, beat: u64) {
        let Some(mut undelivered) = self.undelivered.take() else { return };
        let connection = self.connection;
        self.files.push(move || {
            let due = undelivered.due(connection, beat);
            Done::UndeliveredRead { connection, undelivered, due }
        });
    }

    fn file_done(&mut self, done: Option<Done>) {
        let input = match done {
            None => None,
            Some(Done::UndeliveredRead { connection, undelivered, due }) => {
                self.undelivered = Some(undelivered);
                for failure in due.into_iter().filter(|_| connection == self.connection) {
                    let (node_id, step) = (failure.node_id.clone(), failure.step.clone());
                    self.send(&InstallationFailed { node_id, step, error: failure.told_late().fitted() });
                }
                None
            }
            Some(Done::AuthoritiesRead(authorities)) => {
                self.authorities = authorities;
                None
            }
            Some(done) => self.token_done(done),
        };
        if let Some(input) = input {
            self.take(input);
        }
    }

    fn refuse(&self, message_id: Uuid, kind: &str) {
        warn!(%message_id, kind, "the controller asked for something that this worker cannot do");
        let message = format!("this worker cannot do `{kind}` yet");
        self.reject(message_id, ErrorReport::new(ErrorCode::CommandUnsupported, message));
    }

    fn reject(&self, message_id: Uuid, error: ErrorReport) {
        self.send(&CommandAck {
            node_id: self.identity.node_id.clone(),
            original_message_id: message_id,
            status: CommandStatus::Rejected,
            error: Some(error),
        });
    }

    fn send<B: Body>(&self, body: &B) {
        match encode(body, Uuid::now_v7(), now()) {
            Ok(text) if text.len() > MAX_FRAME_BYTES => {
                error!(kind = B::TYPE, bytes = text.len(), "a message is too long and was not sent");
            }
            Ok(text) => self.queue(Outgoing::Text(B::TYPE, text)),
            Err(error) => warn!(kind = B::TYPE, %error, "a message could not be written"),
        }
    }

    fn queue(&self, message: Outgoing) {
        if !self.link.as_ref().is_some_and(|link| link.send(message)) {
            debug!("a message was dropped: the controller does not read, or is gone");
        }
    }
}

async fn next_event(link: &mut Option<Link>) -> Event {
    match link {
        Some(link) => link.event().await,
        None => std::future::pending().await,
    }
}

fn now() -> Timestamp {
    SystemTime::now().into()
}
