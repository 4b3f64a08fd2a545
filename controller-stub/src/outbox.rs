//! Tells NOTI what happened to nodes: at least once, in order per node, from rows that were committed with the changes
//! themselves. `relay` decides what is posted when, `retry` how long to wait, `delivery` how to post.

mod delivery;
mod relay;
mod retry;

use aio_protocol::ids::NodeId;
use tokio::sync::mpsc;

pub(crate) use delivery::{Delivery, Unbuildable};
pub(crate) use relay::Relay;

/// So many rings are remembered; the relay looks by itself every second, so one more is no loss.
const RINGS: usize = 1024;

/// Tells the relay that a node has an event to deliver.
#[derive(Clone)]
pub(crate) struct Doorbell(mpsc::Sender<NodeId>);

impl Doorbell {
    /// A doorbell, and where it is heard.
    pub(crate) fn new() -> (Self, mpsc::Receiver<NodeId>) {
        let (sender, receiver) = mpsc::channel(RINGS);
        (Self(sender), receiver)
    }

    pub(crate) fn ring(&self, id: &NodeId) {
        let _ = self.0.try_send(id.clone());
    }
}
