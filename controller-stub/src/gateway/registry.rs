//! Which connection speaks for a node. A connection is the node's newcomer until its worker is welcomed, and speaks for the node from
//! then on; whoever spoke before is closed. Each has an epoch; what an older one does or how it ends changes nothing.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use aio_protocol::{ids::NodeId, wire::close};

use super::mailbox::{Mailbox, Order};

#[derive(Default)]
pub(crate) struct Registry {
    epochs: AtomicU64,
    places: Mutex<HashMap<NodeId, Place>>,
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
    mailbox: Arc<Mailbox>,
}

impl Registry {
    /// Takes a new connection in as the node's newcomer. An older newcomer that has not been welcomed yet is closed.
    pub(crate) fn enter(&self, id: &NodeId) -> (Epoch, Arc<Mailbox>) {
        let mailbox = Arc::new(Mailbox::default());
        let mut places = self.places();
        let epoch = Epoch(self.epochs.fetch_add(1, Ordering::Relaxed));
        let place = places.entry(id.clone()).or_default();
        dismiss(place.newcomer.replace(Line { epoch, mailbox: mailbox.clone() }), close::SUPERSEDED);
        (epoch, mailbox)
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
            let before = std::mem::replace(&mut place.speaker, place.newcomer.take());
            dismiss(before, close::SUPERSEDED);
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

    /// Takes a connection that has ended out; says whether it spoke for the node.
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
        if let Some(place) = self.places().remove(id) {
            dismiss(place.speaker, code);
            dismiss(place.newcomer, code);
        }
    }

    /// Asks the connection that speaks for the node for something; says whether there is one.
    #[expect(dead_code, reason = "token offers")]
    pub(crate) fn order(&self, id: &NodeId, order: Order) -> bool {
        let places = self.places();
        let speaker = places.get(id).and_then(|place| place.speaker.as_ref());
        speaker.inspect(|line| line.mailbox.post(order)).is_some()
    }

    /// Every connection's mailbox.
    pub(crate) fn mailboxes(&self) -> Vec<Arc<Mailbox>> {
        let places = self.places();
        let lines = places.values().flat_map(|place| place.speaker.iter().chain(&place.newcomer));
        lines.map(|line| line.mailbox.clone()).collect()
    }

    fn places(&self) -> MutexGuard<'_, HashMap<NodeId, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is(line: &Option<Line>, epoch: Epoch) -> bool {
    line.as_ref().is_some_and(|line| line.epoch == epoch)
}

fn dismiss(line: Option<Line>, code: u16) {
    if let Some(line) = line {
        line.mailbox.post(Order::Close(code));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> NodeId {
        NodeId::from_bytes([3; 12])
    }

    async fn closed(mailbox: &Mailbox) -> Order {
        mailbox.next().await
    }

    #[tokio::test]
    async fn who_is_welcomed_speaks_and_closes_who_spoke_before() {
        let registry = Registry::default();
        let (first, first_mail) = registry.enter(&id());
        registry.take_over(&id(), first);
        let (second, _mail) = registry.enter(&id());
        assert!(registry.speaks(&id(), first), "a newcomer that has not registered takes nobody's place");
        registry.take_over(&id(), second);
        assert_eq!(closed(&first_mail).await, Order::Close(close::SUPERSEDED));
        assert!(!registry.speaks(&id(), first) && registry.speaks(&id(), second));
    }

    #[tokio::test]
    async fn a_node_has_one_newcomer_at_a_time() {
        let registry = Registry::default();
        let (first, first_mail) = registry.enter(&id());
        let (second, _mail) = registry.enter(&id());
        assert_eq!(closed(&first_mail).await, Order::Close(close::SUPERSEDED));
        assert!(!registry.is_open(&id(), first) && registry.is_open(&id(), second));
        registry.take_over(&id(), first);
        assert!(!registry.has_speaker(&id()));
    }

    #[test]
    fn a_stale_connections_late_end_changes_nothing() {
        let registry = Registry::default();
        let (first, _mail) = registry.enter(&id());
        registry.take_over(&id(), first);
        let (second, _mail) = registry.enter(&id());
        registry.take_over(&id(), second);
        assert!(!registry.leave(&id(), first));
        assert!(registry.speaks(&id(), second));
        assert!(registry.leave(&id(), second));
        assert!(!registry.leave(&id(), second));
        assert!(registry.places().is_empty(), "nothing is left of who has gone");
    }

    #[tokio::test]
    async fn a_closed_node_is_not_heard_on_any_of_its_connections() {
        let registry = Registry::default();
        let (speaker, speaker_mail) = registry.enter(&id());
        registry.take_over(&id(), speaker);
        let (newcomer, newcomer_mail) = registry.enter(&id());
        registry.close(&id(), close::TOKEN_ENDED);
        for mailbox in [speaker_mail, newcomer_mail] {
            assert_eq!(closed(&mailbox).await, Order::Close(close::TOKEN_ENDED));
        }
        assert!(!registry.speaks(&id(), speaker) && !registry.is_open(&id(), newcomer));
        registry.take_over(&id(), newcomer);
        assert!(!registry.has_speaker(&id()));
    }
}
