//! Which connection speaks for a node. A connection is the node's newcomer until its worker is welcomed, and
//! speaks for the node from then on; the one that spoke before is closed. Each has an epoch, so that an older
//! connection changes nothing any more. A revocation of tokens also closes who was let in with one before it
//! and enters only now.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use aio_protocol::{
    ids::NodeId,
    telemetry::{Health, HealthSummary},
    wire::close,
};
use tokio::sync::{Notify, oneshot, watch};

/// Longest time between an upgrade's look at the token and its entry here.
const LONGEST_UPGRADE: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(crate) struct Registry {
    epochs: AtomicU64,
    places: Mutex<HashMap<NodeId, Place>>,
    /// Nodes whose tokens were revoked lately, and when.
    revoked: Mutex<HashMap<NodeId, Instant>>,
    /// How often a node's health has changed.
    health_changes: watch::Sender<u64>,
}

/// Tells a node's connections apart, in the order in which they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Epoch(u64);

/// A node's connections: never more than two, so no token opens more than that.
#[derive(Default)]
struct Place {
    speaker: Option<Line>,
    newcomer: Option<Line>,
}

struct Line {
    epoch: Epoch,
    /// Takes the code to close with, once.
    close: Option<oneshot::Sender<u16>>,
    /// Wakes it when there is something to tell its worker.
    nudge: Arc<Notify>,
    /// How the worker says that its GPUs are, since its first heartbeat.
    health: Option<HealthSummary>,
}

impl Registry {
    /// Adds a new connection as the node's newcomer; its upgrade began at `since`. An older
    /// newcomer that has not been welcomed yet is closed. The receiver yields the code to close
    /// with; the other wakes the connection when there is something to tell.
    pub(crate) fn enter(&self, id: &NodeId, since: Instant) -> (Epoch, oneshot::Receiver<u16>, Arc<Notify>) {
        let (close, closed) = oneshot::channel();
        let nudge = Arc::<Notify>::default();
        let mut places = self.places();
        let epoch = Epoch(self.epochs.fetch_add(1, Ordering::Relaxed));
        if self.revoked().get(id).is_some_and(|at| since <= *at) {
            let _ = close.send(close::TOKEN_ENDED);
            return (epoch, closed, nudge);
        }
        let place = places.entry(id.clone()).or_default();
        dismiss(
            place
                .newcomer
                .replace(Line { epoch, close: Some(close), nudge: nudge.clone(), health: None })
                .as_mut(),
            close::SUPERSEDED,
        );
        (epoch, closed, nudge)
    }

    /// How many connections have come since the start.
    pub(crate) fn entered(&self) -> u64 {
        self.epochs.load(Ordering::Relaxed)
    }

    /// Whether this connection is still open to be welcomed, or speaks already.
    pub(crate) fn is_open(&self, id: &NodeId, epoch: Epoch) -> bool {
        self.places().get(id).is_some_and(|place| is(&place.newcomer, epoch) || is(&place.speaker, epoch))
    }

    /// Lets a newcomer speak for the node, and closes who did before.
    pub(crate) fn take_over(&self, id: &NodeId, epoch: Epoch) {
        let mut places = self.places();
        if let Some(place) = places.get_mut(id)
            && is(&place.newcomer, epoch)
        {
            let mut before = std::mem::replace(&mut place.speaker, place.newcomer.take());
            dismiss(before.as_mut(), close::SUPERSEDED);
        }
    }

    /// Whether this connection speaks for the node.
    pub(crate) fn speaks(&self, id: &NodeId, epoch: Epoch) -> bool {
        self.places().get(id).is_some_and(|place| is(&place.speaker, epoch))
    }

    /// Whether any connection speaks for the node.
    pub(crate) fn has_speaker(&self, id: &NodeId) -> bool {
        self.places().get(id).is_some_and(|place| place.speaker.is_some())
    }

    /// Wakes the connection that speaks for a node: there may be something to tell its worker.
    pub(crate) fn nudge(&self, id: &NodeId) {
        if let Some(line) = self.places().get(id).and_then(|place| place.speaker.as_ref()) {
            line.nudge.notify_one();
        }
    }

    /// Notes how a worker that speaks for its node says that its GPUs are.
    pub(crate) fn note_health(&self, id: &NodeId, epoch: Epoch, health: HealthSummary) {
        let mut places = self.places();
        let speaker = places.get_mut(id).and_then(|place| place.speaker.as_mut());
        if let Some(line) = speaker.filter(|line| line.epoch == epoch)
            && line.health.as_ref() != Some(&health)
        {
            line.health = Some(health);
            self.health_changes.send_modify(|changes| *changes += 1);
        }
    }

    /// Changes whenever a node's health has.
    #[cfg(feature = "pages")]
    pub(crate) fn health_changes(&self) -> watch::Receiver<u64> {
        self.health_changes.subscribe()
    }

