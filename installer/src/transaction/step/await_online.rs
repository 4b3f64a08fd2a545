//! Waits until the controller has acknowledged a heartbeat of the worker: the proof that all before was right. Changes nothing.

use std::time::Duration;

use aio_protocol::ids::NodeId;

use super::action::Action;
use crate::{
    controller::online,
    failure::Failure,
    machine::host::Host,
    transaction::{journal::copies::Copies, undo::record::Undo, work::Work},
};

/// Waits for the first acknowledged heartbeat.
#[derive(Debug)]
pub(crate) struct AwaitOnline {
    pub(crate) node: NodeId,
    pub(crate) patience: Duration,
}

impl Action for AwaitOnline {
    const NAME: &'static str = "await_online";

    fn summary(&self) -> String {
        "wait until the controller has acknowledged a heartbeat".to_owned()
    }

    fn way_back(&self, _: &Host, _: &mut Copies) -> Result<Vec<Undo>, Failure> {
        Ok(Vec::new())
    }

    async fn apply(&self, work: &Work<'_>) -> Result<(), Failure> {
        let snapshot = online::settled(work.host, &self.node, self.patience).await?;
        work.online.replace(Some(snapshot));
        Ok(())
    }
}
