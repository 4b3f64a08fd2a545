//! The update machine between the session and the world: what the controller, root and the operator
//! say become its inputs, its effects become errands and answers, and what it tells of itself goes
//! out with `node.register` and the status socket. Decides nothing.

use std::time::Instant;

use aio_protocol::{
    event::ErrorReport,
    release::ReleaseVersion,
    time::Timestamp,
    update::{RootRequest, UPDATE_CAPABILITY, UpdateReport},
    wire::{CommandAck, CommandStatus, ControllerMessage},
};
use jiff::tz::Offset;
use tracing::{info, warn};
use uuid::Uuid;

use super::{Driver, now};
use crate::{
    session::machine::Input as SessionInput,
    telemetry::{Readings, handover::Handover},
    update::{
        download::Route,
        errands::{Errands, Outcome, Sight},
        machine::{Effect, Input, Machine, Moment},
        memory::Memory,
        offer::Offer,
        order::Order,
        places::Places,
        policy::{Mode, Policy, Settings},
    },
};

/// What the daemon knew of updates before its loop began.
pub(crate) struct Beginning {
    pub(crate) places: Places,
    pub(crate) memory: Memory,
    pub(crate) sight: Sight,
}

/// The machine, and who runs its errands.
pub(super) struct Updates {
    machine: Machine,
    errands: Errands,
    sight: Sight,
    /// What `node.register` last said.
    told: (UpdateReport, Vec<String>),
}

impl Updates {
    pub(super) fn new(Beginning { places, memory, sight }: Beginning, settings: Settings) -> Self {
        let errands = Errands::new(places);
        let machine = Machine::new(ReleaseVersion::running(), memory);
        let mut updates = Self { machine, errands, told: Default::default(), sight: sight.clone() };
        let at = updates.moment(None);
        let policy = Policy { settings, packaged: sight.packaged, updater: sight.updater };
        let first = [
            Some(Input::PolicyChanged(Box::new(policy))),
            sight.root.clone().map(|root| Input::RootTold(Box::new(root))),
            put_off(&sight),
        ];
        for input in first.into_iter().flatten() {
            let (machine, effects) = updates.machine.clone().step(input, at);
            updates.machine = machine;
            updates.run_errands(effects, None);
        }
        updates
    }

    /// What can be done without the session.
    fn run_errands(&mut self, effects: Vec<Effect>, handover: Option<Handover>) {
        for effect in effects {
            match effect {
                Effect::Remember => self.errands.remember(self.machine.memory().clone()),
                Effect::ClearInbox => self.errands.clear_inbox(),
                Effect::StopDownload => self.errands.stop_download(),
                Effect::AskRoot(request) => {
                    self.errands.ask_root(request, self.machine.memory().clone(), handover.clone());
                }
                Effect::Acknowledge(_) | Effect::Reject(..) | Effect::Download(_) | Effect::Beat => {}
            }
        }
    }

    fn moment(&self, gpu_percent: Option<u8>) -> Moment {
        let wall = now();
        let window = self.machine.policy().settings.window.as_ref();
        Moment {
            now: tokio::time::Instant::now().into_std(),
            wall,
            window_open: window.is_none_or(|window| window.is_open_at(local(wall, self.sight.offset))),
            gpu_percent,
        }
    }

    /// What is next: an errand's outcome.
    pub(super) async fn next(&mut self) -> Outcome {
        self.errands.next().await
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.machine.deadline(tokio::time::Instant::now().into_std(), now())
    }

    pub(super) fn is_idle(&self) -> bool {
        self.machine.is_idle()
    }

    /// Whether this process ends for another version.
    pub(super) fn is_being_replaced(&self) -> bool {
        self.machine.is_being_replaced()
    }

    pub(super) fn look(&mut self) {
        self.errands.look();
    }

    /// Looks where nothing is under way and something may come. A node that takes no updates costs
    /// nothing for it.
    pub(super) fn look_at_rest(&mut self) {
        let settings = &self.machine.policy().settings;
        if self.is_idle() && (settings.mode != Mode::Off || self.sight.updater) {
            self.errands.look();
        }
    }

    pub(super) fn report(&self) -> UpdateReport {
        self.machine.report()
    }

    /// What `node.register` says of updates from now on.
    pub(super) fn tell(&mut self) -> (UpdateReport, Vec<String>) {
        self.told = self.news();
        self.told.clone()
    }

    fn news(&self) -> (UpdateReport, Vec<String>) {
        let able = self.machine.policy().is_able();
        (self.report(), able.then(|| UPDATE_CAPABILITY.to_owned()).into_iter().collect())
    }
}

fn put_off(sight: &Sight) -> Option<Input> {
    match sight.order {
        Some(Order::PutOff(until)) => Some(Input::PutOff(Some(until))),
        Some(Order::Now(_)) | None => None,
    }
}

fn local(wall: Timestamp, offset: Offset) -> jiff::civil::DateTime {
    offset.to_datetime(jiff::Timestamp::from_millisecond(wall.as_millis()).unwrap_or_default())
}

/// How busy the busiest GPU is.
fn busiest(readings: &Readings) -> Option<u8> {
    let gpu = readings.gpu.as_ref()?;
    let percents = gpu.details.iter().filter_map(|detail| detail.status.utilization);
    percents.map(|percent| u8::try_from(percent).unwrap_or(100)).max()
}