    /// How the worker that speaks for a node says that its GPUs are; nothing while none is connected.
    pub(crate) fn health(&self, id: &NodeId) -> Option<HealthSummary> {
        self.places().get(id)?.speaker.as_ref()?.health.clone()
    }

    /// The nodes whose workers say one of these of their GPUs.
    pub(crate) fn with_health(&self, healths: &[Health]) -> Vec<NodeId> {
        let places = self.places();
        let is = |place: &Place| Some(healths.contains(&place.speaker.as_ref()?.health.as_ref()?.state));
        places.iter().filter(|(_, place)| is(place) == Some(true)).map(|(id, _)| id.clone()).collect()
    }

    /// How every worker that speaks for a node says that its GPUs are.
    pub(crate) fn summaries(&self) -> Vec<(NodeId, HealthSummary)> {
        let places = self.places();
        let told = places
            .iter()
            .filter_map(|(id, place)| Some((id.clone(), place.speaker.as_ref()?.health.clone()?)));
        told.collect()
    }

    /// How many nodes are how well, by what their workers say.
    pub(crate) fn healths(&self) -> HashMap<Health, usize> {
        let mut counts = HashMap::new();
        let places = self.places();
        for health in places.values().filter_map(|place| place.speaker.as_ref()?.health.as_ref()) {
            *counts.entry(health.state).or_default() += 1;
        }
        counts
    }

    /// Removes a connection that has ended; says whether it spoke for the node.
    pub(crate) fn leave(&self, id: &NodeId, epoch: Epoch) -> bool {
        let mut places = self.places();
        let Some(place) = places.get_mut(id) else { return false };
        let spoke = place.speaker.take_if(|line| line.epoch == epoch).is_some();
        place.newcomer.take_if(|line| line.epoch == epoch);
        if place.speaker.is_none() && place.newcomer.is_none() {
            places.remove(id);
        }
        spoke
    }

    /// Closes every connection of a node. From this moment none of them is heard.
    pub(crate) fn close(&self, id: &NodeId, code: u16) {
        let mut places = self.places();
        if code == close::TOKEN_ENDED {
            let now = Instant::now();
            let mut revoked = self.revoked();
            revoked.retain(|_, at| now.saturating_duration_since(*at) < LONGEST_UPGRADE);
            revoked.insert(id.clone(), now);
        }
        if let Some(mut place) = places.remove(id) {
            dismiss(place.speaker.as_mut(), code);
            dismiss(place.newcomer.as_mut(), code);
        }
    }

    /// Closes the connection that speaks for a node, and hears it no more: another controller holds the node.
    pub(crate) fn displace(&self, id: &NodeId) {
        let mut places = self.places();
        let Some(place) = places.get_mut(id) else { return };
        dismiss(place.speaker.take().as_mut(), close::SUPERSEDED);
        if place.newcomer.is_none() {
            places.remove(id);
        }
    }

    /// Asks the connections of `nodes` more nodes to close. They are heard until they have.
    pub(crate) fn send_away(&self, nodes: usize, code: u16) {
        let mut places = self.places();
        let stay = places.values_mut().filter_map(|place| {
            let mut lines = place.lines().filter(|line| line.close.is_some()).peekable();
            lines.peek().is_some().then_some(lines)
        });
        stay.take(nodes).flatten().for_each(|line| dismiss(Some(line), code));
    }

    /// How many nodes have a connection.
    pub(crate) fn len(&self) -> usize {
        self.places().len()
    }

    fn revoked(&self) -> MutexGuard<'_, HashMap<NodeId, Instant>> {
        self.revoked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn places(&self) -> MutexGuard<'_, HashMap<NodeId, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is(line: &Option<Line>, epoch: Epoch) -> bool {
    line.as_ref().is_some_and(|line| line.epoch == epoch)
}

fn dismiss(line: Option<&mut Line>, code: u16) {
    if let Some(close) = line.and_then(|line| line.close.take()) {
        let _ = close.send(code);
    }
}

