//! The GPU health of nodes whose workers other controllers hold: what an event told last of each. It is seconds
//! old, and a word alone.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use aio_protocol::{ids::NodeId, telemetry::Health};

/// By node, where it is not `ok`.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere(RwLock<HashMap<NodeId, Health>>);

impl Elsewhere {
    /// Replaces all that is known.
    pub(crate) fn set(&self, healths: HashMap<NodeId, Health>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = healths;
    }

    /// How the GPUs of a node are whose worker is connected to another controller.
    pub(crate) fn health(&self, node: &NodeId) -> Health {
        let healths = self.0.read().unwrap_or_else(PoisonError::into_inner);
        healths.get(node).copied().unwrap_or_default()
    }
}