impl Driver {
    /// What the controller says of updates.
    pub(super) fn hear_of_update(&mut self, message_id: Uuid, message: ControllerMessage) {
        let input = match message {
            ControllerMessage::Update(update) => {
                info!(version = %update.version, id = ?update.update_id, "the controller offers a version");
                Input::Offered(message_id, update)
            }
            ControllerMessage::Permit(permit) => Input::Permitted(message_id, permit),
            ControllerMessage::CancelUpdate(cancel) => Input::Cancelled(message_id, cancel),
            other => return self.refuse(message_id, other.kind()),
        };
        self.update(input);
        // Its operator may have said something since the last look.
        self.updates.look();
    }

    pub(super) fn update_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Input(input) => self.update(input),
            Outcome::Seen(sight) => self.seen(*sight),
        }
    }

    /// Whether this daemon is stopped to make room for another is root's to say, who may have said
    /// so since the last look. An operator's way back is known to nobody else.
    pub(super) async fn look_once_more(&mut self) {
        if (self.updates.sight.updater || !self.updates.is_idle())
            && let Some(sight) = self.updates.errands.look_now().await
        {
            self.seen(sight);
        }
    }

    fn seen(&mut self, sight: Sight) {
        let before = std::mem::replace(&mut self.updates.sight, sight.clone());
        if (before.packaged, before.updater) != (sight.packaged, sight.updater) {
            self.go_by_update_policy();
        }
        if let Some(root) = sight.root.clone().filter(|root| before.root.as_ref() != Some(root)) {
            self.update(Input::RootTold(Box::new(root)));
        }
        match sight.order {
            Some(Order::Now(_)) => {
                info!("an operator wants what is offered now");
                self.update(Input::Hurried);
            }
            _ if sight.order == before.order => {}
            Some(Order::PutOff(until)) => {
                info!(%until, "an operator puts updates off");
                self.update(Input::PutOff(Some(until)));
            }
            None => self.update(Input::PutOff(None)),
        }
    }

    /// The configuration, or the installation, may be another.
    pub(super) fn go_by_update_policy(&mut self) {
        let Sight { packaged, updater, .. } = self.updates.sight;
        let policy = Policy { settings: self.config.updates.clone(), packaged, updater };
        if *self.updates.machine.policy() != policy {
            self.update(Input::PolicyChanged(Box::new(policy)));
            self.updates.look_at_rest();
        }
    }

    /// Gives the machine one input, and does what it says.
    pub(super) fn update(&mut self, input: Input) {
        let at = self.updates.moment(busiest(&self.readings.borrow()));
        let (machine, effects) = self.updates.machine.clone().step(input, at);
        let before = std::mem::replace(&mut self.updates.machine, machine);
        self.log_update(&before);
        for effect in &effects {
            match effect {
                Effect::Acknowledge(message_id) => self.acknowledge(*message_id),
                Effect::Reject(message_id, error) => self.refuse_update(*message_id, error.clone()),
                Effect::Download(offer) => self.download(offer),
                Effect::Beat => self.take(SessionInput::HealthChanged),
                Effect::AskRoot(_) | Effect::Remember | Effect::ClearInbox | Effect::StopDownload => {}
            }
        }
        let switches = effects.iter().any(|it| matches!(it, Effect::AskRoot(RootRequest::Switch { .. })));
        let handover = switches.then(|| Handover::of(&self.readings.borrow(), at.wall)).flatten();
        self.updates.run_errands(effects, handover);
        self.reporter.updating(&self.updates.report());
        self.register_update();
    }

    /// Tells the controller at once where the node is on its way to another version.
    pub(super) fn register_update(&mut self) {
        if self.registered.is_some() && self.updates.told != self.updates.news() {
            self.take(SessionInput::InventoryChanged);
        }
    }

    fn download(&mut self, offer: &Offer) {
        let config = self.config.clone();
        let source = Box::new(move || {
            Ok(Route {
                trust: config.release_trust()?,
                proxy: config.proxy.clone(),
                insecure_http: config.insecure_http,
            })
        });
        self.updates.errands.download(offer.clone(), source);
    }

    fn acknowledge(&self, message_id: Uuid) {
        self.send(&CommandAck {
            node_id: self.identity.node_id.clone(),
            original_message_id: message_id,
            status: CommandStatus::Accepted,
            error: None,
        });
    }

    fn refuse_update(&self, message_id: Uuid, error: ErrorReport) {
        let ErrorReport { code, message, .. } = &error;
        warn!(%message_id, code, "what the controller says of an update is not taken: {message}");
        self.reject(message_id, error);
    }

    /// Says what an operator cares about, once.
    fn log_update(&self, before: &Machine) {
        let (before, after) = (before.report(), self.updates.report());
        if after.last != before.last
            && let Some(last) = &after.last
        {
            let (verdict, code) = (last.verdict, last.code.as_deref());
            let message = last.message.as_deref();
            info!(version = %last.version, ?verdict, code, message, "an update has ended");
        }
        if (after.state, &after.reason) != (before.state, &before.reason)
            && let Some(target) = &after.target
        {
            let reason = after.reason.as_deref();
            info!(version = %target, state = ?after.state, reason, "an update goes on");
        }
    }
}