impl Place {
    fn lines(&mut self) -> impl Iterator<Item = &mut Line> {
        self.speaker.iter_mut().chain(&mut self.newcomer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> NodeId {
        NodeId::from_bytes([3; 12])
    }

    #[test]
    fn health_is_the_speaker_s_alone_and_goes_with_it() {
        let registry = Registry::default();
        let ill = HealthSummary { state: Health::Unhealthy, ..HealthSummary::default() };
        let (older, ..) = registry.enter(&id(), Instant::now());
        registry.note_health(&id(), older, ill.clone());
        assert_eq!(registry.health(&id()), None, "a newcomer does not speak");
        registry.take_over(&id(), older);
        registry.note_health(&id(), older, ill.clone());
        assert_eq!(registry.health(&id()), Some(ill.clone()));
        assert_eq!(registry.healths(), HashMap::from([(Health::Unhealthy, 1)]));
        let (newer, ..) = registry.enter(&id(), Instant::now());
        registry.take_over(&id(), newer);
        registry.note_health(&id(), older, ill);
        assert_eq!(registry.health(&id()), None, "the older one is not heard");
        registry.leave(&id(), newer);
        assert_eq!(registry.healths(), HashMap::new());
    }

    fn enter(registry: &Registry) -> (Epoch, oneshot::Receiver<u16>) {
        let (epoch, closed, _) = registry.enter(&id(), Instant::now());
        (epoch, closed)
    }

    #[test]
    fn who_is_welcomed_speaks_and_closes_who_spoke_before() {
        let registry = Registry::default();
        let (first, mut first_closed) = enter(&registry);
        registry.take_over(&id(), first);
        let (second, _closed) = enter(&registry);
        assert!(registry.speaks(&id(), first), "a newcomer that has not registered takes nobody's place");
        registry.take_over(&id(), second);
        assert_eq!(first_closed.try_recv(), Ok(close::SUPERSEDED));
        assert!(!registry.speaks(&id(), first) && registry.speaks(&id(), second));
    }

    #[test]
    fn a_node_has_one_newcomer_at_a_time() {
        let registry = Registry::default();
        let (first, mut first_closed) = enter(&registry);
        let (second, _closed) = enter(&registry);
        assert_eq!(first_closed.try_recv(), Ok(close::SUPERSEDED));
        assert!(!registry.is_open(&id(), first) && registry.is_open(&id(), second));
        registry.take_over(&id(), first);
        assert!(!registry.has_speaker(&id()));
    }

    #[test]
    fn a_stale_connections_late_end_changes_nothing() {
        let registry = Registry::default();
        let (first, _closed) = enter(&registry);
        registry.take_over(&id(), first);
        let (second, _closed) = enter(&registry);
        registry.take_over(&id(), second);
        assert!(!registry.leave(&id(), first));
        assert!(registry.speaks(&id(), second));
        assert!(registry.leave(&id(), second));
        assert!(!registry.leave(&id(), second));
        assert_eq!(registry.len(), 0, "nothing is left of who has gone");
    }

    #[test]
    fn a_closed_node_is_not_heard_on_any_of_its_connections() {
        let registry = Registry::default();
        let (speaker, mut speaker_closed) = enter(&registry);
        registry.take_over(&id(), speaker);
        let (newcomer, mut newcomer_closed) = enter(&registry);
        registry.close(&id(), close::SILENT);
        for closed in [&mut speaker_closed, &mut newcomer_closed] {
            assert_eq!(closed.try_recv(), Ok(close::SILENT));
        }
        assert!(!registry.speaks(&id(), speaker) && !registry.is_open(&id(), newcomer));
        registry.take_over(&id(), newcomer);
        assert!(!registry.has_speaker(&id()));
    }

    #[test]
    fn another_controllers_node_loses_its_speaker_and_a_newcomer_may_still_come() {
        let registry = Registry::default();
        let (speaker, mut speaker_closed) = enter(&registry);
        registry.take_over(&id(), speaker);
        let (newcomer, mut newcomer_closed) = enter(&registry);
        registry.displace(&id());
        assert_eq!(speaker_closed.try_recv(), Ok(close::SUPERSEDED));
        assert!(newcomer_closed.try_recv().is_err() && registry.is_open(&id(), newcomer));
        assert!(!registry.speaks(&id(), speaker) && !registry.leave(&id(), speaker));
        registry.leave(&id(), newcomer);
        registry.displace(&id());
        assert_eq!(registry.len(), 0);
    }

    #[test]
    fn a_revocation_overtakes_an_upgrade_that_began_before_it() {
        let registry = Registry::default();
        let before = Instant::now();
        registry.close(&id(), close::TOKEN_ENDED);
        let (late, mut late_closed, _) = registry.enter(&id(), before);
        assert_eq!(late_closed.try_recv(), Ok(close::TOKEN_ENDED));
        assert!(!registry.is_open(&id(), late));
        let (next, mut next_closed, _) = registry.enter(&id(), Instant::now() + Duration::from_millis(1));
        assert!(next_closed.try_recv().is_err() && registry.is_open(&id(), next));
    }

    #[test]
    fn all_are_sent_away_a_part_at_a_time_and_each_once() {
        let registry = Registry::default();
        let mut closed: Vec<_> = (0..10)
            .map(|byte| {
                let id = NodeId::from_bytes([byte; 12]);
                let (epoch, closed, _) = registry.enter(&id, Instant::now());
                registry.take_over(&id, epoch);
                closed
            })
            .collect();
        let mut gone = 0;
        for count in [0, 4, 4, usize::MAX, usize::MAX] {
            registry.send_away(count, close::RESTART);
            gone = (gone + count.min(10)).min(10);
            let asked =
                closed.iter_mut().filter(|closed| !closed.is_empty() || closed.is_terminated()).count();
            assert_eq!(asked, gone);
        }
    }
}
